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
   * Lets node:zlib write the next frame to the start of `output`, where nobody needs the last one any more: with a whole
   * buffer free, zstd works in one pass, without a window of its own. Where node:zlib has no such fields, this does
   * nothing and it allocates as it goes.
   */
  protected writeInto(output: Buffer): void {
    const stream = this.#stream as unknown as { _outBuffer?: Buffer; _outOffset?: number }
    if (stream._outBuffer === undefined || stream._outOffset === undefined) return
    stream._outBuffer = output
    stream._outOffset = 0
  }

  close(): void {
    this.#stream.destroy()
  }
}

/** So that one frame's output never waits for a reader: it is read when the write is done. */
function roomFor(chunkSize: number, options: ZstdOptions): ZstdOptions & { readableHighWaterMark: number } {
  return { ...options, chunkSize, readableHighWaterMark: 4 * chunkSize }
}

/** Compresses whole frames at one level: content size and checksum in each. */
class LevelCompressor extends FrameContext {
  /** @param outputBytes what zstd may need for the largest frame. */
  constructor(level: number, outputBytes: number) {
    // With the end directive on the frame's only write, zstd knows the content size and writes it.
    super(
      createZstdCompress(
        roomFor(outputBytes, {
          flush: constants.ZSTD_e_end,
          finishFlush: constants.ZSTD_e_end,
          params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 },
        }),
      ),
    )
  }

  /** @param output of the size that was said. */
  async compress(input: Uint8Array, output: Buffer): Promise<Buffer> {
    this.writeInto(output)
    const pieces = await this.run(input, output.length)
    return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
  }
}

/**
 * Which bytes a frame becomes, besides the version of zstd: counted up with each change to how a level is chosen below, so
 * that an upload that an earlier release began is not gone on with by another.
 */
export const COMPRESSOR_VERSION = 2

/** A sample is so many slices, spread over the frame. */
const SAMPLE_SLICES = 8
const SAMPLE_SLICE_BYTES = 16 * 1024
/** Frames below it are compressed as they are asked for. */
const SAMPLED_FRAME_BYTES = 4 * SAMPLE_SLICES * SAMPLE_SLICE_BYTES
/** A sample that shrinks to less than this has more than chunks and their padding, and profits from the level. */
const SURELY_COMPRESSIBLE = 0.4
/** What the level has to save over the fast one, or it is not worth its time. */
const LEAST_GAIN = 0.004
/**
 * Where the level gains nothing. Below 0 zstd looks for matches as at level 1 and leaves what matches nothing as it is,
 * which is what becomes of a chunk in any case; level 1 tries Huffman codes on it first, and takes twice as long. Not -1,
 * which node:zlib takes for the default level (its own mark for a parameter that is not set).
 */
export const FAST_LEVEL = -2

/** Blocks of 512 bytes that are there twice: files begin at such steps in a tar, so a copy of one is seen in no sample. */
const REPEATED_BLOCKS = 4
const BLOCK_WORDS = 128
/** Where in a block it is looked at: beyond what chunks and files of one kind have in common at their start. */
const BLOCK_PROBE_WORD = 16
const REPEAT_TABLE = new Int32Array(2 ** 14)

/** Whether there are blocks in a frame that were there before: only the level's window finds them. */
export function hasRepeats(input: Uint8Array): boolean {
  if (input.byteOffset % 4 !== 0) return true
  const words = new Int32Array(input.buffer, input.byteOffset, input.length >>> 2)
  let repeats = 0
  REPEAT_TABLE.fill(0)
  for (let at = BLOCK_PROBE_WORD; at + 3 < words.length; at += BLOCK_WORDS) {
    const [a, b, c, d] = [
      words[at] as number,
      words[at + 1] as number,
      words[at + 2] as number,
      words[at + 3] as number,
    ]
    // Padding, which any level sees.
    if (a === b && b === c) continue
    const mixed =
      Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b) ^ Math.imul(c, 0xc2b2ae35) ^ Math.imul(d, 0x27d4eb2f)
    const hash = (mixed ^ (mixed >>> 15)) | 1
    const slot = (hash >>> 1) & (REPEAT_TABLE.length - 1)
    if (REPEAT_TABLE[slot] !== hash) REPEAT_TABLE[slot] = hash
    else if (++repeats === REPEATED_BLOCKS) return true
  }
  return false
}

/** Bytes of words that are as the one before: padding. @param input a whole number of words. */
function runBytes(input: Uint8Array): number {
  const words = new Int32Array(input.buffer, input.byteOffset, input.length >>> 2)
  let repeated = 0
  for (let at = 1; at < words.length; at++) if (words[at] === words[at - 1]) repeated++
  return repeated * 4
}

