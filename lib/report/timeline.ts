import { type Content, html, type Markup } from './html.ts'
import type { ServerReport } from './model.ts'
import { ageAxis } from './scale.ts'
import { type Cell, placeOf } from './series.ts'
import { percent, picture, xAxis } from './svg.ts'
import type { Tier } from './tiers.ts'
import { countText, timeText } from './words.ts'

const LANE_HEIGHT = 24
const MARK_HEIGHT = 12
const MARK_WIDTH = 3
const AXIS_HEIGHT = 26

/** How the marks of a lane look; all others are upright bars. */
const SHAPES: Partial<Record<Tier, 'dot' | 'ring' | 'cross'>> = { pinned: 'dot', unfinished: 'ring', remove: 'cross' }

/** The snapshots by age, a lane for each rule: which of them keeps what, and what goes. */
export function timeline({ server, timeline: { scale, all, lanes }, counts }: ServerReport): Markup {
  const rows = [{ tier: 'all', label: 'All', count: counts.complete + counts.unfinished, cells: all }, ...lanes]
  const height = rows.length * LANE_HEIGHT
  const ticks = ageAxis(scale.spanMs, (age) => placeOf(scale, scale.now - age))
  const said = lanes.map(({ label, count }) => `${label}: ${count}`).join(', ')
  const oldest = all[0] ? ` The oldest is of ${timeText(all[0].at)}.` : ''
  return picture(
    {
      id: `timeline-${server}`,
      title: `Snapshots of ${server} by age, and the rules that keep them`,
      description: `${countText(counts.complete + counts.unfinished)}. ${said}.${oldest}`,
      height: height + AXIS_HEIGHT,
    },
    html`${xAxis(ticks, height)}${rows.map((lane, index) => drawLane(lane, index * LANE_HEIGHT))}`,
  )
}

function drawLane(
  { tier, label, count, cells }: { tier: string; label: string; count: number; cells: readonly Cell[] },
  top: number,
): Markup {
  const middle = top + LANE_HEIGHT / 2
  return html`<g class="lane ${tier}"><line x1="0" x2="100%" y1="${middle}" y2="${middle}"/><text class="name" x="-8" y="${middle + 4}" text-anchor="end">${label} <tspan class="count">${count.toLocaleString('en')}</tspan></text>
${cells.map((cell) => mark(SHAPES[tier as Tier], cell, middle))}</g>
`
}

function mark(shape: 'dot' | 'ring' | 'cross' | undefined, cell: Cell, middle: number): Markup {
  const x = percent(cell.place)
  const title: Content = html`<title>${said(cell)}</title>`
  if (shape === 'cross') return html`<text x="${x}" y="${middle + 4}" text-anchor="middle">✕${title}</text>`
  if (shape) return html`<circle cx="${x}" cy="${middle}" r="4">${title}</circle>`
  return html`<rect x="${x}" y="${middle - MARK_HEIGHT / 2}" width="${MARK_WIDTH}" height="${MARK_HEIGHT}" transform="translate(-${MARK_WIDTH / 2})">${title}</rect>`
}

function said({ count, at, to }: Cell): string {
  return count === 1 ? timeText(at) : `${countText(count)}, ${timeText(at)} to ${timeText(to)}`
}
