import { chown, stat } from 'node:fs/promises'
import { StorageError } from '../adapters/errors.ts'
import type { Storage } from '../adapters/storage.ts'
import { type IndexHead, type Progress, type ReadKeys, TransformError } from '../transforms/index.ts'
import { applyFile, applyFolder, ifHad } from './archive/attributes.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { loadExtract } from './archive/extract.ts'
import { defaultPortableNames, namePolicy, type PortableNames } from './archive/portable-names.ts'
import { newMode, type Owner } from './archive/rights.ts'
import { Shortfalls } from './archive/shortfalls.ts'
import { type Build, type Built, buildTree, contentBytes, unverified } from './building.ts'
import type { Snapshot } from './catalog.ts'
import { readCompanion } from './companion.ts'
import { BackupError } from './errors.ts'
import { checkMerge } from './merging.ts'
import { type OpenObject, openObject } from './open-object.ts'
import { needSeekable } from './partial.ts'
import { checkOverwrite, checkTarget, findPlace, isThere, makeAround, type Place } from './place.ts'
import { finishPlacing, type PlaceMode, putInPlace } from './placing.ts'
import { selectEntries, unusedWarning } from './select.ts'
import { checkSpace, isFullDisk } from './space.ts'
import { type Job, newStaging, type Staging, syncFolder, takeOver } from './staging.ts'

/** What may be restored again after a machine that stopped, at most, beside the file it was at. */
const CHECKPOINT_BYTES = 256 * 1024 * 1024

/** What is restored, and how. */
export interface RestoreOptions {
  /**
   * Restore only what these globs select, relative to the folder: fetched by ranges, so that one file costs little
   * more than itself. A folder's name selects all beneath it.
   */
  include?: readonly string[] | undefined
  /** Replace what is at the target; it is removed only when the restored one is whole. */
  overwrite?: boolean | undefined
  /**
   * Restore into a folder that stands: the snapshot's files replace those of their names, each by one rename, and
   * others stay. What is of another type there is refused, unless `overwrite` is given too.
   */
  merge?: boolean | undefined
  /** false: an interrupted restore to this target is not gone on with, but removed. Default true. */
  resume?: boolean | undefined
  /** false: do not ask the file system for room first. Default true. */
  spaceCheck?: boolean | undefined
  /** Take a snapshot whose companion is missing or differs, as long as every frame authenticates. */
  allowUnverified?: boolean | undefined
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  /** Restore numeric owners; when run as root if left out. An owner that is given becomes everything's. */
  owners?: boolean | Owner | undefined
  /** false: files and folders get the modes that new ones get. Default true. */
  modes?: boolean | undefined
  /** Names that Windows cannot hold; refused on Windows, kept elsewhere, if left out. */
  portableNames?: PortableNames | undefined
  /** Bytes between two points that an interrupted restore goes on from. Default 256 MiB. */
  checkpointBytes?: number | undefined
  /** Told how far it is. */
  onProgress?: ((progress: Progress) => void) | undefined
  /** Told of what could not be restored as it was. */
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
  /**
   * Files and folders that must outlive it, such as the file with the key: a target that holds one is not overwritten.
   * The stores are among them anyway.
   */
  keep?: readonly string[] | undefined
  /** Called when the restore failed and left what can be gone on with, with that folder. */
  onKept?: ((folder: string) => void) | undefined
  signal?: AbortSignal | undefined
}

/** How one copy of a snapshot is restored. */
interface OneCopyOptions extends RestoreOptions {
  /** false: where this one fails, another copy goes on with what came of it. */
  isLastCopy?: boolean
}

/** What a restore has done. */
export interface Restored {
  id: string
  target: string
  /** Bytes of the archive that were written out. */
  bytes: number
  files: number
  /** Whether it went on with what an interrupted restore had left. */
  resumed: boolean
  /**
   * Whether the object's SHA-256 was the companion's. A restore of some files, or one that was resumed, does not read
   * the whole object: there it is whether the snapshot is complete; every byte restored was authenticated all the same.
   */
  verified: boolean
  elapsedMs: number
}

/**
 * Restores a snapshot, or some of its files. It is built beside the target (inside it, where it is a mount point or
 * its parent cannot be written), brought onto the disk and put in place when everything has been checked; until then
 * the target is as it was. What an interrupted restore of the same left is gone on with, what others left at the
 * target is removed.
 * @throws BackupError TARGET, DAMAGED, MISPLACED, NOT_ENCRYPTED, UNSAFE_ARCHIVE, USAGE; TransformError; StorageError.
 */
