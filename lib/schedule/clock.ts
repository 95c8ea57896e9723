/** The time, and being woken; a test has one of its own. */
export interface Clock {
  /** ms since 1970, by a clock that can be set. */
  now(): number
  /** ms by one that only goes on. It may stand still while the machine sleeps. */
  monotonic(): number
  /** Calls back once. @returns what takes that back. */
  after(ms: number, callback: () => void): () => void
}

export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms)
    return () => clearTimeout(timer)
  },
}
