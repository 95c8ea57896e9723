import { TransformError } from './errors.ts'
import { MAX_WINDOW_BYTES } from './zstd-codec.ts'

// RFC 8878, 3.1: how frames and blocks are laid out. Walking them finds where a frame ends without decompressing it,
// because node:zlib alone cannot be trusted with more or less than one whole frame.

const ZSTD_MAGIC = 0xfd2fb528
const SKIPPABLE_MAGIC = 0x184d2a50
const BLOCK_HEADER_BYTES = 3
const CHECKSUM_BYTES = 4
const MAX_BLOCK_BYTES = 128 * 1024
const BLOCK_RLE = 1
const BLOCK_RESERVED = 3

export interface DataFrame {
  kind: 'data'
  /** null: the frame does not say. */
  contentBytes: number | null
  windowBytes: number
  checksum: boolean
}

export interface SkippableFrame {
  kind: 'skippable'
  magic: number
  payloadBytes: number
}

export interface FrameSink {
  begin(frame: DataFrame | SkippableFrame): void
  /** Bytes of the frame, its header included; a view of the walker's input. */
  bytes(piece: Buffer): void
  /** The frame is whole. @param blockLimit what its blocks can hold at most, for a data frame. */
  end(blockLimit: number): void
}

type State = 'magic' | 'skippable' | 'frame' | 'block' | 'body' | 'checksum' | 'payload'

/** Finds the borders of frames in bytes that come in pieces of any size. It holds 18 bytes. */
export class FrameWalker {
  readonly #sink: FrameSink
  readonly #hold = Buffer.alloc(18)
  #held = 0
  #state: State = 'magic'
  #need = 4
  #skip = 0
  #frame: DataFrame | undefined
  #lastBlock = false
  #blockLimit = 0

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Whether the input may end here. */
  get betweenFrames(): boolean {
    return this.#state === 'magic' && this.#held === 0
  }

  /**
   * Takes bytes from `offset`, up to the end of the chunk or of the current frame.
   * @returns how many were taken; at least one.
   * @throws TransformError CORRUPT, UNSUPPORTED, LIMIT.
   */
  push(chunk: Buffer, offset: number): number {
    let at = offset
    while (at < chunk.length) {
      if (this.#state === 'body' || this.#state === 'payload') {
        const take = Math.min(this.#skip, chunk.length - at)
        this.#sink.bytes(chunk.subarray(at, at + take))
        at += take
        this.#skip -= take
        if (this.#skip > 0) continue
        if (this.#afterBytes()) break
        continue
      }
      const take = Math.min(this.#need - this.#held, chunk.length - at)
      chunk.copy(this.#hold, this.#held, at, at + take)
      this.#held += take
      at += take
      if (this.#held === this.#need && this.#afterHeld()) break
    }
    return at - offset
  }

  /** What was held is complete. @returns whether a frame ended. */
  #afterHeld(): boolean {
    switch (this.#state) {
      case 'magic':
        this.#magic()
        return false
      case 'skippable':
        return this.#skippable()
      case 'frame':
        this.#frameHeader()
        return false
      case 'block':
        return this.#blockHeader()
      default:
        this.#release()
        return this.#endFrame()
    }
  }

  /** A block's body or a skippable payload is over. @returns whether the frame ended. */
  #afterBytes(): boolean {
    if (this.#state === 'payload' || (this.#lastBlock && !this.#frame?.checksum)) return this.#endFrame()
    if (this.#lastBlock) this.#expect('checksum', CHECKSUM_BYTES)
    else this.#expect('block', BLOCK_HEADER_BYTES)
    return false
  }

  #expect(state: State, need: number): void {
    this.#state = state
    this.#need = need
    this.#held = 0
  }

  #endFrame(): boolean {
    this.#expect('magic', 4)
    this.#sink.end(this.#blockLimit)
    return true
  }

  #release(): void {
    this.#sink.bytes(Buffer.from(this.#hold.subarray(0, this.#held)))
    this.#held = 0
  }

  #magic(): void {
    const magic = this.#hold.readUInt32LE(0)
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      this.#state = 'skippable'
      this.#need = 8
    } else if (magic === ZSTD_MAGIC) {
      this.#state = 'frame'
      this.#need = 5
    } else {
      throw new TransformError(
        'CORRUPT',
        'The stream has bytes that are no zstd frame: it is damaged, or not compressed with zstd.',
      )
    }
  }

  #skippable(): boolean {
    const payloadBytes = this.#hold.readUInt32LE(4)
    this.#sink.begin({ kind: 'skippable', magic: this.#hold.readUInt32LE(0), payloadBytes })
    this.#release()
    this.#state = 'payload'
    this.#skip = payloadBytes
    return payloadBytes === 0 && this.#endFrame()
  }

