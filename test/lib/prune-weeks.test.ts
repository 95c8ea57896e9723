import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import type { ObjectStat, Storage } from '../../adapters/storage.ts'
import { listSnapshots } from '../../lib/catalog.ts'
import { pruneSnapshots } from '../../lib/prune.ts'
import type { RetentionPolicy } from '../../lib/retention.ts'
import { scratch } from '../support/cli.ts'
import { seededRandom } from '../support/random.ts'
import { DAY_MS, HOUR_MS, keptByTheWords, keysIn, putSnapshot } from '../support/retention.ts'
import { rounds } from '../support/rounds.ts'
import { overriding } from '../support/storage.ts'

const RUNS = rounds(16, 25) * 24
const POLICY: RetentionPolicy = { keepHourly: 12, keepDaily: 5, keepWeekly: 2, minimum: 2 }
const server = 'survival'

/** A store whose clock is the test's. */
function withClock(storage: Storage, now: () => Date): Storage {
  const taken = new Map<string, Date>()
  const timed = (stat: ObjectStat) => ({ ...stat, modified: taken.get(stat.key) as Date })
  return overriding(storage, {
    createWriteStream(key, options) {
      taken.set(key, now())
      return storage.createWriteStream(key, options)
    },
    stat: async (key, options) => timed(await storage.stat(key, options)),
    async *list(prefix, options) {
      for await (const stat of storage.list(prefix, options)) yield timed(stat)
    },
  })
}

test('weeks of hourly backups, some of them unfinished, leave in the store what the policy says and nothing else', async (t) => {
  const stateDir = join(await scratch(t), 'state')
  const random = seededRandom('weeks')
  let now = new Date(Date.UTC(2025, 2, 20))
  const storage = withClock(await openMemory(), () => now)
  const lease = async () => ({ release: async () => {} })
  let unfinished = 0
  let swept = 0
  for (let run = 0; run < RUNS; run += 1) {
    now = new Date(Date.UTC(2025, 2, 20) + run * HOUR_MS + random.int(1_800_000))
    const companion = !random.chance(0.03)
    if (!companion) unfinished += 1
    await putSnapshot(storage, now, { companion })
    const before = await listSnapshots(storage, server)
    const expected = keptByTheWords(before, POLICY, now)
    const report = await pruneSnapshots({ storage, server }, POLICY, { now, lease, stateDir })
    assert.deepEqual(report.problems, [])
    const gone = new Set(
      report.snapshots.filter(({ outcome }) => outcome === 'removed').map(({ snapshot }) => snapshot.key),
    )
    for (const { key, complete, created } of before) {
      if (complete) assert.equal(gone.has(key), !expected.has(key), key)
      else if (gone.has(key)) swept += 1
      else assert.ok(now.getTime() - created.getTime() < DAY_MS + HOUR_MS, `${key} is left`)
    }
    const after = await listSnapshots(storage, server)
    const companions = after.flatMap(({ key, complete }) => (complete ? [`${key}.sha256`] : []))
    assert.deepEqual(await keysIn(storage), [...after.map(({ key }) => key), ...companions].sort())
  }
  assert.ok(unfinished > 5 && swept > 5, `${unfinished} were unfinished, ${swept} were swept`)
  t.diagnostic(
    `${RUNS} prunes: ${unfinished} unfinished, ${swept} of them swept, ${(await keysIn(storage)).length} objects left`,
  )
})
