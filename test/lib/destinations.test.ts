import assert from 'node:assert/strict'
import { existsSync, stat } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, Transform, Writable } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type CreateOptions, type Fallback, openBackups, type ServiceWarning } from '../../lib/index.ts'
import { markRemoval } from '../../lib/read-lease.ts'
import { scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { overriding } from '../support/storage.ts'
import { feed, sample } from '../support/streams.ts'

const key = Buffer.alloc(32, 9)
const DATA = sample(20_000_000)
const SMALL = DATA.subarray(0, 1000)
const hasCode = (code: string) => (error: unknown) => (error as { code: string }).code === code

async function keysOf(storage: Storage): Promise<string[]> {
  return (await Array.fromAsync(storage.list(''))).map((one) => one.key).sort()
}

function at(location: string, storage: Storage, methods: Partial<Storage> = {}): Storage {
  return overriding(storage, { ...methods, location })
}

/** Its uploads fail, or hang, after some bytes. */
function breaking(storage: Storage, how: 'fail' | 'hang', bytes: number): Partial<Storage> {
  return {
    createWriteStream(name, options) {
      if (!name.endsWith('.mlr')) return storage.createWriteStream(name, options)
      let left = bytes
      return new Writable({
        write(chunk: Buffer, _encoding, callback) {
          left -= chunk.length
          if (left > 0) callback()
          else if (how === 'fail') callback(new StorageError('The plug was pulled.', unavailable))
        },
      })
    },
  }
}

const unavailable = { code: 'UNAVAILABLE', adapter: 'test', operation: 'write' } as const

test('one pass writes the same object and a companion to each destination', async () => {
  const stores = [await openMemory(), await openMemory(), await openMemory()]
  const [storage, ...mirrors] = stores as [Storage, ...Storage[]]
  const backups = await openBackups({ storage, mirrors, server: 'survival', key })
  const made = await backups.create(feed(DATA, 100_000))
  assert.equal(made.incomplete, false)
  assert.deepEqual(
    made.destinations.map(({ ok }) => ok),
    [true, true, true],
  )
  const objects: Buffer[] = []
  for (const store of stores) {
    assert.deepEqual(await keysOf(store), [made.key, `${made.key}.sha256`])
    objects.push(Buffer.concat(await Array.fromAsync(store.createReadStream(made.key))))
    const alone = await openBackups({ storage: store, server: 'survival', key })
    assert.equal((await alone.verify('latest')).status, 'ok')
  }
  assert.ok(objects.every((one) => one.equals(objects[0] as Buffer)))
})

for (const how of ['fail', 'hang'] as const) {
  test(`T28: of several destinations one that ${how}s is dropped, and the others are complete`, async () => {
    const [good, bad] = [await openMemory(), await openMemory()]
    const broken = at('b:', bad, breaking(bad, how, 3_000_000))
    const backups = await openBackups({ storage: broken, mirrors: [at('a:', good)], server: 'survival', key })
    const warnings: ServiceWarning[] = []
    const made = await backups.create(feed(DATA, 100_000), {
      stallMs: 300,
      onWarning: (warning) => warnings.push(warning as ServiceWarning),
    })
    assert.equal(made.incomplete, true)
    const [b, a] = made.destinations
    assert.deepEqual(a, { destination: 'a:', ok: true, version: (await good.stat(made.key)).version })
    assert.equal(b?.ok, false)
    assert.match(b?.error?.message ?? '', how === 'fail' ? /The plug was pulled/ : /b: took nothing for/)
    assert.deepEqual(
      warnings.map(({ kind, path }) => [kind, path]),
      [['destination', 'b:']],
    )
    assert.deepEqual(await keysOf(good), [made.key, `${made.key}.sha256`])
    assert.deepEqual(await keysOf(bad), [])
  })
}

test('a destination may take more time than a timer can wait', async () => {
  const [slow, good] = [await openMemory(), await openMemory()]
  const storage = at('b:', slow, {
    async *list(prefix, options) {
      await sleep(20)
      yield* slow.list(prefix, options)
    },
    createWriteStream(name, options) {
      const inner = slow.createWriteStream(name, options)
      return new Writable({
        write: (chunk, _encoding, callback) => void sleep(20).then(() => inner.write(chunk, callback)),
        final: (callback) => void inner.end(callback),
      })
    },
  })
  const backups = await openBackups({ storage, mirrors: [at('a:', good)], server: 'survival', key })
  const made = await backups.create(feed(DATA.subarray(0, 1000)), { stallMs: 30 * 86_400_000 })
  assert.deepEqual(
    made.destinations.map(({ ok, error }) => [ok, error]),
    [
      [true, undefined],
      [true, undefined],
    ],
  )
})

test('a process that was stopped for longer than a destination may take nothing reads what it has answered first', async () => {
  const [one, other] = [await openMemory(), await openMemory()]
  let isStopped = false
  const storage = at('b:', one, {
    createWriteStream(name, options) {
      const inner = one.createWriteStream(name, options)
      if (!name.endsWith('.mlr')) return inner
      return new Writable({
        write(chunk, _encoding, callback) {
          // An answer that comes by the system, which timers that are due go before.
          stat('/', () => inner.write(chunk, callback))
          if (isStopped) return
          isStopped = true
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_200)
        },
        final: (callback) => void inner.end(callback),
      })
    },
  })
  const backups = await openBackups({ storage, mirrors: [at('a:', other)], server: 'survival', key })
  const made = await backups.create(feed(SMALL), { stallMs: 800 })
  assert.ok(isStopped)
  assert.deepEqual(
    made.destinations.map(({ ok }) => ok),
    [true, true],
  )
})

