import assert from 'node:assert/strict'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { BackupError, type PruneOptions, type PruneReport, type RetentionPolicy } from '../../lib/index.ts'
import { pruneSnapshots } from '../../lib/prune.ts'
import { withReadLease } from '../../lib/read-lease.ts'
import { scratch } from '../support/cli.ts'
import { DAY_MS, HOUR_MS, keysIn, type MadeSnapshot, putSnapshot, withOlder } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'
import { feed, sample } from '../support/streams.ts'

const NOW = new Date('2025-11-24T10:30:00.000Z')
const server = 'survival'
const LAST_2: RetentionPolicy = { keepLast: 2 }

/** Nothing is remembered beyond the test, and the time is the test's own. */
async function pruner(t: TestContext) {
  const stateDir = join(await scratch(t), 'state')
  return (storage: Storage, policy = LAST_2, options: PruneOptions = {}) =>
    pruneSnapshots({ storage, server: 'survival' }, policy, { stateDir, now: NOW, ...options })
}

const hoursAgo = (storage: Storage, hours: number[], options = {}) =>
  Promise.all(hours.map((ago) => putSnapshot(storage, NOW.getTime() - ago * HOUR_MS, options)))
const withCompanions = (snapshots: readonly MadeSnapshot[]) =>
  snapshots.flatMap(({ key }) => [key, `${key}.sha256`]).sort()
const outcomes = (report: PruneReport) => report.snapshots.map(({ outcome }) => outcome)
const refusal = (code: 'LOCKED' | 'UNAVAILABLE', key: string) =>
  new StorageError(`${key} cannot be deleted.`, { code, adapter: 'memory', operation: 'delete', key })
const aLease = async () => ({ release: async () => {} })

test('what the policy does not keep is removed, the object first and then its companion', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2, 3, 4])
  const deleted: string[] = []
  const watched = overriding(storage, {
    delete(key, options) {
      if (!key.includes('/.lease/')) deleted.push(key)
      return storage.delete(key, options)
    },
  })
  const report = await prune(watched)
  assert.deepEqual(outcomes(report), ['removed', 'removed', 'kept', 'kept'])
  assert.deepEqual(await keysIn(storage), withCompanions(made.slice(0, 2)))
  assert.equal(report.removedBytes, 2 * made[0]!.id.length)
  for (const { key } of made.slice(2)) assert.ok(deleted.indexOf(key) < deleted.indexOf(`${key}.sha256`))
  assert.deepEqual(outcomes(await prune(storage)), ['kept', 'kept'])
})

test('a dry run that is misspelt, or given as a rule, is refused, and removes nothing', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2, 3, 4])
  for (const options of [{ dryrun: true }, { dry: true }, { 'dry-run': true }]) {
    await assert.rejects(prune(storage, LAST_2, options as PruneOptions), { code: 'USAGE', message: /dryRun/ })
  }
  const asRule = { ...LAST_2, dryRun: true } as RetentionPolicy
  await assert.rejects(prune(storage, asRule), { code: 'USAGE', message: /after the policy/ })
  await assert.rejects(prune(storage, LAST_2, { now: NOW.getTime() as never }), { code: 'USAGE' })
  assert.deepEqual(await keysIn(storage), withCompanions(made))
})

test('a dry run says what a prune does, and changes nothing', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  await hoursAgo(storage, [1, 2, 3, 4])
  await hoursAgo(storage, [5], { companion: false })
  const before = await keysIn(storage)
  const writes: string[] = []
  const watched = overriding(storage, {
    createWriteStream(key, options) {
      writes.push(key)
      return storage.createWriteStream(key, options)
    },
  })
  const dry = await prune(watched, LAST_2, { dryRun: true })
  assert.deepEqual(await keysIn(storage), before)
  assert.deepEqual(writes, [])
  const real = await prune(storage)
  assert.deepEqual(
    dry.snapshots.map(({ outcome }) => (outcome === 'planned' ? 'removed' : outcome)),
    outcomes(real),
  )
  assert.deepEqual(
    dry.snapshots.map(({ reasons }) => reasons),
    real.snapshots.map(({ reasons }) => reasons),
  )
  assert.equal(dry.removedBytes, real.removedBytes)
})

