import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type ListedSnapshot, surveyStore } from '../catalog.ts'
import type { KnownHead } from '../head-cache.ts'
import { type RecordedRun, readRuns } from '../history.ts'
import { describeSnapshots } from '../known.ts'
import { checkServer } from '../names.ts'
import { readPinsOf } from '../pins.ts'
import { planPrune } from '../prune.ts'
import type { RetentionPolicy } from '../retention.ts'
import { type Remembered, VerifyNotes } from '../verify-notes.ts'
import { REPORT_LIMITS, type ReportFacts, type ServerFacts, type StoreFacts } from './model.ts'

/** A store that is open, or why it is not. */
export type ReportStore = { storage: Storage } | { location: string; problem: string }

/** Where backups are looked for. */
export interface ReportPlace {
  /** A server, which is shown even where nothing of it is there; all that are found when left out. */
  server?: string | undefined
  /** The first that can be read is the one that is shown; the others are compared with it. */
  stores: readonly ReportStore[]
}

/** What a report is made of, and how. */
export interface CollectOptions {
  /** What is to stay of a server, and what its newest complete snapshot may be old, such as `26h`. */
  settingsOf: (server: string) => { policy: RetentionPolicy; maxAge?: string | undefined }
  stateFolder: string
  now: Date
  signal?: AbortSignal | undefined
}

interface Found {
  /** undefined: it could not be read. */
  storage: Storage | undefined
  facts: StoreFacts
}

/**
 * Finds out what there is to report: what the stores list, and what this machine remembers. No object is opened, and
 * nothing is changed. A store that cannot be read is a part of what is reported.
 * @throws BackupError USAGE for a bad server name or policy, JOURNAL when the history is there and cannot be read;
 * AbortError.
 */
export async function collectReport(places: readonly ReportPlace[], options: CollectOptions): Promise<ReportFacts> {
  const { now, stateFolder } = options
  const servers = new Map<string, Found[]>()
  const unreadable: { location: string; reason: string }[] = []
  const add = (name: string, found: Found) => servers.set(name, [...(servers.get(name) ?? []), found])
  for (const { server, stores } of places) {
    if (server !== undefined) checkServer(server)
    for (const store of stores) {
      const found = await readStore(store, server, options)
      if (found instanceof Map) for (const [name, one] of found) add(name, one)
      else if (server === undefined) unreadable.push({ location: found.location, reason: found.problem })
      else add(server, { storage: undefined, facts: { ...found, decisions: [] } })
    }
  }
  const runs = Map.groupBy(await Array.fromAsync(readRuns(stateFolder)), (run) => run.server)
  const facts: ServerFacts[] = []
  const verified = await verifiedIn(servers.values(), stateFolder)
  for (const [name, found] of [...servers].sort(([a], [b]) => (a < b ? -1 : 1))) {
    facts.push(await serverFacts(name, found, runs.get(name) ?? [], verified, options))
  }
  return { now, servers: facts, unreadable }
}

/** @returns what a store has, by server; or why it cannot be read. */
async function readStore(
  store: ReportStore,
  server: string | undefined,
  options: CollectOptions,
): Promise<Map<string, Found> | { location: string; problem: string }> {
  if (!('storage' in store)) return store
  const { storage } = store
  const { signal } = options
  try {
    const { snapshots } = await surveyStore(storage, server, signal)
    const byServer = Map.groupBy(snapshots, (one) => one.server)
    if (server !== undefined && snapshots.length === 0) byServer.set(server, [])
    const found = new Map<string, Found>()
    for (const [name, own] of byServer) {
      found.set(name, { storage, facts: await storeFacts(storage, name, own, options) })
    }
    return found
  } catch (error) {
    if (!(error instanceof StorageError) || signal?.aborted) throw error
    return { location: storage.location, problem: error.message }
  }
}

async function storeFacts(
  storage: Storage,
  server: string,
  own: ListedSnapshot[],
  { settingsOf, now, stateFolder: stateDir }: CollectOptions,
): Promise<StoreFacts> {
  // A dry run takes no lease; that it could is what makes it say which unfinished snapshots would be swept.
  const lease = () => Promise.reject(new Error('a dry run takes no lease'))
  const survey = { snapshots: own, orphans: [], strayPins: [], leases: [], foreign: [] }
  const { policy } = settingsOf(server)
  const { snapshots } = await planPrune({ storage, server }, survey, policy, { now, stateDir, lease })
  return { location: storage.location, decisions: snapshots }
}

async function serverFacts(
  server: string,
  found: readonly Found[],
  runs: readonly RecordedRun[],
  verified: ReadonlyMap<Storage, ReadonlyMap<string, Remembered>>,
  { settingsOf, stateFolder, signal }: CollectOptions,
): Promise<ServerFacts> {
  const readable = found.filter(({ storage }) => storage !== undefined)
  const stores = [...readable, ...found.filter(({ storage }) => storage === undefined)].map(({ facts }) => facts)
  const storage = readable[0]?.storage
  const snapshots = readable[0]?.facts.decisions.map(({ snapshot }) => snapshot) ?? []
  const described = storage ? await describeSnapshots(storage, snapshots, { stateFolder, signal }) : []
  const heads = new Map<string, KnownHead>()
  for (const { key, known } of described) if (known) heads.set(key, known)
  const pinned = snapshots.slice(-REPORT_LIMITS.rows).filter((one) => one.pinned)
  const locations = new Set(stores.map(({ location }) => location))
  return {
    ...{ server, ...settingsOf(server), heads },
    stores: stores as [StoreFacts, ...StoreFacts[]],
    verified: verifiedOf(snapshots, storage && verified.get(storage)),
    pins: storage ? await notesOf(storage, pinned, signal) : [],
    runs: runs.filter(({ destinations }) => isOf(destinations, locations)),
  }
}

/** A run that failed before it had a destination counts for all. */
function isOf(destinations: RecordedRun['destinations'], locations: ReadonlySet<string>): boolean {
  return !destinations || destinations.some(({ destination }) => locations.has(destination))
}

/** What is remembered of the snapshots that are shown. That of a store is in one file, read once for all servers. */
async function verifiedIn(servers: Iterable<readonly Found[]>, stateFolder: string) {
  const shown = new Map<Storage, ListedSnapshot[]>()
  for (const found of servers) {
    const first = found.find(({ storage }) => storage !== undefined)
    if (!first?.storage) continue
    const all = shown.get(first.storage) ?? []
    for (const { snapshot } of first.facts.decisions) all.push(snapshot)
    shown.set(first.storage, all)
  }
  const verified = new Map<Storage, ReadonlyMap<string, Remembered>>()
  for (const [storage, all] of shown) {
    verified.set(storage, await new VerifyNotes(stateFolder, storage.location).verified(all))
  }
  return verified
}

function verifiedOf(snapshots: readonly ListedSnapshot[], known: ReadonlyMap<string, Remembered> = new Map()) {
  const found = new Map<string, Remembered>()
  for (const { key } of snapshots) {
    const one = known.get(key)
    if (one) found.set(key, one)
  }
  return found
}

/** Why something is pinned is worth no failure. */
async function notesOf(storage: Storage, pinned: readonly ListedSnapshot[], signal: AbortSignal | undefined) {
  try {
    return await readPinsOf(storage, pinned, signal)
  } catch (error) {
    if (!(error instanceof StorageError) || signal?.aborted) throw error
    return []
  }
}
