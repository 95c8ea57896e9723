import { createHash, type KeyObject, randomBytes } from 'node:crypto'
import {
  additionalData,
  FRAME_OVERHEAD_BYTES,
  MAX_FRAMES,
  NONCE_BYTES,
  newCipher,
  newDecipher,
  TAG_BYTES,
} from './container.ts'
import { letGo } from './lending.ts'

// What a CryptThread does on its thread: this file is the work without the messages. Each slice is encrypted and hashed
// while it is in the processor's cache.

/** What is encrypted, copied and hashed at a time. Below glibc's M_MMAP_THRESHOLD, so that its memory is used again. */
const SLICE_BYTES = 64 * 1024

/** What a thread is to do with the bytes that it is given, and hash what is stored of them. */
export type CryptSetup =
  | { job: 'hash' }
  | { job: 'seal'; key: KeyObject; header: Uint8Array; mac: Uint8Array; frameBytes: number }
  | { job: 'open'; key: KeyObject; headerBytes: number; mac: Uint8Array; frameBytes: number }

/** Bytes that came out. */
export interface CryptOutput {
  memory: ArrayBuffer
  length: number
}

/** One of the three jobs. */
export interface CryptJob {
  /**
   * Takes the next bytes.
   * @returns the frames that are whole now.
   * @throws FrameFailure where one does not authenticate.
   */
  take(bytes: Uint8Array): CryptOutput[]
  /** @returns the last frame. @throws FrameFailure */
  end(): CryptOutput[]
  /** SHA-256 of the stored bytes, hex; once, after the end. */
  digest(): string
  /** Memory that `take` and `end` may fill. */
  reuse(memory: ArrayBuffer): void
  /** The nonces of frames that are sealed again as they were. */
  nonces(known: ReadonlyMap<number, Uint8Array>): void
}

/** A frame that cannot be opened, or one too many. */
export class FrameFailure extends Error {
  readonly code: 'AUTH_FAILED' | 'TRUNCATED' | 'LIMIT'
  readonly frame: number
  /** Of TRUNCATED: whether bytes of the frame were there. */
  readonly isCut: boolean

  constructor(code: FrameFailure['code'], frame: number, isCut = false) {
    super(code)
    this.code = code
    this.frame = frame
    this.isCut = isCut
  }
}

export function cryptJob(setup: CryptSetup): CryptJob {
  if (setup.job === 'seal') return new Sealing(setup)
  if (setup.job === 'open') return new Opening(setup)
  return new Hashing()
}

abstract class Job implements CryptJob {
  protected readonly hash = createHash('sha256')
  readonly #free: ArrayBuffer[] = []

  abstract take(bytes: Uint8Array): CryptOutput[]
  abstract end(): CryptOutput[]

  digest(): string {
    return this.hash.digest('hex')
  }

  reuse(memory: ArrayBuffer): void {
    this.#free.push(memory)
  }

  nonces(_known: ReadonlyMap<number, Uint8Array>): void {}

  protected takeMemory(bytes: number): Buffer {
    const free = this.#free.pop()
    return free && free.byteLength >= bytes ? Buffer.from(free) : Buffer.allocUnsafeSlow(bytes)
  }
}

/** What is not encrypted goes back as it came. */
class Hashing extends Job {
  take(bytes: Uint8Array): CryptOutput[] {
    this.hash.update(bytes)
    return []
  }

  end(): CryptOutput[] {
    return []
  }
}

class Sealing extends Job {
  readonly #key: KeyObject
  readonly #aad: Buffer
  readonly #frameBytes: number
  #known: ReadonlyMap<number, Uint8Array> = new Map()
  #frame = 0
  #out: Buffer | undefined
  #inFrame = 0
  #cipher: ReturnType<typeof newCipher> | undefined

  constructor({ key, header, mac, frameBytes }: CryptSetup & { job: 'seal' }) {
    super()
    this.#key = key
    this.#aad = additionalData(mac)
    this.#frameBytes = frameBytes
    this.hash.update(header)
  }

  override nonces(known: ReadonlyMap<number, Uint8Array>): void {
    this.#known = known
  }

