import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { listSnapshots } from '../catalog.ts'
import type { KnownHead } from '../head-cache.ts'
import { type RecordedRun, readRuns } from '../history.ts'
import { describeSnapshots } from '../known.ts'
import { checkServer } from '../names.ts'
import { readPins } from '../pins.ts'
import { pruneSnapshots } from '../prune.ts'
import type { RetentionPolicy } from '../retention.ts'
import { VerifyNotes } from '../verify-notes.ts'
import type { ReportFacts, ServerFacts, StoreFacts } from './model.ts'

export interface CollectOptions {
  /** Only this server, which is shown even where nothing of it is there; all that are found when left out. */
  server?: string | undefined
  policy: RetentionPolicy
  /** What the newest complete snapshot may be old, such as `26h`. */
  maxAge?: string | undefined
  stateFolder: string
  now: Date
  signal?: AbortSignal | undefined
}

/**
 * Finds out what there is to report: what the stores list, and what this machine remembers. No object is opened, and
 * nothing is changed.
 * @param storages the first that has a server is the one that is shown; the others are compared with it.
 * @throws the first store's StorageError when none can be listed; BackupError USAGE for a bad server name or policy;
 * the error of node:fs when the history is there and cannot be read; AbortError.
 */
export async function collectReport(storages: readonly Storage[], options: CollectOptions): Promise<ReportFacts> {
  const { server, now, signal, stateFolder } = options
  if (server !== undefined) checkServer(server)
  const servers = new Map<string, { storage: Storage; facts: StoreFacts }[]>()
  const unreadable: { location: string; reason: string }[] = []
  let first: StorageError | undefined
  for (const storage of storages) {
    try {
      const names =
        server === undefined ? (await listSnapshots(storage, undefined, signal)).map((one) => one.server) : [server]
      for (const name of new Set(names)) {
        const of = servers.get(name) ?? []
        of.push({ storage, facts: await storeFacts(storage, name, options) })
        servers.set(name, of)
      }
    } catch (error) {
      if (!(error instanceof StorageError) || signal?.aborted) throw error
      first ??= error
      unreadable.push({ location: storage.location, reason: error.message })
    }
  }
  if (first && unreadable.length === storages.length) throw first
  const runs = Map.groupBy(await Array.fromAsync(readRuns(stateFolder)), (run) => run.server)
  const facts: ServerFacts[] = []
  for (const [name, stores] of [...servers].sort(([a], [b]) => (a < b ? -1 : 1))) {
    facts.push(await serverFacts(name, stores, runs.get(name) ?? [], options))
  }
  return { now, servers: facts, unreadable }
}

async function storeFacts(storage: Storage, server: string, options: CollectOptions): Promise<StoreFacts> {
  const { policy, now, stateFolder: stateDir, signal } = options
  // A dry run takes no lease; that it could is what makes it say which unfinished snapshots would be swept.
  const lease = () => Promise.reject(new Error('a dry run takes no lease'))
  const { snapshots } = await pruneSnapshots({ storage, server }, policy, {
    dryRun: true,
    now,
    stateDir,
    lease,
    signal,
  })
  return { location: storage.location, decisions: snapshots }
}

async function serverFacts(
  server: string,
  stores: readonly { storage: Storage; facts: StoreFacts }[],
  runs: readonly RecordedRun[],
  { policy, maxAge, stateFolder, signal }: CollectOptions,
): Promise<ServerFacts> {
  const { storage, facts } = stores[0] as (typeof stores)[number]
  const snapshots = facts.decisions.map(({ snapshot }) => snapshot)
  const described = await describeSnapshots(storage, snapshots, { stateFolder, signal })
  const heads = new Map<string, KnownHead>()
  for (const { key, known } of described) if (known) heads.set(key, known)
  const locations = new Set(stores.map((one) => one.storage.location))
  return {
    ...{ server, policy, maxAge, heads },
    stores: stores.map((one) => one.facts) as [StoreFacts, ...StoreFacts[]],
    verified: await new VerifyNotes(stateFolder, storage.location).verified(snapshots),
    pins: snapshots.some(({ pinned }) => pinned) ? await notesOf(storage, server, signal) : [],
    // A run that failed before it had a destination counts for all.
    runs: runs.filter(
      ({ destinations }) => !destinations || destinations.some((one) => locations.has(one.destination)),
    ),
  }
}

/** Why something is pinned is worth no failure. */
async function notesOf(storage: Storage, server: string, signal: AbortSignal | undefined) {
  try {
    return await readPins(storage, server, signal)
  } catch (error) {
    if (!(error instanceof StorageError) || signal?.aborted) throw error
    return []
  }
}
