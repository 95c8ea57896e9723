import { StorageError } from './errors.ts'
import { KEY_MAX_BYTES, KEY_SEGMENT_MAX_BYTES } from './storage.ts'

/**
 * Holds a key to the rules above {@link Storage}.
 * @throws StorageError INVALID, which says what is wrong with it.
 */
export function checkKey(key: string, adapter: string, operation: string): void {
  const fault = faultOfKey(key)
  if (fault !== undefined) {
    throw new StorageError(`The key ${quoteKey(key)} ${fault}.`, { code: 'INVALID', adapter, operation })
  }
}

/** A prefix without slashes at its start, and with one at its end unless it is empty. */
export function normalizePrefix(prefix = ''): string {
  const inner = prefix.replace(/^\/+|\/+$/g, '')
  return inner === '' ? '' : `${inner}/`
}

/**
 * The name of a key beneath a prefix, at a store whose names have the limits of our keys.
 * @param prefix as `normalizePrefix` gives it.
 * @throws StorageError INVALID where the key is bad, or both together are too long.
 */
export function prefixedKey(prefix: string, key: string, adapter: string, operation: string): string {
  checkKey(key, adapter, operation)
  const full = prefix + key
  if (Buffer.byteLength(full) <= KEY_MAX_BYTES) return full
  const message = `The key ${quoteKey(key)} and the prefix together are longer than ${KEY_MAX_BYTES} bytes.`
  throw new StorageError(message, { code: 'INVALID', adapter, operation, key })
}

/** A key as it may stand in a message: quoted, control characters escaped, cut to a readable length. */
export function quoteKey(key: string): string {
  const text = JSON.stringify(key) ?? String(key)
  return text.length <= 200 ? text : `${text.slice(0, 200)}…"`
}

function faultOfKey(key: string): string | undefined {
  if (typeof key !== 'string') return 'is not a string'
  if (key === '') return 'is empty'
  if (!key.isWellFormed()) return 'has a lone surrogate, which UTF-8 cannot hold'
  if (/\p{Cc}/u.test(key)) return 'has a control character'
  if (Buffer.byteLength(key) > KEY_MAX_BYTES) return `is longer than ${KEY_MAX_BYTES} bytes`
  for (const segment of key.split('/')) {
    if (segment === '') return 'has an empty segment: no slash may stand first, last or beside another'
    if (segment === '.' || segment === '..') return `has the segment "${segment}"`
    if (Buffer.byteLength(segment) > KEY_SEGMENT_MAX_BYTES) {
      return `has a segment longer than ${KEY_SEGMENT_MAX_BYTES} bytes`
    }
  }
  return undefined
}
