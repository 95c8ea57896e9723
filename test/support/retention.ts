import { pipeline } from 'node:stream/promises'
import type { ObjectStat, Storage } from '../../adapters/storage.ts'
import type { RetentionPolicy, RetentionSnapshot } from '../../lib/retention.ts'
import { overriding } from './storage.ts'
import { feed } from './streams.ts'

export const HOUR_MS = 3_600_000
export const DAY_MS = 24 * HOUR_MS

export interface MadeSnapshot extends RetentionSnapshot {
  key: string
  pinned: boolean
}

/** A snapshot of the given time, as a listing would give it. */
export function snapshotAt(created: Date | number, state: Partial<Omit<MadeSnapshot, 'created'>> = {}): MadeSnapshot {
  const time = new Date(created)
  const id = state.id ?? `${time.toISOString().replaceAll(':', '-')}-aaaa`
  const server = state.server ?? 'survival'
  return { server, id, key: `${server}/${id}.tar.zst.mlr`, created: time, complete: true, pinned: false, ...state }
}

/**
 * What stays by the words of the guide, written without a look at lib/retention.ts and as plainly as can be: every rule
 * makes a list of names for the times, and takes the newest of each of the first n of them.
 * @returns the keys of one server's snapshots that stay.
 */
export function keptByTheWords(snapshots: readonly MadeSnapshot[], policy: RetentionPolicy, now: Date): Set<string> {
  const stays = new Set<string>()
  const candidates: MadeSnapshot[] = []
  for (const snapshot of snapshots) {
    if (!snapshot.complete || snapshot.created > now) stays.add(snapshot.key)
    else candidates.push(snapshot)
    if (snapshot.pinned) stays.add(snapshot.key)
  }
  candidates.sort((a, b) => (a.id < b.id ? 1 : -1))
  const rules: [number | undefined, (iso: string) => string][] = [
    [policy.keepHourly, (iso) => iso.slice(0, 13)],
    [policy.keepDaily, (iso) => iso.slice(0, 10)],
    [policy.keepWeekly, mondayOf],
    [policy.keepMonthly, (iso) => iso.slice(0, 7)],
    [policy.keepYearly, (iso) => iso.slice(0, 4)],
  ]
  for (const [count = 0, nameOf] of rules) {
    const newest = new Map<string, string>()
    for (const { key, created } of candidates) {
      const name = nameOf(created.toISOString())
      if (!newest.has(name)) newest.set(name, key)
    }
    for (const key of [...newest.values()].slice(0, count)) stays.add(key)
  }
  for (const { key } of candidates.slice(0, Math.max(1, policy.keepLast ?? 0, policy.minimum ?? 0))) stays.add(key)
  return stays
}

/** Goes back a day at a time until it is Monday. */
function mondayOf(iso: string): string {
  const day = new Date(`${iso.slice(0, 10)}T12:00:00Z`)
  while (day.getUTCDay() !== 1) day.setUTCDate(day.getUTCDate() - 1)
  return day.toISOString().slice(0, 10)
}

/** Puts what a listing takes for a snapshot: an object that can be told apart, and its companion unless told not to. */
export async function putSnapshot(
  storage: Storage,
  created: Date | number,
  { server, random = 'aaaa', companion = true }: { server?: string; random?: string; companion?: boolean } = {},
): Promise<MadeSnapshot> {
  const time = new Date(created)
  const id = `${time.toISOString().replaceAll(':', '-')}-${random}`
  const made = snapshotAt(time, { id, complete: companion, ...(server === undefined ? {} : { server }) })
  await pipeline(feed(Buffer.from(id)), storage.createWriteStream(made.key))
  if (companion) await pipeline(feed(Buffer.from('a companion')), storage.createWriteStream(`${made.key}.sha256`))
  return made
}

/**
 * A store whose clock, as its objects tell, is set back by what `agoMs` says for each key: what a server's clock that
 * is ahead of its store sees, or objects that have lain for long.
 */
export function withOlder(storage: Storage, agoMs: (key: string) => number): Storage {
  const older = (stat: ObjectStat) => ({ ...stat, modified: new Date(stat.modified.getTime() - agoMs(stat.key)) })
  return overriding(storage, {
    stat: async (key, options) => older(await storage.stat(key, options)),
    async *list(prefix, options) {
      for await (const stat of storage.list(prefix, options)) yield older(stat)
    },
  })
}

/** Every key in a store, sorted. */
export async function keysIn(storage: Storage, prefix = ''): Promise<string[]> {
  return (await Array.fromAsync(storage.list(prefix))).map(({ key }) => key).sort()
}
