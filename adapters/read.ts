import { constants } from 'node:buffer'
import { addAbortSignal, Readable } from 'node:stream'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import { freeWhatIsParsed } from './parsed.ts'
import { CALL_RETRY, PART_RETRY, type RetryClock, type RetryPolicy, retry, systemClock } from './retry.ts'
import type { CallOptions, ReadOptions, Storage } from './storage.ts'

/** A body that brings nothing for so long, while it is asked for, is taken for dead. */
export const READ_IDLE_MS = 30_000
/** Reopenings in a row that bring not one byte. */
const FRUITLESS_MAX = 6
/** Fewer than for a part: what was read stays, and there may be another store to go on from. */
const RESUME_RETRY: RetryPolicy = { ...PART_RETRY, attempts: 10 }

/** A range that a store has begun to send. */
export interface OpenedRange {
  body: Readable
  /** Bytes that the body is to have. */
  length: number
  /** The version that these bytes are of. */
  version: string
}

/** A range that a ResumingReadable asks its store for. */
export interface RangeRequest {
  start: number
  /** Inclusive; undefined: to the end of the object. */
  end: number | undefined
  /** Anything else there is to be CONFLICT. Undefined: whatever is there. */
  version: string | undefined
  signal: AbortSignal
}

/** What a ResumingReadable is told of the object that it reads. */
export interface ResumingReadOptions extends ReadOptions {
  adapter: string
  key: string
  /**
   * Asks for a range, in one attempt. An `end` past the object, and a `start` at or past its end, are no errors: the
   * length says what there is.
   */
  open: (request: RangeRequest) => Promise<OpenedRange>
  idleMs?: number | undefined
  callRetry?: RetryPolicy | undefined
  resumeRetry?: RetryPolicy | undefined
  clock?: RetryClock | undefined
}

/**
 * Reads one version of an object over a network that drops, stalls and ends early: it opens the rest again from the
 * byte that it has come to, with the first answer's version pinned, so two versions are never joined.
 */
export class ResumingReadable extends Readable {
  readonly #options: ResumingReadOptions
  readonly #abort = new AbortController()
  #version: string | undefined
  #at: number
  /** One past the last byte; unknown until the first answer. */
  #stop: number | undefined
  #body: Readable | undefined
  #opening: Promise<void> | undefined
  #idle: NodeJS.Timeout | undefined
  #fruitless = 0

