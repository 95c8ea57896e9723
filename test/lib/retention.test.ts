import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseDuration } from '../../lib/duration.ts'
import { DEFAULT_POLICY, type Decision, decideRetention, type RetentionPolicy } from '../../lib/retention.ts'
import { DAY_MS, HOUR_MS, keptByTheWords, type MadeSnapshot, snapshotAt } from '../support/retention.ts'

const NOW = new Date('2025-11-24T10:30:00.000Z')
const GOLDEN = join(import.meta.dirname, 'golden/retention')

/** Snapshots at the given hours before NOW. */
const hoursAgo = (hours: readonly number[], state: Partial<MadeSnapshot> = {}) =>
  hours.map((ago) => snapshotAt(NOW.getTime() - ago * HOUR_MS, state))
const count = (n: number, each: (at: number) => number) => Array.from({ length: n }, (_, at) => each(at))
const kept = (decisions: readonly Decision<MadeSnapshot>[]) =>
  decisions.filter(({ action }) => action === 'keep').map(({ snapshot }) => snapshot.key)

interface Golden {
  policy: RetentionPolicy
  snapshots: MadeSnapshot[]
}

const GOLDENS: Record<string, Golden> = {
  'defaults-hourly-for-90-days': { policy: DEFAULT_POLICY, snapshots: hoursAgo(count(90 * 24, (at) => at)) },
  'months-and-years': {
    policy: { keepMonthly: 3, keepYearly: 4 },
    snapshots: hoursAgo(count(120, (at) => at * 24 * 11)),
  },
  'last-within-and-floor': {
    policy: { keepLast: 2, keepWithin: '1d12h', minimum: 8 },
    snapshots: hoursAgo(count(12, (at) => at * 10)),
  },
  'weeks-around-new-year': {
    policy: { keepWeekly: 5 },
    snapshots: count(40, (at) => at).map((day) => snapshotAt(Date.UTC(2021, 0, 15, 3) - day * DAY_MS)),
  },
  'pinned-unfinished-and-future': {
    policy: { keepDaily: 2 },
    snapshots: [
      ...hoursAgo([2, 30, 31, 80]),
      ...hoursAgo([1, 50], { complete: false }),
      ...hoursAgo([100, 101], { pinned: true }),
      ...hoursAgo([-1, -24 * 3650]),
      ...hoursAgo([3, 300], { server: 'creative' }),
    ],
  },
}

function tableOf({ policy, snapshots }: Golden): string {
  const lines = decideRetention(snapshots, policy, NOW).map(({ snapshot, action, reasons }) => {
    const hours = Math.round((NOW.getTime() - snapshot.created.getTime()) / HOUR_MS)
    return `${snapshot.server} ${snapshot.id} ${String(hours).padStart(6)}h ${action.padEnd(6)} ${reasons.join('; ')}`
  })
  return `policy ${JSON.stringify(policy)}\nnow    ${NOW.toISOString()}\n\n${lines.join('\n')}\n`
}

for (const [name, golden] of Object.entries(GOLDENS)) {
  test(`the decisions of ${name} are the golden ones`, () => {
    const file = join(GOLDEN, `${name}.txt`)
    const table = tableOf(golden)
    if (process.env.MILLRACE_UPDATE_GOLDEN === '1') writeFileSync(file, table)
    assert.equal(table, readFileSync(file, 'utf8'))
  })
}

test('T18: fifteen failed nights under an age of 14 days leave the newest three complete snapshots', () => {
  const good = hoursAgo(count(10, (at) => (15 + at) * 24 + 1))
  const failed = hoursAgo(
    count(15, (at) => at * 24),
    { complete: false },
  )
  const decide = (minimum?: number) => decideRetention([...failed, ...good], { keepWithin: '14d', minimum }, NOW)
  const goodKept = (decisions: Decision<MadeSnapshot>[]) =>
    decisions.filter(({ action, snapshot }) => action === 'keep' && snapshot.complete)
  const newest = [...good].reverse().map(({ key }) => key)
  assert.deepEqual(kept(goodKept(decide())), newest.slice(-3))
  assert.deepEqual(
    goodKept(decide()).map(({ reasons }) => reasons),
    [['floor 3 of 3'], ['floor 2 of 3'], ['newest complete snapshot', 'floor 1 of 3']],
  )
  assert.deepEqual(kept(goodKept(decide(5))), newest.slice(-5))
  assert.deepEqual(kept(goodKept(decide(1))), newest.slice(-1))
  assert.equal(decide().filter(({ snapshot, action }) => !snapshot.complete && action === 'remove').length, 0)
})

test('T19: each server is decided for itself', () => {
  const servers = ['world', 'world2', '1', '10', 'a']
  const ages = count(5, (at) => at)
  const each = servers.map((server) => hoursAgo(ages, { server }))
  const together = decideRetention(each.flat(), { keepLast: 2 }, NOW)
  const apart = servers.sort().flatMap((server) => decideRetention(hoursAgo(ages, { server }), { keepLast: 2 }, NOW))
  assert.deepEqual(together, apart)
  assert.equal(kept(together).length, 2 * servers.length)
})

