import { BackupError } from '../errors.ts'
import { BLOCK_BYTES, roundToBlock, TRAILER_BYTES } from './entry.ts'

const ZEROS = Buffer.alloc(64 * 1024)
/** Headers of one entry, at most: twice what tar-stream takes of each kind. All of them are held until the entry comes. */
const HEADERS_MAX_BYTES = 32 * 1024 * 1024

/**
 * Watches the bytes that go into tar-stream's extract for what it does not see: an archive that ends without its two
 * zero blocks (cut at the end of an entry, it extracts as a smaller archive), and anything after the end.
 */
export class TailWatch {
  #total = 0
  #nonZero = 0
  // Where the last entry ends: the next header or the end of the archive is there.
  #end = 0
  #ended = false
  #chunks: { at: number; data: Buffer }[] = []

  /** Bytes seen. */
  get total(): number {
    return this.#total
  }

  /**
   * Takes the next bytes of the stream, when extract has looked at all before them.
   * @throws BackupError DAMAGED for headers without end.
   */
  push(data: Buffer): void {
    if (!this.#ended && this.#total - this.#end > HEADERS_MAX_BYTES) {
      throw new BackupError(
        'DAMAGED',
        `The archive is damaged: it has headers of more than ${HEADERS_MAX_BYTES} bytes before an entry. Use another one.`,
      )
    }
    const zeros = countTrailingZeros(data)
    if (zeros < data.length) this.#nonZero = this.#total + data.length - zeros
    if (!this.#ended) this.#chunks.push({ at: this.#total, data })
    this.#total += data.length
    this.#look()
  }

  /**
   * Takes an entry that extract found.
   * @param data - the offset of its first byte of content
   * @param size - the bytes of its content
   * @throws BackupError DAMAGED when it stands after the end of the archive
   */
  entry(data: number, size: number): void {
    this.#look()
    if (this.#ended) throw new BackupError('DAMAGED', 'The archive goes on after its end')
    this.#end = data + roundToBlock(size)
    this.#look()
  }

  /** Throws BackupError DAMAGED when the stream ended before the archive's end, or did not end there. */
  finish(): void {
    if (this.#nonZero > this.#end) throw new BackupError('DAMAGED', 'The archive goes on after its end')
    if (this.#total < this.#end + TRAILER_BYTES) {
      throw new BackupError('DAMAGED', `The archive is cut off after ${this.#total} bytes`)
    }
  }

  // Keeps no more than the chunks from the next header on, and finds out whether it is the end.
  #look(): void {
    let passed = 0
    while (passed < this.#chunks.length) {
      const { at, data } = this.#chunks[passed]!
      if (at + data.length > this.#end) break
      passed++
    }
    if (passed > 0) this.#chunks.splice(0, passed)
    if (this.#ended || this.#total < this.#end + BLOCK_BYTES) return
    let from = this.#end
    for (const { at, data } of this.#chunks) {
      const part = data.subarray(from - at, this.#end + BLOCK_BYTES - at)
      if (!part.equals(ZEROS.subarray(0, part.length))) return
      from += part.length
      if (from === this.#end + BLOCK_BYTES) break
    }
    this.#ended = true
    this.#chunks = []
  }
}

function countTrailingZeros(data: Buffer): number {
  let end = data.length
  while (end >= ZEROS.length && data.subarray(end - ZEROS.length, end).equals(ZEROS)) end -= ZEROS.length
  while (end > 0 && data[end - 1] === 0) end--
  return data.length - end
}
