import { type BigIntStats, readlink as readlinkCallback } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type EntryChange, escapeBytes } from './entry.ts'
import { close, errnoOf, explain, fstat, isGone, lstat, open, READ_FLAGS, read } from './io.ts'
import type { PlainStat } from './small-files.ts'
import { decodeName, type WalkItem } from './walk.ts'

/** Files up to this size are read ahead of their turn, whole, into a buffer that is used again. */
export const SMALL_BYTES = 32 * 1024

/**
 * Kernels stamp files with the time of their last tick, 10 ms ago at most. Of two writes within one tick the second
 * leaves no trace, so a file is only read when the tick of its last change is over: any later write then shows.
 */
export const TICK_MS = 20

export interface SkippedItem {
  kind: 'skip'
  reason: 'special' | 'name' | 'unreadable' | 'vanished' | 'removed'
  message: string
  cause?: unknown
}

/** A file that is not small: open, for the taker to close. */
export interface OpenFile {
  kind: 'open'
  fd: number
  stat: BigIntStats
  /** When the stat was taken, on the clock of `performance`. */
  at: number
}

/** A small file. */
export interface FileItem {
  kind: 'file'
  stat: PlainStat
  /** What was read of it, in the buffer given. */
  data: Buffer
  /** How it changed while it was read. */
  changed?: EntryChange | undefined
}

export type PreparedItem =
  | SkippedItem
  | FileItem
  | OpenFile
  | { kind: 'dir'; stat: BigIntStats }
  | { kind: 'symlink'; stat: BigIntStats; target: string }

function skip(reason: SkippedItem['reason'], message: string, cause?: unknown): SkippedItem {
  return { kind: 'skip', reason, message, cause }
}

/** What becomes of an item whose open, stat or read failed. */
export function failed(path: string, cause: unknown): SkippedItem {
  if (isGone(cause)) return skip('vanished', `${path} was gone before it could be read`, cause)
  if (errnoOf(cause) === 'ELOOP' || errnoOf(cause) === 'ENXIO') return replaced(path)
  return skip('unreadable', explain(`Cannot read ${path}, it is left out`, cause), cause)
}

/**
 * What becomes of a name that could not be opened. One that is gone from a folder that is still there was removed, as games
 * do with temporary files; where the folder is gone too, it may have been renamed with all in it.
 */
async function failedToOpen(path: string, absolute: string, cause: unknown): Promise<SkippedItem> {
  if (errnoOf(cause) !== 'ENOENT') return failed(path, cause)
  const folder = await lstat(dirname(absolute)).catch(() => undefined)
  if (!folder?.isDirectory()) return failed(path, cause)
  return skip('removed', `${path} was removed before it could be read`, cause)
}

function replaced(path: string): SkippedItem {
  return skip('vanished', `${path} was replaced by something else before it could be read`)
}

/** How an open file changed since a stat from before its bytes were read; undefined when it did not. */
export async function changeSince(fd: number, before: BigIntStats): Promise<EntryChange | undefined> {
  // A file that is gone from a network share fails here: its bytes are all read, but nothing vouches for them.
  const after = await fstat(fd).catch(() => undefined)
  if (!after) return 'modified'
  if (after.size > before.size) return 'grew'
  if (after.size < before.size) return 'shrank'
  return after.mtimeNs !== before.mtimeNs || after.ctimeNs !== before.ctimeNs ? 'modified' : undefined
}

/** The stat of an open file whose last change is at least a tick ago. */
export async function settledStat(fd: number): Promise<BigIntStats> {
  const stat = await fstat(fd)
  if (Math.abs(Date.now() - Number(stat.ctimeNs / 1_000_000n)) >= TICK_MS) return stat
  await sleep(TICK_MS)
  return fstat(fd)
}

async function readSmall(fd: number, stat: BigIntStats, out: Buffer): Promise<FileItem> {
  const size = Number(stat.size)
  let got = 0
  while (got < size) {
    const bytes = await read(fd, out, got, size - got, got)
    if (bytes === 0) break
    got += bytes
  }
  const changed = size === 0 ? undefined : ((await changeSince(fd, stat)) ?? (got < size ? 'shrank' : undefined))
  return { kind: 'file', stat, data: out.subarray(0, got), changed }
}

async function prepareFile(path: string, absolute: string, out: Buffer): Promise<PreparedItem> {
  let fd: number
  try {
    fd = await open(absolute, READ_FLAGS)
  } catch (cause) {
    return failedToOpen(path, absolute, cause)
  }
  let keep = false
  try {
    const stat = await settledStat(fd)
    if (!stat.isFile()) return replaced(path)
    if (stat.size > BigInt(out.length)) {
      keep = true
      return { kind: 'open', fd, stat, at: performance.now() }
    }
    return await readSmall(fd, stat, out)
  } catch (cause) {
    return failed(path, cause)
  } finally {
    if (!keep) await close(fd).catch(() => {})
  }
}

function readlink(path: string): Promise<string> {
  return new Promise((resolve, reject) =>
    readlinkCallback(path, 'latin1', (error, target) => (error ? reject(error) : resolve(target))),
  )
}

/**
 * Opens or stats one item of a folder, and reads it when it is a small file. Never follows a symlink, never waits
 * for a fifo, and never rejects: what cannot be had is a SkippedItem.
 * @param out - takes the bytes of a small file; its length is the limit of what is small
 */
export async function prepareItem(root: string, item: WalkItem, out: Buffer): Promise<PreparedItem> {
  const { path, kind } = item
  const absolute = join(root, path)
  if (kind === 'file') return prepareFile(path, absolute, out)
  if (kind === 'special') return skip('special', `${path} is a socket, fifo or device; it is left out`)
  try {
    const stat = await lstat(absolute)
    if (kind === 'dir') return stat.isDirectory() ? { kind, stat } : replaced(path)
    if (!stat.isSymbolicLink()) return replaced(path)
    const raw = await readlink(absolute)
    const target = decodeName(raw)
    if (target !== undefined) return { kind, stat, target }
    return skip('name', `The target of the symlink ${path} is not UTF-8 (${escapeBytes(raw)}); it is left out`)
  } catch (cause) {
    if (errnoOf(cause) === 'EINVAL') return replaced(path)
    // What was in a folder that is gone may be elsewhere now.
    return kind === 'dir' ? failed(path, cause) : failedToOpen(path, absolute, cause)
  }
}
