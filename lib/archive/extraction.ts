import type { IndexEntry } from '../../transforms/index.ts'
import { BackupError } from '../errors.ts'
import type { Meta } from './attributes.ts'
import { ChunkLedger } from './chunks.ts'
import { type ArchiveWarning, BLOCK_BYTES, escapeBytes, nsToMs, roundToBlock } from './entry.ts'
import type { Piece } from './file-writes.ts'
import { applyRights, type Owner, targetRights } from './rights.ts'
import { TailWatch } from './tail.ts'
import { contentOf, damaged, decodeField, type Entry, metaOf, safePath, type TarHeaders, TYPES } from './tar-entry.ts'
import { TargetFolder } from './target.ts'

/** What an entry without content counts for, between two marks: its headers. */
const ENTRY_BYTES = 3 * BLOCK_BYTES

/** More than any tar writes; global ones are copied into each entry's, so that many would cost seconds an entry. */
const MAX_PAX_RECORDS = 1000

/** Files up to this size are collected and written several at a time. */
const SMALL_BYTES = 64 * 1024

/** An entry as the archive has it; times are ms, sizes bytes. */
export type ExtractEntry = Omit<IndexEntry, 'at' | 'data' | 'changed' | 'superseded'>

export interface Checkpoints {
  /** Content between two marks, at least; none falls into a file. */
  everyBytes: number
  /**
   * Told, in order, how far the disk is: all entries before the offset in the tar stream, which are this many, are on
   * it with their content.
   */
  onMark: (offset: number, entries: number) => Promise<void>
}

export interface ExtractOptions {
  /**
   * Set the numeric owners and the setuid, setgid and sticky bits. The default is whether it runs as root. An owner
   * given here is set on everything instead; the three bits are not, since they would give away other rights.
   */
  owners?: boolean | Owner | undefined
  /** false: files and folders get the modes that new ones get. */
  modes?: boolean | undefined
  /** Under which path an entry is written; what it throws fails the restore. */
  mapPath?: ((path: string) => string) | undefined
  /** Make sure that what is restored is on the disk when it is done, and before each mark. */
  checkpoints?: Checkpoints | undefined
  /** What is in the folder is of an earlier run of the same restore. */
  continued?: boolean | undefined
  /** Called with the folder before the first entry. */
  before?: ((target: TargetFolder) => Promise<void>) | undefined
  /** Which entries to restore; by default all. Of a hard link, the entry it links to is asked for again. */
  filter?: (entry: ExtractEntry) => boolean
  /** Called for every entry that was restored, in stream order (symlinks before they are made). */
  onEntry?: (entry: ExtractEntry) => void
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
  /** Told of each chunk of the source of which everything has been written, so that its memory may be used again. */
  onConsumed?: (chunk: Buffer) => void
  /** Small files after which the others are written in batches, on a thread of their own; 32 when left out. */
  threadAfter?: number | undefined
  signal?: AbortSignal | undefined
}

export interface ExtractResult {
  /** Files and hard links restored; a path that came twice counts twice. */
  files: number
  /** Entries restored, folders and symlinks too. */
  entries: number
  /** Bytes of file content written. */
  bytes: number
  /** Length of the tar stream. */
  archiveBytes: number
  /** Entries left out with a warning; not those the filter left out. */
  skipped: number
  /** Of an archive with an entry for the root (`./`, as GNU tar makes them): its mode and mtime. Not applied. */
  folder?: { mode: number; mtime: number }
}

/** Puts the entries of one archive into a folder, one after another, and keeps count. */
export class Extraction {
  readonly result: ExtractResult = { files: 0, entries: 0, bytes: 0, archiveBytes: 0, skipped: 0 }
  readonly tail = new TailWatch()
  readonly chunks: ChunkLedger
  readonly target: TargetFolder
  readonly #options: ExtractOptions
  // Paths that were left out with a warning.
  readonly #absent = new Set<string>()
  #taken = 0
  #unmarked = 0
  #marking: Promise<void> = Promise.resolve()

  constructor(root: string, options: ExtractOptions) {
    this.#options = options
    this.chunks = new ChunkLedger(options.onConsumed)
    this.target = new TargetFolder(root, targetRights(options), {
      durable: options.checkpoints !== undefined,
      threadAfter: options.threadAfter,
      continued: options.continued,
      onWarning: options.onWarning,
    })
  }

  async take(entry: Entry): Promise<void> {
    const headers = entry.header as unknown as TarHeaders
    // Whatever a folder's header says, no content follows: tar-stream takes none, and its stream would never end.
    const isFolder = headers.type === 'directory'
    const size = isFolder ? 0 : headers.size
    if (Object.keys(headers.pax ?? {}).length > MAX_PAX_RECORDS) {
      throw damaged(`The archive has an entry with more than ${MAX_PAX_RECORDS} pax records`)
    }
    this.tail.entry(headers.byteOffset, size)
    this.chunks.consumed(headers.byteOffset)
    const wanted = await this.#place(headers, entry)
    // Content that nobody took (of a link, or left out) has to pass.
    if (!wanted && !isFolder) for await (const _ of contentOf(entry));
    this.#taken += 1
    const { checkpoints } = this.#options
    if (!checkpoints) return
    this.#unmarked += ENTRY_BYTES + size
    if (this.#unmarked >= checkpoints.everyBytes) await this.#mark(checkpoints, headers.byteOffset + roundToBlock(size))
  }

  /** Starts to bring all that was restored so far onto the disk; one such work at a time. */
  async #mark(checkpoints: Checkpoints, offset: number): Promise<void> {
    this.#unmarked = 0
    const entries = this.#taken
    await this.#marking
    await this.target.drain()
    const synced = this.target.sync()
    this.#marking = synced.then(() => checkpoints.onMark(offset, entries))
    // It is awaited at the next mark, or at the end.
    this.#marking.catch(() => {})
  }

