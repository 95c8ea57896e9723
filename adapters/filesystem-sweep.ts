import { randomBytes } from 'node:crypto'
import { lstat, opendir, stat, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TEMPORARY_PREFIX } from './filesystem-paths.ts'

/** A temporary file that nobody has written to for so long is taken for left by a writer that died. */
export const LEFTOVER_MS = 24 * 60 * 60 * 1000
/** Names that are looked at in one folder; `purgeUnfinished` looks at all. */
const NAMES_MAX = 10_000

/**
 * Removes what writers that died have left, in the folders that are written to anyway: each at most once, and by what
 * one look at its names costs.
 */
export class Sweeper {
  readonly #swept = new Set<string>()

  /**
   * Sweeps a folder in which a name was just made or removed. Never fails: what cannot be swept is left for
   * `purgeUnfinished`, which says why.
   */
  async sweep(folder: string): Promise<void> {
    if (this.#swept.has(folder)) return
    this.#swept.add(folder)
    try {
      // By the clock of whoever keeps the folder, which gave the files their times; ours may be years ahead.
      const now = Math.min((await stat(folder)).mtimeMs, Date.now())
      let names = 0
      for await (const entry of await opendir(folder)) {
        if (++names > NAMES_MAX) return
        if (entry.isFile() && entry.name.startsWith(TEMPORARY_PREFIX)) {
          // One that vanishes meanwhile keeps none of the others.
          await removeLeftover(join(folder, entry.name), now - LEFTOVER_MS).catch(() => {})
        }
      }
    } catch {
      // A folder that may not be listed, or is gone by now.
    }
  }
}

/**
 * The time by the clock of whoever keeps a folder, which gives the files in it their times; ours may be years ahead. Ours
 * where the folder takes no file, as on a full disk, which wants to be swept all the more.
 */
export async function folderNow(folder: string): Promise<number> {
  const path = join(folder, `${TEMPORARY_PREFIX}${randomBytes(8).toString('hex')}`)
  try {
    await writeFile(path, '', { flag: 'wx', mode: 0o600 })
    return Math.min((await lstat(path)).mtimeMs, Date.now())
  } catch {
    return Date.now()
  } finally {
    await unlink(path).catch(() => {})
  }
}

/** A writer that is alive writes, and with that sets the time. */
async function removeLeftover(path: string, before: number): Promise<void> {
  const { mtimeMs } = await lstat(path)
  if (mtimeMs < before) await unlink(path)
}
