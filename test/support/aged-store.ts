import type { Storage } from '../../adapters/storage.ts'
import { type LeaseClock, leaseClock } from '../../lib/lease-claims.ts'
import { withOlder } from './retention.ts'
import { overriding } from './storage.ts'

/** Waits of a claimant are not longer; the times between a holder's signs of life are. */
const SHORT_MS = 5_000

/** The same store some time later: all that is in it now, unfinished uploads too, has become so much older. */
export async function agedStore(storage: Storage, prefix: string, ageMs: number): Promise<Storage> {
  const old = new Set<string>()
  for await (const { key } of storage.list(prefix)) old.add(key)
  const older = overriding(storage, {
    purgeUnfinished: async (olderThanMs, options) =>
      (await storage.purgeUnfinished?.(Math.max(0, olderThanMs - ageMs), options)) ?? 0,
    createWriteStream(key, options) {
      old.delete(key)
      return storage.createWriteStream(key, options)
    },
  })
  return withOlder(older, (key) => (old.has(key) ? ageMs : 0))
}

/**
 * A clock on which a claimant's waiting passes at once, so that a holder that has died is found out at once.
 * @param aheadMs of the time of day.
 */
export function impatientClock(aheadMs = 0): LeaseClock {
  let skippedMs = 0
  return {
    now: () => performance.now() + skippedMs,
    wall: () => Date.now() + aheadMs,
    sleep(ms, signal) {
      const isShort = ms <= SHORT_MS
      if (isShort) skippedMs += ms
      return leaseClock.sleep(isShort ? 0 : ms, signal)
    },
  }
}
