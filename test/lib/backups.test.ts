import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type Backups, type BackupsOptions, openBackups } from '../../lib/index.ts'
import { scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { overriding } from '../support/storage.ts'
import { feed, sample } from '../support/streams.ts'

const key = Buffer.alloc(32, 9)

async function world(t: TestContext): Promise<string> {
  const folder = join(await scratch(t), 'world')
  await mkdir(join(folder, 'region'), { recursive: true })
  await mkdir(join(folder, 'empty'))
  await writeFile(join(folder, 'region/r.0.0.mca'), sample(300_000))
  await writeFile(join(folder, 'level.dat'), sample(2000, 2))
  await symlink('level.dat', join(folder, 'link'))
  return folder
}

const open = (storage: Storage, options: Partial<BackupsOptions> = {}) =>
  openBackups({ storage, server: 'survival', key, ...options })

async function keysOf(storage: Storage): Promise<string[]> {
  const keys: string[] = []
  for await (const { key: name } of storage.list('')) keys.push(name)
  return keys.sort()
}

async function bytesOf(storage: Storage, name: string): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(storage.createReadStream(name)))
}

async function put(storage: Storage, name: string, data: Buffer): Promise<void> {
  await pipeline(feed(data), storage.createWriteStream(name))
}

function hasCode(...codes: string[]) {
  return (error: unknown) => codes.includes((error as { code: string }).code)
}

test('a folder is backed up, listed, inspected, verified and restored', async (t) => {
  const folder = await world(t)
  const storage = await openMemory()
  const backups = await open(storage)
  const made = await backups.create(folder)
  assert.equal(made.files, 2)
  assert.equal(made.incomplete, false)
  assert.deepEqual(await keysOf(storage), [made.key, `${made.key}.sha256`])

  const object = await bytesOf(storage, made.key)
  assert.equal(object.length, made.storedBytes)
  assert.equal(createHash('sha256').update(object).digest('hex'), made.sha256)
  assert.equal((await bytesOf(storage, `${made.key}.sha256`)).toString(), `${made.sha256}  ${made.key.split('/')[1]}\n`)

  const [listed] = await backups.list()
  assert.equal(listed?.id, made.id)
  assert.equal(listed?.complete, true)

  const paths: string[] = []
  const { head } = await backups.inspect('latest', { onEntry: ({ path }) => paths.push(path) })
  assert.deepEqual(paths, ['empty', 'level.dat', 'link', 'region', 'region/r.0.0.mca'])
  assert.equal(head?.server, 'survival')
  assert.equal(head?.bytes, made.bytes)

  assert.equal((await backups.verify('latest')).status, 'ok')
  assert.equal((await backups.verify(made.id, { quick: true })).status, 'ok')

  const target = join(await scratch(t), 'deep/target')
  const restored = await backups.restore('latest', target)
  assert.equal(restored.verified, true)
  assert.deepEqual(await readFile(join(target, 'link')), await readFile(join(folder, 'level.dat')))
  assert.deepEqual(await readFile(join(target, 'region/r.0.0.mca')), await readFile(join(folder, 'region/r.0.0.mca')))
  assert.equal((await stat(target)).mode, (await stat(folder)).mode)
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
})

test('stores are given as openStorage takes them, and what names none is told as that', async (t) => {
  const folder = await scratch(t)
  const url = pathToFileURL(join(folder, 'store'))
  const mirror = pathToFileURL(join(folder, 'mirror'))
  const backups = await openBackups({ storage: url, mirrors: [mirror], server: 'world', encryption: false })
  const { id } = await backups.create(Readable.from(['a world']))
  for (const { location } of backups.storages) {
    const one = await openBackups({ storage: location, server: 'world', encryption: false })
    assert.deepEqual(
      (await one.list()).map((snapshot) => snapshot.id),
      [id],
    )
  }
  for (const storage of [undefined, null, 5] as never[]) {
    await assert.rejects(openBackups({ storage, server: 'world', encryption: false }), {
      name: 'StorageError',
      code: 'INVALID',
    })
  }
  for (const server of [undefined, null, 5] as never[]) {
    const opening = openBackups({ storage: url, server, encryption: false })
    await assert.rejects(opening, { name: 'BackupError', code: 'USAGE' })
  }
})

