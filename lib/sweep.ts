import type { ListedSnapshot } from './catalog.ts'
import { ObjectNotes } from './object-notes.ts'
import { defaultStateFolder } from './state.ts'

/** What an unfinished snapshot, an orphaned companion or an unfinished upload has to be old before it is removed. */
export const LEFTOVER_MS = 24 * 60 * 60_000

/** An unfinished snapshot that may be swept, and why. */
export interface Sweepable {
  snapshot: ListedSnapshot
  reason: string
}

/**
 * Notes which unfinished snapshots there are, and finds those that were noted at least a day ago and for which there is
 * a newer complete one.
 * @param prefix of the keys that were listed: what was noted under it and is gone is forgotten.
 * @param note false: only what was noted before is looked at.
 * @throws the error of node:fs when the state folder cannot be read or written.
 */
export async function sightUnfinished(
  snapshots: readonly ListedSnapshot[],
  { location, prefix, now, note, stateDir }: SightOptions,
): Promise<Sweepable[]> {
  const unfinished = snapshots.filter(({ complete }) => !complete)
  if (unfinished.length === 0 && !note) return []
  const notes = await ObjectNotes.open(stateDir ?? defaultStateFolder(), 'unfinished', location, isTime)
  const before = notes.size
  const found: Sweepable[] = []
  for (const snapshot of unfinished) {
    const seen = notes.get(markOf(snapshot))
    // A clock that was set back makes all notes of the future worthless.
    if (seen === undefined || seen > now.getTime()) notes.set(markOf(snapshot), now.getTime())
    else if (now.getTime() - seen >= LEFTOVER_MS && !snapshot.pinned && hasNewer(snapshot, snapshots, now)) {
      const since = new Date(seen).toISOString()
      found.push({ snapshot, reason: `unfinished, seen so since ${since}, and there is a newer complete snapshot` })
    }
  }
  notes.keepOnly(prefix, unfinished.map(markOf))
  if (note && before + notes.size > 0) await notes.save()
  return found
}

interface SightOptions {
  /** The store's. */
  location: string
  prefix: string
  now: Date
  note: boolean
  stateDir: string | undefined
}

/** Whether a complete snapshot, not dated in the future, was made after this one. */
export function hasNewer(snapshot: ListedSnapshot, snapshots: readonly ListedSnapshot[], now: Date): boolean {
  return snapshots.some(
    ({ complete, server, created }) =>
      complete && server === snapshot.server && created > snapshot.created && created <= now,
  )
}

/** By the store's time as well as by ours: one of the two may be wrong. */
export function isAbandoned(
  snapshot: ListedSnapshot,
  snapshots: readonly ListedSnapshot[],
  now: Date,
  storeTime: Date,
): boolean {
  return isLeftover(snapshot, storeTime) && !snapshot.pinned && hasNewer(snapshot, snapshots, now)
}

export function isLeftover({ modified }: { modified: Date }, time: Date): boolean {
  return time.getTime() - modified.getTime() >= LEFTOVER_MS
}

function markOf({ key, storedBytes, version }: ListedSnapshot) {
  return { key, size: storedBytes, version }
}

function isTime(value: unknown): value is number {
  return Number.isSafeInteger(value)
}
