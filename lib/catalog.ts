import type { Storage } from '../adapters/storage.ts'
import { BackupError } from './errors.ts'
import { COMPANION_SUFFIX, checkServer, idTime, type ObjectName, objectBase, parseObjectBase } from './names.ts'

/** One snapshot in a store, as its names and sizes tell; nothing of it has been opened. */
export interface Snapshot extends ObjectName {
  server: string
  /** The object's key in the store. */
  key: string
  created: Date
  /** The object's size as stored, in bytes. */
  storedBytes: number
  /** What the store tells this version of the object by; not every store does. */
  version?: string
  /** Whether its companion is there: the object was written to its end and checked. */
  complete: boolean
}

/**
 * Lists the snapshots of one server, or of all, oldest first. Only objects with an exact id directly beneath a server
 * count; anything else in the store is left alone.
 * @throws StorageError when the listing fails: never a short list.
 */
export async function listSnapshots(storage: Storage, server?: string, signal?: AbortSignal): Promise<Snapshot[]> {
  const prefix = server === undefined ? '' : `${checkServer(server)}/`
  const found = new Map<string, Snapshot>()
  const companions = new Set<string>()
  for await (const object of storage.list(prefix, { signal })) {
    const parts = object.key.split('/')
    const [owner, base] = parts
    if (parts.length !== 2 || owner === undefined || base === undefined || !isServer(owner)) continue
    if (base.endsWith(COMPANION_SUFFIX)) {
      companions.add(object.key.slice(0, -COMPANION_SUFFIX.length))
      continue
    }
    const name = parseObjectBase(base)
    if (!name) continue
    const created = idTime(name.id) as Date
    found.set(object.key, {
      ...name,
      server: owner,
      key: object.key,
      created,
      storedBytes: object.size,
      ...(object.version === undefined ? {} : { version: object.version }),
      complete: false,
    })
  }
  for (const snapshot of found.values()) snapshot.complete = companions.has(snapshot.key)
  return [...found.values()].sort((a, b) => compare(a.server, b.server) || compare(a.id, b.id))
}

function isServer(name: string): boolean {
  try {
    checkServer(name)
    return true
  } catch {
    return false
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** The key of a new object. */
export function snapshotKey(server: string, name: ObjectName): string {
  return `${server}/${objectBase(name)}`
}

/**
 * Finds a snapshot by its id, or the newest complete one by `latest`.
 * @param unfinished whether one without a companion may be given.
 * @throws BackupError NO_SNAPSHOT.
 */
export function findSnapshot(snapshots: readonly Snapshot[], id: string, unfinished: boolean): Snapshot {
  if (id === 'latest') {
    const newest = snapshots.findLast((snapshot) => snapshot.complete)
    if (newest) return newest
    throw new BackupError(
      'NO_SNAPSHOT',
      snapshots.length === 0
        ? 'There is no snapshot of this server in the store. Check the server name and the URL; `millrace list` shows what is there.'
        : `None of the ${snapshots.length} snapshots of this server is complete. Name one by its id to use it as it is.`,
    )
  }
  const found = snapshots.find((snapshot) => snapshot.id === id)
  if (!found)
    throw new BackupError(
      'NO_SNAPSHOT',
      `There is no snapshot ${id} of this server. \`millrace list\` shows what is there.`,
    )
  if (!found.complete && !unfinished) {
    throw new BackupError(
      'NO_SNAPSHOT',
      `Snapshot ${id} has no companion: its upload was not finished, or the companion was lost. Verify it, or allow unverified snapshots.`,
    )
  }
  return found
}
