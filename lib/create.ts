import { Transform, type Writable } from 'node:stream'
import type { Storage } from '../adapters/storage.ts'
import {
  createMeter,
  type FrameLedger,
  IndexBuilder,
  type IndexHead,
  type Progress,
  sealedSize,
  type WriteKey,
} from '../transforms/index.ts'
import { prepareSealing, type Sealing } from '../transforms/seal-thread.ts'
import { checkCompressOptions, createLendingZstdCompress } from '../transforms/zstd-compress.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { type Snapshot, snapshotKey } from './catalog.ts'
import { type DestinationProgress, type DestinationResult, Destinations, describe } from './destinations.ts'
import { BackupError } from './errors.ts'
import type { LeftOut, SelectionOptions } from './exclude.ts'
import { type HookOptions, Hooks } from './hooks.ts'
import type { Attempt, TakenUpload } from './journal/attempt.ts'
import { Resumable, type ResumableOptions } from './journal/resumable.ts'
import type { LeaseOptions } from './lease.ts'
import { idTime, newId } from './names.ts'
import { freeChunk, isWorthThread, run } from './pipe.ts'
import { Hold, type QuiesceOutcome, type Quiescer } from './quiesce/quiescer.ts'
import { unusedWarning } from './select.ts'
import { type BackupSource, type Omissions, openSource } from './source.ts'

/** How far a backup is. */
export interface CreateProgress extends Progress {
  /** Bytes that have gone towards the store. */
  storedBytes: number
  /** One for each destination, in the order given. */
  destinations: DestinationProgress[]
}

/** What did not go well around a backup, and does not undo it. */
export interface ServiceWarning {
  /**
   * `destination`: one of several failed. `hook`: the command after it did. `lease`: another run is waited for.
   * `storage`: a store lost something on the way, which was made good. `journal`: an earlier upload was not taken up.
   */
  kind: 'destination' | 'hook' | 'lease' | 'storage' | 'journal'
  /** The destination's location; empty for a hook and a lease. */
  path: string
  message: string
}

/** How a backup is made. */
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
  /** Told how far it is. */
  onProgress?: ((progress: CreateProgress) => void) | undefined
  /** Told of what did not go well and does not undo the backup. */
  onWarning?: ((warning: ArchiveWarning | ServiceWarning) => void) | undefined
  /** How the server's lease is taken, at each destination. false: without one; see `acquireLease`. */
  lease?: Omit<LeaseOptions, 'signal' | 'onClaim' | 'onWait'> | false | undefined
  /** A destination that takes nothing for so long fails, waits that it asks for left out; 5 minutes when left out and several. */
  stallMs?: number | undefined
  /** Keeps a journal, so that an upload that is cut off can be taken up. Of one destination that can do it. */
  journal?: ResumableOptions | undefined
  /** Commands around the backup. */
  hooks?: HookOptions | undefined
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
  /** One for each destination, in the order given. */
  destinations: DestinationResult[]
  /** What of it an earlier run had uploaded; null when it was begun by this one. */
  takenUp: TakenUpload | null
  /**
   * Whether something is missing from it, it did not hold still as it should, or a destination or the hook after it
   * failed: the command's exit code 3.
   */
  incomplete: boolean
  elapsedMs: number
}

export interface CreateContext {
  storage: Storage
  /** More stores that the same object is written to, in the same pass. */
  mirrors?: readonly Storage[] | undefined
  server: string
  /** undefined: the snapshot is not encrypted. */
  key: WriteKey | undefined
  /** What is kept between runs: it is no part of what is backed up. */
  stateFolder?: string | undefined
  /** What the index says wrote it. */
  tool: string
}

/** Room for the index in the estimate of an object's size: 64 bytes an entry, and its blocks. */
const INDEX_ENTRY_BYTES = 64
const INDEX_BASE_BYTES = 2 * 1024 * 1024

