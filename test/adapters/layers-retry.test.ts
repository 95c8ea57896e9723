import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { beforeEach, describe, it } from 'node:test'
import { withRetry } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import { CALL_RETRY, systemClock } from '../../adapters/retry.ts'
import type { ObjectStat, ReadOptions, Storage } from '../../adapters/storage.ts'
import { failure, fakeClock } from '../support/scripted-store.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'

const BYTES = sample(300_000)

let memory: Storage
/** What the next calls of a method fail with, in place of their work. */
let faults: Error[]
let calls: string[]
let clock: ReturnType<typeof fakeClock>

function flaky(): Storage {
  const wrap =
    <A extends unknown[], R>(name: string, work: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      calls.push(name)
      const fault = faults.shift()
      if (fault) throw fault
      return work(...args)
    }
  return overriding(memory, {
    stat: wrap('stat', memory.stat.bind(memory)),
    delete: wrap('delete', memory.delete.bind(memory)),
    readRange: wrap('readRange', memory.readRange.bind(memory)),
  })
}

/** A store whose read streams break off: each of `breaks` ends one of them after so many bytes, with an error. */
function breaking(breaks: { after: number; error: Error | undefined }[], opened: ReadOptions[] = []): Storage {
  return overriding(memory, {
    createReadStream(key, options = {}) {
      opened.push(options)
      const fault = breaks.shift()
      if (!fault) return memory.createReadStream(key, options)
      const { start = 0 } = options
      const stream = new Readable({
        read() {
          if (fault.after > 0) {
            this.push(BYTES.subarray(start, start + fault.after))
            fault.after = 0
          } else setTimeout(() => this.destroy(fault.error), 10)
        },
      })
      return stream
    },
  })
}

beforeEach(async () => {
  memory = await openMemory()
  faults = []
  calls = []
  clock = fakeClock(0.5)
  const stream = memory.createWriteStream('a/b')
  stream.end(BYTES)
  await finished(stream)
})