test('a file and a stream are backed up as they are', async (t) => {
  const folder = await scratch(t)
  const storage = await openMemory()
  const backups = await open(storage)
  const data = sample(5_000_000)
  await writeFile(join(folder, 'save.zip'), data, { mode: 0o640 })
  for (const source of [join(folder, 'save.zip'), feed(data, 1000)]) {
    const made = await backups.create(source)
    assert.equal(made.kind, 'raw')
    assert.equal(made.bytes, data.length)
    const target = join(folder, made.id)
    await backups.restore(made.id, target)
    assert.deepEqual(await readFile(target), data)
  }
  assert.equal((await backups.list()).length, 2)
})

test('without encryption: written and read when asked for, refused where a key is configured', async (t) => {
  const folder = await world(t)
  const storage = await openMemory()
  const plain = await open(storage, { key: undefined, encryption: false })
  const made = await plain.create(folder)
  assert.match(made.key, /\.tar\.zst$/)
  assert.equal((await plain.verify('latest')).status, 'ok')
  const target = join(await scratch(t), 'out')
  const backups = await open(storage)
  await assert.rejects(backups.restore('latest', target), hasCode('NOT_ENCRYPTED'))
  await assert.rejects(backups.verify('latest'), hasCode('NOT_ENCRYPTED'))
  await backups.restore('latest', target, { allowPlain: true })
  await assert.rejects(openBackups({ storage, server: 'survival' }), hasCode('USAGE'))
})

test('T4: a source that dies half-way leaves nothing in the store', async () => {
  const storage = await openMemory()
  const backups = await open(storage)
  const dies = Readable.from(
    (async function* () {
      yield sample(20_000_000)
      throw new Error('the disk is gone')
    })(),
    { objectMode: false },
  )
  await assert.rejects(backups.create(dies), /the disk is gone/)
  for (const [script, message] of [
    ['echo half; exit 3', /ended with exit code 3/],
    ['echo half; kill -9 $$', /was ended by SIGKILL/],
    ['echo it broke >&2; exit 1', /it broke/],
  ] as const) {
    await assert.rejects(backups.create({ command: ['sh', '-c', script] }), message)
  }
  await assert.rejects(backups.create({ command: ['/nonexistent/program'] }), hasCode('SOURCE'))
  for (const none of [new URL('file:///srv'), undefined, { command: [] }, { command: 'true' }]) {
    await assert.rejects(backups.create(none as never), hasCode('USAGE'))
  }
  assert.deepEqual(await keysOf(storage), [])
})

test('T4: an abort leaves nothing in the store', async () => {
  const storage = await openMemory()
  const backups = await open(storage)
  const stop = new AbortController()
  async function* slow() {
    yield sample(20_000_000)
    stop.abort()
    await new Promise(() => {})
  }
  const source = Readable.from(slow(), { objectMode: false })
  await assert.rejects(backups.create(source, { signal: stop.signal }), { name: 'AbortError' })
  assert.deepEqual(await keysOf(storage), [])
})

test('an abort while a file, a folder or a program is read is an AbortError', async (t) => {
  const folder = await world(t)
  const file = join(folder, 'file')
  await writeFile(file, seededBytes(8_000_000, 1))
  for (const source of [file, folder, { command: ['cat', file] as [string, string] }]) {
    const stop = new AbortController()
    const storage = await openMemory()
    const stuck = overriding(storage, {
      createWriteStream(name, options) {
        if (!name.endsWith('.mlr')) return storage.createWriteStream(name, options)
        return new Writable({ write: () => setImmediate(() => stop.abort(new Error('enough'))) })
      },
    })
    const made = (await open(stuck)).create(source, { signal: stop.signal })
    await assert.rejects(made, { name: 'AbortError' })
    assert.deepEqual(await keysOf(storage), [])
  }
})

