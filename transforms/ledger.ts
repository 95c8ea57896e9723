import { randomBytes, timingSafeEqual } from 'node:crypto'
import {
  additionalData,
  FRAME_OVERHEAD_BYTES,
  MAX_FRAMES,
  NONCE_BYTES,
  newCipher,
  prepareObject,
  type SealedObject,
  type SealOptions,
  TAG_BYTES,
  tooManyFrames,
} from './container.ts'
import { TransformError } from './errors.ts'
import { MAC_OFFSET, parseHeader } from './header.ts'
import { letGo } from './lending.ts'

// Sealing that can be taken up again. docs/decisions/0012-resuming-uploads.md says why no nonce is used twice.

/** What a ledger keeps of a frame: its nonce, then its tag. */
export const SEAL_BYTES = FRAME_OVERHEAD_BYTES

/** What was sealed of an object, and what is sealed of it now. */
export interface FrameLedger {
  /** The header of an object that is sealed again; undefined for a new one. */
  readonly header: Buffer | undefined
  /** @returns the seal of a frame that was sealed before; undefined from the first one that was not. */
  seal(frame: number): Buffer | undefined
  /** Takes a new object's header down, before any byte of it leaves the stream. */
  begin(header: Buffer): void
  /** Takes the seal of a further frame down, before any byte of it leaves the stream. */
  add(frame: number, seal: Buffer): void
}

/**
 * Checks the options of a writer that keeps a ledger.
 * @returns a function that derives the keys and gives the writer, once; it rejects as that of `prepareAgain` does.
 * @throws TransformError BAD_KEY, BAD_OPTION.
 */
export function prepareLedgerSealer(options: SealOptions, ledger: FrameLedger): () => Promise<LedgerSealer> {
  const prepare = prepareAgain(options, ledger)
  return async () => new LedgerSealer(await prepare(), ledger)
}

/**
 * Checks the options of a writer that keeps a ledger.
 * @returns a function that gives the ledger's object with its keys, or a new one, which is in the ledger then. It
 * rejects with WRONG_KEY when the ledger's header was made with another key, with DIFFERS when it was made with other
 * options.
 * @throws TransformError BAD_KEY, BAD_OPTION.
 */
export function prepareAgain(options: SealOptions, ledger: FrameLedger): () => Promise<SealedObject> {
  const prepare = prepareObject(options)
  return async () => {
    if (ledger.header === undefined) {
      const object = await prepare()
      ledger.begin(Buffer.from(object.header))
      return object
    }
    const before = parseHeader(ledger.header)
    const object = await prepare(before)
    if (!object.header.subarray(0, MAC_OFFSET).equals(before.fields)) {
      wipe(object)
      throw new TransformError('DIFFERS', 'The object was begun with another kind of key, or other options.')
    }
    if (!timingSafeEqual(object.header.subarray(MAC_OFFSET), before.mac)) {
      wipe(object)
      throw new TransformError('WRONG_KEY', 'The object was begun with another password or key.')
    }
    return object
  }
}

/** Writes one container frame by frame: each leaves whole, when its nonce and its tag are in the ledger. */
export class LedgerSealer {
  readonly header: Buffer
  readonly #object: SealedObject
  readonly #ledger: FrameLedger
  readonly #aad: Buffer
  #frame = 0
  /** The frame that is being sealed: nonce, ciphertext, tag. Nobody else has it yet. */
  #sealed: Buffer | undefined
  #inFrame = 0
  #before: Buffer | undefined
  #cipher: ReturnType<typeof newCipher> | undefined

  constructor(object: SealedObject, ledger: FrameLedger) {
    this.header = object.header
    this.#object = object
    this.#ledger = ledger
    this.#aad = additionalData(object.header.subarray(MAC_OFFSET))
  }

  /** Encrypts a piece of plaintext. Calls `push` with whole frames, in buffers that are nobody else's. */
  update(plain: Buffer, push: (sealed: Buffer) => void): void {
    let at = 0
    while (at < plain.length) {
      this.#cipher ??= this.#begin()
      const take = Math.min(plain.length - at, this.#object.frameBytes - this.#inFrame)
      this.#take(this.#cipher.update(plain.subarray(at, at + take)))
      at += take
      if (this.#inFrame === this.#object.frameBytes) push(this.#end())
    }
  }

  /** Ends the container with the last, short frame. */
  final(push: (sealed: Buffer) => void): void {
    // Also where the frame itself could be the same: what is to follow it was sealed, and would be missing.
    if (this.#ledger.seal(this.#frame + 1)) throw this.#differs()
    this.#cipher ??= this.#begin()
    push(this.#end())
    this.wipe()
  }

  wipe(): void {
    wipe(this.#object)
    this.#sealed?.fill(0)
    this.#sealed = undefined
  }

  #begin() {
    const { frameBytes, keys } = this.#object
    if (this.#frame >= MAX_FRAMES) {
      throw tooManyFrames(frameBytes)
    }
    this.#before = this.#ledger.seal(this.#frame)
    const nonce = this.#before ? this.#before.subarray(0, NONCE_BYTES) : randomBytes(NONCE_BYTES)
    this.#sealed = Buffer.allocUnsafeSlow(frameBytes + FRAME_OVERHEAD_BYTES)
    nonce.copy(this.#sealed)
    this.#inFrame = 0
    this.#aad.writeBigUInt64BE(BigInt(this.#frame), this.#aad.length - 8)
    return newCipher(keys.frames, nonce, this.#aad)
  }

  #take(ciphertext: Buffer): void {
    ciphertext.copy(this.#sealed as Buffer, NONCE_BYTES + this.#inFrame)
    this.#inFrame += ciphertext.length
    letGo(ciphertext)
  }

  /** @returns the frame. @throws TransformError DIFFERS when the ledger has another one in its place. */
  #end(): Buffer {
    const cipher = this.#cipher as ReturnType<typeof newCipher>
    this.#cipher = undefined
    cipher.final()
    const tag = cipher.getAuthTag()
    const whole = this.#sealed as Buffer
    if (this.#before) {
      if (!timingSafeEqual(tag, this.#before.subarray(NONCE_BYTES))) {
        this.wipe()
        throw this.#differs()
      }
    } else {
      this.#ledger.add(this.#frame, Buffer.concat([whole.subarray(0, NONCE_BYTES), tag]))
    }
    const tagAt = NONCE_BYTES + this.#inFrame
    tag.copy(whole, tagAt)
    this.#sealed = undefined
    this.#frame += 1
    return whole.subarray(0, tagAt + TAG_BYTES)
  }

  #differs(): TransformError {
    return differs(this.#frame, this.#object.frameBytes)
  }
}

/** The error of bytes that are not those of the run whose upload is taken up. */
export function differs(frame: number, frameBytes: number): TransformError {
  const at = frame * frameBytes
  return new TransformError(
    'DIFFERS',
    `The bytes are not those of the run that is taken up: they differ in frame ${frame} (compressed bytes ${at} to ${at + frameBytes - 1}). Nothing of it was sent.`,
    { frame },
  )
}

function wipe({ keys }: SealedObject): void {
  keys.header.fill(0)
  keys.frames.fill(0)
}
