import { randomBytes } from 'node:crypto'
import { type FileHandle, link, lstat, open, rename, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { addAbortSignal, Writable } from 'node:stream'
import { StorageError, type StorageErrorCode, withCleanupError } from './errors.ts'
import {
  ADAPTER,
  errorCode,
  type Folders,
  isFuse,
  syncFolder,
  TEMPORARY_PREFIX,
  toStorageError,
} from './filesystem-paths.ts'
import type { Sweeper } from './filesystem-sweep.ts'
import { quoteKey } from './keys.ts'
import type { WriteOptions } from './storage.ts'

type Callback = (error?: Error | null) => void

/** What file systems say that have no hard links, or not here; rclone's mount says EIO. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'ENOSYS', 'EINVAL', 'EMLINK', 'EXDEV', 'EIO'])

/** Another writer may remove a folder that it made and found empty, just before our file is in it. */
const OPEN_ATTEMPTS = 5

/**
 * Writes a temporary file beside the object, syncs it, then gives it the object's name: by rename, which replaces
 * atomically, or by link, which fails when there is one.
 */
export class FileWritable extends Writable {
  readonly #folders: Folders
  readonly #sweeper: Sweeper
  readonly #key: string
  readonly #path: string
  readonly #temporary: string
  readonly #options: WriteOptions
  #handle: FileHandle | undefined
  #bytes = 0
  /** What destroy waits for: the file handle must not be closed under a write. */
  #busy: Promise<void> = Promise.resolve()
  #touched = false
  #committedIno: bigint | undefined

  constructor(folders: Folders, sweeper: Sweeper, key: string, options: WriteOptions) {
    super({ highWaterMark: 1024 * 1024, decodeStrings: true })
    this.#folders = folders
    this.#sweeper = sweeper
    this.#key = key
    this.#path = folders.pathOf(key)
    this.#temporary = join(dirname(this.#path), TEMPORARY_PREFIX + randomBytes(9).toString('hex'))
    this.#options = options
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.#run(() => this.#append([chunk]), callback)
  }

  override _writev(items: { chunk: Buffer }[], callback: Callback): void {
    this.#run(() => this.#append(items.map((item) => item.chunk)), callback)
  }

  override _final(callback: Callback): void {
    this.#run(() => this.#commit(), callback)
  }

  override _destroy(error: Error | null, callback: Callback): void {
    if (this.writableFinished) {
      callback(error)
      return
    }
    this.#busy
      .then(() => this.#undo())
      .then(
        () => callback(error),
        (cause) => callback(error ? withCleanupError(error, cause) : cause),
      )
  }

  #run(work: () => Promise<void>, callback: Callback): void {
    const running = work().catch((error) => {
      throw toStorageError(error, 'write', this.#key, this.#folders.root)
    })
    this.#busy = running.catch(() => {})
    running.then(() => callback(), callback)
  }

  async #append(chunks: Buffer[]): Promise<void> {
    const { size } = this.#options
    for (const chunk of chunks) this.#bytes += chunk.length
    if (size !== undefined && this.#bytes > size) {
      throw this.#error('INVALID', `was given more than the ${size} bytes that it was to have`)
    }
    this.#handle ??= await this.#openTemporary()
    let rest = chunks.filter((chunk) => chunk.length > 0)
    while (rest.length > 0) {
      const { bytesWritten } = await this.#handle.writev(rest)
      rest = skip(rest, bytesWritten)
    }
    for (const chunk of chunks) this.#options.onConsumed?.(chunk)
  }

  async #openTemporary(): Promise<FileHandle> {
    for (let attempt = 1; ; attempt++) {
      try {
        this.#touched = true
        await this.#folders.make(this.#key)
        const handle = await open(this.#temporary, 'wx', 0o600)
        await this.#sweeper.sweep(dirname(this.#temporary))
        return handle
      } catch (error) {
        if (errorCode(error) !== 'ENOENT' || attempt >= OPEN_ATTEMPTS) throw error
      }
    }
  }

  async #commit(): Promise<void> {
    const { size, ifAbsent } = this.#options
    if (size !== undefined && this.#bytes !== size) {
      throw this.#error('INVALID', `ended after ${this.#bytes} of the ${size} bytes that it was to have`)
    }
    const handle = this.#handle ?? (await this.#openTemporary())
    this.#handle = handle
    await handle.sync()
    const { ino } = await handle.stat({ bigint: true })
    await handle.close()
    this.#handle = undefined
    this.#stopIfDestroyed()
    await (ifAbsent ? this.#linkInPlace() : rename(this.#temporary, this.#path))
    this.#committedIno = ino
    if (ifAbsent) await unlink(this.#temporary)
    await syncFolder(dirname(this.#path))
    const found = await lstat(this.#path, { bigint: true })
    if (found.ino !== ino && !(await isFuse(dirname(this.#path))))
      throw this.#error('CONFLICT', 'was replaced by another writer just after it was stored')
    if (found.size !== BigInt(this.#bytes)) {
      throw this.#error('CORRUPT', `has ${found.size} bytes in the folder, and ${this.#bytes} were written`)
    }
  }

  async #linkInPlace(): Promise<void> {
    try {
      await link(this.#temporary, this.#path)
    } catch (error) {
      if (NO_LINKS.has(errorCode(error) ?? '')) {
        throw this.#error('INVALID', 'needs hard links for ifAbsent, and the file system of the folder has none')
      }
      throw error
    }
  }

  async #undo(): Promise<void> {
    // On a network or FUSE mount it fails as the writes before it did; what is to be removed is there all the same.
    await this.#handle?.close().catch(() => {})
    if (!this.#touched) return
    try {
      await removeFile(this.#temporary)
      if (this.#committedIno !== undefined) await this.#removeOurs(this.#committedIno)
      await this.#folders.prune(this.#key)
    } catch (error) {
      throw toStorageError(error, 'abort', this.#key)
    }
  }

  async #removeOurs(ino: bigint): Promise<void> {
    const found = await lstat(this.#path, { bigint: true }).catch(() => undefined)
    if (found?.ino !== ino) return
    await removeFile(this.#path)
    await syncFolder(dirname(this.#path))
  }

  /** The last moment at which an abort costs nothing: after it, the object has its name. */
  #stopIfDestroyed(): void {
    if (this.destroyed) throw this.#error('UNAVAILABLE', 'was aborted')
  }

  #error(code: StorageErrorCode, what: string): StorageError {
    const message = `The object ${quoteKey(this.#key)} ${what}.`
    return new StorageError(message, {
      code,
      adapter: ADAPTER,
      operation: 'write',
      key: this.#key,
      retryable: false,
    })
  }
}

async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((error) => {
    if (errorCode(error) !== 'ENOENT') throw error
  })
}

/** The buffers that are left once the first `bytes` of them are written: writev may write fewer than all. */
function skip(buffers: Buffer[], bytes: number): Buffer[] {
  let index = 0
  let left = bytes
  while (index < buffers.length && left >= buffers[index]!.length) left -= buffers[index++]!.length
  const rest = buffers.slice(index)
  if (left > 0) rest[0] = rest[0]!.subarray(left)
  return rest
}
