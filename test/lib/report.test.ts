import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { RecordedRun } from '../../lib/history.ts'
import { buildReport, type ServerFacts } from '../../lib/report/model.ts'
import { ageAxis, byteAxis, dateAxis, numberAxis } from '../../lib/report/scale.ts'
import { ageScale, cellsOf, placeOf, pointsOf } from '../../lib/report/series.ts'
import { shortReason, TIERS, tiersOf } from '../../lib/report/tiers.ts'
import { ageText, policyText, rangeText } from '../../lib/report/words.ts'
import { decideRetention } from '../../lib/retention.ts'
import { listedAt, NOW, STORE, worldFacts } from '../support/report-facts.ts'
import { DAY_MS, HOUR_MS } from '../support/retention.ts'

const MIB = 1024 * 1024
const at = (ago: number) => NOW.getTime() - ago

function few(more: Partial<ServerFacts> = {}): ServerFacts {
  const policy = { keepDaily: 2 }
  const snapshots = [
    listedAt('survival', at(5 * DAY_MS), { storedBytes: 100 * MIB }),
    listedAt('survival', at(4 * DAY_MS), { storedBytes: 110 * MIB, pinned: true }),
    listedAt('survival', at(2 * DAY_MS), { storedBytes: 120 * MIB }),
    listedAt('survival', at(30 * HOUR_MS), { storedBytes: 60 * MIB, complete: false }),
    listedAt('survival', at(27 * HOUR_MS), { storedBytes: 130 * MIB }),
  ]
  const last = snapshots[4]!
  return {
    ...{ server: 'survival', policy, maxAge: '26h' },
    stores: [{ location: STORE, decisions: decideRetention(snapshots, policy, NOW) }],
    heads: new Map([[last.key, { consistency: 'quiesced', files: 7, bytes: 260 * MIB, excluded: 0 }]]),
    verified: new Map([[last.key, { size: 130 * MIB, version: null, status: 'ok', mode: 'full', at: at(HOUR_MS) }]]),
    pins: [{ id: snapshots[1]!.id, note: 'before the update', since: null, snapshot: true }],
    runs: [
      run({ at: iso(2 * DAY_MS), bytes: 240 * MIB, storedBytes: 120 * MIB, elapsedMs: 2000 }),
      run({ at: iso(DAY_MS), outcome: 'failed', exitCode: 1, error: { code: 'SOURCE', message: 'It is not there.' } }),
    ],
    ...more,
  }
}

const iso = (ago: number) => new Date(at(ago)).toISOString()
const run = (more: Partial<RecordedRun>): RecordedRun => ({
  ...{ v: 1, at: iso(0), command: 'backup', server: 'survival', outcome: 'ok', exitCode: 0, elapsedMs: 1000 },
  ...more,
})
const build = (...servers: ServerFacts[]) => buildReport({ now: NOW, servers, unreadable: [] }).servers

