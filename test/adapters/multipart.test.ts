import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { describe, it } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { type MultipartOptions, MultipartWritable } from '../../adapters/multipart.ts'
import { PART_BYTES, planParts, RING_BYTES } from '../../adapters/multipart-plan.ts'
import { failure, fakeClock, RULES, type Script, ScriptedStore, untilAborted } from '../support/scripted-store.ts'

const PART = 10

function writer(store: ScriptedStore, options: Partial<MultipartOptions> = {}) {
  const names = { adapter: 'scripted', key: 'a/key' }
  return new MultipartWritable(store, { ...names, partBytes: PART, clock: fakeClock(), ...options })
}

function noise(length: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16)).update(Buffer.alloc(length))
}

function assertNothingLeft(store: ScriptedStore): void {
  assert.equal(store.object, undefined)
  assert.equal(store.uploads.size, 0)
  assert.equal(store.inFlight, 0)
}

function closeOf(stream: MultipartWritable<number, string>): Promise<void> {
  return new Promise((resolve) => stream.on('error', () => {}).once('close', () => resolve()))
}

const MiB = 1024 * 1024

describe('multipart plan', () => {
  const rules = { ...RULES, minPartBytes: 5 * MiB, maxPartBytes: 5120 * MiB, alignBytes: MiB, concurrency: 8 }
  const s3 = { ...rules, maxObjectBytes: 5 * 1024 * 1024 * MiB }

  it('parts are 8 MiB, five in flight, where nothing asks for more', () => {
    assert.deepEqual(planParts(s3, {}), { partBytes: PART_BYTES, inFlight: 5, maxBytes: 10_000 * PART_BYTES })
    assert.equal(planParts(s3, { expectedSize: 70 * 1024 * MiB }).partBytes, 8 * MiB)
  })

  it('parts grow with the size, and their number shrinks, within the ring', () => {
    for (const gib of [80, 100, 200, 219]) {
      const { partBytes, inFlight, maxBytes } = planParts(s3, { expectedSize: gib * 1024 * MiB })
      assert.ok(partBytes % MiB === 0 && partBytes > 8 * MiB)
      assert.ok((inFlight + 1) * partBytes <= RING_BYTES)
      assert.ok(maxBytes >= gib * 1024 * MiB * 1.05)
    }
    assert.deepEqual(planParts(s3, { size: 2 * 1024 * 1024 * MiB }).inFlight, 1)
  })

  it('a rule of a protocol is held: serial, steps, no limit of parts', () => {
    assert.equal(planParts({ ...s3, concurrency: 1 }, {}).inFlight, 1)
    const stepped = planParts(
      { ...s3, alignBytes: 4 * MiB, maxParts: Number.POSITIVE_INFINITY },
      { partBytes: 9 * MiB },
    )
    assert.equal(stepped.partBytes, 12 * MiB)
    assert.equal(stepped.maxBytes, s3.maxObjectBytes)
  })
})

