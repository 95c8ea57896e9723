import { Readable } from 'node:stream'
import { TransformError } from './errors.ts'
import { INDEX_MAGIC, INDEX_MARKER, type IndexEntry, type IndexHead, readIndex } from './index-frame.ts'
import { ahead, type RangeSource } from './open-sealed.ts'
import { parseSeekFooter, SEEK_FOOTER_BYTES, SeekTable, SKIPPABLE_HEADER_BYTES } from './seek-table.ts'
import { FrameDecompressor } from './zstd-codec.ts'
import { defaultThreads, MAX_ZSTD_FRAME_BYTES } from './zstd-compress.ts'
import { type DataFrame, FrameWalker } from './zstd-walker.ts'

/** Compressed bytes of one frame, at most, for `d` bytes of content: what zstd's bound allows, and some flushes. */
const FRAME_SLACK_BYTES = 1024 * 1024
/** Content that is decompressed ahead, unless one frame alone is more. */
const AHEAD_BYTES = 64 * 1024 * 1024
/** The head is in the first few hundred bytes of the index: fetch little for it. */
const INDEX_FIRST_BYTES = 64 * 1024
const INDEX_READ_BYTES = 2 * 1024 * 1024

/** A zstd stream of which any range of the content can be read. */
export interface Seekable extends RangeSource {
  /** Frames in the seek table, the index among them. */
  readonly frames: number
  /** Whether there is an index of ours. */
  readonly hasIndex: boolean
  /** The index's head. @throws TransformError CORRUPT when there is no index, or it is broken. */
  head(): Promise<IndexHead>
  /** The archive's entries, in stream order, a block of lines at a time. */
  entries(): AsyncGenerator<IndexEntry>
  /**
   * The frames' content that covers the bytes from `start` to before `end`: where they begin and end. Two ranges whose
   * covers touch are read best as one.
   */
  cover(start: number, end: number): { start: number; end: number }
  /** Where a frame is, from 0: in the stream, and its content in all content. @throws RangeError past the last one. */
  frame(index: number): FrameExtent
  /** Lets go of what is cached. What is being read is read to its end. */
  close(): void
}

/** A frame of a seekable stream; offsets and lengths in bytes. */
export interface FrameExtent {
  /** Its offset in the zstd stream. */
  at: number
  /** Its length there. */
  bytes: number
  /** The offset of its content. */
  contentAt: number
  /** The length of its content; 0 for a skippable frame. */
  contentBytes: number
}

/**
 * Opens a seekable zstd stream by its seek table.
 * @param source layer 2: what `openSealed` gives, or the bytes of a `.zst`.
 * @returns null when the stream has no seek table, so that it can only be read whole.
 * @throws TransformError CORRUPT, LIMIT.
 */
export async function openSeekable(source: RangeSource): Promise<Seekable | null> {
  const footerBytes = Math.min(SEEK_FOOTER_BYTES, source.size)
  const footer = parseSeekFooter(await source.read(source.size - footerBytes, footerBytes), source.size)
  if (!footer) return null
  const bytes = await source.read(source.size - footer.frameBytes, footer.frameBytes)
  const table = new SeekTable(bytes, footer, source.size)
  return new SeekableFrames(source, table, await findIndex(source, table))
}

/** Whether the last frame before the seek table is an index of ours. */
async function findIndex(source: RangeSource, table: SeekTable): Promise<boolean> {
  const last = table.frames - 1
  const startBytes = SKIPPABLE_HEADER_BYTES + INDEX_MARKER.length
  if (last < 0 || table.decompressedBytes(last) !== 0 || table.compressedBytes(last) < startBytes) return false
  const start = await source.read(table.position(last).compressed, startBytes)
  return (
    start.readUInt32LE(0) === INDEX_MAGIC &&
    start.readUInt32LE(4) === table.compressedBytes(last) - SKIPPABLE_HEADER_BYTES &&
    start.subarray(SKIPPABLE_HEADER_BYTES).equals(INDEX_MARKER)
  )
}

