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
  await writeSmall(storage, key + COMPANION_SUFFIX, companionText(digest, baseOf(key)), { signal })
}

/**
 * Reads the companion of an object.
 * @returns the digest in hex, or null when the companion is missing or says nothing of this object.
 */
export async function readCompanion(storage: Storage, key: string, signal?: AbortSignal): Promise<string | null> {
  const text = await readSmall(storage, key + COMPANION_SUFFIX, { signal })
  return text === null ? null : parseCompanion(text, baseOf(key))
}

function baseOf(key: string): string {
  return key.slice(key.lastIndexOf('/') + 1)
}
