import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decideRetention, type RetentionPolicy } from '../../lib/retention.ts'
import { seededRandom } from '../support/random.ts'
import { DAY_MS, HOUR_MS, keptByTheWords, type MadeSnapshot, snapshotAt } from '../support/retention.ts'

const RUNS = 8760
const YEARS_MS = 3650 * DAY_MS
const POLICY: RetentionPolicy = { keepHourly: 24, keepDaily: 14, keepWeekly: 8, minimum: 3 }

interface Year {
  left: Map<string, MadeSnapshot>
  counts: Record<'made' | 'failed' | 'unfinished' | 'steps' | 'years ahead' | 'removed', number>
  /** The most snapshots that one decision was about. */
  most: number
  /** The machine's time at the last run. */
  end: Date
}

/** A backup each hour, and a prune after each by the clock as it stands then; every decision is checked. */
function simulate(seed: string): Year {
  const random = seededRandom(seed)
  const left = new Map<string, MadeSnapshot>()
  const counts = { made: 0, failed: 0, unfinished: 0, steps: 0, 'years ahead': 0, removed: 0 }
  let offset = 0
  let most = 0
  let end = new Date(0)
  for (let run = 0; run < RUNS; run += 1) {
    if (random.chance(0.01)) {
      offset = random.pick([0, -HOUR_MS, HOUR_MS, -DAY_MS, DAY_MS, 90_000])
      counts.steps += 1
    }
    const isAhead = random.chance(0.0005)
    if (isAhead) counts['years ahead'] += 1
    const minute = random.int(50)
    const now = new Date(Date.UTC(2025, 0, 1) + run * HOUR_MS + minute * 60_000 + offset + (isAhead ? YEARS_MS : 0))
    end = now
    if (random.chance(0.03)) {
      counts.failed += 1
    } else {
      const complete = !random.chance(0.02)
      const id = `${now.toISOString().replaceAll(':', '-')}-${run.toString(36).padStart(4, '0')}`
      const made = snapshotAt(now, { id, complete, pinned: random.chance(0.001) })
      left.set(made.key, made)
      counts[complete ? 'made' : 'unfinished'] += 1
    }
    const there = [...left.values()]
    most = Math.max(most, there.length)
    const expected = keptByTheWords(there, POLICY, now)
    for (const { snapshot, action, reasons } of decideRetention(there, POLICY, now)) {
      assert.ok(reasons.length > 0)
      if (action === 'keep') {
        assert.ok(expected.delete(snapshot.key), `run ${run}: ${snapshot.id} was kept: ${reasons.join('; ')}`)
      } else {
        left.delete(snapshot.key)
        counts.removed += 1
      }
    }
    assert.deepEqual([...expected], [], `run ${run}: removed against the words of the policy`)
  }
  return { left, counts, most, end }
}

test('T20: a year of hourly backups under clock steps, failures and future dates is kept as the policy says', (t) => {
  const { left, counts, most, end } = simulate('a year')
  const found = [...left.values()]
  const future = found.filter(({ created }) => created.getTime() > end.getTime() + 2 * DAY_MS)
  const real = found.filter(({ complete, pinned, created }) => complete && !pinned && created <= end)
  const unfinished = found.filter(({ complete }) => !complete)
  assert.ok(counts['years ahead'] > 0 && counts.steps > 50 && counts.failed > 100)
  assert.ok(future.length > 0, 'what a clock years ahead has dated is there')
  assert.equal(unfinished.length, counts.unfinished, 'none of the unfinished was touched')
  // 24 hours on two or three days, the other days, on three weeks, and the other weeks.
  assert.ok(real.length >= 24 + 11 + 5 && real.length <= 24 + 12 + 6, `${real.length} are left`)
  const newestHours = new Set(real.map(({ created }) => created.toISOString().slice(0, 13)))
  assert.ok(newestHours.size >= 24)
  t.diagnostic(
    `${RUNS} runs: ${JSON.stringify(counts)}; left ${real.length} real, ${future.length} future; at most ${most} at once`,
  )
})

test('a year that was never pruned is decided at once as a year pruned each hour was', () => {
  const all = Array.from({ length: RUNS }, (_, run) => snapshotAt(Date.UTC(2025, 0, 1) + run * HOUR_MS))
  const now = (run: number) => new Date(Date.UTC(2025, 0, 1) + run * HOUR_MS + 1)
  const keys = (snapshots: MadeSnapshot[], at: Date) =>
    decideRetention(snapshots, POLICY, at).flatMap(({ action, snapshot }) => (action === 'keep' ? [snapshot] : []))
  let left: MadeSnapshot[] = []
  for (const [run, snapshot] of all.entries()) left = keys([...left, snapshot], now(run))
  const once = keys(all, now(RUNS))
  assert.deepEqual(
    left.map(({ id }) => id),
    once.map(({ id }) => id),
  )
})
