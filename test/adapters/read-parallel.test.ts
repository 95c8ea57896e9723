import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { withBandwidth, withObserver, withPrefix, withRetry } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import {
  type ParallelReadOptions,
  READ_CONNECTIONS,
  READ_RANGE_BYTES,
  READ_RING_BYTES,
  readParallel,
} from '../../adapters/read-parallel.ts'
import type { ObjectStat, ReadOptions, Storage } from '../../adapters/storage.ts'
import { failure } from '../support/scripted-store.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'
import { type Habits, type Wire, wireOver } from '../support/wire.ts'

const KEY = 'a/b'

async function put(storage: Storage, bytes: Buffer): Promise<void> {
  const stream = storage.createWriteStream(KEY)
  stream.end(bytes)
  await finished(stream)
}

async function wireWith(bytes: Buffer, habits: Habits = {}): Promise<Wire> {
  const memory = await openMemory()
  await put(memory, bytes)
  return wireOver(memory, habits)
}

async function* endless(): AsyncGenerator<Buffer> {
  for (;;) {
    await delay(0)
    yield Buffer.alloc(300)
  }
}

/** Reads with a pause after each chunk. */
async function sip(stream: Readable, ms: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    await delay(ms)
  }
  return Buffer.concat(chunks)
}

const shape = fc.record({
  size: fc.integer({ min: 0, max: 6000 }),
  start: fc.option(fc.integer({ min: 0, max: 6500 }), { nil: undefined }),
  length: fc.option(fc.integer({ min: 1, max: 6500 }), { nil: undefined }),
  connections: fc.integer({ min: 1, max: 6 }),
  rangeBytes: fc.integer({ min: 50, max: 3000 }),
  chunkBytes: fc.integer({ min: 1, max: 900 }),
  grow: fc.boolean(),
  latency: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 5 }),
})
type Shape = typeof shape extends fc.Arbitrary<infer T> ? T : never

function rangeOf({ start, length }: Shape): ReadOptions {
  const range: ReadOptions = {}
  if (start !== undefined) range.start = start
  if (length !== undefined) range.end = (start ?? 0) + length - 1
  return range
}

function latencyOf({ latency, rangeBytes }: Shape): Habits['latencyMs'] {
  return (start) => latency[Math.floor(start / rangeBytes) % latency.length]!
}

