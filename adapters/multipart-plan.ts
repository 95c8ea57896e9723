import { StorageError } from './errors.ts'

/** The whole memory of one upload: the parts in flight and the one being filled. */
export const RING_BYTES = 48 * 1024 * 1024
/** The size of a part where nothing asks for a larger one. */
export const PART_BYTES = 8 * 1024 * 1024
/** How much of a store's number of parts a plan uses, as sealing and archiving add to what a pre-scan counted. */
const PARTS_USED = 0.95

/** What a store allows of an upload in parts. All parts but the last are of one size, as R2 demands. */
export interface MultipartRules {
  minPartBytes: number
  maxPartBytes: number
  /** Every part but the last is a multiple of this. */
  alignBytes: number
  /** Infinity where there is no limit. */
  maxParts: number
  maxObjectBytes: number
  /** The most parts in flight that the store or its protocol bears. */
  concurrency: number
}

export interface PartPlan {
  partBytes: number
  /** Parts in flight at most; the ring has one buffer more. */
  inFlight: number
  /** The most bytes that this plan can carry. */
  maxBytes: number
}

export interface PlanHints {
  size?: number | undefined
  expectedSize?: number | undefined
  /** Parts are at least this large; PART_BYTES when absent. */
  partBytes?: number | undefined
}

/**
 * Chooses the size of parts and how many fly at once, within RING_BYTES. Where parts must be larger than 24 MiB
 * (objects above about 220 GiB), the memory is two parts instead.
 */
export function planParts(rules: MultipartRules, hints: PlanHints): PartPlan {
  const expected = hints.size ?? hints.expectedSize ?? 0
  const wanted = Math.max(
    hints.partBytes ?? PART_BYTES,
    rules.minPartBytes,
    Math.ceil(expected / Math.floor(rules.maxParts * PARTS_USED)),
  )
  const step = rules.alignBytes
  const largest = Math.floor(rules.maxPartBytes / step) * step
  const partBytes = Math.min(Math.ceil(wanted / step) * step, largest)
  const inFlight = Math.max(1, Math.min(rules.concurrency, Math.floor(RING_BYTES / partBytes) - 1))
  return { partBytes, inFlight, maxBytes: Math.min(rules.maxObjectBytes, partBytes * rules.maxParts) }
}

/** @throws StorageError INVALID where `size` is no count of bytes, or more than the plan carries. */
export function checkSizes(
  plan: Pick<PartPlan, 'maxBytes'>,
  hints: PlanHints,
  names: { adapter: string; key: string },
): void {
  const fail = (message: string): never => {
    throw new StorageError(message, { code: 'INVALID', operation: 'createWriteStream', ...names })
  }
  for (const [name, value] of [
    ['size', hints.size],
    ['expectedSize', hints.expectedSize],
  ] as const) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0)) {
      fail(`${name} must be a whole number of bytes from 0, not ${value}.`)
    }
  }
  // expectedSize may be far too high, as a folder's size before compression is: that alone refuses nothing.
  if (hints.size !== undefined && hints.size > plan.maxBytes) {
    fail(`${hints.size} bytes are more than one object of this store can hold (${plan.maxBytes}). Split the source.`)
  }
}
