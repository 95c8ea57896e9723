import { isUtf8 } from 'node:buffer'
import type { BigIntStats, Dirent } from 'node:fs'
import { opendir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '../errors.ts'
import { type ArchiveWarning, escapeBytes } from './entry.ts'
import { errnoOf, explain, isGone, lstat } from './io.ts'

/*
 * The order of an archive is that of the UTF-8 bytes of the names as tar has them: full paths, those of folders with
 * their slash at the end, as git sorts its trees. `a-b`, `a/`, `a/b`, `a0` ('-' is below '/', '0' above). Two names
 * of one folder differ before or at that slash, so sorting each listing this way and going down into a folder at its
 * turn gives exactly this order, with one listing for each level in memory.
 *
 * Without the slash, `a` would come first and its content after `a-b`. GNU tar sets a folder's mode and time when the
 * first entry comes that is not below it, and would then fail to write into read-only folders.
 */

export type WalkKind = 'file' | 'dir' | 'symlink' | 'special'

export interface WalkItem {
  /** Relative to the root, slashes, no trailing one. */
  path: string
  /** What the listing said; it may have become another thing since. */
  kind: WalkKind
}

/**
 * Whether something is archived. Asked once for each name, in the archive's order but for folders, which may be asked for
 * before their turn; what is in a folder that is not archived is never asked for.
 */
export type WalkFilter = (path: string, isFolder: boolean) => boolean

type Warn = (warning: ArchiveWarning & { kind: 'name' | 'unreadable' | 'vanished' }) => void

/** Names as bytes, one char each: one-byte strings sort bytewise, and take a tenth of a Buffer's memory. */
type Listing = string[]

/** Entries that one turn through the thread pool lists, of a large folder. */
export const DIRECTORY_BATCH = 1024
/** The same of a folder that may be small: Node keeps room for so many, 16 bytes each, until the next collection. */
export const SMALL_DIRECTORY_BATCH = 32

function kindOf(entry: Dirent): string {
  if (entry.isFile()) return 'f'
  if (entry.isDirectory()) return 'd'
  return entry.isSymbolicLink() ? 'l' : 's'
}

const KINDS: Record<string, WalkKind> = { f: 'file', d: 'dir', l: 'symlink', s: 'special' }

// A key is the name, a NUL (no name holds one, and it sorts first), and what it is.
function keyOf(name: string, kind: string): string {
  return kind === 'd' ? `${name}/\0d` : `${name}\0${kind}`
}

function isFolder(key: string): boolean {
  return key.charCodeAt(key.length - 1) === 0x64
}

// Not readdir: it makes an object of every entry before the first can be dropped, 500 MB for a million files.
async function listFolder(path: string): Promise<Listing> {
  const few = await listUpTo(path, SMALL_DIRECTORY_BATCH, SMALL_DIRECTORY_BATCH)
  return few ?? ((await listUpTo(path, DIRECTORY_BATCH, Number.POSITIVE_INFINITY)) as Listing)
}

/** @returns undefined when there are more than `most` entries. */
async function listUpTo(path: string, bufferSize: number, most: number): Promise<Listing | undefined> {
  const keys: Listing = []
  for await (const entry of await opendir(path, { encoding: 'latin1', bufferSize })) {
    if (keys.length === most) return undefined
    keys.push(keyOf(entry.name, kindOf(entry)))
  }
  return keys
}

async function listAndStat(path: string): Promise<Listing> {
  const keys: Listing = []
  for await (const { name, stat } of statAll(path)) {
    const kind = stat?.isDirectory() ? 'd' : stat?.isSymbolicLink() ? 'l' : stat && !stat.isFile() ? 's' : 'f'
    keys.push(keyOf(name, kind))
  }
  return keys
}

/** What is in a folder, one by one, in no order. Names are bytes, one char each. */
export async function* entriesOf(path: string): AsyncGenerator<{ name: string; isFolder: boolean }> {
  let listed = 0
  try {
    for await (const entry of await opendir(path, { encoding: 'latin1', bufferSize: SMALL_DIRECTORY_BATCH })) {
      listed++
      yield { name: entry.name, isFolder: entry.isDirectory() }
    }
    return
  } catch (error) {
    // As in readListing.
    if (errnoOf(error) !== 'ENOENT') throw error
  }
  for await (const { name, stat } of statAll(path)) {
    if (--listed < 0) yield { name, isFolder: stat?.isDirectory() ?? false }
  }
}

/** What is in a folder whose listing tells no types. */
async function* statAll(path: string): AsyncGenerator<{ name: string; stat: BigIntStats | undefined }> {
  for (const name of await readdir(path, { encoding: 'latin1' })) {
    yield { name, stat: await lstat(join(path, decodeName(name) ?? name)).catch(() => undefined) }
  }
}

async function readListing(path: string): Promise<Listing> {
  const keys = await listFolder(path).catch((error: unknown) => {
    // A file system that does not tell types makes Node stat every name, and these names are not decoded yet.
    if (errnoOf(error) === 'ENOENT') return listAndStat(path)
    throw error
  })
  return keys.sort()
}

/** The name of bytes (one char each) as text; undefined when they are not UTF-8. */
export function decodeName(latin1: string): string | undefined {
  let ascii = true
  for (let i = 0; ascii && i < latin1.length; i++) ascii = latin1.charCodeAt(i) < 0x80
  if (ascii) return latin1
  const bytes = Buffer.from(latin1, 'latin1')
  return isUtf8(bytes) ? bytes.toString('utf8') : undefined
}

/** The error of a source folder that cannot be backed up at all. */
export function sourceError(root: string, cause: unknown): BackupError {
  return new BackupError('SOURCE', explain(`Cannot read the folder ${root}`, cause), { cause })
}

/**
 * Lists a folder in archive order: the items one by one, `undefined` at the end. An answer is a promise only when a
 * folder has to be read for it; then wait for it before asking again.
 */
export class Walker {
  readonly root: string
  readonly #warn: Warn
  readonly #filter: WalkFilter | undefined
  readonly #levels: { prefix: string; listing: Listing; next: number }[] = []
  // The folder that was named last: its content is next.
  #folder: string | undefined
  /** The folder after that, about which the filter was asked before its turn. */
  #asked: { path: string; isTaken: boolean } | undefined
  /** Its listing, read meanwhile. */
  #ahead: { path: string; listing: Promise<Listing | undefined> } | undefined

  private constructor(root: string, listing: Listing, warn: Warn, filter: WalkFilter | undefined) {
    this.root = root
    this.#warn = warn
    this.#filter = filter
    this.#levels.push({ prefix: '', listing, next: 0 })
  }

  /** Reads the root's listing. Throws BackupError SOURCE when that fails. */
  static async open(root: string, warn: Warn, filter?: WalkFilter): Promise<Walker> {
    try {
      return new Walker(root, await readListing(root), warn, filter)
    } catch (cause) {
      throw sourceError(root, cause)
    }
  }

  next(): WalkItem | undefined | Promise<WalkItem | undefined> {
    if (this.#folder !== undefined) {
      const folder = this.#folder
      this.#folder = undefined
      return this.#enter(folder)
    }
    for (;;) {
      const level = this.#levels.at(-1)
      if (!level) return undefined
      const key = level.listing[level.next++]
      if (key === undefined) {
        this.#levels.pop()
        continue
      }
      const kind = KINDS[key.at(-1)!]!
      const raw = key.slice(0, kind === 'dir' ? -3 : -2)
      const name = decodeName(raw)
      if (name === undefined) {
        this.#warnOfName(level.prefix, raw, kind)
        continue
      }
      const path = level.prefix + name
      if (!this.#takes(path, kind === 'dir')) continue
      if (kind === 'dir') this.#folder = path
      return { path, kind }
    }
  }

  /** Waits for the listing that was begun ahead, so that no folder is open after it. Never throws. */
  async settle(): Promise<void> {
    await this.#ahead?.listing.catch(() => {})
  }

  async #enter(path: string): Promise<WalkItem | undefined> {
    const listed = this.#ahead?.path === path ? this.#ahead.listing : this.#list(path)
    this.#ahead = undefined
    try {
      const listing = await listed
      if (listing) this.#levels.push({ prefix: `${path}/`, listing, next: 0 })
      else this.#warn({ kind: 'vanished', path, message: `The folder ${path} was replaced, its content is left out` })
    } catch (cause) {
      const kind = isGone(cause) ? 'vanished' : 'unreadable'
      const message = explain(`Cannot list the folder ${path}, its content is left out`, cause)
      this.#warn({ kind, path, message, cause })
    }
    this.#lookAhead()
    return this.next()
  }

  /** @returns undefined when it is no folder any more. */
  async #list(path: string): Promise<Listing | undefined> {
    const folder = join(this.root, path)
    // Listing a folder follows a symlink that has taken its place.
    return (await lstat(folder)).isDirectory() ? readListing(folder) : undefined
  }

  #takes(path: string, isFolder: boolean): boolean {
    const asked = this.#asked
    if (asked?.path === path) {
      this.#asked = undefined
      return asked.isTaken
    }
    return this.#filter?.(path, isFolder) ?? true
  }

  /** Begins to list the folder whose turn is next, unless the filter leaves it out. */
  #lookAhead(): void {
    for (const { prefix, listing, next } of this.#levels.toReversed()) {
      let at = next
      while (at < listing.length && !isFolder(listing[at] as string)) at++
      if (at === listing.length) continue
      const name = decodeName((listing[at] as string).slice(0, -3))
      if (name === undefined) return
      const path = prefix + name
      const isTaken = this.#takes(path, true)
      this.#asked = { path, isTaken }
      if (!isTaken) return
      const listed = this.#list(path)
      // It is told when its turn has come.
      listed.catch(() => {})
      this.#ahead = { path, listing: listed }
      return
    }
  }

  #warnOfName(prefix: string, raw: string, kind: WalkKind): void {
    const path = escapeBytes(Buffer.from(prefix).toString('latin1') + raw)
    const lost = kind === 'dir' ? 'The folder and all in it are' : 'It is'
    this.#warn({ kind: 'name', path, message: `The name ${path} is not UTF-8. ${lost} left out` })
  }
}
