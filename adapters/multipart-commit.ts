import { StorageError, withCleanupError } from './errors.ts'
import { quoteKey } from './keys.ts'
import type { PrimitiveRequest } from './multipart-sender.ts'
import { CALL_RETRY, isAbort, type RetryClock, type RetryPolicy, retry, throwIfAborted } from './retry.ts'

/** How long a commit may go on after `destroy()` before it is cut off. */
export const SETTLE_MS = 30_000

/** What the store holds under the key of a write. */
export interface FoundObject {
  size: number
  /** Whether this very write made it; the same bytes written by anybody else are not ours. */
  ours: boolean
  /** What the store's own checksum says is wrong with it, as the end of a sentence. */
  damage?: string | undefined
}

/** What a commit needs of an adapter, to know what became of it and to undo it; see `MultipartPrimitives`. */
export interface CommitStore {
  find(request: PrimitiveRequest): Promise<FoundObject | undefined>
  remove(request: PrimitiveRequest): Promise<void>
  /** Does to the object that `find` just called ours what is left to do. */
  secure?(request: PrimitiveRequest): Promise<void>
  /** Cancels uploads that were begun without our being told, where no upload is known that `abort` could be called for. */
  clear?(request: PrimitiveRequest): Promise<void>
}

export interface CommitOptions {
  adapter: string
  key: string
  settleMs?: number | undefined
  callRetry?: RetryPolicy | undefined
  clock?: RetryClock | undefined
}

/**
 * The commit of one write: what the store may hold of it, and the way back from there. `none`: parts at most;
 * `unknown`: a commit was sent and not answered; `stored`. Once the stream has emitted `finish`, nobody asks for the
 * way back.
 */
export class Commitment {
  readonly #store: CommitStore
  readonly #options: CommitOptions
  readonly #settle = new AbortController()
  readonly #stopping = new AbortController()
  #outcome: 'none' | 'unknown' | 'stored' = 'none'
  /** Of the commit: what is asked after it has as much behind it, and one lost answer would undo all of that. */
  #policy: RetryPolicy
  /** What was stored is ours, and not what was to be stored. */
  #isWrong = false

  constructor(store: CommitStore, options: CommitOptions) {
    this.#store = store
    this.#options = options
    this.#policy = options.callRetry ?? CALL_RETRY
  }

  /** Fires some time after `undo` was called, for requests whose answer is better waited for than cut off. */
  get settleSignal(): AbortSignal {
    return this.#settle.signal
  }

  /**
   * Commits, and when answers were lost asks the store whether it is done.
   * @throws what the last attempt failed with, where the store does not have our object; AbortError after `undo`.
   */
  async commit(attempt: (request: PrimitiveRequest) => Promise<void>, policy: RetryPolicy): Promise<void> {
    const { clock } = this.#options
    const stop = this.#stopping.signal
    throwIfAborted(stop)
    this.#policy = policy
    let doubt: Error | undefined
    const tracked = () =>
      attempt({ signal: this.settleSignal }).catch((error) => {
        if (mayHaveHappened(error)) doubt = error
        throw error
      })
    this.#outcome = 'unknown'
    try {
      await retry(tracked, policy, { signal: stop, clock })
      this.#outcome = 'stored'
    } catch (error) {
      if (!doubt) {
        this.#outcome = 'none'
        throw error
      }
      throwIfAborted(stop)
      // An answer was lost. "No such upload", or a refusal to replace, may now be about our own success.
      const unsettled = doubt
      const found = await this.#find().catch((cause) => {
        // Nor is it known, then, whose object a refusal was about: it would tell of another writer, or of none.
        throw withCleanupError(unsettled, cause)
      })
      if (!found?.ours) throw error
      this.#outcome = 'stored'
    }
  }

  /**
   * Makes sure of the object, and of what is to be on it.
   * @throws StorageError CORRUPT or CONFLICT when the store does not hold our object of `bytes` bytes.
   */
  async verify(bytes: number): Promise<void> {
    const found = await this.#find()
    if (!found) throw this.#error('CORRUPT', 'was reported as stored, but the store does not have it')
    if (!found.ours)
      throw this.#error('CONFLICT', 'was stored, but another object is under the key: someone else wrote it')
    this.#isWrong = found.size !== bytes || found.damage !== undefined
    if (found.size !== bytes) {
      throw this.#error('CORRUPT', `has ${found.size} bytes at the store, and ${bytes} were sent`)
    }
    if (found.damage !== undefined) throw this.#error('CORRUPT', found.damage)
    await this.#patiently(async (request) => this.#store.secure?.(request))
  }

  /**
   * Leaves nothing of the write at the store.
   * @param stop ends every request of the write but its commit, waits for that as well, and gives what cancels the
   *   upload, if one was begun.
   */
  async undo(stop: () => Promise<((request: PrimitiveRequest) => Promise<void>) | undefined>): Promise<void> {
    this.#stopping.abort()
    const timer = setTimeout(() => this.#settle.abort(), this.#options.settleMs ?? SETTLE_MS)
    try {
      const cancel = await stop()
      if (this.#outcome !== 'none' && (await this.#removeOurs())) return
      if (cancel === undefined) {
        await this.#cleanUp(async (request) => this.#store.clear?.(request))
        return
      }
      // Also after a commit that was reported as good, and made nothing: its parts are there yet.
      await this.#cleanUp(cancel)
      // The store may have been at work on the commit until just now.
      if (this.#outcome === 'unknown') await this.#removeOurs()
    } finally {
      clearTimeout(timer)
    }
  }

  /**
   * Ends every request of the write and leaves what the store has of it, but for an object that is wrong.
   * @param stop as for `undo`.
   */
  async leave(stop: () => Promise<((request: PrimitiveRequest) => Promise<void>) | undefined>): Promise<void> {
    this.#stopping.abort()
    const timer = setTimeout(() => this.#settle.abort(), this.#options.settleMs ?? SETTLE_MS)
    try {
      const cancel = await stop()
      if (cancel) await this.#cleanUp(cancel)
      else await this.#cleanUp(async (request) => this.#store.clear?.(request))
      if (this.#isWrong) await this.#removeOurs()
    } finally {
      clearTimeout(timer)
    }
  }

  #find(): Promise<FoundObject | undefined> {
    return this.#patiently((request) => this.#store.find(request))
  }

  #patiently<T>(call: (request: PrimitiveRequest) => Promise<T>): Promise<T> {
    const signal = this.#stopping.signal
    return retry(() => call({ signal }), this.#policy, { signal, clock: this.#options.clock })
  }

  async #removeOurs(): Promise<boolean> {
    const found = await this.#cleanUp((request) => this.#store.find(request))
    if (!found?.ours) return false
    await this.#cleanUp((request) => this.#store.remove(request))
    return true
  }

  #cleanUp<T>(call: (request: PrimitiveRequest) => Promise<T>): Promise<T> {
    const { callRetry = CALL_RETRY, clock } = this.#options
    const never = new AbortController().signal
    return retry(() => call({ signal: never }), callRetry, { clock })
  }

  #error(code: 'CORRUPT' | 'CONFLICT', what: string): StorageError {
    const { adapter, key } = this.#options
    return new StorageError(`The object ${quoteKey(key)} ${what}.`, { code, adapter, operation: 'verify', key })
  }
}

/** Whether a request may have been carried out although it failed. */
export function mayHaveHappened(error: unknown): boolean {
  return isAbort(error) || !(error instanceof StorageError) || error.code === 'UNAVAILABLE'
}
