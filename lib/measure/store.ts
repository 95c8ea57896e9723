import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { readWhole } from '../open-object.ts'
import { run } from '../pipe.ts'
import { type Rate, type StoreFacts, speedOf, type UploadFact } from './facts.ts'
import { type PartsNow, type Pass, partsOf, planPasses } from './parts.ts'
import { isHeldBack } from './predict.ts'
import { Noise } from './sample.ts'
import type { StageOptions } from './stages.ts'
import { after, Stopwatch, timed } from './timed.ts'

const MIB = 1024 * 1024
/** The first object of a connection, which pays for the sign-in. */
const FIRST_BYTES = MIB / 4
/** Objects that are tried first are each so many times larger, until one takes its share of the time. */
const TRIAL_GROWTH = 4
const TRIAL_TIME = 1 / 3
/** What trials may take of all that may be sent. */
const TRIAL_SHARE = 1 / 8
const CHUNK_BYTES = 512 * 1024

/** A store that is measured. */
export interface BenchStore {
  /** Opens it; with parts of at least `partBytes`, else as it is set up. */
  open(partBytes?: number): Promise<Storage>
  kind: 'folder' | 'remote'
  /** undefined: it has no parts. */
  parts: PartsNow | undefined
  bandwidth: number | undefined
  /** The folder on this machine, where it is one. */
  root: string | undefined
  /** What scratch keys begin with: nothing, or a server's name and a slash. */
  prefix: string
}

/** Limits of what is sent, and who is told. */
export interface StoreOptions extends StageOptions {
  /** Bytes that are sent at most, all objects together. */
  bytes: number
  /** Told which of them it is. */
  onStage?: ((stage: 'upload' | 'download') => void) | undefined
}

/**
 * Writes random bytes to scratch objects and reads one of them back. Each object is removed before the next is written,
 * and when anything fails.
 * @throws StorageError, AbortError; a StorageError that names the object where it could not be removed.
 */
export async function measureStore(store: BenchStore, options: StoreOptions): Promise<StoreFacts> {
  const { bytes: budget, seconds, signal } = options
  const bench = new StoreBench(store, options)
  try {
    const rate = await bench.trials(budget * TRIAL_SHARE)
    const left = budget - bench.sentBytes
    // What the first object of each further connection takes.
    const reserve = Math.min(left / 16, 4 * FIRST_BYTES)
    const isHeld = isHeldBack(rate, store.bandwidth)
    const plan = planPasses(isHeld ? undefined : store.parts, { budget: left - reserve, rate, seconds })
    const { passes } = plan
    const notCompared =
      isHeld && store.parts ? 'the bandwidth of the config holds it back at any size.' : plan.notCompared
    const now = store.parts && partsOf(store.parts)
    const uploads: UploadFact[] = []
    let download: Rate | null = null
    for (const [at, pass] of passes.entries()) {
      const parts = store.parts && partsOf(store.parts, pass.partBytes)
      const isLast = at === passes.length - 1
      const { written, read } = await bench.pass(pass, isLast)
      uploads.push({ ...written, partBytes: parts?.bytes ?? null, inFlight: parts?.inFlight ?? null })
      if (read) download = read
      signal?.throwIfAborted()
    }
    return {
      destination: bench.location,
      kind: store.kind,
      partBytes: now?.bytes ?? null,
      uploads,
      notCompared,
      download,
      bandwidth: store.bandwidth ?? null,
      sentBytes: bench.sentBytes,
    }
  } finally {
    await bench.close()
  }
}

class StoreBench {
  readonly #store: BenchStore
  readonly #options: StoreOptions
  readonly #noise = new Noise()
  readonly #base = `.millrace-bench-${randomBytes(6).toString('hex')}`
  readonly #open = new Map<number | undefined, Storage>()
  #objects = 0
  sentBytes = 0
  location = ''

  constructor(store: BenchStore, options: StoreOptions) {
    this.#store = store
    this.#options = options
  }

