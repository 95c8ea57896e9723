import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type BackupsOptions, openBackups } from '../../lib/index.ts'
import { scratch } from '../support/cli.ts'
import { keysIn } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'
import { feed, sample } from '../support/streams.ts'

const key = Buffer.alloc(32, 9)
const server = 'survival'

const open = (storage: Storage, options: Partial<BackupsOptions> = {}) =>
  openBackups({ storage, server, key, ...options })

async function world(t: TestContext): Promise<string> {
  const folder = join(await scratch(t), 'world')
  await mkdir(folder)
  await writeFile(join(folder, 'level.dat'), sample(50_000))
  return folder
}

/** A snapshot whose companion is gone. */
async function unfinished(t: TestContext, storage: Storage) {
  const made = await (await open(storage)).create(await world(t))
  await storage.delete(`${made.key}.sha256`)
  return made
}

test('a pinned snapshot is listed so, stays through every prune, and goes when it is unpinned', async (t) => {
  const stateDir = await scratch(t)
  const folder = await world(t)
  const storage = await openMemory()
  const backups = await open(storage)
  const made = []
  for (let count = 0; count < 3; count += 1) made.push(await backups.create(folder))
  // Ids of one millisecond sort by their random ends.
  const ids = (await backups.list()).map(({ id }) => id)
  const [first, , last] = ids as [string, string, string]
  assert.equal((await backups.pin(first, 'before the update')).id, first)
  assert.equal((await backups.pin('latest')).id, last)
  assert.deepEqual(
    (await backups.list()).map(({ pinned }) => pinned),
    [true, false, true],
  )
  const prune = () => backups.prune({ keepLast: 1 }, { stateDir })
  assert.deepEqual(
    (await prune()).snapshots.map(({ outcome }) => outcome),
    ['kept', 'removed', 'kept'],
  )
  const pins = await backups.pins()
  assert.deepEqual(
    pins.map(({ id, note, snapshot }) => [id, note, snapshot]),
    [
      [first, 'before the update', true],
      [last, null, true],
    ],
  )
  assert.ok(Math.abs((pins[0]?.since?.getTime() ?? 0) - Date.now()) < 60_000)
  await backups.unpin(first)
  await backups.unpin(first)
  await prune()
  assert.deepEqual(
    (await backups.list()).map(({ id }) => id),
    [last],
  )
})

test('a pin of what is not there is refused, and one left alone or written by hand is shown', async (t) => {
  const storage = await openMemory()
  const backups = await open(storage)
  await assert.rejects(backups.pin('latest'), { code: 'NO_SNAPSHOT' })
  const { id, key: object } = await backups.create(await world(t))
  await assert.rejects(backups.pin('2025-11-24T10-29-00.000Z-bbbb'), { code: 'NO_SNAPSHOT' })
  await assert.rejects(backups.pin(id, 'x'.repeat(501)), { code: 'USAGE' })
  await assert.rejects(backups.unpin('../other/secret'), { code: 'USAGE' })
  const stray = '2025-11-24T10-29-00.000Z-bbbb'
  for (const name of [id, stray]) {
    await pipeline(feed(Buffer.from('by hand')), storage.createWriteStream(`${server}/${name}.pin`))
  }
  assert.deepEqual(await backups.pins(), [
    { id: stray, note: null, since: null, snapshot: false },
    { id, note: null, since: null, snapshot: true },
  ])
  const report = await backups.prune({ keepLast: 1 }, { dryRun: true })
  assert.deepEqual(report.strayPins, [`${server}/${stray}.pin`])
  assert.deepEqual(report.snapshots[0]?.reasons, ['pinned', 'newest complete snapshot', 'last 1 of 1'])
  assert.equal(report.snapshots[0]?.snapshot.key, object)
})

test('an unfinished snapshot that is whole is adopted, and is as good as any then', async (t) => {
  const storage = await openMemory()
  const made = await unfinished(t, storage)
  const backups = await open(storage)
  assert.equal((await backups.verify(made.id)).status, 'unverified')
  const adopted = await backups.adopt(made.id)
  assert.equal(adopted.sha256, made.sha256)
  assert.equal(adopted.bytes, made.bytes)
  assert.equal((await backups.verify('latest')).status, 'ok')
  assert.deepEqual(await keysIn(storage), [made.key, `${made.key}.sha256`])
  await assert.rejects(backups.adopt(made.id), { code: 'USAGE' })
})

