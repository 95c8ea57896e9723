import type { Writable } from 'node:stream'
import { StorageError } from '../adapters/errors.ts'
import { abortError, isAbort, PART_RETRY, retry } from '../adapters/retry.ts'
import type { ObjectStat, Storage, UploadJournal } from '../adapters/storage.ts'
import { createFanOut, type FanOut, TransformError } from '../transforms/index.ts'
import { writeCompanion } from './companion.ts'
import { startLimit } from './duration.ts'
import { BackupError } from './errors.ts'
import { END_FACTOR, GuardedSink } from './guarded-sink.ts'
import { acquireLease, LEASE_TTL_MS, type Lease, type LeaseOptions } from './lease.ts'
import { freeChunk } from './pipe.ts'
import { hasCode } from './small-object.ts'

/** Where several destinations are written to, one that takes nothing for so long is dropped. */
export const STALL_MS = 5 * 60_000

/** What became of a snapshot at one destination. */
export interface DestinationResult {
  /** The store's location: a URL without credentials. */
  destination: string
  ok: boolean
  error?: { code?: string; message: string }
  /** The store's name of exactly these bytes, where it has one; see `ObjectStat`. */
  version?: string
}

/** How far a snapshot is at one destination. */
export interface DestinationProgress {
  destination: string
  state: 'writing' | 'finished' | 'failed'
  /** Bytes that its store has taken; it may have up to 48 MiB of them on their way. */
  sentBytes: number
  /** Bytes that wait for it. */
  pendingBytes: number
}

interface SinkOptions {
  expectedSize: number | undefined
  onConsumed: (chunk: Buffer) => void
  onNotice?: ((location: string, message: string) => void) | undefined
  journal?: UploadJournal | undefined
}

interface Destination {
  readonly name: string
  readonly storage: Storage
  lease?: Lease
  sink?: GuardedSink
  version?: string | undefined
  error?: Error
}

/**
 * The stores that one snapshot is written to in one pass. With one, its errors are those of the whole; with several,
 * one that fails is dropped and the others go on.
 */
export class Destinations {
  readonly #all: readonly Destination[]
  readonly #stallMs: number | undefined
  #fanOut: FanOut | undefined

  /**
   * @param stallMs see GuardOptions; STALL_MS when left out and there are several, no limit with one.
   * @throws BackupError USAGE when one location is given twice.
   */
  constructor(storages: readonly Storage[], stallMs: number | undefined) {
    for (const [index, one] of storages.entries()) {
      const isTwice = storages.some(
        (other, at) => at < index && (other === one || (one.adapter !== 'memory' && other.location === one.location)),
      )
      if (isTwice) throw new BackupError('USAGE', `The destination ${one.location} is given twice.`)
    }
    if (stallMs !== undefined && !(stallMs > 0)) throw new BackupError('USAGE', 'stallMs is above 0.')
    this.#all = storages.map((storage, index) => ({ name: `${index + 1} ${storage.location}`, storage }))
    this.#stallMs = stallMs ?? (storages.length > 1 ? STALL_MS : undefined)
  }

  /** The id of the first one's lease; null where none is held. */
  get leaseId(): string | null {
    return this.#all[0]?.lease?.id ?? null
  }

