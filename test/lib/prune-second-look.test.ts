import assert from 'node:assert/strict'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import type { PruneOptions, PruneReport } from '../../lib/index.ts'
import { MARK_TTL_MS } from '../../lib/marks.ts'
import { pruneSnapshots } from '../../lib/prune.ts'
import { scratch } from '../support/cli.ts'
import { DAY_MS, HOUR_MS, keysIn, putSnapshot, withOlder } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'
import { feed } from '../support/streams.ts'

const NOW = new Date('2025-11-24T10:30:00.000Z')
const server = 'survival'

async function pruner(t: TestContext) {
  const stateDir = join(await scratch(t), 'state')
  return (storage: Storage, options: PruneOptions = {}) =>
    pruneSnapshots({ storage, server }, { keepLast: 2 }, { stateDir, now: NOW, lease: aLease, ...options })
}

const aLease = async () => ({ release: async () => {} })
const hours = (count: number) => new Date(NOW.getTime() + count * HOUR_MS)
const put = (storage: Storage, hoursAgo: number, options = {}) => putSnapshot(storage, hours(-hoursAgo), options)
const write = (storage: Storage, key: string, text: string) =>
  pipeline(feed(Buffer.from(text)), storage.createWriteStream(key))
const outcomes = ({ snapshots }: PruneReport) => snapshots.map(({ outcome }) => outcome)
const objects = async (storage: Storage) => (await keysIn(storage)).filter((key) => key.endsWith('.mlr'))
/** What lies there is days old by the store's time, and what is written beside it to work with is not. */
const aged = (storage: Storage) => withOlder(storage, (key) => (key.includes('/.lease/') ? 0 : 3 * DAY_MS))

/** Something happens in the store right before the second of two listings. */
function between(storage: Storage, happens: () => Promise<unknown>): Storage {
  let listings = 0
  return overriding(storage, {
    async *list(prefix, options) {
      listings += 1
      if (listings === 2) await happens()
      yield* storage.list(prefix, options)
    },
  })
}

/** A store that names no versions: all that tells one object from another there is its size. */
function withoutVersions(storage: Storage): Storage {
  return overriding(storage, {
    async *list(prefix, options) {
      for await (const { version: _, ...stat } of storage.list(prefix, options)) yield stat
    },
  })
}

/** An unfinished snapshot that was seen a day ago and is to be swept, and a complete one after it. */
async function sweepable(t: TestContext) {
  const prune = await pruner(t)
  const memory = await openMemory()
  const left = await put(memory, 60, { companion: false })
  const newer = await put(memory, 50)
  await prune(aged(memory), { now: hours(-30) })
  return { prune, memory, left, newer }
}

test('an unfinished snapshot that is adopted, or pinned, while a prune looks is not swept', async (t) => {
  for (const [suffix, text] of [
    ['.tar.zst.mlr.sha256', 'a companion'],
    ['.pin', '{}'],
  ] as const) {
    const { prune, memory, left } = await sweepable(t)
    const report = await prune(between(aged(memory), () => write(memory, `${server}/${left.id}${suffix}`, text)))
    assert.deepEqual(outcomes(report), ['kept', 'kept'], suffix)
    assert.match(report.snapshots[0]!.reasons.join(), /changed/)
    assert.equal((await objects(memory)).length, 2)
  }
})

test('an unfinished snapshot stays when the newer complete one goes while a prune looks', async (t) => {
  const { prune, memory, left, newer } = await sweepable(t)
  const report = await prune(between(aged(memory), () => memory.delete(newer.key)))
  assert.equal(report.snapshots[0]?.outcome, 'kept')
  assert.deepEqual(await objects(memory), [left.key])
})

test('an unfinished snapshot is swept for no newer one that is unfinished itself, or dated in the future', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  await put(memory, 60, { companion: false })
  await put(memory, 50, { companion: false })
  await put(memory, -24 * 365)
  for (const now of [-30, 0]) {
    assert.deepEqual(outcomes(await prune(aged(memory), { now: hours(now) })), ['kept', 'kept', 'kept'])
  }
})