test('a listing that fails, at first or at the second look, removes nothing and leaves no mark', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  await hoursAgo(storage, [1, 2, 3, 4])
  const before = await keysIn(storage)
  for (const failing of [1, 2]) {
    let listings = 0
    const breaks = overriding(storage, {
      async *list(prefix, options) {
        listings += 1
        let given = 0
        for await (const stat of storage.list(prefix, options)) {
          if (listings === failing && ++given > 3) throw refusal('UNAVAILABLE', prefix)
          yield stat
        }
      },
    })
    await assert.rejects(prune(breaks), { code: 'UNAVAILABLE' })
    assert.equal(listings, failing)
    assert.deepEqual(await keysIn(storage), before)
  }
})

test('what only one of two listings condemns stays', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2, 3, 4])
  // Other bytes of the same number, and a pin, between the two looks.
  let listings = 0
  const changing = overriding(storage, {
    async *list(prefix, options) {
      listings += 1
      if (listings === 2) {
        await pipeline(feed(Buffer.alloc(made[2]!.id.length)), storage.createWriteStream(made[2]!.key))
        await pipeline(feed(Buffer.from('{}')), storage.createWriteStream(`${server}/${made[3]!.id}.pin`))
      }
      yield* storage.list(prefix, options)
    },
  })
  const report = await prune(changing)
  assert.deepEqual(outcomes(report), ['kept', 'kept', 'kept', 'kept'])
  assert.match(report.snapshots[0]!.reasons.join(), /changed/)
  assert.equal((await keysIn(storage)).length, 9)
})

test('T18: without one good night, prune after prune leaves the newest three', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 25, 49, 73, 97])
  for (let night = 1; night <= 30; night += 1) {
    await prune(storage, { keepWithin: '14d' }, { now: new Date(NOW.getTime() + night * DAY_MS) })
  }
  assert.deepEqual(await keysIn(storage), withCompanions(made.slice(0, 3)))
})

test('T19: pruning one server touches no other, and nothing foreign', async (t) => {
  const stateDir = join(await scratch(t), 'state')
  const storage = await openFilesystem({ root: join(await scratch(t), 'store') })
  const servers = ['world', 'world2', '1', '10', 'a', 'worl', 'world.pin']
  for (const name of servers) await hoursAgo(storage, [1, 2, 3], { server: name })
  const foreign = ['world/notes.txt', 'world/notes.txt.sha256', 'world/a/b.tar.zst.mlr', 'a/b/c', 'World/x', 'top']
  const [other] = await hoursAgo(storage, [50], { server: 'a/b' })
  for (const key of foreign) await pipeline(feed(Buffer.from('mine')), storage.createWriteStream(key))
  let all = await keysIn(storage)
  for (const name of servers) {
    const report = await pruneSnapshots({ storage, server: name }, { keepLast: 1 }, { stateDir, now: NOW })
    assert.deepEqual(outcomes(report), ['removed', 'removed', 'kept'])
    const after = await keysIn(storage)
    const gone = all.filter((key) => !after.includes(key))
    assert.equal(gone.length, 4)
    assert.ok(gone.every((key) => key.startsWith(`${name}/`)))
    all = after
  }
  for (const key of [...foreign, other!.key, `${other!.key}.sha256`]) assert.ok(all.includes(key), key)
  const { foreign: found } = await pruneSnapshots({ storage, server: 'world' }, LAST_2, { stateDir, now: NOW })
  assert.deepEqual(found.sort(), foreign.slice(0, 3).sort())
})

