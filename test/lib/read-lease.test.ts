import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type Backups, openBackups } from '../../lib/index.ts'
import { scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { keysIn, putSnapshot } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'

const KEY = Buffer.alloc(32, 4)
/** More than a stream holds ready, so that a reader who waits has its stream open. */
const REGION = seededBytes(3_000_000, 5)
const PATH = 'region/r.0.0.mca'

interface Place {
  storage: Storage
  /** Of three snapshots, oldest first. */
  ids: string[]
  notices: string[]
  open(storage: Storage): Promise<Backups>
  /** What a prune that keeps the newest one makes of the others. */
  prune(): Promise<string[]>
  leases(): Promise<string[]>
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world/region'), { recursive: true })
  await writeFile(join(folder, 'world', PATH), REGION)
  const storage = await openMemory()
  const notices: string[] = []
  const open = (at: Storage) =>
    openBackups({ storage: at, server: 'survival', key: KEY, onNotice: (message) => notices.push(message) })
  const backups = await open(storage)
  const ids: string[] = []
  for (let made = 0; made < 3; made += 1) {
    ids.push((await backups.create(join(folder, 'world'), { zstdFrameBytes: 128 * 1024 })).id)
  }
  return {
    ...{ storage, ids: ids.sort(), notices, open },
    async prune() {
      const { snapshots } = await backups.prune({ keepLast: 1 }, { stateDir: join(folder, 'state') })
      return snapshots.map(({ outcome }) => outcome)
    },
    leases: () => keysIn(storage, 'survival/.lease/'),
  }
}

const isLease = (key: string) => key.includes('/.lease/read-')

test('T21: a file that is read from a snapshot keeps a prune from it until its stream closes', async (t) => {
  const { storage, ids, open, prune, leases } = await place(t)
  const backups = await open(storage)
  const stream = await backups.read(ids[0] as string, PATH)
  assert.deepEqual(await prune(), ['in-use', 'removed', 'kept'])
  assert.ok((await buffer(stream)).equals(REGION))
  if (!stream.closed) await once(stream, 'close')
  assert.deepEqual(await leases(), [])
  assert.deepEqual(await prune(), ['removed', 'kept'])
})

test('T21: a read that is destroyed, aborted, fails, or does not begin gives its lease back', async (t) => {
  const { storage, ids, open, prune, leases } = await place(t)
  const backups = await open(storage)
  const [id] = ids as [string]
  const closed = async (
    stop: (stream: Awaited<ReturnType<Backups['read']>>) => void,
    at = backups,
    signal?: AbortSignal,
  ) => {
    const stream = await at.read(id, PATH, { signal })
    stream.on('error', () => {})
    assert.equal((await leases()).length, 1)
    const close = new Promise((resolve) => stream.once('close', resolve))
    stop(stream)
    await close
    assert.deepEqual(await leases(), [])
    return stream.errored
  }
  assert.equal(await closed((stream) => stream.destroy()), null)
  const stop = new AbortController()
  assert.equal((await closed(() => stop.abort(), backups, stop.signal))?.name, 'AbortError')
  let broken = false
  const breaks = overriding(storage, {
    readRange(key, offset, length, options) {
      if (!broken) return storage.readRange(key, offset, length, options)
      throw new StorageError('Nobody answers.', { code: 'UNAVAILABLE', adapter: 'memory', operation: 'readRange', key })
    },
    createReadStream(key, options) {
      if (!broken) return storage.createReadStream(key, options)
      throw new StorageError('Nobody answers.', { code: 'UNAVAILABLE', adapter: 'memory', operation: 'read', key })
    },
  })
  const failed = await closed(
    (stream) => {
      broken = true
      stream.resume()
    },
    await open(breaks),
  )
  assert.equal((failed as StorageError).code, 'UNAVAILABLE')
  await assert.rejects(backups.read(id, 'region/none'), { code: 'USAGE' })
  assert.deepEqual(await leases(), [])
  assert.deepEqual(await prune(), ['removed', 'removed', 'kept'])
})

test('closing waits for the leases of streams that have ended', async (t) => {
  const { storage, ids, open, leases } = await place(t)
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const slow = overriding(storage, {
    async delete(key, options) {
      if (isLease(key)) await held
      return storage.delete(key, options)
    },
  })
  const backups = await open(slow)
  const stream = await backups.read(ids[0] as string, PATH)
  stream.destroy()
  const closing = backups.close().then(leases)
  release()
  assert.deepEqual(await closing, [])
})

test('T21: while all are verified, the one whose turn it is is not pruned', async (t) => {
  const { storage, ids, open, prune, leases } = await place(t)
  let pruned: Promise<string[]> | undefined
  const watched = overriding(storage, {
    createReadStream(key, options) {
      if (key.includes(ids[1] as string) && key.endsWith('.mlr')) pruned ??= prune()
      return storage.createReadStream(key, options)
    },
  })
  const found: [string, string][] = []
  for await (const { id, status } of (await open(watched)).verifyAll()) {
    found.push([id, status])
    await pruned
    assert.deepEqual(await leases(), [])
  }
  assert.deepEqual(
    found,
    ids.map((id) => [id, 'ok']),
  )
  assert.deepEqual(await pruned, ['removed', 'in-use', 'kept'])
  assert.deepEqual(await prune(), ['removed', 'kept'])
})

test('where no lease can be written, read and verifyAll go on, and say so once', async (t) => {
  const { storage, ids, open, notices } = await place(t)
  const reader = overriding(storage, {
    createWriteStream(key) {
      const refused = { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'write', key } as const
      return new Writable({
        write: (_chunk, _encoding, done) => done(new StorageError('It may only be read.', refused)),
      })
    },
  })
  const backups = await open(reader)
  const stream = await backups.read(ids[0] as string, PATH)
  assert.ok((await buffer(stream)).equals(REGION))
  assert.match(notices.splice(0).join('\n'), /^No lease could be written[^\n]*$/)
  const found = await Array.fromAsync(backups.verifyAll())
  assert.deepEqual(
    found.map(({ status }) => status),
    ['ok', 'ok', 'ok'],
  )
  assert.match(notices.splice(0).join('\n'), /^No lease could be written[^\n]*$/)
  await Array.fromAsync(backups.verifyAll({ quick: true }))
  assert.deepEqual(notices, [], 'nothing is read that a prune could take')
})

test('T20: latest is the newest snapshot that is not dated in the future, and the last of those where all are', async (t) => {
  const { storage, ids, open, notices } = await place(t)
  const mirror = await openMemory()
  const now = Date.now()
  // Its content is nothing that could be read.
  const future = await putSnapshot(storage, now + 3_600_000)
  const backups = await open(storage)
  const read = async () => buffer(await backups.read('latest', PATH))
  assert.ok((await read()).equals(REGION))
  assert.match(notices.splice(0).join('\n'), new RegExp(`^Snapshot ${future.id} is dated in the future.*${ids[2]}`))
  const both = await openBackups({ storage: mirror, mirrors: [storage], server: 'survival', key: KEY })
  assert.equal((await both.verify('latest')).id, ids[2])
  assert.equal((await backups.pin('latest')).id, ids[2])
  notices.splice(0)
  // An unfinished one is nothing to have instead.
  for (const id of ids) await storage.delete(`survival/${id}.tar.zst.mlr.sha256`)
  assert.equal((await backups.pin('latest')).id, future.id)
  assert.match(
    notices.splice(0).join('\n'),
    new RegExp(`^Every complete snapshot is dated in the future.*${future.id}`),
  )
})

test('T20: clocks that differ by minutes make no snapshot one of the future', async () => {
  const storage = await openMemory()
  const notices: string[] = []
  const backups = await openBackups({
    ...{ storage, server: 'survival', key: KEY },
    onNotice: (message) => notices.push(message),
  })
  await putSnapshot(storage, Date.now() - 60_000)
  const near = await putSnapshot(storage, Date.now() + 5 * 60_000)
  assert.equal((await backups.pin('latest')).id, near.id)
  assert.deepEqual(notices, [])
  await pipeline(['nothing'], storage.createWriteStream('survival/notes.txt'))
  assert.equal((await backups.pin('latest')).id, near.id)
})
