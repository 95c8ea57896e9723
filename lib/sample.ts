import { createHash } from 'node:crypto'
import { throwIfAborted } from '../adapters/retry.ts'
import type { Seekable } from '../transforms/index.ts'

/** Frames that are read at the same time. */
const READS_AT_ONCE = 3

/**
 * Picks a share of the numbers below `count`, at random and the same for the same seed; at least one, where there is
 * any. Robert Floyd's algorithm: memory is what is picked.
 * @returns the picked, in order.
 */
export function pickSample(count: number, share: number, seed: string): number[] {
  const wanted = Math.min(count, Math.max(1, Math.ceil(count * share)))
  const picked = new Set<number>()
  for (let last = count - wanted; last < count; last += 1) {
    const one = numberBelow(last + 1, seed, last)
    picked.add(picked.has(one) ? last : one)
  }
  return [...picked].sort((a, b) => a - b)
}

function numberBelow(below: number, seed: string, draw: number): number {
  // 48 bits: for the 2^27 frames that there may be, no number is noticeably likelier than another.
  return createHash('sha256').update(`${seed}\n${draw}`).digest().readUIntBE(0, 6) % below
}

/**
 * Reads, authenticates and decompresses some of the data frames of a stream, and its whole index.
 * @returns frames read, and how many there are.
 * @throws what reading them throws.
 */
export async function readSample(
  seekable: Seekable,
  share: number,
  seed: string,
  onFrame: (storedBytes: number) => void,
  signal?: AbortSignal,
): Promise<{ read: number; of: number; contentBytes: number }> {
  if (seekable.hasIndex) for await (const _ of seekable.entries());
  const data: number[] = []
  for (let i = 0; i < seekable.frames; i += 1) if (seekable.frame(i).contentBytes > 0) data.push(i)
  const picked = pickSample(data.length, share, seed).map((i) => data[i] as number)
  let contentBytes = 0
  let next = 0
  const work = async () => {
    for (let i = picked[next++]; i !== undefined; i = picked[next++]) {
      throwIfAborted(signal)
      const frame = seekable.frame(i)
      await seekable.read(frame.contentAt, frame.contentBytes)
      contentBytes += frame.contentBytes
      onFrame(frame.bytes)
    }
  }
  await Promise.all(Array.from({ length: READS_AT_ONCE }, work))
  return { read: picked.length, of: data.length, contentBytes }
}
