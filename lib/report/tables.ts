import { formatBytes, formatDuration, formatRatio } from '../cli/format.ts'
import type { RecordedRun } from '../history.ts'
import { type Content, html, type Markup } from './html.ts'
import type { MonthRow, ServerReport, SnapshotRow, StoreSummary } from './model.ts'
import { shortReason } from './tiers.ts'
import { ageText, countText, rangeText, shortTime } from './words.ts'

/** Rows of snapshots that are seen at once; the others unfold. */
const ROWS_OPEN = 40

interface Column {
  name: string
  /** Numbers stand to the right. */
  number?: boolean
}

/** A table that scrolls by itself where it is wider than the page. The first cell of a row is its heading. */
function table(label: string, columns: readonly Column[], rows: readonly Content[]): Markup {
  return html`<section class="scroll" aria-label="${label}" tabindex="0"><table>
<thead><tr>${columns.map(({ name, number }) => html`<th scope="col"${number && html` class="number"`}>${name}</th>`)}</tr></thead>
<tbody>
${rows}</tbody></table></section>`
}

/** @param all how many there are. */
export function snapshotTable(server: string, rows: readonly SnapshotRow[], all: number): Markup {
  const note =
    rows.length < all ? `The newest ${rows.length} of ${countText(all)}; the others are by month below. ` : ''
  const more = rows.slice(ROWS_OPEN)
  return html`<p class="note">${note}“daily 3 of 14” says that it is the newest of its day, and that day the third of the 14 that count.</p>
${snapshotRows(`Snapshots of ${server}`, rows.slice(0, ROWS_OPEN))}
${more.length > 0 && html`<details><summary>${countText(more.length)} before these</summary>${snapshotRows(`More snapshots of ${server}`, more)}</details>`}`
}

function snapshotRows(label: string, rows: readonly SnapshotRow[]): Markup {
  const columns: Column[] = [
    { name: 'Made (UTC)' },
    { name: 'Kept by' },
    { name: 'Stored', number: true },
    { name: 'Content', number: true },
    { name: 'Ratio', number: true },
    { name: 'Consistency' },
    { name: 'Verified' },
    { name: 'Id' },
  ]
  return table(
    label,
    columns,
    rows.map(
      (
        row,
      ) => html`<tr><th scope="row" class="time">${shortTime(row.created)}</th>${whyCell(row)}<td class="number">${formatBytes(row.storedBytes)}</td><td class="number">${row.bytes === null ? '–' : formatBytes(row.bytes)}</td><td class="number">${row.bytes === null ? '–' : formatRatio(row.bytes, row.storedBytes)}</td><td>${row.consistency ?? '–'}${!row.encrypted && ', not encrypted'}</td><td>${verifiedText(row.verified)}</td><td class="id">${row.id}</td></tr>
`,
    ),
  )
}

function whyCell({ action, tiers, reasons, note }: SnapshotRow): Markup {
  const tag = (tier: string | undefined, text: string) => html`<span class="tag ${tier}">${text}</span>`
  const why =
    action === 'keep'
      ? reasons.map(shortReason).map(({ tier, text }) => tag(tier, text))
      : html`${tiers.includes('unfinished') && tag('unfinished', 'unfinished')}${tag('remove', 'to remove')}<span class="note">${reasons.join('; ')}</span>`
  return html`<td class="why">${why}${note !== null && html`<span class="note">Pinned: ${note}</span>`}</td>`
}

function verifiedText(verified: SnapshotRow['verified']): Content {
  if (!verified) return '–'
  const { status, mode, at } = verified
  if (status === 'ok') return `${at.slice(0, 10)}, ${mode}`
  return html`<span class="tag ${status}">${status}</span> ${at.slice(0, 10)}, ${mode}`
}

/** Snapshots that go for one reason are one row. */
export function removeTable({ server, counts, removeBytes, remove }: ServerReport): Markup {
  const columns = [{ name: 'Made (UTC)' }, { name: 'Why no rule keeps it' }, { name: 'Stored', number: true }]
  const shown = remove.reduce((sum, { count }) => sum + count, 0)
  const newest = shown < counts.remove ? ` These are the newest ${shown.toLocaleString('en')}.` : ''
  return html`<p class="note">${countText(counts.remove)}, ${formatBytes(removeBytes)}.${newest}</p>${table(
    `What the next prune of ${server} removes`,
    columns,
    remove.map(
      ({
        from,
        to,
        count,
        reasons,
        storedBytes,
      }) => html`<tr><th scope="row" class="time">${rangeText(from, to)}${count > 1 && html`<span class="note">${countText(count)}</span>`}</th><td class="text">${reasons.join('; ')}</td><td class="number">${formatBytes(storedBytes)}</td></tr>
`,
    ),
  )}`
}

export function monthTable(months: readonly MonthRow[]): Markup {
  const columns = [
    { name: 'Month' },
    { name: 'Snapshots', number: true },
    { name: 'To remove', number: true },
    { name: 'Stored', number: true },
  ]
  return table(
    'Older snapshots by month',
    columns,
    months.map(
      ({
        month,
        snapshots,
        remove,
        storedBytes,
      }) => html`<tr><th scope="row" class="time">${month}</th><td class="number">${snapshots.toLocaleString('en')}</td><td class="number">${remove.toLocaleString('en')}</td><td class="number">${formatBytes(storedBytes)}</td></tr>
`,
    ),
  )
}

/** @param all how many there are. */
export function badRuns(runs: readonly RecordedRun[], all: number): Markup {
  const columns = [
    { name: 'Ended (UTC)' },
    { name: 'Outcome' },
    { name: 'Why' },
    { name: 'Run' },
    { name: 'Took', number: true },
  ]
  const note = runs.length < all && html`<p class="note">The newest ${runs.length} of ${all.toLocaleString('en')}.</p>`
  return html`${note}${table(
    'Runs that did not go well',
    columns,
    runs.map(
      (
        run,
      ) => html`<tr><th scope="row" class="time">${shortTime(run.at)}</th><td>${run.outcome} (${run.exitCode})</td><td class="text">${whyBad(run)}</td><td>${run.command}</td><td class="number">${formatDuration(run.elapsedMs)}</td></tr>
`,
    ),
  )}`
}

function whyBad({ error, destinations = [] }: RecordedRun): string {
  if (error) return error.message
  const failed = destinations.filter(({ ok }) => !ok).map(({ destination }) => destination)
  return failed.length > 0 ? `failed: ${failed.join(', ')}` : '–'
}

export function storeTable(stores: readonly StoreSummary[]): Markup {
  const columns = [
    { name: 'Store' },
    { name: 'Newest complete' },
    { name: 'Complete', number: true },
    { name: 'Unfinished', number: true },
    { name: 'Stored', number: true },
  ]
  return table(
    'Stores',
    columns,
    stores.map((store) => {
      const { location, problem, complete, unfinished, storedBytes } = store
      const numbers =
        problem === null ? [complete.toLocaleString('en'), unfinished, formatBytes(storedBytes)] : ['–', '–', '–']
      return html`<tr><th scope="row">${location}</th><td>${newestIn(store)}</td>${numbers.map((one) => html`<td class="number">${one}</td>`)}</tr>
`
    }),
  )
}

function newestIn({ problem, newest, tooOld }: StoreSummary): string {
  if (problem !== null) return 'could not be read'
  return newest ? `${ageText(newest.ageMs)} old${tooOld ? ', too old' : ''}` : 'none'
}