test('T20: a machine whose clock is years or days away from its store removes nothing', async (t) => {
  const stateDir = join(await scratch(t), 'state')
  const storage = await openMemory()
  const real = Date.now()
  await Promise.all([1, 2, 3, 4].map((days) => putSnapshot(storage, real - days * DAY_MS)))
  const before = await keysIn(storage)
  for (const aheadMs of [3650 * DAY_MS, 2 * DAY_MS, -2 * DAY_MS]) {
    // The store's clock is set instead of ours.
    const away = withOlder(storage, () => aheadMs)
    const run = pruneSnapshots({ storage: away, server }, LAST_2, { stateDir })
    await assert.rejects(
      run,
      (error: BackupError) => error.code === 'CLOCK' && /nothing was removed/.test(error.message),
    )
    assert.deepEqual(await keysIn(storage), before)
  }
  const near = withOlder(storage, () => HOUR_MS)
  assert.deepEqual(outcomes(await pruneSnapshots({ storage: near, server }, LAST_2, { stateDir })), [
    ...['removed', 'removed', 'kept', 'kept'],
  ])
})

test('T21: an upload that goes on while a prune runs is not touched', async (t) => {
  const prune = await pruner(t)
  for (const storage of [await openMemory(), await openFilesystem({ root: join(await scratch(t), 'store') })]) {
    await hoursAgo(storage, [1, 2, 3])
    const key = `${server}/2025-11-24T10-29-00.000Z-bbbb.tar.zst.mlr`
    const data = sample(200_000)
    async function* slowly() {
      yield data.subarray(0, 100_000)
      assert.deepEqual(outcomes(await prune(storage)), ['removed', 'kept', 'kept'])
      yield data.subarray(100_000)
    }
    await pipeline(Readable.from(slowly(), { objectMode: false }), storage.createWriteStream(key))
    // Committed, and its companion is still to come.
    const report = await prune(storage, { keepLast: 1 }, { lease: aLease })
    assert.deepEqual(outcomes(report), ['removed', 'kept', 'kept'])
    assert.equal((await storage.stat(key)).size, data.length)
  }
})

test('T21: what is being read under a lease, or is in use by word of the caller, stays', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2, 3, 4, 5])
  const read = made[3] as MadeSnapshot
  const asSnapshot = { ...read, kind: 'tar', encrypted: true, storedBytes: 1 } as const
  await withReadLease(storage, asSnapshot, {}, async () => {
    const inUse = async (id: string) => id === made[4]!.id
    assert.deepEqual(outcomes(await prune(storage, LAST_2, { inUse })), ['in-use', 'in-use', 'removed', 'kept', 'kept'])
    assert.ok((await storage.stat(read.key)).size > 0)
    // A reader that died has no lease for long: the store's clock goes on, its mark does not.
    const later = withOlder(storage, (key) => (key.includes('/read-') ? 11 * 60_000 : 0))
    assert.deepEqual(outcomes(await prune(later, LAST_2, { inUse })), ['in-use', 'removed', 'kept', 'kept'])
  })
  assert.deepEqual(outcomes(await prune(storage)), ['removed', 'kept', 'kept'])
  assert.deepEqual(await keysIn(storage, `${server}/.lease/`), [])
})

test('T21: nobody begins to read what is being removed, whichever of the two comes first', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2, 3])
  const oldest = { ...(made[2] as MadeSnapshot), kind: 'tar', encrypted: true, storedBytes: 1 } as const
  const newest = { ...oldest, ...made[0]! }
  let tried = 0
  const contended = overriding(storage, {
    async delete(key, options) {
      if (key === oldest.key) {
        await assert.rejects(
          withReadLease(storage, oldest, {}, async () => assert.fail('it was read')),
          { code: 'IN_USE' },
        )
        assert.equal(await withReadLease(storage, newest, {}, async () => 'read'), 'read')
        tried += 1
      }
      return storage.delete(key, options)
    },
  })
  assert.deepEqual(outcomes(await prune(contended)), ['removed', 'kept', 'kept'])
  assert.equal(tried, 1)
})

