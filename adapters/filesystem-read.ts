import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { addAbortSignal, Readable } from 'node:stream'
import { StorageError, type StorageErrorCode } from './errors.ts'
import { ADAPTER, type Folders, isAbsence, isFuse, sizeIn, toStorageError, versionOf } from './filesystem-paths.ts'
import { quoteKey } from './keys.ts'
import type { ReadOptions } from './storage.ts'

/** Each is a turn through the thread pool, where it waits for what is at work there. */
const READ_BYTES = 2 * 1024 * 1024

/** Reads a range of one file, and fails when the file is not, or does not stay, what it was when it was opened. */
export class FileReadable extends Readable {
  readonly #folders: Folders
  readonly #key: string
  readonly #options: ReadOptions
  #handle: FileHandle | undefined
  #version = ''
  #at = 0
  /** One past the last byte. */
  #stop = 0
  #busy: Promise<void> = Promise.resolve()

  constructor(folders: Folders, key: string, options: ReadOptions) {
    super({ highWaterMark: READ_BYTES })
    this.#folders = folders
    this.#key = key
    this.#options = options
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _read(): void {
    this.#busy = this.#readOn().catch((error) => {
      const absent = isAbsence(error) ? this.#error('NOT_FOUND', 'is not there') : undefined
      this.destroy(absent ?? (toStorageError(error, 'read', this.#key) as Error))
    })
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#busy
      .then(() => this.#handle?.close())
      .then(
        () => callback(error),
        (cause) => callback(error ?? cause),
      )
  }

  async #readOn(): Promise<void> {
    const handle = this.#handle ?? (await this.#open())
    const length = Math.min(READ_BYTES, this.#stop - this.#at)
    if (length > 0) {
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafeSlow(length), 0, length, this.#at)
      if (bytesRead === 0) throw this.#error('CORRUPT', 'became shorter while it was read')
      this.#at += bytesRead
      if (this.#at < this.#stop) {
        this.push(buffer.subarray(0, bytesRead))
        return
      }
      await this.#checkUnchanged(handle)
      this.push(buffer.subarray(0, bytesRead))
    }
    this.push(null)
  }

  async #open(): Promise<FileHandle> {
    await this.#folders.check(this.#key)
    const path = this.#folders.pathOf(this.#key)
    // O_NONBLOCK: a named pipe somebody left there must not hold the open for ever.
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    this.#handle = handle
    const stats = await handle.stat({ bigint: true })
    if (!stats.isFile()) throw this.#error('NOT_FOUND', 'is not there: a folder or a device has its name')
    this.#version = versionOf(stats)
    const { start = 0, end = Number.POSITIVE_INFINITY, version } = this.#options
    if (version !== undefined && (await this.#isOther(version))) throw this.#error('CONFLICT', 'was replaced')
    this.#at = start
    this.#stop = Math.min(end + 1, Number(stats.size))
    return handle
  }

  async #checkUnchanged(handle: FileHandle): Promise<void> {
    const version = versionOf(await handle.stat({ bigint: true }))
    if (await this.#isOther(version)) throw this.#error('CONFLICT', 'was written to while it was read')
  }

  async #isOther(version: string): Promise<boolean> {
    if (version === this.#version) return false
    return sizeIn(version) !== sizeIn(this.#version) || !(await isFuse(this.#folders.pathOf(this.#key)))
  }

  #error(code: StorageErrorCode, what: string): StorageError {
    const message = `The object ${quoteKey(this.#key)} ${what}.`
    return new StorageError(message, { code, adapter: ADAPTER, operation: 'read', key: this.#key })
  }
}
