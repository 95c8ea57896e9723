import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { openB2 } from '../../../adapters/backblaze-b2.ts'
import { openDropbox } from '../../../adapters/dropbox.ts'
import { StorageError, type StorageErrorCode } from '../../../adapters/errors.ts'
import { openGoogleDrive } from '../../../adapters/google-drive.ts'
import type { Storage, WriteOptions } from '../../../adapters/storage.ts'
import { type CreateOptions, leftUploads, openBackups } from '../../../lib/index.ts'
import { type FoundJournal, journalFile, listJournals } from '../../../lib/journal/folder.ts'
import { encodeJournalHeader } from '../../../lib/journal/format.ts'
import { Journal } from '../../../lib/journal/journal.ts'
import { FakeB2 } from '../../fakes/b2.ts'
import { startDriveFake } from '../../fakes/drive.ts'
import { FakeDropbox } from '../../fakes/dropbox.ts'
import { seededBytes } from '../../support/random.ts'
import { overriding } from '../../support/storage.ts'
import { diffTrees } from '../../support/tree.ts'

const PART_BYTES = 256 * 1024
const DROPBOX_PART_BYTES = 4 * 1024 * 1024
const PARTS = 8

interface Place {
  storage: Storage
  /** Uploads that were begun and neither finished nor cancelled, where the store can cancel one. */
  pending: (() => number) | undefined
  partBytes: number
}

const STORES: Record<string, (t: TestContext) => Promise<Place>> = {
  async 'backblaze-b2'(t) {
    const fake = await new FakeB2({ minPartBytes: PART_BYTES }).start()
    t.after(() => fake.close())
    const { bucketName: bucket } = fake.store.addBucket('worlds')
    const { keyId, applicationKey } = fake.store.addKey()
    const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES }
    const storage = await openB2({ keyId, applicationKey, bucket, endpoint: fake.origin, ...sizes })
    return { storage, pending: () => fake.unfinished.length, partBytes: PART_BYTES }
  },
  async 'google-drive'(t) {
    const fake = await startDriveFake()
    t.after(() => fake.close())
    const { clientId, clientSecret, refreshToken = '' } = fake.state
    const endpoints = { api: fake.origin, token: fake.origin }
    const credentials = { clientId, clientSecret, refreshToken }
    const storage = await openGoogleDrive({ ...credentials, folder: 'backups', partBytes: PART_BYTES, endpoints })
    return { storage, pending: () => fake.pendingSessions, partBytes: PART_BYTES }
  },
  async dropbox(t) {
    const fake = await FakeDropbox.open()
    t.after(() => fake.close())
    const storage = await openDropbox({ ...fake.credentials, root: '/millrace', partBytes: DROPBOX_PART_BYTES })
    return { storage, pending: undefined, partBytes: DROPBOX_PART_BYTES }
  },
}

/** A store that tells of each part that it has. */
function telling(storage: Storage, onPart: () => void): Storage {
  return overriding(storage, {
    createWriteStream(key: string, { journal, ...options }: WriteOptions = {}) {
      if (!journal) return storage.createWriteStream(key, options)
      const told = overriding(
        journal as never,
        {
          stored(part: Parameters<typeof journal.stored>[0]) {
            journal.stored(part)
            onPart()
          },
        } as never,
      ) as unknown as typeof journal
      return storage.createWriteStream(key, { ...options, journal: told })
    },
  })
}

