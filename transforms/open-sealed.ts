import { Readable } from 'node:stream'
import {
  FRAME_OVERHEAD_BYTES,
  frameCount,
  type Opener,
  type PreparedOpener,
  plainSize,
  prepareOpener,
} from './container.ts'
import { TransformError } from './errors.ts'
import { HEADER_BYTES, type Header, parseHeader } from './header.ts'
import type { ReadKeys } from './keys.ts'

/** Reads exactly `length` bytes from `offset` of an object; more than one call may be under way. */
export type ReadRange = (offset: number, length: number) => Promise<Buffer>

/** Sealed bytes fetched in one range, at most (a little more, so that frames stay whole). */
export const RANGE_BYTES = 4 * 1024 * 1024
/** Ranges under way at a time. */
export const RANGES_AHEAD = 3

/** Plaintext that `read` keeps, so that neighbouring small reads (a footer, a table, an index) fetch a frame once. */
const CACHE_BYTES = 4 * 1024 * 1024

/** Plaintext of which any range can be read. */
export interface RangeSource {
  /** Bytes of plaintext. */
  readonly size: number
  /**
   * Reads exactly `length` bytes from `offset`.
   * @throws RangeError past the end.
   */
  read(offset: number, length: number): Promise<Buffer>
  /** Streams the bytes from `start` to before `end`: ranges of about 4 MiB, three at a time, in order. */
  createReadStream(start?: number, end?: number): Readable
}

export interface Sealed extends RangeSource {
  readonly header: Header
  /** Wipes the keys. What is read after that, or was under way, fails with an Error that says so. */
  close(): void
}

/**
 * Opens a container for ranged reading. It reads the header and the last frame, and authenticates both, before it
 * trusts the object's length.
 * @param size the object's length in bytes.
 * @throws TransformError as `createDecrypt` does; what `readRange` throws.
 */
export async function openSealed(readRange: ReadRange, size: number, material: ReadKeys): Promise<Sealed> {
  const prepare = prepareOpener(material)
  const header = parseHeader(await readRange(0, Math.min(size, HEADER_BYTES)))
  const plainBytes = plainSize(size, header.frameBytes)
  const opener = await prepare(header)
  const sealed = new SealedRanges(readRange, size, plainBytes, opener)
  const last = frameCount(plainBytes, header.frameBytes) - 1
  sealed.keep(last, ...(await sealed.openFrames(last, 1)))
  return sealed
}

/**
 * As `prepareOpener` of the same material, without deriving the keys again.
 * @param sealed what `openSealed` gave of the same object, not closed yet when the header comes.
 */
export function prepareOpenerOf(sealed: Sealed, material: ReadKeys): PreparedOpener {
  return prepareOpener(material, sealed instanceof SealedRanges ? sealed.opener : undefined)
}

class SealedRanges implements Sealed {
  readonly header: Header
  readonly size: number
  readonly #readRange: ReadRange
  readonly #sealedBytes: number
  readonly opener: Opener
  readonly #cache = new Map<number, Buffer>()

  constructor(readRange: ReadRange, sealedBytes: number, plainBytes: number, opener: Opener) {
    this.#readRange = readRange
    this.#sealedBytes = sealedBytes
    this.opener = opener
    this.header = opener.header
    this.size = plainBytes
  }

