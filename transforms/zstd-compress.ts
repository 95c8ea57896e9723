import { availableParallelism } from 'node:os'
import type { Duplex } from 'node:stream'
import { constants } from 'node:zlib'
import { TransformError } from './errors.ts'
import { INDEX_MAGIC } from './index-frame.ts'
import { lend, lendMovable } from './lending.ts'
import { type Cutter, type Job, ParallelDuplex } from './parallel.ts'
import { SeekTableBuilder, skippableHeader } from './seek-table.ts'
import {
  chooseEngine,
  type FrameEngine,
  MAX_LONG_LOG,
  MIN_LONG_LOG,
  openEngine,
  type ZstdEngine,
} from './zstd-engine.ts'

/** The level where nothing else is asked for. */
export const ZSTD_LEVEL = 3
/** Plaintext bytes a zstd frame: what one file out of a backup costs at least to read, and what a thread works on. */
export const ZSTD_FRAME_BYTES = 4 * 1024 * 1024
export const MIN_ZSTD_FRAME_BYTES = 64 * 1024
export const MAX_ZSTD_FRAME_BYTES = 128 * 1024 * 1024
/** The largest payload a skippable frame can say. */
const MAX_INDEX_BYTES = 2 ** 32 - 1

/** Frames that are looked at downstream while all lanes are at work; each has a compressor of its own. */
const LENT_AT_ONCE = 2

/** What went into a compressed stream. */
export interface CompressTotals {
  /** Bytes that went in. */
  bytes: number
  /** Data frames that came out. */
  frames: number
}

/** How a stream is compressed. */
export interface CompressOptions {
  /** 1 to 22; 3 when left out. Frames in which it gains nothing are compressed faster. */
  level?: number | undefined
  /** Every frame at `level`, whatever it gains. */
  fixedLevel?: boolean | undefined
  /** Plaintext bytes a frame, 64 KiB to 128 MiB; 4 MiB when left out, 128 MiB with the engine simple-zstd. */
  frameBytes?: number | undefined
  /**
   * `native`: frames compressed at a time. `simple-zstd`: threads within a frame, up to two frames at a time. What the machine
   * and the thread pool have, at most 4, when left out.
   */
  threads?: number | undefined
  /** `auto` when left out. */
  engine?: ZstdEngine | undefined
  /** log2 of the window for long-distance matching, 18 to 27. Needs the zstd command, and frames larger than it. */
  long?: number | undefined
  /** Told of each chunk that has been copied, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
  /**
   * Called once, when all input has been compressed; gives the payload of the index frame (FORMAT.md, layer 2).
   * When left out, or when it gives nothing, no index is written.
   */
  index?: ((totals: CompressTotals) => readonly Buffer[]) | undefined
}

/** What the thread pool can run at a time; it has 4 threads unless UV_THREADPOOL_SIZE says otherwise. */
export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), Number(process.env.UV_THREADPOOL_SIZE ?? 4) || 4, 4))
}

/**
 * A stream that compresses bytes into independent zstd frames, several at a time on the thread pool, in order, then an
 * index frame (when `index` gives one) and the seek table. What comes out is a valid `.zst` file. Memory is
 * `threads` frames of input and output, and one that is being filled (two frames with the engine simple-zstd), whatever
 * the speeds are.
 * @throws TransformError BAD_OPTION; UNSUPPORTED when the zstd command is needed and not installed.
 */
export function createZstdCompress(options: CompressOptions = {}): Duplex {
  return compressStream(options, false)
}

/**
 * As createZstdCompress, with frames that are lent: whoever is last to look at one passes it to `giveBack`. Two frames
 * more than there are lanes are held that way; while they are out, what comes is a copy.
 */
export function createLendingZstdCompress(options: CompressOptions): Duplex {
  return compressStream(options, true)
}

function compressStream(options: CompressOptions, lends: boolean): Duplex {
  const { index, onConsumed } = options
  const { engine, level, fixedLevel, frameBytes, long, threads } = checkCompressOptions(options)
  const lanes = engine === 'native' ? threads : 2
  const open = () => openEngine(engine, { level, fixedLevel, frameBytes, long, threads })
  const cutter = new CompressCutter(open, { frameBytes, lanes, index, lends: lends && engine === 'native' })
  return new ParallelDuplex(cutter, lanes, onConsumed)
}

/**
 * Looks at options before there is anything to compress.
 * @returns what they come to.
 * @throws TransformError as `createZstdCompress`.
 */
export function checkCompressOptions(options: CompressOptions) {
  const { long, fixedLevel = false } = options
  const level = checkRange('level', options.level ?? ZSTD_LEVEL, 1, 22)
  const threads = checkRange('threads', options.threads ?? defaultThreads(), 1, 256)
  if (long !== undefined) checkRange('long', long, MIN_LONG_LOG, MAX_LONG_LOG)
  const engine = chooseEngine(options.engine ?? 'auto', long)
  const frameBytes = checkRange(
    'frameBytes',
    options.frameBytes ?? (engine === 'native' ? ZSTD_FRAME_BYTES : MAX_ZSTD_FRAME_BYTES),
    MIN_ZSTD_FRAME_BYTES,
    MAX_ZSTD_FRAME_BYTES,
  )
  return { engine, level, fixedLevel, frameBytes, long, threads }
}

