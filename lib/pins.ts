import type { CallOptions, Storage } from '../adapters/storage.ts'
import { type FindOptions, findSnapshot, pinKey, type Snapshot, surveyStore } from './catalog.ts'
import { BackupError } from './errors.ts'
import { idTime, PIN_SUFFIX } from './names.ts'
import { readSmall, writeSmall } from './small-object.ts'

const NOTE_MAX_CHARACTERS = 500

/** What keeps a snapshot from `prune`. */
export interface Pin {
  id: string
  /** Why, as whoever pinned it wrote; null when nothing was, or the pin says nothing that can be read. */
  note: string | null
  /** When it was pinned, by the clock of that machine; null when it does not say. */
  since: Date | null
  /** Whether there is a snapshot of that id. */
  snapshot: boolean
}

/**
 * Pins a snapshot: no policy removes it until it is unpinned. One that is pinned already is pinned anew.
 * @param id may be `latest`.
 * @param note for people, at most 500 characters; it is stored in plain text.
 * @throws BackupError NO_SNAPSHOT, USAGE; StorageError.
 */
export async function pinSnapshot(
  storage: Storage,
  server: string,
  id: string,
  note?: string,
  { signal, onNotice }: CallOptions & FindOptions = {},
): Promise<Pin> {
  if (note !== undefined && note.length > NOTE_MAX_CHARACTERS) {
    throw new BackupError('USAGE', `The note of a pin has at most ${NOTE_MAX_CHARACTERS} characters.`)
  }
  const { snapshots } = await surveyStore(storage, server, signal)
  const found = findSnapshot(snapshots, id, true, { onNotice })
  const since = new Date()
  await writeSmall(storage, pinKey(server, found.id), `${JSON.stringify({ since, note })}\n`, { signal })
  return { id: found.id, note: note ?? null, since, snapshot: true }
}

/**
 * Takes a snapshot's pin away; without one it does nothing.
 * @throws BackupError USAGE for what is no id; StorageError, LOCKED among them where the store locks what it keeps.
 */
export async function unpinSnapshot(storage: Storage, server: string, id: string, signal?: AbortSignal): Promise<void> {
  if (!idTime(id)) throw new BackupError('USAGE', `${JSON.stringify(id)} is not a snapshot's id.`)
  await storage.delete(pinKey(server, id), { signal })
}

/** Reads the pins of one server, oldest snapshot first. @throws StorageError. */
export async function readPins(storage: Storage, server: string, signal?: AbortSignal): Promise<Pin[]> {
  const { snapshots, strayPins } = await surveyStore(storage, server, signal)
  const keys = new Map<string, boolean>(strayPins.map((key) => [key, false]))
  for (const { id, pinned } of snapshots) if (pinned) keys.set(pinKey(server, id), true)
  const pins: Pin[] = []
  for (const [key, snapshot] of [...keys].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const id = key.slice(server.length + 1, -PIN_SUFFIX.length)
    pins.push({ id, ...parsePin(await readSmall(storage, key, { signal })), snapshot })
  }
  return pins
}

/** Reads the pins of snapshots that a listing has shown as pinned, in their order. @throws StorageError. */
export async function readPinsOf(
  storage: Storage,
  snapshots: readonly Snapshot[],
  signal?: AbortSignal,
): Promise<Pin[]> {
  const pins: Pin[] = []
  for (const { server, id } of snapshots) {
    pins.push({ id, ...parsePin(await readSmall(storage, pinKey(server, id), { signal })), snapshot: true })
  }
  return pins
}

/** An empty pin, or one that something else has written, pins as well as ours. */
function parsePin(text: string | null): { note: string | null; since: Date | null } {
  try {
    const { note, since } = JSON.parse(text ?? '') as Record<string, unknown>
    const time = new Date(typeof since === 'string' ? since : Number.NaN)
    return { note: typeof note === 'string' ? note : null, since: Number.isNaN(time.getTime()) ? null : time }
  } catch {
    return { note: null, since: null }
  }
}
