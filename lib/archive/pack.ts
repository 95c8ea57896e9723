import type { BigIntStats } from 'node:fs'
import { realpath, stat as statFile } from 'node:fs/promises'
import { addAbortSignal, Readable } from 'node:stream'
import { throwIfAborted } from '../../adapters/retry.ts'
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
import { close, explain } from './io.ts'
import { LargeFile } from './large-file.ts'
import type { FolderPack, PackOptions, PackResult } from './pack-options.ts'
import { changeSince, failed, type OpenFile, type PreparedItem, type SkippedItem, settledStat } from './read.ts'
import { SLAB_BYTES, SlabWriter } from './slab.ts'
import type { PlainStat } from './small-files.ts'
import { sourceError, Walker, type WalkItem } from './walk.ts'

/** A stat that is older is taken again: a file that was written to since would have to be read twice. */
const FRESH_MS = 500

/** How often a file that did not hold still is appended again. */
const MAX_REREADS = 2

export type { Consistency, FolderPack, PackOptions, PackProgress, PackResult } from './pack-options.ts'

/** A path that did not hold still, and its line in the index. */
type Pending = Map<string, ArchiveEntry>

interface Unfinished {
  entry: ArchiveEntry
  fd: number
  change: Promise<EntryChange | undefined>
  cause: unknown
}

type NextItem = () => WalkItem | undefined | Promise<WalkItem | undefined>

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
  /** Of files with several names, by their inode: the name that was stored, and what it was then. */
  #links = new Map<string, { path: string; size: bigint; mtimeNs: bigint }>()
  readonly #out = new SlabWriter()
  #coming: Promise<void> | undefined
  /** A large file whose bytes are in the archive, and of which is not known yet whether it held still. */
  #last: Unfinished | undefined
  /** Files that are being closed. */
  #closing: Promise<unknown> | undefined
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
      skipped: { special: 0, name: 0, unreadable: 0, vanished: 0, removed: 0 },
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
      // Not yield*: an array's iterator takes no error, so that of a stream destroyed here would come as another one.
      for (const slab of this.#out.takeReady()) yield slab
    } finally {
      await this.#coming?.catch(() => {})
      await this.#walker.settle()
      await this.#ahead.close()
      if (this.#last) await close(this.#last.fd).catch(() => {})
      await this.#closing
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
        if (!this.#coming) {
          // An archive that ends too early looks like a whole one.
          if (!ended)
            throw new BackupError(
              'SOURCE',
              'The folder was not read to its end, which is a fault of millrace: no snapshot was made. Report it with how many files there are.',
            )
          await this.#finishLast()
          return
        }
        await this.#coming
        continue
      }
      const { path } = head.item
      const taken = head.take()
      const prepared = taken instanceof Promise ? await taken : taken
      this.#ahead.shift()
      if (prepared.kind === 'open') {
        yield* this.#large(path, prepared)
      } else {
        if (this.#last) await this.#finishLast()
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
  #small(path: string, item: Exclude<PreparedItem, OpenFile>): void | Promise<void> {
    if (item.kind === 'skip') return this.#skip(path, item)
    if (item.kind !== 'file') {
      return this.#finish(this.#begin(path, item.kind, item.stat, item.kind === 'symlink' ? item.target : undefined))
    }
    const entry = this.#beginFile(path, item.stat)
    if (entry.type === 'file') {
      const { data } = item
      this.#out.append(data)
      this.#out.zeros(roundToBlock(entry.size) - data.length)
      this.#setChange(entry, item.changed)
    }
    return this.#finish(entry)
  }

  async *#large(path: string, { fd, stat: prepared, at }: OpenFile): AsyncGenerator<Buffer, void, void> {
    let file: LargeFile | undefined
    let left: Unfinished | undefined
    try {
      let stat: BigIntStats
      try {
        stat = performance.now() - at < FRESH_MS ? prepared : await settledStat(fd)
      } catch (error) {
        await this.#finishLast()
        await this.#skip(path, failed(path, error))
        return
      }
      // Whether it is a link to the one before says how that one ended.
      if (stat.nlink > 1n) await this.#finishLast()
      const entry = this.#beginFile(path, stat)
      if (entry.type !== 'file') {
        await this.#finish(entry)
        return
      }
      let change: EntryChange | undefined
      let cause: unknown
      file = new LargeFile(fd, entry.size, this.#out)
      for (let position = 0; position < entry.size; ) {
        let got = 0
        try {
          got = await file.next(position)
        } catch (error) {
          await file.settle()
          change = 'unreadable'
          cause = error
        }
        if (got === 0) {
          yield* this.#pad(entry.size - position, path)
          change ??= 'shrank'
          break
        }
        position += got
        if (this.#out.hasReady) yield* this.#takeReady(path)
      }
      this.#out.zeros(roundToBlock(entry.size) - entry.size)
      await this.#finishLast()
      left = { entry, fd, change: Promise.resolve(change), cause }
      // What fstat says counts, except that zeros stand where bytes were missing.
      if (change !== 'unreadable') left.change = changeSince(fd, stat).then((found) => found ?? change)
      this.#last = left
    } finally {
      await file?.settle()
      if (!left) await close(fd).catch(() => {})
    }
  }

  /** Ends the entry of the large file that was read last, which was left open meanwhile for its change to be seen. */
  async #finishLast(): Promise<void> {
    const last = this.#last
    if (!last) return
    this.#last = undefined
    try {
      this.#setChange(last.entry, await last.change, last.cause)
    } finally {
      this.#closing = Promise.all([this.#closing, close(last.fd).catch(() => {})])
    }
    await this.#finish(last.entry)
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
    this.#leaveChanged(
      entry,
      kind === 'vanished' || kind === 'removed' ? 'vanished' : (earlier.changed ?? 'modified'),
      cause,
    )
    return this.#finish(entry)
  }

  /** Writes the header of a file, or of a link when another name of it was stored before. */
  #beginFile(path: string, stat: PlainStat): ArchiveEntry {
    const inode = stat.nlink > 1n ? `${stat.dev}:${stat.ino}` : undefined
    const first = inode === undefined ? undefined : this.#links.get(inode)
    const { size, mtimeNs } = stat
    // A file that was removed leaves its number to another one, and a file may have been written to since.
    const isOther = first && !this.#pending.has(first.path) && (first.size !== size || first.mtimeNs !== mtimeNs)
    if (first === undefined || isOther) {
      if (inode !== undefined) this.#links.set(inode, { path, size, mtimeNs })
      return this.#begin(path, 'file', stat)
    }
    const entry = this.#begin(path, 'link', stat, first.path)
    // A file that is appended again is a new file to whoever extracts it, so its links must follow it.
    if (this.#pending.has(first.path)) this.#supersede(entry)
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
  throwIfAborted(signal)
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
