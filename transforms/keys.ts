import { hkdfSync, pbkdf2 } from 'node:crypto'
import { promisify, types } from 'node:util'
import { TransformError } from './errors.ts'

const pbkdf2Async = promisify(pbkdf2)

/** The length of a raw key. */
export const KEY_BYTES = 32
/** OWASP's figure for PBKDF2-HMAC-SHA-256, 2023. */
export const PBKDF2_ITERATIONS = 600_000
/** The figure the original service used, and the least a reader accepts. */
export const PBKDF2_MIN_ITERATIONS = 100_000
/** About four seconds of one core; more is a way to keep a reader busy. */
export const PBKDF2_MAX_ITERATIONS = 10_000_000

/** What an object is sealed with: a password, or a raw 32-byte key. One of the two. */
export interface WriteKey {
  /** Normalised to NFC; neither empty nor holding a NUL. */
  password?: string | undefined
  /** Exactly 32 bytes. */
  key?: Uint8Array | undefined
}

/** What an object may be opened with. The object says which kind it needs; those of that kind are tried in order. */
export interface ReadKeys {
  password?: string | readonly string[] | undefined
  key?: Uint8Array | readonly Uint8Array[] | undefined
}

/** The keys that version 1 derives for one object. */
export interface ObjectKeys {
  header: Buffer
  frames: Buffer
}

const DECODE_FIRST = 'A key given as hex or base64 text must be decoded first.'

function checkPassword(password: string): string {
  if (typeof password !== 'string') throw new TransformError('BAD_KEY', 'The password is no string. Give its text.')
  if (password === '') throw new TransformError('BAD_KEY', 'The password is empty. Give one of at least one character.')
  if (password.includes('\0')) throw new TransformError('BAD_KEY', 'The password holds a NUL character. Leave it out.')
  return password.normalize('NFC')
}

function checkKey(key: Uint8Array): Buffer {
  if (!types.isUint8Array(key)) {
    throw new TransformError('BAD_KEY', `The key is no Uint8Array. ${DECODE_FIRST}`)
  }
  if (key.byteLength !== KEY_BYTES) {
    throw new TransformError(
      'BAD_KEY',
      `The key has ${key.byteLength} bytes and must have exactly ${KEY_BYTES}. ${DECODE_FIRST}`,
    )
  }
  return Buffer.from(key)
}

/** One as a list of one, and none as an empty one. */
export function listOf<T>(value: T | readonly T[] | undefined): readonly T[] {
  if (value === undefined) return []
  return Array.isArray(value) ? value : [value as T]
}

/**
 * Checks what an object is to be sealed with.
 * @returns a copy of the key, or the normalised password.
 * @throws TransformError BAD_KEY when neither or both are given, or the one given cannot be used.
 */
export function checkWriteKey(material: WriteKey): { password: string } | { key: Buffer } {
  if ((material.password === undefined) === (material.key === undefined)) {
    throw new TransformError('BAD_KEY', 'Give either a password or a 32-byte key to encrypt with.')
  }
  if (material.key !== undefined) return { key: checkKey(material.key) }
  return { password: checkPassword(material.password as string) }
}

/**
 * Checks what an object may be opened with.
 * @throws TransformError BAD_KEY when nothing is given or something given cannot be used.
 */
export function checkReadKeys(material: ReadKeys): { passwords: string[]; keys: Buffer[] } {
  const passwords = listOf(material.password).map(checkPassword)
  const keys = listOf(material.key).map(checkKey)
  if (passwords.length + keys.length === 0) {
    throw new TransformError('BAD_KEY', 'Give a password or a 32-byte key to decrypt with.')
  }
  return { passwords, keys }
}

/**
 * PBKDF2-HMAC-SHA-256 (RFC 8018) on the thread pool.
 * @returns 32 bytes.
 */
export function deriveRoot(password: string, salt: Uint8Array, iterations: number): Promise<Buffer> {
  return pbkdf2Async(Buffer.from(password, 'utf8'), salt, iterations, KEY_BYTES, 'sha256')
}

/** HKDF-SHA-256 (RFC 5869) of one object's two keys from its root. */
export function deriveObjectKeys(root: Uint8Array, salt: Uint8Array): ObjectKeys {
  const derive = (info: string) => Buffer.from(hkdfSync('sha256', root, salt, info, KEY_BYTES))
  return { header: derive('millrace/v1/header'), frames: derive('millrace/v1/frames') }
}
