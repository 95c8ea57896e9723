import type { Readable, Writable } from 'node:stream'
import { StorageError } from '../errors.ts'
import { checkExtent, collectRange } from '../read.ts'
import { type RetryClock, systemClock, throwIfAborted } from '../retry.ts'
import type { CallOptions, ReadOptions, Storage, WriteOptions } from '../storage.ts'
import { ForwardingReadable, ForwardingWritable, type Pace } from './forwarding.ts'
import { StorageLayer } from './layer.ts'

/** What may go at once: as much as flows in so long, so that a late timer costs nothing. */
const BURST_SECONDS = 0.25
/** What one stream takes at a time, so that its large chunks do not crowd out the others. */
const PIECE_BYTES = 64 * 1024

/** The limits of `withBandwidth`. */
export interface BandwidthOptions {
  /** Bytes a second that all reads share; a whole number, at least 1. No limit when absent. */
  readBytesPerSecond?: number | undefined
  /** Bytes a second that all writes share; a whole number, at least 1. No limit when absent. */
  writeBytesPerSecond?: number | undefined
  /** Time, for tests. `sleep` may be late, not early. */
  clock?: Pick<RetryClock, 'now' | 'sleep'> | undefined
}

/**
 * Limits the bytes a second of all streams of a storage together, each way by itself; `readRange` counts as a read.
 * Streams take turns, in the order in which they asked, by pieces of at most 64 KiB; a quarter of a second's worth may
 * go at once. It limits what the adapter is given and what is taken from it: one that gathers parts still sends each
 * as fast as it can, so the rate holds over some parts, not within one. Retries of the adapter, and the requests of
 * `stat`, `list`, `delete` and `probe`, are not counted.
 * @returns a Storage over the same objects; closing it closes the one beneath.
 * @throws StorageError INVALID for a rate that is no whole number of at least 1.
 */
export function withBandwidth(storage: Storage, options: BandwidthOptions): Storage {
  const { readBytesPerSecond, writeBytesPerSecond, clock = systemClock } = options
  const bucketOf = (name: string, rate: number | undefined) => {
    if (rate === undefined) return undefined
    if (Number.isSafeInteger(rate) && rate >= 1) return new TokenBucket(rate, clock)
    throw new StorageError(`${name} is ${rate}; it has to be a whole number of bytes, at least 1.`, {
      code: 'INVALID',
      adapter: storage.adapter,
      operation: 'withBandwidth',
    })
  }
  const reads = bucketOf('readBytesPerSecond', readBytesPerSecond)
  const writes = bucketOf('writeBytesPerSecond', writeBytesPerSecond)
  return new BandwidthStorage(storage, reads, writes)
}

class BandwidthStorage extends StorageLayer {
  readonly #reads: Pace | undefined
  readonly #writes: Pace | undefined

  constructor(inner: Storage, reads: Pace | undefined, writes: Pace | undefined) {
    super(inner)
    this.#reads = reads
    this.#writes = writes
  }

  override createWriteStream(key: string, options: WriteOptions = {}): Writable {
    if (!this.#writes) return this.inner.createWriteStream(key, options)
    const { signal, onConsumed, ...rest } = options
    return new ForwardingWritable(
      (told) => this.inner.createWriteStream(key, told ? { ...rest, onConsumed: told } : rest),
      { signal, onConsumed, adapter: this.adapter, pace: this.#writes },
    )
  }

  override createReadStream(key: string, options: ReadOptions = {}): Readable {
    if (!this.#reads) return this.inner.createReadStream(key, options)
    const { signal, ...rest } = options
    const inner = this.inner.createReadStream(key, rest)
    return new ForwardingReadable(inner, { signal, adapter: this.adapter, pace: this.#reads })
  }

  override async readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    if (!this.#reads || length === 0) return this.inner.readRange(key, offset, length, options)
    const names = { adapter: this.adapter, key }
    checkExtent(offset, length, names)
    // As a stream: paid for as it comes, not in one go before.
    const range = { ...options, start: offset, end: offset + length - 1 }
    return collectRange(this.createReadStream(key, range), length, names)
  }
}

/**
 * A bucket, full at first: in any span of time at most `burst` and the span's share of the rate are granted. Those who
 * ask are served in the order they came in.
 */
class TokenBucket implements Pace {
  readonly pieceBytes: number
  readonly #perSecond: number
  readonly #burst: number
  readonly #clock: Pick<RetryClock, 'now' | 'sleep'>
  #tokens: number
  #filledAt: number
  /** Settles when nobody who asked so far waits any more. */
  #queue: Promise<void> = Promise.resolve()

  constructor(perSecond: number, clock: Pick<RetryClock, 'now' | 'sleep'>) {
    this.#perSecond = perSecond
    this.#burst = Math.ceil(perSecond * BURST_SECONDS)
    this.#clock = clock
    this.#tokens = this.#burst
    this.#filledAt = clock.now()
    this.pieceBytes = Math.min(this.#burst, PIECE_BYTES)
  }

  admit(bytes: number, signal: AbortSignal): Promise<void> {
    const turn = this.#queue.then(() => this.#take(bytes, signal))
    this.#queue = turn.catch(() => {})
    return turn
  }

  async #take(bytes: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      throwIfAborted(signal)
      const now = this.#clock.now()
      this.#tokens = Math.min(this.#burst, this.#tokens + (Math.max(0, now - this.#filledAt) * this.#perSecond) / 1000)
      this.#filledAt = now
      if (this.#tokens >= bytes) break
      await this.#clock.sleep(Math.ceil(((bytes - this.#tokens) * 1000) / this.#perSecond), signal)
    }
    this.#tokens -= bytes
  }
}
