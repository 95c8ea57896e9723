import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type JobRecord,
  type JobTimes,
  LATE_MS,
  type Pending,
  planJob,
  RETRY_MS,
  recordEnd,
  shiftRecord,
} from '../../../lib/schedule/plan.ts'
import { createTimes } from '../../../lib/schedule/times.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

function job(cron: string, options: { timezone?: string; jitterMs?: number; catchUp?: boolean } = {}): JobTimes {
  const { timezone, jitterMs = 0, catchUp = true } = options
  return { times: createTimes(cron, timezone), jitterMs, catchUp }
}

const at = (text: string) => Date.parse(text)
const text = (time: number) => new Date(time).toISOString().replace(':00.000Z', 'Z')
const never = () => 0

interface Ran extends Pending {
  began: number
}

/** A machine with one job: it is asked at each planned time, and at whatever other times it is told to. */
class Machine {
  readonly job: JobTimes
  readonly random: () => number
  record: JobRecord
  pending: Pending | undefined
  now: number
  readonly ran: Ran[] = []
  readonly skipped: number[] = []

  constructor(job: JobTimes, now: number, record: JobRecord = {}, random: () => number = never) {
    this.job = job
    this.random = random
    this.record = record
    this.now = now
    this.plan()
  }

  plan(): void {
    const { record, pending, skipped } = planJob(this.job, this.record, this.pending, this.now, this.random)
    this.record = record
    this.pending = pending
    if (skipped !== undefined) this.skipped.push(skipped)
  }

  /** Lets time go on, and runs what is due. */
  until(end: number, { takes = 0, fails = () => false }: { takes?: number; fails?: (run: Ran) => boolean } = {}): void {
    for (;;) {
      this.plan()
      const { pending } = this
      if (pending === undefined || pending.at > end) break
      this.now = Math.max(this.now, pending.at)
      this.plan()
      if (this.pending === undefined || this.pending.at > this.now) continue
      const run = { ...this.pending, began: this.now }
      this.ran.push(run)
      this.pending = undefined
      this.now += takes
      const ended = recordEnd(
        this.job,
        this.record,
        { ...run, startedAt: run.began },
        fails(run) ? 'retry' : 'done',
        this.now,
      )
      this.record = ended.record
      if (ended.skipped !== undefined) this.skipped.push(ended.skipped)
    }
    this.now = Math.max(this.now, end)
    this.plan()
  }

  /** Sets the clock: what the daemon sees of it. */
  step(byMs: number): void {
    this.now += byMs
    if (byMs < 0) this.record = shiftRecord(this.record, byMs)
    this.plan()
  }
}

for (const [timezone, gap, fold] of [
  ['Europe/Berlin', '2026-03-29T01:00:00Z', '2026-10-25'],
  ['America/New_York', '2026-03-08T07:00:00Z', '2026-11-01'],
] as const) {
  test(`T20: a year of nightly backups in ${timezone} has one a day, also in the nights when the clock changes`, () => {
    const machine = new Machine(job('30 2 * * *', { timezone }), at('2026-01-01T00:00:00Z'))
    machine.until(at('2026-12-31T23:59:00Z'))
    const days = machine.ran.map(({ began }) => new Intl.DateTimeFormat('en-CA', { timeZone: timezone }).format(began))
    assert.equal(days.length, 365)
    assert.equal(new Set(days).size, 365)
    // Half past two is not there in spring: the first moment after the gap is taken.
    assert.ok(machine.ran.some(({ began }) => began === at(gap)))
    assert.equal(days.filter((day) => day === fold).length, 1)
    assert.ok(machine.ran.every(({ reason }) => reason === 'schedule'))
  })

  test(`T20: a year of hourly backups in ${timezone} has one each real hour`, () => {
    const machine = new Machine(job('0 * * * *', { timezone }), at('2026-01-01T00:30:00Z'))
    machine.until(at('2026-12-31T23:30:00Z'))
    assert.equal(machine.ran.length, 365 * 24 - 1)
    for (let i = 1; i < machine.ran.length; i += 1) {
      assert.equal((machine.ran[i] as Ran).began - (machine.ran[i - 1] as Ran).began, HOUR)
    }
  })
}

test('each run is later than its time by no more than the jitter, drawn anew, and no time is served twice', () => {
  let drawn = 1
  const random = () => {
    drawn = (drawn * 48_271) % 2_147_483_647
    return drawn / 2_147_483_647
  }
  const machine = new Machine(job('0 */6 * * *', { jitterMs: HOUR }), at('2026-01-01T01:00:00Z'), {}, random)
  machine.until(at('2026-03-01T01:00:00Z'))
  assert.equal(machine.ran.length, 59 * 4)
  for (const { due, began } of machine.ran) assert.ok(began >= due && began <= due + HOUR, text(began))
  assert.equal(new Set(machine.ran.map(({ due }) => due)).size, machine.ran.length)
  assert.ok(new Set(machine.ran.map(({ due, began }) => began - due)).size > 100)
})

