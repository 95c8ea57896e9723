import { createHash } from 'node:crypto'
import { formatBytes, formatCount, formatDuration, formatRate } from '../cli/format.ts'
import { VERSION } from '../version.ts'
import { charts } from './charts.ts'
import { html, Markup } from './html.ts'
import { isFailure, type ReportModel, type ServerReport } from './model.ts'
import { STYLE } from './style.ts'
import { badRuns, monthTable, removeTable, snapshotTable, storeTable } from './tables.ts'
import { timeline } from './timeline.ts'
import { ageText, policyText, timeText } from './words.ts'

const STATES = {
  good: { mark: '✓', word: 'Good' },
  attention: { mark: '!', word: 'Needs attention' },
  problem: { mark: '✕', word: 'Problem' },
}
const MARKS = {
  problem: { mark: '✕', word: 'Problem' },
  attention: { mark: '!', word: 'Attention' },
  info: { mark: 'i', word: 'Note' },
}

/** Nothing is loaded and nothing runs: the one style is named by its hash, and even a script that got in would do nothing. */
const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
].join('; ')

/**
 * Writes the page: one file, which needs nothing beside it and no script.
 * @returns HTML that is well-formed XML too.
 */
export function renderReport(model: ReportModel): string {
  const { servers, unreadable, generated } = model
  const title = servers.length === 1 ? `Backups of ${servers[0]?.server}` : `Backups of ${servers.length} servers`
  const page = html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="${POLICY}"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="robots" content="noindex"/>
<meta name="referrer" content="no-referrer"/>
<title>${title}</title>
<link rel="icon" href="data:,"/>
<style>${new Markup(STYLE)}</style>
</head>
<body>
<header>
<h1>${title}</h1>
<p class="soft">As of <time datetime="${generated}">${timeText(generated)}</time>. All times are UTC, and ages are reckoned from then.</p>
${unreadable.map(({ location, reason }) => html`<p class="problem"><span class="mark">✕</span> ${location} could not be read, and is not in this report: ${reason}</p>`)}
</header>
<main>
${servers.length > 1 && overview(servers)}
${servers.map(section)}
${servers.length === 0 && html`<p>There are no snapshots in the stores that were read.</p>`}
</main>
<footer><p>Made by millrace ${VERSION}. Sizes are in powers of 1024: a GiB is 1,073,741,824 bytes. Content sizes, verifications and runs are those that this machine knows of; the rest is what the store lists.</p></footer>
</body>
</html>
`
  return page.text
}

function overview(servers: readonly ServerReport[]): Markup {
  return html`<section class="scroll" aria-label="All servers" tabindex="0"><table>
<thead><tr><th scope="col">Server</th><th scope="col">State</th><th scope="col">Newest</th><th scope="col" class="number">Snapshots</th><th scope="col" class="number">Stored</th></tr></thead>
<tbody>${servers.map(overviewRow)}
</tbody></table></section>`
}

function overviewRow({ server, state, stores, newest, counts, storedBytes }: ServerReport): Markup {
  const isRead = stores[0]?.problem === null
  const age = newest ? `${ageText(newest.ageMs)} ago` : isRead ? 'none' : 'not known'
  const numbers = isRead ? [counts.complete.toLocaleString('en'), formatBytes(storedBytes)] : ['–', '–']
  return html`
<tr><th scope="row"><a href="#server-${server}">${server}</a></th><td>${pill(state)}</td><td>${age}</td>${numbers.map((one) => html`<td class="number">${one}</td>`)}</tr>`
}

function pill(state: ServerReport['state']): Markup {
  const { mark, word } = STATES[state]
  return html`<span class="state ${state}"><span aria-hidden="true">${mark}</span>${word}</span>`
}

function section(report: ServerReport): Markup {
  const { server, state, findings, stores, timeline: line, counts, policy, snapshots, months } = report
  const shown = counts.complete + counts.unfinished
  return html`<section class="server" id="server-${server}" aria-labelledby="h-${server}">
<div class="head"><h2 id="h-${server}">${server}</h2>${pill(state)}</div>
<p class="soft">${stores.length === 1 ? stores[0]?.location : `${stores.length} stores; what follows is of ${stores[0]?.location}`}</p>
${
  findings.length > 0 &&
  html`<ul class="findings">${findings.map(({ level, text }) => html`<li class="${level}"><span class="mark" aria-hidden="true">${MARKS[level].mark}</span><span><span class="unseen">${MARKS[level].word}: </span>${text}</span></li>`)}</ul>`
}
${figures(report)}
${stores.length > 1 && html`<h3>Stores</h3>${storeTable(stores)}`}
${
  line.all.length > 0 &&
  html`<h3>What is kept, and by which rule</h3>
<p class="note">The policy keeps ${policyText(policy)}. A snapshot that any rule keeps stays. The further left, the older: each step to the left is a longer time.</p>
<figure><div class="frame">${timeline(report)}</div></figure>`
}
${counts.remove > 0 && html`<h3>What the next prune removes</h3>${removeTable(report)}`}
${charts(report)}
${report.runs.bad.length > 0 && html`<h3>Runs that did not go well</h3>${badRuns(report.runs.bad, report.runs.badCount)}`}
${shown > 0 && html`<h3>Snapshots</h3>${snapshotTable(server, snapshots, shown)}`}
${months.length > 0 && html`<details><summary>Older snapshots, by month</summary>${monthTable(months)}</details>`}
</section>`
}

function figures(report: ServerReport): Markup {
  const { stores, newest, maxAge, counts, storedBytes, removeBytes, lastVerified, lastBackup, oldest, runs } = report
  return html`<dl class="figures">
${
  stores[0]?.problem === null &&
  html`${figure('Newest snapshot', newest ? `${ageText(newest.ageMs)} old` : 'None', [newest && timeText(newest.created), maxAge && `the limit is ${maxAge}`])}
${figure('Complete snapshots', counts.complete.toLocaleString('en'), [oldest && `since ${oldest.slice(0, 10)}`, counts.pinned > 0 && `${counts.pinned} pinned`, counts.unfinished > 0 && `${counts.unfinished} unfinished`])}
${figure('Stored', formatBytes(storedBytes), [removeBytes > 0 && `the next prune frees ${formatBytes(removeBytes)}`])}`
}
${figure('Last verified', lastVerified ? `${ago(report, lastVerified.at)}` : 'Not known', [lastVerified && `${lastVerified.status === 'ok' ? 'good' : lastVerified.status} (${lastVerified.mode})`])}
${figure('Last backup run', lastBackup ? (lastBackup.outcome === 'ok' ? 'Good' : isFailure(lastBackup) ? 'Failed' : 'Incomplete') : 'Not known', lastBackup ? [`${timeText(lastBackup.at)}`, `took ${formatDuration(lastBackup.elapsedMs)}`, lastBackup.bytes !== undefined && lastBackup.elapsedMs > 0 && formatRate((lastBackup.bytes * 1000) / lastBackup.elapsedMs)] : [])}
${runs.since !== null && figure('Backup runs known', runs.backups.toLocaleString('en'), [runs.failed > 0 ? `${formatCount(runs.failed, 'failure')}` : 'none failed', runs.incomplete > 0 && `${runs.incomplete} incomplete`, `since ${runs.since.slice(0, 10)}`])}
</dl>`
}

function figure(term: string, value: string, more: readonly (string | false | null | undefined)[]): Markup {
  const said = more.filter(Boolean).join(', ')
  return html`<div><dt>${term}</dt><dd class="value">${value}</dd>${said !== '' && html`<dd class="more">${said}</dd>`}</div>`
}

function ago({ timeline: { scale } }: ServerReport, at: string): string {
  return `${ageText(scale.now - Date.parse(at))} ago`
}
