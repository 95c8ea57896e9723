import type { Duplex } from 'node:stream'
import { createZstdDecompress as createNativeDecompress, type ZstdDecompress } from 'node:zlib'
import { TransformError } from './errors.ts'
import { lend } from './lending.ts'
import { type Cutter, type Job, ParallelDuplex } from './parallel.ts'
import { type FrameRecord, SeekTableCheck } from './seek-table-check.ts'
import { compressBound, corruptFrame, FrameDecompressor } from './zstd-codec.ts'
import { checkRange, defaultThreads } from './zstd-compress.ts'
import { type DataFrame, FrameWalker, type SkippableFrame } from './zstd-walker.ts'

/** Frames of at most this much content are decompressed whole and several at a time; others piece by piece. */
export const PARALLEL_FRAME_BYTES = 16 * 1024 * 1024
const STREAM_CHUNK_BYTES = 256 * 1024
/** A header, a checksum and some empty blocks beyond what compressing in one go gives. */
const FRAME_SLACK_BYTES = 64

/** How a stream is decompressed. */
export interface DecompressOptions {
  /** Frames decompressed at a time; what the machine and the thread pool have, at most 4, when left out. */
  threads?: number | undefined
  /** Told of each chunk that has been copied, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
}

/**
 * A stream that decompresses any zstd stream: one frame or many, skippable frames, with or without checksums and
 * content sizes, windows up to 2^27. Frames are decompressed several at a time, in order. Where there is a seek table,
 * it must agree with the frames.
 *
 * The stream fails with TransformError CORRUPT, TRUNCATED, UNSUPPORTED (dictionaries) or LIMIT; it never ends short.
 * @throws TransformError BAD_OPTION.
 */
export function createZstdDecompress(options: DecompressOptions = {}): Duplex {
  return decompressStream(options, false)
}

/** As createZstdDecompress, with chunks that are lent: whoever is last to look at one passes it to `giveBack`. */
export function createLendingZstdDecompress(options: DecompressOptions): Duplex {
  return decompressStream(options, true)
}

function decompressStream(options: DecompressOptions, lends: boolean): Duplex {
  const threads = checkRange('threads', options.threads ?? defaultThreads(), 1, 256)
  return new ParallelDuplex(new DecompressCutter(lends), threads, options.onConsumed)
}

/** A consumer may have several frames on their way; those that do not come back are allocated anew. */
const LENT_AT_ONCE = 6
const FIRST_INPUT_BYTES = 64 * 1024

/** What one frame is gathered in, used again for the next. */
class Gathering {
  #input = Buffer.alloc(0)
  #held = 0

  /** @param most bytes that are to come at most; memory is taken as they come, not on a frame's word. */
  gather(piece: Buffer, most: number): void {
    const needed = this.#held + piece.length
    if (needed > this.#input.length) {
      const grown = Buffer.allocUnsafeSlow(
        Math.max(needed, Math.min(most, Math.max(FIRST_INPUT_BYTES, 2 * this.#input.length))),
      )
      this.#input.copy(grown, 0, 0, this.#held)
      this.#input = grown
    }
    piece.copy(this.#input, this.#held)
    this.#held = needed
  }

  /** @returns what was gathered, until it gathers again. */
  take(): Buffer {
    const gathered = this.#input.subarray(0, this.#held)
    this.#held = 0
    return gathered
  }
}

class DecompressCutter implements Cutter {
  readonly #walker = new FrameWalker({
    begin: (frame) => this.#begin(frame),
    bytes: (piece) => this.#bytes(piece),
    end: (blockLimit) => this.#end(blockLimit),
  })
  readonly #table = new SeekTableCheck()
  readonly #gatherings: Gathering[] = []
  readonly #codecs: FrameDecompressor[] = []
  readonly #open = new Set<FrameDecompressor | StreamedFrame>()
  #gathering: Gathering | undefined
  #frame: DataFrame | SkippableFrame | undefined
  #pieces: Buffer[] = []
  #frameBytes = 0
  #frames = 0
  #streamed: StreamedFrame | undefined
  #job: Job | undefined
  readonly #lends: boolean
  #lent = 0

  constructor(lends: boolean) {
    this.#lends = lends
  }

  take(chunk: Buffer, offset: number): { taken: number; job?: Job | undefined } {
    const taken = this.#walker.push(chunk, offset)
    if (this.#streamed && this.#pieces.length > 0) this.#job = this.#streamed.feed(this.#takePieces())
    const job = this.#job
    this.#job = undefined
    return { taken, job }
  }

  *end(): Generator<Job> {
    if (!this.#walker.betweenFrames) {
      throw new TransformError(
        'TRUNCATED',
        'The zstd stream ends inside a frame: it was cut. Fetch it again, or use another snapshot.',
      )
    }
    if (this.#frames === 0) throw new TransformError('TRUNCATED', 'The zstd stream is empty.')
    // When all frames have left, every size is known.
    yield async () => {
      this.#table.end()
      return []
    }
  }

  close(): void {
    for (const codec of this.#open) codec.close()
  }

  #begin(frame: DataFrame | SkippableFrame): void {
    this.#frame = frame
    this.#frames += 1
    this.#frameBytes = 0
    if (frame.kind === 'skippable') this.#table.beginSkippable(frame)
    else if (frame.contentBytes === null || frame.contentBytes > PARALLEL_FRAME_BYTES) this.#stream(frame)
    else this.#gathering = this.#gatherings.pop() ?? new Gathering()
  }

  #bytes(piece: Buffer): void {
    const frame = this.#frame as DataFrame | SkippableFrame
    this.#frameBytes += piece.length
    if (frame.kind === 'skippable') {
      this.#table.skippableBytes(piece)
      return
    }
    if (!this.#gathering) {
      this.#pieces.push(Buffer.from(piece))
      return
    }
    const most = compressBound(frame.contentBytes as number) + FRAME_SLACK_BYTES
    this.#gathering.gather(piece, most)
    if (this.#frameBytes <= most) return
    // A frame that was flushed often can be longer than one written in one go: no reason to hold it.
    this.#pieces.push(Buffer.from(this.#gathering.take()))
    this.#gatherings.push(this.#gathering)
    this.#gathering = undefined
    this.#stream(frame)
  }

  #end(blockLimit: number): void {
    const frame = this.#frame as DataFrame | SkippableFrame
    if (frame.kind === 'skippable') {
      this.#table.endSkippable(this.#frameBytes)
      return
    }
    if (frame.contentBytes !== null && frame.contentBytes > blockLimit) {
      throw new TransformError(
        'CORRUPT',
        `A zstd frame says ${frame.contentBytes} bytes and has blocks for ${blockLimit}: it is damaged.`,
      )
    }
    const record = this.#table.frame(this.#frameBytes)
    if (this.#streamed) {
      this.#job = this.#streamed.feed(this.#takePieces(), (bytes) => this.#table.settle(record, bytes))
      this.#streamed = undefined
    } else {
      this.#job = this.#decompress(this.#gathering as Gathering, frame.contentBytes as number, record)
      this.#gathering = undefined
    }
  }

  #takePieces(): Buffer[] {
    const pieces = this.#pieces
    this.#pieces = []
    return pieces
  }

  #stream(frame: DataFrame): void {
    this.#streamed = new StreamedFrame(frame.contentBytes)
    this.#open.add(this.#streamed)
  }

  #takeCodec(contentBytes: number): FrameDecompressor {
    const free = this.#codecs.pop()
    if (free && free.maxBytes >= contentBytes) return free
    free?.close()
    if (free) this.#open.delete(free)
    const codec = new FrameDecompressor(contentBytes)
    this.#open.add(codec)
    return codec
  }