test('T5: an empty source is refused, and allowed by an option', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'empty'))
  await writeFile(join(folder, 'empty.zip'), '')
  const storage = await openMemory()
  const backups = await open(storage)
  for (const source of [
    join(folder, 'empty'),
    join(folder, 'empty.zip'),
    () => Readable.from([]),
    () => ({ command: ['true'] as [string] }),
  ]) {
    const make = () => (typeof source === 'function' ? source() : source)
    await assert.rejects(backups.create(make()), hasCode('EMPTY_SOURCE'))
    assert.deepEqual(await keysOf(storage), [])
  }
  const made = await backups.create(join(folder, 'empty'), { allowEmpty: true })
  await backups.restore(made.id, join(folder, 'out'))
  assert.deepEqual(await readdir(join(folder, 'out')), [])
  const raw = await backups.create(join(folder, 'empty.zip'), { allowEmpty: true })
  await backups.restore(raw.id, join(folder, 'out.zip'))
  assert.equal((await stat(join(folder, 'out.zip'))).size, 0)
})

test('T24: a target that is not empty is refused, and replaced when asked for', async (t) => {
  const folder = await world(t)
  const backups = await open(await openMemory())
  await backups.create(folder)
  const target = join(await scratch(t), 'target')
  await mkdir(target)
  await writeFile(join(target, 'mine'), 'mine')
  await assert.rejects(backups.restore('latest', target), hasCode('TARGET'))
  assert.deepEqual(await readdir(target), ['mine'])
  await backups.restore('latest', target, { overwrite: true })
  assert.deepEqual(await readdir(target), await readdir(folder))
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
})

test('T26: a wrong password or key restores nothing and leaves nothing', async (t) => {
  const storage = await openMemory()
  const made = await (await open(storage)).create(await world(t))
  const target = join(await scratch(t), 'target')
  const wrong = await open(storage, { key: Buffer.alloc(32, 1) })
  await assert.rejects(wrong.restore(made.id, target), hasCode('WRONG_KEY'))
  await assert.rejects(wrong.verify(made.id), hasCode('WRONG_KEY'))
  assert.deepEqual(await readdir(join(target, '..')), [])
  await assert.rejects(open(storage, { key: Buffer.alloc(31) }), hasCode('BAD_KEY'))
  await assert.rejects(open(storage, { key: undefined, password: '' }), hasCode('BAD_KEY'))
})

test('T27: a missing or stale companion is unverified, never ok', async (t) => {
  const storage = await openMemory()
  const backups = await open(storage)
  const made = await backups.create(await world(t))
  const companion = `${made.key}.sha256`
  const target = join(await scratch(t), 'target')

  await put(storage, companion, Buffer.from(`${'00'.repeat(32)}  ${made.key.split('/')[1]}\n`))
  assert.equal((await backups.verify(made.id)).status, 'unverified')
  await assert.rejects(backups.restore(made.id, target), hasCode('DAMAGED'))
  assert.equal((await backups.verify(made.id, { restoreTest: true })).status, 'unverified')

  await put(storage, companion, Buffer.from(`${made.sha256}  another-object\n`))
  assert.equal((await backups.verify(made.id)).status, 'unverified')

  await storage.delete(companion)
  assert.equal((await backups.verify(made.id)).status, 'unverified')
  await assert.rejects(backups.restore('latest', target), hasCode('NO_SNAPSHOT'))
  await assert.rejects(backups.restore(made.id, target), hasCode('NO_SNAPSHOT'))
  assert.deepEqual(await readdir(join(target, '..')), [])
  assert.equal((await backups.restore(made.id, target, { allowUnverified: true })).verified, false)
})