  get #left(): Destination[] {
    return this.#all.filter(({ error }) => error === undefined)
  }

  /** In the order of their locations: two runs that name the same stores in other orders must not refuse each other. */
  async takeLeases(server: string, options: LeaseOptions, signal: AbortSignal | undefined): Promise<void> {
    const { ttlMs = LEASE_TTL_MS, waitMs = 0 } = options
    const inOrder = [...this.#all].sort((a, b) => (a.storage.location < b.storage.location ? -1 : 1))
    for (const one of inOrder) {
      const extraMs = waitMs + 2 * ttlMs
      const take = async (limit: AbortSignal | undefined) => {
        const lease = await acquireLease(one.storage, server, { ...options, signal: limit })
        if (limit?.aborted) await lease.release()
        else one.lease = lease
      }
      await this.#attempt(one, signal, take, { extraMs })
    }
    this.#check()
  }

  /**
   * Opens the stream that writes the object everywhere.
   * @param more.onNotice told a destination's location, and what was lost there and made good.
   * @param more.journal of the upload, where there is one destination.
   * @throws StorageError of the one destination; BackupError DESTINATIONS when none of several is left.
   */
  open(key: string, expectedSize: number | undefined, more: Pick<SinkOptions, 'onNotice' | 'journal'> = {}): Writable {
    const onConsumed = freeWhenAll(this.#left.length)
    for (const one of this.#left) {
      try {
        one.lease?.lost.throwIfAborted()
        const sink = this.#openSink(one, key, { ...more, expectedSize, onConsumed })
        one.lease?.lost.addEventListener('abort', () => sink.destroy(one.lease?.lost.reason))
        one.sink = sink
      } catch (error) {
        this.#fail(one, error as Error)
      }
    }
    this.#check()
    const left = this.#left
    if (this.#all.length === 1) return left[0]!.sink as Writable
    this.#fanOut = createFanOut(left.map(({ name, sink }) => ({ name, stream: sink as Writable })))
    return this.#fanOut
  }

  /** What the run of the stream failed with, as a caller should see it: with several, what each destination said. */
  explain(error: unknown): unknown {
    if (!(error instanceof TransformError && error.code === 'FAN_OUT')) return error
    this.#collect()
    return this.#noneLeft()
  }

  /** The object is there: checks it from outside and writes the companion, at each that is left. */
  async complete(key: string, bytes: number, digest: string, signal: AbortSignal | undefined): Promise<void> {
    this.#collect()
    const step = async (one: Destination, limit: AbortSignal | undefined) => {
      one.version = (await finish(one.storage, key, bytes, digest, limit)).version
    }
    const explain = (error: unknown) => unfinished(key, digest, error)
    await Promise.all(this.#left.map((one) => this.#attempt(one, signal, (limit) => step(one, limit), { explain })))
    this.#check(signal)
  }

  /** @param storedBytes what has come out of the stages before. */
  progress(storedBytes: number): DestinationProgress[] {
    return this.#all.map(({ storage, sink, error }) => {
      const failed = error !== undefined || (sink?.destroyed === true && !sink.writableFinished)
      const sentBytes = sink?.takenBytes ?? 0
      return {
        destination: storage.location,
        state: failed ? 'failed' : sink?.writableFinished ? 'finished' : 'writing',
        sentBytes,
        pendingBytes: failed ? 0 : Math.max(0, storedBytes - sentBytes),
      }
    })
  }

  results(): DestinationResult[] {
    return this.#all.map(({ storage, error, version }) => ({
      destination: storage.location,
      ok: error === undefined,
      ...(error ? { error: describe(error) } : version === undefined ? {} : { version }),
    }))
  }

  /** Gives the leases back. Never rejects. */
  async release(): Promise<void> {
    await Promise.all(this.#all.map(({ lease }) => lease?.release()))
  }

  #openSink(
    { storage, lease }: Destination,
    key: string,
    { expectedSize, onConsumed, onNotice, journal }: SinkOptions,
  ): GuardedSink {
    const { location, adapter } = storage
    return new GuardedSink(
      (consumed) =>
        storage.createWriteStream(key, {
          ...(expectedSize === undefined ? {} : { expectedSize }),
          ...(consumed ? { onConsumed: consumed } : {}),
          ...(journal ? { journal } : {}),
          ...(onNotice ? { onNotice: (message: string) => onNotice(location, message) } : {}),
        }),
      { location, adapter, onConsumed, stallMs: this.#stallMs, beforeCommit: lease && (() => lease.confirm()) },
    )
  }

  /**
   * One step at one destination, within the limit of time. With several, its failure is the destination's own.
   * @param how.explain gives the error that a failure is told as, also where the step has taken too long.
   */
  async #attempt(
    one: Destination,
    signal: AbortSignal | undefined,
    step: (signal: AbortSignal | undefined) => Promise<void>,
    { extraMs = 0, explain = (error) => error }: { extraMs?: number; explain?: (error: unknown) => unknown },
  ): Promise<void> {
    const limit = this.#stallMs === undefined ? undefined : this.#stallMs * END_FACTOR + extraMs
    try {
      await within(limit, one.storage, signal, step)
    } catch (cause) {
      const error = explain(cause)
      const isOwn = error instanceof StorageError || (error instanceof BackupError && error.code !== 'LEASE_HELD')
      if (this.#all.length === 1 || !isOwn) throw error
      this.#fail(one, error)
    }
  }

  #fail(one: Destination, error: Error): void {
    if (this.#all.length === 1) throw error
    one.error ??= error
  }

  #collect(): void {
    for (const { name, state, error } of this.#fanOut?.statuses ?? []) {
      const one = this.#all.find((other) => other.name === name) as Destination
      if (state !== 'finished') one.error ??= error ?? new Error('It was not written to its end.')
    }
  }

  #check(signal?: AbortSignal): void {
    if (this.#left.length === 0) throw this.#noneLeft(signal)
  }

  /** @param signal what may have ended it, where its errors do not say so by themselves. */
  #noneLeft(signal?: AbortSignal): BackupError {
    const said = this.#all.map(({ storage, error }) => `${storage.location}: ${error?.message ?? 'not written'}`)
    return new BackupError(
      'DESTINATIONS',
      `None of the ${said.length} destinations took the snapshot. ${said.join(' ')}`,
      signal?.aborted ? { cause: abortError(signal) } : {},
    )
  }
}

