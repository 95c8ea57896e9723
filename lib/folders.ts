import { existsSync } from 'node:fs'
import { mkdir, rmdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** The uppermost folder that is not there, of a folder and those above it; undefined when it is there. */
export function uppermostMissing(folder: string): string | undefined {
  let missing: string | undefined
  for (let at = folder; !existsSync(at); at = dirname(at)) missing = at
  return missing
}

/**
 * Makes a folder, and those above it that are not there. Not by mkdir's `recursive`: where a folder is there and nothing can
 * be made in it, which is ENOENT in /proc, that tries for ever, on a thread that no signal ends.
 * @param mode of each that is made.
 * @throws the error of node:fs.
 */
export async function makeFolders(folder: string, mode = 0o777): Promise<void> {
  const make = () =>
    mkdir(folder, { mode }).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || !(await isFolder(folder))) throw error
    })
  await make().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' || dirname(folder) === folder) throw error
    await makeFolders(dirname(folder), mode)
    await make()
  })
}

function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  )
}

/** Removes a folder and those above it, up to `last`, as far as they are empty. Never rejects. */
export async function removeEmptyFolders(folder: string, last: string): Promise<void> {
  try {
    for (let at = folder; at.startsWith(last); at = dirname(at)) await rmdir(at)
  } catch {
    // Something is in it by now, or it is gone.
  }
}
