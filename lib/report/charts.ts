import { formatBytes, formatRate } from '../cli/format.ts'
import { html, type Markup } from './html.ts'
import type { ServerReport } from './model.ts'
import { byteAxis, dateAxis, numberAxis } from './scale.ts'
import type { Point } from './series.ts'
import { chart } from './svg.ts'
import { timeText } from './words.ts'

const HEIGHT = 170
const SPAN_MIN_MS = 24 * 3_600_000

/** Size, ratio and speed over time, those of which anything is known. */
export function charts(report: ServerReport): Markup {
  const shown = [sizes(report), ratio(report), speed(report)].filter((one) => one !== undefined)
  return html`<div class="charts">${shown}</div>`
}

function sizes({ server, counts, stored, content, timeline: { scale } }: ServerReport): Markup | undefined {
  if (stored.length === 0) return undefined
  const y = byteAxis(greatest([...stored, ...content]))
  const { from, to } = rangeOf(stored, scale.now)
  const known = content.length > 0
  const told = content.reduce((sum, { count }) => sum + count, 0)
  const lines = [
    ...(known ? [{ name: 'content', points: content, joined: true }] : []),
    { name: 'stored', points: stored, joined: true },
  ]
  return html`<div><h3>Size of each snapshot</h3>
<p class="note">${key('stored')}${known && key('content')}${told < counts.complete && `Content is known here for ${told.toLocaleString('en')} of ${counts.complete.toLocaleString('en')}; millrace list --long asks for the others.`}</p>
<figure><div class="frame">${chart({
    ...{ id: `size-${server}`, title: `Size of each snapshot of ${server} over time` },
    description:
      described('Stored', stored, formatBytes) + (known ? ` ${described('Content', content, formatBytes)}` : ''),
    ...{ from, to, height: HEIGHT, x: dateAxis(from, to), y, lines, say: formatBytes },
  })}</div>${spreadNote(stored, 'snapshots', 'the band reaches from the least to the greatest')}</figure></div>`
}

function ratio({ server, ratio: points, timeline: { scale } }: ServerReport): Markup | undefined {
  if (points.length < 2) return undefined
  const { from, to } = rangeOf(points, scale.now)
  const say = (value: number) => value.toFixed(2)
  return html`<div><h3>Compression ratio</h3>
<p class="note">Content divided by stored, where both are known.</p>
<figure><div class="frame">${chart({
    ...{ id: `ratio-${server}`, title: `Compression ratio of ${server} over time` },
    description: described('Ratio', points, say),
    ...{ from, to, height: HEIGHT, x: dateAxis(from, to), y: numberAxis(greatest(points)) },
    ...{ lines: [{ name: 'ratio', points, joined: true }], say },
  })}</div>${spreadNote(points, 'snapshots', 'the band reaches from the least to the greatest')}</figure></div>`
}

function speed({ server, runs, timeline: { scale } }: ServerReport): Markup | undefined {
  const { throughput, failures } = runs
  if (throughput.length + failures.length === 0) return undefined
  const times = failures.map(({ at }) => Date.parse(at))
  const first = Math.min(throughput[0]?.at ?? Number.POSITIVE_INFINITY, times[0] ?? Number.POSITIVE_INFINITY)
  const { from, to } = rangeOf([{ at: first }], scale.now)
  const marks = failures.map(({ at, failed }) => ({
    at: Date.parse(at),
    text: `${failed ? 'Failed' : 'Incomplete'}, ${timeText(at)}`,
  }))
  return html`<div><h3>Speed of each backup</h3>
<p class="note">Bytes before compression a second. ${failures.length > 0 && html`<span class="key"><span class="problem"><span class="mark" aria-hidden="true">✕</span></span>failed or incomplete (${failures.length})</span>`}</p>
<figure><div class="frame">${chart({
    ...{ id: `speed-${server}`, title: `Speed of the backups of ${server} over time` },
    description: `${described('Speed', throughput, formatRate)} ${failures.length} did not go well.`,
    ...{ from, to, height: HEIGHT, x: dateAxis(from, to), y: byteAxis(greatest(throughput), '/s') },
    ...{ lines: [{ name: 'speed', points: throughput, joined: false }], crosses: marks, say: formatRate },
  })}</div>${spreadNote(throughput, 'backups', 'each reaches from the slowest to the fastest')}</figure></div>`
}

function key(name: 'stored' | 'content'): Markup {
  const label = name === 'stored' ? 'as stored' : 'content, before compression'
  return html`<span class="key"><svg width="26" height="10" aria-hidden="true"><g class="line ${name}"><path class="stroke" d="M0 5H26"/></g></svg>${label}</span>`
}

function spreadNote(points: readonly Point[], of: string, how: string): Markup | false {
  const many = points.some(({ count }) => count > 1)
  return many && html`<figcaption>Each point is the median of several ${of}; ${how}.</figcaption>`
}

function greatest(points: readonly Point[]): number {
  return points.reduce((most, { high }) => Math.max(most, high), 0)
}

/** Ends at the time of the report, so that a line that stops early shows it. */
function rangeOf(points: readonly { at: number; to?: number }[], now: number): { from: number; to: number } {
  const from = points[0]?.at ?? now
  const to = Math.max(now, points.at(-1)?.to ?? now)
  return { from: Math.min(from, to - SPAN_MIN_MS), to }
}

function described(what: string, points: readonly Point[], say: (value: number) => string): string {
  const [first, last] = [points[0], points.at(-1)]
  if (!first || !last) return ''
  const lows = points.reduce((least, { low }) => Math.min(least, low), Number.POSITIVE_INFINITY)
  return `${what}: from ${say(lows)} to ${say(greatest(points))}; ${say(last.middle)} at ${timeText(last.to)}.`
}
