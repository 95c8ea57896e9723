import { constants } from 'node:buffer'
import { addAbortSignal, Readable } from 'node:stream'
import { StorageError, type StorageErrorCode } from './errors.ts'
import { freeMemory } from './free.ts'
import { checkKey, quoteKey } from './keys.ts'
import { checkRange } from './read.ts'
import type { ReadOptions, Storage } from './storage.ts'

/** Requests at once where nothing else is asked for. */
export const READ_CONNECTIONS = 4
/** The bytes that one of these requests asks for. */
export const READ_RANGE_BYTES = 8 * 1024 * 1024
/** The most that a parallel read holds at the defaults: a buffer of one range for each request. */
export const READ_RING_BYTES = READ_CONNECTIONS * READ_RANGE_BYTES

/** The share of its time that a reader has to wait for another request to be worth it. */
const WAITING_SHARE = 0.5

/** One connection that brings so much a second is no slower than what is done with the bytes. */
const FAST_BYTES_PER_SECOND = 200 * 1024 * 1024
/** How long, or how much, one connection is looked at before it is judged. */
const JUDGED_MS = 500
const JUDGED_BYTES = 32 * 1024 * 1024

/** What is copied out of the ring at a time. */
const PIECE_BYTES = 256 * 1024

/** What `readParallel` is told beside the key. */
export interface ParallelReadOptions extends ReadOptions {
  /** Requests at once, at most. Default READ_CONNECTIONS. */
  connections?: number | undefined
  /** Bytes of one request. Default READ_RANGE_BYTES. The memory is `connections` times this, at most. */
  rangeBytes?: number | undefined
  /**
   * Begin with one request for all of it; where the reader waits for the store more than it works, end that one early and
   * go on by ranges, with up to `connections` at once. Where one connection is as fast as the reader, several only
   * cost. Default false.
   */
  grow?: boolean | undefined
  /** The object's size, from the `stat` that gave `version`. Both together save another `stat`. */
  size?: number | undefined
}

/**
 * Reads an object, or a range of it, by several ranged requests at once, and gives its bytes in order: for stores where
 * one connection brings less than the line carries. Each range is a read stream of the storage, which resumes and
 * retries as that storage does, and all of them are pinned to one version.
 *
 * The first range that is not yet read goes straight through; the ones after it are gathered in a ring of
 * `connections` buffers of `rangeBytes`, which are allocated when first needed and used again. Nothing beyond the ring
 * is asked for while the reader does not read. What fits one range is one request. Where the store gives no version,
 * nothing would keep two ranges to one object, and it is read by one stream.
 * @returns a stream of exactly the bytes asked for. The first range that fails ends it, also one ahead of the reader.
 *   `close` comes when every request is over.
 * @throws StorageError INVALID for a bad key, a range that is none, or a number of connections or bytes below 1.
 *   The stream fails with NOT_FOUND, CONFLICT when the object was replaced meanwhile, and whatever a read fails with.
 */
export function readParallel(storage: Storage, key: string, options: ParallelReadOptions = {}): Readable {
  const { adapter } = storage
  checkKey(key, adapter, 'readParallel')
  checkRange(options, { adapter, key })
  const { connections = READ_CONNECTIONS, rangeBytes = READ_RANGE_BYTES } = options
  const isCount = (value: number, most: number) => Number.isSafeInteger(value) && value >= 1 && value <= most
  if (!isCount(connections, Number.MAX_SAFE_INTEGER) || !isCount(rangeBytes, constants.MAX_LENGTH)) {
    const message = `There is no reading by ${connections} connections in ranges of ${rangeBytes} bytes: both count from 1.`
    throw new StorageError(message, { code: 'INVALID', adapter, operation: 'readParallel', key })
  }
  return new ParallelReadable(storage, key, { ...options, connections, rangeBytes })
}

type Settings = ParallelReadOptions & { connections: number; rangeBytes: number }

/** What is to be read, in ranges of `rangeBytes`. */
interface Plan {
  next: number
  /** One past the last byte; undefined: one stream to the object's end. */
  stop: number | undefined
  version: string | undefined
}

/** One range on its way. */
interface Range {
  stream: Readable
  start: number
  /** Bytes that it is to have; undefined: what there is. */
  length: number | undefined
  arrived: number
  ended: boolean
  /** From the ring, once bytes came that could not be passed on: `filled` of it are theirs, `given` were passed on. */
  buffer: Buffer | undefined
  filled: number
  given: number
  /** Longer than a buffer of the ring: all of it goes straight through. */
  isLong: boolean
  /** Its length was cut: what comes after it is not wanted. */
  isCut: boolean
}

