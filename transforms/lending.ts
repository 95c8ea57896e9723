// Memory that one stage of this process fills, another one empties, and the first fills again: chunks that are allocated
// and freed cost a page fault for every 4 KiB, and have the collector mark the whole heap again and again.

const lent = new WeakMap<ArrayBufferLike, () => void>()

/**
 * Says that a buffer's memory, all of it, is in a chunk that leaves now, and is wanted back.
 * @param onReturned called once, by `giveBack`; never when the chunk is held for good.
 */
export function lend(memory: Buffer, onReturned: () => void): void {
  lent.set(memory.buffer, onReturned)
}

/**
 * Gives the memory of a chunk back to the stage that lent it. Nobody may look at the chunk after that.
 * @returns false when it was not lent, or was given back already.
 */
export function giveBack(chunk: Buffer): boolean {
  const onReturned = lent.get(chunk.buffer)
  if (!onReturned) return false
  lent.delete(chunk.buffer)
  onReturned()
  return true
}
