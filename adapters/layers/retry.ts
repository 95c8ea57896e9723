import { once } from 'node:events'
import { Readable } from 'node:stream'
import { StorageError } from '../errors.ts'
import { checkKey, quoteKey } from '../keys.ts'
import { checkRange, type OpenedRange, type RangeRequest, READ_IDLE_MS, ResumingReadable } from '../read.ts'
import { CALL_RETRY, type RetryClock, type RetryPolicy, retry, systemClock } from '../retry.ts'
import type { CallOptions, ObjectStat, ReadOptions, Storage } from '../storage.ts'
import { cutShort } from './forwarding.ts'
import { StorageLayer } from './layer.ts'

/** A call that has not settled for so long is given up. */
export const CALL_MS = 60_000
/** What a slow line brings at least: `readRange` has the time that its bytes take at this rate beside `callMs`. */
const SLOW_BYTES_PER_MS = 32

/** How often and for how long `withRetry` tries. */
export interface RetryLayerPolicy extends RetryPolicy {
  /** A read that brings nothing for so many ms while it is asked for is given up. READ_IDLE_MS when absent. */
  idleMs?: number | undefined
  /**
   * An attempt at `stat`, `delete` or `readRange`, or one step of a `list`, that takes longer than so many ms is given
   * up; `readRange` has a second more for each 32,000 bytes. CALL_MS when absent.
   */
  callMs?: number | undefined
}

/**
 * Tries again what failed with a `retryable` error, for stores that do not do so themselves: exponential backoff with
 * full jitter, or as long as the store asked to wait. An abort ends the wait at once. What does not answer is given up
 * as well: its signal is fired, and it has failed with UNAVAILABLE, whether or not it heeds the signal. The time that
 * was lost so does not count to the policy's deadline, or the deadline would leave no second attempt.
 *
 * - `stat`, `delete` and `readRange` are called again.
 * - `list` is begun again while it has given nothing; after that a failure is the caller's, as a second listing could
 *   leave out or repeat what the first one gave. So is a step of it that does not answer.
 * - A read stream goes on from the byte that it has come to, with the version pinned that `stat` gave at its start
 *   (which is one more call for each stream). Where the store knows no versions it is not resumed.
 * - Writes are not retried: what a stream has given away cannot be asked for again. Nor are `probe` and
 *   `purgeUnfinished`, whose reports would be of the last attempt only.
 *
 * The `s3` adapter retries by itself: around it, this would multiply the attempts. Set it beneath `withBandwidth`, so
 * that no wait for bandwidth is taken for a connection that has died.
 * @param policy attempts, waits and limits in ms of each call; CALL_RETRY (4 attempts within 10 s) when absent.
 * @param clock time and chance, for tests.
 * @returns a Storage over the same objects; closing it closes the one beneath.
 */
export function withRetry(
  storage: Storage,
  policy: RetryLayerPolicy = CALL_RETRY,
  clock: RetryClock = systemClock,
): Storage {
  return new RetryStorage(storage, policy, clock)
}

class RetryStorage extends StorageLayer {
  readonly #policy: RetryLayerPolicy
  readonly #clock: RetryClock
  readonly #callMs: number
  readonly #idleMs: number

  constructor(inner: Storage, policy: RetryLayerPolicy, clock: RetryClock) {
    super(inner)
    this.#policy = policy
    this.#clock = clock
    this.#callMs = policy.callMs ?? CALL_MS
    this.#idleMs = policy.idleMs ?? READ_IDLE_MS
  }

  override createReadStream(key: string, options: ReadOptions = {}): Readable {
    const { adapter } = this
    checkKey(key, adapter, 'createReadStream')
    checkRange(options, { adapter, key })
    const policy = this.#policy
    const idleMs = this.#idleMs
    const clock = new LenientClock(this.#clock)
    let size: number | undefined
    const stream: Readable = new ResumingReadable({
      ...options,
      adapter,
      key,
      open: async (request) => {
        if (size !== undefined && request.version === '') throw notResumable(adapter, key)
        const found = size === undefined ? await this.#find(key, request, clock) : { size, version: request.version }
        const fail = (error: Error) => stream.destroy(error)
        const opened = await openRange(this.inner, key, { ...request, ...found, fail, idleMs, clock })
        // Until a stream has begun, nothing was delivered that a newer version could be joined to.
        size = found.size
        return opened
      },
      callRetry: policy,
      resumeRetry: policy,
      idleMs,
      clock,
    })
    return stream
  }

  override readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    const ms = this.#callMs + Math.max(0, length / SLOW_BYTES_PER_MS)
    const call = (signal: AbortSignal) => this.inner.readRange(key, offset, length, { ...options, signal })
    return this.#retry(call, { ms, what: `reading ${quoteKey(key)}`, operation: 'readRange', key }, options)
  }

  override stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    const limit = { ms: this.#callMs, what: `asking for ${quoteKey(key)}`, operation: 'stat', key }
    return this.#retry((signal) => this.inner.stat(key, { ...options, signal }), limit, options)
  }

  override async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    const limit = { ms: this.#callMs, what: 'listing', operation: 'list' }
    // The signal of each step ends the whole listing, and a step that is over fires no more.
    const begin = async (signal: AbortSignal) => {
      const ending = new AbortController()
      const iterator = this.inner.list(prefix, { ...options, signal: ending.signal })[Symbol.asyncIterator]()
      return { iterator, ending, step: await stepOf(iterator, ending, signal) }
    }
    const { iterator, ending, step: first } = await this.#retry(begin, limit, options)
    let step = first
    let isOver = step.done
    try {
      while (!step.done) {
        yield step.value
        isOver = true
        const { adapter } = this
        step = await within((signal) => stepOf(iterator, ending, signal), { ...limit, adapter }, options.signal)
        isOver = step.done
      }
    } finally {
      // As for await does: an iterator that has ended or failed is not told.
      if (!isOver) await iterator.return?.()
    }
  }