class ParallelReadable extends Readable {
  readonly #storage: Storage
  readonly #key: string
  readonly #settings: Settings
  readonly #abort = new AbortController()
  /** In the order of their bytes; the first is the one that the reader is at. */
  readonly #ranges: Range[] = []
  /** A request is over at its stream's close, which comes after its end. */
  readonly #open = new Set<Readable>()
  /** The buffers of the ring that no range has. */
  readonly #free: Buffer[] = []
  #plan: Plan | undefined
  #planning: Promise<void> | undefined
  #wanted = false
  #delivering = false
  /** Requests at once, at present. */
  #allowed: number
  /** Since it was judged last: when that was, what was given, how long the reader has waited, and since when it does. */
  #pace = { since: performance.now(), bytes: 0, waitedMs: 0, waitingSince: undefined as number | undefined }

  constructor(storage: Storage, key: string, settings: Settings) {
    super({ highWaterMark: PIECE_BYTES })
    this.#storage = storage
    this.#key = key
    this.#settings = settings
    this.#allowed = settings.grow ? 1 : settings.connections
    // Last: a signal that has fired already destroys at once, and _destroy needs the fields above.
    if (settings.signal) addAbortSignal(settings.signal, this)
  }

  override _read(): void {
    this.#wanted = true
    this.#pace.waitingSince ??= performance.now()
    if (this.#plan) this.#deliver()
    else this.#planning ??= this.#begin()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#abort.abort()
    const closes = [...this.#open].map((stream) => closed(stream.destroy()))
    Promise.all([this.#planning, ...closes]).then(() => {
      this.#ranges.length = 0
      this.#free.length = 0
      callback(error)
    })
  }

  async #begin(): Promise<void> {
    try {
      const plan = await this.#makePlan()
      if (this.destroyed) return
      this.#plan = plan
      this.#deliver()
    } catch (error) {
      this.destroy(error as Error)
    }
  }

  async #makePlan(): Promise<Plan> {
    const { start = 0, end, version, size, connections, rangeBytes } = this.#settings
    const fitsOne = end !== undefined && end - start < rangeBytes
    if (fitsOne || connections === 1) return { next: start, stop: undefined, version }
    const known = size !== undefined && version !== undefined ? { size, version } : await this.#find()
    if (known.version === undefined) return { next: start, stop: undefined, version }
    if (version !== undefined && version !== known.version) throw this.#error('CONFLICT', 'was replaced')
    const stop = Math.min(end ?? Number.POSITIVE_INFINITY, known.size - 1) + 1
    return { next: start, stop: Math.max(start, stop), version: known.version }
  }