/**
 * Compresses whole frames, at a level, or fast where a sample says that the level gains nothing: chunks of a game are
 * compressed already, and zstd's level 3 takes four times as long to find nothing in them. What a frame becomes depends
 * on its bytes alone.
 */
export class FrameCompressor {
  readonly #full: LevelCompressor
  readonly #fast: LevelCompressor | undefined
  readonly #sample = Buffer.allocUnsafeSlow(SAMPLE_SLICES * SAMPLE_SLICE_BYTES)
  #output: Buffer

  /** @param isAdaptive false: each frame at the level. */
  constructor(level: number, frameBytes: number, isAdaptive = true) {
    const outputBytes = Math.max(compressBound(frameBytes), 1024)
    this.#output = Buffer.allocUnsafeSlow(outputBytes)
    this.#full = new LevelCompressor(level, outputBytes)
    if (isAdaptive && level > 0 && frameBytes >= SAMPLED_FRAME_BYTES)
      this.#fast = new LevelCompressor(FAST_LEVEL, outputBytes)
  }

  /**
   * One call at a time, and the next one only when the frame of the one before is not looked at any more.
   * @returns the frame, in one buffer, which the next call fills again.
   */
  async compress(input: Uint8Array): Promise<Buffer> {
    const output = this.#output
    const fast = this.#fast
    if (!fast || input.length < SAMPLED_FRAME_BYTES || hasRepeats(input)) return this.#full.compress(input, output)
    this.#takeSample(input)
    const { length: fullBytes } = await this.#full.compress(this.#sample, output)
    if (fullBytes < this.#sample.length * SURELY_COMPRESSIBLE) return this.#full.compress(input, output)
    // Whatever the level, runs go: where it saves no more than those, the fast one need not be tried.
    if (fullBytes >= (this.#sample.length - runBytes(this.#sample)) * (1 - LEAST_GAIN)) {
      return fast.compress(input, output)
    }
    const { length: fastBytes } = await fast.compress(this.#sample, output)
    return (fullBytes < fastBytes * (1 - LEAST_GAIN) ? this.#full : fast).compress(input, output)
  }

  /** What frames are written to; nothing else is. To be set anew when it was moved to another thread. */
  get memory(): ArrayBuffer {
    return this.#output.buffer as ArrayBuffer
  }

  set memory(memory: ArrayBuffer) {
    this.#output = Buffer.from(memory)
  }

  close(): void {
    this.#full.close()
    this.#fast?.close()
  }

  #takeSample(input: Uint8Array): void {
    const distance = Math.floor((input.length - SAMPLE_SLICE_BYTES) / (SAMPLE_SLICES - 1))
    for (let slice = 0; slice < SAMPLE_SLICES; slice++) {
      const at = slice * distance
      this.#sample.set(input.subarray(at, at + SAMPLE_SLICE_BYTES), slice * SAMPLE_SLICE_BYTES)
    }
  }
}

/** Decompresses whole frames of at most `maxBytes` of content each. */
export class FrameDecompressor extends FrameContext {
  readonly maxBytes: number
  readonly #outputBytes: number
  #output: Buffer | undefined

  constructor(maxBytes: number) {
    // One byte more than is needed: node:zlib allocates anew when all of a buffer is used.
    const outputBytes = Math.max(maxBytes, 1024) + 1
    super(createZstdDecompress(roomFor(outputBytes, {})))
    this.maxBytes = maxBytes
    this.#outputBytes = outputBytes
  }

  /**
   * @param frame exactly one frame, to its last block and checksum (node:zlib takes less or more for success).
   * @param contentBytes the content size that the frame's header gives.
   * @returns the content, in buffers that are nobody else's.
   * @throws TransformError CORRUPT.
   */
  async decompress(frame: Uint8Array, contentBytes: number): Promise<Buffer[]> {
    const output = await this.decompressAgain(frame, contentBytes)
    this.letGo()
    return output
  }

  /** As `decompress`, into memory that the next call fills again, unless `letGo` is called before. */
  async decompressAgain(frame: Uint8Array, contentBytes: number): Promise<Buffer[]> {
    this.#output ??= Buffer.allocUnsafeSlow(this.#outputBytes)
    this.writeInto(this.#output)
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

  /** Leaves what the last call gave to whoever has it. */
  letGo(): void {
    this.#output = undefined
  }
}

export function corruptFrame(cause: unknown): TransformError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new TransformError('CORRUPT', `A zstd frame cannot be decompressed (${reason}): it is damaged.`, { cause })
}
