import type { Storage } from '../adapters/storage.ts'
import { isOfFuture, listSnapshots, type Snapshot } from './catalog.ts'
import type { MetricUpdate } from './metrics.ts'

/** Whether the backups of a server still come. */
export interface Status {
  server: string
  /** The store's location: a URL without credentials. */
  destination: string
  /** The newest complete snapshot that is not of the future; null when there is none. */
  newest: Snapshot | null
  /** How old it is; null without one. */
  ageMs: number | null
  /** Complete ones. */
  snapshots: number
  /** Objects without a companion: runs that broke off, or that are at work. */
  unfinished: number
  /** Complete ones dated later than now: a clock is or was wrong. */
  future: number
  /** Older than `maxAgeMs`, or there is none. */
  tooOld: boolean
}

/**
 * Looks how old a server's newest snapshot is; by names alone, nothing is opened.
 * @param options.maxAgeMs Infinity, the default: only none at all is too old.
 * @param options.now the time to reckon from, in milliseconds.
 * @throws StorageError.
 */
export async function readStatus(
  storage: Storage,
  server: string,
  options: { maxAgeMs?: number | undefined; now?: number | undefined; signal?: AbortSignal | undefined } = {},
): Promise<Status> {
  const { maxAgeMs = Number.POSITIVE_INFINITY, now = Date.now(), signal } = options
  const all = await listSnapshots(storage, server, signal)
  const complete = all.filter((one) => one.complete)
  const past = complete.filter((one) => !isOfFuture(one, now))
  const newest = past.at(-1) ?? null
  const ageMs = newest && Math.max(0, now - newest.created.getTime())
  return {
    server,
    destination: storage.location,
    newest,
    ageMs,
    snapshots: complete.length,
    unfinished: all.length - complete.length,
    future: complete.length - past.length,
    tooOld: ageMs === null || ageMs > maxAgeMs,
  }
}

/** What a status says, as metrics. */
export function statusMetrics({ server, destination, newest, snapshots, unfinished }: Status): MetricUpdate {
  const lastSuccess = newest ? newest.created.getTime() / 1000 : undefined
  return { server, destination, snapshots, unfinished, lastSuccess }
}
