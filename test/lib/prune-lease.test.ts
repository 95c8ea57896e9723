import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { acquireLease, type Lease } from '../../lib/index.ts'
import { pruneSnapshots } from '../../lib/prune.ts'
import { isStillHeld } from '../../lib/prune-lease.ts'
import { scratch } from '../support/cli.ts'
import { DAY_MS, HOUR_MS, putSnapshot, withOlder } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'

const NOW = new Date('2025-11-24T10:30:00.000Z')
const server = 'survival'

/** A prune with something to sweep, and a store that says what it was asked to cancel. */
async function place(t: TestContext) {
  const stateDir = join(await scratch(t), 'state')
  const memory = await openMemory()
  const old = withOlder(memory, (key) => (key.includes('/.lease/') ? 0 : 3 * DAY_MS))
  const cancelled: number[] = []
  let marked: () => Promise<void> = async () => {}
  const storage: Storage = overriding(old, {
    async purgeUnfinished(olderThanMs) {
      cancelled.push(olderThanMs)
      return 0
    },
    async stat(key, options) {
      const found = await old.stat(key, options)
      // The mark of what is to be removed: it is written under the lease, and before anything is removed.
      if (key.includes('/.lease/prune-')) await marked()
      return found
    },
  })
  const left = await putSnapshot(memory, NOW.getTime() - 30 * HOUR_MS, { companion: false })
  for (const hours of [3, 2, 1]) await putSnapshot(memory, NOW.getTime() - hours * HOUR_MS)
  const prune = (hours: number, onMark = async () => {}) => {
    marked = onMark
    const now = new Date(NOW.getTime() + hours * HOUR_MS)
    const lease = (): Promise<Lease> => acquireLease(storage, server)
    return pruneSnapshots({ storage, server }, { keepLast: 2 }, { stateDir, now, lease })
  }
  await prune(0, async () => {})
  cancelled.length = 0
  await putSnapshot(memory, NOW.getTime() - HOUR_MS / 2)
  return { memory, storage, cancelled, left, prune }
}

test('a prune whose lease was taken while its machine slept leaves what only its holder may remove', async (t) => {
  const { memory, storage, cancelled, left, prune } = await place(t)
  const others: Lease[] = []
  const report = await prune(25, async () => {
    // The others have found it dead, which is all the same to the one that wakes.
    others.push(await acquireLease(storage, server, { steal: true }))
  })
  const outcomes = report.snapshots.map(({ snapshot, outcome }) => [snapshot.complete, outcome])
  // What the policy condemns is held by its own mark, and goes.
  assert.deepEqual(outcomes, [
    [false, 'kept'],
    [true, 'removed'],
    [true, 'kept'],
    [true, 'kept'],
  ])
  assert.ok((await memory.stat(left.key)).size > 0)
  assert.deepEqual(cancelled, [7 * DAY_MS])
  assert.match(report.notes.join('\n'), /^The lease of the server was lost meanwhile[^\n]*$/)
  for (const one of others) await one.release()
})

test('a prune that holds its lease to the end removes that', async (t) => {
  const { memory, cancelled, left, prune } = await place(t)
  const report = await prune(25)
  assert.equal(report.snapshots[0]?.outcome, 'removed')
  await assert.rejects(memory.stat(left.key), { code: 'NOT_FOUND' })
  assert.deepEqual(cancelled, [DAY_MS])
  assert.deepEqual(report.notes, [])
})

test('whether the lease is held is asked of a store that does not answer no longer than the caller waits', async () => {
  const stop = new AbortController()
  const held = { release: async () => {}, confirm: () => new Promise<void>(() => {}) }
  const asked = isStillHeld(held, [], stop.signal)
  stop.abort()
  await assert.rejects(asked, { name: 'AbortError' })
  await assert.rejects(isStillHeld(held, [], stop.signal), { name: 'AbortError' })
})
