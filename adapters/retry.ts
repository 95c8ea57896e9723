import { channel } from 'node:diagnostics_channel'
import { setTimeout as delay } from 'node:timers/promises'
import { StorageError } from './errors.ts'

/** How often, and how long, a call is tried again. */
export interface RetryPolicy {
  /** Calls in all, the first one included. */
  attempts: number
  /** The first wait is random between 0 and this; each further one has twice the bound. */
  baseMs: number
  /** No random wait is longer. */
  capMs: number
  /**
   * No attempt starts later than this after the first. Waits that the store asked for do not count, and of one attempt
   * at most half of this does: what nobody answers takes longer than all that a small call has, and is asked again.
   */
  deadlineMs: number
}

export const RETRY_BASE_MS = 200
export const RETRY_CAP_MS = 30_000
/**
 * The longest Retry-After that is obeyed; a store that asks for more gets its error passed on. Dropbox asks for 300
 * seconds in the middle of an upload of hours: https://github.com/rclone/rclone/issues/5156.
 */
export const RETRY_AFTER_MAX_MS = 10 * 60_000

/** A wait that a store has asked for (Retry-After), as told on `STORE_WAITS`. */
export interface StoreWait {
  ms: number
  /** What the store answered; `adapter`, `operation` and `key` say to what. */
  error: StorageError
}

/** The channel of node:diagnostics_channel on which each `StoreWait` is published when it begins: it can take minutes. */
export const STORE_WAITS = 'millrace:store-waits'
const storeWaits = channel(STORE_WAITS)

/**
 * For calls with little to lose: an endpoint that cannot be reached is reported within seconds. One that takes requests
 * and answers none is found out by two of them.
 */
export const CALL_RETRY: RetryPolicy = { attempts: 4, baseMs: RETRY_BASE_MS, capMs: 2_000, deadlineMs: 10_000 }

/**
 * For a part or a commit, behind which lie hours of uploading: outlasts a restart of the store, or of the router. It is
 * the deadline that ends it: a connection that is refused, or a name that is not found, fails at once each time.
 */
export const PART_RETRY: RetryPolicy = {
  attempts: 60,
  baseMs: 500,
  capMs: RETRY_CAP_MS,
  deadlineMs: 10 * 60_000,
}

/** Time and chance, so that tests can hold both. */
export interface RetryClock {
  /** The time in ms. */
  now(): number
  /** From 0 up to but not 1. */
  random(): number
  /** Rejects with AbortError when the signal fires. */
  sleep(ms: number, signal: AbortSignal | undefined): Promise<void>
}

/** The clock of the machine. */
export const systemClock: RetryClock = {
  /** The time in ms. */
  now: () => performance.now(),
  random: () => Math.random(),
  sleep: (ms, signal) => delay(ms, undefined, { signal }),
}

/**
 * Calls `operation` until it succeeds, fails with an error that is not `retryable`, or the policy is used up; then
 * throws the last error. Waits with exponential backoff and full jitter, or as long as the store asked.
 * @throws AbortError as soon as `signal` fires during a wait; no attempt follows an abort.
 */
export async function retry<T>(
  operation: (attempt: number) => Promise<T>,
  policy: RetryPolicy,
  options: { signal?: AbortSignal | undefined; clock?: RetryClock | undefined } = {},
): Promise<T> {
  const { signal, clock = systemClock } = options
  let deadline = clock.now() + policy.deadlineMs
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(signal)
    const begun = clock.now()
    try {
      return await operation(attempt)
    } catch (error) {
      deadline += Math.max(0, clock.now() - begun - policy.deadlineMs / 2)
      if (attempt >= policy.attempts || signal?.aborted || !isRetryable(error)) throw error
      const asked = error.retryAfterMs
      const wait = asked ?? clock.random() * Math.min(policy.capMs, policy.baseMs * 2 ** (attempt - 1))
      if (asked !== undefined) {
        if (asked > RETRY_AFTER_MAX_MS) throw error
        deadline += asked
        storeWaits.publish({ ms: asked, error } satisfies StoreWait)
      } else if (clock.now() + wait > deadline) throw error
      await clock.sleep(wait, signal)
    }
  }
}

function isRetryable(error: unknown): error is StorageError {
  return error instanceof StorageError && error.retryable
}

/** An error as Node's own aborts are: `name` AbortError, the signal's reason as its cause. */
export function abortError(signal?: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal?.reason })
  return Object.assign(error, { name: 'AbortError', code: 'ABORT_ERR' })
}

/** @throws AbortError when the signal has fired, whatever its reason is. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal)
}

/** Whether an error is an AbortError, as an aborted signal makes it. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError'
}