test('T28: when no destination is left the backup fails, and says what each said', async () => {
  const stores = [await openMemory(), await openMemory()] as const
  const [storage, mirror] = stores.map((store, index) => at(`${index}:`, store, breaking(store, 'fail', 1_000_000)))
  const backups = await openBackups({ storage: storage!, mirrors: [mirror!], server: 'survival', key })
  await assert.rejects(backups.create(feed(DATA, 100_000)), (error: Error) => {
    assert.ok(hasCode('DESTINATIONS')(error), String(error))
    assert.match(error.message, /0:: The plug was pulled.*1:: The plug was pulled/)
    return true
  })
  for (const store of stores) assert.deepEqual(await keysOf(store), [])
})

test('T28: a destination that cannot be reached at all, or whose companion fails, is one that failed', async () => {
  const [good, silent, full] = [await openMemory(), await openMemory(), await openMemory()]
  const dead = at('silent:', silent, {
    list: () =>
      (async function* () {
        await new Promise(() => {})
      })(),
  })
  const noCompanion = at('full:', full, {
    createWriteStream(name, options) {
      if (name.endsWith('.sha256')) throw new StorageError('no room', { ...unavailable, code: 'QUOTA' })
      return full.createWriteStream(name, options)
    },
  })
  const backups = await openBackups({
    storage: dead,
    mirrors: [noCompanion, at('good:', good)],
    server: 'survival',
    key,
  })
  const made = await backups.create(feed(DATA, 1_000_000), { stallMs: 1000, lease: { ttlMs: 1500 } })
  const [a, b, c] = made.destinations
  assert.match(a?.error?.message ?? '', /silent: did not answer/)
  assert.equal(b?.error?.code, 'UNFINISHED')
  assert.equal(c?.ok, true)
})

