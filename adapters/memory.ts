import { constants } from 'node:buffer'
import { createHash } from 'node:crypto'
import { addAbortSignal, Readable, Writable } from 'node:stream'
import { StorageError, type StorageErrorCode } from './errors.ts'
import { checkKey, quoteKey } from './keys.ts'
import { checkSizes } from './multipart-plan.ts'
import { refuseJournal } from './multipart-taking-up.ts'
import { probeStorage } from './probe.ts'
import { checkExtent, checkRange, rangePastEnd } from './read.ts'
import { throwIfAborted } from './retry.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from './storage.ts'
import { checkAge } from './unfinished.ts'

const ADAPTER = 'memory'
const READ_BYTES = 256 * 1024

interface MemoryObject {
  bytes: Buffer
  modified: Date
  version: string
}

type Objects = Map<string, MemoryObject>

/** Keeps objects in this process's memory, with every guarantee of a Storage, for tests. */
export async function openMemory(): Promise<Storage> {
  return new MemoryStorage()
}

class MemoryStorage implements Storage {
  readonly adapter = ADAPTER
  readonly location = 'memory:'
  readonly conditionalWrites = true
  readonly #objects: Objects = new Map()

  createWriteStream(key: string, options: WriteOptions = {}): Writable {
    checkKey(key, ADAPTER, 'createWriteStream')
    refuseJournal(options, { adapter: ADAPTER, key })
    checkSizes({ maxBytes: constants.MAX_LENGTH }, options, { adapter: ADAPTER, key })
    return new MemoryWritable(this.#objects, key, options)
  }

  createReadStream(key: string, options: ReadOptions = {}): Readable {
    checkKey(key, ADAPTER, 'createReadStream')
    checkRange(options, { adapter: ADAPTER, key })
    const source = this.#chunks(key, options)
    const stream = Readable.from(source, { objectMode: false, highWaterMark: READ_BYTES })
    return options.signal ? addAbortSignal(options.signal, stream) : stream
  }

  async readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    checkKey(key, ADAPTER, 'readRange')
    checkExtent(offset, length, { adapter: ADAPTER, key })
    throwIfAborted(options.signal)
    const { bytes } = this.#get(key, 'readRange', options.version)
    if (offset + length > bytes.length) throw rangePastEnd({ adapter: ADAPTER, key })
    return Buffer.from(bytes.subarray(offset, offset + length))
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    checkKey(key, ADAPTER, 'stat')
    throwIfAborted(options.signal)
    return statOf(key, this.#get(key, 'stat', undefined))
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    // A copy: the map itself goes on to give what others add meanwhile, for as long as they add.
    for (const [key, object] of [...this.#objects]) {
      throwIfAborted(options.signal)
      if (key.startsWith(prefix)) yield statOf(key, object)
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkKey(key, ADAPTER, 'delete')
    throwIfAborted(options.signal)
    this.#objects.delete(key)
  }

  probe(options: CallOptions = {}): Promise<ProbeReport> {
    return probeStorage(this, async () => {}, options)
  }

  async purgeUnfinished(olderThanMs: number, options: CallOptions = {}): Promise<number> {
    checkAge(olderThanMs, ADAPTER)
    throwIfAborted(options.signal)
    return 0
  }

  async close(): Promise<void> {
    this.#objects.clear()
  }

  async *#chunks(key: string, options: ReadOptions): AsyncGenerator<Buffer> {
    const { bytes } = this.#get(key, 'read', options.version)
    const { start = 0, end = Number.POSITIVE_INFINITY } = options
    const stop = Math.min(end + 1, bytes.length)
    for (let at = start; at < stop; at += READ_BYTES) {
      // A copy: the reader may change what it is given.
      yield Buffer.from(bytes.subarray(at, Math.min(at + READ_BYTES, stop)))
    }
  }

  #get(key: string, operation: string, version: string | undefined): MemoryObject {
    const object = this.#objects.get(key)
    if (!object) throw failure('NOT_FOUND', operation, key, 'is not there')
    if (version !== undefined && version !== object.version) throw failure('CONFLICT', operation, key, 'was replaced')
    return object
  }
}

class MemoryWritable extends Writable {
  readonly #objects: Objects
  readonly #key: string
  readonly #options: WriteOptions
  readonly #chunks: Buffer[] = []
  #bytes = 0
  #stored: MemoryObject | undefined

  constructor(objects: Objects, key: string, options: WriteOptions) {
    super({ decodeStrings: true })
    this.#objects = objects
    this.#key = key
    this.#options = options
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#bytes += chunk.length
    const { size } = this.#options
    if (size !== undefined && this.#bytes > size) {
      callback(failure('INVALID', 'write', this.#key, `was given more than the ${size} bytes that it was to have`))
      return
    }
    this.#chunks.push(Buffer.from(chunk))
    callback()
  }

  override _final(callback: (error?: Error | null) => void): void {
    const { size, ifAbsent } = this.#options
    if (size !== undefined && this.#bytes !== size) {
      const what = `ended after ${this.#bytes} of the ${size} bytes that it was to have`
      callback(failure('INVALID', 'write', this.#key, what))
      return
    }
    if (ifAbsent && this.#objects.has(this.#key)) {
      callback(failure('CONFLICT', 'write', this.#key, 'is there already'))
      return
    }
    this.#stored = { bytes: Buffer.concat(this.#chunks), modified: new Date(), version: crypto.randomUUID() }
    this.#objects.set(this.#key, this.#stored)
    callback()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#chunks.length = 0
    const isOurs = this.#stored !== undefined && this.#objects.get(this.#key) === this.#stored
    if (!this.writableFinished && isOurs) this.#objects.delete(this.#key)
    callback(error)
  }
}

function statOf(key: string, { bytes, modified, version }: MemoryObject): ObjectStat {
  const checksum = { algorithm: 'md5', value: createHash('md5').update(bytes).digest('hex') }
  return { key, size: bytes.length, modified, version, checksum }
}

function failure(code: StorageErrorCode, operation: string, key: string, what: string): StorageError {
  return new StorageError(`The object ${quoteKey(key)} ${what}.`, { code, adapter: ADAPTER, operation, key })
}
