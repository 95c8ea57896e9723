import type { Storage } from '../adapters/storage.ts'
import { COMPANION_SUFFIX, companionText, parseCompanion } from './names.ts'
import { hasCode, writeSmall } from './small-object.ts'

const COMPANION_MAX_BYTES = 4096

/** Writes the companion of an object that is there already. */
export async function writeCompanion(
  storage: Storage,
  key: string,
  digest: string,
  signal?: AbortSignal,
): Promise<void> {
  const text = companionText(digest, key.slice(key.lastIndexOf('/') + 1))
  await writeSmall(storage, key + COMPANION_SUFFIX, text, { signal })
}

/**
 * Reads the companion of an object.
 * @returns the digest in hex, or null when the companion is missing or says nothing of this object.
 */
export async function readCompanion(storage: Storage, key: string, signal?: AbortSignal): Promise<string | null> {
  try {
    const { size } = await storage.stat(key + COMPANION_SUFFIX, { signal })
    if (size > COMPANION_MAX_BYTES) return null
    const bytes = await storage.readRange(key + COMPANION_SUFFIX, 0, size, { signal })
    return parseCompanion(bytes.toString('utf8'), key.slice(key.lastIndexOf('/') + 1))
  } catch (error) {
    if (hasCode(error, 'NOT_FOUND')) return null
    throw error
  }
}