  /** Fetches and authenticates whole frames in one range. @returns their plaintext. */
  async openFrames(first: number, count: number): Promise<Buffer[]> {
    const whole = this.header.frameBytes + FRAME_OVERHEAD_BYTES
    const start = HEADER_BYTES + first * whole
    const end = Math.min(start + count * whole, this.#sealedBytes)
    const bytes = await readExactly(this.#readRange, start, end - start)
    const plain: Buffer[] = []
    for (let at = 0; at < bytes.length; at += whole) {
      plain.push(this.opener.open(first + plain.length, bytes.subarray(at, Math.min(at + whole, bytes.length))))
    }
    return plain
  }

  /** Remembers frames from `first` on, and forgets those that were used longest ago. */
  keep(first: number, ...frames: Buffer[]): void {
    for (const [i, frame] of frames.entries()) {
      this.#cache.delete(first + i)
      this.#cache.set(first + i, frame)
    }
    const most = Math.max(1, Math.floor(CACHE_BYTES / this.header.frameBytes))
    for (const old of this.#cache.keys()) {
      if (this.#cache.size <= most) break
      this.#cache.delete(old)
    }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const end = offset + length
    checkRange(offset, end, this.size)
    if (length === 0) return Buffer.alloc(0)
    const { frameBytes } = this.header
    const first = Math.floor(offset / frameBytes)
    const last = Math.floor((end - 1) / frameBytes)
    const frames: Buffer[] = []
    for (let next = first; next <= last; ) {
      const known = this.#cache.get(next)
      let count = 1
      while (!known && next + count <= last && !this.#cache.has(next + count)) count += 1
      const found = known ? [known] : await this.openFrames(next, count)
      frames.push(...found)
      next += found.length
    }
    this.keep(first, ...frames)
    const all = frames.length === 1 ? (frames[0] as Buffer) : Buffer.concat(frames)
    return all.subarray(offset - first * frameBytes, end - first * frameBytes)
  }

  createReadStream(start = 0, end = this.size): Readable {
    checkRange(start, end, this.size)
    return Readable.from(this.#pieces(start, end), { objectMode: false, highWaterMark: 64 * 1024 })
  }

  close(): void {
    this.#cache.clear()
    this.opener.wipe()
  }

  async *#pieces(start: number, end: number): AsyncGenerator<Buffer> {
    if (end <= start) return
    const { frameBytes } = this.header
    const last = Math.floor((end - 1) / frameBytes)
    const step = Math.max(1, Math.floor(RANGE_BYTES / frameBytes))
    let next = Math.floor(start / frameBytes)
    let at = next * frameBytes
    const fetch = (): Promise<Buffer[]> | undefined => {
      if (next > last) return undefined
      const count = Math.min(step, last - next + 1)
      const frames = this.openFrames(next, count)
      frames.catch(() => {})
      next += count
      return frames
    }
    for await (const frames of ahead(fetch, RANGES_AHEAD)) {
      for (const frame of frames) {
        const piece = frame.subarray(Math.max(0, start - at), Math.max(0, end - at))
        at += frame.length
        if (piece.length > 0) yield piece
      }
    }
  }
}

/** Keeps up to `depth` of what `begin` starts under way, and gives the results in order. */
export async function* ahead<T>(begin: () => Promise<T> | undefined, depth: number): AsyncGenerator<T> {
  const queue: Promise<T>[] = []
  const fill = () => {
    while (queue.length < depth) {
      const one = begin()
      if (!one) return
      queue.push(one)
    }
  }
  fill()
  for (let head = queue.shift(); head; head = queue.shift()) {
    const result = await head
    fill()
    yield result
  }
}

function checkRange(start: number, end: number, size: number): void {
  if (!(Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end && end <= size)) {
    throw new RangeError(`The range ${start} to ${end} is not within the ${size} bytes there are.`)
  }
}

async function readExactly(readRange: ReadRange, offset: number, length: number): Promise<Buffer> {
  const bytes = await readRange(offset, length)
  if (bytes.length === length) return bytes
  throw new TransformError('TRUNCATED', `A read of ${length} bytes gave ${bytes.length}: the object was cut.`)
}

/**
 * The same for bytes that are not sealed. A range of another length than was asked for is a TransformError TRUNCATED.
 * @param size the object's length in bytes.
 */
export function openPlain(readRange: ReadRange, size: number): RangeSource {
  async function* pieces(start: number, end: number): AsyncGenerator<Buffer> {
    let next = start
    const fetch = () => {
      if (next >= end) return undefined
      const range = readExactly(readRange, next, Math.min(RANGE_BYTES, end - next))
      range.catch(() => {})
      next += RANGE_BYTES
      return range
    }
    yield* ahead(fetch, RANGES_AHEAD)
  }
  return {
    size,
    read(offset, length) {
      checkRange(offset, offset + length, size)
      return length === 0 ? Promise.resolve(Buffer.alloc(0)) : readExactly(readRange, offset, length)
    },
    createReadStream(start = 0, end = size) {
      checkRange(start, end, size)
      return Readable.from(pieces(start, end), { objectMode: false, highWaterMark: 64 * 1024 })
    },
  }
}