test('the model of five snapshots, two runs and a verification says what they come to', () => {
  const [report] = build(few())
  assert.ok(report)
  const { timeline, snapshots, stored, content, ratio, runs, findings, ...rest } = report
  const { id } = listedAt('survival', at(27 * HOUR_MS))
  const newest = { id, created: '2026-11-26T19:40:00.000Z', ageMs: 27 * HOUR_MS }
  assert.deepEqual(rest, {
    server: 'survival',
    state: 'problem',
    stores: [
      { location: STORE, newest, complete: 4, unfinished: 1, storedBytes: 520 * MIB, tooOld: true, problem: null },
    ],
    newest,
    oldest: '2026-11-22T22:40:00.000Z',
    counts: { complete: 4, unfinished: 1, pinned: 1, future: 0, remove: 1 },
    storedBytes: 520 * MIB,
    removeBytes: 100 * MIB,
    policy: { keepDaily: 2 },
    maxAge: '26h',
    lastVerified: { id: newest.id, status: 'ok', mode: 'full', at: '2026-11-27T21:40:00.000Z' },
    lastBackup: few().runs[1],
    remove: [
      { from: iso(5 * DAY_MS), to: iso(5 * DAY_MS), count: 1, storedBytes: 100 * MIB, reasons: snapshots[4]?.reasons },
    ],
    months: [],
  })
  assert.deepEqual(findings, [
    { level: 'problem', text: 'The newest complete snapshot is 27 hours old; 26h is the limit.' },
    { level: 'attention', text: 'The last backup run failed: It is not there.' },
    { level: 'info', text: '1 snapshot (100 MiB) is kept by no rule, and the next prune removes it.' },
    {
      level: 'info',
      text: '1 snapshot unfinished: a backup is at work, or broke off. No rule removes what is unfinished.',
    },
  ])
  assert.deepEqual(
    snapshots.map(({ created, tiers, action, reasons, bytes, note, verified }) => [
      ...[created, tiers.join(' '), action, reasons, bytes, note, verified?.mode ?? null],
    ]),
    [
      [
        '2026-11-26T19:40:00.000Z',
        'daily newest',
        'keep',
        ['newest complete snapshot', 'newest of day 2026-11-26 (daily 1 of 2)'],
        260 * MIB,
        null,
        'full',
      ],
      ['2026-11-26T16:40:00.000Z', 'unfinished', 'keep', ['unfinished: not touched'], null, null, null],
      ['2026-11-25T22:40:00.000Z', 'daily', 'keep', ['newest of day 2026-11-25 (daily 2 of 2)'], null, null, null],
      ['2026-11-23T22:40:00.000Z', 'pinned', 'keep', ['pinned'], null, 'before the update', null],
      ['2026-11-22T22:40:00.000Z', 'remove', 'remove', ['older than the last 2 days with one'], null, null, null],
    ],
  )
  assert.deepEqual(
    timeline.lanes.map(({ tier, count }) => [tier, count]),
    [
      ['daily', 2],
      ['pinned', 1],
      ['unfinished', 1],
      ['remove', 1],
    ],
  )
  assert.deepEqual(
    stored.map(({ middle }) => middle / MIB),
    [100, 110, 120, 130],
  )
  assert.deepEqual(
    content.map(({ middle }) => middle / MIB),
    [260],
  )
  assert.deepEqual(
    ratio.map(({ middle }) => middle),
    [2],
  )
  assert.deepEqual(runs, {
    ...{ since: iso(2 * DAY_MS), backups: 2, failed: 1, incomplete: 0, badCount: 1 },
    throughput: [
      { at: at(2 * DAY_MS), to: at(2 * DAY_MS), count: 1, low: 120 * MIB, middle: 120 * MIB, high: 120 * MIB },
    ],
    failures: [{ at: iso(DAY_MS), failed: true }],
    bad: [few().runs[1]],
  })
})

test('the state is the gravest of the findings', () => {
  const good = few({ maxAge: undefined, runs: [] })
  assert.equal(build(good)[0]?.state, 'good')
  const stateOf = (more: Partial<ServerFacts>) => build({ ...good, ...more })[0]?.state
  assert.equal(stateOf({ maxAge: '28h' }), 'good')
  assert.equal(stateOf({ maxAge: '26h59m' }), 'problem')
  assert.equal(stateOf({ runs: [run({ outcome: 'incomplete', exitCode: 3 })] }), 'attention')
  assert.equal(stateOf({ runs: [run({ outcome: 'failed' }), run({})] }), 'good')
  assert.equal(stateOf({ policy: { keepDaily: 2, minimum: 5 } }), 'attention')
  const damaged = { size: 1, version: null, status: 'damaged', mode: 'full', at: 0 } as const
  assert.equal(stateOf({ verified: new Map([['key', damaged]]) }), 'problem')
  const empty = { location: 'file:///empty', decisions: [] }
  assert.equal(stateOf({ stores: [good.stores[0], empty] }), 'problem')
  assert.equal(stateOf({ stores: [empty] }), 'problem')
  const down = { ...empty, problem: 'It did not answer.' }
  assert.equal(stateOf({ stores: [good.stores[0], down] }), 'problem')
  assert.deepEqual(build({ ...good, stores: [down], verified: new Map() })[0]?.findings, [
    { level: 'problem', text: 'file:///empty could not be read: It did not answer.' },
  ])
  const future = decideRetention(
    [listedAt('survival', at(-DAY_MS)), listedAt('survival', at(DAY_MS))],
    { keepLast: 1 },
    NOW,
  )
  const [dated] = build({ ...good, stores: [{ location: STORE, decisions: future }] })
  assert.equal(dated?.state, 'attention')
  assert.equal(dated?.newest?.ageMs, DAY_MS, 'what is dated in the future hides no age')
  // As for `millrace status`: clocks differ by minutes, and such a snapshot is the newest.
  const ahead = decideRetention([listedAt('survival', at(-5 * 60_000))], { keepLast: 1 }, NOW)
  const [skewed] = build({ ...good, stores: [{ location: STORE, decisions: ahead }] })
  assert.equal(skewed?.state, 'good')
  assert.equal(skewed?.newest?.ageMs, 0)
  const many = worldFacts({ backups: 60, everyMs: DAY_MS, policy: { keepLast: 3 } })
  assert.equal(build(many)[0]?.state, 'attention')
})

