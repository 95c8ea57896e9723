import { lend } from '../../transforms/lending.ts'
import { HEADER_LIMIT_BYTES, type TarHeader, writeHeader } from './header.ts'

/** The size of the chunks that come out, and of the reads of large files. */
export const SLAB_BYTES = 1024 * 1024

/** Chunks that are kept to be filled again. */
const KEPT_SLABS = 3

/**
 * Gathers headers, small files and zeros into chunks of a MiB. They are lent: a chunk that was taken is written to
 * again only when it was given back.
 */
export class SlabWriter {
  readonly #kept: Buffer[] = []
  /** The chunks that come after the one at work, where something is read into them already. */
  readonly #next: Buffer[] = []
  #slab: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES)
  #used = 0
  #ready: Buffer[] = []
  #bytes = 0

  /** Bytes written so far. */
  get bytes(): number {
    return this.#bytes
  }

  get hasReady(): boolean {
    return this.#ready.length > 0
  }

  /** The full chunks, which belong to the caller now. */
  takeReady(): Buffer[] {
    const ready = this.#ready
    this.#ready = []
    return ready
  }

  /** The free part of the chunk at work, never empty: fill it from its start, then call advance. */
  free(): Buffer {
    return this.#slab.subarray(this.#used)
  }

  /**
   * The chunk that comes `index` after the one at work, to read ahead into: it counts for nothing until its turn has
   * come and it was advanced over.
   */
  ahead(index: number): Buffer {
    while (this.#next.length < index) this.#next.push(this.#newSlab())
    return this.#next[index - 1] as Buffer
  }

  advance(bytes: number): void {
    this.#used += bytes
    this.#bytes += bytes
    if (this.#used === SLAB_BYTES) this.flush()
  }

  header(header: TarHeader): void {
    if (SLAB_BYTES - this.#used < HEADER_LIMIT_BYTES) this.flush()
    this.advance(writeHeader(this.#slab, this.#used, header))
  }

  append(data: Buffer): void {
    for (let done = 0; done < data.length; ) {
      const copied = data.copy(this.#slab, this.#used, done)
      done += copied
      this.advance(copied)
    }
  }

  zeros(bytes: number): void {
    for (let left = bytes; left > 0; ) {
      const count = Math.min(left, SLAB_BYTES - this.#used)
      this.#slab.fill(0, this.#used, this.#used + count)
      left -= count
      this.advance(count)
    }
  }

  /** Makes what was written so far ready. */
  flush(): void {
    if (this.#used === 0) return
    const slab = this.#slab
    const chunk = slab.subarray(0, this.#used)
    lend(chunk, () => {
      if (this.#kept.length < KEPT_SLABS) this.#kept.push(slab)
    })
    this.#ready.push(chunk)
    this.#slab = this.#next.shift() ?? this.#newSlab()
    this.#used = 0
  }

  #newSlab(): Buffer {
    return this.#kept.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
  }
}