export function checkRange(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    // What was given as text is none any more.
    const is = Number.isNaN(value) ? '' : `is ${value} and `
    throw new TransformError('BAD_OPTION', `${name} ${is}must be a whole number from ${least} to ${most}.`)
  }
  return value
}

interface CutOptions {
  frameBytes: number
  lanes: number
  index: CompressOptions['index']
  lends: boolean
}

class CompressCutter implements Cutter {
  readonly #open: () => FrameEngine
  readonly #options: CutOptions
  readonly #inputs: Buffer[] = []
  readonly #engines: FrameEngine[] = []
  readonly #freeEngines: FrameEngine[] = []
  readonly #table = new SeekTableBuilder()
  readonly #totals: CompressTotals = { bytes: 0, frames: 0 }
  #recorded: Promise<void> = Promise.resolve()
  #input: Buffer | undefined
  #held = 0
  #lent = 0

  constructor(open: () => FrameEngine, options: CutOptions) {
    this.#open = open
    this.#options = options
  }

  take(chunk: Buffer, offset: number): { taken: number; job?: Job | undefined } {
    const { frameBytes } = this.#options
    this.#input ??= this.#inputs.pop() ?? Buffer.allocUnsafeSlow(frameBytes)
    const taken = chunk.copy(this.#input, this.#held, offset)
    this.#held += taken
    return { taken, job: this.#held === frameBytes ? this.#compress() : undefined }
  }

  *end(): Generator<Job> {
    if (this.#held > 0) yield this.#compress()
    yield () => this.#tail()
  }

  close(): void {
    for (const engine of this.#engines) engine.close()
  }

  #compress(): Promise<Iterable<Buffer>> {
    const input = this.#input as Buffer
    const plain = input.subarray(0, this.#held)
    this.#input = undefined
    this.#held = 0
    this.#totals.bytes += plain.length
    this.#totals.frames += 1
    const before = this.#recorded
    const engine = this.#freeEngines.pop() ?? this.#newEngine()
    const output = engine.compress(plain)
    // Frames finish in any order, and the table is in stream order.
    this.#recorded = output.then(async ({ length }) => {
      this.#inputs.push(input)
      await before
      this.#table.add(length, plain.length)
    })
    this.#recorded.catch(() => {})
    return output.then((frame) => this.#leave(frame, engine))
  }

  /** Asked when the frame's turn has come: it is lent, or a copy while as many are out as may be. */
  *#leave(frame: Buffer, engine: FrameEngine): Generator<Buffer> {
    if (this.#options.lends && this.#lent < LENT_AT_ONCE) {
      this.#lent += 1
      const done = (): void => {
        this.#lent -= 1
        this.#freeEngines.push(engine)
      }
      const isMovable = frame.buffer === engine.memory
      if (!isMovable) lend(frame, done)
      else {
        lendMovable(frame, (memory) => {
          engine.memory = memory
          done()
        })
      }
      yield frame
    } else {
      const copy = Buffer.allocUnsafeSlow(frame.length)
      frame.copy(copy)
      this.#freeEngines.push(engine)
      yield copy
    }
  }

  get #engineLimit(): number {
    return this.#options.lanes + (this.#options.lends ? LENT_AT_ONCE : 1)
  }

  #newEngine(): FrameEngine {
    if (this.#engines.length >= this.#engineLimit) throw new Error('more frames under way than lanes')
    const engine = this.#open()
    this.#engines.push(engine)
    return engine
  }

  /** Runs when every data frame has left. */
  async *#tail(): AsyncGenerator<Buffer> {
    await this.#recorded
    const index = this.#options.index?.(this.#totals) ?? []
    const indexBytes = sizeOf(index)
    if (indexBytes > MAX_INDEX_BYTES) {
      throw new TransformError(
        'LIMIT',
        `The index is ${indexBytes} bytes, and 4 GiB are allowed. Split the folder into several backups.`,
      )
    }
    if (indexBytes > 0) {
      const header = skippableHeader(INDEX_MAGIC, indexBytes)
      this.#table.add(header.length + indexBytes, 0)
      yield header
      yield* index
    }
    yield* this.#table.finish()
  }
}

function sizeOf(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, buffer) => sum + buffer.length, 0)
}

// Read here once, so that an old Node fails with a sentence and not in the middle of a backup.
if (constants.ZSTD_e_end === undefined) {
  throw new TransformError('UNSUPPORTED', 'This Node has no zstd: millrace needs Node 22.15 or newer.')
}
