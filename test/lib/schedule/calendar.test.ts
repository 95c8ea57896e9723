import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { Cron } from 'croner'
import fc from 'fast-check'
import { calendarOf } from '../../../lib/schedule/calendar.ts'

const DAY_MS = 86_400_000
const BASE = Date.UTC(2026, 0, 30, 12, 34, 56)
/** Some come in leap years only. */
const YEARS = 30
const TIMES = 50

const WEEKDAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']

interface Calendar {
  weekdays: Set<number> | undefined
  months: Set<number>
  isDay(day: number, daysInMonth: number): boolean
  minutesOfDay: number[]
}

/** Reads as much of systemd.time(7) as is written here: from its manual, not from the code that writes it. */
function parseCalendar(expression: string): Calendar {
  const parts = /^(?:([A-Z][a-z]{2}(?:,[A-Z][a-z]{2})*) )?\*-([^-~ ]+)([-~])(\S+) ([^:]+):([^:]+):00 UTC$/.exec(
    expression,
  )
  assert.ok(parts, expression)
  const [, names, months, sign, days, hours, minutes] = parts as unknown as string[]
  const inMonth = (day: number, daysInMonth: number) =>
    sign === '-'
      ? numbers(days as string, 1, daysInMonth).has(day)
      : // Counted from the end: ~01 is the last, and ~07/1 the seventh last and each one after it.
        numbers((days as string).replace(/^(\d\d)\/1$/, '01..$1'), 1, 31).has(daysInMonth - day + 1)
  return {
    weekdays: names === undefined ? undefined : new Set(names.split(',').map((name) => WEEKDAYS.indexOf(name))),
    months: numbers(months as string, 1, 12),
    isDay: inMonth,
    minutesOfDay: [...numbers(hours as string, 0, 23)].flatMap((hour) =>
      [...numbers(minutes as string, 0, 59)].map((minute) => hour * 60 + minute),
    ),
  }
}

function numbers(text: string, min: number, max: number): Set<number> {
  const found = new Set<number>()
  for (const part of text === '*' ? [`${min}..${max}`] : text.split(',')) {
    const [from, to = from] = part.split('..').map(Number)
    for (let one = from as number; one <= (to as number); one += 1) found.add(one)
  }
  return found
}

function calendarTimes(expressions: readonly string[]): number[] {
  const calendars = expressions.map(parseCalendar)
  const found: number[] = []
  const firstDay = Math.floor(BASE / DAY_MS) * DAY_MS
  for (let day = firstDay; found.length < TIMES && day < BASE + YEARS * 366 * DAY_MS; day += DAY_MS) {
    const date = new Date(day)
    const month = date.getUTCMonth() + 1
    const daysInMonth = new Date(Date.UTC(date.getUTCFullYear(), month, 0)).getUTCDate()
    const minutes = new Set<number>()
    for (const { weekdays, months, isDay, minutesOfDay } of calendars) {
      if (weekdays !== undefined && !weekdays.has(date.getUTCDay())) continue
      if (months.has(month) && isDay(date.getUTCDate(), daysInMonth)) for (const one of minutesOfDay) minutes.add(one)
    }
    const times = [...minutes].map((minute) => day + minute * 60_000).filter((time) => time > BASE)
    found.push(...times.sort((a, b) => a - b))
  }
  return found.slice(0, TIMES)
}

function cronTimes(cron: string, count: number): number[] {
  const schedule = new Cron(cron, { paused: true, timezone: 'UTC', mode: '5-part' })
  return schedule.nextRuns(count, new Date(BASE)).map((date) => date.getTime())
}

