import { CronPattern } from 'croner'
import { BackupError } from '../errors.ts'

/*
 * Cron expressions as the calendar expressions of systemd.time(7). croner reads the expression, so that both mean the
 * same; what systemd cannot say is refused. Several calendar expressions of one timer stand for the times of each.
 */

const WEEKDAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const ANY_WEEK = 63
/** The bits of the first to the fifth such weekday of a month, and of the last. */
const NTH_WEEKS = [1, 2, 4, 8, 16]
const LAST_WEEK = 32
const DAYS_MAX = 31

/**
 * The calendar expressions for a schedule, one for each `OnCalendar=`.
 * @param cron five fields, or `@daily` and such.
 * @param timezone an IANA name, in any case.
 * @throws BackupError USAGE for what systemd cannot say; Error for what is no cron expression.
 */
export function calendarOf(cron: string, timezone: string): string[] {
  const pattern = new CronPattern(cron, undefined, { mode: '5-part' })
  if (pattern.lastWeekday || pattern.nearestWeekdays.includes(1)) throw refused(cron, 'W (the nearest working day)')
  const clock = `${fieldOf(indicesOf(pattern.hour), 0, 23)}:${fieldOf(indicesOf(pattern.minute), 0, 59)}:00`
  const zone = zoneOf(timezone)
  return datesOf(pattern, cron).map((date) => `${date} ${clock} ${zone}`)
}

/** The zone as systemd finds it: a file's name, in the case that it has. */
function zoneOf(timezone: string): string {
  if (/^[+-]/.test(timezone)) {
    throw new BackupError(
      'USAGE',
      `The time zone ${JSON.stringify(timezone)} is an offset, which a timer of systemd cannot have. Write a name such as Europe/Berlin, or UTC, or use \`millrace schedule\`, which can.`,
    )
  }
  const { timeZone } = new Intl.DateTimeFormat('en', { timeZone: timezone }).resolvedOptions()
  // Not for names as they should be: it may be an older one of the same zone, which not every machine has.
  const isMisspelt = timeZone.toLowerCase() === timezone.toLowerCase() || !/[A-Z]/.test(timezone)
  return isMisspelt ? timeZone : timezone
}

function datesOf(pattern: CronPattern, cron: string): string[] {
  const { starDOM, starDOW, useAndLogic } = pattern
  const months = fieldOf(
    indicesOf(pattern.month).map((at) => at + 1),
    1,
    12,
  )
  if (starDOM && starDOW) return [`*-${months}-*`]
  const byDay = starDOM ? [] : monthDays(pattern, months)
  const byWeekday = starDOW ? [] : weekdays(pattern, months)
  // Cron takes either of the two, unless + asks for both.
  if (starDOM || starDOW || !useAndLogic) return [...byDay, ...byWeekday]
  const names = byWeekday.map((date) => /^(\S+) \*-\S+-\*$/.exec(date)?.[1])
  if (names.length !== 1 || names[0] === undefined) throw refused(cron, '+ beside # or L')
  return byDay.map((date) => `${names[0]} ${date}`)
}

/** Days of the month, and its last. */
function monthDays({ day, lastDayOfMonth }: CronPattern, months: string): string[] {
  const days = indicesOf(day).map((at) => at + 1)
  const isEach = days.length === DAYS_MAX
  return [
    ...(days.length > 0 ? [`*-${months}-${fieldOf(days, 1, DAYS_MAX)}`] : []),
    ...(lastDayOfMonth && !isEach ? [`*-${months}~01`] : []),
  ]
}

/** Weekdays of any week, and those of some weeks of a month. */
function weekdays({ dayOfWeek }: CronPattern, months: string): string[] {
  const named = (bit: number) =>
    WEEKDAYS.filter((_, at) => dayOfWeek[at] !== ANY_WEEK && ((dayOfWeek[at] as number) & bit) !== 0).join(',')
  const any = WEEKDAYS.filter((_, at) => dayOfWeek[at] === ANY_WEEK)
  const dates = any.length > 0 ? [`${any.join(',')} *-${months}-*`] : []
  for (const [at, bit] of NTH_WEEKS.entries()) {
    const first = at * 7 + 1
    const last = Math.min(first + 6, DAYS_MAX)
    if (named(bit) !== '')
      dates.push(`${named(bit)} *-${months}-${first < 10 ? `0${first}` : first}..${last < 10 ? `0${last}` : last}`)
  }
  // From the seventh day before the end on, each day: the weekday comes once in them.
  if (named(LAST_WEEK) !== '') dates.push(`${named(LAST_WEEK)} *-${months}~07/1`)
  return dates
}

function indicesOf(field: readonly number[]): number[] {
  return field.flatMap((value, at) => (value === 0 ? [] : [at]))
}

/** `*` for all, else numbers and ranges. */
function fieldOf(values: readonly number[], min: number, max: number): string {
  if (values.length === max - min + 1) return '*'
  const parts: string[] = []
  for (let from = 0; from < values.length; ) {
    let to = from
    while (values[to + 1] === (values[to] as number) + 1) to += 1
    const [first, last] = [values[from] as number, values[to] as number].map((one) => String(one).padStart(2, '0'))
    if (to - from >= 2) parts.push(`${first}..${last}`)
    else parts.push(...(to > from ? [first as string, last as string] : [first as string]))
    from = to + 1
  }
  return parts.join(',')
}

function refused(cron: string, what: string): BackupError {
  return new BackupError(
    'USAGE',
    `The schedule ${JSON.stringify(cron)} has ${what}, which a timer of systemd cannot say. Write it without, or use \`millrace schedule\`, which can.`,
  )
}