test('every reason for keeping is of a tier, whatever the policy', () => {
  const policy = {
    ...{ keepLast: 3, keepHourly: 5, keepDaily: 4, keepWeekly: 3, keepMonthly: 3, keepYearly: 3 },
    ...{ keepWithin: '9d', minimum: 4 },
  }
  const snapshots = Array.from({ length: 900 }, (_, n) =>
    listedAt('a', at((n - 1) * 29 * HOUR_MS), { complete: n % 50 !== 7, pinned: n % 70 === 9 }),
  )
  const decisions = decideRetention(snapshots, policy, NOW)
  const found = new Set(decisions.flatMap(tiersOf))
  assert.deepEqual([...found].sort(), TIERS.map(({ tier }) => tier).sort())
  for (const { action, reasons } of decisions) {
    if (action === 'keep') for (const reason of reasons) assert.ok(shortReason(reason).tier, reason)
  }
  assert.deepEqual(shortReason('newest of week 2026-W48 (weekly 2 of 8)'), { tier: 'weekly', text: 'weekly 2 of 8' })
  assert.deepEqual(shortReason('newest complete snapshot'), { tier: 'newest', text: 'newest' })
  assert.deepEqual(shortReason('within 14d'), { tier: 'within', text: 'within 14d' })
})

test('many samples become few points that leave no extreme out', () => {
  const samples = fc.array(fc.record({ at: fc.nat(), value: fc.nat() }), { maxLength: 200 })
  fc.assert(
    fc.property(samples, fc.integer({ min: 1, max: 50 }), (given, most) => {
      const sorted = given.toSorted((a, b) => a.at - b.at)
      const points = pointsOf(sorted, most)
      assert.ok(points.length <= most)
      assert.equal(
        points.reduce((sum, { count }) => sum + count, 0),
        sorted.length,
      )
      for (const { low, middle, high, at: from, to } of points) assert.ok(low <= middle && middle <= high && from <= to)
      const values = sorted.map(({ value }) => value)
      assert.equal(Math.max(...points.map(({ high }) => high)), Math.max(...values))
      assert.equal(Math.min(...points.map(({ low }) => low)), Math.min(...values))
      assert.deepEqual(
        points.map((point) => point.at),
        points.map((point) => point.at).toSorted((a, b) => a - b),
      )
    }),
  )
})

test('the timeline puts the oldest first and now last, in order, in no more cells than there are places', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(4e11), { minLength: 1, maxLength: 300 }),
      fc.integer({ min: 2, max: 60 }),
      (ages, places) => {
        const times = ages.map(at).sort((a, b) => a - b)
        const scale = ageScale(times, NOW.getTime())
        const found = times.map((time) => placeOf(scale, time))
        assert.ok(found.every((place) => place >= 0 && place <= 1))
        assert.deepEqual(
          found,
          found.toSorted((a, b) => a - b),
        )
        assert.equal(placeOf(scale, NOW.getTime()), 1)
        assert.equal(placeOf(scale, NOW.getTime() + DAY_MS), 1)
        const cells = cellsOf(times, scale, places)
        assert.ok(cells.length <= places + 1)
        assert.equal(
          cells.reduce((sum, { count }) => sum + count, 0),
          times.length,
        )
      },
    ),
  )
})

const labels = (ticks: readonly { label: string }[]) => ticks.map(({ label }) => label).join(' | ')