test('T27: without encryption nothing but the companion vouches for a snapshot: what differs from it is damaged', async (t) => {
  const storage = await openMemory()
  const backups = await open(storage, { key: undefined, encryption: false })
  const made = await backups.create(await world(t))
  const stale = `${'00'.repeat(32)}  ${made.key.split('/')[1]}\n`
  await put(storage, `${made.key}.sha256`, Buffer.from(stale))
  for (const way of [{}, { restoreTest: true }]) {
    assert.equal((await backups.verify(made.id, way)).status, 'damaged', JSON.stringify(way))
  }
})

test('T34: an object with any one byte flipped is damaged and restores nothing', async (t) => {
  const storage = await openMemory()
  const backups = await open(storage)
  const folder = join(await scratch(t), 'small')
  await mkdir(folder)
  await writeFile(join(folder, 'level.dat'), 'small')
  const made = await backups.create(folder)
  const object = await bytesOf(storage, made.key)
  const target = join(await scratch(t), 'target')
  let rejected = 0
  for (let at = 0; at < object.length; at += 1) {
    const changed = Buffer.from(object)
    changed[at] = (changed[at] as number) ^ (1 << (at % 8))
    await put(storage, made.key, changed)
    await assert.rejects(
      backups.restore(made.id, target),
      (error: { name: string }) => error.name === 'TransformError',
      `byte ${at}`,
    )
    rejected += 1
  }
  assert.deepEqual(await readdir(join(target, '..')), [])
  t.diagnostic(`${rejected} flips of a whole snapshot rejected`)
})

test('T1: an object cut at any byte is damaged and restores nothing', async (t) => {
  const storage = await openMemory()
  const backups = await open(storage)
  const folder = join(await scratch(t), 'small')
  await mkdir(folder)
  await writeFile(join(folder, 'level.dat'), 'small')
  const made = await backups.create(folder)
  const object = await bytesOf(storage, made.key)
  const target = join(await scratch(t), 'target')
  for (let length = 0; length < object.length; length += 1) {
    await put(storage, made.key, object.subarray(0, length))
    await assert.rejects(
      backups.restore(made.id, target),
      (error: { name: string }) => error.name === 'TransformError',
      `${length} bytes`,
    )
    assert.equal((await backups.verify(made.id).catch(() => ({ status: 'damaged' }))).status, 'damaged')
  }
  assert.deepEqual(await readdir(join(target, '..')), [])
  t.diagnostic(`${object.length} cuts of a whole snapshot rejected`)
})

test('an object under another name is misplaced, unless that is allowed', async (t) => {
  const storage = await openMemory()
  const made = await (await open(storage)).create(await world(t))
  const object = await bytesOf(storage, made.key)
  const base = made.key.split('/')[1] as string
  await put(storage, `creative/${base}`, object)
  await put(storage, `creative/${base}.sha256`, await bytesOf(storage, `${made.key}.sha256`))
  const creative = await open(storage, { server: 'creative' })
  const target = join(await scratch(t), 'target')
  await assert.rejects(creative.restore('latest', target), hasCode('MISPLACED'))
  await assert.rejects(creative.verify('latest'), hasCode('MISPLACED'))
  await assert.rejects(creative.inspect('latest'), hasCode('MISPLACED'))
  await creative.restore('latest', target, { allowRenamed: true })
})

test('T19: servers with like names, and foreign objects, do not touch each other', async (t) => {
  const folder = await world(t)
  const storage = await openMemory()
  const servers = ['world', 'world2', '1', '10']
  for (const server of servers) await (await open(storage, { server })).create(folder)
  await put(storage, 'world/notes.txt', Buffer.from('mine'))
  await put(storage, `world/old/${(await keysOf(storage))[0]?.split('/')[1]}`, Buffer.from('mine'))
  for (const server of servers) {
    const found = await (await open(storage, { server })).list()
    assert.deepEqual(
      found.map((one) => one.server),
      [server],
    )
  }
})

test('T31: an upload that was reported as good and is not there is caught', async (t) => {
  const storage = await openMemory()
  const lying = overriding(storage, { stat: async (name) => ({ ...(await storage.stat(name)), size: 1 }) })
  await assert.rejects((await open(lying)).create(await world(t)), hasCode('DAMAGED'))
  assert.equal((await (await open(storage)).list())[0]?.complete, false)
})