describe('readParallel', () => {
  it('gives what a plain read gives: any size, range, number of connections, and any order of arrival', async () => {
    await fc.assert(
      fc.asyncProperty(shape, fc.boolean(), async (drawn, slow) => {
        const bytes = sample(drawn.size)
        const { connections, rangeBytes, chunkBytes, grow } = drawn
        const wire = await wireWith(bytes, { chunkBytes, latencyMs: latencyOf(drawn)! })
        const range = rangeOf(drawn)
        const stream = readParallel(wire.storage, KEY, { ...range, connections, rangeBytes, grow })
        const read = slow ? await sip(stream, 1) : await buffer(stream)
        assert.ok(read.equals(bytes.subarray(range.start ?? 0, (range.end ?? bytes.length) + 1)))
        assert.ok(wire.maxOpen <= connections)
        assert.ok(wire.stats <= 1)
      }),
      { numRuns: 250 },
    )
  })

  it('works over memory, a folder and every layer', async () => {
    const root = await mkdtemp(join(tmpdir(), 'millrace-parallel-'))
    try {
      const bytes = sample(700_000)
      for (const storage of [
        await openMemory(),
        await openFilesystem({ root }),
        withPrefix(await openMemory(), 'deep/er/'),
        withRetry(await openMemory()),
        withObserver(await openMemory(), () => {}),
        withBandwidth(await openMemory(), { readBytesPerSecond: 2 ** 30 }),
      ]) {
        await put(storage, bytes)
        assert.ok((await buffer(readParallel(storage, KEY, { rangeBytes: 50_000 }))).equals(bytes))
        assert.ok((await buffer(readParallel(storage, KEY, { start: 7 }))).equals(bytes.subarray(7)))
        await assert.rejects(buffer(readParallel(storage, 'absent')), { code: 'NOT_FOUND' })
        assert.throws(() => readParallel(storage, 'a//b'), { code: 'INVALID' })
      }
    } finally {
      await rm(root, { recursive: true })
    }
  })

  it('has several requests on their way at once, and never more than asked for', async () => {
    for (const connections of [2, 4, 7]) {
      const wire = await wireWith(sample(20_000), { latencyMs: () => 5 })
      await buffer(readParallel(wire.storage, KEY, { connections, rangeBytes: 1000 }))
      assert.equal(wire.maxOpen, connections)
      assert.equal(wire.requests.length, 20)
    }
  })

  it('grows to several requests where the reader waits for the store, and stays at one where it does not', async () => {
    // Ranges well above what a stream holds by itself: below that, a reader always waits.
    const options = { connections: 4, rangeBytes: 1_000_000, grow: true }
    const bytes = sample(20_000_000)
    const slow = await wireWith(bytes, { chunkBytes: 100_000 })
    const line = withBandwidth(slow.storage, { readBytesPerSecond: 16_000_000 })
    assert.ok((await buffer(readParallel(line, KEY, options))).equals(bytes))
    assert.equal(slow.maxOpen, 4)
    const [first, second] = slow.requests
    // One request for all of it, ended early: the next one begins where it was cut.
    assert.equal(first?.end, bytes.length - 1)
    assert.ok(second?.start !== undefined && second.start > 2_000_000 && second.start < 15_000_000, `${second?.start}`)
    const quick = await wireWith(bytes, { chunkBytes: 100_000 })
    assert.ok((await sip(readParallel(quick.storage, KEY, options), 20)).equals(bytes))
    assert.equal(quick.maxOpen, 1)
    assert.equal(quick.requests.length, 1)
  })

  it('asks once for what fits a range, and for nothing before it is read', async () => {
    const wire = await wireWith(sample(5000))
    const idle = readParallel(wire.storage, KEY, { rangeBytes: 1000 })
    await delay(5)
    assert.deepEqual([wire.requests.length, wire.stats], [0, 0])
    idle.destroy()
    await once(idle, 'close')
    await buffer(readParallel(wire.storage, KEY))
    assert.deepEqual([wire.requests.length, wire.stats], [1, 1])
    await buffer(readParallel(wire.storage, KEY, { start: 100, end: 1099, rangeBytes: 1000 }))
    assert.deepEqual([wire.requests.length, wire.stats], [2, 1])
    const { version, size } = await wire.storage.stat(KEY)
    assert.equal((await buffer(readParallel(wire.storage, KEY, { version: version!, size }))).length, 5000)
    assert.deepEqual([wire.requests.length, wire.stats], [3, 2])
  })

  it('fetches no more than its ring ahead of a reader that does not read', async () => {
    assert.equal(READ_RING_BYTES, READ_CONNECTIONS * READ_RANGE_BYTES)
    const [rangeBytes, connections] = [100_000, 4]
    const wire = await wireWith(sample(4_000_000), { chunkBytes: 10_000 })
    const stream = readParallel(wire.storage, KEY, { rangeBytes, connections })
    const iterator = stream[Symbol.asyncIterator]()
    let given = 0
    for (let step = 0; step < 6; step++) {
      given += (await iterator.next()).value.length
      await delay(30)
      // Beside the ring: what the streams above and beneath hold by themselves.
      const ahead = wire.bytes - given - stream.readableLength
      assert.ok(ahead <= connections * (rangeBytes + 2 * 10_000), `${ahead} bytes ahead`)
    }
    const close = new Promise((resolve) => stream.once('close', resolve))
    await iterator.return?.()
    await close
    assert.equal(wire.open, 0)
  })

  it('one stream waits for its reader as well', async () => {
    for (const options of [{ connections: 1 }, { end: 3_999_999, rangeBytes: 4_000_000 }]) {
      const wire = await wireWith(sample(4_000_000), { chunkBytes: 10_000 })
      const stream = readParallel(wire.storage, KEY, options)
      await once(stream, 'readable')
      await delay(30)
      assert.ok(wire.bytes < 400_000, `${wire.bytes} bytes ahead`)
      assert.equal((await buffer(stream)).length, 4_000_000)
    }
  })

  it('uses its buffers again', async (context) => {
    // Larger than any piece that is given out, so that only the ring's buffers have this size.
    const [rangeBytes, connections] = [300_001, 3]
    const wire = await wireWith(sample(6_000_000), {
      chunkBytes: 50_000,
      latencyMs: (start) => (start / rangeBytes) % 3,
    })
    const allocate = context.mock.method(Buffer, 'allocUnsafeSlow')
    await sip(readParallel(wire.storage, KEY, { rangeBytes, connections }), 0)
    const buffers = allocate.mock.calls.filter((call) => call.arguments[0] === rangeBytes).length
    assert.equal(wire.requests.length, 20)
    assert.ok(buffers >= 1 && buffers <= connections, `${buffers} buffers`)
  })

  it('gives bytes that are the reader’s own', async () => {
    const bytes = sample(100_000)
    const wire = await wireWith(bytes, { chunkBytes: 5000, latencyMs: (start) => (start === 0 ? 10 : 0) })
    const chunks: Buffer[] = []
    for await (const chunk of readParallel(wire.storage, KEY, { rangeBytes: 10_000 }) as AsyncIterable<Buffer>) {
      chunks.push(Buffer.from(chunk))
      chunk.fill(0)
    }
    assert.ok(Buffer.concat(chunks).equals(bytes))
  })

  it('destroy at any moment takes every request along before close', async () => {
    await fc.assert(
      fc.asyncProperty(shape, fc.nat(12), fc.boolean(), async (drawn, steps, byError) => {
        const { connections, rangeBytes, chunkBytes, grow } = drawn
        const wire = await wireWith(sample(drawn.size), { chunkBytes, latencyMs: latencyOf(drawn)! })
        const stream = readParallel(wire.storage, KEY, { connections, rangeBytes, grow })
        const failed = byError ? new Error('enough') : undefined
        const errors: Error[] = []
        stream.on('error', (error) => errors.push(error))
        const close = new Promise((resolve) => stream.once('close', resolve))
        stream.resume()
        for (let step = 0; step < steps; step++) await new Promise((resolve) => setImmediate(resolve))
        const had = stream.readableEnded
        stream.destroy(failed)
        await close
        assert.equal(wire.open, 0)
        assert.deepEqual(errors, failed && !had ? [failed] : [])
      }),
      { numRuns: 150 },
    )
  })

  it('a range that fails ends the read with its error, wherever it is, and no wrong byte is given', async () => {
    await fc.assert(
      fc.asyncProperty(shape, fc.nat(20), async (drawn, at) => {
        const { connections, rangeBytes, chunkBytes, size } = drawn
        const error = failure('ACCESS_DENIED', 'read')
        const fail = (start: number) => (start === at * rangeBytes ? error : undefined)
        const bytes = sample(size)
        const wire = await wireWith(bytes, { chunkBytes, latencyMs: latencyOf(drawn)!, fail })
        const given: Buffer[] = []
        const read = async () => {
          const stream = readParallel(wire.storage, KEY, { connections, rangeBytes })
          for await (const chunk of stream as AsyncIterable<Buffer>) given.push(chunk)
        }
        if (at * rangeBytes < size && (at === 0 || connections > 1)) await assert.rejects(read(), error)
        else await read()
        const whole = Buffer.concat(given)
        assert.ok(whole.equals(bytes.subarray(0, whole.length)))
        assert.equal(wire.open, 0)
      }),
      { numRuns: 150 },
    )
  })

  it('fails fast: what befalls a range ahead is not held back until the reader comes to it', async () => {
    const error = failure('NOT_FOUND', 'read')
    const wire = await wireWith(sample(10_000), { fail: (start) => (start === 2000 ? error : undefined) })
    const stalled = new Readable({ read() {} })
    const storage = overriding(wire.storage, {
      createReadStream: (key, options = {}) =>
        options.start === 0 ? stalled : wire.storage.createReadStream(key, options),
    })
    await assert.rejects(buffer(readParallel(storage, KEY, { rangeBytes: 1000 })), error)
    assert.ok(stalled.destroyed)
  })

  it('a range that ends early, brings too much, or closes without a word is an error', async () => {
    const bytes = sample(5000)
    const memory = await openMemory()
    await put(memory, bytes)
    const bodies: [Readable, string][] = [
      [Readable.from([bytes.subarray(0, 999)]), 'CORRUPT'],
      [Readable.from([bytes.subarray(0, 1001)]), 'CORRUPT'],
      [Readable.from(endless()), 'CORRUPT'],
      [
        new Readable({
          read() {
            this.destroy()
          },
        }),
        'UNAVAILABLE',
      ],
    ]
    for (const [body, code] of bodies) {
      const storage = overriding(memory, {
        createReadStream: (key, options = {}) =>
          options.start === 2000 ? body : memory.createReadStream(key, options),
      })
      const given: Buffer[] = []
      const read = async () => {
        const stream = readParallel(storage, KEY, { rangeBytes: 1000 })
        for await (const chunk of stream as AsyncIterable<Buffer>) given.push(chunk)
      }
      await assert.rejects(read(), { code })
      assert.ok(Buffer.concat(given).length <= 3000)
    }
  })

  it('T14: every range is of one version, and an object replaced meanwhile is CONFLICT', async () => {
    const wire = await wireWith(sample(10_000), { latencyMs: () => 1 })
    const { version } = await wire.storage.stat(KEY)
    const stream = readParallel(wire.storage, KEY, { rangeBytes: 1000 })
    stream.once('data', () => wire.storage.createWriteStream(KEY).end(sample(10_000, 2)))
    await assert.rejects(buffer(stream), { code: 'CONFLICT' })
    assert.ok(wire.requests.length > 1)
    assert.ok(wire.requests.every((request) => request.version === version))
    for (const options of [{ rangeBytes: 1000 }, {}, { connections: 1 }, { end: 10 }]) {
      const pinned = readParallel(wire.storage, KEY, { ...options, version: version! })
      await assert.rejects(buffer(pinned), { code: 'CONFLICT' })
    }
  })

  it('T13: a range that drops is resumed by the storage beneath', async () => {
    const bytes = sample(10_000)
    let drops = 0
    const wire = await wireWith(bytes, {
      fail: (start) => (start % 1000 === 0 && drops++ % 2 === 0 ? failure('UNAVAILABLE', 'read') : undefined),
    })
    const storage = withRetry(wire.storage, { attempts: 5, baseMs: 1, capMs: 1, deadlineMs: 60_000 })
    assert.ok((await buffer(readParallel(storage, KEY, { rangeBytes: 1000 }))).equals(bytes))
    assert.ok(drops > 10)
  })

  it('is one stream where the store gives no version', async () => {
    const bytes = sample(10_000)
    const wire = await wireWith(bytes)
    const storage = overriding(wire.storage, {
      stat: async (key) => ({ ...(await wire.storage.stat(key)), version: undefined }) as unknown as ObjectStat,
    })
    assert.ok((await buffer(readParallel(storage, KEY, { rangeBytes: 1000 }))).equals(bytes))
    assert.equal(wire.requests.length, 1)
  })

  it('all its ranges together keep to a limit of bandwidth', async () => {
    const memory = await openMemory()
    await put(memory, sample(100_000))
    let now = 0
    const clock = {
      now: () => now,
      async sleep(ms: number) {
        now += ms
      },
    }
    const storage = withBandwidth(memory, { readBytesPerSecond: 10_000, clock })
    await buffer(readParallel(storage, KEY, { rangeBytes: 10_000 }))
    // A quarter of a second's worth goes at once.
    assert.ok(now >= 9_700 && now <= 10_500, `${now} ms`)
  })

  it('a signal aborts it: before, at the start, in the middle', async () => {
    const wire = await wireWith(sample(10_000), { latencyMs: () => 1 })
    const read = (signal: AbortSignal) => readParallel(wire.storage, KEY, { rangeBytes: 1000, signal })
    await assert.rejects(buffer(read(AbortSignal.abort())), { name: 'AbortError' })
    for (const ms of [0, 1, 3]) {
      const controller = new AbortController()
      const stream = read(controller.signal)
      setTimeout(() => controller.abort(), ms)
      await assert.rejects(sip(stream, 1), { name: 'AbortError' })
      if (!stream.closed) await once(stream, 'close')
      assert.equal(wire.open, 0)
    }
  })

  it('refuses numbers of connections and bytes that are none', async () => {
    const memory = await openMemory()
    const bad: ParallelReadOptions[] = [
      { connections: 0 },
      { connections: 1.5 },
      { rangeBytes: 0 },
      { rangeBytes: Number.NaN },
      { start: 5, end: 4 },
    ]
    for (const options of bad) assert.throws(() => readParallel(memory, KEY, options), { code: 'INVALID' })
  })
})
