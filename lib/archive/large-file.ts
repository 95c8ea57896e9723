import { read } from './io.ts'
import type { SlabWriter } from './slab.ts'

/** Reads of one file that are under way at a time, of a chunk each: the disk is not to wait for this process. */
const READS_AT_ONCE = 2

/** A large file's bytes, read into the chunks of an archive, in order and a little ahead. */
export class LargeFile {
  readonly #fd: number
  readonly #size: number
  readonly #out: SlabWriter
  readonly #reads: { bytes: number; got: Promise<number> }[] = []
  #asked = 0
  #atOnce = READS_AT_ONCE

  /** @param size what is to be read of it; it may have become shorter. */
  constructor(fd: number, size: number, out: SlabWriter) {
    this.#fd = fd
    this.#size = size
    this.#out = out
  }

  /**
   * Waits for the next bytes and counts them as written. Nothing else may be written until all of the file is, or
   * `settle` was called.
   * @param position where in the file they begin: how many there were so far.
   * @returns how many they are; 0: the file ends here, before its size.
   * @throws the file system's error; what follows is of no use then.
   */
  async next(position: number): Promise<number> {
    if (this.#reads.length === 0) this.#asked = position
    while (this.#reads.length < this.#atOnce && this.#asked < this.#size) this.#ask()
    const head = this.#reads[0] as { bytes: number; got: Promise<number> }
    const got = await head.got
    this.#reads.shift()
    if (got < head.bytes) {
      // What was read behind a gap is not where it belongs.
      await this.settle()
      this.#atOnce = 1
    }
    this.#out.advance(got)
    return got
  }

  /** Waits for what is under way. Never throws. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#reads.splice(0).map(({ got }) => got))
  }

  #ask(): void {
    const index = this.#reads.length
    const target = index === 0 ? this.#out.free() : this.#out.ahead(index)
    const bytes = Math.min(target.length, this.#size - this.#asked)
    const got = read(this.#fd, target, 0, bytes, this.#asked)
    got.catch(() => {})
    this.#reads.push({ bytes, got })
    this.#asked += bytes
  }
}