test('a plan stays as it is while the clock goes on: its jitter is not drawn anew at each look', () => {
  const one = job('0 * * * *', { jitterMs: 30 * MINUTE })
  const first = planJob(one, {}, undefined, at('2026-01-01T00:30:00Z'), () => 0.5)
  assert.equal(text(first.pending?.at as number), '2026-01-01T01:15Z')
  let { record, pending } = first
  for (let now = at('2026-01-01T00:31:00Z'); now < at('2026-01-01T01:15:00Z'); now += MINUTE) {
    ;({ record, pending } = planJob(one, record, pending, now, () => 0.9))
    assert.equal(text(pending?.at as number), '2026-01-01T01:15Z')
  }
})

test('a machine that was down for days makes up for it once, within the jitter, and goes on at its times', () => {
  const record = { servedAt: at('2026-05-01T04:00:00Z'), startedAt: at('2026-05-01T04:00:00Z') }
  const start = at('2026-05-05T12:34:56Z')
  const machine = new Machine(job('0 4 * * *', { jitterMs: 10 * MINUTE }), start, record, () => 0.5)
  machine.until(at('2026-05-07T00:00:00Z'))
  assert.deepEqual(
    machine.ran.map(({ reason, began }) => [reason, began]),
    [
      ['catch-up', start + 5 * MINUTE],
      ['schedule', at('2026-05-06T04:05:00Z')],
    ],
  )
})

test('with catchUp: false a missed time is left out, and said to be', () => {
  const record = { servedAt: at('2026-05-01T04:00:00Z'), startedAt: at('2026-05-01T04:00:00Z') }
  const machine = new Machine(job('0 4 * * *', { catchUp: false }), at('2026-05-05T12:00:00Z'), record)
  assert.deepEqual(machine.skipped.map(text), ['2026-05-05T04:00Z'])
  machine.until(at('2026-05-06T05:00:00Z'))
  assert.deepEqual(
    machine.ran.map(({ began }) => text(began)),
    ['2026-05-06T04:00Z'],
  )
  assert.equal(machine.skipped.length, 1)
})

test('a machine that slept over a time runs once when it wakes', () => {
  for (const catchUp of [true, false]) {
    const machine = new Machine(job('0 * * * *', { catchUp }), at('2026-05-05T11:30:00Z'))
    machine.now = at('2026-05-05T16:10:00Z')
    machine.until(at('2026-05-05T17:30:00Z'))
    const expected = catchUp ? ['2026-05-05T16:10Z', '2026-05-05T17:00Z'] : ['2026-05-05T17:00Z']
    assert.deepEqual(
      machine.ran.map(({ began }) => text(began)),
      expected,
    )
  }
})

test('a little late, as on a busy machine, is on time', () => {
  const machine = new Machine(job('0 * * * *', { catchUp: false }), at('2026-05-05T11:30:00Z'))
  machine.now = at('2026-05-05T12:00:00Z') + LATE_MS
  machine.until(machine.now)
  assert.deepEqual(
    machine.ran.map(({ reason }) => reason),
    ['schedule'],
  )
})

test('a daemon that is started a little after a time is on time for it', () => {
  const record = { servedAt: at('2026-05-05T11:00:00Z') }
  const start = at('2026-05-05T12:00:00Z') + LATE_MS
  const machine = new Machine(job('0 * * * *', { catchUp: false }), start, record)
  machine.until(start)
  assert.deepEqual(
    machine.ran.map(({ reason }) => reason),
    ['schedule'],
  )
})

test('a clock set back while a run to make up for a missed one is waited for does not put it off', () => {
  const record = { servedAt: at('2026-05-01T04:00:00Z') }
  const start = at('2026-05-05T12:00:00Z')
  const machine = new Machine(job('0 4 * * *', { jitterMs: HOUR }), start, record, () => 0.9)
  machine.step(-5 * HOUR)
  machine.until(at('2026-05-05T23:00:00Z'))
  assert.deepEqual(
    machine.ran.map(({ began, reason }) => `${text(began)} ${reason}`),
    ['2026-05-05T07:54Z catch-up'],
  )
})

test('a server that never ran waits for its first time', () => {
  const machine = new Machine(job('0 4 * * *'), at('2026-05-05T12:00:00Z'))
  assert.equal(text(machine.pending?.at as number), '2026-05-06T04:00Z')
  assert.equal(machine.record.servedAt, at('2026-05-05T12:00:00Z'))
})