  take(bytes: Uint8Array): CryptOutput[] {
    const frames: CryptOutput[] = []
    for (let at = 0; at < bytes.length; ) {
      this.#cipher ??= this.#begin()
      const until = Math.min(bytes.length, at + SLICE_BYTES, at + this.#frameBytes - this.#inFrame)
      const sealed = this.#cipher.update(bytes.subarray(at, until))
      this.#append(sealed)
      letGo(sealed)
      this.#inFrame += until - at
      at = until
      if (this.#inFrame === this.#frameBytes) frames.push(this.#finish())
    }
    return frames
  }

  end(): CryptOutput[] {
    this.#cipher ??= this.#begin()
    return [this.#finish()]
  }

  #begin() {
    if (this.#frame >= MAX_FRAMES) throw new FrameFailure('LIMIT', this.#frame)
    const nonce = this.#known.get(this.#frame) ?? randomBytes(NONCE_BYTES)
    this.#out = this.takeMemory(this.#frameBytes + FRAME_OVERHEAD_BYTES)
    this.#inFrame = -NONCE_BYTES
    this.#append(nonce)
    this.#inFrame = 0
    this.#aad.writeBigUInt64BE(BigInt(this.#frame), this.#aad.length - 8)
    return newCipher(this.#key, nonce, this.#aad)
  }

  #append(bytes: Uint8Array): void {
    this.#out?.set(bytes, NONCE_BYTES + this.#inFrame)
    this.hash.update(bytes)
  }

  #finish(): CryptOutput {
    const cipher = this.#cipher as ReturnType<typeof newCipher>
    cipher.final()
    this.#append(cipher.getAuthTag())
    const memory = (this.#out as Buffer).buffer as ArrayBuffer
    const length = NONCE_BYTES + this.#inFrame + TAG_BYTES
    this.#cipher = undefined
    this.#out = undefined
    this.#frame += 1
    return { memory, length }
  }
}

class Opening extends Job {
  readonly #key: KeyObject
  readonly #aad: Buffer
  readonly #frameBytes: number
  #frame = 0
  /** Sealed bytes of the frame that have come. */
  #inFrame = 0
  readonly #nonce = Buffer.alloc(NONCE_BYTES)
  /** The last bytes that have come: the tag, if the frame ends here. */
  #held = Buffer.alloc(0)
  #out: Buffer | undefined
  #plain = 0
  #decipher: ReturnType<typeof newDecipher> | undefined
  #headerLeft: number

  constructor({ key, headerBytes, mac, frameBytes }: CryptSetup & { job: 'open' }) {
    super()
    this.#key = key
    this.#aad = additionalData(mac)
    this.#frameBytes = frameBytes
    this.#headerLeft = headerBytes
  }

  take(bytes: Uint8Array): CryptOutput[] {
    const frames: CryptOutput[] = []
    for (let at = 0; at < bytes.length; ) {
      const left = this.#headerLeft > 0 ? this.#headerLeft : this.#frameBytes + FRAME_OVERHEAD_BYTES - this.#inFrame
      const slice = bytes.subarray(at, Math.min(bytes.length, at + SLICE_BYTES, at + left))
      this.hash.update(slice)
      at += slice.length
      if (this.#headerLeft > 0) this.#headerLeft -= slice.length
      else this.#slice(slice, frames)
    }
    return frames
  }

  end(): CryptOutput[] {
    if (this.#inFrame < FRAME_OVERHEAD_BYTES) throw new FrameFailure('TRUNCATED', this.#frame, this.#inFrame > 0)
    return [this.#finish()]
  }

  #slice(slice: Uint8Array, frames: CryptOutput[]): void {
    let rest = slice
    if (this.#inFrame < NONCE_BYTES) {
      const taken = rest.subarray(0, NONCE_BYTES - this.#inFrame)
      this.#nonce.set(taken, this.#inFrame)
      this.#inFrame += taken.length
      rest = rest.subarray(taken.length)
      if (this.#inFrame < NONCE_BYTES) return
      this.#begin()
    }
    this.#inFrame += rest.length
    // All but the last 16 bytes are ciphertext for certain.
    const ready = this.#held.length + rest.length - TAG_BYTES
    if (ready <= 0) {
      this.#held = Buffer.concat([this.#held, rest])
    } else {
      const fromHeld = Math.min(ready, this.#held.length)
      this.#decrypt(this.#held.subarray(0, fromHeld))
      this.#decrypt(rest.subarray(0, ready - fromHeld))
      this.#held = Buffer.concat([this.#held.subarray(fromHeld), rest.subarray(ready - fromHeld)])
    }
    if (this.#inFrame === this.#frameBytes + FRAME_OVERHEAD_BYTES) frames.push(this.#finish())
  }

  #begin(): void {
    this.#aad.writeBigUInt64BE(BigInt(this.#frame), this.#aad.length - 8)
    this.#decipher = newDecipher(this.#key, this.#nonce, this.#aad)
    this.#out = this.takeMemory(this.#frameBytes)
    this.#plain = 0
    this.#held = Buffer.alloc(0)
  }

  #decrypt(sealed: Uint8Array): void {
    if (sealed.length === 0) return
    const plain = (this.#decipher as ReturnType<typeof newDecipher>).update(sealed)
    this.#out?.set(plain, this.#plain)
    this.#plain += plain.length
    letGo(plain)
  }

  #finish(): CryptOutput {
    const decipher = this.#decipher as ReturnType<typeof newDecipher>
    const out = this.#out as Buffer
    try {
      decipher.setAuthTag(this.#held).final()
    } catch {
      // Nobody may see what does not authenticate.
      out.fill(0)
      throw new FrameFailure('AUTH_FAILED', this.#frame)
    }
    this.#out = undefined
    this.#decipher = undefined
    this.#inFrame = 0
    this.#frame += 1
    return { memory: out.buffer as ArrayBuffer, length: this.#plain }
  }
}
