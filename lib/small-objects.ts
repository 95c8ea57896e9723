import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { StorageError } from '../adapters/errors.ts'
import type { Storage } from '../adapters/storage.ts'

const SMALL_MAX_BYTES = 4096

/** Writes a short text as an object of its own: a companion, a pin, a mark. @throws StorageError. */
export async function writeSmall(storage: Storage, key: string, text: string, signal?: AbortSignal): Promise<void> {
  const bytes = Buffer.from(text)
  await pipeline(
    Readable.from([bytes], { objectMode: false }),
    storage.createWriteStream(key, { size: bytes.length }),
    { signal },
  )
}

/**
 * Reads a short text that may not be there.
 * @param maxBytes what is longer is not what was looked for.
 * @returns null when there is none, or it is longer.
 * @throws StorageError when the store fails otherwise.
 */
export async function readSmall(
  storage: Storage,
  key: string,
  signal?: AbortSignal,
  maxBytes = SMALL_MAX_BYTES,
): Promise<string | null> {
  try {
    const { size } = await storage.stat(key, { signal })
    if (size > maxBytes) return null
    return (await storage.readRange(key, 0, size, { signal })).toString('utf8')
  } catch (error) {
    if (error instanceof StorageError && error.code === 'NOT_FOUND') return null
    throw error
  }
}