for (const [name, open] of Object.entries(STORES)) {
  for (const encrypted of [true, false]) {
    test(`${name}: a backup that was cut off goes on, ${encrypted ? 'and where the world has changed begins anew' : 'without encryption'}`, async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
      t.after(() => rmSync(folder, { recursive: true }))
      const { storage, pending, partBytes } = await open(t)
      t.after(() => storage.close())
      const world = join(folder, 'world')
      mkdirSync(world)
      const change = (seed: number) => writeFileSync(join(world, 'r.0.0.mca'), seededBytes(PARTS * partBytes, seed))
      change(1)
      const journals = join(folder, 'journals')
      const keys = encrypted ? { key: Buffer.alloc(32, 1) } : { encryption: false }
      const warnings: string[] = []
      const options: CreateOptions = {
        journal: { folder: journals, resume: true },
        lease: false,
        onWarning: ({ message }) => warnings.push(message),
      }
      const cutOff = async (parts: number) => {
        const ending = new AbortController()
        let left = parts
        const at = telling(storage, () => --left === 0 && ending.abort())
        const backups = await openBackups({ storage: at, server: 'survival', ...keys })
        await assert.rejects(backups.create(world, { ...options, signal: ending.signal }), { name: 'AbortError' })
        if (pending) assert.equal(pending(), 1)
        assert.equal(readdirSync(join(journals, 'survival')).length, 1)
      }
      const backups = await openBackups({ storage, server: 'survival', ...keys })
      await cutOff(5)
      const { id, takenUp, storedBytes } = await backups.create(world, options)
      assert.ok(takenUp)
      assert.equal(takenUp.heldBytes + takenUp.sentBytes, storedBytes)
      // Where the store cannot compare what it holds, only what was encrypted is certain to be the same.
      if (encrypted || name === 'backblaze-b2') assert.ok(takenUp.heldBytes >= 4 * partBytes, `${takenUp.heldBytes}`)
      else assert.equal(takenUp.heldBytes, 0)
      assert.equal((await backups.verify(id)).status, 'ok')
      assert.deepEqual([pending?.() ?? 0, readdirSync(join(journals, 'survival'))], [0, []])

      await cutOff(5)
      change(2)
      const anew = await backups.create(world, options)
      assert.equal(anew.takenUp === null, encrypted)
      if (encrypted) assert.match(warnings.join(), /differ in frame 0/)
      await backups.restore(anew.id, join(folder, 'out'))
      assert.deepEqual(diffTrees(world, join(folder, 'out')), [])
      assert.deepEqual([pending?.() ?? 0, readdirSync(join(journals, 'survival'))], [0, []])
    })
  }
}

test('the output of a program goes on as well, and its arguments are not in the journal', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { storage, partBytes } = await (STORES['backblaze-b2'] as (typeof STORES)[string])(t)
  t.after(() => storage.close())
  writeFileSync(join(folder, 'dump'), seededBytes(PARTS * partBytes, 1))
  const command = ['sh', '-c', `cat ${folder}/dump`, 'not-for-a-journal'] as const
  const journals = join(folder, 'journals')
  const options = { journal: { folder: journals, resume: true }, lease: false } as const
  const ending = new AbortController()
  let left = 5
  const keys = { server: 'survival', key: Buffer.alloc(32, 1) }
  const cut = await openBackups({ storage: telling(storage, () => --left === 0 && ending.abort()), ...keys })
  await assert.rejects(cut.create({ command }, { ...options, signal: ending.signal }), { name: 'AbortError' })
  const [name] = readdirSync(join(journals, 'survival'))
  assert.ok(!readFileSync(join(journals, 'survival', name as string)).includes('not-for-a-journal'))
  const backups = await openBackups({ storage, ...keys })
  const { id, takenUp } = await backups.create({ command }, options)
  assert.ok((takenUp?.heldBytes ?? 0) >= 4 * partBytes)
  assert.equal((await backups.verify(id)).status, 'ok')
  await assert.rejects(backups.create(Readable.from([Buffer.alloc(10)]), options), { code: 'USAGE' })
})

