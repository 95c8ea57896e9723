import type { Duplex } from 'node:stream'
import { createZstdDecompress as createNativeDecompress, type ZstdDecompress } from 'node:zlib'
import { TransformError } from './errors.ts'
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
  const threads = checkRange('threads', options.threads ?? defaultThreads(), 1, 256)
  return new ParallelDuplex(new DecompressCutter(), threads + 1, options.onConsumed)
}

const FIRST_INPUT_BYTES = 64 * 1024

/** What one frame is gathered in and decompressed by, used again for the next. */
class Slot {
  #codec: FrameDecompressor | undefined
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

  /** @returns a copy of what was gathered. */
  drop(): Buffer {
    const gathered = Buffer.from(this.#input.subarray(0, this.#held))
    this.#held = 0
    return gathered
  }

  async decompress(contentBytes: number): Promise<Buffer[]> {
    if (!this.#codec || this.#codec.maxBytes < contentBytes) {
      this.#codec?.close()
      this.#codec = new FrameDecompressor(contentBytes)
    }
    const frame = this.#input.subarray(0, this.#held)
    this.#held = 0
    return this.#codec.decompress(frame, contentBytes)
  }

  close(): void {
    this.#codec?.close()
  }
}

class DecompressCutter implements Cutter {
  readonly #walker = new FrameWalker({
    begin: (frame) => this.#begin(frame),
    bytes: (piece) => this.#bytes(piece),
    end: (blockLimit) => this.#end(blockLimit),
  })
  readonly #table = new SeekTableCheck()
  readonly #free: Slot[] = []
  readonly #open = new Set<Slot | StreamedFrame>()
  #slot: Slot | undefined
  #frame: DataFrame | SkippableFrame | undefined
  #pieces: Buffer[] = []
  #frameBytes = 0
  #frames = 0
  #streamed: StreamedFrame | undefined
  #job: Job | undefined

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
    else this.#slot = this.#free.pop() ?? this.#newSlot()
  }

  #bytes(piece: Buffer): void {
    const frame = this.#frame as DataFrame | SkippableFrame
    this.#frameBytes += piece.length
    if (frame.kind === 'skippable') {
      this.#table.skippableBytes(piece)
      return
    }
    if (!this.#slot) {
      this.#pieces.push(Buffer.from(piece))
      return
    }
    const most = compressBound(frame.contentBytes as number) + FRAME_SLACK_BYTES
    this.#slot.gather(piece, most)
    if (this.#frameBytes <= most) return
    // A frame that was flushed often can be longer than one written in one go: no reason to hold it.
    this.#pieces.push(this.#slot.drop())
    this.#free.push(this.#slot)
    this.#slot = undefined
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
      this.#job = this.#decompress(this.#slot as Slot, frame.contentBytes as number, record)
      this.#slot = undefined
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

  #newSlot(): Slot {
    const slot = new Slot()
    this.#open.add(slot)
    return slot
  }

  async #decompress(slot: Slot, contentBytes: number, record: FrameRecord): Promise<Buffer[]> {
    this.#table.settle(record, contentBytes)
    const output = await slot.decompress(contentBytes)
    this.#free.push(slot)
    return output
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
