import { lstat, unlink } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { StorageError } from './errors.ts'
import { ADAPTER, checkFileKey, Folders, isAbsence, syncFolder, toStorageError, versionOf } from './filesystem-paths.ts'
import { FileReadable } from './filesystem-read.ts'
import { folderNow, Sweeper } from './filesystem-sweep.ts'
import { type FoundFile, walk } from './filesystem-walk.ts'
import { FileWritable } from './filesystem-write.ts'
import { quoteKey } from './keys.ts'
import { isWithin } from './mounts.ts'
import { checkSizes } from './multipart-plan.ts'
import { refuseJournal } from './multipart-taking-up.ts'
import { probeStorage } from './probe.ts'
import { checkRange, readRangeByStream } from './read.ts'
import { throwIfAborted } from './retry.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from './storage.ts'
import { begunUntil, checkAge } from './unfinished.ts'

/** Settings of a folder as a store. */
export interface FilesystemConfig {
  /** The folder that holds the objects. It need not exist: the first write makes it. */
  root: string
  /**
   * A folder that has to be a mount point, of a disk or a share that the root is on: where nothing is mounted there, every
   * call fails with UNAVAILABLE, instead of writing to the disk beneath.
   */
  mountPoint?: string | undefined
}

/**
 * Keeps objects as files in a folder, a key's slashes as folders beneath it.
 *
 * A key is a name of the file system: where that folds case or Unicode forms together, two keys can be one object. One
 * key cannot be another's folder. Beneath the root symbolic links are neither listed nor followed. Files are made with
 * mode 0600 and folders with 0700; folders that an aborted write or a delete leaves empty are removed if this Storage
 * made them. A folder that is written to or deleted from is looked through, once, for temporary files that nobody has
 * written to for a day; they are removed, and `purgeUnfinished` finds those in other folders.
 */
export async function openFilesystem(config: FilesystemConfig): Promise<Storage> {
  if (typeof config.root !== 'string' || config.root === '') {
    const message = 'openFilesystem needs root, the folder that is to hold the objects.'
    throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
  }
  const { root, mountPoint } = config
  if (mountPoint !== undefined && !isWithin(resolve(root), resolve(mountPoint))) {
    const message = `The mount point ${JSON.stringify(mountPoint)} is neither ${root} nor a folder above it.`
    throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
  }
  return new FilesystemStorage(resolve(root), mountPoint === undefined ? undefined : resolve(mountPoint))
}

class FilesystemStorage implements Storage {
  readonly adapter = ADAPTER
  readonly location: string
  readonly conditionalWrites = true
  readonly ownedReads = true
  readonly #folders: Folders
  readonly #sweeper = new Sweeper()

  constructor(root: string, mountPoint: string | undefined) {
    this.location = pathToFileURL(root).href
    this.#folders = new Folders(root, mountPoint)
  }

  createWriteStream(key: string, options: WriteOptions = {}): FileWritable {
    checkFileKey(key, 'createWriteStream')
    refuseJournal(options, { adapter: ADAPTER, key })
    // How large a file may be is for the system to say.
    checkSizes({ maxBytes: Number.MAX_SAFE_INTEGER }, options, { adapter: ADAPTER, key })
    return new FileWritable(this.#folders, this.#sweeper, key, options)
  }

  createReadStream(key: string, options: ReadOptions = {}): FileReadable {
    checkFileKey(key, 'createReadStream')
    checkRange(options, { adapter: ADAPTER, key })
    return new FileReadable(this.#folders, key, options)
  }

  async readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    checkFileKey(key, 'readRange')
    return readRangeByStream(this, key, offset, length, options)
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    checkFileKey(key, 'stat')
    throwIfAborted(options.signal)
    try {
      await this.#folders.check(key)
      const stats = await lstat(this.#folders.pathOf(key), { bigint: true })
      if (stats.isFile()) return objectStat({ key, stats })
    } catch (error) {
      if (!isAbsence(error)) throw toStorageError(error, 'stat', key)
    }
    const message = `There is no object ${quoteKey(key)} in ${this.location}.`
    throw new StorageError(message, { code: 'NOT_FOUND', adapter: ADAPTER, operation: 'stat', key })
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    for await (const file of this.#walk('list', prefix, options)) {
      if (!file.temporary) yield objectStat(file)
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkFileKey(key, 'delete')
    throwIfAborted(options.signal)
    const path = this.#folders.pathOf(key)
    try {
      await this.#folders.check(key)
      if (!(await lstat(path)).isFile()) return
      await unlink(path)
      await syncFolder(dirname(path))
      await this.#sweeper.sweep(dirname(path))
    } catch (error) {
      if (!isAbsence(error)) throw toStorageError(error, 'delete', key)
    }
    await this.#folders.prune(key)
  }

  probe(options: CallOptions = {}): Promise<ProbeReport> {
    // Nobody signs in to a folder: it is there to be written to, or the next steps say why not.
    return probeStorage(this, async () => {}, options)
  }

  async purgeUnfinished(olderThanMs: number, options: CallOptions & { prefix?: string } = {}): Promise<number> {
    checkAge(olderThanMs, ADAPTER)
    let limit = begunUntil(olderThanMs)
    let isTheirs = olderThanMs <= 0
    let purged = 0
    for await (const file of this.#walk('purgeUnfinished', options.prefix ?? '', options)) {
      if (!file.temporary || Number(file.stats.mtimeMs) > limit) continue
      try {
        if (!isTheirs) limit = begunUntil(olderThanMs, await folderNow(dirname(file.path)))
        isTheirs = true
        if (Number(file.stats.mtimeMs) > limit) continue
        await unlink(file.path)
        purged++
      } catch (error) {
        if (!isAbsence(error)) throw toStorageError(error, 'purgeUnfinished', undefined, this.#folders.root)
      }
    }
    return purged
  }

  async close(): Promise<void> {}

  async *#walk(operation: string, prefix: string, options: CallOptions): AsyncGenerator<FoundFile> {
    try {
      await this.#folders.checkMounted()
      yield* walk(this.#folders.root, prefix, options.signal)
    } catch (error) {
      throw toStorageError(error, operation, undefined, this.#folders.root)
    }
  }
}

function objectStat({ key, stats }: Pick<FoundFile, 'key' | 'stats'>): ObjectStat {
  return { key, size: Number(stats.size), modified: new Date(Number(stats.mtimeMs)), version: versionOf(stats) }
}