/**
 * Backs a source up: under the server's lease, the object, then its check, then its companion. With mirrors it is read,
 * compressed and encrypted once, and one destination that fails is dropped.
 * @throws BackupError (LEASE_HELD and HOOK before the source is touched; LEASE_LOST; DESTINATIONS when none of several
 * took it), TransformError, StorageError; nothing is left in the store then, unless the message says so.
 */
export async function createSnapshot(
  context: CreateContext,
  source: BackupSource,
  options: CreateOptions,
): Promise<CreatedSnapshot> {
  const { storage, mirrors = [], server } = context
  const { lease = {}, signal, onWarning = () => {} } = options
  const destinations = new Destinations([storage, ...mirrors], options.stallMs)
  const hooks = new Hooks(options.hooks ?? {}, server, (message) => onWarning({ kind: 'hook', path: '', message }))
  const onWait: LeaseOptions['onWait'] = ({ owner, since }) => {
    onWarning({ kind: 'lease', path: '', message: `Waiting for the run of ${owner}, at work since ${since}` })
  }
  const resumable = resumableOf(context, source, options)
  // Before the source is touched: a bad key or level must cost nothing.
  const seal = sealing(context, options.iterations)
  // An attempt that may be gone on with has its keys from its journal.
  if (!resumable) seal.deriveAhead()
  let made: CreatedSnapshot
  try {
    // As early, but the hook after a failure is told of it.
    checkCompressOptions({ level: options.level, frameBytes: options.zstdFrameBytes, threads: options.threads })
    const dead = await resumable?.deadLeases()
    const onClaim = resumable && ((id: string) => resumable.claiming(id))
    if (lease) await destinations.takeLeases(server, { ...lease, dead, onClaim, onWait }, signal)
    await resumable?.leased(destinations.leaseId)
    await hooks.before(signal, await resumable?.candidate())
    made = resumable
      ? await resumable.run((attempt) => writeAttempt(context, destinations, attempt, source, options))
      : await writeSnapshot(context, destinations, seal, source, options)
  } catch (error) {
    seal.discard()
    await destinations.release()
    await resumable?.released()
    await hooks.failed(describe(error as Error))
    throw error
  }
  await destinations.release()
  await resumable?.released()
  for (const { destination, error } of made.destinations) {
    if (error) onWarning({ kind: 'destination', path: destination, message: `${destination} failed: ${error.message}` })
  }
  return (await hooks.after(made)) ? made : { ...made, incomplete: true }
}

function resumableOf(context: CreateContext, source: BackupSource, options: CreateOptions): Resumable | undefined {
  const { journal, signal, onWarning = () => {} } = options
  if (!journal) return undefined
  const { storage, mirrors = [], server, key, tool } = context
  if (mirrors.length > 0) throw new BackupError('USAGE', 'An upload to several destinations cannot have a journal.')
  return new Resumable(journal, {
    storage,
    server,
    encrypted: key !== undefined,
    tool,
    source,
    options,
    signal,
    onWarning: (message) => onWarning({ kind: 'journal', path: storage.location, message }),
  })
}

/** Makes an object that another run can go on with, or goes on with another run's. */
async function writeAttempt(
  context: CreateContext,
  destinations: Destinations,
  attempt: Attempt,
  source: BackupSource,
  options: CreateOptions,
): Promise<CreatedSnapshot> {
  const { ledger, tool } = attempt
  const seal = sealing(context, attempt.options.iterations, ledger)
  const asBegun = { ...options, ...attempt.options }
  return writeSnapshot({ ...context, tool }, destinations, seal, source, asBegun, attempt)
}

/** @throws TransformError BAD_KEY, BAD_OPTION. */
function sealing({ key }: CreateContext, iterations: number | undefined, ledger?: FrameLedger) {
  const options = key && { ...key, iterations, ledger }
  return prepareSealing(options, { onConsumed: freeChunk, ownsChunks: true })
}