  override delete(key: string, options: CallOptions = {}): Promise<void> {
    const limit = { ms: this.#callMs, what: `deleting ${quoteKey(key)}`, operation: 'delete', key }
    return this.#retry((signal) => this.inner.delete(key, { ...options, signal }), limit, options)
  }

  async #find(key: string, { version, signal }: RangeRequest, clock: LenientClock): Promise<ObjectStat> {
    const { adapter } = this
    const limit = { ms: this.#callMs, what: `asking for ${quoteKey(key)}`, operation: 'read', key, adapter, clock }
    const found = await within((calling) => this.inner.stat(key, { signal: calling }), limit, signal)
    if (version === undefined || version === found.version) return found
    const message = `The object ${quoteKey(key)} was replaced.`
    throw new StorageError(message, { code: 'CONFLICT', adapter, operation: 'read', key })
  }

  #retry<T>(call: (signal: AbortSignal) => Promise<T>, limit: Limit, { signal }: CallOptions): Promise<T> {
    const { adapter } = this
    const clock = new LenientClock(this.#clock)
    return retry(() => within(call, { ...limit, adapter, clock }, signal), this.#policy, { signal, clock })
  }
}

/** The time of another clock, without what was lost on attempts that did not answer. */
class LenientClock implements RetryClock {
  readonly #clock: RetryClock
  #lostMs = 0

  constructor(clock: RetryClock) {
    this.#clock = clock
  }

  now(): number {
    return this.#clock.now() - this.#lostMs
  }

  random(): number {
    return this.#clock.random()
  }

  sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return this.#clock.sleep(ms, signal)
  }

  lose(ms: number): void {
    this.#lostMs += ms
  }
}

interface Limit {
  ms: number
  /** For the message: `deleting "a/b"`. */
  what: string
  operation: string
  key?: string
}

/** One attempt at a call, which fails when it does not settle in time. */
async function within<T>(
  call: (signal: AbortSignal) => Promise<T>,
  limit: Limit & { adapter: string; clock?: LenientClock },
  signal: AbortSignal | undefined,
): Promise<T> {
  const { ms, what, operation, key, adapter, clock } = limit
  const begun = clock?.now() ?? 0
  const ending = new AbortController()
  const abort = () => ending.abort(signal?.reason)
  if (signal?.aborted) abort()
  signal?.addEventListener('abort', abort)
  let timer: NodeJS.Timeout | undefined
  const expiry = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      clock?.lose(clock.now() - begun)
      const message = `The ${adapter} storage did not answer for ${Math.round(ms)} ms: ${what} was given up.`
      const names = key === undefined ? { adapter, operation } : { adapter, operation, key }
      reject(new StorageError(message, { code: 'UNAVAILABLE', ...names }))
      ending.abort()
    }, ms)
  })
  try {
    return await Promise.race([call(ending.signal), expiry])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/** The next step of a listing, which ends with the signal. */
async function stepOf<T>(
  iterator: AsyncIterator<T>,
  ending: AbortController,
  signal: AbortSignal,
): Promise<IteratorResult<T>> {
  const end = () => ending.abort(signal.reason)
  if (signal.aborted) end()
  signal.addEventListener('abort', end)
  try {
    return await iterator.next()
  } finally {
    signal.removeEventListener('abort', end)
  }
}

/** Why the wait for the first bytes is over when a stream closes without a word. */
const CLOSED = Symbol('closed')

interface OpenRequest extends RangeRequest {
  size: number
  /** Ends the whole read: called for what another attempt would not mend. */
  fail: (error: Error) => void
  idleMs: number
  clock: LenientClock
}

/** Opens a stream and waits for its first bytes, so that what fails before them is one failed attempt. */
async function openRange(storage: Storage, key: string, request: OpenRequest): Promise<OpenedRange> {
  const { start, end = Number.POSITIVE_INFINITY, version, size, signal, fail, idleMs, clock } = request
  const { adapter } = storage
  const length = Math.max(0, Math.min(end + 1, size) - start)
  const opened = { length, version: version ?? '' }
  if (length === 0) return { ...opened, body: Readable.from([]) }
  const range = { start, end: start + length - 1, ...(version ? { version } : {}) }
  const body = storage.createReadStream(key, range)
  let begun = false
  body.on('error', (error) => {
    if (begun && !(error instanceof StorageError && error.retryable)) fail(error)
  })
  try {
    const limit = { ms: idleMs, what: `reading ${quoteKey(key)}`, operation: 'read', key, adapter, clock }
    await within((waiting) => firstBytes(body, adapter, waiting), limit, signal)
    begun = true
    return { ...opened, body }
  } catch (error) {
    body.destroy()
    throw error
  }
}

async function firstBytes(body: Readable, adapter: string, signal: AbortSignal): Promise<void> {
  const closed = new AbortController()
  body.once('close', () => closed.abort(CLOSED))
  try {
    await once(body, 'readable', { signal: AbortSignal.any([signal, closed.signal]) })
  } catch (error) {
    if ((error as Error).cause === CLOSED) throw cutShort(adapter, 'read')
    throw error
  }
  // It may have failed in the same moment, before anybody who listens from now on.
  if (body.errored) throw body.errored
}

function notResumable(adapter: string, key: string): StorageError {
  const message = `The read of ${quoteKey(key)} broke off, and the store gives no version to resume it by.`
  return new StorageError(message, { code: 'UNAVAILABLE', adapter, operation: 'read', key, retryable: false })
}
