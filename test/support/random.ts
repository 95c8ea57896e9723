import { createCipheriv } from 'node:crypto'

/** Numbers that look random and are the same for the same seed. */
export interface Random {
  /** From 0 up to but not 1. */
  next(): number
  /** A whole number from 0 up to but not `below`. */
  int(below: number): number
  /** True in `share` of the calls. */
  chance(share: number): boolean
  pick<T>(items: readonly T[]): T
  /** One of the names, each as often as its weight says. */
  weighted<T extends string>(weights: Partial<Record<T, number>>): T
}

/**
 * The generator is mulberry32 (Tommy Ettinger, public domain): 32 bits of state, ample for a test's choices. It starts
 * from the FNV-1a hash of the seeds, so that each purpose has numbers of its own, whatever order they are drawn in.
 */
export function seededRandom(...seeds: (string | number)[]): Random {
  let state = 0x811c9dc5
  for (const byte of Buffer.from(seeds.join('\n'))) state = Math.imul(state ^ byte, 0x01000193)
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (below: number) => Math.floor(next() * below)
  return {
    next,
    int,
    chance: (share) => next() < share,
    pick: (items) => items[int(items.length)]!,
    weighted<T extends string>(weights: Partial<Record<T, number>>) {
      const entries = Object.entries(weights) as [T, number][]
      let left = next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
      for (const [name, weight] of entries) {
        left -= weight
        if (left < 0) return name
      }
      return entries.at(-1)![0]
    },
  }
}

/** Bytes that do not compress and do not repeat, the same for the same seed. */
export function seededBytes(bytes: number, seed: number): Buffer {
  const nonce = Buffer.alloc(16)
  nonce.writeUInt32BE(seed)
  return createCipheriv('aes-128-ctr', Buffer.alloc(16), nonce).update(Buffer.alloc(bytes))
}