function field(min: number, max: number) {
  const number = fc.integer({ min, max })
  const range = fc.tuple(number, number).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`)
  const step = fc.integer({ min: 1, max: max - min })
  const item = fc.oneof(
    number.map(String),
    range,
    fc.tuple(range, step).map(([one, by]) => `${one}/${by}`),
    step.map((by) => `*/${by}`),
  )
  return {
    item,
    list: fc.oneof(
      fc.constant('*'),
      fc.array(item, { minLength: 1, maxLength: 3 }).map((all) => all.join(',')),
    ),
  }
}

const weekday = fc.oneof(
  field(0, 7).item,
  fc.constantFrom('mon', 'FRI', 'tue-thu', 'sun', 'fri#1', 'mon#2', '3#5', '5L', 'satL'),
)
const monthDay = fc.oneof(field(1, 31).item, fc.constant('L'))
const cron = fc
  .tuple(
    field(0, 59).list,
    field(0, 23).list,
    fc.oneof(
      fc.constant('*'),
      fc.array(monthDay, { minLength: 1, maxLength: 3 }).map((all) => all.join(',')),
    ),
    field(1, 12).list,
    fc.oneof(
      fc.constant('*'),
      fc.array(weekday, { minLength: 1, maxLength: 3 }).map((all) => all.join(',')),
      fc.constantFrom('+mon', '+1-5', '+sat,sun'),
    ),
  )
  .map((fields) => fields.join(' '))

test('the next 50 times of a cron expression are those of its calendar expressions', () => {
  let seen = 0
  fc.assert(
    fc.property(cron, (one) => {
      let expected: number[]
      try {
        expected = cronTimes(one, TIMES)
      } catch {
        // croner refuses some of what is drawn here, as two L.
        return
      }
      const times = calendarTimes(calendarOf(one, 'UTC'))
      const end = Math.min(times.length, expected.length)
      // Rare ones, as each 29th of February, have fewer within the years that are looked at.
      assert.ok(end === TIMES || times.length < TIMES, one)
      assert.deepEqual(times.slice(0, end), expected.slice(0, end), one)
      seen += end
    }),
    { numRuns: 250, seed: 11 },
  )
  assert.ok(seen > 5000, `${seen}`)
})

test('calendar expressions are written as people would', () => {
  const all = (one: string) => calendarOf(one, 'Europe/Berlin')
  assert.deepEqual(all('@hourly'), ['*-*-* *:00:00 Europe/Berlin'])
  assert.deepEqual(all('@weekly'), ['Sun *-*-* 00:00:00 Europe/Berlin'])
  assert.deepEqual(all('*/20 8-17 * * 1-5'), ['Mon,Tue,Wed,Thu,Fri *-*-* 08..17:00,20,40:00 Europe/Berlin'])
  // Either of the two, as cron has it.
  assert.deepEqual(all('0 4 1,15 * fri'), ['*-*-01,15 04:00:00 Europe/Berlin', 'Fri *-*-* 04:00:00 Europe/Berlin'])
  assert.deepEqual(all('0 4 L * *'), ['*-*~01 04:00:00 Europe/Berlin'])
  assert.deepEqual(all('0 4 * 6 fri#2'), ['Fri *-06-08..14 04:00:00 Europe/Berlin'])
  assert.deepEqual(all('0 4 * * 5L'), ['Fri *-*~07/1 04:00:00 Europe/Berlin'])
})

test('what systemd cannot say is refused, with what to do', () => {
  for (const [one, what] of [
    ['0 4 15W * *', /W \(the nearest working day\)/],
    ['0 4 LW * *', /W \(the nearest working day\)/],
    ['0 4 1 * +fri#2', /\+ beside # or L/],
    ['0 4 1-7 * +5L', /\+ beside # or L/],
  ] as const) {
    assert.throws(() => calendarOf(one, 'UTC'), { code: 'USAGE', message: what }, one)
    assert.throws(() => calendarOf(one, 'UTC'), { message: /millrace schedule/ }, one)
  }
})

test('a time zone is named as systemd knows it, and one that it cannot know is refused', () => {
  const zoneOf = (timezone: string) => calendarOf('0 4 * * *', timezone).map((one) => one.split(' ').at(-1))
  for (const [given, named] of [
    ['europe/berlin', 'Europe/Berlin'],
    ['AMERICA/PORT-AU-PRINCE', 'America/Port-au-Prince'],
    ['utc', 'UTC'],
    ['Europe/Kyiv', 'Europe/Kyiv'],
    ['US/Eastern', 'US/Eastern'],
  ] as const) {
    assert.deepEqual(zoneOf(given), [named])
  }
  for (const offset of ['+02:00', '-0330']) {
    assert.throws(() => calendarOf('0 4 * * *', offset), { code: 'USAGE', message: /is an offset/ })
  }
})

test('systemd reads calendar expressions as croner reads the cron expression, where systemd is installed', () => {
  const all = [
    '@hourly',
    '30 2 * * *',
    '*/20 8-17 * * 1-5',
    '0 4 1,15 * fri',
    '5 4 L,3 */2 *',
    '0 4 * * mon#1,5L',
    '15 3 29 2 *',
    '0 1 1-7 * +sun',
  ]
  for (const one of all) {
    const count = 8
    const times = new Set<number>()
    for (const expression of calendarOf(one, 'UTC')) {
      const args = [
        'calendar',
        `--base-time=${new Date(BASE).toISOString().slice(0, 19).replace('T', ' ')} UTC`,
        `--iterations=${count}`,
        expression,
      ]
      const { error, status, stdout, stderr } = spawnSync('systemd-analyze', args, {
        env: { ...process.env, TZ: 'UTC' },
      })
      // Elsewhere the other tests hold.
      if (error) return
      assert.equal(status, 0, String(stderr))
      for (const [, time] of String(stdout).matchAll(/(?:elapse|#\d+): \w{3} (\S+ \S+) UTC$/gm)) {
        times.add(Date.parse(`${(time as string).replace(' ', 'T')}Z`))
      }
    }
    assert.deepEqual([...times].sort((a, b) => a - b).slice(0, count), cronTimes(one, count), one)
  }
})
