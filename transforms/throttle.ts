import { Duplex } from 'node:stream'
import { TransformError } from './errors.ts'
import { checkRange } from './zstd-compress.ts'

/** How much a bucket holds when nothing is said: what flows in a quarter of a second, so that a late timer costs nothing. */
const BURST_SECONDS = 0.25
/** What one takes at a time, so that large chunks of one stream do not crowd out the others that share its bucket. */
const PIECE_BYTES = 64 * 1024
/** What a timer of Node can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** Time, for tests. */
export interface Clock {
  /** ms, never going back. */
  now(): number
  /** Calls `callback` once in `ms` ms. Returns what cancels it. */
  after(ms: number, callback: () => void): () => void
}

/** The rate of a bucket. */
export interface BucketOptions {
  /** Bytes a second in the long run; a whole number, at least 1. */
  bytesPerSecond: number
  /**
   * The most that goes at once, and what may be saved up while nothing flows; a quarter of a second's worth when left
   * out. With less than some ten ms' worth the rate is not reached: timers are late by more than that.
   */
  burstBytes?: number | undefined
  clock?: Clock | undefined
}

/** A token bucket that any number of throttles may share: together they keep its rate. */
export interface Bucket {
  readonly bytesPerSecond: number
  readonly burstBytes: number
  /**
   * Asks for `bytes`, at most `burstBytes`. Those who ask are served in the order they came in.
   * @returns null when they were granted at once; or what cancels the wait, and `granted` is called later.
   */
  take(bytes: number, granted: () => void): (() => void) | null
}

/** A rate, or a bucket that several streams share. */
export type ThrottleOptions =
  | (BucketOptions & { bucket?: undefined })
  | { bucket: Bucket; bytesPerSecond?: undefined; burstBytes?: undefined; clock?: undefined }

/**
 * A bucket, full at first: in any span of time at most `burstBytes` and the span's share of `bytesPerSecond` are
 * granted.
 * @throws TransformError BAD_OPTION.
 */
export function createBucket(options: BucketOptions): Bucket {
  const bytesPerSecond = checkRange('bytesPerSecond', options.bytesPerSecond, 1, Number.MAX_SAFE_INTEGER)
  const burstBytes = checkRange(
    'burstBytes',
    options.burstBytes ?? Math.ceil(bytesPerSecond * BURST_SECONDS),
    1,
    Number.MAX_SAFE_INTEGER,
  )
  return new TokenBucket(bytesPerSecond, burstBytes, options.clock ?? systemClock)
}

/**
 * A stream that passes bytes on unchanged, no faster than its bucket allows: one of its own, or one that it shares.
 * A chunk larger than the bucket, or than 64 KiB, goes in pieces, which are views of it. It asks for bytes only when
 * the reader downstream wants some. Destroying it ends its wait.
 * @throws TransformError BAD_OPTION, also when both a bucket and a rate are given, or neither.
 */
export function createThrottle(options: ThrottleOptions): Duplex {
  if (options.bucket === undefined) return new ThrottleStream(createBucket(options))
  if (options.bytesPerSecond !== undefined || options.burstBytes !== undefined || options.clock !== undefined) {
    throw new TransformError('BAD_OPTION', 'Give a bucket or the options of one, not both.')
  }
  return new ThrottleStream(options.bucket)
}

const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms)
    return () => clearTimeout(timer)
  },
}

interface Waiter {
  bytes: number
  granted: () => void
}

class TokenBucket implements Bucket {
  readonly bytesPerSecond: number
  readonly burstBytes: number
  readonly #clock: Clock
  readonly #waiters: Waiter[] = []
  #tokens: number
  #filledAt: number
  #cancelTimer: (() => void) | undefined

  constructor(bytesPerSecond: number, burstBytes: number, clock: Clock) {
    this.bytesPerSecond = bytesPerSecond
    this.burstBytes = burstBytes
    this.#clock = clock
    this.#tokens = burstBytes
    this.#filledAt = clock.now()
  }

  take(bytes: number, granted: () => void): (() => void) | null {
    checkRange('bytes', bytes, 0, this.burstBytes)
    this.#fill()
    if (this.#waiters.length === 0 && this.#tokens >= bytes) {
      this.#tokens -= bytes
      return null
    }
    const waiter = { bytes, granted }
    this.#waiters.push(waiter)
    if (this.#waiters[0] === waiter) this.#schedule()
    return () => this.#cancel(waiter)
  }

  #fill(): void {
    const now = this.#clock.now()
    const elapsedMs = Math.max(0, now - this.#filledAt)
    this.#tokens = Math.min(this.burstBytes, this.#tokens + (elapsedMs * this.bytesPerSecond) / 1000)
    this.#filledAt = now
  }

  #cancel(waiter: Waiter): void {
    const at = this.#waiters.indexOf(waiter)
    if (at === -1) return
    this.#waiters.splice(at, 1)
    if (at === 0) this.#serve()
  }

  /** Grants what can be granted, and waits for the rest. */
  #serve(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    this.#fill()
    try {
      while (this.#waiters.length > 0 && this.#tokens >= (this.#waiters[0] as Waiter).bytes) {
        const { bytes, granted } = this.#waiters.shift() as Waiter
        this.#tokens -= bytes
        granted()
      }
    } finally {
      // Also when one of them throws: the others still wait.
      this.#schedule()
    }
  }

  #schedule(): void {
    const first = this.#waiters[0]
    if (!first || this.#cancelTimer) return
    const ms = Math.ceil(((first.bytes - this.#tokens) * 1000) / this.bytesPerSecond)
    this.#cancelTimer = this.#clock.after(Math.min(Math.max(ms, 1), MAX_TIMER_MS), () => {
      this.#cancelTimer = undefined
      this.#serve()
    })
  }
}

class ThrottleStream extends Duplex {
  readonly #bucket: Bucket
  #rest: { chunk: Buffer; callback: (error?: Error | null) => void } | undefined
  #cancel: (() => void) | null = null
  #wanted = false

  constructor(bucket: Bucket) {
    // What stands in the readable buffer has been paid for and leaves at once: it is one piece at most.
    super({ readableHighWaterMark: 1 })
    this.#bucket = bucket
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#rest = { chunk, callback }
    this.#pass()
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.push(null)
    callback()
  }

  override _read(): void {
    this.#wanted = true
    this.#pass()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#cancel?.()
    this.#cancel = null
    this.#rest = undefined
    callback(error)
  }

  #pass(): void {
    while (this.#rest && this.#wanted && !this.#cancel) {
      const { chunk, callback } = this.#rest
      if (chunk.length === 0) {
        this.#rest = undefined
        callback()
        continue
      }
      const bytes = Math.min(chunk.length, this.#bucket.burstBytes, PIECE_BYTES)
      this.#cancel = this.#bucket.take(bytes, () => {
        this.#cancel = null
        this.#send(bytes)
        this.#pass()
      })
      if (!this.#cancel) this.#send(bytes)
    }
  }

  #send(bytes: number): void {
    const rest = this.#rest as { chunk: Buffer }
    const piece = rest.chunk.subarray(0, bytes)
    rest.chunk = rest.chunk.subarray(bytes)
    this.#wanted = this.push(piece)
  }
}
