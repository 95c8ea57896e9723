/** A mark on an axis. */
export interface Tick {
  /** From 0 to 1 along the axis. */
  place: number
  label: string
  /** Left out where there is little room. */
  minor?: boolean
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
const STEPS_WANTED = 4

/** Round steps from 0 to at least `greatest`. @returns the axis' end, and the step. */
export function roundScale(greatest: number, wanted = STEPS_WANTED): { end: number; step: number } {
  if (!(greatest > 0)) return { end: 1, step: 1 }
  const rough = greatest / wanted
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 2.5, 5, 10].find((one) => one * power >= rough * 0.999) as number) * power
  return { end: Math.ceil(greatest / step - 0.001) * step, step }
}

/**
 * An axis of bytes, in one unit.
 * @param per what follows the unit, such as `/s`.
 */
export function byteAxis(greatest: number, per = ''): { end: number; ticks: Tick[] } {
  const power =
    greatest > 0 ? Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log(greatest) / Math.log(1024)))) : 0
  const unit = 1024 ** power
  const { end, step } = roundScale(greatest / unit)
  return { end: end * unit, ticks: ticksOf(end, step, ` ${UNITS[power]}${per}`) }
}

export function numberAxis(greatest: number): { end: number; ticks: Tick[] } {
  const { end, step } = roundScale(greatest)
  return { end, ticks: ticksOf(end, step, '') }
}

function ticksOf(end: number, step: number, unit: string): Tick[] {
  const count = Math.round(end / step)
  return Array.from({ length: count + 1 }, (_, n) => ({
    place: n / count,
    label: n === 0 ? '0' : `${Number((n * step).toPrecision(6))}${unit}`,
  }))
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const TICKS_MAX = 6

/** Steps that start at the epoch, in ms; weeks on Mondays. */
const EVEN_STEPS = [1, 2, 3, 6, 12, 24, 48, 7 * 24, 14 * 24].map((hours) => hours * HOUR_MS)
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60, 120]
const MONDAY_MS = 4 * DAY_MS

/** An axis of dates, in UTC, with round ticks. @param from and to: ms since 1970. */
export function dateAxis(from: number, to: number): Tick[] {
  const span = to - from
  const even = EVEN_STEPS.find((step) => span / step <= TICKS_MAX)
  const times = even === undefined ? monthTimes(from, to) : evenTimes(from, to, even)
  const withTime = even !== undefined && even < DAY_MS
  const withDay = even !== undefined
  return times.map((time, index) => ({
    place: (time - from) / span,
    label: dateLabel(new Date(time), withTime, withDay),
    ...(index % 2 === 1 && times.length > 3 && { minor: true }),
  }))
}

function evenTimes(from: number, to: number, step: number): number[] {
  const origin = step % (7 * DAY_MS) === 0 ? MONDAY_MS : 0
  const first = Math.ceil((from - origin) / step) * step + origin
  return Array.from({ length: Math.floor((to - first) / step) + 1 }, (_, n) => first + n * step)
}

function monthTimes(from: number, to: number): number[] {
  const number = (time: number) => new Date(time).getUTCFullYear() * 12 + new Date(time).getUTCMonth()
  const span = number(to) - number(from)
  const step = MONTH_STEPS.find((one) => span / one <= TICKS_MAX) ?? Math.ceil(span / TICKS_MAX / 120) * 120
  const times: number[] = []
  for (let month = Math.ceil(number(from) / step) * step; ; month += step) {
    const time = Date.UTC(Math.floor(month / 12), month % 12, 1)
    if (time > to) return times
    if (time >= from) times.push(time)
  }
}

function dateLabel(time: Date, withTime: boolean, withDay: boolean): string {
  const hour = time.getUTCHours()
  if (withTime && hour > 0) return `${String(hour).padStart(2, '0')}:00`
  const month = MONTHS[time.getUTCMonth()]
  return withDay ? `${time.getUTCDate()} ${month}` : `${month} ${time.getUTCFullYear()}`
}

const AGES: readonly (readonly [number, string])[] = [
  [HOUR_MS, '1 hour'],
  [3 * HOUR_MS, '3 hours'],
  [6 * HOUR_MS, '6 hours'],
  [12 * HOUR_MS, '12 hours'],
  [DAY_MS, '1 day'],
  [2 * DAY_MS, '2 days'],
  [4 * DAY_MS, '4 days'],
  [7 * DAY_MS, '1 week'],
  [14 * DAY_MS, '2 weeks'],
  [30 * DAY_MS, '1 month'],
  [60 * DAY_MS, '2 months'],
  [91 * DAY_MS, '3 months'],
  [182 * DAY_MS, '6 months'],
  [365 * DAY_MS, '1 year'],
  [2 * 365 * DAY_MS, '2 years'],
  [5 * 365 * DAY_MS, '5 years'],
  [10 * 365 * DAY_MS, '10 years'],
]
/** Ages that everybody reckons in come first, and others where there is room. */
const AGE_RANKS: readonly (readonly string[])[] = [
  ['1 day', '1 year'],
  ['1 week', '1 month'],
  ['6 hours', '3 months', '2 weeks', '1 hour', '5 years'],
]
const GAP = 0.075
const WIDE_GAP = 0.24

/** An axis of ages: `now` at its end, and round ages where there is room. @param placeOf the place of an age in ms. */
export function ageAxis(spanMs: number, placeOf: (ageMs: number) => number): Tick[] {
  const ticks: Tick[] = [{ place: 1, label: 'now' }]
  const rank = (label: string) => {
    const found = AGE_RANKS.findIndex((labels) => labels.includes(label))
    return found < 0 ? AGE_RANKS.length : found
  }
  const ages = AGES.filter(([age]) => age <= spanMs).toSorted(([, a], [, b]) => rank(a) - rank(b))
  for (const [age, label] of ages) {
    const place = placeOf(age)
    const isFree = (gap: number, all: readonly Tick[]) => all.every((one) => Math.abs(one.place - place) >= gap)
    if (!isFree(GAP, ticks)) continue
    const roomy = isFree(
      WIDE_GAP,
      ticks.filter(({ minor }) => !minor),
    )
    ticks.push({ place, label, ...(!roomy && { minor: true }) })
  }
  return ticks.sort((a, b) => a.place - b.place)
}
