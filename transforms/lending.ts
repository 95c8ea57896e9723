// Memory that one stage of this process fills, another one empties, and the first fills again: chunks that are allocated
// and freed cost a page fault for every 4 KiB, and have the collector mark the whole heap again and again.

// By the chunk itself, not by its memory: who has a slice of it cannot say that all of it is done with.
const lent = new WeakMap<Buffer, () => void>()

/**
 * Says that a chunk leaves whose memory is wanted back.
 * @param onReturned called once, by `giveBack`; never when the chunk is held for good.
 */
export function lend(chunk: Buffer, onReturned: () => void): void {
  lent.set(chunk, onReturned)
}

/**
 * Gives the memory of a chunk back to the stage that lent it. Nobody may look at the chunk after that.
 * @returns false when it was not lent, or was given back already.
 */
export function giveBack(chunk: Buffer): boolean {
  const onReturned = lent.get(chunk)
  if (!onReturned) return false
  lent.delete(chunk)
  onReturned()
  return true
}