describe('MultipartWritable', () => {
  for (const size of [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 57]) {
    for (const chunk of [1, 3, PART, 1000]) {
      it(`T11: ${size} bytes in writes of ${chunk}`, async () => {
        const store = new ScriptedStore()
        const bytes = noise(size)
        const chunks = Array.from({ length: Math.ceil(size / chunk) }, (_, i) =>
          bytes.subarray(i * chunk, (i + 1) * chunk),
        )
        await pipeline(Readable.from(chunks), writer(store, { size }))
        assert.ok(store.object?.bytes.equals(bytes))
        assert.equal(store.uploads.size, 0)
        if (size <= PART)
          assert.deepEqual(
            store.calls.map((call) => call.step),
            ['putWhole', 'find'],
          )
        else {
          const parts = store.calls.filter((call) => call.step === 'putPart')
          assert.equal(parts.length, Math.ceil(size / PART))
          assert.deepEqual(
            parts.map((call) => call.last),
            [...parts.slice(1).map(() => false), true],
          )
          assert.ok(parts.slice(0, -1).every((call) => call.bytes === PART))
        }
      })
    }
  }

  it('T11: exactly 10,000 parts pass, one byte more is refused at once', async () => {
    const store = new ScriptedStore()
    await pipeline(Readable.from([noise(10_000 * PART)]), writer(store))
    assert.equal(store.object?.bytes.length, 10_000 * PART)
    assert.equal(store.count('putPart'), 10_000)

    const over = new ScriptedStore()
    const stream = writer(over)
    const failed = assert.rejects(finished(stream), { code: 'INVALID', message: /pass expectedSize/ })
    const close = closeOf(stream)
    stream.write(noise(10_000 * PART))
    stream.write(noise(1))
    await failed
    await close
    assertNothingLeft(over)
  })

  it('T11: a size that cannot be is refused before the first byte, an upper bound never is', () => {
    const small = new ScriptedStore({ maxObjectBytes: 500 })
    const limited = new ScriptedStore({ maxPartBytes: 20, maxParts: 3 })
    for (const make of [
      () => writer(small, { size: 501 }),
      () => writer(limited, { size: 61 }),
      () => writer(small, { size: -1 }),
      () => writer(small, { size: 1.5 }),
      () => writer(small, { expectedSize: Number.NaN }),
    ]) {
      assert.throws(make, (error) => error instanceof StorageError && error.code === 'INVALID')
    }
    writer(small, { expectedSize: 10_000_000 }).destroy()
    writer(limited, { size: 60 }).destroy()
    assert.deepEqual([...small.calls, ...limited.calls], [])
  })

  it('another count than size fails before the commit', async () => {
    for (const [size, sent] of [
      [5, 6],
      [5, 4],
      [35, 36],
      [35, 34],
      [0, 1],
      [1, 0],
    ] as const) {
      const store = new ScriptedStore()
      const stream = writer(store, { size })
      const close = closeOf(stream)
      await assert.rejects(pipeline(Readable.from([noise(sent)]), stream), { code: 'INVALID' })
      await close
      assert.equal(store.count('commit') + store.count('putWhole'), 0)
      assertNothingLeft(store)
    }
  })

  it('makes no request before the first part is full and a byte more has come', async () => {
    const store = new ScriptedStore()
    const stream = writer(store)
    stream.write(noise(PART))
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(store.calls, [])
    stream.write(noise(1))
    await new Promise((resolve) => setImmediate(resolve))
    assert.ok(store.count('begin') === 1)
    stream.end()
    await finished(stream)
  })

  it('keeps to its number of parts in flight, the last one included', async () => {
    for (const concurrency of [1, 3]) {
      const store = new ScriptedStore({ concurrency })
      await pipeline(Readable.from([noise(500)]), writer(store))
      assert.equal(store.maxInFlight, concurrency)
      assert.ok(store.object?.bytes.equals(noise(500)))
    }
  })

  it('holds the source back while all parts are in flight', async () => {
    const store = new ScriptedStore()
    const release: (() => void)[] = []
    for (let index = 0; index < 3; index++) {
      store.next('putPart', ({ work }) => new Promise<void>((resolve) => release.push(() => resolve(work()))))
    }
    const stream = writer(store)
    let taken = 0
    for (let index = 0; index < 8; index++) stream.write(noise(PART), () => taken++)
    while (release.length < 3) await new Promise((resolve) => setImmediate(resolve))
    assert.ok(taken <= 4, `${taken} writes were taken, and the ring has four buffers`)
    for (const go of release) go()
    stream.end()
    await finished(stream)
    assert.equal(store.object?.bytes.length, 80)
  })

  it('T7: a part that fails on its way is sent again, the same by hash, after what the store asked', async () => {
    const store = new ScriptedStore()
    const clock = fakeClock()
    store.next('putPart', () => Promise.reject(failure('RATE_LIMITED', 'putPart', true, 1234)), 2)
    store.next('putPart', () => Promise.reject(failure('UNAVAILABLE', 'putPart')), 2)
    await pipeline(Readable.from([noise(95)]), writer(store, { clock }))
    const tries = store.calls.filter((call) => call.part === 2)
    assert.equal(tries.length, 3)
    assert.equal(new Set(tries.map((call) => call.sha256)).size, 1)
    assert.deepEqual(clock.waits, [1234, 0.5 * 1000])
    assert.ok(store.object?.bytes.equals(noise(95)))
  })

  it('T6: a part that fails for good ends the pipeline while the source stalls', async () => {
    const store = new ScriptedStore()
    store.next('putPart', untilAborted, 1)
    store.next('putPart', () => Promise.reject(failure('ACCESS_DENIED', 'putPart')), 2)
    const source = new Readable({ read() {} })
    source.push(noise(35))
    await assert.rejects(pipeline(source, writer(store)), { code: 'ACCESS_DENIED' })
    assert.ok(source.destroyed)
    assert.equal(store.count('abort'), 1)
    assertNothingLeft(store)
  })

  it('T6: retries are counted, and end', async () => {
    const store = new ScriptedStore()
    const partRetry = { attempts: 3, baseMs: 10, capMs: 15, deadlineMs: 1000 }
    const clock = fakeClock(1)
    for (let index = 0; index < 3; index++)
      store.next('putPart', () => Promise.reject(failure('UNAVAILABLE', 'putPart')), 1)
    await assert.rejects(pipeline(Readable.from([noise(15)]), writer(store, { partRetry, clock })), {
      code: 'UNAVAILABLE',
    })
    assert.deepEqual(clock.waits, [10, 15])
    assertNothingLeft(store)
  })

  it('T9: destroy signals the parts, waits for them, then cancels, then closes', async () => {
    const store = new ScriptedStore()
    const begun = Promise.withResolvers<void>()
    const socket = Promise.withResolvers<void>()
    // As a socket does that takes a while to close: the abort alone does not settle it.
    const slow: Script = () => {
      begun.resolve()
      return socket.promise
    }
    store.next('putPart', slow, 1)
    store.next('putPart', untilAborted, 2)
    const stream = writer(store)
    const close = closeOf(stream)
    stream.write(noise(35))
    await begun.promise
    stream.destroy()
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(store.count('abort'), 0, 'cancelled while a part was in flight')
    assert.equal(stream.closed, false)
    socket.reject(new Error('cut'))
    await close
    assert.equal(store.count('abort'), 1)
    assertNothingLeft(store)
  })

  it('T9: destroy while begin is not answered waits for its answer, and cancels that', async () => {
    const store = new ScriptedStore()
    let answer: () => void = () => {}
    store.next('begin', ({ work }) => new Promise<void>((resolve) => (answer = () => resolve(work()))))
    const stream = writer(store)
    const close = closeOf(stream)
    stream.write(noise(15))
    while (store.entered === 0) await new Promise((resolve) => setImmediate(resolve))
    stream.destroy()
    await new Promise((resolve) => setTimeout(resolve, 10))
    answer()
    await close
    assert.deepEqual(
      store.calls.map((call) => call.step),
      ['begin', 'abort'],
    )
    assertNothingLeft(store)
  })

  it('T9: begin that never answers is cut off in the end, so close comes', async () => {
    const store = new ScriptedStore()
    store.next('begin', untilAborted)
    const stream = writer(store, { settleMs: 20 })
    const close = closeOf(stream)
    stream.write(noise(15))
    stream.destroy()
    await close
    assertNothingLeft(store)
  })

  it('the question after a commit that nobody answers for half a minute is asked again, and undoes nothing', async () => {
    for (const isLost of [false, true]) {
      const store = new ScriptedStore()
      const clock = fakeClock()
      if (isLost) {
        store.next('commit', ({ work }) => {
          work()
          throw failure('UNAVAILABLE', 'commit')
        })
        store.next('commit', () => Promise.reject(failure('NOT_FOUND', 'commit')))
      }
      store.next('find', async ({ signal }) => {
        await clock.sleep(30_000, signal)
        throw failure('UNAVAILABLE', 'find')
      })
      await pipeline(Readable.from([noise(35)]), writer(store, { clock }))
      assert.ok(store.object?.bytes.equals(noise(35)))
      assert.equal(store.count('remove') + store.count('abort'), 0)
    }
  })

  for (const size of [5, 35]) {
    const step = size > PART ? 'commit' : 'putWhole'

    it(`T10: the answer of ${step} is lost after success`, async () => {
      const store = new ScriptedStore()
      store.next(step, ({ work }) => {
        work()
        throw failure('UNAVAILABLE', step)
      })
      await pipeline(Readable.from([noise(size)]), writer(store))
      assert.equal(store.count(step), 2)
      assert.ok(store.object?.bytes.equals(noise(size)))
      assert.equal(store.uploads.size, 0)
      assert.equal(store.count('abort') + store.count('remove'), 0)
    })

    it(`T10: ${step} fails, and then succeeds`, async () => {
      const store = new ScriptedStore()
      store.next(step, () => Promise.reject(failure('UNAVAILABLE', step)))
      await pipeline(Readable.from([noise(size)]), writer(store))
      assert.ok(store.object?.bytes.equals(noise(size)))
      assert.equal(store.uploads.size, 0)
    })

    it(`T10: ${step} never succeeds: the error is passed on, and nothing is left`, async () => {
      const store = new ScriptedStore()
      store.object = { bytes: noise(size), owner: 'another' }
      const partRetry = { attempts: 2, baseMs: 1, capMs: 1, deadlineMs: 1000 }
      for (let i = 0; i < 2; i++) store.next(step, () => Promise.reject(failure('UNAVAILABLE', step)))
      const stream = writer(store, { partRetry, callRetry: partRetry })
      const close = closeOf(stream)
      await assert.rejects(pipeline(Readable.from([noise(size)]), stream), { code: 'UNAVAILABLE' })
      await close
      assert.equal(store.uploads.size, 0)
      assert.equal(store.object?.owner, 'another', 'the same bytes written by another were removed')
    })

    it(`T10: with ifAbsent, the refusal after a lost ${step} is about our own object`, async () => {
      const store = new ScriptedStore()
      store.next(step, ({ work }) => {
        work()
        throw failure('UNAVAILABLE', step)
      })
      store.next(step, () => Promise.reject(failure('CONFLICT', step)))
      await pipeline(Readable.from([noise(size)]), writer(store, { ifAbsent: true }))
      assert.ok(store.object?.bytes.equals(noise(size)))
    })

    it(`T10: a refusal after a lost ${step}, when nobody can tell whose object it is, is no CONFLICT`, async () => {
      const store = new ScriptedStore()
      store.next(step, ({ work }) => {
        work()
        throw failure('UNAVAILABLE', step)
      })
      store.next(step, () => Promise.reject(failure('CONFLICT', step)))
      store.next('find', () => Promise.reject(failure('UNAVAILABLE', 'find', false)))
      const stream = writer(store, { ifAbsent: true })
      const close = closeOf(stream)
      await assert.rejects(pipeline(Readable.from([noise(size)]), stream), { code: 'UNAVAILABLE', operation: step })
      await close
      assertNothingLeft(store)
    })

    it(`a refused ${step} is not retried, and nothing is left`, async () => {
      const store = new ScriptedStore()
      store.next(step, () => Promise.reject(failure('CONFLICT', step)))
      const stream = writer(store)
      const close = closeOf(stream)
      await assert.rejects(pipeline(Readable.from([noise(size)]), stream), { code: 'CONFLICT' })
      await close
      assert.equal(store.count(step), 1)
      assert.equal(store.count('find'), 0)
      assertNothingLeft(store)
    })

    it(`T31: ${step} is reported as good, and the object is absent, short, or another's`, async () => {
      for (const [lie, code] of [
        [() => {}, 'CORRUPT'],
        [(store: ScriptedStore) => (store.object = { bytes: noise(size - 1), owner: 'us' }), 'CORRUPT'],
        [(store: ScriptedStore) => (store.object = { bytes: noise(size), owner: 'another' }), 'CONFLICT'],
      ] as const) {
        const store = new ScriptedStore()
        store.next(step, () => {
          store.uploads.clear()
          lie(store)
        })
        const stream = writer(store)
        const close = closeOf(stream)
        await assert.rejects(pipeline(Readable.from([noise(size)]), stream), { code })
        await close
        assert.equal(stream.writableFinished, false)
        assert.notEqual(store.object?.owner, 'us')
      }
    })

    it(`destroy during ${step}: it may settle, and what it made is removed`, async () => {
      const store = new ScriptedStore()
      let settle: () => void = () => {}
      store.next(step, ({ work }) => new Promise<void>((resolve) => (settle = () => resolve(work()))))
      const stream = writer(store)
      const close = closeOf(stream)
      stream.end(noise(size))
      while (store.entered === 0) await new Promise((resolve) => setImmediate(resolve))
      stream.destroy()
      await new Promise((resolve) => setTimeout(resolve, 10))
      assert.equal(stream.closed, false)
      settle()
      await close
      assert.equal(store.count('remove'), 1)
      assertNothingLeft(store)
    })

    it(`destroy during ${step} that does not settle: it is cut off at the deadline`, async () => {
      for (const happened of [true, false]) {
        const store = new ScriptedStore()
        store.next(step, async (context) => {
          if (happened) context.work()
          await untilAborted(context)
        })
        const stream = writer(store, { settleMs: 20 })
        const close = closeOf(stream)
        stream.end(noise(size))
        while (store.entered === 0) await new Promise((resolve) => setImmediate(resolve))
        stream.destroy()
        await close
        assert.equal(store.count('remove'), happened ? 1 : 0)
        assertNothingLeft(store)
      }
    })
  }

  it('T9: destroy while a write waits for room is no error', async () => {
    const store = new ScriptedStore({ concurrency: 1 })
    store.next('putPart', untilAborted)
    const stream = writer(store)
    stream.write(noise(35))
    while (store.count('putPart') === 0) await new Promise((resolve) => setImmediate(resolve))
    const close = closeOf(stream)
    stream.destroy()
    await close
    assert.equal(stream.errored, null)
    assertNothingLeft(store)
  })

  describe('over a store that keeps the old object beside the new one', () => {
    class KeepingStore extends ScriptedStore {
      removals = 0
      fails = 0
      onRemoval: () => void = () => {}

      async secure(): Promise<void> {
        this.removals++
        this.onRemoval()
        if (this.removals <= this.fails) throw failure('UNAVAILABLE', 'removeOld')
      }
    }

    it('the old one goes once the new one is verified', async () => {
      for (const size of [5, 35]) {
        const store = new KeepingStore()
        store.fails = 2
        store.onRemoval = () => assert.equal(store.calls.at(-1)?.step, 'find')
        await pipeline(Readable.from([noise(size)]), writer(store))
        assert.equal(store.removals, 3)
        assert.ok(store.object?.bytes.equals(noise(size)))
      }
    })

    it('the old one stays where the new one is destroyed, or is not what was sent', async () => {
      const store = new KeepingStore()
      const stream = writer(store)
      const close = closeOf(stream)
      store.next('find', async () => void stream.destroy())
      stream.end(noise(35))
      await close
      assert.equal(store.removals, 0)
      assertNothingLeft(store)
      store.next('find', () => {
        store.object = { bytes: noise(3), owner: 'us' }
      })
      await assert.rejects(pipeline(Readable.from([noise(5)]), writer(store)), { code: 'CORRUPT' })
      assert.equal(store.removals, 0)
    })

    it('the new one goes where the old one cannot', async () => {
      const store = new KeepingStore()
      store.fails = 100
      const stream = writer(store)
      const close = closeOf(stream)
      await assert.rejects(pipeline(Readable.from([noise(35)]), stream), { operation: 'removeOld' })
      await close
      assertNothingLeft(store)
    })
  })

  it('a clean-up that fails leaves the first error as it is, with its own beside it', async () => {
    const store = new ScriptedStore()
    store.next('putPart', () => Promise.reject(failure('QUOTA', 'putPart')))
    store.next('abort', () => Promise.reject(failure('ACCESS_DENIED', 'abort')))
    const stream = writer(store)
    const close = closeOf(stream)
    const caught = await pipeline(Readable.from([noise(15)]), stream).catch((error) => error)
    await close
    assert.equal(caught.code, 'QUOTA')
    assert.equal(caught.cleanupError.code, 'ACCESS_DENIED')
  })

  it('a clean-up that fails is the error where there is no other', async () => {
    const store = new ScriptedStore()
    store.next('abort', () => Promise.reject(failure('ACCESS_DENIED', 'abort')))
    const stream = writer(store)
    stream.write(noise(15))
    while (store.count('putPart') === 0) await new Promise((resolve) => setImmediate(resolve))
    const seen = once(stream, 'error')
    stream.destroy()
    assert.equal((await seen)[0].code, 'ACCESS_DENIED')
  })

  it('an object of 90 bytes takes no ring', async () => {
    const before = process.memoryUsage().arrayBuffers
    const store = new ScriptedStore({ minPartBytes: PART, maxPartBytes: 64 * MiB })
    const streams = Array.from({ length: 200 }, () => writer(store, { partBytes: 8 * MiB }))
    for (const stream of streams) stream.write(noise(90))
    const grown = process.memoryUsage().arrayBuffers - before
    assert.ok(grown < 48 * MiB, `200 streams took ${grown} bytes`)
    for (const stream of streams) stream.destroy()
  })
})
