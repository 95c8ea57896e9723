import type { Readable } from 'node:stream'
import { createMeter, type IndexEntry, type Progress, type Seekable } from '../transforms/index.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { type ExtractOptions, extractTar } from './archive/extract.ts'
import { writeRawFile } from './archive/raw-file.ts'
import type { Rights } from './archive/rights.ts'
import type { Snapshot } from './catalog.ts'
import { BackupError } from './errors.ts'
import type { OpenObject } from './open-object.ts'
import { cutArchive } from './partial.ts'
import { freeChunk, pump } from './pipe.ts'
import { removeTree } from './remove-tree.ts'
import { type Earlier, entriesBefore, lookAtEarlier } from './resume.ts'
import type { Staging } from './staging.ts'

/** What a tree is built from, and how. */
export interface Build extends Rights {
  object: OpenObject
  snapshot: Snapshot
  /** What its companion says; null when there is none that fits. */
  digest: string | null
  /** The selected entries in stream order, and the number of files among them; undefined: all. */
  selected: { entries: IndexEntry[]; files: number } | undefined
  mapPath: (path: string) => string
  allowUnverified: boolean
  /** Whether what is done is noted, for a restore that goes on with it. */
  resumable: boolean
  checkpointBytes: number
  onProgress: (progress: Progress) => void
  onWarning: ((warning: ArchiveWarning) => void) | undefined
  signal: AbortSignal | undefined
}

export interface Built {
  /** Bytes of the archive that were written out. */
  bytes: number
  files: number
  /** Whether the object's SHA-256 was the companion's; where not all of it was read, whether there is one. */
  verified: boolean
}

/**
 * Builds the tree of a staging folder, or goes on where its record says that an earlier restore was.
 * @throws BackupError DAMAGED, UNSAFE_ARCHIVE, TARGET; TransformError; StorageError; AbortError.
 */
export async function buildTree(build: Build, staging: Staging): Promise<Built> {
  if (build.selected) return buildSelected(build, staging, build.selected)
  const { seekable } = build.object
  if (staging.record.mark > 0 && seekable) return buildRest(build, staging, seekable)
  return buildWhole(build, staging)
}

async function buildWhole(build: Build, staging: Staging): Promise<Built> {
  const { object, snapshot, digest, onProgress } = build
  const { head } = object
  const { transforms, totals } = object.reading()
  const meter = createMeter({ total: object.stat.size, onProgress })
  const { bytes, files } = await pump(object.createReadStream(), [meter, ...transforms], (stream) =>
    snapshot.kind === 'tar' ? extract(build, staging, stream) : writeRaw(build, staging, stream),
  )
  const same = totals().digest === digest
  if (!same && !build.allowUnverified) unverified(snapshot, 'is not what its companion says')
  if (head && head.bytes !== bytes) {
    throw new BackupError('DAMAGED', `Snapshot ${snapshot.id} says ${head.bytes} bytes, and has ${bytes}.`)
  }
  return { bytes, files: head?.files ?? files, verified: same }
}

/** What an interrupted restore had not come to: the archive's end, by ranges. */
async function buildRest(build: Build, staging: Staging, seekable: Seekable): Promise<Built> {
  const { digest, object, snapshot } = build
  const { mark } = staging.record
  const result = { bytes: seekable.size, files: object.head?.files ?? 1, verified: digest !== null }
  const meter = createMeter({ total: seekable.size - mark, onProgress: build.onProgress })
  const rest = () => seekable.createReadStream(mark, seekable.size)
  if (snapshot.kind === 'raw') {
    await pump(rest(), [meter], (stream) => writeRaw(build, staging, stream))
    return result
  }
  const earlier = await look(build, staging, () => entriesBefore(seekable, mark))
  if (!earlier) {
    await beginAnew(staging)
    return buildWhole(build, staging)
  }
  if (earlier.missed.length > 0) {
    const { checkpoints: _, ...options } = extractOptions(build, staging)
    await extractTar(cutArchive(seekable, earlier.missed), staging.tree, options)
  }
  await pump(rest(), [meter], (stream) =>
    extract(build, staging, stream, { before: earlier.apply, markOf: (offset) => mark + offset }),
  )
  return result
}

async function buildSelected(
  build: Build,
  staging: Staging,
  { entries, files }: { entries: IndexEntry[]; files: number },
): Promise<Built> {
  const seekable = build.object.seekable as Seekable
  const done = staging.record.mark
  const earlier = done > 0 ? await look(build, staging, () => entries.slice(0, done)) : null
  if (done > 0 && !earlier) await beginAnew(staging)
  const missed = earlier?.missed ?? []
  const rest = [...missed, ...entries.slice(earlier ? done : 0)]
  const meter = createMeter({ total: contentBytes(rest), onProgress: build.onProgress })
  await pump(cutArchive(seekable, rest), [meter], (stream) =>
    extract(build, staging, stream, {
      before: earlier?.apply,
      markOf: (_, count) => (earlier ? done : 0) + Math.max(0, count - missed.length),
    }),
  )
  return { bytes: contentBytes(entries), files, verified: build.digest !== null }
}

/** Too much of what was there is gone. */
async function beginAnew(staging: Staging): Promise<void> {
  await staging.note({ mark: 0 })
  await removeTree(staging.tree)
}

/** The bytes of a tar stream that entries take, without their padding. */
export function contentBytes(entries: readonly IndexEntry[]): number {
  return entries.reduce((sum, { at, data, size }) => sum + data - at + size, 0)
}

function look(
  { owners, modes, mapPath }: Build,
  { tree }: Staging,
  entries: () => AsyncIterable<IndexEntry> | Iterable<IndexEntry>,
): Promise<Earlier | null> {
  return lookAtEarlier(entries, { tree, owners, modes, mapPath })
}

interface Going {
  before?: ExtractOptions['before']
  /** The mark of a place in the tar stream that is extracted. */
  markOf?: (offset: number, entries: number) => number
}

async function extract(
  build: Build,
  staging: Staging,
  stream: Readable,
  going: Going = {},
): Promise<{ bytes: number; files: number }> {
  const options = extractOptions(build, staging, going)
  const { archiveBytes, files } = await extractTar(stream, staging.tree, options)
  return { bytes: archiveBytes, files }
}

function extractOptions(build: Build, staging: Staging, { before, markOf = (offset) => offset }: Going = {}) {
  const { owners, modes, mapPath, onWarning, signal } = build
  const note = async (mark: number) => {
    if (build.resumable) await staging.note({ mark })
  }
  return {
    ...{ owners, modes, mapPath, onWarning, signal, before, continued: staging.record.mark > 0 },
    onConsumed: freeChunk,
    checkpoints: {
      everyBytes: build.checkpointBytes,
      onMark: (offset: number, entries: number) => note(markOf(offset, entries)),
    },
  } satisfies ExtractOptions
}

async function writeRaw(build: Build, staging: Staging, stream: Readable): Promise<{ bytes: number; files: number }> {
  const bytes = await writeRawFile(stream, staging.tree, {
    from: staging.record.mark,
    everyBytes: build.checkpointBytes,
    onMark: async (mark) => {
      if (build.resumable) await staging.note({ mark })
    },
    onConsumed: freeChunk,
    signal: build.signal,
  })
  return { bytes, files: 1 }
}

/** @throws BackupError DAMAGED */
export function unverified(snapshot: Snapshot, what: string): never {
  throw new BackupError(
    'DAMAGED',
    `The object of snapshot ${snapshot.id} ${what}. Verify it, use another snapshot, or allow unverified snapshots (--allow-unverified) to restore what authenticates.`,
  )
}
