import { existsSync } from 'node:fs'
import { rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'

/** The uppermost folder that is not there, of a folder and those above it; undefined when it is there. */
export function uppermostMissing(folder: string): string | undefined {
  let missing: string | undefined
  for (let at = folder; !existsSync(at); at = dirname(at)) missing = at
  return missing
}

/** Removes a folder and those above it, up to `last`, as far as they are empty. Never rejects. */
export async function removeEmptyFolders(folder: string, last: string): Promise<void> {
  try {
    for (let at = folder; at.startsWith(last); at = dirname(at)) await rmdir(at)
  } catch {
    // Something is in it by now, or it is gone.
  }
}