test('the before hook is told of the upload that may be gone on with, and of no other', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { storage, partBytes } = await (STORES['backblaze-b2'] as (typeof STORES)[string])(t)
  t.after(() => storage.close())
  const [world, told] = [join(folder, 'world'), join(folder, 'told')]
  mkdirSync(world)
  writeFileSync(join(world, 'r.mca'), seededBytes(PARTS * partBytes, 1))
  const journals = join(folder, 'journals')
  const hooks = { before: `echo "$MILLRACE_RESUMES" > '${told}'; cat >> '${told}'` }
  const options = { journal: { folder: journals, resume: true }, lease: false, hooks } as const
  const keys = { server: 'survival', key: Buffer.alloc(32, 1) }
  const ending = new AbortController()
  const cut = await openBackups({ storage: telling(storage, () => ending.abort()), ...keys })
  await assert.rejects(cut.create(world, { ...options, signal: ending.signal }), { name: 'AbortError' })
  const toldOf = () => {
    const [id, payload] = readFileSync(told, 'utf8').trim().split('\n')
    return payload === undefined ? ['', JSON.parse(id as string).resumes] : [id, JSON.parse(payload).resumes]
  }
  assert.deepEqual(toldOf(), ['', undefined])
  const [name = ''] = readdirSync(join(journals, 'survival'))
  const id = name.slice(0, -'.journal'.length)
  const backups = await openBackups({ storage, ...keys })
  for (const not of [{ exclude: ['x'] }, { journal: { folder: journals } }]) {
    const stopped = { ...options, ...not, hooks: { before: `${hooks.before}; exit 1` } }
    await assert.rejects(backups.create(world, stopped), { code: 'HOOK' })
    assert.deepEqual(toldOf(), ['', undefined])
  }
  const made = await backups.create(world, options)
  assert.deepEqual(toldOf(), [id, id])
  assert.equal(made.id, id)
})

test('an upload of another source is given up after a week, and not before', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { storage, partBytes, pending } = await (STORES['backblaze-b2'] as (typeof STORES)[string])(t)
  t.after(() => storage.close())
  for (const world of ['old', 'new']) mkdirSync(join(folder, world))
  writeFileSync(join(folder, 'old', 'r.mca'), seededBytes(PARTS * partBytes, 1))
  writeFileSync(join(folder, 'new', 'r.mca'), seededBytes(1000, 2))
  const journals = join(folder, 'journals')
  const options = { journal: { folder: journals, resume: true }, lease: false } as const
  const ending = new AbortController()
  const keys = { server: 'survival', key: Buffer.alloc(32, 1) }
  const cut = await openBackups({ storage: telling(storage, () => ending.abort()), ...keys })
  await assert.rejects(cut.create(join(folder, 'old'), { ...options, signal: ending.signal }), { name: 'AbortError' })
  const backups = await openBackups({ storage, ...keys })
  await backups.create(join(folder, 'new'), options)
  assert.deepEqual([pending?.(), (await listJournals(journals)).length], [1, 1])
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 8 * 86_400_000 })
  await backups.create(join(folder, 'new'), options)
  assert.deepEqual([pending?.(), (await listJournals(journals)).length], [0, 0])
})

test('an upload that a journal cannot name is cancelled by the id of its snapshot, where the store lets us', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { storage, partBytes, pending } = await (STORES['backblaze-b2'] as (typeof STORES)[string])(t)
  t.after(() => storage.close())
  const world = join(folder, 'world')
  mkdirSync(world)
  const journals = join(folder, 'journals')
  const keys = { server: 'survival', key: Buffer.alloc(32, 1) }
  const options = { journal: { folder: journals, resume: false }, lease: false } as const
  const cut = async () => {
    writeFileSync(join(world, 'r.mca'), seededBytes(PARTS * partBytes, 1))
    const ending = new AbortController()
    const at = await openBackups({ storage: telling(storage, () => ending.abort()), ...keys })
    await assert.rejects(at.create(world, { ...options, signal: ending.signal }), { name: 'AbortError' })
    // As of a run that was killed before it had taken the name of its upload down.
    const [{ file, contents }] = (await listJournals(journals)) as [FoundJournal]
    assert.ok(contents?.upload)
    rmSync(file)
    await (await Journal.create(file, contents.head, contents.run)).close()
    writeFileSync(join(world, 'r.mca'), seededBytes(1000, 2))
  }
  const answering = (code: StorageErrorCode) => {
    const error = new StorageError('The store said so.', { code, adapter: 'b2', operation: 'purgeUnfinished' })
    return overriding(storage, { purgeUnfinished: () => Promise.reject(error) })
  }
  const left = async () => [pending?.(), (await listJournals(journals)).length]
  const warnings: string[] = []
  const onWarning = ({ message }: { message: string }) => warnings.push(message)

  await cut()
  const unavailable = await openBackups({ storage: answering('UNAVAILABLE'), ...keys })
  await unavailable.create(world, { ...options, onWarning })
  assert.match(warnings.join(), /could not be cancelled: The store said so/)
  assert.deepEqual(await left(), [1, 1], 'its journal stays for the next run')
  const backups = await openBackups({ storage, ...keys })
  await backups.create(world, options)
  assert.deepEqual(await left(), [0, 0])

  await cut()
  warnings.length = 0
  const denied = await openBackups({ storage: answering('ACCESS_DENIED'), ...keys })
  await denied.create(world, { ...options, onWarning })
  assert.doesNotMatch(warnings.join(), /could not be cancelled/)
  assert.deepEqual(await left(), [1, 0], 'who may not cancel can do no more')
})

