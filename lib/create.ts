import { Transform, type Writable } from 'node:stream'
import type { ObjectStat, Storage } from '../adapters/storage.ts'
import {
  createEncrypt,
  createHashTee,
  createMeter,
  createZstdCompress,
  IndexBuilder,
  type IndexHead,
  type Progress,
  sealedSize,
  type WriteKey,
} from '../transforms/index.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { type Snapshot, snapshotKey } from './catalog.ts'
import { writeCompanion } from './companion.ts'
import { BackupError } from './errors.ts'
import type { LeftOut, SelectionOptions } from './exclude.ts'
import { idTime, newId } from './names.ts'
import { freeChunk, run } from './pipe.ts'
import { Hold, type QuiesceOutcome, type Quiescer } from './quiesce/quiescer.ts'
import { type BackupSource, type Omissions, openSource } from './source.ts'

export interface CreateProgress extends Progress {
  /** Bytes that have gone towards the store. */
  storedBytes: number
}

export interface CreateOptions extends SelectionOptions {
  /** zstd level, 1 to 22; 3 when left out. */
  level?: number | undefined
  /** Plaintext bytes a zstd frame; 4 MiB when left out. */
  zstdFrameBytes?: number | undefined
  threads?: number | undefined
  /** PBKDF2 iterations; 600,000 when left out. */
  iterations?: number | undefined
  /** Back up a source that holds nothing. */
  allowEmpty?: boolean | undefined
  /** Brings whoever writes to the source to rest while it is read. */
  quiesce?: Quiescer | undefined
  /** How long at most; 30 minutes when left out. After that the writer goes on, and the snapshot is a `live` one. */
  quiesceLimitMs?: number | undefined
  /** Called for each name in a folder that a pattern leaves out. */
  onLeftOut?: ((left: LeftOut) => void) | undefined
  onProgress?: ((progress: CreateProgress) => void) | undefined
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface CreatedSnapshot extends Snapshot {
  /** SHA-256 of the object as stored, hex. */
  sha256: string
  /** The archive's bytes, before compression. */
  bytes: number
  files: number
  consistency: string
  omissions: Omissions
  /** How the source was held; null when it was not. */
  quiesce: QuiesceOutcome | null
  /** Whether something is missing from it, or did not hold still as it should: the command's exit code 3. */
  incomplete: boolean
  elapsedMs: number
}

export interface CreateContext {
  storage: Storage
  server: string
  /** undefined: the snapshot is not encrypted. */
  key: WriteKey | undefined
  /** What the index says wrote it. */
  tool: string
}

/** Room for the index in the estimate of an object's size: 64 bytes an entry, and its blocks. */
const INDEX_ENTRY_BYTES = 64
const INDEX_BASE_BYTES = 2 * 1024 * 1024

/**
 * Backs a source up: the object, then its check, then its companion.
 * @throws BackupError, TransformError, StorageError; nothing is left in the store then, unless the message says so.
 */
export async function createSnapshot(
  context: CreateContext,
  source: BackupSource,
  options: CreateOptions,
): Promise<CreatedSnapshot> {
  const { storage, server, key: writeKey } = context
  const { signal } = options
  const begun = performance.now()
  // Before the source is touched: a bad key or level must cost nothing.
  const encrypt = writeKey && createEncrypt({ ...writeKey, iterations: options.iterations, onConsumed: freeChunk })
  encrypt?.on('error', () => {})
  const { quiesce } = options
  const onWarning = options.onWarning ?? (() => {})
  let hold: Hold | undefined
  try {
    const id = newId(new Date())
    const index = new IndexBuilder()
    const opened = await openSource(source, {
      ...options,
      index,
      allowEmpty: options.allowEmpty ?? false,
      onWarning,
      hold: quiesce && holdSource,
    })
    let plainBytes = 0
    const compress = createZstdCompress({
      level: options.level,
      frameBytes: options.zstdFrameBytes,
      threads: options.threads,
      onConsumed: opened.kind === 'tar' ? freeChunk : undefined,
      index({ bytes }) {
        plainBytes = bytes
        return index.finish(headOf(context, id, opened.kind, bytes, opened.summary()))
      },
    })
    const name = { id, kind: opened.kind, encrypted: encrypt !== undefined }
    const key = snapshotKey(server, name)
    const tee = createHashTee()
    const meters = metersOf(options, opened.expectedBytes)
    const transforms = [meters.plain, compress, ...(encrypt ? [encrypt] : []), tee, meters.stored]
    let sink: Writable
    try {
      const expected = expectedSize(opened.expectedBytes, opened.expectedEntries)
      sink = storage.createWriteStream(key, { expectedSize: expected, onConsumed: freeChunk, signal })
    } catch (error) {
      opened.stream.destroy()
      for (const stream of transforms) stream.destroy()
      throw error
    }
    await run(opened.stream, transforms, sink, signal)
    const summary = opened.summary()
    const { version } = await finish(storage, key, tee.bytes, tee.digest, signal)
    const { special: _, excluded: __, ...missing } = summary.omissions
    const held = hold?.outcome() ?? null
    return {
      ...name,
      server,
      key,
      created: idTime(id) as Date,
      storedBytes: tee.bytes,
      ...(version === undefined ? {} : { version }),
      complete: true,
      pinned: false,
      sha256: tee.digest,
      bytes: plainBytes,
      files: summary.files,
      consistency: summary.consistency,
      omissions: summary.omissions,
      quiesce: held,
      incomplete: Object.values(missing).some((count) => count > 0) || (held !== null && !(held.kept && held.resumed)),
      elapsedMs: performance.now() - begun,
    }
  } finally {
    // At the end of the source it was released already.
    await hold?.release()
    encrypt?.destroy()
  }

  async function holdSource(): Promise<Hold> {
    hold = await Hold.begin(quiesce as Quiescer, { limitMs: options.quiesceLimitMs, onWarning, signal })
    return hold
  }
}

function headOf(
  context: CreateContext,
  id: string,
  kind: 'tar' | 'raw',
  bytes: number,
  summary: ReturnType<Awaited<ReturnType<typeof openSource>>['summary']>,
): IndexHead {
  const { files, consistency, mode, mtime } = summary
  const head: IndexHead = {
    v: 1,
    kind,
    server: context.server,
    id,
    created: (idTime(id) as Date).getTime(),
    tool: context.tool,
    bytes,
    files,
    consistency,
  }
  if (mode !== undefined) head.mode = mode
  if (mtime !== undefined) head.mtime = mtime
  if (summary.omissions.excluded > 0) head.excluded = summary.omissions.excluded
  return head
}

/** The object is there: check it once more from outside, and say so beside it. */
async function finish(
  storage: Storage,
  key: string,
  bytes: number,
  digest: string,
  signal?: AbortSignal,
): Promise<ObjectStat> {
  const stat = await storage.stat(key, { signal })
  if (stat.size !== bytes) {
    throw new BackupError(
      'DAMAGED',
      `The store says that ${key} has ${stat.size} bytes, and ${bytes} were sent. It is left there without a companion.`,
    )
  }
  try {
    await writeCompanion(storage, key, digest, signal)
  } catch (cause) {
    throw new BackupError(
      'UNFINISHED',
      `The object ${key} is stored, and its companion could not be written (${(cause as Error).message}). The snapshot counts as unfinished; its SHA-256 is ${digest}.`,
      { cause },
    )
  }
  return stat
}

/** An upper bound of the object's size: what zstd can add to bytes that do not compress, the index and the seal. */
function expectedSize(bytes: number | undefined, entries: number): number | undefined {
  if (bytes === undefined) return undefined
  return sealedSize(Math.ceil(bytes * 1.005) + entries * INDEX_ENTRY_BYTES + INDEX_BASE_BYTES)
}

function metersOf(options: CreateOptions, total: number | undefined): { plain: Transform; stored: Transform } {
  let storedBytes = 0
  const stored = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      storedBytes += chunk.length
      callback(null, chunk)
    },
  })
  const plain = createMeter({ total, onProgress: (progress) => options.onProgress?.({ ...progress, storedBytes }) })
  return { plain, stored }
}