  async finish(): Promise<void> {
    await this.#marking
    await this.target.finish()
  }

  async settle(): Promise<void> {
    await this.target.settle()
    await this.#marking.catch(() => {})
    await this.target.close()
  }

  /** @returns whether the entry's content was read */
  async #place(headers: TarHeaders, content: Entry): Promise<boolean> {
    const name = decodeField(headers.pax?.path, headers.name)
    if (name === undefined) {
      const path = escapeBytes(headers.name)
      this.#skip({ kind: 'name', path, message: `The name ${path} is not UTF-8; the entry is left out` })
      return false
    }
    const path = safePath(name)
    const type = TYPES[headers.type ?? '']
    if (!type) {
      this.#skipSpecial(path, headers)
      return false
    }
    const meta = applyRights(metaOf(headers), type, this.#options)
    if (path === '') {
      if (type !== 'dir') throw new BackupError('UNSAFE_ARCHIVE', 'An archive entry would replace the folder itself')
      this.result.folder = { mode: meta.mode, mtime: nsToMs(meta.mtimeNs) }
      return false
    }
    if (Object.keys(headers.pax ?? {}).some((key) => key.startsWith('GNU.sparse.'))) {
      throw damaged(`${path} is stored as a GNU sparse file, which cannot be restored here; use GNU tar`)
    }
    const size = type === 'file' ? headers.size : 0
    const { mode, mtimeNs, uid, gid } = meta
    const entry: ExtractEntry = { path, type, size, mode, mtime: nsToMs(mtimeNs), uid, gid }
    if (type === 'symlink' || type === 'link') {
      const link = decodeField(headers.pax?.linkpath, headers.linkname)
      if (link === undefined) {
        this.#absent.add(path)
        this.#skip({ kind: 'name', path, message: `The link target of ${path} is not UTF-8; it is left out` })
        return false
      }
      entry.link = type === 'link' ? safePath(link) : link
    }
    if (!this.#wants(entry)) return false
    const done = await this.#write(this.#mapped(entry), meta, content)
    if (done) {
      this.#absent.delete(path)
      this.result.entries++
      if (type === 'file' || type === 'link') this.result.files++
      this.result.bytes += size
      this.#options.onEntry?.(entry)
    }
    return type === 'file'
  }

  #mapped(entry: ExtractEntry): ExtractEntry {
    const { mapPath } = this.#options
    if (!mapPath) return entry
    const mapped = { ...entry, path: mapPath(entry.path) }
    return entry.type === 'link' ? { ...mapped, link: mapPath(entry.link ?? '') } : mapped
  }

  async #write(entry: ExtractEntry, meta: Meta, content: Entry): Promise<boolean> {
    const { path, type, size, link = '' } = entry
    if (type === 'dir') {
      await this.target.folder(path, meta)
    } else if (type === 'symlink') {
      if (link === '') throw damaged(`The archive has a symlink without a target: ${path}`)
      await this.target.symlink(path, link, meta)
    } else if (type === 'link') {
      return await this.#writeLink(entry, link, meta)
    } else if (size <= SMALL_BYTES) {
      const data = Buffer.allocUnsafe(size)
      let held = 0
      // Copied: it is written later, and the chunk it came in may be given back by then.
      if (size > 0) for await (const chunk of contentOf(content)) held += chunk.copy(data, held)
      else content.resume()
      await this.target.smallFile(path, meta, data)
    } else {
      await this.target.largeFile(path, meta, this.#pieces(content))
    }
    return true
  }

  /** An entry's content, of which each piece says when it has been written. */
  async *#pieces(content: Entry): AsyncGenerator<Piece, void, void> {
    let offset = (content.header as unknown as TarHeaders).byteOffset
    for await (const data of contentOf(content)) {
      const onWritten = this.chunks.use(offset)
      offset += data.length
      yield { data, onWritten }
      this.chunks.consumed(offset)
    }
  }

  #wants(entry: ExtractEntry): boolean {
    return !this.#options.filter || this.#options.filter(entry)
  }

  async #writeLink(entry: ExtractEntry, link: string, meta: Meta): Promise<boolean> {
    const { path } = entry
    // A file that stands at a path that is not restored is an older one: not to be linked to.
    const { link: _, ...twin } = entry
    const left = this.#absent.has(link) || !this.#wants({ ...twin, path: link, type: 'file' })
    if (!left && link !== '' && (await this.target.hardLink(path, link, meta))) return true
    if (!left) throw damaged(`The archive links ${path} to ${link}, which it does not hold`)
    this.#absent.add(path)
    this.#skip({ kind: 'link', path, message: `${path} is a hard link to ${link}, which was not restored` })
    return false
  }

  #skipSpecial(path: string, headers: TarHeaders): void {
    const { type } = headers
    if (type !== 'fifo' && type !== 'character-device' && type !== 'block-device') {
      throw damaged(`The archive entry ${JSON.stringify(path)} is of a kind that cannot be restored`)
    }
    this.#absent.add(path)
    this.#skip({ kind: 'special', path, message: `${path} is a ${type.replace('-', ' ')}; it is left out` })
  }

  #skip(warning: ArchiveWarning): void {
    this.result.skipped++
    this.#options.onWarning?.(warning)
  }
}