class SeekableFrames implements Seekable {
  readonly size: number
  readonly frames: number
  readonly hasIndex: boolean
  readonly #source: RangeSource
  readonly #table: SeekTable
  readonly #free: FrameDecompressor[] = []
  /** Those that are kept for the next frame. */
  readonly #kept = new Set<FrameDecompressor>()

  constructor(source: RangeSource, table: SeekTable, hasIndex: boolean) {
    this.#source = source
    this.#table = table
    this.size = table.bytes
    this.frames = table.frames
    this.hasIndex = hasIndex
  }

  async head(): Promise<IndexHead> {
    const lines = readIndex(this.#indexPieces())
    try {
      return (await lines.next()).value as IndexHead
    } finally {
      await lines.return(undefined)
    }
  }

  async *entries(): AsyncGenerator<IndexEntry> {
    let first = true
    for await (const line of readIndex(this.#indexPieces())) {
      if (!first) yield line as IndexEntry
      first = false
    }
  }

  cover(start: number, end: number): { start: number; end: number } {
    this.#check(start, end)
    if (start === end) return { start, end }
    const last = this.#table.frameAt(end - 1)
    return {
      start: this.#table.position(this.#table.frameAt(start)).decompressed,
      end: this.#table.position(last).decompressed + this.#table.decompressedBytes(last),
    }
  }

  frame(index: number): FrameExtent {
    if (!Number.isInteger(index) || index < 0 || index >= this.frames) {
      throw new RangeError(`There is no frame ${index}: the stream has ${this.frames}.`)
    }
    const { compressed, decompressed } = this.#table.position(index)
    const [bytes, contentBytes] = [this.#table.compressedBytes(index), this.#table.decompressedBytes(index)]
    return { at: compressed, bytes, contentAt: decompressed, contentBytes }
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    for await (const piece of this.#pieces(offset, offset + length)) pieces.push(piece)
    return Buffer.concat(pieces, length)
  }

  createReadStream(start = 0, end = this.size): Readable {
    this.#check(start, end)
    return Readable.from(this.#pieces(start, end), { objectMode: false, highWaterMark: 64 * 1024 })
  }

  close(): void {
    for (const codec of this.#free.splice(0)) codec.close()
    // Closed under a read, one would give less than the frame holds, as if that were damaged: they end by themselves.
    this.#kept.clear()
  }

  #check(start: number, end: number): void {
    if (!(start >= 0 && start <= end && end <= this.size)) {
      throw new RangeError(`The range ${start} to ${end} is not within the ${this.size} bytes there are.`)
    }
  }

  async *#indexPieces(): AsyncGenerator<Buffer> {
    if (!this.hasIndex) throw new TransformError('CORRUPT', 'The stream has no index.')
    const { compressed } = this.#table.position(this.frames - 1)
    const start = compressed + SKIPPABLE_HEADER_BYTES
    const end = compressed + this.#table.compressedBytes(this.frames - 1)
    const first = Math.min(end, start + INDEX_FIRST_BYTES)
    yield await this.#source.read(start, first - start)
    // Read, a small index is still known when it is asked for again; streamed, a large one comes faster.
    if (end - first > INDEX_READ_BYTES) yield* this.#source.createReadStream(first, end)
    else if (first < end) yield await this.#source.read(first, end - first)
  }

  async *#pieces(start: number, end: number): AsyncGenerator<Buffer> {
    this.#check(start, end)
    if (start === end) return
    const first = this.#table.frameAt(start)
    let at = this.#table.position(first).decompressed
    for await (const content of this.#contents(first, this.#table.frameAt(end - 1))) {
      for (const buffer of content) {
        const piece = buffer.subarray(Math.max(0, start - at), Math.max(0, end - at))
        at += buffer.length
        if (piece.length > 0) yield piece
      }
    }
  }

  /** The content of neighbouring frames: their bytes are fetched as one stream, and decompressed several at a time. */
  async *#contents(first: number, last: number): AsyncGenerator<Buffer[]> {
    const table = this.#table
    const start = table.position(first).compressed
    const end = table.position(last).compressed + table.compressedBytes(last)
    let largest = 1
    for (let frame = first; frame <= last; frame += 1) {
      checkSizes(table.compressedBytes(frame), table.decompressedBytes(frame))
      largest = Math.max(largest, table.decompressedBytes(frame))
    }
    const depth = Math.min(defaultThreads() + 1, Math.max(1, Math.floor(AHEAD_BYTES / largest)))
    const cutter = new ExactReader(this.#source.createReadStream(start, end))
    let next = first
    // One read at a time, in order; what runs side by side is the decompression.
    let reading: Promise<unknown> = Promise.resolve()
    const begin = (): Promise<Buffer[]> | undefined => {
      if (next > last) return undefined
      const frame = next
      next += 1
      const bytes = reading.then(() => cutter.read(table.compressedBytes(frame)))
      reading = bytes
      const work = bytes.then((whole) => this.#decompress(whole, table.decompressedBytes(frame)))
      work.catch(() => {})
      return work
    }
    try {
      yield* ahead(begin, depth)
    } finally {
      reading.catch(() => {})
      cutter.close()
    }
  }

  async #decompress(bytes: Buffer, contentBytes: number): Promise<Buffer[]> {
    if (contentBytes === 0) return []
    checkFrame(bytes, contentBytes)
    let codec = this.#free.pop()
    if (!codec || codec.maxBytes < contentBytes) {
      if (codec) this.#letGo(codec)
      codec = new FrameDecompressor(contentBytes)
      this.#kept.add(codec)
    }
    try {
      const output = await codec.decompress(bytes, contentBytes)
      if (this.#kept.has(codec)) this.#free.push(codec)
      else codec.close()
      return output
    } catch (error) {
      this.#letGo(codec)
      throw error
    }
  }

  #letGo(codec: FrameDecompressor): void {
    this.#kept.delete(codec)
    codec.close()
  }
}

/** Takes pieces of exact lengths out of a stream. */
class ExactReader {
  readonly #stream: Readable
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(stream: Readable) {
    this.#stream = stream
    this.#chunks = stream[Symbol.asyncIterator]()
  }

  async read(length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(length)
    let held = 0
    while (held < length) {
      if (this.#rest.length === 0) {
        const next = await this.#chunks.next()
        if (next.done) throw new TransformError('TRUNCATED', 'The stream ends before its frames do.')
        this.#rest = next.value
      }
      const copied = this.#rest.copy(bytes, held)
      this.#rest = this.#rest.subarray(copied)
      held += copied
    }
    return bytes
  }

  close(): void {
    this.#stream.destroy()
  }
}

/** @throws TransformError LIMIT for a frame that is too large to hold. */
function checkSizes(compressedBytes: number, contentBytes: number): void {
  if (contentBytes > MAX_ZSTD_FRAME_BYTES || compressedBytes > contentBytes * 2 + FRAME_SLACK_BYTES) {
    throw new TransformError(
      'LIMIT',
      `A frame of ${compressedBytes} bytes for ${contentBytes} of content is too large to read by itself. Restore the whole snapshot.`,
    )
  }
}

/** @throws TransformError CORRUPT unless `bytes` is exactly one data frame that says and can hold `contentBytes`. */
function checkFrame(bytes: Buffer, contentBytes: number): void {
  let frame: DataFrame | undefined
  let ended = false
  const walker = new FrameWalker({
    begin: (found) => {
      if (found.kind === 'data') frame = found
    },
    bytes: () => {},
    end: (blockLimit) => {
      ended = blockLimit >= contentBytes
    },
  })
  const taken = walker.push(bytes, 0)
  const size = frame?.contentBytes
  if (!frame || !ended || taken !== bytes.length || (size !== null && size !== contentBytes)) {
    throw new TransformError('CORRUPT', 'A frame is not what the seek table says: the stream is damaged.')
  }
}
