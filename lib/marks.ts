import { randomBytes } from 'node:crypto'
import type { ObjectStat, Storage } from '../adapters/storage.ts'
import { LEASE_FOLDER } from './names.ts'
import { writeSmall } from './small-object.ts'

// Marks say what is at work on a server's snapshots: `<server>/.lease/read-<id>-<random>` that one is being read, and
// `<server>/.lease/prune-<random>` which are being removed. Either side writes its own first and looks for the other's
// then, so that with listings that show what has been written, at least one of the two sees the other.

/** A mark that nobody has written again for so long is of a process that died. */
export const MARK_TTL_MS = 10 * 60_000
const BEAT_MS = MARK_TTL_MS / 4
/** One dated further ahead was made while the store's clock was wrong; a live process has written its own again since. */
const AHEAD_MAX_MS = 24 * 60 * 60_000
/** What a release may take: a reader must not be held up by a store that does not answer. */
const RELEASE_MS = 10_000

export interface Mark {
  key: string
  /** The store's time when the mark was written. Marks are compared in the store's own time only. */
  storeTime: Date
  /** Whether others still see it as live. */
  isLive(): boolean
  /** Stops writing it and removes it. Never fails: what cannot be removed expires. */
  release(): Promise<void>
}

/**
 * Writes a mark and keeps it live.
 * @param name such as `read-<id>`.
 * @throws StorageError when it cannot be written.
 */
export async function holdMark(
  storage: Storage,
  server: string,
  name: string,
  content: object,
  signal?: AbortSignal,
): Promise<Mark> {
  const key = `${server}/${LEASE_FOLDER}/${name}-${randomBytes(6).toString('hex')}`
  const text = `${JSON.stringify(content)}\n`
  const stop = new AbortController()
  let written = timesNow()
  await writeSmall(storage, key, text, { signal })
  let beating: Promise<void> = Promise.resolve()
  const beat = async () => {
    const begun = timesNow()
    try {
      await writeSmall(storage, key, text, { signal: stop.signal })
      written = begun
    } catch {
      // The next one may come through; until then the mark grows older.
    }
  }
  const timer = setInterval(() => {
    beating = beating.then(beat)
  }, BEAT_MS).unref()
  const release = async () => {
    clearInterval(timer)
    stop.abort()
    await beating
    await storage.delete(key, { signal: AbortSignal.timeout(RELEASE_MS) }).catch(() => {})
  }
  try {
    const { modified } = await storage.stat(key, { signal })
    return { key, storeTime: modified, isLive: () => isSince(written), release }
  } catch (error) {
    await release()
    throw error
  }
}

interface Times {
  monotonic: number
  wall: number
}

function timesNow(): Times {
  return { monotonic: performance.now(), wall: Date.now() }
}

/** By both clocks: on Linux the one that only goes on stands still while the machine sleeps, and the store's does not. */
function isSince({ monotonic, wall }: Times): boolean {
  return performance.now() - monotonic < MARK_TTL_MS && Date.now() - wall < MARK_TTL_MS
}

/** @returns the kind and the snapshot of a mark, by its key; null for a key that is none. */
export function parseMark(key: string): { kind: 'read'; id: string } | { kind: 'prune' } | null {
  const base = key.slice(key.lastIndexOf('/') + 1)
  const id = /^read-(.+)-[0-9a-f]{12}$/.exec(base)?.[1]
  if (id !== undefined) return { kind: 'read', id }
  return /^prune-[0-9a-f]{12}$/.test(base) ? { kind: 'prune' } : null
}

/** Whether a mark that was listed is of a process that lives, at a time of the store. */
export function isLiveMark({ modified }: ObjectStat, storeTime: Date): boolean {
  const age = storeTime.getTime() - modified.getTime()
  return age < MARK_TTL_MS && age > -AHEAD_MAX_MS
}