test('axes have round ticks, with their units, in UTC', () => {
  assert.equal(labels(byteAxis(81.3 * 1024 * MIB).ticks), '0 | 25 GiB | 50 GiB | 75 GiB | 100 GiB')
  assert.equal(labels(byteAxis(190 * MIB, '/s').ticks), '0 | 50 MiB/s | 100 MiB/s | 150 MiB/s | 200 MiB/s')
  assert.equal(labels(byteAxis(0).ticks), '0 | 1 B')
  assert.equal(labels(numberAxis(1.7).ticks), '0 | 0.5 | 1 | 1.5 | 2')
  const day = (text: string) => Date.parse(`${text}Z`)
  assert.equal(
    labels(dateAxis(day('2025-10-07T10:00'), day('2026-11-27T22:40'))),
    'Jan 2026 | Apr 2026 | Jul 2026 | Oct 2026',
  )
  assert.equal(
    labels(dateAxis(day('2026-11-17T10:00'), day('2026-11-27T22:40'))),
    '19 Nov | 21 Nov | 23 Nov | 25 Nov | 27 Nov',
  )
  assert.equal(
    labels(dateAxis(day('2026-11-27T17:10'), day('2026-11-28T02:10'))),
    '18:00 | 20:00 | 22:00 | 28 Nov | 02:00',
  )
  assert.equal(labels(dateAxis(day('1990-03-01T00:00'), day('2026-11-27T22:40'))), 'Jan 2000 | Jan 2010 | Jan 2020')
  const mondays = dateAxis(day('2026-10-27T10:00'), day('2026-11-27T22:40'))
  assert.equal(labels(mondays), '2 Nov | 9 Nov | 16 Nov | 23 Nov')
  const scale = ageScale(
    Array.from({ length: 9600 }, (_, n) => at((9600 - n) * HOUR_MS)),
    NOW.getTime(),
  )
  const ages = ageAxis(scale.spanMs, (age) => placeOf(scale, scale.now - age))
  assert.equal(
    labels(ages),
    '1 year | 6 months | 3 months | 1 month | 2 weeks | 1 week | 1 day | 6 hours | 1 hour | now',
  )
})

test('axes stay within their bounds whatever the values', () => {
  fc.assert(
    fc.property(fc.double({ min: 1e-3, max: 1e18, noNaN: true }), (value) => {
      for (const { end, ticks } of [byteAxis(value), numberAxis(value)]) {
        assert.ok(end >= value * 0.99, `${end} of ${value}`)
        assert.ok(ticks.length >= 2 && ticks.length <= 8, labels(ticks))
        assert.equal(new Set(ticks.map(({ label }) => label)).size, ticks.length, labels(ticks))
        assert.equal(ticks.at(-1)?.place, 1)
      }
    }),
  )
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4e12 }), fc.integer({ min: HOUR_MS, max: 3e12 }), (from, span) => {
      const ticks = dateAxis(from, from + span)
      assert.ok(ticks.length <= 8, labels(ticks))
      assert.ok(ticks.every(({ place }) => place >= 0 && place <= 1))
    }),
  )
})

test('10,000 snapshots are told in at most 200 rows, and the others by month', () => {
  const [report] = build(worldFacts({ backups: 10_000 }))
  assert.ok(report)
  assert.equal(report.snapshots.length, 200)
  const all = report.counts.complete + report.counts.unfinished
  assert.equal(
    report.months.reduce((sum, { snapshots }) => sum + snapshots, 0),
    all - 200,
  )
  assert.ok(report.stored.length <= 160 && report.runs.throughput.length <= 160)
  assert.ok(report.timeline.lanes.every(({ cells }) => cells.length <= 321))
  const inMonths = report.months.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  const inRows = report.snapshots.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  assert.equal(inMonths + inRows, report.storedBytes)
})

test('what goes for the same reasons is one row, unless something between stays', () => {
  const policy = { keepDaily: 3 }
  const made = [69, 68, 67, 30, 29, 28].map((hours) =>
    listedAt('a', at(hours * HOUR_MS), { storedBytes: 10, pinned: hours === 29 }),
  )
  const decisions = decideRetention(made, policy, NOW)
  const [report] = build({ ...few(), policy, stores: [{ location: STORE, decisions }] })
  assert.deepEqual(
    report?.remove.map(({ from, to, count, storedBytes, reasons }) => [from, to, count, storedBytes, reasons.join()]),
    [
      [iso(30 * HOUR_MS), iso(30 * HOUR_MS), 1, 10, 'day 2026-11-26 has a newer one'],
      [iso(69 * HOUR_MS), iso(68 * HOUR_MS), 2, 20, 'day 2026-11-25 has a newer one'],
    ],
  )
})

test('ages, ranges and policies in words', () => {
  assert.equal(rangeText(iso(3 * HOUR_MS), iso(HOUR_MS)), '2026-11-27 19:40 to 21:40')
  assert.equal(rangeText(iso(24 * HOUR_MS), iso(HOUR_MS)), '2026-11-26 22:40 to 2026-11-27 21:40')
  assert.equal(rangeText(iso(HOUR_MS), iso(HOUR_MS)), '2026-11-27 21:40')
  const words = [10_000, 61_000, 7_199_000, 27 * HOUR_MS, 49 * HOUR_MS].map(ageText)
  assert.deepEqual(words, ['under a minute', '1 minute', '119 minutes', '27 hours', '2 days'])
  assert.equal(
    policyText({ keepHourly: 24, keepDaily: 0, keepWithin: '14d', minimum: 3 }),
    '24 hourly, all of the last 14d, at least 3',
  )
})