test('a companion that cannot be written leaves the object, and says so', async (t) => {
  const storage = await openMemory()
  const full = overriding(storage, {
    createWriteStream(name) {
      if (name.endsWith('.sha256')) throw new Error('no room')
      return storage.createWriteStream(name)
    },
  })
  const backups = await open(full)
  await assert.rejects(backups.create(await world(t)), hasCode('UNFINISHED'))
  const [left] = await backups.list()
  assert.equal(left?.complete, false)
  assert.equal((await backups.verify(left?.id as string)).status, 'unverified')
})

test('progress is told, and ends with what was stored', async (t) => {
  const backups = await open(await openMemory())
  let last = { bytes: 0, storedBytes: 0 }
  const made = await backups.create(await world(t), { onProgress: (progress) => (last = progress) })
  assert.equal(last.bytes, made.bytes)
  let restoredBytes = 0
  await backups.restore('latest', join(await scratch(t), 'out'), { onProgress: ({ bytes }) => (restoredBytes = bytes) })
  assert.equal(restoredBytes, made.storedBytes)
})

test('a backup fails with what onProgress throws, in the middle or at the end', async () => {
  const backups = await open(await openMemory())
  async function* halting() {
    yield sample(100_000)
    // Longer than from one report to the next.
    await delay(300)
    yield sample(100_000)
  }
  for (const source of [Readable.from([sample(1000)]), Readable.from(halting(), { objectMode: false })]) {
    const onProgress = () => {
      throw new Error('no terminal')
    }
    await assert.rejects(backups.create(source, { onProgress }), { message: 'no terminal' })
    assert.deepEqual(await keysOf(backups.storage), [])
  }
})

test('an abort for whatever reason is an AbortError, at any of the requests', async (t) => {
  const folder = await world(t)
  const memory = await openMemory()
  await (await open(memory)).create(folder)
  const target = join(await scratch(t), 'target')
  const works: Record<string, (backups: Backups, signal: AbortSignal) => Promise<unknown>> = {
    create: (backups, signal) => backups.create(folder, { signal }),
    list: (backups, signal) => backups.list({ signal }),
    describe: (backups, signal) => backups.describe({ fetch: true, signal }),
    inspect: (backups, signal) => backups.inspect('latest', { signal }),
    read: async (backups, signal) => buffer(await backups.read('latest', 'region/r.0.0.mca', { signal })),
    verify: (backups, signal) => backups.verify('latest', { signal }),
    sample: (backups, signal) => backups.verify('latest', { sample: 1, signal }),
    'restore test': (backups, signal) => backups.verify('latest', { restoreTest: true, signal }),
    restore: (backups, signal) => backups.restore('latest', target, { signal }),
    some: (backups, signal) => backups.restore('latest', target, { include: ['region'], signal }),
    prune: (backups, signal) => backups.prune({ keepLast: 1 }, { signal }),
  }
  for (const [what, work] of Object.entries(works)) {
    // Aborted at the n-th call of the store, until one comes through.
    for (let at = 0, isOver = false; !isOver; at++) {
      const stopper = new AbortController()
      let calls = 0
      const storage = new Proxy(memory, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target)
          if (typeof value !== 'function') return value
          return (...given: unknown[]) => {
            if (calls++ === at) stopper.abort(new Error('enough'))
            return value.apply(target, given)
          }
        },
      })
      const done = await work(await open(storage), stopper.signal).then(
        () => true,
        (error: Error) => {
          // What is in the store by then has to be said.
          const isStored = what === 'create' && /is stored, and its companion could not be written/.test(error.message)
          if (!isStored) assert.equal(error.name, 'AbortError', `${what}, call ${at}: ${error.stack}`)
          return false
        },
      )
      isOver = calls <= at
      assert.ok(done || !isOver, `${what} fails by itself`)
      await rm(target, { recursive: true, force: true })
    }
  }
})
