import type { Readable, Writable } from 'node:stream'
import { StorageError, type StorageErrorCode } from '../errors.ts'
import { isAbort, type RetryClock, systemClock } from '../retry.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from '../storage.ts'
import { ForwardingReadable, ForwardingWritable } from './forwarding.ts'
import { StorageLayer } from './layer.ts'

/** One operation that is over. It holds no secret, and no message of an error. */
export interface StorageEvent {
  operation:
    | 'createWriteStream'
    | 'createReadStream'
    | 'readRange'
    | 'stat'
    | 'list'
    | 'delete'
    | 'probe'
    | 'purgeUnfinished'
    | 'discardUpload'
  /** The key; of `list` and `purgeUnfinished` the prefix; of `probe` an empty one. */
  key: string
  /** Bytes that were written or read, also of an operation that failed; 0 for what moves none. */
  bytes: number
  /** From the call, or from the first object asked for of a listing, to the end of it. */
  ms: number
  /** Always 1: what is tried again beneath is one operation here, and above it each attempt is one. */
  attempt: 1
  /** `aborted`: by a signal, or because the caller ended a stream or a listing before its end. */
  outcome: 'ok' | 'error' | 'aborted'
  /** Of the StorageError that it failed with; of `probe`, of the first step that failed. */
  code?: StorageErrorCode
}

/**
 * Tells of every operation on a storage when it is over: of a stream at its `close`, of a listing when it was read or
 * left. A stream or listing that is never ended is never told of. `probe` is one operation; `close` is none.
 * @param onEvent called once for each. What it throws, or rejects with, is dropped.
 * @param clock time in ms, for tests.
 * @returns a Storage over the same objects; closing it closes the one beneath.
 */
export function withObserver(
  storage: Storage,
  onEvent: (event: StorageEvent) => void,
  clock: Pick<RetryClock, 'now'> = systemClock,
): Storage {
  return new ObservedStorage(storage, onEvent, clock)
}

class ObservedStorage extends StorageLayer {
  readonly #onEvent: (event: StorageEvent) => void
  readonly #clock: Pick<RetryClock, 'now'>

  constructor(inner: Storage, onEvent: (event: StorageEvent) => void, clock: Pick<RetryClock, 'now'>) {
    super(inner)
    this.#onEvent = onEvent
    this.#clock = clock
  }

  override createWriteStream(key: string, options: WriteOptions = {}): Writable {
    const { signal, onConsumed, ...rest } = options
    const watch = this.#watch('createWriteStream', key)
    const stream = watch.opening(
      () =>
        new ForwardingWritable(
          (told) => this.inner.createWriteStream(key, told ? { ...rest, onConsumed: told } : rest),
          { signal, onConsumed, adapter: this.adapter, onBytes: watch.count },
        ),
    )
    return stream.once('close', () => watch.ended(stream.writableFinished, stream.errored))
  }

  override createReadStream(key: string, options: ReadOptions = {}): Readable {
    const { signal, ...rest } = options
    const watch = this.#watch('createReadStream', key)
    const stream = watch.opening(
      () =>
        new ForwardingReadable(this.inner.createReadStream(key, rest), {
          signal,
          adapter: this.adapter,
          onBytes: watch.count,
        }),
    )
    return stream.once('close', () => watch.ended(stream.readableEnded, stream.errored))
  }

  override readRange(
    key: string,
    offset: number,
    length: number,
    options?: CallOptions & { version?: string },
  ): Promise<Buffer> {
    const watch = this.#watch('readRange', key)
    return watch.call(async () => {
      const bytes = await this.inner.readRange(key, offset, length, options)
      watch.count(bytes.length)
      return bytes
    })
  }

  override stat(key: string, options?: CallOptions): Promise<ObjectStat> {
    return this.#watch('stat', key).call(() => this.inner.stat(key, options))
  }

  override async *list(prefix: string, options?: CallOptions): AsyncGenerator<ObjectStat> {
    const watch = this.#watch('list', prefix)
    let read = false
    let failure: unknown
    try {
      yield* this.inner.list(prefix, options)
      read = true
    } catch (error) {
      failure = error
      throw error
    } finally {
      watch.ended(read, failure)
    }
  }

  override delete(key: string, options?: CallOptions): Promise<void> {
    return this.#watch('delete', key).call(() => this.inner.delete(key, options))
  }

  override async probe(options?: CallOptions): Promise<ProbeReport> {
    const watch = this.#watch('probe', '')
    try {
      const report = await this.inner.probe(options)
      watch.ended(report.ok, report.steps.find((step) => !step.ok)?.error ?? new Error('A step failed'))
      return report
    } catch (error) {
      watch.ended(false, error)
      throw error
    }
  }

  protected override purge(olderThanMs: number, options?: CallOptions & { prefix?: string }): Promise<number> {
    return this.#watch('purgeUnfinished', options?.prefix ?? '').call(() => super.purge(olderThanMs, options))
  }

  protected override discard(key: string, upload: string, options?: CallOptions): Promise<void> {
    return this.#watch('discardUpload', key).call(() => super.discard(key, upload, options))
  }

  #watch(operation: StorageEvent['operation'], key: string) {
    const begin = this.#clock.now()
    let bytes = 0
    const ended = (isWhole: boolean, failure: unknown) => {
      const outcome = isWhole ? 'ok' : failure && !isAbort(failure) ? 'error' : 'aborted'
      const code = outcome === 'error' && failure instanceof StorageError ? { code: failure.code } : {}
      this.#tell({ operation, key, bytes, ms: this.#clock.now() - begin, attempt: 1, outcome, ...code })
    }
    return {
      count: (more: number) => {
        bytes += more
      },
      ended,
      opening<T>(open: () => T): T {
        try {
          return open()
        } catch (error) {
          ended(false, error)
          throw error
        }
      },
      async call<T>(work: () => Promise<T>): Promise<T> {
        let value: T
        try {
          value = await work()
        } catch (error) {
          ended(false, error)
          throw error
        }
        ended(true, undefined)
        return value
      },
    }
  }

  #tell(event: StorageEvent): void {
    try {
      // An async observer rejects where nobody looks.
      Promise.resolve(this.#onEvent(event)).catch(() => {})
    } catch {
      // What an observer does wrong is no fault of the operation.
    }
  }
}