  constructor(options: ResumingReadOptions) {
    super({ highWaterMark: 256 * 1024 })
    this.#options = options
    this.#version = options.version
    this.#at = options.start ?? 0
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _read(): void {
    if (this.#body) {
      this.#watch()
      this.#body.resume()
    } else this.#opening ??= this.#open()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#unwatch()
    this.#abort.abort()
    // Our close says that no request is left, so it comes after the body's.
    Promise.all([this.#opening, this.#drop()]).then(() => callback(error))
  }

  async #open(): Promise<void> {
    const { open, end, clock } = this.#options
    const policy = this.#policy
    const signal = this.#abort.signal
    const request = { start: this.#at, end: this.#stop === undefined ? end : this.#stop - 1, signal }
    try {
      const range = await retry(() => open({ ...request, version: this.#version }), policy, { signal, clock })
      if (this.destroyed) {
        await release(range.body)
        return
      }
      this.#check(range)
      this.#attach(range.body)
    } catch (error) {
      this.destroy(error as Error)
    } finally {
      this.#opening = undefined
    }
  }

  #check(range: OpenedRange): void {
    const stop = this.#at + range.length
    if (this.#version !== undefined && range.version !== this.#version) {
      range.body.on('error', () => {}).destroy()
      throw this.#error('CONFLICT', 'was replaced while it was read')
    }
    if (this.#stop !== undefined && stop !== this.#stop) {
      range.body.on('error', () => {}).destroy()
      throw this.#error('CORRUPT', `offers ${stop} bytes where it offered ${this.#stop} before`)
    }
    this.#version = range.version
    this.#stop = stop
  }

  #attach(body: Readable): void {
    this.#body = body
    freeWhatIsParsed(body)
    body.on('data', (chunk: Buffer) => {
      if (body !== this.#body) return
      this.#fruitless = 0
      this.#at += chunk.length
      if (this.#at > this.#stop!) {
        this.destroy(this.#error('CORRUPT', `brings more than the ${this.#stop} bytes that the store said it has`))
        return
      }
      // A body that is paused for us brings nothing, and that is no fault of the store.
      if (this.push(chunk)) this.#watch()
      else {
        this.#unwatch()
        body.pause()
      }
    })
    body.on('end', () => {
      if (body !== this.#body) return
      if (this.#at === this.#stop) {
        this.#unwatch()
        this.push(null)
      } else this.#resume(undefined)
    })
    body.on('error', (error) => {
      if (body === this.#body) this.#resume(error)
    })
    body.on('close', () => {
      if (body === this.#body && !body.readableEnded) this.#resume(undefined)
    })
    this.#watch()
  }

  #watch(): void {
    // A reader may destroy it while it is being given a chunk.
    if (this.destroyed) return
    const { idleMs = READ_IDLE_MS } = this.#options
    if (this.#idle) this.#idle.refresh()
    else this.#idle = setTimeout(() => this.#body && this.#resume(undefined), idleMs)
  }

  #unwatch(): void {
    clearTimeout(this.#idle)
    this.#idle = undefined
  }

  /** The connection is of no use any more: opens the rest of the range on another. */
  #resume(cause: unknown): void {
    this.#unwatch()
    this.#drop()
    if (this.destroyed) return
    if (this.#at === this.#stop) {
      this.push(null)
      return
    }
    if (++this.#fruitless > FRUITLESS_MAX) {
      const what = `broke off after ${this.#at} of ${this.#stop} bytes, and ${FRUITLESS_MAX} new requests brought none`
      this.destroy(this.#error('UNAVAILABLE', what, cause))
      return
    }
    this.#opening = this.#pause().then(() => (this.destroyed ? undefined : this.#open()))
  }

  async #pause(): Promise<void> {
    const { baseMs, capMs } = this.#policy
    const clock = this.#options.clock ?? systemClock
    const wait = clock.random() * Math.min(capMs, baseMs * 2 ** (this.#fruitless - 1))
    await clock.sleep(wait, this.#abort.signal).catch(() => {})
  }

  /** Before the first answer little is lost; after it, a long restore may be. */
  get #policy(): RetryPolicy {
    const { callRetry = CALL_RETRY, resumeRetry = RESUME_RETRY } = this.#options
    return this.#stop === undefined ? callRetry : resumeRetry
  }

  #drop(): Promise<void> | undefined {
    const body = this.#body
    this.#body = undefined
    return body && release(body)
  }

  #error(code: 'CONFLICT' | 'CORRUPT' | 'UNAVAILABLE', what: string, cause?: unknown): StorageError {
    const { adapter, key } = this.#options
    const message = `The object ${quoteKey(key)} ${what}.`
    return new StorageError(message, { code, adapter, operation: 'read', key, cause })
  }
}

/** Destroys a body that nobody wants any more. @returns what resolves at its close. */
function release(body: Readable): Promise<void> {
  return new Promise((resolve) => {
    body.on('error', () => {}).destroy()
    if (body.closed) resolve()
    else body.once('close', () => resolve())
  })
}

/** @throws StorageError INVALID when start or end is no offset, or end lies before start. */
export function checkRange(options: ReadOptions, names: { adapter: string; key: string }): void {
  const { start = 0, end } = options
  const isOffset = (value: number) => Number.isSafeInteger(value) && value >= 0
  if (isOffset(start) && (end === undefined || (isOffset(end) && end >= start))) return
  throw new StorageError(`There is no range from ${start} to ${end}: both count from 0, and end is inclusive.`, {
    code: 'INVALID',
    operation: 'read',
    ...names,
  })
}

/** @throws StorageError INVALID when offset or length is no count of bytes. */
export function checkExtent(offset: number, length: number, names: { adapter: string; key: string }): void {
  const isCount = (value: number) => Number.isSafeInteger(value) && value >= 0
  if (isCount(offset) && isCount(length) && length <= constants.MAX_LENGTH) return
  throw new StorageError(`There is no range of ${length} bytes from ${offset}.`, {
    code: 'INVALID',
    operation: 'readRange',
    ...names,
  })
}

/**
 * The bytes that an HTTP answer to a ranged GET promises, from its Content-Range (206) or Content-Length (200).
 * @param end inclusive; undefined: the range was open.
 * @returns undefined when they are not the bytes that were asked for.
 */
export function promisedLength(
  start: number,
  end: number | undefined,
  { contentRange, contentLength }: { contentRange: string | undefined; contentLength: number | undefined },
): number | undefined {
  const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(contentRange ?? '')
  if (range) {
    const [first, last, size] = range.slice(1).map(Number) as [number, number, number]
    return first === start && last === Math.min(end ?? size, size - 1) ? last - first + 1 : undefined
  }
  // A store, or something before it, that knows no ranges gives the whole.
  const isWhole = start === 0 && (end === undefined || (contentLength ?? 0) <= end + 1)
  return isWhole ? contentLength : undefined
}

/**
 * Gathers a stream of exactly `length` bytes.
 * @throws StorageError INVALID when it ends before, which a stream of a range does at the object's end only.
 */
export async function collectRange(
  stream: Readable,
  length: number,
  names: { adapter: string; key: string },
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let used = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    used += chunk.copy(bytes, used)
  }
  if (used === length) return bytes
  throw rangePastEnd(names)
}

/** The error of a range that begins behind the end of its object. */
export function rangePastEnd(names: { adapter: string; key: string }): StorageError {
  const message = `The range passes the end of ${quoteKey(names.key)}.`
  return new StorageError(message, { code: 'INVALID', operation: 'readRange', ...names })
}

/** The error of a read that was to be of a version which is not there any more. */
export function replaced(names: { adapter: string; key: string }): StorageError {
  const message = `The object ${quoteKey(names.key)} was replaced.`
  return new StorageError(message, { code: 'CONFLICT', operation: 'read', ...names })
}

/**
 * `Storage.readRange` for an adapter that has its `createReadStream` and `stat` and nothing that would be shorter.
 * @throws what `Storage.readRange` says.
 */
export async function readRangeByStream(
  storage: Pick<Storage, 'adapter' | 'createReadStream' | 'stat'>,
  key: string,
  offset: number,
  length: number,
  options: CallOptions & { version?: string } = {},
): Promise<Buffer> {
  const names = { adapter: storage.adapter, key }
  checkExtent(offset, length, names)
  if (length > 0) {
    const range = { ...options, start: offset, end: offset + length - 1 }
    return collectRange(storage.createReadStream(key, range), length, names)
  }
  const { size, version } = await storage.stat(key, options)
  if (options.version !== undefined && options.version !== version) throw replaced(names)
  if (offset > size) throw rangePastEnd(names)
  return Buffer.alloc(0)
}
