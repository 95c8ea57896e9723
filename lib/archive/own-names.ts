import type { BigIntStats } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { BackupError } from '../errors.ts'
import { lstat } from './io.ts'

/**
 * The names that were written into a folder, where the file system takes `A` and `a` for one (exFAT, FAT, some of NTFS and
 * network shares): there a file would replace one of another name, which nobody would see. Elsewhere nothing is kept.
 */
export class OwnNames {
  readonly #root: string
  readonly #continued: boolean
  /** Hashes: whole paths would take ten times the memory. */
  #written: Set<number> | undefined
  /** What an earlier run had written to the folder that was asked about last. */
  #listed: { folder: string; names: Set<string> } | undefined

  /** @param continued whether what is there may be of an earlier run of the same restore. */
  constructor(root: string, continued: boolean) {
    this.#root = root
    this.#continued = continued
  }

  /** Looks whether names have to be kept. Before the first is written. */
  async look(): Promise<void> {
    if (await isFolding(this.#root)) this.#written = new Set()
  }

  add(path: string): void {
    this.#written?.add(hash(path))
  }

  /**
   * Checks that what stands at a path was written under just this name.
   * @throws BackupError TARGET
   */
  async check(path: string): Promise<void> {
    if (!this.#written || this.#written.has(hash(path))) return
    if (this.#continued && (await this.#isListed(path))) return
    throw new BackupError(
      'TARGET',
      `Cannot write ${path}: the file system of the target takes its name and one that differs in upper and lower case for the same, and the snapshot has both. Restore onto another file system, or restore the one without the other (--include).`,
    )
  }

  async #isListed(path: string): Promise<boolean> {
    const folder = dirname(path)
    if (this.#listed?.folder !== folder) {
      this.#listed = { folder, names: new Set(await readdir(join(this.#root, folder))) }
    }
    return this.#listed.names.has(basename(path))
  }
}

/** FNV-1a, in what V8 keeps without an object of its own. */
function hash(path: string): number {
  let sum = 0x811c9dc5
  for (let i = 0; i < path.length; i++) sum = Math.imul(sum ^ path.charCodeAt(i), 0x01000193)
  return sum >> 2
}

/** Whether a folder is found by its name in other letters, too. */
async function isFolding(folder: string): Promise<boolean> {
  const name = basename(folder)
  const other = name === name.toUpperCase() ? name.toLowerCase() : name.toUpperCase()
  if (other === name) return false
  const found = await lstat(join(dirname(folder), other)).catch(() => undefined)
  return found !== undefined && isSame(found, await lstat(folder))
}

/** Some file systems make inode numbers of names; no two folders are made and changed in the same nanosecond. */
function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.dev === b.dev && (a.ino === b.ino || (a.ctimeNs === b.ctimeNs && a.mtimeNs === b.mtimeNs))
}

/** The folders that a path leads through, the outermost first. */
export function* parentsOf(path: string): Generator<string> {
  for (let slash = path.indexOf('/'); slash !== -1; slash = path.indexOf('/', slash + 1)) yield path.slice(0, slash)
}
