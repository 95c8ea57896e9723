import { Readable } from 'node:stream'
import type { IndexEntry, Seekable } from '../transforms/index.ts'
import { msToNs, roundToBlock, TRAILER_BYTES } from './archive/entry.ts'
import { HEADER_LIMIT_BYTES, writeHeader } from './archive/header.ts'
import { BackupError } from './errors.ts'
import type { OpenObject } from './open-object.ts'
import { findEntry } from './select.ts'

/** Runs of at most this much content are fetched whole, and several at a time. */
const SMALL_RUN_BYTES = 8 * 1024 * 1024
const RUNS_AHEAD = 3

/** Files whose frames touch, read as one range of the tar stream. */
interface Run {
  start: number
  end: number
}

/** @throws BackupError USAGE for an object that can only be read whole. */
export function needSeekable(object: OpenObject, id: string): Seekable {
  if (object.seekable && object.head) return object.seekable
  throw new BackupError('USAGE', `Snapshot ${id} has no index, so it can only be restored whole.`)
}

/**
 * A tar stream of some of an archive's entries. Their headers are made anew from the index; only the frames that hold
 * the files' content are fetched.
 * @param entries in stream order, each path once.
 */
export function cutArchive(seekable: Seekable, entries: readonly IndexEntry[]): Readable {
  return Readable.from(tarOf(seekable, entries), { objectMode: false, highWaterMark: 64 * 1024 })
}

async function* tarOf(seekable: Seekable, entries: readonly IndexEntry[]): AsyncGenerator<Buffer> {
  const runs = runsOf(seekable, entries.filter(hasContent))
  const coming: { run: Run; content: Promise<Buffer> | undefined }[] = []
  let next = 0
  let reader: RunReader | undefined
  for (const entry of entries) {
    yield headerOf(entry)
    if (!hasContent(entry)) continue
    for (; next < runs.length && coming.length < RUNS_AHEAD; next += 1)
      coming.push(fetchRun(seekable, runs[next] as Run))
    if (!reader || entry.data >= reader.end) {
      const { run, content } = coming.shift() as (typeof coming)[0]
      reader = new RunReader(run, content ? [await content] : seekable.createReadStream(run.start, run.end))
    }
    yield* reader.take(entry.data, entry.size)
    const padding = roundToBlock(entry.size) - entry.size
    if (padding > 0) yield Buffer.alloc(padding)
  }
  yield Buffer.alloc(TRAILER_BYTES)
}

function hasContent(entry: IndexEntry): boolean {
  return entry.type === 'file' && entry.size > 0
}

function headerOf(entry: IndexEntry): Buffer {
  const { path, type, mode, mtime, uid, gid, link } = entry
  const header = Buffer.alloc(HEADER_LIMIT_BYTES)
  const size = type === 'file' ? entry.size : 0
  return header.subarray(0, writeHeader(header, 0, { path, type, size, mode, mtimeNs: msToNs(mtime), uid, gid, link }))
}

function fetchRun(seekable: Seekable, run: Run): { run: Run; content: Promise<Buffer> | undefined } {
  if (run.end - run.start > SMALL_RUN_BYTES) return { run, content: undefined }
  const content = seekable.read(run.start, run.end - run.start)
  content.catch(() => {})
  return { run, content }
}

function runsOf(seekable: Seekable, files: readonly IndexEntry[]): Run[] {
  const runs: Run[] = []
  let covered = -1
  for (const { path, data, size } of files) {
    const end = data + size
    const last = runs.at(-1)
    if (end > seekable.size || (last && data < last.end)) {
      throw new BackupError('DAMAGED', `The index says that ${JSON.stringify(path)} is where it cannot be.`)
    }
    const cover = seekable.cover(data, end)
    if (last && cover.start <= covered) last.end = end
    else runs.push({ start: data, end })
    covered = cover.end
  }
  return runs
}

/** Takes ranges, in order, out of a run's bytes. */
class RunReader {
  readonly end: number
  readonly #chunks: Iterator<Buffer> | AsyncIterator<Buffer>
  #chunk: Buffer = Buffer.alloc(0)
  #at: number

  constructor(run: Run, source: Iterable<Buffer> | Readable) {
    this.end = run.end
    this.#at = run.start
    this.#chunks = Array.isArray(source) ? source[Symbol.iterator]() : (source as Readable)[Symbol.asyncIterator]()
  }

  async *take(start: number, length: number): AsyncGenerator<Buffer> {
    const end = start + length
    while (this.#at < end) {
      // Taken before the piece leaves: whoever writes it may give the memory of a whole chunk back.
      const { length: chunkBytes } = this.#chunk
      const piece = this.#chunk.subarray(Math.max(0, start - this.#at), end - this.#at)
      if (piece.length > 0) yield piece
      if (this.#at + chunkBytes > end) {
        this.#chunk = this.#chunk.subarray(end - this.#at)
        this.#at = end
        return
      }
      this.#at += chunkBytes
      this.#chunk = Buffer.alloc(0)
      if (this.#at >= end) return
      const next = await this.#chunks.next()
      if (next.done) throw new BackupError('DAMAGED', 'The archive ends before a file that is in its index.')
      this.#chunk = next.value
    }
  }
}

/**
 * One file's content, by ranges.
 * @param path undefined: the whole content of a snapshot of a file or stream.
 * @throws BackupError USAGE when there is no such file, or it is a folder or symlink.
 */
export async function readEntry(object: OpenObject, id: string, path: string | undefined): Promise<Readable> {
  const seekable = needSeekable(object, id)
  if (object.head?.kind === 'raw') {
    if (path !== undefined)
      throw new BackupError('USAGE', `Snapshot ${id} is of one file or stream: leave the path out.`)
    return seekable.createReadStream()
  }
  if (path === undefined) throw new BackupError('USAGE', `Snapshot ${id} is of a folder: name a file in it.`)
  let entry = await findEntry(seekable, path)
  if (entry.type === 'link') entry = await findEntry(seekable, entry.link as string)
  if (entry.type !== 'file') {
    const what = entry.type === 'symlink' ? `a symlink to ${JSON.stringify(entry.link)}` : 'a folder'
    throw new BackupError('USAGE', `${JSON.stringify(path)} is ${what}, and has no content of its own.`)
  }
  return seekable.createReadStream(entry.data, entry.data + entry.size)
}
