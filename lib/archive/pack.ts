import type { BigIntStats } from 'node:fs'
import { realpath, stat as statFile } from 'node:fs/promises'
import { addAbortSignal, Readable } from 'node:stream'
import { BackupError } from '../errors.ts'
import { Lookahead } from './ahead.ts'
import {
  type ArchiveEntry,
  type ArchiveWarning,
  type EntryChange,
  nsToMs,
  roundToBlock,
  TRAILER_BYTES,
} from './entry.ts'
import { abortError, close, explain, read } from './io.ts'
import { changeSince, failed, type PreparedItem, type SkippedItem, settledStat } from './read.ts'
import { SLAB_BYTES, SlabWriter } from './slab.ts'
import type { PlainStat } from './small-files.ts'
import { sourceError, Walker, type WalkFilter, type WalkItem } from './walk.ts'

/** How often a file that did not hold still is appended again. */
const MAX_REREADS = 2

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
  /** Files after which small ones are read in batches, on a thread of their own; 4,096 when left out. */
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
  skipped: { special: number; name: number; unreadable: number; vanished: number }
  /** Copies that were appended again because the file changed while it was read. */
  reread: number
  /** Files whose copy that counts is marked `changed`. */
  changed: number
  consistency: Consistency
}

export interface FolderPack {
  /** The tar, binary, in chunks of half a MiB at most. Destroying it closes every file. */
  stream: Readable
  /** The totals. Throws before the stream has produced its last byte. */
  result(): PackResult
}

/** A path that did not hold still, and its line in the index. */
type Pending = Map<string, ArchiveEntry>

type NextItem = () => WalkItem | undefined | Promise<WalkItem | undefined>

const EMPTY = Buffer.alloc(0)

class FolderPacker {
  readonly #walker: Walker
  readonly #options: PackOptions
  readonly #result: PackResult
  readonly #ahead: Lookahead
  #pending: Pending = new Map()
  #again: Pending = new Map()
  #rereads = 0
  readonly #gone = new Set<string>()
  // First path of each inode with more than one name.
  #links = new Map<string, string>()
  readonly #out = new SlabWriter()
  #coming: Promise<void> | undefined
  #done = false

