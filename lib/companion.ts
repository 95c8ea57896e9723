import type { Storage } from '../adapters/storage.ts'
import { COMPANION_SUFFIX, companionText, parseCompanion } from './names.ts'
import { readSmall, writeSmall } from './small-object.ts'

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
  const found = await readSmall(storage, key + COMPANION_SUFFIX, { signal })
  return found && parseCompanion(found.text, key.slice(key.lastIndexOf('/') + 1))
}
