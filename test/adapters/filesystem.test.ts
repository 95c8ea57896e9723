import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import fsPromises, {
  appendFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { toStorageError } from '../../adapters/filesystem-paths.ts'
import type { Storage } from '../../adapters/storage.ts'
import { explain, isGone } from '../../lib/archive/io.ts'
import { isFullDisk } from '../../lib/space.ts'
import { storageContract } from '../contract/storage.ts'

const root = await mkdtemp(join(tmpdir(), 'millrace-filesystem-'))

storageContract('filesystem', {
  open: () => openFilesystem({ root: join(root, 'made', 'when', 'needed') }),
  async pendingUploads() {
    const names = await readdir(root, { recursive: true })
    return names.filter((name) => name.includes('.millrace-tmp-')).length
  },
  async cleanup() {
    await rm(root, { recursive: true })
  },
  partBytes: 256 * 1024,
  manyKeys: 300,
  keysAreFiles: true,
})

describe('filesystem', () => {
  let own: string
  let storage: Storage
  beforeEach(async () => {
    own = await mkdtemp(join(tmpdir(), 'millrace-filesystem-'))
    storage = await openFilesystem({ root: join(own, 'root') })
  })
  afterEach(async () => {
    await rm(own, { recursive: true })
  })

  async function put(key: string, text: string, options = {}): Promise<void> {
    const stream = storage.createWriteStream(key, options)
    stream.end(text)
    await finished(stream)
  }

  it('opening makes nothing, and a missing root reads as empty', async () => {
    await assert.rejects(storage.stat('a'), { code: 'NOT_FOUND' })
    for await (const _ of storage.list('')) assert.fail()
    await storage.delete('a')
    assert.deepEqual(await readdir(own), [])
  })

  it('an aborted write leaves not even a folder that it made, and every folder that it did not', async () => {
    await mkdir(join(own, 'root', 'kept'), { recursive: true })
    for (const key of ['kept/new/deep/object', 'other/object']) {
      const stream = storage.createWriteStream(key)
      await new Promise((resolve) => stream.write('bytes', resolve))
      stream.destroy()
      await once(stream, 'close')
    }
    assert.deepEqual(await readdir(join(own, 'root'), { recursive: true }), ['kept'])
  })

  it('files are for their owner only', async () => {
    await put('a/b', 'x')
    assert.equal((await stat(join(own, 'root', 'a', 'b'))).mode & 0o777, 0o600)
    assert.equal((await stat(join(own, 'root', 'a'))).mode & 0o777, 0o700)
  })

  it('delete removes the folders that it leaves empty, if they were made here', async () => {
    await put('a/b/c', 'x')
    await put('a/d', 'x')
    await storage.delete('a/b/c')
    assert.deepEqual(await readdir(join(own, 'root'), { recursive: true }), ['a', 'a/d'])
  })

  it('follows no symbolic link beneath its root', async () => {
    await put('in/object', 'x')
    await mkdir(join(own, 'outside', 'folder'), { recursive: true })
    await writeFile(join(own, 'outside', 'secret'), 'secret')
    await symlink(join(own, 'outside'), join(own, 'root', 'link'))
    await symlink(join(own, 'outside', 'secret'), join(own, 'root', 'alias'))
    await assert.rejects(put('link/new', 'x'), { code: 'INVALID' })
    await assert.rejects(put('link/folder/deep/new', 'x'), { code: 'INVALID' })
    await assert.rejects(text(storage.createReadStream('link/secret')), { code: 'INVALID' })
    await assert.rejects(text(storage.createReadStream('alias')), { code: 'INVALID' })
    await assert.rejects(storage.stat('link/secret'), { code: 'INVALID' })
    await assert.rejects(storage.stat('alias'), { code: 'NOT_FOUND' })
    await assert.rejects(storage.delete('link/secret'), { code: 'INVALID' })
    const keys: string[] = []
    for await (const { key } of storage.list('')) keys.push(key)
    assert.deepEqual(keys, ['in/object'])
    assert.deepEqual((await readdir(join(own, 'outside'))).sort(), ['folder', 'secret'])
    assert.deepEqual(await readdir(join(own, 'outside', 'folder')), [])
  })

  it('the root itself may be a link', async () => {
    await mkdir(join(own, 'disk'))
    await symlink(join(own, 'disk'), join(own, 'root'))
    await put('a/b', 'x')
    assert.deepEqual(await readdir(join(own, 'disk', 'a')), ['b'])
  })

  it('one key cannot be the folder of another', async () => {
    await put('a', 'x')
    await assert.rejects(put('a/b', 'x'), { code: 'INVALID' })
    await put('c/d', 'x')
    await assert.rejects(put('c', 'x'), { code: 'INVALID' })
    await assert.rejects(put('c', 'x', { ifAbsent: true }), { code: 'CONFLICT' })
    assert.deepEqual(await readdir(join(own, 'root'), { recursive: true }), ['a', 'c', 'c/d'])
  })

  it('a folder that cannot be listed is named', async () => {
    await writeFile(join(own, 'root'), 'x')
    const isNamed = ({ message }: Error) => message.includes(` ${join(own, 'root')}: a file is in the way of a folder`)
    await assert.rejects(Array.fromAsync(storage.list('a')), isNamed)
    await assert.rejects(storage.purgeUnfinished!(0), isNamed)
  })

  it('names of temporary files are no keys', () => {
    assert.throws(() => storage.createWriteStream('a/.millrace-tmp-1'), { code: 'INVALID' })
  })

  it('purgeUnfinished removes what an interrupted write left, once it is old', async () => {
    await put('a/object', 'x')
    const left = join(own, 'root', 'a', '.millrace-tmp-0123')
    await writeFile(left, 'half')
    for await (const { key } of storage.list('')) assert.equal(key, 'a/object')
    assert.equal(await storage.purgeUnfinished?.(60_000), 0)
    await utimes(left, new Date(0), new Date(0))
    assert.equal(await storage.purgeUnfinished?.(60_000, { prefix: 'b' }), 0)
    for (const none of [undefined, Number.NaN, null, '60000']) {
      await assert.rejects(storage.purgeUnfinished!(none as never), { code: 'INVALID' })
    }
    assert.equal(await storage.purgeUnfinished?.(60_000, { prefix: 'a/' }), 1)
    assert.deepEqual(await readdir(join(own, 'root', 'a')), ['object'])
  })

  it('what is being written is as old as the clock of the folder says, however far ahead ours is', async (t) => {
    await mkdir(join(own, 'root', 'a'), { recursive: true })
    await writeFile(join(own, 'root', 'a', '.millrace-tmp-0123'), 'half')
    const ahead = Date.now() + 8 * 86_400_000
    t.mock.method(Date, 'now', () => ahead)
    assert.equal(await storage.purgeUnfinished?.(7 * 86_400_000), 0)
    assert.deepEqual(await readdir(join(own, 'root', 'a')), ['.millrace-tmp-0123'])
  })

  describe('what writers that died have left', () => {
    const DAY_MS = 24 * 60 * 60 * 1000
    /** Temporary files in a folder of the root, last written to so long ago. */
    async function leave(folder: string, ages: Record<string, number>): Promise<void> {
      await mkdir(join(own, 'root', folder), { recursive: true })
      for (const [name, ms] of Object.entries(ages)) {
        const path = join(own, 'root', folder, name)
        await writeFile(path, 'half')
        await utimes(path, new Date(Date.now() - ms), new Date(Date.now() - ms))
      }
    }
    const namesIn = async (folder: string) => (await readdir(join(own, 'root', folder))).sort()

    it('is removed a day later, in the folders that a write or a delete touches', async () => {
      const ages = { '.millrace-tmp-old': DAY_MS + 60_000, '.millrace-tmp-young': DAY_MS - 60_000, old: 9 * DAY_MS }
      for (const folder of ['written', 'deleted', 'written/beneath', 'read']) await leave(folder, ages)
      await put('written/object', 'x')
      await storage.delete('deleted/old')
      await storage.stat('read/old')
      for await (const _ of storage.list('read/')) await text(storage.createReadStream('read/old'))
      assert.deepEqual(await namesIn('written'), ['.millrace-tmp-young', 'beneath', 'object', 'old'])
      assert.deepEqual(await namesIn('deleted'), ['.millrace-tmp-young'])
      for (const folder of ['written/beneath', 'read']) {
        assert.deepEqual(await namesIn(folder), ['.millrace-tmp-old', '.millrace-tmp-young', 'old'])
      }
    })

    it('is looked for once in a folder', async () => {
      await put('a/object', 'x')
      await leave('a', { '.millrace-tmp-old': 2 * DAY_MS })
      await put('a/object', 'y')
      assert.deepEqual(await namesIn('a'), ['.millrace-tmp-old', 'object'])
      storage = await openFilesystem({ root: join(own, 'root') })
      await put('a/object', 'z')
      assert.deepEqual(await namesIn('a'), ['object'])
    })

    it('is told from a write that goes on, however long ago it began', async () => {
      const stream = storage.createWriteStream('a/slow')
      await new Promise((resolve) => stream.write('one', resolve))
      const [temporary] = (await namesIn('a')) as [string]
      await utimes(join(own, 'root', 'a', temporary), new Date(0), new Date(0))
      await new Promise((resolve) => stream.write('two', resolve))
      const other = await openFilesystem({ root: join(own, 'root') })
      const second = other.createWriteStream('a/quick')
      second.end('x')
      await finished(second)
      stream.end()
      await finished(stream)
      assert.equal(await text(storage.createReadStream('a/slow')), 'onetwo')
    })

    it('T20: is judged by the time of the folder, so that a clock that is years ahead removes nothing', async (context) => {
      await leave('a', { '.millrace-tmp-live': 60_000 })
      context.mock.timers.enable({ apis: ['Date'], now: Date.now() + 3650 * DAY_MS })
      await put('a/object', 'x')
      assert.deepEqual(await namesIn('a'), ['.millrace-tmp-live', 'object'])
    })
  })

  it('T14: a file that is written to in place while it is read is an error', async () => {
    const path = join(own, 'root', 'object')
    for (const spoil of [() => truncate(path, 600_000), () => appendFile(path, 'more')]) {
      await put('object', 'x'.repeat(12_000_000))
      const reading = async () => {
        for await (const _ of storage.createReadStream('object')) await spoil()
      }
      await assert.rejects(
        reading(),
        (error: { code?: string }) => error.code === 'CORRUPT' || error.code === 'CONFLICT',
      )
    }
  })

  it('says what the system said: full, refused, read-only', () => {
    for (const [code, expected, said] of [
      ['ENOSPC', 'QUOTA', /at \/store is full/],
      ['EDQUOT', 'QUOTA', /at \/store is full/],
      ['EFBIG', 'QUOTA', /larger than/],
      ['EACCES', 'ACCESS_DENIED', /owner and the mode/],
      ['EPERM', 'ACCESS_DENIED', /owner and the mode/],
      ['EROFS', 'ACCESS_DENIED', /write "a\/key": the file system is read-only/],
      ['ERR_ACCESS_DENIED', 'ACCESS_DENIED', /Node’s permission model/],
      ['EIO', 'UNAVAILABLE', /system/],
    ] as const) {
      const error = toStorageError(Object.assign(new Error('system'), { code }), 'write', 'a/key', '/store')
      assert.ok(error instanceof StorageError)
      assert.equal(error.code, expected)
      assert.match(error.message, said)
      assert.equal(error.retryable, false)
    }
  })

  it('says of a root behind a symlink that leads nowhere which one that is', async () => {
    const link = join(own, 'usb')
    await symlink(join(own, 'not mounted'), link)
    for (const root of [link, join(link, 'backups')]) {
      const behind = await openFilesystem({ root })
      const sink = behind.createWriteStream('object')
      sink.end('x')
      await assert.rejects(finished(sink), {
        code: 'UNAVAILABLE',
        message: `Nothing can be written to ${root}: the symlink ${link} leads nowhere. Mount or make what it leads to.`,
      })
    }
  })

  it('a root that another writer removes just then is made again', async (context) => {
    const root = join(own, 'shared')
    const { mkdir } = fsPromises
    let removed = 0
    context.mock.method(fsPromises, 'mkdir', async (path: string, options: object) => {
      await mkdir(path, options)
      if (path === root && removed++ === 0) await rm(path, { recursive: true })
    })
    syncBuiltinESMExports()
    try {
      const sink = (await openFilesystem({ root })).createWriteStream('object')
      sink.end('x')
      await finished(sink)
    } finally {
      context.mock.restoreAll()
      syncBuiltinESMExports()
    }
    assert.deepEqual([removed, await readdir(root)], [2, ['object']])
  })

  it('a mount that makes inode numbers of names, and has no links, is written to', async (context) => {
    const { lstat, statfs } = fsPromises
    let type = 0x65735546
    const handle = await open(own, 'r')
    const { stat } = Object.getPrototypeOf(handle)
    let stats = 0n
    context.mock.method(Object.getPrototypeOf(handle), 'stat', async function (this: object, options: object) {
      const found = await stat.call(this, options)
      return Object.assign(found, { mtimeNs: found.mtimeNs + stats++ })
    })
    await handle.close()
    context.mock.method(fsPromises, 'lstat', async (path: string, options: object) => {
      const stats = await lstat(path, options)
      return Object.assign(stats, { ino: BigInt(path.length) })
    })
    context.mock.method(fsPromises, 'statfs', async (path: string) => ({ ...(await statfs(path)), type }))
    context.mock.method(fsPromises, 'link', async () => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' })
    })
    syncBuiltinESMExports()
    try {
      await put('object', 'x')
      const { version } = await storage.stat('object')
      assert.equal(await text(storage.createReadStream('object', { version: String(version) })), 'x')
      const sink = storage.createWriteStream('only', { ifAbsent: true })
      sink.end('x')
      await assert.rejects(finished(sink), { code: 'INVALID', message: /needs hard links/ })
      // Of a disk, another number is another writer's file.
      type = 0xef53
      await assert.rejects(text(storage.createReadStream('object')), { code: 'CONFLICT', message: /was written to/ })
      await assert.rejects(put('object', 'y'), { code: 'CONFLICT' })
    } finally {
      context.mock.restoreAll()
      syncBuiltinESMExports()
    }
  })

  it('a mount that fails writes, and then the close as well, is left nothing', async (context) => {
    await put('folder/object', 'old')
    const fails = async () => {
      throw Object.assign(new Error('EDQUOT: quota'), { code: 'EDQUOT' })
    }
    const { open } = fsPromises
    context.mock.method(fsPromises, 'open', async (...args: Parameters<typeof open>) => {
      const handle = await open(...args)
      const close = handle.close.bind(handle)
      return args[1] === 'wx' ? Object.assign(handle, { writev: fails, close: () => close().then(fails) }) : handle
    })
    syncBuiltinESMExports()
    try {
      await assert.rejects(put('folder/object', 'new'), { code: 'QUOTA' })
    } finally {
      context.mock.restoreAll()
      syncBuiltinESMExports()
    }
    assert.deepEqual(await readdir(join(own, 'root', 'folder')), ['object'])
    assert.equal(await text(storage.createReadStream('folder/object')), 'old')
  })

  it('an object that was refused when it had its name already is not left, by ifAbsent neither', async (context) => {
    await put('object', 'x')
    const { unlink } = fsPromises
    let failed = 0
    context.mock.method(fsPromises, 'unlink', async (path: string) => {
      if (failed++ === 0) throw Object.assign(new Error('EIO: i/o error, unlink'), { code: 'EIO' })
      await unlink(path)
    })
    syncBuiltinESMExports()
    try {
      const sink = storage.createWriteStream('only', { ifAbsent: true })
      sink.end('x')
      await assert.rejects(finished(sink), { code: 'UNAVAILABLE', message: /EIO/ })
    } finally {
      context.mock.restoreAll()
      syncBuiltinESMExports()
    }
    assert.deepEqual(await readdir(join(own, 'root')), ['object'])
  })

  it('a quota that is used up and a stale handle are told as that, which Node has no names for', {
    skip: process.platform === 'linux' ? false : 'numbers of Linux',
  }, () => {
    const unnamed = (errno: number) =>
      Object.assign(new Error(`Unknown system error ${errno}, write`), { errno, code: `Unknown system error ${errno}` })
    assert.match(String(toStorageError(unnamed(-122), 'write', 'a', '/srv')), /quota at \/srv is full; .* \(EDQUOT\)/)
    assert.equal((toStorageError(unnamed(-122), 'write', 'a') as StorageError).code, 'QUOTA')
    assert.equal(isFullDisk(unnamed(-122)), true)
    assert.equal(isGone(unnamed(-116)), true)
    assert.match(explain('Cannot read a', unnamed(-116)), /gone from the share .*ESTALE/)
  })

  it('a disk that fills up is QUOTA, and leaves nothing', { skip: !existsSync('/dev/full') }, async (context) => {
    await put('object', 'old')
    // The write itself fails as on a full disk; the file is a real one.
    const handle = await open('/dev/full', 'w')
    const prototype = Object.getPrototypeOf(handle)
    context.mock.method(prototype, 'writev', (buffers: Buffer[]) => handle.write(buffers[0] as Buffer))
    try {
      await assert.rejects(put('object', 'new'), { code: 'QUOTA' })
    } finally {
      context.mock.restoreAll()
      await handle.close()
    }
    assert.deepEqual(await readdir(join(own, 'root')), ['object'])
    assert.equal(await text(storage.createReadStream('object')), 'old')
  })
})
