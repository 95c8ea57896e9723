import { TransformError } from './errors.ts'

// 'Zstandard Seekable Format', facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md:
// a skippable frame of one entry a frame (compressed size, decompressed size, both 32 bits) and a footer.

export const SKIPPABLE_HEADER_BYTES = 8
export const SEEK_TABLE_MAGIC = 0x184d2a5e
export const SEEK_FOOTER_BYTES = 9
export const SEEK_FOOTER_MAGIC = 0x8f92eab1
export const SEEK_ENTRY_BYTES = 8
export const MAX_SEEK_ENTRIES = 2 ** 27
export const SEEK_CHECKSUM_FLAG = 0x80
export const SEEK_RESERVED_BITS = 0x7c
const ENTRIES_AT_ONCE = 8192

/** Collects the sizes of the frames as they are written: 8 bytes each. */
export class SeekTableBuilder {
  readonly #blocks: Buffer[] = []
  #entries = 0

  /** @throws TransformError LIMIT after 2^27 frames. */
  add(compressedBytes: number, decompressedBytes: number): void {
    if (this.#entries === MAX_SEEK_ENTRIES) {
      throw new TransformError(
        'LIMIT',
        'A stream holds at most 2^27 zstd frames. Use larger frames, or split the source.',
      )
    }
    const at = this.#entries % ENTRIES_AT_ONCE
    if (at === 0) this.#blocks.push(Buffer.allocUnsafe(ENTRIES_AT_ONCE * SEEK_ENTRY_BYTES))
    const block = this.#blocks[this.#blocks.length - 1] as Buffer
    block.writeUInt32LE(compressedBytes, at * SEEK_ENTRY_BYTES)
    block.writeUInt32LE(decompressedBytes, at * SEEK_ENTRY_BYTES + 4)
    this.#entries += 1
  }

  /** @returns the whole skippable frame. */
  finish(): Buffer[] {
    const last = this.#entries % ENTRIES_AT_ONCE
    if (last > 0) this.#blocks.push((this.#blocks.pop() as Buffer).subarray(0, last * SEEK_ENTRY_BYTES))
    const footer = Buffer.alloc(SEEK_FOOTER_BYTES)
    footer.writeUInt32LE(this.#entries, 0)
    footer.writeUInt32LE(SEEK_FOOTER_MAGIC, 5)
    return [
      skippableHeader(SEEK_TABLE_MAGIC, this.#entries * SEEK_ENTRY_BYTES + SEEK_FOOTER_BYTES),
      ...this.#blocks,
      footer,
    ]
  }
}

/** The 8 bytes before a skippable frame's payload (RFC 8878, 3.1.2). */
export function skippableHeader(magic: number, payloadBytes: number): Buffer {
  const header = Buffer.alloc(SKIPPABLE_HEADER_BYTES)
  header.writeUInt32LE(magic, 0)
  header.writeUInt32LE(payloadBytes, 4)
  return header
}

export interface SeekFooter {
  entries: number
  /** 8, or 12 with checksums. */
  entryBytes: number
  /** The whole skippable frame. */
  frameBytes: number
}

/**
 * Reads the last 9 bytes of a stream.
 * @param streamBytes the stream's length, which bounds the table.
 * @returns null when there is no seek table.
 * @throws TransformError LIMIT for more than 2^27 entries, CORRUPT for a table longer than the stream.
 */
export function parseSeekFooter(footer: Buffer, streamBytes: number): SeekFooter | null {
  if (footer.length < SEEK_FOOTER_BYTES || footer.readUInt32LE(5) !== SEEK_FOOTER_MAGIC) return null
  const entries = footer.readUInt32LE(0)
  const descriptor = footer[4] as number
  if (descriptor & SEEK_RESERVED_BITS) corruptSeekTable('its descriptor has reserved bits set')
  if (entries > MAX_SEEK_ENTRIES) {
    throw new TransformError(
      'LIMIT',
      `The seek table says ${entries} frames, and 2^27 are allowed: it is damaged, or made to harm.`,
    )
  }
  const entryBytes = descriptor & SEEK_CHECKSUM_FLAG ? SEEK_ENTRY_BYTES + 4 : SEEK_ENTRY_BYTES
  const frameBytes = SKIPPABLE_HEADER_BYTES + entries * entryBytes + SEEK_FOOTER_BYTES
  if (frameBytes > streamBytes) corruptSeekTable(`it is longer than the stream (${frameBytes} of ${streamBytes} bytes)`)
  return { entries, entryBytes, frameBytes }
}

/** The sizes of all frames, and the way from an offset to its frame. Holds 8 bytes a frame. */
export class SeekTable {
  readonly frames: number
  /** The sum of the decompressed sizes. */
  readonly bytes: number
  readonly #entries: Buffer
  readonly #entryBytes: number
  // The sums at every 1024th frame, so that finding a frame takes one short walk.
  readonly #marks: { compressed: number; decompressed: number }[] = []

  /**
   * @param table the whole skippable frame.
   * @param streamBytes the stream's length: the frames and the table must fill it exactly.
   * @throws TransformError CORRUPT.
   */
  constructor(table: Buffer, footer: SeekFooter, streamBytes: number) {
    if (table.readUInt32LE(0) !== SEEK_TABLE_MAGIC || table.readUInt32LE(4) !== table.length - SKIPPABLE_HEADER_BYTES) {
      corruptSeekTable('its own header does not fit its footer')
    }
    this.frames = footer.entries
    this.#entries = table.subarray(SKIPPABLE_HEADER_BYTES)
    this.#entryBytes = footer.entryBytes
    let compressed = 0
    let decompressed = 0
    for (let i = 0; i < this.frames; i += 1) {
      if (i % 1024 === 0) this.#marks.push({ compressed, decompressed })
      compressed += this.compressedBytes(i)
      decompressed += this.decompressedBytes(i)
    }
    if (compressed + table.length !== streamBytes) {
      corruptSeekTable(`its frames are ${compressed} bytes, and the stream has ${streamBytes - table.length}`)
    }
    this.bytes = decompressed
  }

  compressedBytes(frame: number): number {
    return this.#entries.readUInt32LE(frame * this.#entryBytes)
  }

  decompressedBytes(frame: number): number {
    return this.#entries.readUInt32LE(frame * this.#entryBytes + 4)
  }

  /** Where a frame begins, in the stream and in its content. */
  position(frame: number): { compressed: number; decompressed: number } {
    const mark = Math.min(Math.floor(frame / 1024), this.#marks.length - 1)
    let { compressed, decompressed } = this.#marks[mark] ?? { compressed: 0, decompressed: 0 }
    for (let i = mark * 1024; i < frame; i += 1) {
      compressed += this.compressedBytes(i)
      decompressed += this.decompressedBytes(i)
    }
    return { compressed, decompressed }
  }

  /** The frame that holds the content byte at `offset`, which must be below `bytes`. */
  frameAt(offset: number): number {
    let low = 0
    let high = this.#marks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if ((this.#marks[middle]?.decompressed ?? 0) <= offset) low = middle
      else high = middle - 1
    }
    let frame = low * 1024
    let end = (this.#marks[low]?.decompressed ?? 0) + this.decompressedBytes(frame)
    while (end <= offset) {
      frame += 1
      end += this.decompressedBytes(frame)
    }
    return frame
  }
}

export function corruptSeekTable(what: string): never {
  throw new TransformError('CORRUPT', `The seek table is wrong: ${what}.`)
}
