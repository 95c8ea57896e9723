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
  close(): void
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
  const last = table.frames - 1
  let hasIndex = false
  if (
    last >= 0 &&
    table.decompressedBytes(last) === 0 &&
    table.compressedBytes(last) > SKIPPABLE_HEADER_BYTES + INDEX_MARKER.length
  ) {
    const start = await source.read(table.position(last).compressed, SKIPPABLE_HEADER_BYTES + INDEX_MARKER.length)
    hasIndex =
      start.readUInt32LE(0) === INDEX_MAGIC &&
      start.readUInt32LE(4) === table.compressedBytes(last) - SKIPPABLE_HEADER_BYTES &&
      start.subarray(SKIPPABLE_HEADER_BYTES).equals(INDEX_MARKER)
  }
  return new SeekableFrames(source, table, hasIndex)
}

class SeekableFrames implements Seekable {
  readonly size: number
  readonly frames: number
  readonly hasIndex: boolean
  readonly #source: RangeSource
  readonly #table: SeekTable
  readonly #free: FrameDecompressor[] = []
  readonly #open = new Set<FrameDecompressor>()

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

  async read(offset: number, length: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    for await (const piece of this.#pieces(offset, offset + length)) pieces.push(piece)
    return Buffer.concat(pieces, length)
  }

  createReadStream(start = 0, end = this.size): Readable {
    return Readable.from(this.#pieces(start, end), { objectMode: false, highWaterMark: 64 * 1024 })
  }

  close(): void {
    for (const codec of this.#open) codec.close()
    this.#open.clear()
  }

  async *#indexPieces(): AsyncGenerator<Buffer> {
    if (!this.hasIndex) throw new TransformError('CORRUPT', 'The stream has no index.')
    const { compressed } = this.#table.position(this.frames - 1)
    const end = compressed + this.#table.compressedBytes(this.frames - 1)
    // The head is in the first few hundred bytes: fetch little, then more.
    const first = Math.min(end, compressed + SKIPPABLE_HEADER_BYTES + 64 * 1024)
    yield await this.#source.read(compressed + SKIPPABLE_HEADER_BYTES, first - compressed - SKIPPABLE_HEADER_BYTES)
    if (first < end) yield* this.#source.createReadStream(first, end)
  }

  async *#pieces(start: number, end: number): AsyncGenerator<Buffer> {
    if (!(start >= 0 && start <= end && end <= this.size)) {
      throw new RangeError(`The range ${start} to ${end} is not within the ${this.size} bytes there are.`)
    }
    if (start === end) return
    const table = this.#table
    let frame = table.frameAt(start)
    let { compressed, decompressed: at } = table.position(frame)
    let begun = at
    const begin = (): Promise<Buffer[]> | undefined => {
      if (begun >= end) return undefined
      const work = this.#frame(compressed, table.compressedBytes(frame), table.decompressedBytes(frame))
      work.catch(() => {})
      compressed += table.compressedBytes(frame)
      begun += table.decompressedBytes(frame)
      frame += 1
      return work
    }
    for await (const buffers of ahead(begin, defaultThreads() + 1)) {
      for (const buffer of buffers) {
        const piece = buffer.subarray(Math.max(0, start - at), Math.max(0, end - at))
        at += buffer.length
        if (piece.length > 0) yield piece
      }
    }
  }

  async #frame(offset: number, compressedBytes: number, contentBytes: number): Promise<Buffer[]> {
    if (contentBytes > MAX_ZSTD_FRAME_BYTES || compressedBytes > contentBytes * 2 + FRAME_SLACK_BYTES) {
      throw new TransformError(
        'LIMIT',
        `A frame of ${compressedBytes} bytes for ${contentBytes} of content is too large to read by itself. Restore the whole snapshot.`,
      )
    }
    const bytes = await this.#source.read(offset, compressedBytes)
    if (contentBytes === 0) return []
    checkFrame(bytes, contentBytes)
    let codec = this.#free.pop()
    if (!codec || codec.maxBytes < contentBytes) {
      codec?.close()
      codec = new FrameDecompressor(contentBytes)
      this.#open.add(codec)
    }
    const output = await codec.decompress(bytes, contentBytes)
    this.#free.push(codec)
    return output
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
