import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { TransformError } from '../../transforms/errors.ts'
import { type Clock, createBucket, createThrottle } from '../../transforms/throttle.ts'
import { feed, sample, through } from '../support/streams.ts'

const hasCode = (code: string) => (error: unknown) => error instanceof TransformError && error.code === code

/** Time that passes when it is told to. */
class ManualClock implements Clock {
  ms = 0
  readonly timers = new Set<{ at: number; callback: () => void }>()
  longestMs = 0

  now(): number {
    return this.ms
  }

  after(ms: number, callback: () => void): () => void {
    assert.ok(ms >= 1)
    this.longestMs = Math.max(this.longestMs, ms)
    const timer = { at: this.ms + ms, callback }
    this.timers.add(timer)
    return () => this.timers.delete(timer)
  }

  /** Goes on to the next timer, and `lateMs` further. */
  tick(lateMs = 0): void {
    const next = [...this.timers].sort((a, b) => a.at - b.at)[0]
    assert.ok(next, 'nothing waits for time to pass')
    this.ms = Math.max(this.ms, next.at + lateMs)
    this.timers.delete(next)
    next.callback()
  }

  /** Lets time pass until `done`. */
  async run<T>(done: Promise<T>, lateMs?: () => number): Promise<T> {
    let over = false
    const settled = () => {
      over = true
    }
    done.then(settled, settled)
    while (!over) {
      await turn()
      if (!over && this.timers.size > 0) this.tick(lateMs?.())
    }
    return done
  }
}

interface Mark {
  at: number
  bytes: number
}

function record(clock: ManualClock): { sink: Writable; marks: Mark[]; data: () => Buffer } {
  const marks: Mark[] = []
  const out: Buffer[] = []
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      marks.push({ at: clock.ms, bytes: chunk.length })
      out.push(chunk)
      callback()
    },
  })
  return { sink, marks, data: () => Buffer.concat(out) }
}

/** No span of time may hold more than the burst and the span's share of the rate. */
function assertWithin(marks: readonly Mark[], bytesPerSecond: number, burstBytes: number): void {
  for (let first = 0; first < marks.length; first += 1) {
    let bytes = 0
    for (const mark of marks.slice(first)) {
      bytes += mark.bytes
      const span = mark.at - (marks[first] as Mark).at
      assert.ok(bytes <= burstBytes + (span * bytesPerSecond) / 1000 + 1e-6, `${bytes} bytes in ${span} ms`)
    }
  }
}

test('throttle: bytes come through unchanged, at the rate, never more than the bucket in any span', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 50, max: 3000 }),
      fc.integer({ min: 100, max: 100_000 }),
      fc.integer({ min: 0, max: 30 }),
      async (writeBytes, burstBytes, bytesPerSecond, lateMs) => {
        const clock = new ManualClock()
        const data = sample(10_000)
        const { sink, marks, data: out } = record(clock)
        const throttle = createThrottle({ bytesPerSecond, burstBytes, clock })
        let late = 0
        await clock.run(pipeline(feed(data, writeBytes), throttle, sink), () => {
          late += 1
          return late % (lateMs + 1)
        })
        assert.deepEqual(out(), data)
        assertWithin(marks, bytesPerSecond, burstBytes)
        assert.ok(clock.ms >= ((10_000 - burstBytes) * 1000) / bytesPerSecond - 1e-6)
        assert.equal(clock.timers.size, 0)
      },
    ),
    { numRuns: 60 },
  )
})

test('throttle: with timers in time and a bucket that covers them, the rate is reached', async () => {
  const clock = new ManualClock()
  const throttle = createThrottle({ bytesPerSecond: 1000, burstBytes: 100, clock })
  await clock.run(through(sample(10_100), [throttle], 333))
  assert.ok(clock.ms >= 10_000 && clock.ms <= 10_200, `${clock.ms} ms`)
})

