import type { ObjectStat, Storage } from '../adapters/storage.ts'
import { BackupError } from './errors.ts'
import {
  COMPANION_SUFFIX,
  checkServer,
  idTime,
  LEASE_FOLDER,
  type ObjectName,
  objectBase,
  PIN_SUFFIX,
  parseObjectBase,
} from './names.ts'

/** A snapshot from further ahead than this was dated by a clock that was wrong, and says nothing of its age. */
const FUTURE_MS = 10 * 60_000

/** One snapshot in a store, as its names and sizes tell; nothing of it has been opened. */
export interface Snapshot extends ObjectName {
  server: string
  /** The object's key in the store. */
  key: string
  created: Date
  /** The object's size as stored, in bytes. */
  storedBytes: number
  /** What the store's listing says of its content, where it says anything. */
  version?: string
  /** Whether its companion is there: the object was written to its end and checked. */
  complete: boolean
  /** Whether it is kept from `prune` until it is unpinned. */
  pinned: boolean
}

/** A snapshot as a listing of the store gives it. */
export interface ListedSnapshot extends Snapshot {
  /** When the store took the object, in its own clock. */
  modified: Date
  /** The store's name of exactly these bytes; see `ObjectStat`. */
  version?: string
}

/** All that a store has under one server, or under all. */
export interface Survey {
  /** By server, oldest first. */
  snapshots: ListedSnapshot[]
  /** Companions whose object is not there. */
  orphans: ObjectStat[]
  /** Keys of pins whose snapshot is not there. */
  strayPins: string[]
  /** What lies in a server's folder of leases. */
  leases: ObjectStat[]
  /** Keys of everything else, which is left alone. */
  foreign: string[]
}

/**
 * Lists the snapshots of one server, or of all, oldest first. Only objects with an exact id directly beneath a server
 * count; anything else in the store is left alone.
 * @throws StorageError when the listing fails: never a short list.
 */
export async function listSnapshots(
  storage: Storage,
  server?: string,
  signal?: AbortSignal,
): Promise<ListedSnapshot[]> {
  return (await surveyStore(storage, server, signal)).snapshots
}

/**
 * Lists what is there of one server, or of all, and sorts it by what it is.
 * @throws StorageError when the listing fails: never a part of it.
 */
export async function surveyStore(storage: Storage, server?: string, signal?: AbortSignal): Promise<Survey> {
  const prefix = server === undefined ? '' : `${checkServer(server)}/`
  const found = new Map<string, ListedSnapshot>()
  const companions = new Map<string, ObjectStat>()
  const pins = new Set<string>()
  const leases: ObjectStat[] = []
  const foreign: string[] = []
  for await (const object of storage.list(prefix, { signal })) {
    const { key } = object
    const [owner = '', base = '', ...deeper] = key.split('/')
    const name = deeper.length === 0 ? parseObjectBase(base) : null
    if (!isServer(owner)) foreign.push(key)
    else if (name) found.set(key, listed(owner, name, object))
    else if (base === LEASE_FOLDER) leases.push(object)
    else if (deeper.length === 0 && isOf(base, COMPANION_SUFFIX, parseObjectBase)) companions.set(key, object)
    else if (deeper.length === 0 && isOf(base, PIN_SUFFIX, idTime)) pins.add(key)
    else foreign.push(key)
  }
  const pinned = new Set<string>()
  for (const snapshot of found.values()) {
    const pin = pinKey(snapshot.server, snapshot.id)
    snapshot.complete = companions.delete(snapshot.key + COMPANION_SUFFIX)
    snapshot.pinned = pins.has(pin)
    pinned.add(pin)
  }
  return {
    snapshots: [...found.values()].sort((a, b) => compare(a.server, b.server) || compare(a.id, b.id)),
    orphans: [...companions.values()],
    strayPins: [...pins].filter((key) => !pinned.has(key)),
    leases,
    foreign,
  }
}

function listed(server: string, name: ObjectName, { key, size, modified, version }: ObjectStat): ListedSnapshot {
  const created = idTime(name.id) as Date
  const states = { complete: false, pinned: false }
  return { ...name, server, key, created, storedBytes: size, ...states, modified, ...(version && { version }) }
}

function isOf(base: string, suffix: string, parse: (stem: string) => unknown): boolean {
  return base.endsWith(suffix) && parse(base.slice(0, -suffix.length)) !== null
}

/** The key of the object that pins a snapshot. */
export function pinKey(server: string, id: string): string {
  return `${server}/${id}${PIN_SUFFIX}`
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

/** Whether a snapshot is dated further ahead of `now` (milliseconds) than clocks differ by. */
export function isOfFuture({ created }: Pick<Snapshot, 'created'>, now: number): boolean {
  return created.getTime() > now + FUTURE_MS
}

export interface FindOptions {
  /** Told, in a sentence, where `latest` has to do with snapshots that are dated in the future. */
  onNotice?: ((message: string) => void) | undefined
  /** The time to reckon from, in milliseconds. */
  now?: number | undefined
}

/**
 * Finds a snapshot by its id, or by `latest` the newest complete one. One that is dated in the future is the latest only
 * where there is no other: a clock was wrong when it was made, and nothing tells how old it is.
 * @param snapshots of one server, oldest first.
 * @param unfinished whether one without a companion may be given; `latest` never is one.
 * @throws BackupError NO_SNAPSHOT.
 */
export function findSnapshot<T extends Snapshot>(
  snapshots: readonly T[],
  id: string,
  unfinished: boolean,
  options: FindOptions = {},
): T {
  if (id === 'latest') return findLatest(snapshots, options)
  const found = snapshots.find((snapshot) => snapshot.id === id)
  if (!found)
    throw new BackupError(
      'NO_SNAPSHOT',
      `There is no snapshot ${id} of this server. \`millrace list\` shows what is there.`,
    )
  if (!found.complete && !unfinished) {
    throw new BackupError(
      'NO_SNAPSHOT',
      `Snapshot ${id} has no companion: its upload was not finished, or the companion was lost. Verify it, or allow unverified snapshots (--allow-unverified).`,
    )
  }
  return found
}

function findLatest<T extends Snapshot>(snapshots: readonly T[], { onNotice, now = Date.now() }: FindOptions): T {
  const complete = snapshots.filter((snapshot) => snapshot.complete)
  const future = complete.filter((snapshot) => isOfFuture(snapshot, now))
  const newest = complete.findLast((snapshot) => !isOfFuture(snapshot, now))
  const last = future.at(-1)
  const here = `this machine's clock says ${new Date(now).toISOString()}`
  if (newest) {
    if (last) {
      const which =
        future.length === 1 ? `Snapshot ${last.id} is` : `${future.length} snapshots, the last of them ${last.id}, are`
      onNotice?.(
        `${which} dated in the future (${here}), so the latest is taken to be ${newest.id}. Name one by its id to use it.`,
      )
    }
    return newest
  }
  if (last) {
    onNotice?.(
      `Every complete snapshot is dated in the future (${here}): the latest is taken to be ${last.id}. A clock is wrong, or was when it was made.`,
    )
    return last
  }
  throw new BackupError(
    'NO_SNAPSHOT',
    snapshots.length === 0
      ? 'There is no snapshot of this server in the store. Check the server name and the URL; `millrace list` shows what is there.'
      : `None of the ${snapshots.length} snapshots of this server is complete. Name one by its id to use it as it is.`,
  )
}