describe('withRetry', () => {
  it('calls stat, delete and readRange again, with growing waits', async () => {
    const storage = withRetry(flaky(), CALL_RETRY, clock)
    faults = [failure('UNAVAILABLE', 'test'), failure('UNAVAILABLE', 'test')]
    assert.equal((await storage.stat('a/b')).size, BYTES.length)
    assert.deepEqual(clock.waits, [100, 200])
    faults = [failure('UNAVAILABLE', 'test')]
    assert.ok((await storage.readRange('a/b', 10, 20)).equals(BYTES.subarray(10, 30)))
    faults = [failure('UNAVAILABLE', 'test')]
    await storage.delete('a/b')
    await assert.rejects(memory.stat('a/b'), { code: 'NOT_FOUND' })
    assert.deepEqual(calls, ['stat', 'stat', 'stat', 'readRange', 'readRange', 'delete', 'delete'])
  })

  it('waits as long as the store asks', async () => {
    const storage = withRetry(flaky(), CALL_RETRY, clock)
    faults = [failure('RATE_LIMITED', 'test', true, 45_000)]
    await storage.stat('a/b')
    assert.deepEqual(clock.waits, [45_000])
  })

  it('gives up after the attempts of the policy, and at once on what will not mend', async () => {
    const storage = withRetry(flaky(), { ...CALL_RETRY, attempts: 3 }, clock)
    faults = Array.from({ length: 9 }, () => failure('UNAVAILABLE', 'test'))
    await assert.rejects(storage.stat('a/b'), { code: 'UNAVAILABLE' })
    assert.equal(calls.length, 3)
    for (const fault of [failure('ACCESS_DENIED', 'test'), failure('UNAVAILABLE', 'test', false), new Error('bug')]) {
      calls = []
      faults = [fault]
      await assert.rejects(storage.delete('a/b'), fault)
      assert.equal(calls.length, 1)
    }
  })

  it('an abort ends the wait at once, and no attempt follows', async () => {
    const controller = new AbortController()
    const storage = withRetry(flaky(), CALL_RETRY, {
      ...systemClock,
      sleep: (ms, signal) => {
        setImmediate(() => controller.abort())
        return systemClock.sleep(ms, signal)
      },
    })
    faults = [failure('RATE_LIMITED', 'test', true, 100_000)]
    await assert.rejects(storage.stat('a/b', { signal: controller.signal }), { name: 'AbortError' })
    assert.equal(calls.length, 1)
  })

  it('begins a listing again while it has given nothing, and not after', async () => {
    let listings = 0
    let returned = 0
    const failures = [0, 0, 1]
    const flakyList = overriding(memory, {
      async *list(): AsyncGenerator<ObjectStat> {
        const failAt = failures[listings++]
        try {
          for (let index = 0; index < 3; index++) {
            if (index === failAt) throw failure('UNAVAILABLE', 'list')
            yield { key: `k${index}`, size: 1, modified: new Date(0) }
          }
        } finally {
          returned++
        }
      },
    })
    const storage = withRetry(flakyList, CALL_RETRY, clock)
    const keys: string[] = []
    const read = async () => {
      for await (const { key } of storage.list('')) keys.push(key)
    }
    await assert.rejects(read(), { code: 'UNAVAILABLE' })
    assert.deepEqual(keys, ['k0'])
    assert.equal(listings, 3)
    await read()
    assert.deepEqual(keys, ['k0', 'k0', 'k1', 'k2'])
    for await (const _ of storage.list('')) break
    assert.equal(returned, listings, 'a listing that was left is still open')
  })

  it('a read goes on from the byte it has come to, with the version pinned', async () => {
    const opened: ReadOptions[] = []
    const error = failure('UNAVAILABLE', 'read')
    const inner = breaking(
      [
        { after: 0, error },
        { after: 1000, error },
        { after: 70_000, error: undefined },
        { after: 0, error: undefined },
      ],
      opened,
    )
    const storage = withRetry(inner, CALL_RETRY, clock)
    assert.ok((await buffer(storage.createReadStream('a/b', { start: 5 }))).equals(BYTES.subarray(5)))
    assert.deepEqual(
      opened.map(({ start }) => start),
      [5, 5, 1005, 71_005, 71_005],
    )
    const { version } = await memory.stat('a/b')
    assert.ok(opened.every((options) => options.version === version))
  })

  it('a read that was replaced half-way is CONFLICT, never two versions in one', async () => {
    const inner = breaking([{ after: 1000, error: failure('UNAVAILABLE', 'read') }])
    const stream = withRetry(inner, CALL_RETRY, clock).createReadStream('a/b')
    stream.once('data', () => memory.createWriteStream('a/b').end(sample(300_000, 2)))
    await assert.rejects(buffer(stream), { code: 'CONFLICT' })
  })

  it('a read fails at once on what will not mend, at its start and half-way', async () => {
    for (const after of [0, 1000]) {
      const opened: ReadOptions[] = []
      const error = failure('CORRUPT', 'read')
      const storage = withRetry(breaking([{ after, error }], opened), CALL_RETRY, clock)
      await assert.rejects(buffer(storage.createReadStream('a/b')), error)
      assert.equal(opened.length, 1)
    }
    assert.deepEqual(clock.waits, [])
  })

  it('does not resume where the store gives no version', async () => {
    const unversioned = overriding(breaking([{ after: 1000, error: failure('UNAVAILABLE', 'read') }]), {
      stat: async (key) => ({ ...(await memory.stat(key)), version: undefined }) as unknown as ObjectStat,
    })
    const storage = withRetry(unversioned, CALL_RETRY, clock)
    await assert.rejects(buffer(storage.createReadStream('a/b')), { code: 'UNAVAILABLE', retryable: false })
    assert.ok((await buffer(storage.createReadStream('a/b'))).equals(BYTES))
  })

  it('destroy during the wait closes the stream', async () => {
    const inner = breaking([{ after: 0, error: failure('RATE_LIMITED', 'read', true, 100_000) }])
    const controller = new AbortController()
    const stream = withRetry(inner, CALL_RETRY, {
      ...systemClock,
      sleep: (ms, signal) => {
        setImmediate(() => controller.abort())
        return systemClock.sleep(ms, signal)
      },
    }).createReadStream('a/b', { signal: controller.signal })
    await assert.rejects(buffer(stream), { name: 'AbortError' })
  })

  it('T13: a stream that never brings its first byte is given up, closed and opened again', async () => {
    const mute: Readable[] = []
    const inner = overriding(memory, {
      createReadStream(key, options) {
        if (mute.length === 2) return memory.createReadStream(key, options)
        const stream = new Readable({ read() {} })
        mute.push(stream)
        return stream
      },
    })
    const policy = { ...CALL_RETRY, baseMs: 0, idleMs: 20 }
    assert.ok((await buffer(withRetry(inner, policy).createReadStream('a/b'))).equals(BYTES))
    assert.equal(mute.length, 2)
    assert.ok(mute.every((stream) => stream.closed))
  })

  it('what never answers is signalled, tried again whatever the deadline, and given up at last', async () => {
    const signals: (AbortSignal | undefined)[] = []
    const never = (options: { signal?: AbortSignal } = {}) => {
      signals.push(options.signal)
      return new Promise<never>(() => {})
    }
    const mute = overriding(memory, {
      stat: (_key, options) => never(options),
      delete: (_key, options) => never(options),
      readRange: (_key, _offset, _length, options) => never(options),
      async *list(_prefix, options) {
        yield await never(options)
      },
    })
    const storage = withRetry(mute, { attempts: 3, baseMs: 0, capMs: 0, deadlineMs: 30, callMs: 50 })
    const calls: (() => Promise<unknown>)[] = [
      () => storage.stat('a/b'),
      () => storage.delete('a/b'),
      () => storage.readRange('a/b', 0, 10),
      () => Array.fromAsync(storage.list('')),
      () => buffer(storage.createReadStream('a/b')),
    ]
    for (const call of calls) {
      signals.length = 0
      await assert.rejects(call(), { code: 'UNAVAILABLE', message: /did not answer for 50 ms/ })
      assert.equal(signals.length, 3)
      assert.ok(signals.every((signal) => signal?.aborted))
    }
  })

  it('readRange has more time for more bytes', async () => {
    const slow = overriding(memory, {
      readRange: async (key, offset, length) => {
        await systemClock.sleep(60, undefined)
        return memory.readRange(key, offset, length)
      },
    })
    const storage = withRetry(slow, { ...CALL_RETRY, attempts: 1, callMs: 1 })
    await assert.rejects(storage.readRange('a/b', 0, 10), { code: 'UNAVAILABLE' })
    assert.equal((await storage.readRange('a/b', 0, 300_000)).length, 300_000)
  })

  it('a step of a listing that never answers ends it, as objects were given already', async () => {
    let ended: AbortSignal | undefined
    let listings = 0
    const stalling = overriding(memory, {
      async *list(_prefix, options = {}): AsyncGenerator<ObjectStat> {
        listings++
        ended = options.signal
        yield { key: 'k0', size: 1, modified: new Date(0) }
        await new Promise(() => {})
      },
    })
    const keys: string[] = []
    const read = async () => {
      const storage = withRetry(stalling, { ...CALL_RETRY, callMs: 20 })
      for await (const { key } of storage.list('')) keys.push(key)
    }
    await assert.rejects(read(), { code: 'UNAVAILABLE' })
    assert.deepEqual([keys, listings, ended?.aborted], [['k0'], 1, true])
  })

  it('a signal reaches what is under way, and a call that is over keeps no hold of it', async () => {
    const controller = new AbortController()
    const heeding = overriding(memory, {
      stat: (_key, { signal } = {}) =>
        new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
    })
    const reason = Object.assign(new Error('enough'), { name: 'AbortError' })
    const storage = withRetry(heeding)
    const { signal } = controller
    const removed: unknown[] = []
    signal.removeEventListener = new Proxy(signal.removeEventListener, {
      apply: (target, self, args) => removed.push(args) && Reflect.apply(target, self, args),
    })
    const asked = assert.rejects(storage.stat('a/b', { signal }), reason)
    await storage.delete('a/c', { signal })
    assert.equal(removed.length, 1)
    controller.abort(reason)
    await asked
    assert.equal(removed.length, 2)
  })

  it('writes are not retried', async () => {
    let writes = 0
    const inner = overriding(memory, {
      createWriteStream(key, options) {
        writes++
        const stream = memory.createWriteStream(key, options)
        return stream.destroy(failure('UNAVAILABLE', 'write'))
      },
    })
    await assert.rejects(finished(withRetry(inner, CALL_RETRY, clock).createWriteStream('a/c')), {
      code: 'UNAVAILABLE',
    })
    assert.equal(writes, 1)
  })
})
