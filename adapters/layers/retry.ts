import { once } from 'node:events'
import { Readable } from 'node:stream'
import { StorageError } from '../errors.ts'
import { checkKey, quoteKey } from '../keys.ts'
import { checkRange, type OpenedRange, type RangeRequest, ResumingReadable } from '../read.ts'
import { CALL_RETRY, type RetryClock, type RetryPolicy, retry, systemClock } from '../retry.ts'
import type { CallOptions, ObjectStat, ReadOptions, Storage } from '../storage.ts'
import { cutShort } from './forwarding.ts'
import { StorageLayer } from './layer.ts'

/**
 * Tries again what failed with a `retryable` error, for stores that do not do so themselves: exponential backoff with
 * full jitter, or as long as the store asked to wait. An abort ends the wait at once.
 *
 * - `stat`, `delete` and `readRange` are called again.
 * - `list` is begun again while it has given nothing; after that a failure is the caller's, as a second listing could
 *   leave out or repeat what the first one gave.
 * - A read stream goes on from the byte that it has come to, with the version pinned that `stat` gave at its start
 *   (which is one more call for each stream). Where the store knows no versions it is not resumed.
 * - Writes are not retried: what a stream has given away cannot be asked for again. Nor are `probe` and
 *   `purgeUnfinished`, whose reports would be of the last attempt only.
 *
 * The `s3` adapter retries by itself: around it, this would multiply the attempts. Set it beneath `withBandwidth`, so
 * that no wait for bandwidth is taken for a connection that has died.
 * @param policy attempts, and waits in ms, of each call; CALL_RETRY (4 attempts within 10 s) when absent.
 * @param clock time and chance, for tests.
 * @returns a Storage over the same objects; closing it closes the one beneath.
 */
export function withRetry(
  storage: Storage,
  policy: RetryPolicy = CALL_RETRY,
  clock: RetryClock = systemClock,
): Storage {
  return new RetryStorage(storage, policy, clock)
}

class RetryStorage extends StorageLayer {
  readonly #policy: RetryPolicy
  readonly #clock: RetryClock

  constructor(inner: Storage, policy: RetryPolicy, clock: RetryClock) {
    super(inner)
    this.#policy = policy
    this.#clock = clock
  }

  override createReadStream(key: string, options: ReadOptions = {}): Readable {
    const { adapter } = this
    checkKey(key, adapter, 'createReadStream')
    checkRange(options, { adapter, key })
    const policy = this.#policy
    let size: number | undefined
    const stream: Readable = new ResumingReadable({
      ...options,
      adapter,
      key,
      open: async (request) => {
        if (size !== undefined && request.version === '') throw notResumable(adapter, key)
        const found = size === undefined ? await this.#find(key, request) : { size, version: request.version }
        const fail = (error: Error) => stream.destroy(error)
        const opened = await openRange(this.inner, key, { ...request, ...found, fail })
        // Until a stream has begun, nothing was delivered that a newer version could be joined to.
        size = found.size
        return opened
      },
      callRetry: policy,
      resumeRetry: policy,
      clock: this.#clock,
    })
    return stream
  }

  override readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    return this.#retry(() => this.inner.readRange(key, offset, length, options), options)
  }

  override stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    return this.#retry(() => this.inner.stat(key, options), options)
  }

  override async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    const [iterator, first] = await this.#retry(async () => {
      const iterator = this.inner.list(prefix, options)[Symbol.asyncIterator]()
      return [iterator, await iterator.next()] as const
    }, options)
    let step = first
    let isOver = step.done
    try {
      while (!step.done) {
        yield step.value
        isOver = true
        step = await iterator.next()
        isOver = step.done
      }
    } finally {
      // As for await does: an iterator that has ended or failed is not told.
      if (!isOver) await iterator.return?.()
    }
  }

  override delete(key: string, options: CallOptions = {}): Promise<void> {
    return this.#retry(() => this.inner.delete(key, options), options)
  }

  async #find(key: string, { version, signal }: RangeRequest): Promise<ObjectStat> {
    const found = await this.inner.stat(key, { signal })
    if (version === undefined || version === found.version) return found
    const message = `The object ${quoteKey(key)} was replaced.`
    throw new StorageError(message, { code: 'CONFLICT', adapter: this.adapter, operation: 'read', key })
  }

  #retry<T>(call: () => Promise<T>, { signal }: CallOptions): Promise<T> {
    return retry(call, this.#policy, { signal, clock: this.#clock })
  }
}

/** Why the wait for the first bytes is over when a stream closes without a word. */
const CLOSED = Symbol('closed')

interface OpenRequest extends RangeRequest {
  size: number
  /** Ends the whole read: called for what another attempt would not mend. */
  fail: (error: Error) => void
}

/** Opens a stream and waits for its first bytes, so that what fails before them is one failed attempt. */
async function openRange(storage: Storage, key: string, request: OpenRequest): Promise<OpenedRange> {
  const { start, end = Number.POSITIVE_INFINITY, version, size, signal, fail } = request
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
    await firstBytes(body, storage.adapter, signal)
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
