import { type CipherKey, createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { TransformError } from './errors.ts'
import {
  HEADER_BYTES,
  type Header,
  KDF_PBKDF2,
  KDF_RAW,
  MAC_OFFSET,
  MAGIC,
  MAX_FRAME_BYTES,
  MIN_FRAME_BYTES,
  SALT_OFFSET,
  SUITE_AES_256_GCM,
  VERSION,
} from './header.ts'
import {
  checkReadKeys,
  checkWriteKey,
  deriveObjectKeys,
  deriveRoot,
  type ObjectKeys,
  PBKDF2_ITERATIONS,
  PBKDF2_MAX_ITERATIONS,
  PBKDF2_MIN_ITERATIONS,
  type ReadKeys,
  type WriteKey,
} from './keys.ts'
import type { FrameLedger } from './ledger.ts'

// The container, version 1: FORMAT.md, 'Layer 3'. This file is the format without streams.

export const NONCE_BYTES = 12
export const TAG_BYTES = 16
/** What a frame adds to its plaintext. */
export const FRAME_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
/** Plaintext bytes of a full frame where nothing else is asked for. */
export const FRAME_BYTES = 1024 * 1024
/** Random 96-bit nonces under one key: NIST SP 800-38D, 8.3. */
export const MAX_FRAMES = 2 ** 32

const MAC_BYTES = 32
const NONCES_AT_ONCE = 256
/** What is encrypted into a buffer of its own: of a MiB each, they would be new pages of memory every time. */
const SLICE_BYTES = 128 * 1024

/** How many frames hold `plainBytes`: the last is always shorter than a whole one, down to empty. */
export function frameCount(plainBytes: number, frameBytes: number = FRAME_BYTES): number {
  return Math.floor(plainBytes / frameBytes) + 1
}

/**
 * The length of the container of `plainBytes` bytes of plaintext.
 * @throws TransformError BAD_OPTION for a frame size that the format does not have.
 */
export function sealedSize(plainBytes: number, frameBytes: number = FRAME_BYTES): number {
  frameBytesLog(frameBytes)
  return HEADER_BYTES + plainBytes + FRAME_OVERHEAD_BYTES * frameCount(plainBytes, frameBytes)
}

/**
 * The length of the plaintext in a container of `sealedBytes` bytes; the inverse of `sealedSize`.
 * @throws TransformError TRUNCATED for a length that no plaintext yields.
 */
export function plainSize(sealedBytes: number, frameBytes: number = FRAME_BYTES): number {
  frameBytesLog(frameBytes)
  const body = sealedBytes - HEADER_BYTES
  const rest = body % (frameBytes + FRAME_OVERHEAD_BYTES)
  if (body < FRAME_OVERHEAD_BYTES || rest < FRAME_OVERHEAD_BYTES) {
    throw new TransformError(
      'TRUNCATED',
      `No container is ${sealedBytes} bytes long: the object is cut or has grown. Fetch it again, or use another snapshot.`,
    )
  }
  return Math.floor(body / (frameBytes + FRAME_OVERHEAD_BYTES)) * frameBytes + rest - FRAME_OVERHEAD_BYTES
}

function frameBytesLog(frameBytes: number): number {
  // A string of digits has a logarithm as well, and a writer would wait for ever for a frame that is as long as it.
  const log = Number.isInteger(frameBytes) ? Math.log2(frameBytes) : Number.NaN
  if (!Number.isInteger(log) || frameBytes < MIN_FRAME_BYTES || frameBytes > MAX_FRAME_BYTES) {
    throw new TransformError(
      'BAD_OPTION',
      `frameBytes is ${frameBytes} and must be a power of two from 4096 to 16777216.`,
    )
  }
  return log
}

export interface SealOptions extends WriteKey {
  /** Plaintext bytes a frame, a power of two from 4 KiB to 16 MiB; 1 MiB when left out. */
  frameBytes?: number | undefined
  /** PBKDF2 iterations, 100,000 to 10,000,000; 600,000 when left out. */
  iterations?: number | undefined
  /** Told of each chunk that has been encrypted, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
  /** Where each frame is put down before it leaves, and whose frames are sealed again as they were. */
  ledger?: FrameLedger | undefined
}

/** What a container is written with: its header, and the keys of its salt. */
export interface SealedObject {
  header: Buffer
  frameBytes: number
  keys: ObjectKeys
}

/**
 * Checks the options of a writer.
 * @returns a function that derives the keys and gives the writer, once.
 * @throws TransformError BAD_KEY, BAD_OPTION.
 */
export function prepareSealer(options: SealOptions): () => Promise<Sealer> {
  const prepare = prepareObject(options)
  return async () => {
    const { header, frameBytes, keys } = await prepare()
    return new Sealer(header, frameBytes, keys)
  }
}

/**
 * Checks the options of a writer.
 * @returns a function that makes a header and derives the object's keys.
 * @throws TransformError BAD_KEY, BAD_OPTION.
 */
export function prepareObject(options: SealOptions): (again?: Header) => Promise<SealedObject> {
  const material = checkWriteKey(options)
  const frameBytes = options.frameBytes ?? FRAME_BYTES
  const log = frameBytesLog(frameBytes)
  const iterations = options.iterations ?? PBKDF2_ITERATIONS
  if (!Number.isInteger(iterations) || iterations < PBKDF2_MIN_ITERATIONS || iterations > PBKDF2_MAX_ITERATIONS) {
    throw new TransformError(
      'BAD_OPTION',
      `iterations is ${iterations} and must be from ${PBKDF2_MIN_ITERATIONS} to ${PBKDF2_MAX_ITERATIONS}.`,
    )
  }
  return async (again) => {
    const raw = 'key' in material
    const header = Buffer.alloc(HEADER_BYTES)
    MAGIC.copy(header)
    header[8] = VERSION
    header[9] = SUITE_AES_256_GCM
    header[10] = raw ? KDF_RAW : KDF_PBKDF2
    header[11] = log
    header.writeUInt32BE(raw ? 0 : iterations, 12)
    const salt = again?.salt ?? randomBytes(MAC_OFFSET - SALT_OFFSET)
    salt.copy(header, SALT_OFFSET)
    const root = raw ? material.key : await deriveRoot(material.password, salt, iterations)
    const keys = deriveObjectKeys(root, salt)
    root.fill(0)
    headerMac(keys, header.subarray(0, MAC_OFFSET)).copy(header, MAC_OFFSET)
    return { header, frameBytes, keys }
  }
}

function headerMac(keys: ObjectKeys, fields: Uint8Array): Buffer {
  return createHmac('sha256', keys.header).update(fields).digest()
}

/** What each frame authenticates beside itself: the header's MAC, and its own number in the last 8 bytes. */
export function additionalData(mac: Uint8Array): Buffer {
  const aad = Buffer.alloc(MAC_BYTES + 8)
  aad.set(mac)
  return aad
}

/** Writes one container: the header, then frames, cut wherever the plaintext happens to be cut. */
export class Sealer {
  readonly header: Buffer
  readonly #frameBytes: number
  readonly #keys: ObjectKeys
  readonly #aad: Buffer
  #nonces: Buffer = Buffer.alloc(0)
  #frame = 0
  #inFrame = 0
  #cipher: ReturnType<typeof newCipher> | undefined

  constructor(header: Buffer, frameBytes: number, keys: ObjectKeys) {
    this.header = header
    this.#frameBytes = frameBytes
    this.#keys = keys
    this.#aad = additionalData(header.subarray(MAC_OFFSET))
  }

  /** Encrypts a piece of plaintext. Calls `push` with buffers that are nobody else's. */
  update(plain: Buffer, push: (sealed: Buffer) => void): void {
    let at = 0
    while (at < plain.length) {
      this.#cipher ??= this.#begin(push)
      const take = Math.min(plain.length - at, this.#frameBytes - this.#inFrame, SLICE_BYTES)
      push(this.#cipher.update(plain.subarray(at, at + take)))
      at += take
      this.#inFrame += take
      if (this.#inFrame === this.#frameBytes) this.#finishFrame(push)
    }
  }

  /** Ends the container with the last, short frame. */
  final(push: (sealed: Buffer) => void): void {
    this.#cipher ??= this.#begin(push)
    this.#finishFrame(push)
    this.wipe()
  }

  wipe(): void {
    this.#keys.header.fill(0)
    this.#keys.frames.fill(0)
  }

  #begin(push: (sealed: Buffer) => void) {
    if (this.#frame >= MAX_FRAMES) {
      throw tooManyFrames(this.#frameBytes)
    }
    if (this.#nonces.length === 0) this.#nonces = randomBytes(NONCE_BYTES * NONCES_AT_ONCE)
    const nonce = this.#nonces.subarray(0, NONCE_BYTES)
    this.#nonces = this.#nonces.subarray(NONCE_BYTES)
    this.#aad.writeBigUInt64BE(BigInt(this.#frame), MAC_BYTES)
    push(nonce)
    return newCipher(this.#keys.frames, nonce, this.#aad)
  }

  #finishFrame(push: (sealed: Buffer) => void): void {
    const cipher = this.#cipher as ReturnType<typeof newCipher>
    cipher.final()
    push(cipher.getAuthTag())
    this.#cipher = undefined
    this.#inFrame = 0
    this.#frame += 1
  }
}

export function tooManyFrames(frameBytes: number): TransformError {
  return new TransformError(
    'LIMIT',
    `One container holds at most 2^32 frames, ${MAX_FRAMES * frameBytes} bytes. Split the source, or use larger frames.`,
  )
}

export function authFailed(frame: number, cause?: unknown): TransformError {
  return new TransformError(
    'AUTH_FAILED',
    `Frame ${frame} fails its authentication: the object was changed, cut or mixed up. Use another snapshot or copy.`,
    { cause, frame },
  )
}

/** @param isCut false: the frame before it was a whole one, after which another one has to come. */
export function endsShort(frame: number, isCut: boolean): TransformError {
  return new TransformError(
    'TRUNCATED',
    `The container ends ${isCut ? 'inside a frame' : 'after a full frame'} (frame ${frame}): it was cut. Fetch it again, or use another snapshot.`,
  )
}

/** The cipher of one frame. */
export function newCipher(key: CipherKey, nonce: Uint8Array, aad: Uint8Array) {
  return createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES }).setAAD(aad)
}

export function newDecipher(key: CipherKey, nonce: Uint8Array, aad: Uint8Array) {
  return createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES }).setAAD(aad)
}

/** Tries the material of a reader on a header. @throws TransformError WRONG_KEY. */
export type PreparedOpener = (header: Header) => Promise<Opener>

/**
 * Checks the material of a reader.
 * @param known an opener of the same object, whose keys need not be derived again where the header is the same.
 * @returns a function that tries it on a header and gives the frame reader's keys.
 * @throws TransformError BAD_KEY at once.
 */
export function prepareOpener(material: ReadKeys, known?: Opener): PreparedOpener {
  const { passwords, keys } = checkReadKeys(material)
  return async (header) => {
    const twin = known?.twin(header)
    if (twin) {
      for (const key of keys) key.fill(0)
      return twin
    }
    const raw = header.iterations === null
    if (raw ? keys.length === 0 : passwords.length === 0) {
      throw new TransformError(
        'WRONG_KEY',
        raw
          ? 'The object is sealed with a raw key, and only a password was given. Give the key file.'
          : 'The object is sealed with a password, and only a key was given. Give the password.',
      )
    }
    for (const candidate of raw ? keys : passwords) {
      const root =
        typeof candidate === 'string'
          ? await deriveRoot(candidate, header.salt, header.iterations as number)
          : candidate
      const objectKeys = deriveObjectKeys(root, header.salt)
      if (typeof candidate === 'string') root.fill(0)
      if (timingSafeEqual(headerMac(objectKeys, header.fields), header.mac)) {
        for (const key of keys) key.fill(0)
        return new Opener(header, objectKeys)
      }
    }
    throw new TransformError('WRONG_KEY', 'Wrong password or key, or the header is damaged.')
  }
}

/** Opens single frames of one container. */
export class Opener {
  readonly header: Header
  readonly #keys: ObjectKeys
  readonly #aad: Buffer
  #isWiped = false

  constructor(header: Header, keys: ObjectKeys) {
    this.header = header
    this.#keys = keys
    this.#aad = additionalData(header.mac)
  }

  /**
   * @param sealed one whole frame: nonce, ciphertext, tag.
   * @returns the plaintext, in a buffer that is nobody else's.
   * @throws TransformError AUTH_FAILED; Error once the keys are wiped.
   */
  open(index: number, sealed: Buffer): Buffer {
    // With keys of zeros it would be told as damage.
    if (this.#isWiped) throw new Error('The container was closed, and its keys are wiped. Open it again to read it.')
    this.#aad.writeBigUInt64BE(BigInt(index), MAC_BYTES)
    const decipher = newDecipher(this.#keys.frames, sealed.subarray(0, NONCE_BYTES), this.#aad)
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
    const plain = decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES))
    try {
      decipher.final()
    } catch (cause) {
      throw authFailed(index, cause)
    }
    return plain
  }

  /** Another opener with the same keys; undefined where the header is another, or the keys are wiped. */
  twin({ fields, mac }: Header): Opener | undefined {
    if (this.#isWiped || !fields.equals(this.header.fields) || !timingSafeEqual(mac, this.header.mac)) return undefined
    const { header, frames } = this.#keys
    return new Opener(this.header, { header: Buffer.from(header), frames: Buffer.from(frames) })
  }

  /** The key of the frames, for who opens them elsewhere and wipes it; this one cannot open any after that. */
  takeFrameKey(): Buffer {
    const key = Buffer.from(this.#keys.frames)
    this.wipe()
    return key
  }

  wipe(): void {
    this.#isWiped = true
    this.#keys.header.fill(0)
    this.#keys.frames.fill(0)
  }
}
