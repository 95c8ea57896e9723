// A transform of our own: docs/guides/write-a-transform.md walks through it. Bytes pass unchanged, and a SHA-256 is kept
// of each MiB of them. AES-GCM says that a snapshot of a hundred gigabytes is damaged only to who has the password and
// reads it all; with this list any machine can look through an object by ranges, say which MiB is bad, and fetch that
// one from another copy. custom-transform.ts does so.
import { createHash } from 'node:crypto'
import { Transform } from 'node:stream'
import { TransformError } from '../transforms/index.ts'

export const BLOCK_BYTES = 1024 * 1024

/** The SHA-256 of one block of a stream. All blocks are of the same length, but for the last. */
export interface BlockSum {
  /** Where it begins, in bytes. */
  offset: number
  bytes: number
  /** Hex in lower case. */
  sha256: string
}

export interface BlockSumsOptions {
  /** 1 MiB when left out. */
  blockBytes?: number | undefined
  /** Bytes that may wait on either side of the stream; 64 KiB when left out. */
  highWaterMark?: number | undefined
  /** Told of each block, in order. The stream waits for a promise that it returns, and fails when that rejects. */
  onBlock: (sum: BlockSum) => void | Promise<void>
}

/** The work, without a stream: synchronous, and to be tested by itself. */
export class BlockSummer {
  readonly #blockBytes: number
  #hash = createHash('sha256')
  #offset = 0
  #bytes = 0

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes
  }

  /** @returns the blocks that this chunk completes: none, one, or many. */
  update(chunk: Buffer): BlockSum[] {
    const sums: BlockSum[] = []
    for (let at = 0; at < chunk.length; ) {
      const piece = chunk.subarray(at, at + this.#blockBytes - this.#bytes)
      this.#hash.update(piece)
      this.#bytes += piece.length
      at += piece.length
      if (this.#bytes === this.#blockBytes) sums.push(this.#take())
    }
    return sums
  }

  /** @returns the last block, when the stream does not end at a border. */
  final(): BlockSum[] {
    return this.#bytes > 0 ? [this.#take()] : []
  }

  #take(): BlockSum {
    const sum = { offset: this.#offset, bytes: this.#bytes, sha256: this.#hash.digest('hex') }
    this.#hash = createHash('sha256')
    this.#offset += this.#bytes
    this.#bytes = 0
    return sum
  }
}

/**
 * A stream that passes bytes on unchanged and tells the SHA-256 of each block of them.
 * @throws TransformError BAD_OPTION for a blockBytes that is no length. The stream fails with what `onBlock` throws.
 */
export function createBlockSums(options: BlockSumsOptions): Transform {
  const { blockBytes = BLOCK_BYTES, highWaterMark = 64 * 1024, onBlock } = options
  if (!Number.isSafeInteger(blockBytes) || blockBytes < 1) {
    throw new TransformError('BAD_OPTION', `blockBytes is ${blockBytes} and must be a whole number from 1.`)
  }
  const summer = new BlockSummer(blockBytes)
  const tell = async (sums: readonly BlockSum[]) => {
    for (const sum of sums) await onBlock(sum)
  }
  return new Transform({
    highWaterMark,
    transform(chunk: Buffer, _encoding, callback) {
      tell(summer.update(chunk)).then(
        () => callback(null, chunk),
        (thrown) => callback(asError(thrown)),
      )
    },
    flush(callback) {
      tell(summer.final()).then(
        () => callback(),
        (thrown) => callback(asError(thrown)),
      )
    },
  })
}

/** A callback takes what is no error for success, and anything can be thrown. */
function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(`onBlock failed: ${thrown}`)
}