  #frameHeader(): void {
    const descriptor = this.#hold[4] as number
    const single = (descriptor & 0x20) !== 0
    const sizeFlag = descriptor >>> 6
    const sizeBytes = sizeFlag === 0 ? (single ? 1 : 0) : 2 ** sizeFlag
    const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] as number
    const need = 5 + (single ? 0 : 1) + dictionaryBytes + sizeBytes
    if (this.#held < need) {
      this.#need = need
      return
    }
    if (descriptor & 0x08)
      throw new TransformError('CORRUPT', 'A zstd frame header has its reserved bit set: it is damaged.')
    const dictionary = this.#hold.subarray(need - sizeBytes - dictionaryBytes, need - sizeBytes)
    if (dictionary.some((byte) => byte !== 0)) {
      throw new TransformError('UNSUPPORTED', 'A zstd frame needs a dictionary, which millrace does not use.')
    }
    const contentBytes = sizeBytes === 0 ? null : readSize(this.#hold, need - sizeBytes, sizeBytes)
    const windowBytes = single ? (contentBytes as number) : windowSize(this.#hold[5] as number)
    if (windowBytes > MAX_WINDOW_BYTES) {
      throw new TransformError(
        'LIMIT',
        `A zstd frame needs a window of ${windowBytes} bytes, and ${MAX_WINDOW_BYTES} are allowed.`,
      )
    }
    this.#frame = { kind: 'data', contentBytes, windowBytes, checksum: (descriptor & 0x04) !== 0 }
    this.#blockLimit = 0
    this.#lastBlock = false
    this.#sink.begin(this.#frame)
    this.#release()
    this.#expect('block', BLOCK_HEADER_BYTES)
  }

  #blockHeader(): boolean {
    const header = this.#hold.readUIntLE(0, 3)
    const type = (header >>> 1) & 3
    const size = header >>> 3
    const limit = Math.min(MAX_BLOCK_BYTES, (this.#frame as DataFrame).windowBytes)
    if (type === BLOCK_RESERVED || size > limit) {
      throw new TransformError('CORRUPT', 'A zstd block header is impossible: the stream is damaged.')
    }
    this.#release()
    this.#lastBlock = (header & 1) === 1
    this.#blockLimit += type === 2 ? limit : size
    this.#state = 'body'
    this.#skip = type === BLOCK_RLE ? 1 : size
    return this.#skip === 0 && this.#afterBytes()
  }
}

function readSize(bytes: Buffer, at: number, length: number): number {
  if (length === 1) return bytes[at] as number
  if (length === 2) return bytes.readUInt16LE(at) + 256
  if (length === 4) return bytes.readUInt32LE(at)
  const size = bytes.readBigUInt64LE(at)
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new TransformError('LIMIT', `A zstd frame says it holds ${size} bytes: it is damaged, or made to harm.`)
  }
  return Number(size)
}

function windowSize(byte: number): number {
  const base = 2 ** (10 + (byte >>> 3))
  return base + (base / 8) * (byte & 7)
}
