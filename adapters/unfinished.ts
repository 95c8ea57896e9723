import { StorageError } from './errors.ts'

/**
 * Holds what `purgeUnfinished` is given to what it can be: of no number all uploads would be cancelled, those that go on
 * as well.
 * @throws StorageError INVALID.
 */
export function checkAge(olderThanMs: number, adapter: string): void {
  if (typeof olderThanMs === 'number' && !Number.isNaN(olderThanMs)) return
  const message = 'Say from which age on, in ms, unfinished uploads are to be cancelled; 0 is all of them.'
  throw new StorageError(message, { code: 'INVALID', adapter, operation: 'purgeUnfinished' })
}

/**
 * What `purgeUnfinished` cancels.
 * @param olderThanMs as it is given.
 * @param now ms since 1970 by the clock that says when an upload was begun.
 * @returns up to when an upload was begun that is to be cancelled, in ms since 1970.
 */
export function begunUntil(olderThanMs: number, now: number = Date.now()): number {
  return olderThanMs > 0 ? now - olderThanMs : Number.POSITIVE_INFINITY
}
