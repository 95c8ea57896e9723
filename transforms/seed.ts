import { createCipheriv, randomBytes } from 'node:crypto'
import { Transform } from 'node:stream'
import { NONCE_BYTES, TAG_BYTES } from './container.ts'
import { TransformError } from './errors.ts'
import { checkWriteKey, deriveRoot } from './keys.ts'

// The original service's layout: salt ‖ nonce ‖ ciphertext ‖ tag, one AES-256-GCM message, no magic, no version.

export const SEED_SALT_BYTES = 16
/** What stands before the ciphertext. */
export const SEED_HEADER_BYTES = SEED_SALT_BYTES + NONCE_BYTES
/** What the layout adds to its plaintext. */
export const SEED_OVERHEAD_BYTES = SEED_HEADER_BYTES + TAG_BYTES
/** The layout has no field for it, so no object can have another figure. */
export const SEED_ITERATIONS = 100_000
/** The longest message of AES-GCM: NIST SP 800-38D, 5.2.1.1. */
export const SEED_MAX_PLAIN_BYTES = 2 ** 36 - 32

/** What `createSeedEncrypt` takes. */
export interface SeedEncryptOptions {
  /** Used as typed, in the Unicode form it comes in; neither empty nor holding a NUL. */
  password: string
  /** Told of each chunk that has been encrypted, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
}

/**
 * A stream that seals bytes into the original service's layout, for readers that know no other; everything else is
 * better served by `createEncrypt`. It buffers nothing, and what comes out is SEED_OVERHEAD_BYTES longer than what
 * goes in. The key is derived on the thread pool.
 * @throws TransformError BAD_KEY at once. The stream fails with LIMIT before a byte would be encrypted beyond
 * SEED_MAX_PLAIN_BYTES, just under 64 GiB.
 */
export function createSeedEncrypt(options: SeedEncryptOptions): Transform {
  checkWriteKey({ password: options.password })
  const { password, onConsumed } = options
  let sealer: SeedSealer | undefined
  return new Transform({
    construct(callback) {
      const header = randomBytes(SEED_HEADER_BYTES)
      deriveSeedKey(password, header).then((key) => {
        sealer = new SeedSealer(key, header.subarray(SEED_SALT_BYTES))
        key.fill(0)
        this.push(header)
        callback()
      }, callback)
    },
    transform(chunk: Buffer, _encoding, callback) {
      let sealed: Buffer
      try {
        sealed = (sealer as SeedSealer).update(chunk)
        onConsumed?.(chunk)
      } catch (error) {
        callback(error as Error)
        return
      }
      callback(null, sealed)
    },
    flush(callback) {
      callback(null, (sealer as SeedSealer).final())
    },
  })
}

/**
 * The key of one object, derived on the thread pool.
 * @param header begins with the object's salt.
 * @returns 32 bytes, the caller's to wipe.
 */
export function deriveSeedKey(password: string, header: Buffer): Promise<Buffer> {
  return deriveRoot(password, header.subarray(0, SEED_SALT_BYTES), SEED_ITERATIONS)
}

/** Encrypts what follows the header of one object. It keeps no view of the key. */
export class SeedSealer {
  readonly #cipher: ReturnType<typeof newCipher>
  readonly #maxBytes: number
  #bytes = 0

  constructor(key: Uint8Array, nonce: Uint8Array, maxBytes: number = SEED_MAX_PLAIN_BYTES) {
    this.#cipher = newCipher(key, nonce)
    this.#maxBytes = maxBytes
  }

  /**
   * Encrypts a piece of plaintext.
   * @returns as many bytes, in a buffer that is nobody else's.
   * @throws TransformError LIMIT when the piece would pass the limit; nothing of it is encrypted then.
   */
  update(plain: Buffer): Buffer {
    if (plain.length > this.#maxBytes - this.#bytes) {
      throw new TransformError(
        'LIMIT',
        `The original layout holds at most ${this.#maxBytes} bytes. Split the source, or use createEncrypt.`,
      )
    }
    this.#bytes += plain.length
    return this.#cipher.update(plain)
  }

  /** @returns the tag, which ends the object. */
  final(): Buffer {
    this.#cipher.final()
    return this.#cipher.getAuthTag()
  }
}

function newCipher(key: Uint8Array, nonce: Uint8Array) {
  return createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
}
