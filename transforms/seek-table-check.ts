import { createHash } from 'node:crypto'
import {
  corruptSeekTable,
  SEEK_CHECKSUM_FLAG,
  SEEK_ENTRY_BYTES,
  SEEK_FOOTER_BYTES,
  SEEK_FOOTER_MAGIC,
  SEEK_RESERVED_BITS,
  SEEK_TABLE_MAGIC,
  SKIPPABLE_HEADER_BYTES,
} from './seek-table.ts'
import type { SkippableFrame } from './zstd-walker.ts'

/** A frame in stream order, whose content size may still be unknown. */
export interface FrameRecord {
  compressed: number
  decompressed: number | undefined
}

interface TableRecord {
  entries: number
  digest: Buffer
  /** What is wrong with its descriptor. */
  fault: string | undefined
}

/**
 * Compares a stream's seek table with the frames that were really there, in constant memory: both sides are hashed.
 * A table that is not the last frame describes the frames before it, as in two files put one after another; only the
 * last one's verdict counts.
 */
export class SeekTableCheck {
  // Frames whose sizes are not known yet hold back those behind them; never more than are under way.
  readonly #queue: (FrameRecord | TableRecord)[] = []
  #framesSeen = 0
  #count = 0
  #hash = createHash('sha256')
  #wrong: string | undefined
  #reader: TableReader | undefined

  frame(compressed: number): FrameRecord {
    const record: FrameRecord = { compressed, decompressed: undefined }
    this.#queue.push(record)
    this.#framesSeen += 1
    return record
  }

  settle(record: FrameRecord, decompressed: number): void {
    record.decompressed = decompressed
    this.#advance()
  }

  beginSkippable(frame: SkippableFrame): void {
    this.#reader = frame.magic === SEEK_TABLE_MAGIC ? new TableReader(frame.payloadBytes, this.#framesSeen) : undefined
  }

  skippableBytes(piece: Buffer): void {
    this.#reader?.bytes(piece)
  }

  endSkippable(frameBytes: number): void {
    const table = this.#reader?.finish()
    if (table) {
      this.#queue.push(table)
      this.#framesSeen = 0
    } else {
      this.settle(this.frame(frameBytes), 0)
    }
    this.#advance()
  }

  /** @throws TransformError CORRUPT when the stream's last frame is a seek table that is wrong. */
  end(): void {
    this.#advance()
    if (this.#wrong) corruptSeekTable(this.#wrong)
  }

  #advance(): void {
    for (let next = this.#queue[0]; next; next = this.#queue[0]) {
      if ('digest' in next) {
        const same = next.entries === this.#count && this.#hash.digest().equals(next.digest)
        this.#wrong = same
          ? next.fault
          : `it says ${next.entries} frames of other sizes than the ${this.#count} that are there`
        this.#hash = createHash('sha256')
        this.#count = 0
      } else {
        if (next.decompressed === undefined) return
        const entry = Buffer.allocUnsafe(SEEK_ENTRY_BYTES)
        // A frame past 4 GiB fits no table; its entry then differs from any.
        entry.writeUInt32LE(next.compressed % 2 ** 32, 0)
        entry.writeUInt32LE(next.decompressed % 2 ** 32, 4)
        this.#hash.update(entry)
        this.#count += 1
        this.#wrong = undefined
      }
      this.#queue.shift()
    }
  }
}

/** Hashes the entries of a table as its bytes pass, without their checksums if it has some. */
class TableReader {
  readonly #entriesBytes: number
  readonly #entryBytes: number
  readonly #hash = createHash('sha256')
  readonly #footer = Buffer.alloc(SEEK_FOOTER_BYTES)
  #at = -SKIPPABLE_HEADER_BYTES

  constructor(payloadBytes: number, frames: number) {
    this.#entriesBytes = payloadBytes - SEEK_FOOTER_BYTES
    this.#entryBytes =
      this.#entriesBytes === frames * (SEEK_ENTRY_BYTES + 4) && frames > 0 ? SEEK_ENTRY_BYTES + 4 : SEEK_ENTRY_BYTES
  }

  bytes(piece: Buffer): void {
    let from = Math.max(0, -this.#at)
    const start = this.#at
    this.#at += piece.length
    while (from < piece.length) {
      const at = start + from
      if (at >= this.#entriesBytes) {
        piece.copy(this.#footer, Math.max(0, at - this.#entriesBytes), from)
        return
      }
      const inEntry = at % this.#entryBytes
      const plain = this.#entryBytes === SEEK_ENTRY_BYTES
      const counted = plain || inEntry < SEEK_ENTRY_BYTES
      const most = plain ? this.#entriesBytes - at : counted ? SEEK_ENTRY_BYTES - inEntry : this.#entryBytes - inEntry
      const take = Math.min(piece.length - from, most, this.#entriesBytes - at)
      if (counted) this.#hash.update(piece.subarray(from, from + take))
      from += take
    }
  }

  /** @returns undefined when it is no seek table after all: other programs may use the same magic. */
  finish(): TableRecord | undefined {
    if (this.#entriesBytes < 0 || this.#footer.readUInt32LE(5) !== SEEK_FOOTER_MAGIC) return undefined
    const entries = this.#footer.readUInt32LE(0)
    const descriptor = this.#footer[4] as number
    let fault: string | undefined
    if (descriptor & SEEK_RESERVED_BITS) fault = 'its descriptor has reserved bits set'
    const saysChecksums = (descriptor & SEEK_CHECKSUM_FLAG) !== 0
    if (entries > 0 && saysChecksums !== this.#entryBytes > SEEK_ENTRY_BYTES)
      fault = 'its descriptor does not fit its length'
    return { entries, digest: this.#hash.digest(), fault }
  }
}