test('what is damaged, cut, misplaced, replaced meanwhile or under another key is not adopted', async (t) => {
  const storage = await openMemory()
  const made = await unfinished(t, storage)
  const backups = await open(storage)
  const whole = Buffer.concat(await Array.fromAsync(storage.createReadStream(made.key)))
  const put = (name: string, bytes: Buffer) => pipeline(feed(bytes), storage.createWriteStream(name))
  const refused = async (code: string, from = backups, message = /./, id = made.id) => {
    const before = await keysIn(storage)
    await assert.rejects(from.adopt(id), { code, message })
    assert.deepEqual(await keysIn(storage), before)
  }
  await refused('WRONG_KEY', await open(storage, { key: Buffer.alloc(32, 1) }))
  for (const at of [20, 100, Math.floor(whole.length / 2), whole.length - 1]) {
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] as number) ^ 1
    await put(made.key, flipped)
    await assert.rejects(backups.adopt(made.id))
    await put(made.key, whole.subarray(0, at))
    await assert.rejects(backups.adopt(made.id))
    assert.deepEqual(await keysIn(storage), [made.key])
  }
  await put(made.key, whole)
  await put(made.key.replace('survival/', 'creative/'), whole)
  await refused('MISPLACED', await open(storage, { server: 'creative' }), /put it back to adopt it; .* with restore/)
  let listings = 0
  const replaced = overriding(storage, {
    async *list(prefix, options) {
      if (!prefix.includes('.lease') && ++listings === 2) await put(made.key, whole)
      yield* storage.list(prefix, options)
    },
  })
  await refused('IN_USE', await open(replaced))
  // Where versions have no names, its size has to tell.
  let looks = 0
  const longer = overriding(storage, {
    async *list(prefix, options) {
      if (!prefix.includes('.lease') && ++looks === 2) await put(made.key, Buffer.concat([whole, whole]))
      for await (const { version: _, ...stat } of storage.list(prefix, options)) yield stat
    },
  })
  await refused('IN_USE', await open(longer))
  await put(made.key, whole)
  await refused('NO_SNAPSHOT', backups, /./, '2025-11-24T10-29-00.000Z-bbbb')
  assert.equal((await backups.adopt(made.id)).sha256, made.sha256)
})

test('a companion that comes to be while an object is read to be adopted stays as it is', async (t) => {
  const storage = await openMemory()
  const made = await unfinished(t, storage)
  let looks = 0
  const overtaken = overriding(storage, {
    async *list(prefix, options) {
      if (!prefix.includes('.lease') && ++looks === 2) {
        await pipeline(feed(Buffer.from('of another run')), storage.createWriteStream(`${made.key}.sha256`))
      }
      yield* storage.list(prefix, options)
    },
  })
  assert.equal((await (await open(overtaken)).adopt(made.id)).sha256, made.sha256)
  assert.equal((await storage.readRange(`${made.key}.sha256`, 0, 14)).toString(), 'of another run')
})

test('T21: a restore, a verify and an adoption hold a lease while they read, and leave none', async (t) => {
  const storage = await openMemory()
  const made = await (await open(storage)).create(await world(t))
  const seen: string[][] = []
  const watched = overriding(storage, {
    createReadStream(name, options) {
      if (name === made.key) void keysIn(storage, `${server}/.lease/`).then((found) => seen.push(found))
      return storage.createReadStream(name, options)
    },
  })
  const backups = await open(watched)
  const target = join(await scratch(t), 'out')
  await backups.restore('latest', target)
  await backups.verify('latest')
  await storage.delete(`${made.key}.sha256`)
  await backups.adopt(made.id)
  assert.equal(seen.length, 3)
  for (const found of seen) {
    assert.equal(found.length, 1)
    assert.ok(found[0]?.startsWith(`${server}/.lease/read-${made.id}-`), found[0])
  }
  assert.deepEqual(await keysIn(storage, `${server}/.lease/`), [])
  await assert.rejects(backups.restore('latest', target), { code: 'TARGET' })
  assert.deepEqual(await keysIn(storage, `${server}/.lease/`), [])
})

test('a store that may only be read is restored from and verified, with a word about the lease', async (t) => {
  const folder = await world(t)
  const storage = await openMemory()
  await (await open(storage)).create(folder)
  const readOnly = overriding(storage, {
    createWriteStream(name) {
      const details = { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'write', key: name } as const
      throw new StorageError('This key may not write.', details)
    },
    async delete() {
      assert.fail('nothing was written, so nothing is to be deleted')
    },
  })
  const notices: string[] = []
  const backups = await open(readOnly, { onNotice: (message) => notices.push(message) })
  const target = join(await scratch(t), 'out')
  assert.equal((await backups.restore('latest', target)).verified, true)
  assert.deepEqual(await readFile(join(target, 'level.dat')), await readFile(join(folder, 'level.dat')))
  assert.equal((await backups.verify('latest')).status, 'ok')
  assert.equal((await backups.verify('latest', { quick: true })).status, 'ok')
  assert.equal(notices.length, 2)
  assert.match(notices[0] as string, /No lease could be written.*may not write/)
})