test('throttle: a chunk larger than the bucket goes in views of it, none larger than the bucket', async () => {
  const clock = new ManualClock()
  const data = sample(1001)
  const throttle = createThrottle({ bytesPerSecond: 500, burstBytes: 100, clock })
  const pieces: Buffer[] = []
  throttle.on('data', (piece: Buffer) => pieces.push(piece))
  const ended = new Promise((resolve) => throttle.on('end', resolve))
  throttle.end(data)
  await clock.run(ended)
  assert.deepEqual(Buffer.concat(pieces), data)
  for (const piece of pieces) assert.ok(piece.length <= 100 && piece.buffer === data.buffer)
})

test('throttle: a bucket that was idle gives its burst once, not what it might have given', async () => {
  const clock = new ManualClock()
  const bucket = createBucket({ bytesPerSecond: 1000, burstBytes: 100, clock })
  clock.ms = 3_600_000
  assert.equal(
    bucket.take(100, () => {}),
    null,
  )
  const granted: number[] = []
  assert.ok(bucket.take(50, () => granted.push(clock.ms)))
  clock.tick()
  assert.deepEqual(granted, [3_600_050])
})

test('throttle: a clock that goes back gives and takes nothing', () => {
  const clock = new ManualClock()
  clock.ms = 1000
  const bucket = createBucket({ bytesPerSecond: 1000, burstBytes: 100, clock })
  assert.equal(
    bucket.take(100, () => {}),
    null,
  )
  clock.ms = 0
  const cancel = bucket.take(1, () => assert.fail('nothing has come in'))
  cancel?.()
  clock.ms = 1
  assert.equal(
    bucket.take(1, () => {}),
    null,
  )
})

test('throttle: those who share a bucket are served in turn and together keep its rate', async () => {
  const clock = new ManualClock()
  const bucket = createBucket({ bytesPerSecond: 10_000, burstBytes: 100, clock })
  const all: (Mark & { who: number })[] = []
  const runs = [0, 1, 2].map((who) => {
    const throttle = createThrottle({ bucket })
    throttle.on('data', (piece: Buffer) => all.push({ who, at: clock.ms, bytes: piece.length }))
    const ended = new Promise((resolve) => throttle.on('end', resolve))
    throttle.end(sample(5000))
    return ended
  })
  await clock.run(Promise.all(runs))
  assertWithin(all, 10_000, 100)
  // The first takes what the bucket began with; from then on each has one piece in every three.
  for (let at = 1; at + 3 <= all.length - 3; at += 3) {
    assert.deepEqual(new Set(all.slice(at, at + 3).map(({ who }) => who)), new Set([0, 1, 2]))
  }
})

test('throttle: a bucket serves in the order of asking, small behind large', () => {
  const clock = new ManualClock()
  const bucket = createBucket({ bytesPerSecond: 1000, burstBytes: 100, clock })
  const order: string[] = []
  bucket.take(100, () => {})
  bucket.take(90, () => order.push('large'))
  // Enough has come in for the small one, which waits all the same.
  clock.ms = 50
  assert.ok(bucket.take(1, () => order.push('small')))
  const cancel = bucket.take(5, () => order.push('cancelled'))
  bucket.take(2, () => order.push('last'))
  cancel?.()
  cancel?.()
  while (clock.timers.size > 0) clock.tick()
  assert.deepEqual(order, ['large', 'small', 'last'])
})

test('throttle: one that throws when it is served keeps nobody else waiting', () => {
  const clock = new ManualClock()
  const bucket = createBucket({ bytesPerSecond: 1000, burstBytes: 100, clock })
  let served = false
  bucket.take(100, () => {})
  bucket.take(10, () => {
    throw new Error('not mine')
  })
  bucket.take(10, () => {
    served = true
  })
  assert.throws(() => clock.tick(), /not mine/)
  clock.tick()
  assert.ok(served)
})