test('the day of an unfinished snapshot begins anew with other bytes, of another version or of another size', async (t) => {
  for (const [text, has] of [
    ['same size', (storage: Storage) => storage],
    ['another size', withoutVersions],
  ] as const) {
    const { prune, memory, left } = await sweepable(t)
    // As long as what it replaces, which is its id.
    await write(memory, left.key, text === 'same size' ? 'x'.repeat(left.id.length) : text)
    const storage = has(aged(memory))
    // A store without versions has been one at the first sight too.
    if (has === withoutVersions) {
      await write(memory, left.key, left.id)
      await prune(storage, { now: hours(-30) })
      await write(memory, left.key, text)
    }
    assert.deepEqual(outcomes(await prune(storage)), ['kept', 'kept'], text)
    assert.deepEqual(outcomes(await prune(storage, { now: hours(24) })), ['removed', 'kept'], text)
  }
})

test('where a store names no versions, an object of another size is another one', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const [oldest] = await Promise.all([3, 2, 1].map((ago) => put(memory, ago)))
  const replaced = between(withoutVersions(memory), () => write(memory, oldest!.key, 'another size'))
  assert.deepEqual(outcomes(await prune(replaced)), ['kept', 'kept', 'kept'])
  assert.equal((await objects(memory)).length, 3)
})

test('a companion whose object goes while a prune looks is left to the next one', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const made = await Promise.all([4, 3, 2, 1].map((ago) => put(memory, ago)))
  const companion = `${made[2]!.key}.sha256`
  const report = await prune(between(aged(memory), () => memory.delete(made[2]!.key)))
  assert.deepEqual(report.orphans, [])
  assert.ok((await keysIn(memory)).includes(companion))
  assert.deepEqual((await prune(aged(memory))).orphans, [companion])
})

test('a prune that slept for longer than others take its mark for live deletes nothing more, and says so', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  for (const ago of [4, 3, 2, 1]) await put(memory, ago)
  const woken = Date.now() + MARK_TTL_MS + HOUR_MS
  const inUse = () => {
    t.mock.method(Date, 'now', () => woken)
    return false
  }
  const report = await prune(memory, { inUse })
  assert.deepEqual(outcomes(report), ['failed', 'failed', 'kept', 'kept'])
  assert.deepEqual(
    report.problems.map(({ code, deferred }) => ({ code, deferred })),
    [1, 2].map(() => ({ code: 'UNAVAILABLE', deferred: false })),
  )
  assert.match(report.problems[0]!.message, /mark of this prune could not be kept up/)
  assert.equal((await objects(memory)).length, 4)
})

test('a prune whose caller fails to say whether a snapshot is in use fails, deletes no more, and gives its mark back', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  for (let ago = 30; ago > 0; ago -= 1) await put(memory, ago)
  let asked = 0
  const inUse = async () => {
    asked += 1
    throw new TypeError('asked in vain')
  }
  await assert.rejects(prune(memory, { inUse }), /asked in vain/)
  assert.ok(asked < 28, `${asked} were asked about after the first had failed`)
  assert.equal((await objects(memory)).length, 30)
  assert.ok((await keysIn(memory)).every((key) => !key.includes('/.lease/')))
})

test('a store that fails while the lease is taken fails the prune, before anything is removed', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  for (const ago of [3, 2, 1]) await put(memory, ago)
  const lease = async () => {
    throw new StorageError('The store is down.', { code: 'UNAVAILABLE', adapter: 'memory', operation: 'list' })
  }
  await assert.rejects(prune(memory, { lease }), { code: 'UNAVAILABLE' })
  assert.equal((await objects(memory)).length, 3)
})

test('an abort reaches a delete that hangs; one that is refused for want of a right is no lock', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const [oldest] = await Promise.all([3, 2, 1].map((ago) => put(memory, ago)))
  const ending = new AbortController()
  const deleting = (how: (signal: AbortSignal | undefined) => Promise<void>) =>
    overriding(memory, {
      delete: (key, options) => (key === oldest!.key ? how(options?.signal) : memory.delete(key, options)),
    })
  const hanging = deleting((signal) => {
    queueMicrotask(() => ending.abort())
    return new Promise((resolve, reject) => {
      // Without a signal there is nothing to wait for.
      if (signal) signal.addEventListener('abort', () => reject(signal.reason))
      else resolve()
    })
  })
  await assert.rejects(prune(hanging, { signal: ending.signal }), { name: 'AbortError' })
  assert.ok((await keysIn(memory)).includes(`${oldest!.key}.sha256`))
  const refusing = deleting(async () => {
    throw new StorageError('No right.', { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'delete' })
  })
  const { snapshots, problems } = await prune(refusing)
  assert.equal(snapshots[0]?.outcome, 'failed')
  assert.deepEqual(
    problems.map(({ code, deferred }) => ({ code, deferred })),
    [{ code: 'ACCESS_DENIED', deferred: false }],
  )
})
