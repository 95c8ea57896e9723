/**
 * What `purgeUnfinished` cancels.
 * @param olderThanMs as it is given.
 * @param now ms since 1970 by the clock that says when an upload was begun.
 * @returns up to when an upload was begun that is to be cancelled, in ms since 1970.
 */
export function begunUntil(olderThanMs: number, now: number = Date.now()): number {
  return olderThanMs > 0 ? now - olderThanMs : Number.POSITIVE_INFINITY
}
