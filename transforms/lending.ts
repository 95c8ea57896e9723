// Memory that one stage of this process fills, another one empties, and the first fills again: chunks that are allocated
// and freed cost a page fault for every 4 KiB, and have the collector mark the whole heap again and again.

interface Loan {
  onReturned: (memory: ArrayBufferLike) => void
  moves: boolean
}

// By the chunk itself, not by its memory: who has a slice of it cannot say that all of it is done with.
const lent = new WeakMap<Buffer, Loan>()

/**
 * Says that a chunk leaves whose memory is wanted back.
 * @param onReturned called once, by `giveBack`; never when the chunk is held for good.
 */
export function lend(chunk: Buffer, onReturned: () => void): void {
  lent.set(chunk, { onReturned, moves: false })
}

/**
 * As `lend`, for a chunk that nothing else shares its memory with: it may be moved to another thread and back.
 * @param onReturned told where the memory is now: moved, it is another ArrayBuffer.
 */
export function lendMovable(chunk: Buffer, onReturned: (memory: ArrayBuffer) => void): void {
  lent.set(chunk, { onReturned: onReturned as Loan['onReturned'], moves: true })
}

/** Whether all memory of a chunk may be moved to another thread, by who gives it back with `giveBack`. */
export function isMovable(chunk: Buffer): boolean {
  return lent.get(chunk)?.moves ?? false
}

/**
 * Gives the memory of a chunk back to the stage that lent it. Nobody may look at the chunk after that.
 * @param memory where it is now, if it was moved.
 * @returns false when it was not lent, or was given back already.
 */
export function giveBack(chunk: Buffer, memory: ArrayBufferLike = chunk.buffer): boolean {
  const loan = lent.get(chunk)
  if (!loan) return false
  lent.delete(chunk)
  loan.onReturned(memory)
  return true
}

/** Smaller ones share their memory, or are not worth it. */
const FREE_BYTES = 16 * 1024

/**
 * Frees memory that nobody else has, now: left to the collector, as much again would gather as goes through. What shares
 * its memory with others is left alone.
 */
export function letGo(bytes: Buffer): void {
  const memory = bytes.buffer as ArrayBuffer
  if (bytes.length === memory.byteLength && bytes.length >= FREE_BYTES) memory.transfer(0)
}