export function describe(error: Error): { code?: string; message: string } {
  const { code } = error as { code?: unknown }
  return { ...(typeof code === 'string' ? { code } : {}), message: error.message }
}

/**
 * The object is there: check it once more from outside, and say so beside it. With the patience of a commit, as there
 * is as much behind it: an adapter gives a small call up within a second where it is refused.
 */
async function finish(
  storage: Storage,
  key: string,
  bytes: number,
  digest: string,
  signal?: AbortSignal,
): Promise<ObjectStat> {
  const stat = await retry(() => storage.stat(key, { signal }), PART_RETRY, { signal })
  if (stat.size !== bytes) {
    throw new BackupError(
      'DAMAGED',
      `The store says that ${key} has ${stat.size} bytes, and ${bytes} were sent. It is left there without a companion.`,
    )
  }
  await retry(() => writeCompanion(storage, key, digest, signal), PART_RETRY, { signal })
  return stat
}

/** Whatever fails once the object is there, or is aborted, has to say that it is; not where the store says otherwise. */
function unfinished(key: string, digest: string, cause: unknown): unknown {
  if (cause instanceof BackupError || hasCode(cause, 'NOT_FOUND')) return cause
  return new BackupError(
    'UNFINISHED',
    `The object ${key} is stored, and its companion could not be written (${(cause as Error).message}). The snapshot counts as unfinished: back up again, or make it complete with \`millrace adopt\`. Its SHA-256 is ${digest}.`,
    { cause },
  )
}

/** Frees a chunk when all have taken it. Once one has failed it never is: the failed one may still be sending it. */
function freeWhenAll(count: number): (chunk: Buffer) => void {
  if (count === 1) return freeChunk
  const left = new WeakMap<Buffer, number>()
  return (chunk) => {
    const others = (left.get(chunk) ?? count) - 1
    left.set(chunk, others)
    if (others === 0) freeChunk(chunk)
  }
}

async function within(
  ms: number | undefined,
  { location, adapter }: Storage,
  signal: AbortSignal | undefined,
  step: (signal: AbortSignal | undefined) => Promise<void>,
): Promise<void> {
  if (ms === undefined) return step(signal)
  const ending = new AbortController()
  const message = `${location} did not answer for ${Math.round(ms / 1000)} seconds, and is not waited for any more.`
  const late = new StorageError(message, { code: 'UNAVAILABLE', adapter, operation: 'call' })
  let stopLimit = () => {}
  const expiry = new Promise<never>((_, reject) => {
    stopLimit = startLimit(ms, () => {
      ending.abort()
      reject(late)
    })
  })
  try {
    await Promise.race([step(AbortSignal.any([ending.signal, ...(signal ? [signal] : [])])), expiry])
  } catch (error) {
    throw ending.signal.aborted && isAbort(error) ? late : error
  } finally {
    stopLimit()
  }
}