test('throttle: destroyed while it waits, it closes at once, leaves no timer, and the next is served', async () => {
  for (const error of [undefined, new Error('enough')]) {
    const clock = new ManualClock()
    const bucket = createBucket({ bytesPerSecond: 1, burstBytes: 100, clock })
    const start = (throttle: Duplex) => {
      const seen: number[] = []
      throttle.on('data', (piece: Buffer) => seen.push(piece.length))
      throttle.on('error', () => {})
      throttle.write(sample(150))
      return seen
    }
    const [one, two] = [createThrottle({ bucket }), createThrottle({ bucket })]
    const seenOne = start(one)
    await turn()
    const seenTwo = start(two)
    await turn()
    assert.equal(clock.timers.size, 1)
    const closed = new Promise((resolve) => one.on('close', resolve))
    one.destroy(error)
    await closed
    assert.deepEqual(seenOne, [100])
    assert.equal(clock.ms, 0)
    assert.equal(clock.timers.size, 1)
    clock.tick()
    await turn()
    assert.deepEqual(seenTwo, [100])
    two.destroy()
    await new Promise((resolve) => two.on('close', resolve))
    assert.equal(clock.timers.size, 0)
  }
})

test('throttle: it asks for no more than its reader takes', async () => {
  const clock = new ManualClock()
  const throttle = createThrottle({ bytesPerSecond: 1000, burstBytes: 100, clock })
  const data = sample(1000)
  throttle.end(data)
  throttle.read(0)
  await turn()
  assert.equal(throttle.readableLength, 100)
  clock.ms = 60_000
  await turn()
  assert.equal(throttle.readableLength, 100)
  assert.equal(clock.timers.size, 0)
  const { sink, marks, data: out } = record(clock)
  await clock.run(pipeline(throttle, sink))
  assert.deepEqual(out(), data)
  // The piece that had been paid for, and the bucket that has filled up since.
  const atOnce = marks.filter(({ at }) => at === 60_000).reduce((sum, { bytes }) => sum + bytes, 0)
  assert.equal(atOnce, 200)
})

test('throttle: a wait longer than a timer can be is waited in parts', () => {
  const clock = new ManualClock()
  const bucket = createBucket({ bytesPerSecond: 1, burstBytes: 10_000_000, clock })
  bucket.take(10_000_000, () => {})
  let granted = 0
  bucket.take(5_000_000, () => {
    granted = clock.ms
  })
  while (clock.timers.size > 0) clock.tick()
  assert.ok(granted >= 5_000_000_000 && granted <= 5_000_000_001, `${granted} ms`)
  assert.equal(clock.longestMs, 2 ** 31 - 1)
})

test('throttle: empty and absent input end well, with the real clock too', async () => {
  assert.deepEqual(await through(Buffer.alloc(0), [createThrottle({ bytesPerSecond: 1 })]), Buffer.alloc(0))
  const data = sample(1_000_000)
  assert.deepEqual(await through(data, [createThrottle({ bytesPerSecond: 20_000_000, burstBytes: 200_000 })]), data)
})

test('throttle: nonsense is refused at once', () => {
  for (const bytesPerSecond of [0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => createThrottle({ bytesPerSecond }), hasCode('BAD_OPTION'))
  }
  for (const burstBytes of [0, -1, 1.5, Number.NaN]) {
    assert.throws(() => createBucket({ bytesPerSecond: 1, burstBytes }), hasCode('BAD_OPTION'))
  }
  assert.throws(() => createThrottle({} as never), hasCode('BAD_OPTION'))
  const bucket = createBucket({ bytesPerSecond: 10, burstBytes: 5 })
  assert.throws(() => createThrottle({ bucket, bytesPerSecond: 1 } as never), hasCode('BAD_OPTION'))
  assert.throws(() => bucket.take(6, () => {}), hasCode('BAD_OPTION'))
  assert.equal(createBucket({ bytesPerSecond: 1001 }).burstBytes, 251)
})