test('a journal of a run that was killed before its first block stops no strict run, and goes', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { storage } = await (STORES['backblaze-b2'] as (typeof STORES)[string])(t)
  t.after(() => storage.close())
  const world = join(folder, 'world')
  mkdirSync(world)
  writeFileSync(join(world, 'level.dat'), 'a level')
  const journals = join(folder, 'journals')
  const backups = await openBackups({ storage, server: 'survival', key: Buffer.alloc(32, 1) })
  mkdirSync(join(journals, 'survival'), { recursive: true })
  const header = encodeJournalHeader(Buffer.alloc(16, 7))
  for (const bytes of [Buffer.alloc(0), header.subarray(0, 5), header, Buffer.concat([header, Buffer.alloc(40)])]) {
    writeFileSync(journalFile(journals, 'survival', '2026-11-28T02-00-00.000Z-abcd'), bytes)
    assert.deepEqual(await leftUploads(journals, [storage.location]), [], `${bytes.length} bytes`)
    const warnings: string[] = []
    const onWarning = ({ message }: { message: string }) => warnings.push(message)
    await backups.create(world, { journal: { folder: journals, resume: 'strict' }, onWarning })
    assert.deepEqual(warnings, [], `${bytes.length} bytes`)
    assert.deepEqual(await listJournals(journals), [])
  }
})

test('files beside the journals that cannot be removed undo no snapshot, and hide no failure', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { storage, partBytes } = await (STORES['backblaze-b2'] as (typeof STORES)[string])(t)
  t.after(() => storage.close())
  const world = join(folder, 'world')
  mkdirSync(world)
  writeFileSync(join(world, 'r.mca'), seededBytes(PARTS * partBytes, 1))
  const journals = join(folder, 'journals')
  const here = join(journals, 'survival')
  // In place of each a folder, which is not removed as a file is.
  const spoil = () => {
    for (const name of readdirSync(here)) {
      rmSync(join(here, name), { recursive: true })
      mkdirSync(join(here, name))
    }
  }
  const keys = { server: 'survival', key: Buffer.alloc(32, 1) }
  const hooks = { failure: `touch '${join(folder, 'told')}'` }
  const warnings: string[] = []
  const onWarning = ({ message }: { message: string }) => warnings.push(message)
  const options = { journal: { folder: journals, resume: true }, hooks, onWarning } as const

  const backups = await openBackups({ storage: telling(storage, spoil), ...keys })
  const made = await backups.create(world, options)
  assert.equal((await backups.verify(made.id)).status, 'ok')
  assert.match(warnings.join('\n'), /^The journal .*\.journal could not be removed: /)
  assert.equal(existsSync(join(folder, 'told')), false)

  const ending = new AbortController()
  const failing = telling(storage, () => {
    spoil()
    ending.abort()
  })
  const again = await openBackups({ storage: failing, ...keys })
  await assert.rejects(again.create(world, { ...options, signal: ending.signal }), { name: 'AbortError' })
  assert.ok(existsSync(join(folder, 'told')))
})