  constructor(walker: Walker, root: BigIntStats, options: PackOptions) {
    this.#walker = walker
    this.#options = options
    this.#ahead = new Lookahead(walker.root, options.threadAfter)
    this.#result = {
      files: 0,
      entries: 0,
      bytes: 0,
      folder: { mode: Number(root.mode) & 0o7777, mtime: nsToMs(root.mtimeNs) },
      skipped: { special: 0, name: 0, unreadable: 0, vanished: 0 },
      reread: 0,
      changed: 0,
      consistency: 'still',
    }
  }

  result(): PackResult {
    if (!this.#done) throw new Error('The archive has not ended')
    return this.#result
  }

  /** Counts and reports something that was left out. */
  leaveOut(warning: ArchiveWarning & { kind: SkippedItem['reason'] }): void {
    // A folder can be missed twice, for its entry and for its content.
    if (warning.kind === 'vanished') {
      if (this.#gone.has(warning.path)) return
      this.#gone.add(warning.path)
    }
    this.#result.skipped[warning.kind]++
    this.#options.onWarning?.(warning)
  }

  async *produce(): AsyncGenerator<Buffer, void, void> {
    try {
      yield* this.#pass(() => this.#walker.next())
      while (this.#pending.size > 0) {
        this.#again = this.#pending
        this.#pending = new Map()
        this.#links = new Map()
        this.#rereads++
        const paths = this.#again.keys()
        yield* this.#pass(() => {
          const path = paths.next().value
          return path === undefined ? undefined : { path, kind: 'file' }
        })
      }
      this.#out.zeros(TRAILER_BYTES)
      this.#out.flush()
      this.#result.bytes = this.#out.bytes
      const { changed, reread } = this.#result
      this.#result.consistency = changed > 0 ? 'changed' : reread > 0 ? 'reread' : 'still'
      this.#done = true
      yield* this.#out.takeReady()
    } finally {
      await this.#coming?.catch(() => {})
      await this.#ahead.close()
    }
  }

  /** Takes items in order and produces their entries, while the next ones are opened and read. */
  async *#pass(next: NextItem): AsyncGenerator<Buffer, void, void> {
    let ended = false
    const take = (item: WalkItem | undefined): void => {
      if (item) this.#ahead.add(item)
      else ended = true
      this.#coming = undefined
    }
    for (;;) {
      while (!ended && !this.#coming && this.#ahead.hasRoom) {
        const item = next()
        if (item instanceof Promise) {
          this.#coming = item.then(take)
          // Thrown where it is awaited, when those ahead of it are done.
          this.#coming.catch(() => {})
        } else {
          take(item)
        }
      }
      const head = this.#ahead.head()
      if (!head) {
        if (!this.#coming) return
        await this.#coming
        continue
      }
      const { path } = head.item
      const prepared = await head.take()
      this.#ahead.shift()
      if (prepared.kind === 'file' && prepared.fd !== undefined) {
        yield* this.#large(path, prepared.fd)
      } else {
        const told = this.#small(path, prepared)
        if (told) await told
      }
      head.release()
      if (this.#out.hasReady) yield* this.#takeReady(path)
    }
  }

  *#takeReady(path: string): Generator<Buffer, void, void> {
    for (const slab of this.#out.takeReady()) {
      const { entries, files } = this.#result
      this.#options.onProgress?.({ bytes: this.#out.bytes, entries, files, path })
      yield slab
    }
  }

  /** Everything that is in memory when its turn comes. */
  #small(path: string, item: PreparedItem): void | Promise<void> {
    if (item.kind === 'skip') return this.#skip(path, item)
    if (item.kind !== 'file') {
      return this.#finish(this.#begin(path, item.kind, item.stat, item.kind === 'symlink' ? item.target : undefined))
    }
    const entry = this.#beginFile(path, item.stat)
    if (entry.type === 'file') {
      const { data = EMPTY } = item
      this.#out.append(data)
      this.#out.zeros(roundToBlock(entry.size) - data.length)
      this.#setChange(entry, item.changed)
    }
    return this.#finish(entry)
  }

  async *#large(path: string, fd: number): AsyncGenerator<Buffer, void, void> {
    try {
      let stat: BigIntStats
      try {
        // It may have waited long for its turn.
        stat = await settledStat(fd)
      } catch (error) {
        await this.#skip(path, failed(path, error))
        return
      }
      const entry = this.#beginFile(path, stat)
      if (entry.type === 'file') {
        let change: EntryChange | undefined
        let cause: unknown
        for (let position = 0; position < entry.size; ) {
          let got = 0
          try {
            const free = this.#out.free()
            got = await read(fd, free, 0, Math.min(free.length, entry.size - position), position)
          } catch (error) {
            change = 'unreadable'
            cause = error
          }
          if (got === 0) {
            yield* this.#pad(entry.size - position, path)
            change ??= 'shrank'
            break
          }
          position += got
          this.#out.advance(got)
          if (this.#out.hasReady) yield* this.#takeReady(path)
        }
        this.#out.zeros(roundToBlock(entry.size) - entry.size)
        // What fstat says counts, except that zeros stand where bytes were missing.
        if (change !== 'unreadable') change = (await changeSince(fd, stat)) ?? change
        this.#setChange(entry, change, cause)
      }
      await this.#finish(entry)
    } finally {
      await close(fd).catch(() => {})
    }
  }

  *#pad(bytes: number, path: string): Generator<Buffer, void, void> {
    for (let left = bytes; left > 0; ) {
      const zeros = Math.min(left, SLAB_BYTES)
      this.#out.zeros(zeros)
      left -= zeros
      yield* this.#takeReady(path)
    }
  }

  #skip(path: string, item: SkippedItem): void | Promise<void> {
    const { reason: kind, message, cause } = item
    const earlier = this.#again.get(path)
    if (!earlier) return this.leaveOut({ kind, path, message, cause })
    // The copy that was to be superseded stays the last one, so its line is given again, as what it is now.
    const { superseded: _, ...entry } = earlier
    this.#leaveChanged(entry, kind === 'vanished' ? 'vanished' : (earlier.changed ?? 'modified'), cause)
    return this.#finish(entry)
  }

  /** Writes the header of a file, or of a link when another name of it was stored before. */
  #beginFile(path: string, stat: PlainStat): ArchiveEntry {
    const inode = stat.nlink > 1n ? `${stat.dev}:${stat.ino}` : undefined
    const first = inode === undefined ? undefined : this.#links.get(inode)
    if (first === undefined) {
      if (inode !== undefined) this.#links.set(inode, path)
      return this.#begin(path, 'file', stat)
    }
    const entry = this.#begin(path, 'link', stat, first)
    // A file that is appended again is a new file to whoever extracts it, so its links must follow it.
    if (this.#pending.has(first)) this.#supersede(entry)
    return entry
  }

  #begin(path: string, type: ArchiveEntry['type'], stat: PlainStat, link?: string): ArchiveEntry {
    const size = type === 'file' ? Number(stat.size) : 0
    const [mode, uid, gid] = [Number(stat.mode) & 0o7777, Number(stat.uid), Number(stat.gid)]
    const at = this.#out.bytes
    this.#out.header({ path, type, size, mode, mtimeNs: stat.mtimeNs, uid, gid, link })
    const mtime = nsToMs(stat.mtimeNs)
    const entry: ArchiveEntry = { path, type, size, mode, mtime, uid, gid, at, data: this.#out.bytes }
    if (link !== undefined) entry.link = link
    this.#result.entries++
    return entry
  }

  #setChange(entry: ArchiveEntry, change: EntryChange | undefined, cause?: unknown): void {
    if (!change) return
    // A disk that cannot read a file now will not read it in an hour, and the file may be half of the world.
    if (change === 'unreadable' || this.#rereads === MAX_REREADS) {
      this.#leaveChanged(entry, change, cause)
    } else {
      entry.changed = change
      this.#supersede(entry)
    }
  }

  #leaveChanged(entry: ArchiveEntry, change: EntryChange, cause: unknown): void {
    const { path } = entry
    entry.changed = change
    this.#result.changed++
    const kind = change === 'unreadable' ? change : 'changed'
    const messages: Record<EntryChange, string> = {
      grew: `${path} grew while it was read; it is cut at ${entry.size} bytes`,
      shrank: `${path} shrank while it was read; the rest of its ${entry.size} bytes are zeros`,
      modified: `${path} was written to while it was read; the copy may hold old and new parts`,
      vanished: `${path} changed while it was read and was gone before it could be read again`,
      unreadable: explain(`Cannot read ${path} to its end, the rest of the copy is zeros`, cause),
    }
    this.#options.onWarning?.({ kind, path, message: messages[change], cause })
  }

  #supersede(entry: ArchiveEntry): void {
    entry.superseded = true
    this.#pending.set(entry.path, entry)
  }

  #finish(entry: ArchiveEntry): void | Promise<void> {
    if (entry.superseded) this.#result.reread++
    else if (entry.type === 'file' || entry.type === 'link') this.#result.files++
    return this.#options.onEntry?.(entry)
  }
}

