import { TransformError } from './errors.ts'
import { PBKDF2_MAX_ITERATIONS, PBKDF2_MIN_ITERATIONS } from './keys.ts'

// The header of a container, version 1: FORMAT.md, 'Layer 3'.

export const MAGIC = Buffer.from('MILLRACE', 'ascii')
/** The length of a container's header. */
export const HEADER_BYTES = 64
export const MIN_FRAME_BYTES = 2 ** 12
export const MAX_FRAME_BYTES = 2 ** 24

export const VERSION = 1
export const SUITE_AES_256_GCM = 1
export const KDF_RAW = 0
export const KDF_PBKDF2 = 1
export const SALT_OFFSET = 16
/** Where the header's MAC begins. */
export const MAC_OFFSET = 32

/** What the header of a container says. */
export interface Header {
  frameBytes: number
  /** null: a raw key. */
  iterations: number | null
  salt: Buffer
  /** The header's MAC, which every frame authenticates too. */
  mac: Buffer
  /** Bytes 0 to 31, which the MAC is over. */
  fields: Buffer
}

/**
 * Reads the 64 header bytes. Nothing is derived yet.
 * @throws TransformError NOT_SEALED, TRUNCATED, UNSUPPORTED, BAD_HEADER, in the order the format asks for.
 */
export function parseHeader(bytes: Buffer): Header {
  const magic = bytes.subarray(0, MAGIC.length)
  if (!magic.equals(MAGIC.subarray(0, magic.length)) || bytes.length === 0) {
    throw new TransformError(
      'NOT_SEALED',
      'This is no millrace container: it does not begin with MILLRACE. It may be unencrypted, or of another program.',
    )
  }
  if (bytes.length < HEADER_BYTES) {
    throw new TransformError('TRUNCATED', `The container ends inside its header, after ${bytes.length} bytes.`)
  }
  const [version, suite, kdf, log] = [bytes[8], bytes[9], bytes[10], bytes[11] as number]
  if (version !== VERSION) unsupported('version', version)
  if (suite !== SUITE_AES_256_GCM) unsupported('cipher suite', suite)
  if (kdf !== KDF_RAW && kdf !== KDF_PBKDF2) unsupported('key derivation', kdf)
  const iterations = bytes.readUInt32BE(12)
  if (2 ** log < MIN_FRAME_BYTES || 2 ** log > MAX_FRAME_BYTES) badHeader(`a frame size of 2^${log} bytes`)
  if (kdf === KDF_RAW && iterations !== 0) badHeader(`${iterations} iterations beside a raw key`)
  if (kdf === KDF_PBKDF2 && (iterations < PBKDF2_MIN_ITERATIONS || iterations > PBKDF2_MAX_ITERATIONS)) {
    badHeader(`${iterations} iterations, where ${PBKDF2_MIN_ITERATIONS} to ${PBKDF2_MAX_ITERATIONS} are allowed`)
  }
  const copy = Buffer.from(bytes.subarray(0, HEADER_BYTES))
  return {
    frameBytes: 2 ** log,
    iterations: kdf === KDF_RAW ? null : iterations,
    salt: copy.subarray(SALT_OFFSET, MAC_OFFSET),
    mac: copy.subarray(MAC_OFFSET),
    fields: copy.subarray(0, MAC_OFFSET),
  }
}

/**
 * Tries the first bytes of a header, so that a stream of another kind is refused before 64 of them have come.
 * @throws TransformError NOT_SEALED
 */
export function checkMagic(bytes: Buffer): void {
  if (bytes.length < MAGIC.length) return
  try {
    parseHeader(bytes)
  } catch (error) {
    if ((error as TransformError).code === 'NOT_SEALED') throw error
  }
}

function unsupported(what: string, value: number | undefined): never {
  throw new TransformError(
    'UNSUPPORTED',
    `The container has ${what} ${value}, which this release does not know. Use a newer one.`,
  )
}

function badHeader(what: string): never {
  throw new TransformError('BAD_HEADER', `The container's header says ${what}: it is damaged, or made to harm.`)
}