export async function restoreSnapshot(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  target: string,
  options: OneCopyOptions,
): Promise<Restored> {
  const begun = performance.now()
  const { allowUnverified = false, signal } = options
  const place = await findPlace(target)
  if (options.overwrite && !options.merge) await checkOverwrite(place)
  const found = await takeOver(place)
  try {
    const finished: Job[] = []
    for (const one of found) if (await finishPlacing(one, place)) finished.push(one.record.job)
    const mode = await modeOf(place, snapshot, options)
    if (mode === 'new' && finished.length === 0) await checkTarget(place)
    // While the companion is read and the keys are derived. What is wrong with it shows where it is used.
    if (snapshot.kind === 'tar') loadExtract().catch(() => {})
    const digest = await readCompanion(storage, snapshot.key, signal)
    if (digest === null && !allowUnverified) unverified(snapshot, 'has no companion that fits it')
    const object = await openObject(storage, snapshot, { ...options, keys, whole: !options.include })
    try {
      const job = jobOf(object, snapshot, options)
      const result = { id: snapshot.id, target: place.path }
      const elapsed = () => performance.now() - begun
      if (object.head && finished.some((one) => isSame(one, job))) {
        const { bytes, files } = object.head
        return { ...result, bytes, files, resumed: true, verified: digest !== null, elapsedMs: elapsed() }
      }
      if (mode === 'new') await checkTarget(place)
      const build = await prepare(object, snapshot, digest, options)
      const staging = await pick(found, place, job, options)
      const resumed = staging.record.mark > 0
      const built = await work(build, staging, place, mode, options)
      return { ...result, ...built, resumed, elapsedMs: elapsed() }
    } finally {
      object.close()
    }
  } catch (error) {
    for (const one of found) if (await canGoOn(one, snapshot)) options.onKept?.(one.path)
    throw error
  } finally {
    for (const one of found) one.release()
  }
}

/** Whether what is there was restored of this snapshot, and may be gone on with. */
async function canGoOn({ path, record: { job, mark } }: Staging, { key }: Snapshot): Promise<boolean> {
  return (
    mark > 0 && (job.object as { key?: string } | undefined)?.key === key && (await isThere(path).catch(() => false))
  )
}

async function modeOf(place: Place, snapshot: Snapshot, { merge, overwrite }: RestoreOptions): Promise<PlaceMode> {
  if (!merge) return overwrite ? 'overwrite' : 'new'
  if (snapshot.kind === 'raw') {
    throw new BackupError('USAGE', `Snapshot ${snapshot.id} is of one file: there is nothing to merge. Overwrite it.`)
  }
  if (!(await isThere(place.path))) return 'new'
  if ((await stat(place.path)).isDirectory()) return 'merge'
  throw new BackupError('TARGET', `The target ${place.path} is a file: a folder cannot be merged into it.`)
}

/** What a restore writes: two of the same write the same tree. */
function jobOf({ stat, sealed }: OpenObject, { key }: Snapshot, options: RestoreOptions): Job {
  const { include, owners, modes, portableNames, merge, overwrite } = options
  const { size, version = null, modified } = stat
  return {
    // A sealed one is known by its header, which is its own and what every frame of it is bound to: in any store.
    object: sealed ? { key, size } : { key, size, version, modified },
    header: sealed ? sealed.header.mac.toString('hex') : null,
    include: include ?? null,
    owners: owners ?? process.getuid?.() === 0,
    modes: modes ?? true,
    names: portableNames ?? defaultPortableNames(),
    merge: merge ?? false,
    overwrite: overwrite ?? false,
  }
}

/** Whether the trees of two jobs are one; how they come to their place is another matter. */
function isSame(one: Job, two: Job): boolean {
  const tree = ({ merge: _, overwrite: __, ...rest }: Job) => JSON.stringify(rest)
  return tree(one) === tree(two)
}

async function prepare(
  object: OpenObject,
  snapshot: Snapshot,
  digest: string | null,
  options: RestoreOptions,
): Promise<Build> {
  const { include, owners, modes, portableNames = defaultPortableNames(), onWarning, signal } = options
  if (include && snapshot.kind !== 'tar') {
    throw new BackupError('USAGE', `Snapshot ${snapshot.id} is of one file or stream: there is nothing to choose from.`)
  }
  const selected = include && (await selectEntries(needSeekable(object, snapshot.id), include))
  for (const pattern of selected?.unused ?? []) onWarning?.(unusedWarning(pattern, 'the snapshot'))
  return {
    ...{ object, snapshot, digest, owners, modes, onWarning, signal },
    selected,
    mapPath: namePolicy(portableNames),
    allowUnverified: options.allowUnverified ?? false,
    // Read by ranges, nothing vouches for what is not encrypted: only its SHA-256 does, which takes all of it.
    resumable: object.sealed !== undefined && object.seekable !== null && object.head !== null,
    checkpointBytes: options.checkpointBytes ?? CHECKPOINT_BYTES,
    onProgress: options.onProgress ?? (() => {}),
  }
}

