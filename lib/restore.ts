import { createWriteStream } from 'node:fs'
import { chmod, mkdir, utimes } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Storage } from '../adapters/storage.ts'
import {
  composeBytes,
  createHashTee,
  createMeter,
  type IndexHead,
  type Progress,
  type ReadKeys,
} from '../transforms/index.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { applyFolder, extractTar } from './archive/extract.ts'
import type { Snapshot } from './catalog.ts'
import { readCompanion } from './companion.ts'
import { BackupError } from './errors.ts'
import { type OpenObject, openObject } from './open-object.ts'
import { cutArchive, needSeekable } from './partial.ts'
import { freeChunk } from './pipe.ts'
import { selectEntries } from './select.ts'
import { checkTarget, stage } from './staging.ts'

export interface RestoreOptions {
  /**
   * Restore only what these globs select, relative to the folder: fetched by ranges, so that one file costs little
   * more than itself. A folder's name selects all beneath it.
   */
  include?: readonly string[] | undefined
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
  /** Bytes of the archive that were written out. */
  bytes: number
  files: number
  /**
   * Whether the object's SHA-256 was the companion's. A restore of some files does not read the whole object: there it
   * is whether the snapshot is complete; every byte restored was authenticated all the same.
   */
  verified: boolean
  elapsedMs: number
}

/**
 * Restores a snapshot, or some of its files. It is built beside the target and renamed into place when everything has
 * been checked; until then the target is as it was.
 * @throws BackupError TARGET, DAMAGED, MISPLACED, NOT_ENCRYPTED, UNSAFE_ARCHIVE, USAGE; TransformError; StorageError.
 */
export async function restoreSnapshot(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  target: string,
  options: RestoreOptions,
): Promise<Restored> {
  const begun = performance.now()
  const { overwrite = false, allowUnverified, include, signal } = options
  if (!overwrite) await checkTarget(target)
  const digest = await readCompanion(storage, snapshot.key, signal)
  if (digest === null && !allowUnverified) unverified(snapshot, 'has no companion that fits it')
  const object = await openObject(storage, snapshot, { ...options, keys })
  try {
    const restored = await stage(target, overwrite, (path) =>
      include
        ? restoreSome(object, snapshot, include, digest !== null, path, options)
        : restoreAll(object, snapshot, digest, path, options),
    )
    return { id: snapshot.id, target: resolve(target), ...restored, elapsedMs: performance.now() - begun }
  } finally {
    object.close()
  }
}

type Written = Pick<Restored, 'bytes' | 'files' | 'verified'>

async function restoreAll(
  object: OpenObject,
  snapshot: Snapshot,
  digest: string | null,
  path: string,
  options: RestoreOptions,
): Promise<Written> {
  const { head } = object
  const tee = createHashTee()
  const meter = createMeter({ total: object.stat.size, onProgress: options.onProgress ?? (() => {}) })
  const plain = [tee, meter, ...object.transforms()]
  const { bytes, files } = await pump(object.createReadStream(), plain, (stream) =>
    write(stream, snapshot, path, options),
  )
  const same = tee.digest === digest
  if (!same && !options.allowUnverified) unverified(snapshot, 'is not what its companion says')
  if (head && head.bytes !== bytes) {
    throw new BackupError('DAMAGED', `Snapshot ${snapshot.id} says ${head.bytes} bytes, and has ${bytes}.`)
  }
  if (head) await applyHead(path, head)
  return { bytes, files: head?.files ?? files, verified: same }
}

async function restoreSome(
  object: OpenObject,
  snapshot: Snapshot,
  include: readonly string[],
  verified: boolean,
  path: string,
  options: RestoreOptions,
): Promise<Written> {
  const seekable = needSeekable(object, snapshot.id)
  if (snapshot.kind !== 'tar') {
    throw new BackupError('USAGE', `Snapshot ${snapshot.id} is of one file or stream: there is nothing to choose from.`)
  }
  const { entries, files } = await selectEntries(seekable, include)
  const total = entries.reduce((sum, { at, data, size }) => sum + data - at + size, 0)
  const meter = createMeter({ total, onProgress: options.onProgress ?? (() => {}) })
  const { bytes } = await pump(cutArchive(seekable, entries), [meter], (stream) =>
    write(stream, snapshot, path, options),
  )
  return { bytes, files, verified }
}

/** Runs a source through transforms into a consumer, and gives what the consumer gives. */
async function pump<T>(
  source: Readable,
  transforms: readonly Duplex[],
  consume: (stream: Readable) => Promise<T>,
): Promise<T> {
  const plain = composeBytes(transforms)
  const results = await Promise.allSettled([pipeline(source, plain), consume(plain).finally(() => plain.destroy())])
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
  path: string,
  options: RestoreOptions,
): Promise<{ bytes: number; files: number }> {
  const { signal, owners, onWarning } = options
  if (snapshot.kind === 'tar') {
    await mkdir(path, { mode: 0o700 })
    const { archiveBytes, files } = await extractTar(plain, path, { owners, onWarning, signal, onConsumed: freeChunk })
    return { bytes: archiveBytes, files }
  }
  const file = createWriteStream(path, { flags: 'wx', mode: 0o600, flush: true })
  await pipeline(plain, file, { signal })
  return { bytes: file.bytesWritten, files: 1 }
}

/** The mode and time of the folder, or the file, that was backed up. */
async function applyHead(path: string, { kind, mode, mtime }: IndexHead): Promise<void> {
  if (mode === undefined || mtime === undefined) return
  if (kind === 'tar') return applyFolder(path, { mode, mtime })
  await chmod(path, mode & 0o777)
  await utimes(path, mtime / 1000, mtime / 1000)
}

function unverified(snapshot: Snapshot, what: string): never {
  throw new BackupError(
    'DAMAGED',
    `The object of snapshot ${snapshot.id} ${what}. Verify it, use another snapshot, or allow unverified snapshots to restore what authenticates.`,
  )
}