test('T20: a clock set back over a run does not run it twice', () => {
  const machine = new Machine(job('0 4 * * *'), at('2026-05-05T03:00:00Z'))
  machine.until(at('2026-05-05T04:10:00Z'))
  machine.step(-20 * MINUTE)
  machine.until(at('2026-05-06T04:30:00Z'))
  assert.deepEqual(
    machine.ran.map(({ began }) => text(began)),
    ['2026-05-05T04:00Z', '2026-05-06T04:00Z'],
  )
})

test('T20: a clock that was years ahead does not stop the backups until then', () => {
  const machine = new Machine(job('0 * * * *'), at('2031-05-05T03:30:00Z'))
  machine.until(at('2031-05-05T04:10:00Z'))
  machine.step(at('2026-05-05T04:10:00Z') - machine.now)
  machine.until(at('2026-05-05T06:30:00Z'))
  assert.deepEqual(machine.ran.map(({ began }) => text(began)).slice(1), ['2026-05-05T05:00Z', '2026-05-05T06:00Z'])
})

test('a record from the future, of a clock that was wrong before a restart, neither stops nor doubles the runs', () => {
  const record = { servedAt: at('2031-01-01T04:00:00Z'), startedAt: at('2031-01-01T04:00:00Z') }
  const machine = new Machine(job('0 4 * * *'), at('2026-05-05T12:00:00Z'), record)
  for (let now = machine.now; now < at('2026-05-06T04:00:00Z'); now += 10 * MINUTE) {
    machine.now = now
    machine.plan()
  }
  machine.until(at('2026-05-07T05:00:00Z'))
  assert.deepEqual(
    machine.ran.map(({ began }) => text(began)),
    ['2026-05-06T04:00Z', '2026-05-07T04:00Z'],
  )
})

test('a clock that jumps ahead and back runs the job once for the jump, and then at its times', () => {
  const machine = new Machine(job('0 * * * *'), at('2026-05-05T03:30:00Z'))
  machine.until(at('2026-05-05T04:10:00Z'))
  machine.step(400 * DAY)
  machine.until(machine.now)
  assert.deepEqual(
    machine.ran.map(({ reason }) => reason),
    ['schedule', 'catch-up'],
  )
  machine.step(-400 * DAY)
  machine.until(at('2026-05-05T06:30:00Z'))
  assert.deepEqual(machine.ran.map(({ began }) => text(began)).slice(2), ['2026-05-05T05:00Z', '2026-05-05T06:00Z'])
})

test('a clock set back while a jitter is waited for waits no longer than the jitter', () => {
  const machine = new Machine(job('0 4 * * *', { jitterMs: HOUR }), at('2026-05-05T03:00:00Z'), {}, () => 0.9)
  machine.now = at('2026-05-05T04:10:00Z')
  machine.plan()
  assert.equal(text(machine.pending?.at as number), '2026-05-05T04:54Z')
  machine.step(-30 * MINUTE)
  machine.until(at('2026-05-05T23:00:00Z'))
  assert.equal(machine.ran.length, 1)
  const [{ began }] = machine.ran as [Ran]
  assert.ok(began >= at('2026-05-05T04:00:00Z') && began <= at('2026-05-05T05:00:00Z'), text(began))
})

test('whatever the clock does: no run begins before its time by the clock, nor two within half an interval of real time, and none is long in coming', () => {
  const steps = fc.array(
    fc.record({
      runs: fc.integer({ min: 0, max: 4 * HOUR }),
      jumps: fc.oneof(
        fc.integer({ min: -30 * MINUTE, max: 30 * MINUTE }),
        fc.integer({ min: -3 * HOUR, max: 0 }),
        fc.integer({ min: -400 * DAY, max: 0 }),
      ),
    }),
    { minLength: 1, maxLength: 8 },
  )
  fc.assert(
    fc.property(steps, (all) => {
      const machine = new Machine(job('0 * * * *'), at('2026-05-05T03:30:00Z'))
      let jumped = 0
      let seen = 0
      const real: number[] = []
      const collect = () => {
        for (; seen < machine.ran.length; seen += 1) real.push((machine.ran[seen] as Ran).began - jumped)
      }
      for (const { runs, jumps } of all) {
        machine.until(machine.now + runs)
        collect()
        machine.step(jumps)
        jumped += jumps
        // What a jump ahead has left out is made up for at once.
        machine.until(machine.now)
        seen = jumps > 0 ? machine.ran.length : seen
        collect()
      }
      machine.until(machine.now + 3 * HOUR)
      collect()
      for (let i = 1; i < real.length; i += 1) {
        const between = (real[i] as number) - (real[i - 1] as number)
        // Only backward jumps say something of real time here: those ahead bring the next time nearer.
        if (all.every(({ jumps }) => jumps <= 0)) assert.ok(between >= HOUR / 2, `${between}`)
      }
      const { ran, now } = machine
      const last = ran.at(-1) as Ran
      assert.ok(now - last.began <= HOUR + 1, `${text(last.began)} ${text(now)}`)
      for (const { due, began } of ran) assert.ok(began >= due)
    }),
    { numRuns: 60, seed: 7 },
  )
})