  /** Finds out about how many bytes a second the store takes, so that the time of what follows can be planned. */
  async trials(most: number): Promise<number> {
    let rate = 0
    for (let bytes = Math.min(FIRST_BYTES, most); bytes <= most; bytes *= TRIAL_GROWTH) {
      const { written } = await this.pass({ partBytes: undefined, bytes: Math.max(1, Math.floor(bytes)) }, false)
      rate = speedOf(written)
      if (written.seconds > TRIAL_TIME * this.#options.seconds) break
    }
    return rate
  }

  /** Writes one object, reads it where that is asked for, and removes it. */
  async pass({ partBytes, bytes }: Pass, isRead: boolean): Promise<{ written: Rate; read: Rate | null }> {
    const isNew = !this.#open.has(partBytes)
    const storage = await this.#storage(partBytes)
    if (isNew) await this.pass({ partBytes, bytes: Math.min(FIRST_BYTES, bytes) }, false)
    const key = `${this.#store.prefix}${this.#base}-${this.#objects++}`
    return withScratch(storage, key, async () => {
      const written = await this.#write(storage, key, bytes)
      return { written, read: isRead ? await this.#read(storage, key) : null }
    })
  }

  async close(): Promise<void> {
    for (const storage of this.#open.values()) await storage.close()
  }

  async #storage(partBytes: number | undefined): Promise<Storage> {
    const known = this.#open.get(partBytes)
    if (known) return known
    const storage = await this.#store.open(partBytes)
    this.#open.set(partBytes, storage)
    this.location = storage.location
    return storage
  }

  async #write(storage: Storage, key: string, bytes: number): Promise<Rate> {
    const { signal, onBytes, onStage } = this.#options
    onStage?.('upload')
    const before = this.sentBytes
    const counted = function* (this: StoreBench) {
      for (const chunk of this.#noise.chunks(bytes)) {
        this.sentBytes += chunk.length
        onBytes?.(this.sentBytes - before)
        yield chunk
      }
    }
    const source = Readable.from(counted.call(this), { objectMode: false, highWaterMark: CHUNK_BYTES })
    // The parts are to be those of a backup, not of an object of this size.
    const expectedSize = Math.max(bytes, this.#store.parts?.expectedSize ?? 0)
    const sink = storage.createWriteStream(key, { expectedSize })
    const watch = new Stopwatch()
    await run(source, [], sink, signal)
    return watch.read(bytes)
  }

  async #read(storage: Storage, key: string): Promise<Rate> {
    const { seconds, signal, onBytes, onStage } = this.#options
    onStage?.('download')
    const stat = await storage.stat(key, signal ? { signal } : {})
    const onChunk = storage.ownedReads ? undefined : () => {}
    const how = { isDone: after(seconds), onChunk, onBytes, signal }
    const { storedBytes: _, ...rate } = await timed(readWhole(storage, stat, signal), [], how)
    return rate
  }
}

/** Removes the object whatever happens, and when the signal has come as well. */
async function withScratch<T>(storage: Storage, key: string, work: () => Promise<T>): Promise<T> {
  let failure: Error | undefined
  try {
    return await work()
  } catch (error) {
    failure = error as Error
    throw error
  } finally {
    await remove(storage, key, failure)
  }
}

async function remove(storage: Storage, key: string, failure: Error | undefined): Promise<void> {
  try {
    await (storage.erase ? storage.erase(key) : storage.delete(key))
  } catch (cause) {
    const { code = 'UNAVAILABLE' } = cause as Partial<StorageError>
    const before = failure ? `${failure.message} Then the` : 'The'
    const message = `${before} scratch object ${JSON.stringify(key)} in ${storage.location} could not be removed: ${(cause as Error).message} It is of no use: remove it by hand.`
    throw new StorageError(message, { code, adapter: storage.adapter, operation: 'delete', key, cause })
  }
}
