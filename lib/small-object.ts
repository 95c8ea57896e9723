import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { StorageError } from '../adapters/errors.ts'
import type { CallOptions, Storage } from '../adapters/storage.ts'

const SMALL_MAX_BYTES = 4096

/** Writes an object of one short text. @throws StorageError CONFLICT with `ifAbsent`, when there is one. */
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
 * Reads an object of one short text.
 * @returns its text, and when the store took it; null when there is none, or it is too long to be one.
 */
export async function readSmall(
  storage: Storage,
  key: string,
  { signal }: CallOptions = {},
): Promise<{ text: string; modified: Date } | null> {
  try {
    const { size, modified } = await storage.stat(key, { signal })
    if (size > SMALL_MAX_BYTES) return null
    return { text: (await storage.readRange(key, 0, size, { signal })).toString('utf8'), modified }
  } catch (error) {
    if (error instanceof StorageError && error.code === 'NOT_FOUND') return null
    throw error
  }
}