  async #decompress(gathering: Gathering, contentBytes: number, record: FrameRecord): Promise<Iterable<Buffer>> {
    this.#table.settle(record, contentBytes)
    const codec = this.#takeCodec(contentBytes)
    const output = await codec.decompressAgain(gathering.take(), contentBytes)
    this.#gatherings.push(gathering)
    return this.#leave(output, codec)
  }

  /** Asked when the frame's turn has come: it is lent, unless as many are out as may be. */
  *#leave(output: Buffer[], codec: FrameDecompressor): Generator<Buffer> {
    const [chunk] = output
    if (this.#lends && chunk && output.length === 1 && this.#lent < LENT_AT_ONCE) {
      this.#lent += 1
      lend(chunk, () => {
        this.#lent -= 1
        this.#codecs.push(codec)
      })
    } else {
      codec.letGo()
      this.#codecs.push(codec)
    }
    yield* output
  }
}

/** One frame of any size, decompressed piece by piece, never further ahead than one chunk. */
class StreamedFrame {
  readonly #contentBytes: number | null
  readonly #decoder: ZstdDecompress
  #error: Error | undefined
  #wake: (() => void) | undefined
  #bytes = 0

  constructor(contentBytes: number | null) {
    this.#contentBytes = contentBytes
    this.#decoder = createNativeDecompress({ chunkSize: STREAM_CHUNK_BYTES })
    this.#decoder.on('readable', () => this.#wake?.())
    this.#decoder.on('close', () => this.#wake?.())
    this.#decoder.on('error', (error) => {
      this.#error = error
      this.#wake?.()
    })
  }

  /** @param finished given with the frame's last bytes; told the frame's content size. */
  feed(pieces: readonly Buffer[], finished?: (bytes: number) => void): Job {
    return () => this.#run(pieces, finished)
  }

  close(): void {
    this.#decoder.destroy()
  }

  async *#run(pieces: readonly Buffer[], finished?: (bytes: number) => void): AsyncGenerator<Buffer> {
    for (const piece of pieces) {
      let written = false
      this.#decoder.write(piece, () => {
        written = true
        this.#wake?.()
      })
      for (;;) {
        if (this.#error) throw corruptFrame(this.#error)
        const chunk: Buffer | null = this.#decoder.read()
        if (chunk !== null) {
          this.#bytes += chunk.length
          yield chunk
        } else if (written || this.#decoder.destroyed) {
          break
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
        }
      }
    }
    if (!finished) return
    this.close()
    if (this.#contentBytes !== null && this.#bytes !== this.#contentBytes) {
      throw new TransformError(
        'CORRUPT',
        `A zstd frame says ${this.#contentBytes} bytes and holds ${this.#bytes}: it is damaged.`,
      )
    }
    finished(this.#bytes)
  }
}
