import { createCipheriv, createHash, randomFillSync } from 'node:crypto'
import { freeChunk } from '../pipe.ts'

const MIB = 1024 * 1024
/** What of the source is kept to feed the stages with. */
export const SAMPLE_BYTES = 64 * MIB
const CHUNK_BYTES = 512 * 1024
const NOISE_BYTES = 8 * MIB
const NOISE_CHUNK_BYTES = 256 * 1024
/** No two blocks of this size are sent alike, so that no store can make one of them. */
const STAMP_BYTES = 4096
const SYNTHETIC_BYTES = 16 * MIB
const SECTOR_BYTES = 4096
const SECTOR_FILL = 0.66

/** Keeps some of what passes, spread evenly over all of it, in bounded memory. */
export class Sampler {
  readonly #most: number
  #kept: Buffer[] = []
  #keptBytes = 0
  #stride = 1
  #seen = 0

  /** @param most bytes that are kept. */
  constructor(most: number = SAMPLE_BYTES) {
    this.#most = most
  }

  /** Takes a chunk that is nobody else's: it is kept, or its memory is given back. */
  offer(chunk: Buffer): void {
    if (this.#seen++ % this.#stride !== 0) {
      freeChunk(chunk)
      return
    }
    this.#kept.push(chunk)
    this.#keptBytes += chunk.length
    if (this.#keptBytes > this.#most && this.#kept.length > 1) this.#thinOut()
  }

  get chunks(): readonly Buffer[] {
    return this.#kept
  }

  get bytes(): number {
    return this.#keptBytes
  }

  #thinOut(): void {
    const all = this.#kept
    this.#kept = all.filter((_, at) => at % 2 === 0)
    this.#stride *= 2
    this.#keptBytes = this.#kept.reduce((sum, { length }) => sum + length, 0)
    for (const [at, chunk] of all.entries()) if (at % 2 === 1) freeChunk(chunk)
  }
}

/**
 * Data in the shape of a Minecraft save's region files: sectors, each partly compressed data and partly empty. The same
 * every time.
 */
export function syntheticSample(bytes: number = SYNTHETIC_BYTES): Buffer[] {
  const key = createHash('sha256').update('millrace bench').digest()
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16))
  const chunks: Buffer[] = []
  for (let made = 0; made < bytes; made += CHUNK_BYTES) {
    const chunk = cipher.update(Buffer.alloc(CHUNK_BYTES))
    for (let at = 0; at < CHUNK_BYTES; at += SECTOR_BYTES) {
      chunk.fill(0, at + Math.floor(SECTOR_FILL * SECTOR_BYTES), at + SECTOR_BYTES)
    }
    chunks.push(chunk)
  }
  return chunks
}

/**
 * A sample's bytes over and over, in rounds of one length: stages that work on frames are fed with whole ones, so that
 * none stands idle at the end.
 * @param isDone asked after each round.
 */
export function* rounds(
  chunks: readonly Buffer[],
  roundBytes: number,
  isDone: () => boolean,
): Generator<Buffer, void, void> {
  let at = 0
  let offset = 0
  do {
    for (let left = roundBytes; left > 0; ) {
      const chunk = chunks[at] as Buffer
      const piece = chunk.subarray(offset, offset + left)
      left -= piece.length
      offset += piece.length
      if (offset === chunk.length) {
        at = (at + 1) % chunks.length
        offset = 0
      }
      yield piece
    }
  } while (!isDone())
}

/** Random bytes, made beforehand: what encrypted data looks like to a line and to a store. */
export class Noise {
  readonly #block = randomFillSync(Buffer.allocUnsafeSlow(NOISE_BYTES))
  #stamp = 0;

  /** Gives chunks that are used again later: whoever takes them has copied or sent them by then. */
  *chunks(bytes: number): Generator<Buffer, void, void> {
    for (let left = bytes, at = 0; left > 0; at = (at + NOISE_CHUNK_BYTES) % NOISE_BYTES) {
      const chunk = this.#block.subarray(at, at + Math.min(NOISE_CHUNK_BYTES, left))
      for (let block = 0; block + 6 <= chunk.length; block += STAMP_BYTES) chunk.writeUIntLE(this.#stamp++, block, 6)
      left -= chunk.length
      yield chunk
    }
  }
}
