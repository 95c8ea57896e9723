import { Readable } from 'node:stream'
import type { IndexEntry, Seekable } from '../transforms/index.ts'
import { BLOCK_BYTES, roundToBlock, TRAILER_BYTES } from './archive/entry.ts'
import { BackupError } from './errors.ts'
import type { OpenObject } from './open-object.ts'
import { findEntry } from './select.ts'

/** Runs of at most this much content are fetched whole, and several at a time. */
const SMALL_RUN_BYTES = 8 * 1024 * 1024
const RUNS_AHEAD = 3

/** Entries whose frames touch, read as one range of the tar stream. */
interface Run {
  start: number
  end: number
  entries: IndexEntry[]
}

/** @throws BackupError USAGE for an object that can only be read whole. */
export function needSeekable(object: OpenObject, id: string): Seekable {
  if (object.seekable && object.head) return object.seekable
  throw new BackupError('USAGE', `Snapshot ${id} has no index, so it can only be restored whole.`)
}

/**
 * A tar stream of some of an archive's entries, cut out of it: only the frames that hold them are fetched.
 * @param entries in stream order.
 */
export function cutArchive(seekable: Seekable, entries: readonly IndexEntry[]): Readable {
  const runs = runsOf(seekable, entries)
  async function* pieces(): AsyncGenerator<Buffer> {
    const queue: Promise<Buffer | Run>[] = []
    let next = 0
    const fill = () => {
      while (next < runs.length && queue.length < RUNS_AHEAD) {
        const run = runs[next] as Run
        next += 1
        const small = run.end - run.start <= SMALL_RUN_BYTES
        const fetched = small ? seekable.read(run.start, run.end - run.start) : Promise.resolve(run)
        fetched.catch(() => {})
        queue.push(fetched)
      }
    }
    fill()
    for (const run of runs) {
      const fetched = await (queue.shift() as Promise<Buffer | Run>)
      const source = Buffer.isBuffer(fetched) ? [fetched] : seekable.createReadStream(run.start, run.end)
      yield* cut(source, run)
      fill()
    }
    yield Buffer.alloc(TRAILER_BYTES)
  }
  return Readable.from(pieces(), { objectMode: false, highWaterMark: 64 * 1024 })
}

function runsOf(seekable: Seekable, entries: readonly IndexEntry[]): Run[] {
  const runs: Run[] = []
  let covered = -1
  for (const entry of entries) {
    const end = endOf(entry)
    if (entry.at % BLOCK_BYTES !== 0 || entry.data < entry.at || end > seekable.size) {
      throw new BackupError('DAMAGED', `The index says that ${JSON.stringify(entry.path)} is where it cannot be.`)
    }
    const last = runs.at(-1)
    if (last && seekable.cover(entry.at, end).start <= covered) {
      last.end = Math.max(last.end, end)
      last.entries.push(entry)
    } else {
      runs.push({ start: entry.at, end, entries: [entry] })
    }
    covered = seekable.cover(entry.at, end).end
  }
  return runs
}

/** Where an entry's last block ends. */
function endOf(entry: IndexEntry): number {
  return entry.data + (entry.type === 'file' ? roundToBlock(entry.size) : 0)
}

/** The entries' own blocks out of a run's bytes. */
async function* cut(source: Iterable<Buffer> | AsyncIterable<Buffer>, run: Run): AsyncGenerator<Buffer> {
  let at = run.start
  let next = 0
  for await (const chunk of source) {
    const chunkEnd = at + chunk.length
    while (next < run.entries.length) {
      const entry = run.entries[next] as IndexEntry
      const end = endOf(entry)
      const piece = chunk.subarray(Math.max(0, entry.at - at), Math.max(0, Math.min(end, chunkEnd) - at))
      if (piece.length > 0) yield piece
      if (end > chunkEnd) break
      next += 1
    }
    at = chunkEnd
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
