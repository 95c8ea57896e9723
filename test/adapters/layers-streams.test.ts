import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable, Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { beforeEach, describe, it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type StorageEvent, withBandwidth, withObserver } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import { abortError } from '../../adapters/retry.ts'
import type { Storage, WriteOptions } from '../../adapters/storage.ts'
import { failure } from '../support/scripted-store.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'

const BYTES = sample(300_000)

let memory: Storage
let now: number

/** Waiting takes as much of this time as was asked for, and none of any other. */
const clock = {
  now: () => now,
  async sleep(ms: number, signal: AbortSignal | undefined) {
    await turn()
    if (signal?.aborted) throw abortError(signal)
    now += ms
  },
}

async function write(storage: Storage, key: string, bytes = BYTES, options?: WriteOptions): Promise<void> {
  const stream = storage.createWriteStream(key, options)
  stream.end(bytes)
  await finished(stream)
}

/** Each wait is in whole ms, so a transfer may take some more of them. */
function assertNear(ms: number, expected: number): void {
  assert.ok(ms >= expected - 1 && ms < expected + 50, `${ms} ms instead of ${expected}`)
}

/** A store whose write streams are this one. */
function writingTo(stream: Writable): Storage {
  return overriding(memory, { createWriteStream: () => stream })
}

beforeEach(async () => {
  memory = await openMemory()
  now = 0
  await write(memory, 'a/b')
})