test('T20: a snapshot dated in the future stays and takes no place from the real ones', () => {
  const real = hoursAgo(count(30, (at) => at))
  const future = hoursAgo([-1, -24, -24 * 3650])
  const policy = { keepLast: 3, keepHourly: 5, keepDaily: 2, keepYearly: 1, minimum: 2 }
  const without = decideRetention(real, policy, NOW)
  const decided = decideRetention([...future, ...real], policy, NOW)
  assert.deepEqual(decided.slice(0, real.length), without)
  assert.deepEqual(
    decided.slice(real.length).map(({ action, reasons }) => [action, ...reasons]),
    future.map(() => ['keep', 'dated in the future']),
  )
})

test('T20: a clock that is years ahead expires nothing by hours, days or weeks', () => {
  const real = hoursAgo(count(60 * 24, (at) => at))
  const later = new Date(NOW.getTime() + 3650 * DAY_MS)
  assert.deepEqual(decideRetention(real, DEFAULT_POLICY, later), decideRetention(real, DEFAULT_POLICY, NOW))
})

test('T20: the zone of the machine and its summer time decide nothing', (t) => {
  const before = process.env.TZ
  t.after(() => {
    if (before === undefined) delete process.env.TZ
    else process.env.TZ = before
  })
  // Both changes of the clocks, in Europe and in America.
  const hours = count(300 * 24, (at) => Date.UTC(2025, 1, 1) + at * HOUR_MS + 30 * 60_000).map((at) => snapshotAt(at))
  const policy = { keepHourly: 5000, keepDaily: 250, keepWeekly: 40, keepMonthly: 12 }
  const tables = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe'].map((zone) => {
    process.env.TZ = zone
    return decideRetention(hours, policy, new Date('2026-01-01T00:00:00Z'))
  })
  for (const table of tables) assert.deepEqual(table, tables[0])
  // In Berlin it is half past two twice; in UTC each hour has its own.
  const twice = ['2025-10-26T00:30:00Z', '2025-10-26T01:30:00Z'].map((text) => snapshotAt(new Date(text)))
  assert.equal(kept(decideRetention(twice, { keepHourly: 2 }, NOW)).length, 2)
})

test('a policy that keeps nothing, or that is no policy, is refused', () => {
  const bad: RetentionPolicy[] = [
    {},
    { keepLast: 0, keepHourly: 0 },
    { minimum: 5 },
    { keepLast: -1 },
    { keepHourly: 1.5 },
    { keepDaily: Number.NaN },
    { keepWeekly: Number.POSITIVE_INFINITY },
    { keepLast: '3' as unknown as number },
    { keepLast: 1, minimum: 0 },
    { keepWithin: '' },
    { keepWithin: '14' },
    { keepWithin: '0d' },
    { keepWithin: '-1d' },
    { keepWithin: '2 weeks' },
  ]
  for (const policy of bad) {
    assert.throws(() => decideRetention([], policy, NOW), { code: 'USAGE' }, JSON.stringify(policy))
  }
  const misspelt = { keepLast: 1, keepDialy: 14 }
  assert.throws(() => decideRetention([], misspelt, NOW), { code: 'USAGE', message: /"keepDialy"\. Is it keepDaily\?/ })
  for (const now of [new Date(Number.NaN), undefined, null, 0, '2026-01-01T00:00:00.000Z']) {
    assert.throws(() => decideRetention([], DEFAULT_POLICY, now as Date), { code: 'USAGE' })
  }
  const undated = { ...snapshotAt(NOW), created: NOW.toISOString() as never }
  assert.throws(() => decideRetention([undated], DEFAULT_POLICY, NOW), { code: 'USAGE' })
  for (const none of [undefined, null, 'keepLast']) {
    assert.throws(() => decideRetention([], none as never, NOW), { code: 'USAGE' })
  }
  assert.deepEqual(decideRetention([], { ...DEFAULT_POLICY, keepLast: undefined }, NOW), [])
})

test('a length of time is whole numbers with units, the largest first', () => {
  assert.equal(parseDuration('14d'), 14 * DAY_MS)
  assert.equal(parseDuration('1d12h'), 36 * HOUR_MS)
  assert.equal(parseDuration('2w1d3h4m5s'), 15 * DAY_MS + 3 * HOUR_MS + 245_000)
  for (const text of ['', 'd', '12h1d', '1.5d', '1y', '99999999999999999d']) {
    assert.throws(() => parseDuration(text), { code: 'USAGE' }, text)
  }
})

