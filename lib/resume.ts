import type { BigIntStats } from 'node:fs'
import { join } from 'node:path'
import type { IndexEntry, Seekable } from '../transforms/index.ts'
import { msToNs, nsToMs, roundToBlock } from './archive/entry.ts'
import { isGone, lstat } from './archive/io.ts'
import { applyRights, type Rights } from './archive/rights.ts'
import type { TargetFolder } from './archive/target.ts'

/** Files that are not as they were written, before all is rather restored anew. */
const MOST_MISSED = 10_000
/** Times are set to a quarter of a microsecond, and come back from some file systems in ms, or in steps of 2 s (FAT). */
const TIME_SLACK_MS = 2000

export interface Earlier {
  /** Folders and symlinks, which get their modes and times, or are made at all, at the end only. */
  apply: (target: TargetFolder) => Promise<void>
  /** Entries that are not on the disk as they should be. */
  missed: IndexEntry[]
}

export interface EarlierOptions extends Rights {
  /** The folder that is being built. */
  tree: string
  mapPath: (path: string) => string
}

/**
 * Looks at what an interrupted restore had written: each file's type, size and time on the disk against the index.
 * (They were brought onto the disk before the restore said so; what is looked for is what somebody did to them since.)
 * @param entries those that were restored, in stream order.
 * @returns null when so much of it is gone that it is better begun anew.
 */
export async function lookAtEarlier(
  entries: () => AsyncIterable<IndexEntry> | Iterable<IndexEntry>,
  options: EarlierOptions,
): Promise<Earlier | null> {
  const missed: IndexEntry[] = []
  for await (const entry of entries()) {
    if (entry.superseded || (await isAsWritten(entry, options))) continue
    missed.push(entry)
    if (missed.length > MOST_MISSED) return null
  }
  missed.sort((a, b) => a.at - b.at)
  return { missed, apply: (target) => applyEarlier(target, entries(), options) }
}

async function isAsWritten({ path, type, size, mtime, link }: IndexEntry, options: EarlierOptions): Promise<boolean> {
  const { tree, mapPath } = options
  if (type === 'dir' || type === 'symlink') return true
  const found = await statOf(join(tree, mapPath(path)))
  // A hard link to a symlink was to be made at the end: it is made by being restored again.
  if (!found?.isFile()) return false
  if (type === 'link') {
    const twin = await statOf(join(tree, mapPath(link as string)))
    return twin !== undefined && twin.ino === found.ino && twin.dev === found.dev
  }
  return Number(found.size) === size && Math.abs(nsToMs(found.mtimeNs) - mtime) <= TIME_SLACK_MS
}

async function statOf(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path)
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

async function applyEarlier(
  target: TargetFolder,
  entries: AsyncIterable<IndexEntry> | Iterable<IndexEntry>,
  options: EarlierOptions,
): Promise<void> {
  for await (const { path, type, mode, mtime, uid, gid, link, superseded } of entries) {
    if (superseded || (type !== 'dir' && type !== 'symlink')) continue
    const meta = { ...applyRights({ mode, uid, gid }, type, options), mtimeNs: msToNs(mtime) }
    if (type === 'dir') await target.folder(options.mapPath(path), meta)
    else await target.symlink(options.mapPath(path), link as string, meta)
  }
}

/** The entries of a whole archive that stand before an offset. */
export async function* entriesBefore(seekable: Seekable, offset: number): AsyncGenerator<IndexEntry> {
  for await (const entry of seekable.entries()) if (entry.at < offset) yield entry
}

/** Whether an offset in an archive is where an entry can begin. */
export function isBorder(offset: number, bytes: number): boolean {
  return offset === roundToBlock(offset) && offset < bytes
}