test('T30: a delete that a lock refuses is deferred, and the others go on', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2, 3, 4, 5])
  const refusing = (code: 'LOCKED' | 'UNAVAILABLE', refused: string) =>
    overriding(storage, {
      async delete(key, options) {
        if (key === refused) throw refusal(code, key)
        return storage.delete(key, options)
      },
    })
  const locked = await prune(refusing('LOCKED', made[4]!.key), { keepLast: 4 })
  assert.deepEqual(outcomes(locked), ['deferred', 'kept', 'kept', 'kept', 'kept'])
  assert.deepEqual(
    locked.problems.map(({ code, deferred, key }) => [code, deferred, key]),
    [['LOCKED', true, made[4]!.key]],
  )
  assert.equal((await keysIn(storage)).length, 10, 'its companion stays with it')
  const failed = await prune(refusing('UNAVAILABLE', made[4]!.key))
  assert.deepEqual(outcomes(failed), ['failed', 'removed', 'removed', 'kept', 'kept'])
  assert.equal(failed.problems[0]?.deferred, false)
  const half = await prune(refusing('LOCKED', `${made[4]!.key}.sha256`))
  assert.deepEqual(outcomes(half), ['removed', 'kept', 'kept'])
  assert.equal(half.problems[0]?.key, `${made[4]!.key}.sha256`)
})

test('an unfinished snapshot goes only under the lease, seen twice a day apart, behind a newer complete one', async (t) => {
  const stateDir = join(await scratch(t), 'state')
  const memory = await openMemory()
  const storage = withOlder(memory, (key) => (key.includes('/.lease/') ? 0 : 3 * DAY_MS))
  const [left] = await hoursAgo(memory, [30], { companion: false })
  const run = (hours: number, lease?: PruneOptions['lease']) =>
    pruneSnapshots({ storage, server }, LAST_2, {
      ...{ stateDir, lease, now: new Date(NOW.getTime() + hours * HOUR_MS) },
    })
  const stays = async (hours: number, lease?: PruneOptions['lease']) => {
    const report = await run(hours, lease)
    assert.equal(report.snapshots[0]?.outcome, 'kept')
    assert.ok((await memory.stat(left!.key)).size > 0)
    return report
  }
  await stays(0, aLease)
  await stays(25, aLease) // Nothing newer is complete.
  await hoursAgo(memory, [1])
  assert.match((await stays(25)).notes.join(), /only under the lease/)
  const held = async () => {
    throw new BackupError('IN_USE', 'somebody holds it')
  }
  assert.match((await stays(25, held)).notes.join(), /somebody holds it/)
  await stays(23, aLease)
  await stays(-100, aLease) // The clock was set back: what was seen later counts for nothing.
  await stays(-77, aLease)
  await pipeline(feed(Buffer.from('replaced')), memory.createWriteStream(left!.key))
  await stays(60, aLease)
  await pipeline(feed(Buffer.from('{}')), memory.createWriteStream(`${server}/${left!.id}.pin`))
  assert.deepEqual((await stays(100, aLease)).snapshots[0]?.reasons, ['pinned', 'unfinished: not touched'])
  await memory.delete(`${server}/${left!.id}.pin`)
  let released = 0
  const counted = {
    async release() {
      released += 1
    },
  }
  const report = await run(100, async () => counted)
  assert.deepEqual(outcomes(report), ['removed', 'kept'])
  assert.match(report.snapshots[0]!.reasons.join(), /unfinished, seen so since/)
  assert.equal(released, 1)
})

test('T20: a clock that was set back begins the day of an unfinished snapshot anew', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const storage = withOlder(memory, (key) => (key.includes('/.lease/') ? 0 : 3 * DAY_MS))
  await hoursAgo(memory, [150], { companion: false })
  await hoursAgo(memory, [120])
  const at = async (hours: number) => {
    const now = new Date(NOW.getTime() + hours * HOUR_MS)
    return (await prune(storage, LAST_2, { lease: aLease, now })).snapshots[0]?.outcome
  }
  // Ten years ahead, and right again.
  assert.deepEqual([await at(87_600), await at(0), await at(23)], ['kept', 'kept', 'kept'])
  assert.equal(await at(24), 'removed')
})

