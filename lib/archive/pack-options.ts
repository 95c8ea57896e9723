import type { Readable } from 'node:stream'
import type { ArchiveEntry, ArchiveWarning } from './entry.ts'
import type { WalkFilter } from './walk.ts'

export interface PackProgress {
  /** Bytes of the tar stream so far. */
  bytes: number
  entries: number
  files: number
  /** The entry at work. */
  path: string
}

export interface PackOptions {
  /** What is archived; everything when left out. A folder is left out with all in it. */
  filter?: WalkFilter | undefined
  /** Called in stream order, after the entry's last byte was produced; a promise is waited for. */
  onEntry?: (entry: ArchiveEntry) => void | Promise<void>
  onWarning?: (warning: ArchiveWarning) => void
  /** Called about once for each half MiB. */
  onProgress?: (progress: PackProgress) => void
  /** Files after which small ones are read in batches, on a thread of their own; 32 when left out. */
  threadAfter?: number
  signal?: AbortSignal
}

/**
 * `still`: no file changed while it was read. `reread`: some did, and all of those held still when they were appended
 * again. `changed`: of at least one file the copy that counts is not that of any one moment.
 */
export type Consistency = 'still' | 'reread' | 'changed'

export interface PackResult {
  /** Files and hard links that count (not those superseded). */
  files: number
  /** Entries in the archive, superseded ones too. */
  entries: number
  /** Length of the tar stream. */
  bytes: number
  /** The folder's own mode and mtime (ms); it has no entry. */
  folder: { mode: number; mtime: number }
  /** What was left out, by the kind of its warning. */
  skipped: { special: number; name: number; unreadable: number; vanished: number; removed: number }
  /** Copies that were appended again because the file changed while it was read. */
  reread: number
  /** Files whose copy that counts is marked `changed`. */
  changed: number
  consistency: Consistency
}

export interface FolderPack {
  /** The tar, binary, in chunks of a MiB at most. Destroying it closes every file. */
  stream: Readable
  /** The totals. Throws before the stream has produced its last byte. */
  result(): PackResult
}