test('an object that is there and cannot be looked at is said to be there, and a companion that hangs too', async () => {
  const down = new StorageError('It is down.', { ...unavailable, retryable: false })
  const refusing = { stat: () => Promise.reject(down) }
  const [unseen, hanging, good] = [await openMemory(), await openMemory(), await openMemory()]
  const late: Partial<Storage> = {
    createWriteStream(name, options) {
      return name.endsWith('.sha256') ? new Writable({ write() {} }) : hanging.createWriteStream(name, options)
    },
  }
  const storage = at('unseen:', unseen, refusing)
  const alone = await openBackups({ storage, server: 'survival', key })
  const isSaid = (error: Error) =>
    hasCode('UNFINISHED')(error) && /is stored, and .* \(It is down\.\)/.test(error.message)
  await assert.rejects(alone.create(feed(SMALL)), isSaid)
  const mirrors = [at('hanging:', hanging, late), at('good:', good)]
  const all = await openBackups({ storage, mirrors, server: 'survival', key })
  const made = await all.create(feed(SMALL), { stallMs: 1000 })
  const [a, b, c] = made.destinations
  assert.equal(a?.error?.code, 'UNFINISHED')
  assert.equal(b?.error?.code, 'UNFINISHED')
  assert.match(b?.error?.message ?? '', /is stored, and .* \(hanging: did not answer for 3 seconds/)
  assert.equal(c?.ok, true)
})

test('a companion, and the look before it, that a store refuses as often as it does while it starts anew, are tried again', async (t) => {
  // No wait between them.
  t.mock.method(Math, 'random', () => 0)
  const memory = await openMemory()
  const failed: string[] = []
  const times = new Map<string, number>()
  const atFirst = (name: string) => {
    const count = (times.get(name) ?? 0) + 1
    times.set(name, count)
    if (count > 20) return
    if (count === 1) failed.push(name)
    throw new StorageError('Nobody answered.', unavailable)
  }
  const storage = at('once:', memory, {
    async stat(name, options) {
      if (name.endsWith('.mlr')) atFirst(name)
      return memory.stat(name, options)
    },
    createWriteStream(name, options) {
      if (name.endsWith('.sha256')) atFirst(name)
      return memory.createWriteStream(name, options)
    },
  })
  const backups = await openBackups({ storage, server: 'survival', key })
  const made = await backups.create(feed(SMALL))
  assert.deepEqual(failed, [made.key, `${made.key}.sha256`])
  assert.deepEqual(await keysOf(memory), failed)
})

test('an abort when the object is stored at all of them says both', async () => {
  const stop = new AbortController()
  const stores = [await openMemory(), await openMemory()].map((store, index) =>
    at(`${index}:`, store, {
      stat(name, options) {
        stop.abort()
        return store.stat(name, options)
      },
    }),
  ) as [Storage, Storage]
  const backups = await openBackups({ storage: stores[0], mirrors: [stores[1]], server: 'survival', key })
  await assert.rejects(backups.create(feed(SMALL), { lease: false, signal: stop.signal }), (error: Error) => {
    assert.match(error.message, /0:: The object .* is stored, and .*1:: The object .* is stored, and /)
    assert.equal((error.cause as Error).name, 'AbortError')
    return true
  })
})

test('a source that fails fails the backup at every destination', async () => {
  const stores = [await openMemory(), await openMemory()]
  const backups = await openBackups({ storage: stores[0]!, mirrors: [stores[1]!], server: 'survival', key })
  const command = ['sh', '-c', 'head -c 3000000 /dev/urandom; exit 3'] as const
  await assert.rejects(backups.create({ command }), hasCode('SOURCE'))
  for (const store of stores) assert.deepEqual(await keysOf(store), [])
  const twice = await openBackups({ storage: stores[0]!, mirrors: [stores[0]!], server: 'survival', key })
  await assert.rejects(twice.create(feed(DATA)), hasCode('USAGE'))
})

test('T28: what reads falls back to the next store, and says so', async (t) => {
  const [first, second] = [await openMemory(), await openMemory()]
  const both = await openBackups({ storage: first, mirrors: [second], server: 'survival', key })
  const made = await both.create(feed(DATA, 1_000_000))
  const folder = await scratch(t)
  const damaged = at('first:', first, {
    readRange: async (name, offset, length, options) => {
      const bytes = await first.readRange(name, offset, length, options)
      if (name.endsWith('.mlr') && offset > 100) bytes[0]! ^= 1
      return bytes
    },
  })
  const down = at('first:', first, {
    list() {
      throw new StorageError('It is down.', unavailable)
    },
  })
  const lost = at('first:', await openMemory())
  for (const [name, storage] of Object.entries({ damaged, down, lost })) {
    const fallbacks: Fallback[] = []
    const onFallback = (fallback: Fallback) => fallbacks.push(fallback)
    const backups = await openBackups({ storage, mirrors: [second], server: 'survival', key, onFallback })
    const restored = await backups.restore('latest', join(folder, name))
    assert.equal(restored.verified, true)
    assert.deepEqual(await readFile(join(folder, name)), DATA)
    assert.deepEqual(
      fallbacks.map(({ destination }) => destination),
      ['first:'],
      name,
    )
    assert.equal((await backups.verify(made.id)).status, 'ok')
    assert.equal(fallbacks.length, 2)
    const read = Buffer.concat(await Array.fromAsync(await backups.read('latest', undefined)))
    assert.deepEqual(read, DATA)
    assert.equal((await backups.list()).length, 1)
  }
  const none = await openBackups({ storage: damaged, mirrors: [lost], server: 'survival', key })
  await assert.rejects(none.restore('latest', join(folder, 'none')))
  assert.equal((await none.verify(made.id)).status, 'damaged')
})

test('what a snapshot says of itself is known of each store that took it', async (t) => {
  const stateFolder = await scratch(t)
  const stores = ['a:', 'b:', 'c:']
  const [a, b, c] = await Promise.all(stores.map(async (location) => at(location, await openMemory())))
  const broken = at('b:', b as Storage, breaking(b as Storage, 'fail', 100))
  const mirrors = [broken, c as Storage]
  const backups = await openBackups({ storage: a as Storage, mirrors, server: 'survival', key, stateFolder })
  const made = await backups.create(feed(DATA, 1_000_000))
  for (const storage of [a, c] as Storage[]) {
    const alone = await openBackups({ storage, server: 'survival', key, stateFolder })
    assert.deepEqual(
      (await alone.describe()).map(({ id, known }) => [id, known?.bytes]),
      [[made.id, DATA.length]],
    )
  }
  assert.equal(made.version, (await (a as Storage).stat(made.key)).version)
  assert.deepEqual(
    made.destinations.map(({ ok }) => ok),
    [true, false, true],
  )
})

test('a verification tells of each copy that it looked at', async () => {
  const [first, second] = [await openMemory(), await openMemory()]
  const both = await openBackups({ storage: first, mirrors: [second], server: 'survival', key })
  const made = await both.create(feed(DATA, 1_000_000))
  await first.delete(`${made.key}.sha256`)
  const seen: [Storage, string][] = []
  const onCopy = (storage: Storage, snapshot: { id: string }, { status }: { status: string }) => {
    assert.equal(snapshot.id, made.id)
    seen.push([storage, status])
  }
  await second.delete(`${made.key}.sha256`)
  assert.equal((await both.verify(made.id, { onCopy })).status, 'unverified')
  assert.deepEqual(seen, [
    [first, 'unverified'],
    [second, 'unverified'],
  ])
})

test('a copy that a prune is removing is passed over for another store’s', async (t) => {
  const [first, second] = [await openMemory(), await openMemory()]
  const fallbacks: Fallback[] = []
  const onFallback = (fallback: Fallback) => fallbacks.push(fallback)
  const both = await openBackups({ storage: first, mirrors: [second], server: 'survival', key, onFallback })
  const made = await both.create(feed(DATA, 1_000_000))
  const marks = await markRemoval(first, 'survival', [made.id])
  const target = join(await scratch(t), 'out')
  assert.equal((await both.restore('latest', target)).id, made.id)
  assert.match(fallbacks.map(({ reason }) => reason).join(), /being removed/)
  for (const mark of marks) await mark.release()
})

/** Its object breaks off after some bytes that were read of it, by a stream or by ranges. */
function breakingOff(location: string, storage: Storage, bytes: number): Storage {
  let left = bytes
  return at(location, storage, {
    async readRange(name, offset, length, options) {
      left -= length
      if (left < 0) throw new StorageError(`${location} broke off.`, unavailable)
      return storage.readRange(name, offset, length, options)
    },
    createReadStream(name, options) {
      const read = storage.createReadStream(name, options)
      if (!name.endsWith('.mlr')) return read
      const cut = new Transform({
        transform(chunk: Buffer, _encoding, callback) {
          left -= chunk.length
          if (left < 0) callback(new StorageError(`${location} broke off.`, unavailable))
          else callback(null, chunk)
        },
      })
      return read.pipe(cut)
    },
  })
}

test('what a restore leaves is told when the last store has failed too, and is there', async (t) => {
  const [first, second] = [await openMemory(), await openMemory()]
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  for (let at = 0; at < 8; at++) await writeFile(join(folder, 'world', `${at}`), seededBytes(2_000_000, at))
  const both = await openBackups({ storage: first, mirrors: [second], server: 'survival', key })
  await both.create(join(folder, 'world'), { zstdFrameBytes: 64 * 1024 })
  const ends = { early: 1000, middle: 500_000, late: 4_000_000, never: Number.POSITIVE_INFINITY }
  for (const [name, bytes] of Object.entries(ends)) {
    const stores = [breakingOff('first:', first, 13_000_000), breakingOff('second:', second, bytes)] as const
    const backups = await openBackups({ storage: stores[0], mirrors: [stores[1]], server: 'survival', key })
    const kept: string[] = []
    const options = { checkpointBytes: 500_000, onKept: (path: string) => kept.push(path) }
    const error = await backups.restore('latest', join(folder, name), options).then(
      () => undefined,
      (error: Error) => error.message,
    )
    assert.equal(error, name === 'never' ? undefined : 'second: broke off.')
    assert.equal(kept.length, name === 'never' ? 0 : 1, name)
    assert.ok(kept.every((path) => existsSync(path)))
    if (name !== 'never') {
      const { resumed } = await both.restore('latest', join(folder, name))
      assert.equal(resumed, true, name)
    }
    for (let at = 0; at < 8; at++) {
      assert.deepEqual(await readFile(join(folder, name, `${at}`)), Buffer.from(seededBytes(2_000_000, at)))
    }
  }
})

test('latest is the newest snapshot of all stores', async (t) => {
  const [first, second] = [await openMemory(), await openMemory()]
  await (await openBackups({ storage: first, server: 'survival', key })).create(feed(sample(1000, 1)))
  await new Promise((resolve) => setTimeout(resolve, 5))
  const newer = await (await openBackups({ storage: second, server: 'survival', key })).create(feed(sample(1000, 2)))
  const both = await openBackups({ storage: first, mirrors: [second], server: 'survival', key })
  assert.equal((await both.restore('latest', join(await scratch(t), 'out'))).id, newer.id)
})

test('T22: a lease that is held at one destination refuses the backup, and one that is lost aborts it', async () => {
  const [first, second] = [await openMemory(), await openMemory()]
  const both = await openBackups({ storage: first, mirrors: [second], server: 'survival', key })
  const alone = await openBackups({ storage: second, server: 'survival', key })
  let hold = () => {}
  const held = new Promise<void>((resolve) => (hold = resolve))
  let opened = () => {}
  const isOpen = new Promise<void>((resolve) => (opened = resolve))
  async function* slow() {
    yield sample(1000)
    opened()
    await held
  }
  const running = alone.create(Readable.from(slow(), { objectMode: false }), { lease: { ttlMs: 2000 } })
  await isOpen
  await assert.rejects(both.create(feed(DATA)), hasCode('LEASE_HELD'))
  // Somebody takes it away: the run must not commit.
  for (const name of await keysOf(second)) await second.delete(name)
  setTimeout(hold, 50)
  await assert.rejects(running, hasCode('LEASE_LOST'))
  assert.deepEqual(await keysOf(second), [])
  assert.deepEqual(await keysOf(first), [])
})

test('limits longer than a timer can wait are as good as none', async (t) => {
  const folder = await scratch(t)
  const [storage, mirror] = [`file://${folder}/a`, `file://${folder}/b`]
  const backups = await openBackups({ storage, mirrors: [mirror], server: 'survival', key })
  t.after(() => backups.close())
  const month = 30 * 86_400_000
  const limits: [string, CreateOptions][] = [
    ['of a store that takes nothing', { stallMs: month }],
    ['of another run', { lease: { waitMs: month } }],
    ['of a hook', { hooks: { before: 'sleep 0.2', timeoutMs: month } }],
  ]
  for (const [what, one] of limits) {
    await t.test(what, async () => {
      const warnings: unknown[] = []
      const source = feed(DATA.subarray(0, 2_000_000), 100_000)
      const made = await backups.create(source, { ...one, onWarning: (warning) => warnings.push(warning) })
      assert.deepEqual(
        made.destinations.map(({ ok }) => ok),
        [true, true],
      )
      assert.deepEqual(warnings, [])
    })
  }
})