test('an unfinished snapshot that the store took within a day stays, whatever our clock says', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  await hoursAgo(storage, [30], { companion: false })
  await hoursAgo(storage, [1])
  await prune(storage, LAST_2, { lease: aLease })
  const later = { lease: aLease, now: new Date(NOW.getTime() + 3650 * DAY_MS) }
  assert.deepEqual(outcomes(await prune(storage, LAST_2, later)), ['kept', 'kept'])
})

test('a dry run does not plan what the store has had for less than a day, as after a copy of its folder', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const now = new Date()
  await hoursAgo(memory, [30], { companion: false })
  await hoursAgo(memory, [1])
  await prune(memory, LAST_2, { lease: aLease, now: new Date(now.getTime() - 25 * HOUR_MS) })
  const run = (storage: Storage, dryRun: boolean) => prune(storage, LAST_2, { lease: aLease, now, dryRun })
  assert.deepEqual(outcomes(await run(memory, true)), ['kept', 'kept'])
  assert.deepEqual(outcomes(await run(memory, false)), ['kept', 'kept'])
  const older = withOlder(memory, (key) => (key.includes('/.lease/') ? 0 : 2 * DAY_MS))
  assert.deepEqual(outcomes(await run(older, true)), ['planned', 'kept'])
  assert.deepEqual(outcomes(await run(older, false)), ['removed', 'kept'])
})

test('a state folder that cannot be used sweeps nothing, and says so', async () => {
  const storage = await openMemory()
  await hoursAgo(storage, [30], { companion: false })
  const report = await pruneSnapshots({ storage, server }, LAST_2, { stateDir: '/dev/null/state', now: NOW })
  assert.match(report.notes.join(), /state folder/)
})

test('a companion without an object goes when it is a day old', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(storage, [1, 2])
  await storage.delete(made[1]!.key)
  const orphan = `${made[1]!.key}.sha256`
  assert.deepEqual((await prune(storage)).orphans, [])
  assert.equal((await keysIn(storage)).length, 3)
  const dayOld = withOlder(storage, (key) => (key === orphan ? DAY_MS : 0))
  assert.deepEqual((await prune(dayOld)).orphans, [orphan])
  assert.deepEqual(await keysIn(storage), withCompanions(made.slice(0, 1)))
})

test('uploads that were never finished are cancelled under the server alone: a day old with the lease, else a week', async (t) => {
  const prune = await pruner(t)
  const asked: unknown[] = []
  const storage = overriding(await openMemory(), {
    async purgeUnfinished(olderThanMs, options) {
      asked.push([olderThanMs, options?.prefix])
      return 3
    },
  })
  assert.equal((await prune(storage, LAST_2, { lease: aLease })).cancelledUploads, 3)
  await prune(storage)
  await prune(storage, LAST_2, { dryRun: true })
  assert.deepEqual(asked, [
    [DAY_MS, 'survival/'],
    [7 * DAY_MS, 'survival/'],
  ])
})

test('an abort stops the deletes, gives the mark back and leaves the newest', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  const made = await hoursAgo(
    storage,
    Array.from({ length: 60 }, (_, at) => at + 1),
  )
  const stop = new AbortController()
  let deletes = 0
  const aborting = overriding(storage, {
    async delete(key, options) {
      if (!key.includes('/.lease/') && ++deletes === 20) stop.abort()
      return storage.delete(key, options)
    },
  })
  await assert.rejects(prune(aborting, LAST_2, { signal: stop.signal }), { name: 'AbortError' })
  const left = await keysIn(storage)
  assert.ok(left.length > 60 && left.length < 120, `${left.length} are left`)
  assert.ok(withCompanions(made.slice(0, 30)).every((key) => left.includes(key)))
  assert.deepEqual(await keysIn(storage, `${server}/.lease/`), [])
})

