import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, readdir, rename, rm, utimes } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Storage } from '../adapters/storage.ts'
import { createHashTee, createMeter, type Progress, type ReadKeys } from '../transforms/index.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { applyFolder, extractTar } from './archive/extract.ts'
import type { Snapshot } from './catalog.ts'
import { readCompanion } from './companion.ts'
import { BackupError } from './errors.ts'
import { pathExists } from './key-file.ts'
import { type OpenObject, openObject } from './open-object.ts'
import { compose } from './pipe.ts'

export interface RestoreOptions {
  /** Replace what is at the target; it is removed only when the restored one is whole. */
  overwrite?: boolean | undefined
  /** Take a snapshot whose companion is missing or differs, as long as every frame authenticates. */
  allowUnverified?: boolean | undefined
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  /** Restore numeric owners; when run as root if left out. */
  owners?: boolean | undefined
  onProgress?: ((progress: Progress) => void) | undefined
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface Restored {
  id: string
  target: string
  /** Bytes of the archive. */
  bytes: number
  files: number
  /** Whether the object's SHA-256 was the companion's. */
  verified: boolean
  elapsedMs: number
}

/**
 * Restores a whole snapshot. It is built beside the target and renamed into place when everything has been checked;
 * until then the target is as it was.
 * @throws BackupError TARGET, DAMAGED, MISPLACED, NOT_ENCRYPTED, UNSAFE_ARCHIVE; TransformError; StorageError.
 */
export async function restoreSnapshot(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  target: string,
  options: RestoreOptions,
): Promise<Restored> {
  const begun = performance.now()
  const place = resolve(target)
  await checkTarget(place, options.overwrite ?? false)
  const { signal } = options
  const expected = await readCompanion(storage, snapshot.key, signal)
  if (expected === null && !options.allowUnverified) unverified(snapshot, 'has no companion that fits it')
  const object = await openObject(storage, snapshot, { ...options, keys })
  const staging = join(dirname(place), `.${basename(place)}.millrace-${randomBytes(6).toString('hex')}`)
  try {
    await mkdirp(dirname(place))
    const tee = createHashTee()
    const meter = createMeter({ total: object.stat.size, onProgress: options.onProgress ?? (() => {}) })
    const { bytes, files } = await read(object, [tee, meter], (plain) => write(plain, snapshot, staging, options))
    const same = tee.digest === expected
    if (!same && !options.allowUnverified) unverified(snapshot, 'is not what its companion says')
    checkHead(snapshot, object, bytes)
    const { mode, mtime } = object.head ?? {}
    if (mode !== undefined && mtime !== undefined) {
      if (snapshot.kind === 'tar') await applyFolder(staging, { mode, mtime })
      else await utimes(staging, mtime / 1000, mtime / 1000)
    }
    await swapIn(staging, place)
    return {
      id: snapshot.id,
      target: place,
      bytes,
      files: object.head?.files ?? files,
      verified: same,
      elapsedMs: performance.now() - begun,
    }
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    throw error
  } finally {
    object.close()
  }
}

/** Reads a whole object through its layers. */
async function read<T>(
  object: OpenObject,
  taps: ReturnType<typeof createHashTee | typeof createMeter>[],
  sink: (plain: Readable) => Promise<T>,
): Promise<T> {
  const plain = compose([...taps, ...object.transforms()])
  const results = await Promise.allSettled([
    pipeline(object.createReadStream(), plain),
    sink(plain).finally(() => plain.destroy()),
  ])
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
  // One end that fails takes the other along: what that one says is only an echo.
  if (failures.length > 0) throw failures.find((error) => !isEcho(error)) ?? failures[0]
  return (results[1] as PromiseFulfilledResult<T>).value
}

function isEcho(error: unknown): boolean {
  const { code, name } = error as NodeJS.ErrnoException
  return code === 'ERR_STREAM_PREMATURE_CLOSE' || name === 'AbortError'
}

async function write(
  plain: Readable,
  snapshot: Snapshot,
  staging: string,
  options: RestoreOptions,
): Promise<{ bytes: number; files: number }> {
  const { signal, owners, onWarning } = options
  if (snapshot.kind === 'tar') {
    await mkdir(staging, { mode: 0o700 })
    const { archiveBytes, files } = await extractTar(plain, staging, { owners, onWarning, signal })
    return { bytes: archiveBytes, files }
  }
  const file = createWriteStream(staging, { flags: 'wx', mode: 0o600, flush: true })
  await pipeline(plain, file, { signal })
  return { bytes: file.bytesWritten, files: 1 }
}

function checkHead(snapshot: Snapshot, { head }: OpenObject, bytes: number): void {
  if (head && head.bytes !== bytes) {
    throw new BackupError('DAMAGED', `Snapshot ${snapshot.id} says ${head.bytes} bytes, and has ${bytes}.`)
  }
}

function unverified(snapshot: Snapshot, what: string): never {
  throw new BackupError(
    'DAMAGED',
    `The object of snapshot ${snapshot.id} ${what}. Verify it, use another snapshot, or allow unverified snapshots to restore what authenticates.`,
  )
}

async function mkdirp(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
  } catch (cause) {
    throw new BackupError('TARGET', `The folder ${folder} cannot be made: ${(cause as Error).message}.`, { cause })
  }
}

async function checkTarget(place: string, overwrite: boolean): Promise<void> {
  if (overwrite) return
  let entries: string[]
  try {
    entries = await readdir(place)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return
    if (code === 'ENOTDIR')
      throw new BackupError('TARGET', `The target ${place} is a file. Name a folder that does not exist or is empty.`)
    throw new BackupError('TARGET', `The target ${place} cannot be read: ${(cause as Error).message}.`, { cause })
  }
  if (entries.length > 0) {
    throw new BackupError('TARGET', `The target ${place} is not empty. Name another folder, or ask to overwrite it.`)
  }
}

async function swapIn(staging: string, place: string): Promise<void> {
  const aside = `${staging}.old`
  const there = await pathExists(place)
  try {
    if (there) await rename(place, aside)
    await rename(staging, place)
  } catch (cause) {
    if (there && !(await pathExists(place))) await rename(aside, place)
    throw new BackupError(
      'TARGET',
      `The restored data cannot be put in place at ${place}: ${(cause as Error).message}.`,
      { cause },
    )
  }
  if (there) await rm(aside, { recursive: true, force: true })
}
