import { type Content, html, type Markup } from './html.ts'
import type { Tick } from './scale.ts'
import type { Point } from './series.ts'
import { timeText } from './words.ts'

// Pictures as wide as their place is: what is along the time is in percent, what is across in pixels, so that text
// stays readable from 400 to 1400 pixels without a script.

const DOTS_MAX = 70
const LINE_UNITS = 1000
const AXIS_HEIGHT = 26
const CROSS_PLACES = 40

export interface Line {
  /** A class of the style sheet that says how it is drawn. */
  name: string
  points: readonly Point[]
  /** Whether its points are joined. */
  joined: boolean
}

export interface Chart {
  id: string
  title: string
  description: string
  /** ms since 1970. */
  from: number
  to: number
  height: number
  x: readonly Tick[]
  y: { end: number; ticks: readonly Tick[] }
  lines: readonly Line[]
  /** What failed, along the bottom: when, and in words. */
  crosses?: readonly { at: number; text: string }[]
  /** A value in words. */
  say(value: number): string
}

/** A place from 0 to 1 as an SVG length. */
export function percent(place: number): string {
  return `${Number((place * 100).toFixed(2))}%`
}

/** The frame of a picture: its name and description for those who do not see it. */
export function picture(
  { id, title, description, height }: { id: string; title: string; description: string; height: number },
  content: Content,
): Markup {
  return html`<svg class="plot" role="img" aria-labelledby="${id}-t ${id}-d" width="100%" height="${height}">
<title id="${id}-t">${title}</title><desc id="${id}-d">${description}</desc>
${content}</svg>`
}

/** The ticks along the bottom, with their lines. */
export function xAxis(ticks: readonly Tick[], height: number): Markup {
  return html`<g class="x" aria-hidden="true">${ticks.map(({ place, label, minor }) => {
    const x = percent(place)
    const anchor = place > 0.97 ? 'end' : 'middle'
    return html`<g${minor ? html` class="minor"` : ''}><line x1="${x}" x2="${x}" y1="0" y2="${height + 5}"/><text x="${x}" y="${height + 19}" text-anchor="${anchor}">${label}</text></g>`
  })}</g>`
}

/** Values over time: lines with their spread, dots where there are few, and crosses. */
export function chart(spec: Chart): Markup {
  const { from, to, height, y, lines, crosses, say } = spec
  const xOf = (at: number) => (at - from) / (to - from)
  const yOf = (value: number) => height * (1 - value / y.end)
  return picture(
    { ...spec, height: height + AXIS_HEIGHT },
    html`${xAxis(spec.x, height)}<g class="y" aria-hidden="true">${y.ticks.map(({ place, label }) => {
      const at = height * (1 - place)
      return html`<line x1="0" x2="100%" y1="${round(at)}" y2="${round(at)}"${place === 0 ? html` class="base"` : ''}/><text x="-8" y="${round(at + 4)}" text-anchor="end">${label}</text>`
    })}</g>${lines.map((line) => drawn(line, xOf, yOf, height, say))}${crosses && drawnCrosses(crosses, xOf, height)}`,
  )
}

function drawn(
  { name, points, joined }: Line,
  xOf: (at: number) => number,
  yOf: (value: number) => number,
  height: number,
  say: (value: number) => string,
): Markup {
  const path = (at: number, value: number) => `${round(xOf(at) * LINE_UNITS)} ${round(yOf(value))}`
  const spread = points.some(({ count }) => count > 1)
  const band = `M${points.map(({ at, high }) => path(at, high)).join('L')}L${points
    .toReversed()
    .map(({ at, low }) => path(at, low))
    .join('L')}Z`
  const line = `M${points.map(({ at, middle }) => path(at, middle)).join('L')}`
  const few = points.length <= DOTS_MAX
  return html`<g class="line ${name}">${
    joined &&
    points.length > 1 &&
    html`<svg aria-hidden="true" width="100%" height="${height}" viewBox="0 0 ${LINE_UNITS} ${height}" preserveAspectRatio="none">${
      spread && html`<path class="band" d="${band}"/>`
    }<path class="stroke" d="${line}" vector-effect="non-scaling-stroke"/></svg>`
  }${
    (few || !joined) &&
    points.map(({ at, to, count, low, middle, high }) => {
      const many = count > 1 ? `${count} from ${say(low)} to ${say(high)}, ` : ''
      const x = percent(xOf(at))
      const whisker =
        count > 1 &&
        !joined &&
        html`<line class="spread" x1="${x}" x2="${x}" y1="${round(yOf(low))}" y2="${round(yOf(high))}"/>`
      return html`${whisker}<circle cx="${x}" cy="${round(yOf(middle))}" r="${few ? 3 : 2}"><title>${many}${say(middle)}, ${timeText(at)}${count > 1 && ` to ${timeText(to)}`}</title></circle>`
    })
  }</g>`
}

/** Those that are too near each other to be told apart are one. */
function drawnCrosses(marks: readonly { at: number; text: string }[], xOf: (at: number) => number, y: number): Markup {
  const places = Map.groupBy(marks, ({ at }) => Math.round(xOf(at) * CROSS_PLACES) / CROSS_PLACES)
  return html`<g class="cross">${[...places].map(
    ([place, found]) =>
      html`<text x="${percent(place)}" y="${y - 5}" text-anchor="middle">✕<title>${found.map(({ text }) => text).join('; ')}</title></text>`,
  )}</g>`
}

function round(value: number): number {
  return Number(value.toFixed(1))
}