/** The staging folder to go on with, or a new one; the others are removed. */
async function pick(found: Staging[], place: Place, job: Job, { resume = true }: RestoreOptions): Promise<Staging> {
  let best: Staging | undefined
  for (const one of found) {
    const { phase, mark } = one.record
    if (!(await isThere(one.path))) continue
    const merging = phase === 'merging' && job.merge === true
    const usable = resume && isSame(one.record.job, job) && (merging || (mark > 0 && phase === 'building'))
    const better = usable && (phase === 'merging' || !best || best.record.mark < mark)
    if (better && best?.record.phase !== 'merging') {
      await best?.discard()
      best = one
    } else {
      await one.discard()
    }
  }
  if (!best) {
    const staging = await newStaging(place, job)
    found.push(staging)
    return staging
  }
  await best.note({ job })
  return best
}

async function work(
  build: Build,
  staging: Staging,
  place: Place,
  mode: PlaceMode,
  options: OneCopyOptions,
): Promise<Built> {
  try {
    const built = staging.record.phase === 'merging' ? wholeOf(build) : await fill(build, staging, place, mode, options)
    const head = options.include ? null : build.object.head
    await putInPlace(staging, place, mode, head && build.modes !== false ? rootOf(head) : undefined)
    return built
  } catch (error) {
    // The disk itself may be gone: what is told then is why, and not that it cannot be looked at.
    const kept = await isWorthKeeping(error, staging, build, options).catch(() => undefined)
    if (kept === false) await staging.discard().catch(() => {})
    staging.release()
    // Where it is in place, what is left is what it replaced.
    if (kept && (await isThere(staging.tree).catch(() => true))) options.onKept?.(staging.path)
    throw isFullDisk(error) ? noRoom(error as Error, place) : error
  }
}

/** Says of a full disk which one it is: what is written beneath it is named by its path in the archive. */
function noRoom({ message, cause }: Error, { around }: Place): BackupError {
  const advice = `Make room at ${around}, or name another target.`
  return new BackupError('TARGET', `${message.replace(/\.?$/, '.')} ${advice}`, { cause })
}

/** A merge that had begun has its tree whole, or what is left of it. */
function wholeOf({ selected, object, digest }: Build): Built {
  const { bytes = 0, files = 0 } = object.head ?? {}
  const verified = digest !== null
  return selected
    ? { bytes: contentBytes(selected.entries), files: selected.files, verified }
    : { bytes, files, verified }
}

async function fill(
  build: Build,
  staging: Staging,
  place: Place,
  mode: PlaceMode,
  options: RestoreOptions,
): Promise<Built> {
  const { object, selected, snapshot } = build
  if (mode === 'merge' && !options.overwrite && object.seekable && object.head) {
    await checkMerge(place, mapped(build, selected?.entries ?? object.seekable.entries()))
  }
  if (options.spaceCheck !== false && object.head) {
    await makeAround(place)
    const { bytes, files } = object.head
    const needed = selected
      ? { bytes: contentBytes(selected.entries), files: selected.files }
      : { bytes: bytes - staging.record.mark, files: staging.record.mark > 0 ? undefined : files }
    await checkSpace(place.around, needed)
  }
  const built = await buildTree(build, staging)
  if (object.head && !options.include) await applyHead(staging.tree, object.head, options)
  if (snapshot.kind === 'tar') await syncFolder(staging.tree)
  return built
}

async function* mapped(
  { mapPath }: Build,
  entries: AsyncIterable<{ path: string; type: string }> | Iterable<{ path: string; type: string }>,
): AsyncGenerator<{ path: string; type: string }> {
  for await (const { path, type } of entries) yield { path: mapPath(path), type }
}

/**
 * What was cut off is worth keeping, what is wrong is not; and never is anything removed that was moved out of the
 * target.
 */
async function isWorthKeeping(
  error: unknown,
  { record, old }: Staging,
  { resumable }: Build,
  { isLastCopy = true }: OneCopyOptions,
): Promise<boolean> {
  if (await isThere(old)) return true
  if (record.phase !== 'building') return record.phase === 'merging'
  if (!resumable || record.mark === 0) return false
  if ((error as Error).name === 'AbortError') return true
  // What came before was authenticated, and another copy goes on from there.
  if (!isLastCopy && (error instanceof StorageError || error instanceof TransformError)) return true
  return error instanceof StorageError && !['CORRUPT', 'CONFLICT', 'NOT_FOUND', 'INVALID'].includes(error.code)
}

function rootOf({ mode, mtime }: IndexHead): { mode: number; mtime: number } | undefined {
  return mode === undefined || mtime === undefined ? undefined : { mode, mtime }
}

/** The owner that was asked for, and the mode and time, of the folder or file that was backed up. */
async function applyHead(path: string, head: IndexHead, { owners, modes, onWarning }: RestoreOptions): Promise<void> {
  if (typeof owners === 'object') await ifHad(chown(path, owners.uid, owners.gid))
  const { kind } = head
  const root = rootOf(head)
  if (!root) return
  const mode = modes === false ? newMode(kind === 'tar' ? 'dir' : 'file') : root.mode
  if (kind === 'tar') return applyFolder(path, { ...root, mode })
  const shortfalls = new Shortfalls(onWarning)
  shortfalls.note(head.id, await applyFile(path, { ...root, mode }, modes !== false))
  shortfalls.report()
}