describe('withBandwidth', () => {
  it('holds the rate each way, less what may go at once', async () => {
    const storage = withBandwidth(memory, { readBytesPerSecond: 100_000, writeBytesPerSecond: 50_000, clock })
    await write(storage, 'a/c', BYTES)
    assertNear(now, (300_000 - 12_500) / 50)
    let begin = now
    assert.ok((await buffer(storage.createReadStream('a/c'))).equals(BYTES))
    assertNear(now - begin, (300_000 - 25_000) / 100)
    begin = now
    assert.ok((await storage.readRange('a/c', 1000, 100_000)).equals(BYTES.subarray(1000, 101_000)))
    // The stream before it has left the bucket empty.
    assertNear(now - begin, 1000)
  })

  it('streams that share it take turns, in small pieces', async () => {
    const turns: string[] = []
    const inner = overriding(memory, {
      createWriteStream: (key) =>
        new Writable({
          write(chunk: Buffer, _encoding, callback) {
            assert.ok(chunk.length <= 64 * 1024)
            turns.push(key)
            callback()
          },
        }),
    })
    const storage = withBandwidth(inner, { writeBytesPerSecond: 1_000_000, clock })
    await Promise.all(['a', 'b', 'c'].map((key) => write(storage, key, sample(1_000_000))))
    for (let at = 0; at < turns.length; at += 3) {
      assert.equal(new Set(turns.slice(at, at + 3)).size, 3, `turns ${turns.slice(at, at + 3)}`)
    }
    assert.ok(now >= 2750 && now < 2850, `${now} ms`)
  })

  it('keeps back-pressure: nothing is read that was not asked for', async () => {
    let given = 0
    const inner = overriding(memory, {
      createReadStream: () =>
        new Readable({
          highWaterMark: 65_536,
          read() {
            given += 65_536
            this.push(Buffer.alloc(65_536))
          },
        }),
    })
    const stream = withBandwidth(inner, { readBytesPerSecond: 10 ** 9, clock }).createReadStream('a/b')
    for (let index = 0; index < 20; index++) await turn()
    assert.equal(given, 0)
    stream.once('readable', () => {})
    for (let index = 0; index < 50; index++) await turn()
    assert.ok(given <= 6 * 65_536, `${given} bytes were read ahead`)
    stream.destroy()
    await once(stream, 'close')
  })

  it('tells of a chunk as it was written, once all of its pieces are consumed', async () => {
    const consumed: Buffer[] = []
    const pieces: Buffer[] = []
    let told: ((chunk: Buffer) => void) | undefined
    const inner = overriding(memory, {
      createWriteStream: (_key, options) => {
        told = options?.onConsumed
        return new Writable({
          write(chunk: Buffer, _encoding, callback) {
            pieces.push(chunk)
            callback()
          },
        })
      },
    })
    const storage = withBandwidth(inner, { writeBytesPerSecond: 10 ** 9, clock })
    const chunks = [sample(200_000), sample(10), sample(65_536)]
    const stream = storage.createWriteStream('a/c', { onConsumed: (chunk) => consumed.push(chunk) })
    for (const chunk of chunks) stream.write(chunk)
    stream.end()
    await once(stream, 'finish')
    assert.equal(pieces.length, 4 + 1 + 1)
    for (const piece of pieces.slice(0, 3)) told?.(piece)
    assert.ok(consumed.length < 1, 'told of a chunk of which a piece is left')
    for (const piece of pieces.slice(3)) told?.(piece)
    assert.ok(consumed.length === 3 && consumed.every((chunk, index) => chunk === chunks[index]))
  })

  it('a chunk may be taken away as soon as it is called consumed', async () => {
    const storage = withBandwidth(memory, { writeBytesPerSecond: 10 ** 9, clock })
    const inner = overriding(memory, {
      createWriteStream(key, options) {
        const stream = memory.createWriteStream(key)
        const write = stream._write.bind(stream)
        stream._write = (chunk: Buffer, encoding, callback) =>
          write(chunk, encoding, (error) => {
            options?.onConsumed?.(chunk)
            callback(error)
          })
        return stream
      },
    })
    for (const wrapped of [
      withBandwidth(inner, { writeBytesPerSecond: 10 ** 9, clock }),
      withObserver(inner, () => {}),
    ]) {
      const own = Buffer.from(new Uint8Array(BYTES).buffer)
      await write(wrapped, 'a/c', own, { onConsumed: (chunk) => (chunk.buffer as ArrayBuffer).transfer(0) })
      assert.equal(own.length, 0)
      assert.ok((await buffer(storage.createReadStream('a/c'))).equals(BYTES))
    }
  })

  it('destroy and abort end a wait at once, and the others go on', async () => {
    const waits: (() => void)[] = []
    const stuck = {
      now: () => now,
      sleep: (ms: number, signal: AbortSignal | undefined) =>
        new Promise<void>((resolve, reject) => {
          signal?.addEventListener('abort', () => reject(abortError(signal)))
          waits.push(() => {
            now += ms
            resolve()
          })
        }),
    }
    const storage = withBandwidth(memory, { readBytesPerSecond: 1000, writeBytesPerSecond: 1000, clock: stuck })
    const controller = new AbortController()
    const first = storage.createWriteStream('1')
    const second = storage.createWriteStream('2', { signal: controller.signal })
    for (const stream of [first, second]) stream.write(Buffer.alloc(1000))
    const aborted = assert.rejects(finished(second), { name: 'AbortError' })
    for (let index = 0; index < 5; index++) await turn()
    controller.abort()
    await aborted
    first.destroy()
    await once(first, 'close')
    assert.equal(first.errored, null)
    const third = write(storage, '3', Buffer.alloc(300))
    for (let index = 0; index < 20; index++) {
      await turn()
      waits.pop()?.()
    }
    await third
    const keys = (await Array.fromAsync(memory.list(''))).map(({ key }) => key)
    assert.deepEqual(keys, ['a/b', '3'])
    const other = new AbortController()
    setImmediate(() => other.abort())
    await assert.rejects(storage.readRange('a/b', 0, 5000, { signal: other.signal }), { name: 'AbortError' })
  })

  it('refuses what is no rate', async () => {
    for (const rate of [0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.throws(() => withBandwidth(memory, { readBytesPerSecond: rate }), { code: 'INVALID' })
      assert.throws(() => withBandwidth(memory, { writeBytesPerSecond: rate }), { code: 'INVALID' })
    }
  })
})

describe('the stream over a stream', () => {
  it('fails with what the one beneath failed with, though it was found between two writes', async () => {
    const fault = failure('QUOTA', 'putPart')
    const inner = new Writable({
      write: (_chunk, _encoding, callback) => callback(),
      destroy: (error, callback) => setTimeout(callback, 20, error),
    })
    const stream = withBandwidth(writingTo(inner), { writeBytesPerSecond: 10 ** 6, clock }).createWriteStream('a')
    stream.write('x')
    await turn()
    inner.destroy(fault)
    stream.write('y')
    await assert.rejects(finished(stream), fault)
    assert.ok(inner.closed)
  })

  it('close waits for the one beneath, and tells of a clean-up that failed', async () => {
    const fault = failure('UNAVAILABLE', 'abort')
    const inner = new Writable({ destroy: (_error, callback) => setTimeout(callback, 20, fault) })
    const stream = withObserver(writingTo(inner), () => {}).createWriteStream('a')
    stream.destroy()
    const [error] = await once(stream, 'error')
    assert.equal(error, fault)
    assert.ok(inner.closed)
  })

  it('destroy in the moment after the commit does nothing', async () => {
    const storage = withObserver(memory, () => {})
    const stream = storage.createWriteStream('a/c')
    stream.once('prefinish', () => stream.destroy(new Error('too late')))
    stream.end(BYTES)
    await finished(stream)
    assert.equal((await memory.stat('a/c')).size, BYTES.length)
  })

  it('one beneath that closes without a word is an error', async () => {
    const writes = withObserver(writingTo(new Writable().destroy()), () => {})
    await assert.rejects(finished(writes.createWriteStream('a')), { code: 'UNAVAILABLE' })
    const reads = withObserver(overriding(memory, { createReadStream: () => new Readable().destroy() }), () => {})
    await assert.rejects(buffer(reads.createReadStream('a')), { code: 'UNAVAILABLE' })
  })
})

describe('withObserver', () => {
  let events: StorageEvent[]
  let storage: Storage
  const last = () => events.at(-1)
  beforeEach(() => {
    events = []
    storage = withObserver(memory, (event) => events.push(event), { now: () => (now += 5) })
  })

  it('tells of each operation once, with its bytes', async () => {
    await write(storage, 'a/c', BYTES)
    await buffer(storage.createReadStream('a/c', { start: 100 }))
    await storage.readRange('a/c', 5, 10)
    await storage.stat('a/c')
    await Array.fromAsync(storage.list('a/'))
    await storage.delete('a/c')
    await storage.probe()
    await storage.purgeUnfinished?.(1000, { prefix: 'a/' })
    const about = { ms: 5, attempt: 1, outcome: 'ok' }
    assert.deepEqual(events, [
      { operation: 'createWriteStream', key: 'a/c', bytes: 300_000, ...about },
      { operation: 'createReadStream', key: 'a/c', bytes: 299_900, ...about },
      { operation: 'readRange', key: 'a/c', bytes: 10, ...about },
      { operation: 'stat', key: 'a/c', bytes: 0, ...about },
      { operation: 'list', key: 'a/', bytes: 0, ...about },
      { operation: 'delete', key: 'a/c', bytes: 0, ...about },
      { operation: 'probe', key: '', bytes: 0, ...about },
      { operation: 'purgeUnfinished', key: 'a/', bytes: 0, ...about },
    ])
  })

  it('tells what failed, by its code', async () => {
    await assert.rejects(storage.stat('none'))
    assert.deepEqual([last()?.outcome, last()?.code], ['error', 'NOT_FOUND'])
    await assert.rejects(buffer(storage.createReadStream('none')))
    assert.deepEqual([last()?.outcome, last()?.code], ['error', 'NOT_FOUND'])
    await assert.rejects(write(storage, 'a/b', BYTES, { ifAbsent: true }))
    assert.deepEqual([last()?.outcome, last()?.code, last()?.bytes], ['error', 'CONFLICT', 300_000])
    assert.throws(() => storage.createWriteStream('/'))
    assert.deepEqual([last()?.operation, last()?.outcome, last()?.code], ['createWriteStream', 'error', 'INVALID'])
    async function* source() {
      yield BYTES
      throw new Error('of the source')
    }
    const stream = storage.createWriteStream('x')
    await assert.rejects(pipeline(source, stream))
    if (!stream.closed) await once(stream, 'close')
    assert.deepEqual([last()?.outcome, last() && 'code' in last()!], ['error', false])
    assert.equal(events.length, 5)
  })

  it('tells what was aborted, or left before its end', async () => {
    const signal = AbortSignal.abort()
    const stream = storage.createWriteStream('a/c', { signal })
    await assert.rejects(finished(stream), { name: 'AbortError' })
    await assert.rejects(storage.readRange('a/b', 0, 1, { signal }), { name: 'AbortError' })
    await assert.rejects(storage.probe({ signal }), { name: 'AbortError' })
    for await (const _ of storage.createReadStream('a/b')) break
    await turn()
    for await (const _ of storage.list('')) break
    const left = storage.createWriteStream('a/c')
    left.destroy()
    await once(left, 'close')
    assert.deepEqual(
      events.map(({ operation, outcome }) => `${operation} ${outcome}`),
      [
        'createWriteStream aborted',
        'readRange aborted',
        'probe aborted',
        'createReadStream aborted',
        'list aborted',
        'createWriteStream aborted',
      ],
    )
  })

  it('an observer that fails does no harm', async () => {
    const faults: (() => void)[] = [
      () => {
        throw new Error('of the observer')
      },
      () => Promise.reject(new Error('of the observer')),
    ]
    for (const observer of faults) {
      const observed = withObserver(memory, observer)
      await write(observed, 'a/c', BYTES)
      assert.ok((await buffer(observed.createReadStream('a/c'))).equals(BYTES))
      assert.equal((await Array.fromAsync(observed.list('a/'))).length, 2)
      assert.equal((await observed.stat('a/c')).size, BYTES.length)
      await turn()
    }
  })
})