test('a failed run is tried again after 5, 15 and 45 minutes, and then waits for its next time', () => {
  const machine = new Machine(job('0 4 * * *'), at('2026-05-05T03:00:00Z'))
  machine.until(at('2026-05-06T04:20:00Z'), { takes: MINUTE, fails: () => true })
  assert.deepEqual(
    machine.ran.map(({ began, reason }) => `${text(began)} ${reason}`),
    [
      '2026-05-05T04:00Z schedule',
      '2026-05-05T04:06Z retry',
      '2026-05-05T04:22Z retry',
      '2026-05-05T05:08Z retry',
      '2026-05-06T04:00Z schedule',
      '2026-05-06T04:06Z retry',
    ],
  )
  assert.equal(RETRY_MS.length, 3)
})

test('a retry that heals it ends the retries, and none goes past the next time', () => {
  const hourly = new Machine(job('0 * * * *'), at('2026-05-05T03:30:00Z'))
  hourly.until(at('2026-05-05T05:20:00Z'), { takes: MINUTE, fails: ({ due }) => due === at('2026-05-05T04:00:00Z') })
  assert.deepEqual(
    hourly.ran.map(({ began, reason }) => `${text(began)} ${reason}`),
    [
      '2026-05-05T04:00Z schedule',
      '2026-05-05T04:06Z retry',
      '2026-05-05T04:22Z retry',
      // The third would come at 05:08.
      '2026-05-05T05:00Z schedule',
    ],
  )
})

test('a retry is still owed after a restart', () => {
  const before = new Machine(job('0 4 * * *'), at('2026-05-05T03:00:00Z'))
  before.until(at('2026-05-05T04:02:00Z'), { takes: MINUTE, fails: () => true })
  const after = new Machine(job('0 4 * * *'), at('2026-05-05T04:04:00Z'), structuredClone(before.record))
  after.until(at('2026-05-05T12:00:00Z'))
  assert.deepEqual(
    after.ran.map(({ began, reason }) => `${text(began)} ${reason}`),
    ['2026-05-05T04:06Z retry'],
  )
})

test('a retry does not wait for a clock that was set back while the daemon was down', () => {
  const record = {
    ...{ servedAt: at('2026-05-05T04:00:00Z'), startedAt: at('2026-05-05T04:00:00Z') },
    ...{ endedAt: at('2026-05-05T09:00:00Z'), failures: 1 },
  }
  const machine = new Machine(job('0 4 * * *'), at('2026-05-05T05:00:00Z'), record)
  machine.until(at('2026-05-05T06:00:00Z'))
  assert.deepEqual(
    machine.ran.map(({ began, reason }) => `${text(began)} ${reason}`),
    ['2026-05-05T05:05Z retry'],
  )
})

test('a time that comes while the run is at work is left out, and said to be', () => {
  const machine = new Machine(job('0 * * * *'), at('2026-05-05T03:30:00Z'))
  machine.until(at('2026-05-05T06:30:00Z'), { takes: 70 * MINUTE })
  assert.deepEqual(
    machine.ran.map(({ began }) => text(began)),
    ['2026-05-05T04:00Z', '2026-05-05T06:00Z'],
  )
  assert.deepEqual(machine.skipped.map(text), ['2026-05-05T05:00Z', '2026-05-05T07:00Z'])
})

test('the times of a schedule are those of croner, whatever order they are asked in', () => {
  const instants = fc.array(fc.integer({ min: at('2026-03-20T00:00:00Z'), max: at('2026-04-05T00:00:00Z') }), {
    minLength: 1,
    maxLength: 20,
  })
  fc.assert(
    fc.property(instants, fc.constantFrom('0 * * * *', '30 2 * * *', '*/20 1-3 * * sun'), (all, cron) => {
      const asked = createTimes(cron, 'Europe/Berlin')
      for (const now of all) {
        const fresh = createTimes(cron, 'Europe/Berlin')
        const latest = asked.latest(now) as number
        assert.equal(asked.next(now), fresh.next(now))
        assert.equal(latest, fresh.latest(now))
        assert.ok(latest <= now)
        assert.ok((asked.next(now) as number) > now)
        assert.equal(fresh.next(latest - 1), latest)
      }
    }),
    { numRuns: 30, seed: 3 },
  )
})
