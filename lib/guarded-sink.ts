import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Writable } from 'node:stream'
import { StorageError } from '../adapters/errors.ts'
import { ForwardingWritable } from '../adapters/layers/forwarding.ts'
import { STORE_WAITS, type StoreWait } from '../adapters/retry.ts'
import { startLimit } from './duration.ts'

/** An end flushes what is buffered and commits: it takes longer than any write. */
export const END_FACTOR = 3
/** How long a destination that hangs has to clean up after itself before nobody waits for it any more. */
const CLOSE_MS = 10_000

export interface GuardOptions {
  /** Where it is, for messages: a URL without credentials. */
  location: string
  adapter: string
  onConsumed: (chunk: Buffer) => void
  /**
   * A write that is not taken for so long fails, and an end that takes three times as long; a wait that the store asks for
   * begins it anew. Absent: no limit.
   */
  stallMs: number | undefined
  /** Awaited after the last byte and before the commit; what it rejects with ends the stream instead. */
  beforeCommit: (() => Promise<void>) | undefined
}

type Callback = (error?: Error | null) => void

/** A store's write stream that asks before it commits, and is given up when it hangs. */
export class GuardedSink extends ForwardingWritable {
  readonly #options: GuardOptions
  #stalled = false
  #takenBytes = 0
  /** Of what is under way: a stream has one write or its end at a time. */
  #stopLimit = () => {}
  /** Until when its store has asked for a rest; of performance.now. */
  #restUntil = 0
  readonly #onWait = (message: unknown) => {
    const { ms, error } = message as StoreWait
    if (error.adapter === this.#options.adapter) this.#restUntil = Math.max(this.#restUntil, performance.now() + ms)
  }

  constructor(open: (onConsumed: ((chunk: Buffer) => void) | undefined) => Writable, options: GuardOptions) {
    super(open, { adapter: options.adapter, onConsumed: options.onConsumed })
    this.#options = options
    if (options.stallMs !== undefined) subscribe(STORE_WAITS, this.#onWait)
  }

  /** Bytes that the store's stream has taken: it may hold some MiB of them itself, on their way. */
  get takenBytes(): number {
    return this.#takenBytes
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, callback: Callback): void {
    super._write(chunk, encoding, this.#within(1, this.#counting(chunk.length, callback)))
  }

  override _writev(items: { chunk: Buffer }[], callback: Callback): void {
    const bytes = items.reduce((sum, { chunk }) => sum + chunk.length, 0)
    super._writev(items, this.#within(1, this.#counting(bytes, callback)))
  }

  override _final(callback: Callback): void {
    const done = this.#within(END_FACTOR, callback)
    const commit = () => (this.destroyed ? undefined : super._final(done))
    const { beforeCommit } = this.#options
    if (beforeCommit) beforeCommit().then(commit, done)
    else commit()
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#stopLimit()
    unsubscribe(STORE_WAITS, this.#onWait)
    if (!this.#stalled) {
      super._destroy(error, callback)
      return
    }
    const timer = setTimeout(callback, CLOSE_MS, error)
    super._destroy(error, (given) => {
      clearTimeout(timer)
      callback(given)
    })
  }

  #counting(bytes: number, callback: Callback): Callback {
    return (error) => {
      if (!error) this.#takenBytes += bytes
      callback(error)
    }
  }

  /** Calls back once: with what the store says, or when it has said nothing for too long. */
  #within(factor: number, callback: Callback): Callback {
    const { stallMs, location, adapter } = this.#options
    if (stallMs === undefined) return callback
    const ms = stallMs * factor
    let isOver = false
    const done: Callback = (error) => {
      if (isOver) return
      isOver = true
      this.#stopLimit()
      callback(error)
    }
    const giveUp = () => {
      const rest = this.#restUntil + ms - performance.now()
      if (this.#restUntil > 0 && rest > 0) {
        this.#stopLimit = startLimit(rest, giveUp)
        return
      }
      this.#stalled = true
      const message = `${location} took nothing for ${Math.round(ms / 1000)} seconds, and is not waited for any more.`
      done(new StorageError(message, { code: 'UNAVAILABLE', adapter, operation: 'write' }))
    }
    this.#stopLimit = startLimit(ms, giveUp)
    return done
  }
}
