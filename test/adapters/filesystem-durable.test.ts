import assert from 'node:assert/strict'
import fsPromises, { type FileHandle, mkdtemp, open, readdir, readlink, rm } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { feed } from '../support/streams.ts'

test('a file that is not as long as what was written is an error, and is removed', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'millrace-durable-'))
  const { lstat } = fsPromises
  t.after(async () => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
    await rm(root, { recursive: true })
  })
  t.mock.method(fsPromises, 'lstat', async (path: string, options: { bigint: true }) => {
    const stats = await lstat(path, options)
    return basename(path) === 'one' ? Object.assign(stats, { size: 2n }) : stats
  })
  syncBuiltinESMExports()
  const storage = await openFilesystem({ root })
  const writing = pipeline(feed(Buffer.from('one')), storage.createWriteStream('world/one'))
  await assert.rejects(writing, { code: 'CORRUPT', message: /has 2 bytes in the folder, and 3 were written/ })
  assert.deepEqual(await Array.fromAsync(storage.list('')), [])
})

test('what is written reaches the disk before it has its name, its name before finish, and a delete before it is told', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'millrace-durable-'))
  const handle = await open(root)
  const prototype = Object.getPrototypeOf(handle) as FileHandle
  await handle.close()
  const seen: string[] = []
  const { rename, link, unlink } = fsPromises
  const { sync } = prototype
  const isTemporary = (path: string) => basename(path).startsWith('.')
  t.after(async () => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
    await rm(root, { recursive: true })
  })
  t.mock.method(prototype, 'sync', async function (this: FileHandle) {
    const path = await readlink(`/proc/self/fd/${this.fd}`)
    seen.push(isTemporary(path) ? 'sync the file' : `sync ${basename(path)}`)
    return sync.call(this)
  })
  t.mock.method(fsPromises, 'rename', (from: string, to: string) => {
    seen.push(`name ${basename(to)}`)
    return rename(from, to)
  })
  t.mock.method(fsPromises, 'link', (from: string, to: string) => {
    seen.push(`name ${basename(to)}`)
    return link(from, to)
  })
  t.mock.method(fsPromises, 'unlink', (path: string) => {
    if (!isTemporary(path)) seen.push(`remove ${basename(path)}`)
    return unlink(path)
  })
  syncBuiltinESMExports()
  const storage = await openFilesystem({ root })
  await pipeline(feed(Buffer.from('first')), storage.createWriteStream('world/first'))
  seen.length = 0
  await pipeline(feed(Buffer.from('one')), storage.createWriteStream('world/one'))
  assert.deepEqual(seen.splice(0), ['sync the file', 'name one', 'sync world'])
  await pipeline(feed(Buffer.from('two')), storage.createWriteStream('world/two', { ifAbsent: true }))
  assert.deepEqual(seen.splice(0), ['sync the file', 'name two', 'sync world'])
  await storage.delete('world/one')
  assert.deepEqual(seen.splice(0), ['remove one', 'sync world'])
})

test('a write that is aborted while its bytes are being brought onto the disk never takes the object’s place', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'millrace-durable-'))
  const handle = await open(root)
  const prototype = Object.getPrototypeOf(handle) as FileHandle
  await handle.close()
  const { sync } = prototype
  t.after(async () => {
    t.mock.restoreAll()
    await rm(root, { recursive: true })
  })
  const storage = await openFilesystem({ root })
  await pipeline(feed(Buffer.from('old')), storage.createWriteStream('world/one'))
  const stream = storage.createWriteStream('world/one')
  t.mock.method(prototype, 'sync', async function (this: FileHandle) {
    await sync.call(this)
    stream.destroy()
  })
  const end = new Promise((resolve) => stream.once('close', resolve))
  stream.end('new')
  await end
  assert.equal(String(await storage.readRange('world/one', 0, 3)), 'old')
  const left = (await Array.fromAsync(storage.list(''))).map(({ key }) => key)
  assert.deepEqual(left, ['world/one'])
  assert.deepEqual(await readdir(join(root, 'world')), ['one'])
})
