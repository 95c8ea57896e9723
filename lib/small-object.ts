import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { StorageError, type StorageErrorCode } from '../adapters/errors.ts'
import type { CallOptions, Storage } from '../adapters/storage.ts'

const SMALL_MAX_BYTES = 4096

/** Writes a short text as an object of its own: a companion, a pin, a mark, a claim. @throws StorageError CONFLICT with `ifAbsent`, when there is one. */
export async function writeSmall(
  storage: Storage,
  key: string,
  text: string,
  { signal, ifAbsent }: CallOptions & { ifAbsent?: boolean } = {},
): Promise<void> {
  const bytes = Buffer.from(text)
  const sink = storage.createWriteStream(key, { size: bytes.length, ...(ifAbsent ? { ifAbsent } : {}) })
  await pipeline(Readable.from([bytes], { objectMode: false }), sink, { signal })
}

/**
 * Reads a short text that may not be there, in one request: what is replaced meanwhile is read as it was or as it is.
 * @param maxBytes what is longer is not what was looked for; 4096 when left out.
 * @param tooLong what such a one is read as; null when left out.
 * @returns null when there is none.
 * @throws StorageError when the store fails otherwise.
 */
export async function readSmall(
  storage: Storage,
  key: string,
  { signal, maxBytes = SMALL_MAX_BYTES, tooLong }: CallOptions & { maxBytes?: number; tooLong?: string } = {},
): Promise<string | null> {
  try {
    const chunks: Buffer[] = []
    // One byte more shows that it is too long.
    const stream = storage.createReadStream(key, { start: 0, end: maxBytes, ...(signal ? { signal } : {}) })
    for await (const chunk of stream) chunks.push(chunk)
    const bytes = Buffer.concat(chunks)
    return bytes.length > maxBytes ? (tooLong ?? null) : bytes.toString('utf8')
  } catch (error) {
    if (hasCode(error, 'NOT_FOUND')) return null
    throw error
  }
}

/** @returns when the store took an object, by its own clock; null when there is none. */
export async function readTime(storage: Storage, key: string, { signal }: CallOptions = {}): Promise<Date | null> {
  try {
    return (await storage.stat(key, { signal })).modified
  } catch (error) {
    if (hasCode(error, 'NOT_FOUND')) return null
    throw error
  }
}

export function hasCode(error: unknown, code: StorageErrorCode): boolean {
  return error instanceof StorageError && error.code === code
}
