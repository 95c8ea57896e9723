import {
  constants,
  createZstdCompress,
  createZstdDecompress,
  type ZstdCompress,
  type ZstdDecompress,
  type ZstdOptions,
} from 'node:zlib'
import { TransformError } from './errors.ts'

/** The largest window a frame may ask for: zstd's own limit without `--long`, RFC 8878 recommends 8 MiB and up. */
export const MAX_WINDOW_BYTES = 2 ** 27

/** What zstd may need for `bytes` incompressible bytes (ZSTD_COMPRESSBOUND in zstd.h), and the checksum. */
export function compressBound(bytes: number): number {
  return bytes + (bytes >>> 8) + (bytes < 131072 ? (131072 - bytes) >>> 11 : 0) + 4
}

/**
 * One zstd context that lives as long as its stream and takes one whole frame a call, on the thread pool. The one-shot
 * functions of node:zlib make a new context every time, which costs 5 to 20 % and tens of MiB.
 */
class FrameContext {
  readonly #stream: ZstdCompress | ZstdDecompress
  #fail: ((error: Error) => void) | undefined
  #error: Error | undefined

  constructor(stream: ZstdCompress | ZstdDecompress) {
    this.#stream = stream
    // node:zlib reports through 'error' only: the write's callback never comes.
    stream.on('error', (error) => {
      this.#error = error
      this.#fail?.(error)
    })
  }

  /**
   * One call at a time.
   * @param most bytes that may come out.
   * @returns all that came out, in buffers that are nobody else's.
   * @throws node:zlib's error, or one that says that more came out; the context cannot be used again then.
   */
  run(input: Uint8Array, most: number): Promise<Buffer[]> {
    return new Promise((resolve, reject) => {
      const output: Buffer[] = []
      let bytes = 0
      const take = () => {
        for (let next = this.#stream.read(); next !== null; next = this.#stream.read()) {
          output.push(next)
          bytes += next.length
        }
        if (bytes > most) this.#stream.destroy(new Error(`it holds more than ${most} bytes`))
      }
      const settle = (error?: Error) => {
        this.#stream.off('readable', take)
        if (error) reject(error)
        else resolve(output)
      }
      if (this.#error) return settle(this.#error)
      this.#fail = settle
      // A frame that holds more than it says fills the stream, which then waits for a reader before it calls back.
      this.#stream.on('readable', take)
      this.#stream.write(input, () => {
        take()
        settle(this.#error ?? undefined)
      })
    })
  }

  /**
   * Lets node:zlib write the next frame where it wrote the last one, whose bytes nobody needs any more: with the whole buffer
   * free, zstd works in one pass, without a window of its own. Where node:zlib has no such field, this does nothing
   * and it allocates as it goes.
   */
  protected reuseOutput(): void {
    const stream = this.#stream as unknown as { _outOffset?: number }
    if (stream._outOffset !== undefined) stream._outOffset = 0
  }

  close(): void {
    this.#stream.destroy()
  }
}

/** So that one frame's output never waits for a reader: it is read when the write is done. */
function roomFor(chunkSize: number, options: ZstdOptions): ZstdOptions & { readableHighWaterMark: number } {
  return { ...options, chunkSize, readableHighWaterMark: 4 * chunkSize }
}

/** Compresses whole frames: content size and checksum in each. */
export class FrameCompressor extends FrameContext {
  readonly #bound: number

  constructor(level: number, frameBytes: number) {
    // With the end directive on the frame's only write, zstd knows the content size and writes it.
    const chunkSize = Math.max(compressBound(frameBytes), 1024)
    super(
      createZstdCompress(
        roomFor(chunkSize, {
          flush: constants.ZSTD_e_end,
          finishFlush: constants.ZSTD_e_end,
          params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 },
        }),
      ),
    )
    this.#bound = chunkSize
  }

  /**
   * One call at a time, and the next one only when the frame of the one before is not looked at any more.
   * @returns the frame, in one buffer: the context's own, which the next call fills again.
   */
  async compress(input: Uint8Array): Promise<Buffer> {
    this.reuseOutput()
    const pieces = await this.run(input, this.#bound)
    return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
  }
}

/** Decompresses whole frames of at most `maxBytes` of content each. */
export class FrameDecompressor extends FrameContext {
  readonly maxBytes: number

  constructor(maxBytes: number) {
    const chunkSize = Math.max(maxBytes, 1024)
    super(createZstdDecompress(roomFor(chunkSize, {})))
    this.maxBytes = maxBytes
  }

  /**
   * @param frame exactly one frame, to its last block and checksum (node:zlib takes less or more for success).
   * @param contentBytes the content size that the frame's header gives.
   * @throws TransformError CORRUPT.
   */
  async decompress(frame: Uint8Array, contentBytes: number): Promise<Buffer[]> {
    let output: Buffer[]
    try {
      output = await this.run(frame, contentBytes)
    } catch (cause) {
      throw corruptFrame(cause)
    }
    const length = output.reduce((sum, buffer) => sum + buffer.length, 0)
    if (length !== contentBytes) {
      throw new TransformError('CORRUPT', `A zstd frame says ${contentBytes} bytes and holds ${length}: it is damaged.`)
    }
    return output
  }
}

export function corruptFrame(cause: unknown): TransformError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new TransformError('CORRUPT', `A zstd frame cannot be decompressed (${reason}): it is damaged.`, { cause })
}