const aSnapshot = fc
  .record({
    // Close together and far apart, so that hours, days and years are shared as well as not.
    minutes: fc.oneof(fc.integer({ min: -200, max: 5000 }), fc.integer({ min: -10_000, max: 5_000_000 })),
    complete: fc.boolean(),
    pinned: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
    server: fc.constantFrom('a', 'b'),
    random: fc.integer({ min: 0, max: 1295 }).map((n) => n.toString(36).padStart(4, '0')),
  })
  .map(({ minutes, random, ...state }) => {
    const created = new Date(NOW.getTime() - minutes * 60_000)
    return snapshotAt(created, { ...state, id: `${created.toISOString().replaceAll(':', '-')}-${random}` })
  })
const someSnapshots = fc.uniqueArray(aSnapshot, { selector: ({ key }) => key, maxLength: 60 })
const n = fc.integer({ min: 0, max: 6 })
const aPolicy: fc.Arbitrary<RetentionPolicy> = fc
  .record({
    ...{ keepLast: n, keepHourly: n, keepDaily: n, keepWeekly: n, keepMonthly: n, keepYearly: n },
    keepWithin: fc.option(fc.constantFrom('1h', '3d', '20w'), { nil: undefined }),
    minimum: fc.integer({ min: 1, max: 5 }),
  })
  .filter(({ keepWithin, minimum: _, ...rules }) => keepWithin !== undefined || Object.values(rules).some(Boolean))

test('whatever the snapshots and the policy, the rules of retention hold', () => {
  fc.assert(
    fc.property(someSnapshots, aPolicy, fc.integer(), (snapshots, policy, seed) => {
      const decisions = decideRetention(snapshots, policy, NOW)
      const stays = kept(decisions)
      assert.equal(decisions.length, snapshots.length)
      for (const { snapshot, action, reasons } of decisions) {
        assert.ok(reasons.length > 0)
        if (!snapshot.complete || snapshot.pinned || snapshot.created > NOW) assert.equal(action, 'keep')
      }
      for (const server of ['a', 'b']) {
        const real = snapshots.filter((one) => one.server === server && one.complete && one.created <= NOW)
        real.sort((a, b) => (a.id < b.id ? -1 : 1))
        const newest = real.at(-1)
        if (newest) assert.ok(stays.includes(newest.key), 'the newest complete one stays')
        const left = real.filter(({ key }) => stays.includes(key))
        assert.ok(left.length >= Math.min(real.length, policy.minimum as number), 'the floor')
      }
      const order = [...snapshots].sort((a, b) => ((a.key.length * seed) % 7) - ((b.key.charCodeAt(20) * seed) % 5))
      assert.deepEqual(decideRetention(order.reverse(), policy, NOW), decisions, 'the order given is of no account')
      const after = snapshots.filter(({ key }) => stays.includes(key))
      assert.deepEqual(kept(decideRetention(after, policy, NOW)), stays, 'deciding again changes nothing')
    }),
    { numRuns: 500 },
  )
})

test('a larger number keeps at least what a smaller one keeps', () => {
  const names = ['keepLast', 'keepHourly', 'keepDaily', 'keepWeekly', 'keepMonthly', 'keepYearly', 'minimum'] as const
  fc.assert(
    fc.property(someSnapshots, aPolicy, fc.constantFrom(...names), n, (snapshots, policy, name, more) => {
      const less = kept(decideRetention(snapshots, policy, NOW))
      const larger = { ...policy, [name]: (policy[name] as number) + more }
      const stays = kept(decideRetention(snapshots, larger, NOW))
      assert.deepEqual(
        less.filter((key) => !stays.includes(key)),
        [],
      )
    }),
    { numRuns: 500 },
  )
})

test('what stays is what the words of the guide say, worked out another way', () => {
  fc.assert(
    fc.property(someSnapshots, aPolicy, (snapshots, { keepWithin: _, ...policy }) => {
      const ours = snapshots.filter(({ server }) => server === 'a')
      const named = { ...policy, keepLast: policy.keepLast || 1 }
      const words = keptByTheWords(ours, named, NOW)
      assert.deepEqual(new Set(kept(decideRetention(ours, named, NOW))), words)
    }),
    { numRuns: 500 },
  )
})

test('what is exactly as old as keepWithin says stays, and a millisecond more goes', () => {
  const policy = { keepWithin: '1d', minimum: 1 }
  const [older, border, newest] = [
    snapshotAt(NOW.getTime() - DAY_MS - 1),
    snapshotAt(NOW.getTime() - DAY_MS),
    snapshotAt(NOW),
  ]
  assert.deepEqual(
    decideRetention([older, border, newest], policy, NOW).map(({ action }) => action),
    ['remove', 'keep', 'keep'],
  )
})

test('what is dated by no time that can be understood stays, and takes no place in a rule', () => {
  const undated = { ...snapshotAt(NOW), id: 'undated', created: new Date(Number.NaN) }
  const decisions = decideRetention([undated, ...hoursAgo([1, 2, 3])], { keepLast: 2 }, NOW)
  const actions = new Map(decisions.map(({ snapshot, action }) => [snapshot.id, action]))
  assert.equal(actions.get('undated'), 'keep')
  assert.equal([...actions.values()].filter((action) => action === 'keep').length, 3)
})