test('thousands are removed at once under several marks, and old marks of the dead with them', async (t) => {
  const prune = await pruner(t)
  const storage = await openMemory()
  await hoursAgo(
    storage,
    Array.from({ length: 2500 }, (_, at) => at + 1),
  )
  const dead = [
    `${server}/.lease/prune-0123456789ab`,
    `${server}/.lease/read-2025-11-24T10-29-00.000Z-bbbb-0123456789ab`,
  ]
  const others = `${server}/.lease/1763980000000-abcdef`
  for (const key of [...dead, others]) await pipeline(feed(Buffer.from('{}')), storage.createWriteStream(key))
  const marks = new Set<string>()
  const watched = overriding(
    withOlder(storage, (key) => (dead.includes(key) || key === others ? DAY_MS : 0)),
    {
      createWriteStream(key, options) {
        marks.add(key)
        return storage.createWriteStream(key, options)
      },
    },
  )
  const report = await prune(watched)
  assert.equal(report.snapshots.filter(({ outcome }) => outcome === 'removed').length, 2498)
  assert.equal(marks.size, 3)
  assert.deepEqual(await keysIn(storage, `${server}/.lease/`), [others])
})

test('a mark that a clock dated far ahead is of the dead, and goes; one that is an hour ahead stays', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const made = await hoursAgo(memory, [1, 2, 3])
  const mark = `${server}/.lease/read-${made.at(-1)!.id}-0123456789ab`
  await pipeline(feed(Buffer.from('{}')), memory.createWriteStream(mark))
  const ahead = (ms: number) => withOlder(memory, (key) => (key === mark ? -ms : 0))
  const blocked = await prune(ahead(HOUR_MS), LAST_2)
  assert.deepEqual(blocked.snapshots.map(({ outcome }) => outcome).sort(), ['in-use', 'kept', 'kept'])
  assert.deepEqual(await keysIn(memory, `${server}/.lease/`), [mark])
  const done = await prune(ahead(30 * DAY_MS), LAST_2)
  assert.deepEqual(done.snapshots.map(({ outcome }) => outcome).sort(), ['kept', 'kept', 'removed'])
  assert.deepEqual(await keysIn(memory, `${server}/.lease/`), [])
})

test('T8: what killed runs left beside the snapshots goes with a prune that has nothing else to do', async (t) => {
  const prune = await pruner(t)
  const memory = await openMemory()
  const made = await hoursAgo(memory, [1, 2])
  const claim = `${server}/.lease/2025-11-20T10-00-00.000Z-0123456789abcdef`
  const living = `${server}/.lease/2025-11-20T10-00-00.000Z-fedcba9876543210`
  const left = [
    `${server}/.lease/read-${made[0]!.id}-0123456789ab`,
    `${server}/.lease/prune-0123456789ab`,
    `${claim}.beat`,
  ]
  const others = [`${living}.beat`, `${living}.claim`, `${server}/.lease/holder`, `${server}/.lease/x.beat`].sort()
  for (const key of [...left, ...others]) await pipeline(feed(Buffer.from('{}')), memory.createWriteStream(key))
  const inLeases = () => keysIn(memory, `${server}/.lease/`)
  const at = (ms: number) => withOlder(memory, (key) => ([...left, ...others].includes(key) ? ms : 0))
  const stands = new Date()
  await prune(at(DAY_MS - HOUR_MS), LAST_2, { now: stands })
  assert.deepEqual(await inLeases(), [...left, ...others].sort())
  await prune(at(DAY_MS), LAST_2, { now: stands })
  assert.deepEqual(await inLeases(), others)
  assert.deepEqual(await keysIn(memory, `${server}/2`), withCompanions(made))
})