  #find(): Promise<{ size: number; version?: string }> {
    return this.#storage.stat(this.#key, { signal: this.#abort.signal })
  }

  /** Asks for as many ranges as may be on their way at once. */
  #fill(plan: Plan): void {
    const { rangeBytes, end } = this.#settings
    if (plan.stop === undefined) {
      this.#request(plan, plan.next, end, undefined)
      plan.stop = plan.next
      return
    }
    if (this.#allowed === 1 && this.#settings.grow) {
      if (this.#ranges.length > 0 || plan.next === plan.stop) return
      this.#request(plan, plan.next, plan.stop - 1, plan.stop - plan.next)
      plan.next = plan.stop
      return
    }
    while (Math.max(this.#ranges.length, this.#open.size) < this.#allowed && plan.next < plan.stop && !this.destroyed) {
      const length = Math.min(rangeBytes, plan.stop - plan.next)
      this.#request(plan, plan.next, plan.next + length - 1, length)
      plan.next += length
    }
  }

  #request({ version }: Plan, start: number, end: number | undefined, length: number | undefined): void {
    const options: ReadOptions = { start }
    if (end !== undefined) options.end = end
    if (version !== undefined) options.version = version
    const stream = this.#storage.createReadStream(this.#key, options)
    const isLong = length !== undefined && length > this.#settings.rangeBytes
    const range: Range = {
      ...{ stream, start, length, isLong, isCut: false },
      ...{ arrived: 0, ended: false, buffer: undefined, filled: 0, given: 0 },
    }
    this.#ranges.push(range)
    this.#open.add(stream)
    stream.on('data', (chunk: Buffer) => this.#take(range, chunk))
    stream.on('end', () => this.#end(range))
    stream.on('error', (error) => this.destroy(error))
    stream.on('close', () => {
      this.#open.delete(stream)
      if (range.ended) this.#deliver()
      else this.destroy(this.#error('UNAVAILABLE', `broke off at byte ${start + range.arrived}`))
    })
  }

  #take(range: Range, arrived: Buffer): void {
    if (this.destroyed || (range.isCut && range.ended)) return
    const chunk = range.isCut ? arrived.subarray(0, (range.length as number) - range.arrived) : arrived
    range.arrived += chunk.length
    if (range.length !== undefined && range.arrived > range.length) {
      this.destroy(this.#error('CORRUPT', `brought more than the ${range.length} bytes from ${range.start}`))
      return
    }
    const isFirst = range === this.#ranges[0]
    const mustPass = range.length === undefined || range.isLong
    if (isFirst && range.given === range.filled && (this.#wanted || mustPass)) {
      if (!this.#give(chunk)) range.stream.pause()
      if (range.isLong) this.#passedLong(range)
      return
    }
    range.buffer ??= this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bufferBytes(range))
    range.filled += chunk.copy(range.buffer, range.filled)
    if (this.#storage.ownedReads) freeMemory(chunk)
    if (isFirst) this.#deliver()
  }

  /** After a piece of the one long range: whether to go on by several. */
  #passedLong(range: Range): void {
    const plan = this.#plan as Plan
    const { rangeBytes } = this.#settings
    if (range.isCut && range.arrived === range.length) {
      // Its close goes on with the next range.
      range.ended = true
      range.stream.destroy()
      return
    }
    const { since, bytes } = this.#pace
    if (range.isCut || (bytes < JUDGED_BYTES && performance.now() - since < JUDGED_MS)) return
    this.#judgePace()
    const length = range.arrived + rangeBytes
    if (this.#allowed === 1 || length >= (range.length as number)) return
    range.isCut = true
    range.length = length
    plan.next = range.start + length
    this.#fill(plan)
  }

  /** Less than a range only where there is but one buffer's worth to come. */
  #bufferBytes({ start, length }: Range): number {
    const { rangeBytes } = this.#settings
    const isLast = this.#plan !== undefined && start + length! === this.#plan.stop
    return isLast ? length! : rangeBytes
  }

  #end(range: Range): void {
    range.ended = true
    if (range.length !== undefined && range.arrived !== range.length) {
      const what = `ended after ${range.arrived} of the ${range.length} bytes from ${range.start}`
      this.destroy(this.#error('CORRUPT', what))
      return
    }
    this.#deliver()
  }

  /** Gives what has arrived, in order, as long as the reader wants some. */
  #deliver(): void {
    if (this.#delivering) return
    this.#delivering = true
    try {
      this.#deliverOn()
    } catch (error) {
      this.destroy(error as Error)
    } finally {
      this.#delivering = false
    }
  }

  #deliverOn(): void {
    const plan = this.#plan!
    this.#fill(plan)
    while (this.#wanted && !this.destroyed) {
      const range = this.#ranges[0]
      if (range === undefined) {
        if (plan.next === plan.stop) this.push(null)
        break
      }
      if (range.given < range.filled) {
        const until = Math.min(range.given + PIECE_BYTES, range.filled)
        // A copy: the buffer is used again, and the piece is the reader's own.
        const piece = Buffer.allocUnsafeSlow(until - range.given)
        range.buffer!.copy(piece, 0, range.given, until)
        range.given = until
        this.#give(piece)
      } else if (range.ended) {
        this.#ranges.shift()
        if (range.buffer) this.#free.push(range.buffer)
        this.#judgePace()
        this.#fill(plan)
      } else {
        range.stream.resume()
        break
      }
    }
  }

  #give(chunk: Buffer): boolean {
    const now = performance.now()
    this.#pace.bytes += chunk.length
    this.#pace.waitedMs += now - (this.#pace.waitingSince ?? now)
    this.#pace.waitingSince = undefined
    // push may ask for more before it returns.
    this.#wanted = false
    if (this.push(chunk)) this.#wanted = true
    if (this.#wanted) this.#pace.waitingSince ??= performance.now()
    return this.#wanted
  }

  #judgePace(): void {
    const now = performance.now()
    const { since, bytes, waitedMs, waitingSince = now } = this.#pace
    const isWaiting = waitedMs + now - waitingSince > (now - since) * WAITING_SHARE
    const isFast = this.#allowed === 1 && bytes * 1000 > (now - since) * FAST_BYTES_PER_SECOND
    if (isWaiting && !isFast && this.#allowed < this.#settings.connections) this.#allowed++
    this.#pace = { since: now, bytes: 0, waitedMs: 0, waitingSince: this.#wanted ? now : undefined }
  }

  #error(code: StorageErrorCode, what: string): StorageError {
    const { adapter } = this.#storage
    const message = `The object ${quoteKey(this.#key)} ${what}.`
    return new StorageError(message, { code, adapter, operation: 'read', key: this.#key })
  }
}

function closed(stream: Readable): Promise<void> | undefined {
  if (stream.closed) return undefined
  return new Promise((resolve) => stream.once('close', () => resolve()))
}
