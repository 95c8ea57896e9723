import { type MultipartRules, planParts, RING_BYTES } from '../../adapters/multipart-plan.ts'
import type { StorageConfig } from '../../adapters/open.ts'
import { profileOf } from '../../adapters/s3-profiles.ts'

const MIB = 1024 * 1024

/** Sizes of parts that are compared. Two of the largest are all that RING_BYTES holds. */
const SIZES = [8 * MIB, 16 * MIB, 24 * MIB]
/** A size is tried for so many times what one pass should take, and no longer. */
const PATIENCE = 4
/** How often each size is tried, so that the ups and downs of a line can be told from what a size brings. */
const PASSES = 2

/** How a store cuts objects into parts now. */
export interface PartsNow {
  rules: MultipartRules
  /** What is configured; undefined for the adapter's default. */
  wanted: number | undefined
  /** What a backup is expected to store: of a very large one parts have to be larger. */
  expectedSize: number | undefined
}

/** One scratch object to write. */
export interface Pass {
  /** Parts of it; undefined: as backups are made now. */
  partBytes: number | undefined
  bytes: number
}

/** What is written to a store to measure it. */
export interface PassPlan {
  passes: Pass[]
  /** Why sizes of parts are not compared; null where they are. */
  notCompared: string | null
}

/** Bytes of a part and parts at once, for a size that is wanted. */
export function partsOf({ rules, wanted, expectedSize }: PartsNow, size = wanted): { bytes: number; inFlight: number } {
  const { partBytes, inFlight } = planParts(rules, { partBytes: size, expectedSize })
  return { bytes: partBytes, inFlight }
}

/**
 * Plans the scratch objects for a store: each size of parts twice, there and back, in whole rounds of parts in flight,
 * as far as `budget` and time allow; else one object with the parts of now.
 * @param parts undefined for a store without parts.
 * @param budget bytes that all of it may send.
 * @param rate bytes a second that the store takes, about.
 * @param seconds what one object should take.
 */
export function planPasses(
  parts: PartsNow | undefined,
  { budget, rate, seconds }: { budget: number; rate: number; seconds: number },
): PassPlan {
  const few = Math.max(1, Math.floor(Math.min(budget, rate * seconds)))
  const one = (notCompared: string | null): PassPlan => ({
    passes: [{ partBytes: undefined, bytes: few }],
    notCompared,
  })
  if (!parts) return one(null)
  const now = partsOf(parts)
  const sizes = [now, ...SIZES.map((size) => partsOf(parts, size))].filter(
    ({ bytes }, at, all) =>
      all.findIndex((other) => other.bytes === bytes) === at && (at === 0 || 2 * bytes <= RING_BYTES),
  )
  if (sizes.length === 1) return one('a backup of this size needs parts as large as they are.')
  const rounds = sizes.map(({ bytes, inFlight }) => bytes * inFlight)
  const least = PASSES * rounds.reduce((sum, bytes) => sum + bytes, 0)
  if (least > budget) {
    return one(`sizes were not compared: that takes ${Math.ceil(least / MIB)} MiB, and --size allows less.`)
  }
  const slowest = Math.max(...rounds) / rate
  if (slowest > PATIENCE * seconds) {
    const needed = Math.ceil(slowest / PATIENCE)
    return one(`sizes were not compared: on this line that takes longer; --seconds ${needed} allows it.`)
  }
  const target = Math.min(rate * seconds, budget / (PASSES * sizes.length))
  const wanted = rounds.map((round) => round * Math.max(1, Math.floor(target / round)))
  const lengths = PASSES * wanted.reduce((sum, bytes) => sum + bytes, 0) <= budget ? wanted : rounds
  // As they are now, the first, on the connections that are there already.
  const there = sizes.map(({ bytes: size }, at) => ({
    partBytes: at === 0 ? undefined : size,
    bytes: lengths[at] as number,
  }))
  return { passes: [...there, ...there.toReversed()], notCompared: null }
}

/** What a store allows of an upload in parts; undefined for one without parts. */
export async function rulesOf(config: StorageConfig): Promise<MultipartRules | undefined> {
  // Each adapter is large, and loaded only where it is used.
  switch (config.provider) {
    case 's3':
      return profileOf(config.endpoint === undefined ? undefined : new URL(config.endpoint), config.profile).rules
    case 'backblaze-b2':
      return (await import('../../adapters/backblaze-b2-write.ts')).b2Rules()
    case 'google-drive':
      return (await import('../../adapters/google-drive-write.ts')).DRIVE_RULES
    case 'dropbox':
      return (await import('../../adapters/dropbox-write.ts')).dropboxRules(config)
    default:
      return undefined
  }
}

/** What an adapter's parts measure at least where nothing is configured. */
export async function defaultPartBytes(config: StorageConfig): Promise<number | undefined> {
  if (config.provider !== 'google-drive') return undefined
  return (await import('../../adapters/google-drive-write.ts')).DRIVE_PART_BYTES
}
