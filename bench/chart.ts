import { roundScale } from '../lib/report/scale.ts'

// Charts as SVG text, to be read at 720 pixels on white.

const WIDTH = 720
const EDGE = 12
const LINE = 16
const CHAR_PX = 6.8
const BAR = 16
const STEP = 22
const LABEL_MAX_PX = 300
const VALUE_PX = 90
const PLOT_HEIGHT = 280
const COLOURS = ['#1f5f99', '#c2571a', '#3b7a3b', '#8a3b8f', '#8a6d1a', '#555555']
/** Beside the colours, for those who do not tell them apart. */
const DASHES = ['', '7 3', '2 3', '9 3 2 3', '4 4', '1 2']
const STYLE =
  '.bg{fill:#fff}text{fill:#333}.what,.head{font-weight:bold}.fill{fill:#5b8bb5}.run{stroke:#1d3d5c;stroke-width:1.5}.target{stroke:#b3261e;stroke-width:2.5}.axis{stroke:#ddd}.base{stroke:#999}.line{fill:none;stroke-width:1.8}'

/** One bar: a value, and what it is the median of. */
export interface Bar {
  label: string
  value: number
  /** Marked with a thin line each. */
  runs?: readonly number[] | undefined
  /** What was to be reached or kept: marked with a red line. */
  bar?: number | undefined
}

export interface BarChart {
  title: string
  /** Of all values; it follows each of them. */
  unit: string
  groups: readonly { label: string; bars: readonly Bar[] }[]
  /** Below the chart: where the values are from. */
  note: string
}

export interface LineChart {
  title: string
  xLabel: string
  yLabel: string
  series: readonly { name: string; points: readonly (readonly [x: number, y: number])[] }[]
  note: string
  /** Whether equal ways along x are equal factors; points at 0 and below are left out then. */
  xLog?: boolean | undefined
}

/** Horizontal bars from 0, with their values at their ends. @returns an SVG document. */
export function barChart({ title, unit, groups, note }: BarChart): string {
  const bars = groups.flatMap((group) => group.bars)
  const labels = [...bars, ...groups].map(({ label }) => label.length * CHAR_PX)
  const left = round(EDGE + Math.min(LABEL_MAX_PX, Math.max(60, ...labels)) + 8)
  const greatest = Math.max(0, ...bars.flatMap(({ value, runs = [], bar = 0 }) => [value, bar, ...runs]))
  const { end, step } = roundScale(greatest)
  const at = (value: number) => round(left + (value / end) * (WIDTH - left - VALUE_PX))
  const top = head(title).height + 10
  const parts: string[] = []
  let y = top
  for (const { label, bars } of groups) {
    if (label !== '') {
      parts.push(text(EDGE, y + 12, label, 'class="what"'))
      y += STEP
    }
    for (const { label, value, runs = [], bar } of bars) {
      const last = Math.max(value, ...runs, bar ?? 0)
      parts.push(
        text(left - 8, y + 12, short(label), 'text-anchor="end"'),
        `<rect x="${left}" y="${y}" width="${round(at(value) - left)}" height="${BAR}" class="fill"/>`,
        ...runs.map((run) => `<path d="M${at(run)} ${y}v${BAR}" class="run"/>`),
        ...(bar === undefined ? [] : [`<path d="M${at(bar)} ${y - 3}v${BAR + 6}" class="target"/>`]),
        text(round(at(last) + 6), y + 12, `${numberText(value)} ${unit}`.trim()),
      )
      y += STEP
    }
    y += STEP / 2
  }
  const axis = steps(end, step).flatMap((tick) => [
    `<path d="M${at(tick)} ${top - 6}V${y - 6}" class="${tick === 0 ? 'base' : 'axis'}"/>`,
    text(at(tick), y + 8, numberText(tick), 'text-anchor="middle"'),
  ])
  const legend = [
    bars.some(({ runs }) => runs && runs.length > 1) ? 'Bars are medians; the dark lines are the runs.' : '',
    bars.some(({ bar }) => bar !== undefined) ? 'Red lines are the targets.' : '',
  ]
  return svg(title, y + 18, [...axis, ...parts], [...legend.filter(Boolean), note].join(' '))
}