/**
 * Opens a folder as a POSIX pax tar stream: every entry with its mtime to the nanosecond, in the bytewise order of the
 * full names (folders with their slash), so that two runs over a folder that holds still give the same bytes. Symlinks are stored as they are and
 * never followed (a root that is one is), hard links stay links, and sockets, fifos, devices and names that are not
 * UTF-8 are left out with a warning. A file that changes while it is read is cut or filled up to the size of its
 * header and appended again at the end, at most twice. Memory does not grow with the folder, but for one listing a
 * level, the inodes that have several names, and the paths of files that changed.
 * @param root - the folder; it must exist, and may be empty
 * @throws BackupError SOURCE when the root is missing, not a folder, or cannot be listed; AbortError
 */
export async function packFolder(root: string, options: PackOptions = {}): Promise<FolderPack> {
  const { signal } = options
  if (signal?.aborted) throw abortError(signal)
  let folder: string
  let stat: BigIntStats
  try {
    folder = await realpath(root)
    stat = await statFile(folder, { bigint: true })
  } catch (cause) {
    throw sourceError(root, cause)
  }
  if (!stat.isDirectory()) throw new BackupError('SOURCE', `${root} is not a folder`)
  let packer: FolderPacker | undefined
  const walker = await Walker.open(folder, (warning) => packer?.leaveOut(warning), options.filter)
  packer = new FolderPacker(walker, stat, options)
  const made = packer
  const stream = Readable.from(made.produce(), { objectMode: false, highWaterMark: SLAB_BYTES })
  if (signal) addAbortSignal(signal, stream)
  return { stream, result: () => made.result() }
}