async function writeSnapshot(
  context: CreateContext,
  destinations: Destinations,
  seal: Sealing,
  source: BackupSource,
  options: CreateOptions,
  attempt?: Attempt,
): Promise<CreatedSnapshot> {
  const { server } = context
  const { signal, quiesce, onWarning = () => {} } = options
  const begun = performance.now()
  let hold: Hold | undefined
  try {
    const id = attempt?.id ?? newId(new Date())
    const index = new IndexBuilder()
    const state = [context.stateFolder, options.journal?.folder].filter((one) => one !== undefined)
    const opened = await openSource(source, {
      ...options,
      onSeen: (bytes) => isWorthThread(bytes) && seal.beginAhead(),
      into: { stores: [context.storage, ...(context.mirrors ?? [])], server, state },
      index,
      allowEmpty: options.allowEmpty ?? false,
      onWarning,
      hold: quiesce && holdSource,
    })
    let plainBytes = 0
    const compress = createLendingZstdCompress({
      level: options.level,
      frameBytes: options.zstdFrameBytes,
      threads: options.threads,
      onConsumed: opened.ownsChunks ? freeChunk : undefined,
      index({ bytes }) {
        plainBytes = bytes
        return index.finish(headOf(context, id, opened.kind, bytes, opened.summary()))
      },
    })
    const name = { id, kind: opened.kind, encrypted: context.key !== undefined }
    const key = snapshotKey(server, name)
    const sealed = seal.stage(isWorthThread(opened.expectedBytes))
    const meters = metersOf(options, destinations, opened.expectedBytes)
    const transforms = [meters.plain, compress, ...sealed.transforms, meters.stored]
    let sink: Writable
    try {
      sink = destinations.open(key, expectedSize(opened.expectedBytes, opened.expectedEntries), {
        onNotice: (path, message) => onWarning({ kind: 'storage', path, message }),
        journal: attempt?.upload(key),
      })
    } catch (error) {
      opened.stream.destroy()
      for (const stream of transforms) stream.destroy()
      throw error
    }
    try {
      await run(opened.stream, transforms, sink, signal)
    } catch (error) {
      throw destinations.explain(error)
    }
    const summary = opened.summary()
    const { bytes: storedBytes, digest: sha256 } = sealed.totals()
    await attempt?.committed(key, storedBytes, sha256)
    await destinations.complete(key, storedBytes, sha256, signal)
    await hold?.end()
    // Only now: a listener that throws would leave the object without its companion.
    for (const pattern of summary.unused ?? []) onWarning(unusedWarning(pattern, 'the source'))
    const results = destinations.results()
    const version = results[0]?.version
    const { special: _, excluded: __, ...missing } = summary.omissions
    const held = hold?.outcome() ?? null
    return {
      ...name,
      server,
      key,
      created: idTime(id) as Date,
      storedBytes,
      ...(version === undefined ? {} : { version }),
      complete: true,
      pinned: false,
      sha256,
      bytes: plainBytes,
      files: summary.files,
      consistency: summary.consistency,
      omissions: summary.omissions,
      quiesce: held,
      destinations: results,
      takenUp: attempt?.taken() ?? null,
      incomplete:
        Object.values(missing).some((count) => count > 0) ||
        (held !== null && !(held.kept && held.resumed)) ||
        results.some(({ ok }) => !ok),
      elapsedMs: performance.now() - begun,
    }
  } finally {
    // What the streams were not made of.
    seal.discard()
    // At the end of the source it was released already.
    await hold?.end()
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

/** An upper bound of the object's size: what zstd can add to bytes that do not compress, the index and the seal. */
function expectedSize(bytes: number | undefined, entries: number): number | undefined {
  if (bytes === undefined) return undefined
  return sealedSize(Math.ceil(bytes * 1.005) + entries * INDEX_ENTRY_BYTES + INDEX_BASE_BYTES)
}

function metersOf(
  { onProgress }: CreateOptions,
  destinations: Destinations,
  total: number | undefined,
): { plain: Transform; stored: Transform } {
  let storedBytes = 0
  const stored = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      storedBytes += chunk.length
      callback(null, chunk)
    },
  })
  const plain = createMeter({
    total,
    onProgress: (progress) =>
      onProgress?.({ ...progress, storedBytes, destinations: destinations.progress(storedBytes) }),
  })
  return { plain, stored }
}