/** Lines over one axis, y from 0. @returns an SVG document. */
export function lineChart({ title, xLabel, yLabel, series, note, xLog = false }: LineChart): string {
  const shown = series.map(({ name, points }) => ({ name, points: points.filter(([x]) => !xLog || x > 0) }))
  const all = shown.flatMap(({ points }) => points)
  const xs = all.map(([x]) => x)
  const y = roundScale(all.reduce((most, [, value]) => Math.max(most, value), 0))
  const left = EDGE + 52
  const right = WIDTH - 24
  const top = head(title).height + LINE * shown.length + 28
  const bottom = top + PLOT_HEIGHT
  const x = xLog ? logScale(xs) : linearScale(xs)
  const xAt = (value: number) => round(left + x.place(value) * (right - left))
  const yAt = (value: number) => round(bottom - (value / y.end) * PLOT_HEIGHT)
  const axis = [
    ...steps(y.end, y.step).flatMap((tick) => [
      `<path d="M${left} ${yAt(tick)}H${right}" class="${tick === 0 ? 'base' : 'axis'}"/>`,
      text(left - 6, yAt(tick) + 4, numberText(tick), 'text-anchor="end"'),
    ]),
    ...x.ticks.flatMap((tick) => [
      `<path d="M${xAt(tick)} ${top}V${bottom + 4}" class="axis"/>`,
      text(xAt(tick), bottom + 18, numberText(tick), 'text-anchor="middle"'),
    ]),
    text(EDGE, top - 10, yLabel),
    text(right, bottom + 36, xLabel, 'text-anchor="end"'),
  ]
  const lines = shown.flatMap(({ name, points }, index) => {
    const stroke = `stroke="${COLOURS[index % COLOURS.length]}" stroke-dasharray="${DASHES[index % DASHES.length]}"`
    const legendY = head(title).height + LINE * index
    const path = points.map(([px, py]) => `${xAt(px)} ${yAt(py)}`).join('L')
    return [
      `<path d="M${EDGE} ${legendY}h34" class="line" ${stroke}/>`,
      text(EDGE + 42, legendY + 4, name),
      ...(points.length > 0 ? [`<path d="M${path}" class="line" ${stroke}/>`] : []),
    ]
  })
  return svg(title, bottom + 44, [...axis, ...lines], note)
}

interface Scale {
  ticks: number[]
  /** Where a value is along the axis, from 0 to 1. */
  place(value: number): number
}

function linearScale(values: readonly number[]): Scale {
  const { end, step } = roundScale(
    values.reduce((most, one) => Math.max(most, one), 0),
    6,
  )
  return { ticks: steps(end, step), place: (value) => value / end }
}

function logScale(values: readonly number[]): Scale {
  const least = values.reduce((so, one) => Math.min(so, one), Number.POSITIVE_INFINITY)
  const most = values.reduce((so, one) => Math.max(so, one), 0)
  const [from, to] = values.length > 0 && least < most ? [Math.log10(least), Math.log10(most)] : [0, 1]
  const ticks: number[] = []
  for (let power = Math.ceil(from - 1e-9); power <= to + 1e-9; power += 1) ticks.push(10 ** power)
  return { ticks, place: (value) => (Math.log10(value) - from) / (to - from) }
}

function steps(end: number, step: number): number[] {
  return Array.from({ length: Math.round(end / step) + 1 }, (_, index) => Number((index * step).toPrecision(10)))
}

/** Title and frame, what is drawn from there on down, and the note below it. */
function svg(title: string, height: number, parts: readonly string[], note: string): string {
  const notes = wrap(note, 104).map((line, index) => text(EDGE, height + 14 + index * LINE, line))
  const whole = height + 8 + notes.length * LINE + 4
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${whole}" width="${WIDTH}" height="${whole}" font-family="sans-serif" font-size="12">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
<rect class="bg" width="${WIDTH}" height="${whole}"/>
${[...head(title).parts, ...parts, ...notes].join('\n')}
</svg>
`
}

function head(title: string): { parts: string[]; height: number } {
  const lines = wrap(title, 88)
  const parts = lines.map((line, index) => text(EDGE, 22 + index * 18, line, 'class="head" font-size="14"'))
  return { parts, height: 22 + lines.length * 18 }
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x}" y="${y}"${attributes && ` ${attributes}`}>${escaped(content)}</text>`
}

/** Lines of at most so many characters, cut at spaces. */
function wrap(content: string, most: number): string[] {
  const lines = ['']
  for (const word of content.split(' ')) {
    const last = lines.at(-1) as string
    if (last !== '' && last.length + 1 + word.length > most) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines
}

function short(label: string): string {
  const most = Math.floor(LABEL_MAX_PX / CHAR_PX)
  return label.length > most ? `${label.slice(0, most - 1)}…` : label
}

/** Three digits, and all of what stands before the point. */
function numberText(value: number): string {
  const digits = Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3))
  return digits.toLocaleString('en', { maximumFractionDigits: 10 })
}

function round(value: number): number {
  return Number(value.toFixed(1))
}

function escaped(content: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
  return content.replace(/[&<>"]/g, (char) => names[char] as string)
}
