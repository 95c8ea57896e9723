import { isOfFuture, type ListedSnapshot } from '../catalog.ts'
import { parseDuration } from '../duration.ts'
import type { KnownHead } from '../head-cache.ts'
import type { RecordedRun } from '../history.ts'
import type { Pin } from '../pins.ts'
import type { Decision, RetentionPolicy } from '../retention.ts'
import type { Remembered } from '../verify-notes.ts'
import { type Finding, findingsOf, type State, stateOf } from './findings.ts'
import { type AgeScale, ageScale, type Cell, cellsOf, type Point, pointsOf } from './series.ts'
import { TIERS, type Tier, tiersOf } from './tiers.ts'

/** One store, as its listing tells. */
export interface StoreFacts {
  /** Its location: a URL without credentials. */
  location: string
  /** Why it could not be read; nothing is known of it then. */
  problem?: string | undefined
  /** Of one server, with what the policy says of each. */
  decisions: Decision<ListedSnapshot>[]
}

/** What is known of one server. */
export interface ServerFacts {
  server: string
  /** The first is the one that is shown: one that could be read, where there is any. */
  stores: [StoreFacts, ...StoreFacts[]]
  policy: RetentionPolicy
  /** What the newest complete snapshot may be old, such as `26h`. */
  maxAge?: string | undefined
  /** What snapshots say of themselves, by key, where it is known here. */
  heads: ReadonlyMap<string, KnownHead>
  /** The last verification of each, by key. */
  verified: ReadonlyMap<string, Remembered>
  pins: readonly Pin[]
  /** Of this server and this machine, oldest first. */
  runs: readonly RecordedRun[]
}

/** What is known when a report is made. */
export interface ReportFacts {
  /** The time that ages are reckoned from. */
  now: Date
  servers: readonly ServerFacts[]
  /** Stores that could not be read where it is not known whose they are, and why. */
  unreadable: readonly { location: string; reason: string }[]
}

/** How much of it is shown one by one. */
export interface ReportLimits {
  /** Rows in a table of snapshots. */
  rows: number
  /** Rows in the tables of what goes, and of runs that failed. */
  shortRows: number
  points: number
  places: number
}

export const REPORT_LIMITS: ReportLimits = { rows: 200, shortRows: 12, points: 160, places: 320 }
/** With many servers each has fewer rows, so that the page stays of a size. */
const ROWS_OF_ALL = 1000
const ROWS_MIN = 20

export interface SnapshotRow {
  id: string
  /** ISO 8601, UTC, as all times here. */
  created: string
  ageMs: number
  storedBytes: number
  /** The archive's bytes; null when they are not known here. */
  bytes: number | null
  consistency: string | null
  tiers: Tier[]
  action: 'keep' | 'remove'
  reasons: string[]
  encrypted: boolean
  note: string | null
  verified: { status: Remembered['status']; mode: Remembered['mode']; at: string } | null
}

/** Snapshots that go for the same reasons, none that stays between them. */
export interface RemoveRow {
  /** When the oldest and the newest of them were made. */
  from: string
  to: string
  count: number
  storedBytes: number
  reasons: string[]
}

export interface StoreSummary {
  location: string
  newest: { id: string; created: string; ageMs: number } | null
  complete: number
  unfinished: number
  storedBytes: number
  tooOld: boolean
  /** Why it could not be read; null when it was. */
  problem: string | null
}

export interface MonthRow {
  /** `2026-11` */
  month: string
  snapshots: number
  storedBytes: number
  remove: number
}

/** What the page says of one server. */
export interface ServerReport {
  server: string
  state: State
  findings: Finding[]
  /** Each store; the rest is of the first. */
  stores: StoreSummary[]
  newest: StoreSummary['newest']
  oldest: string | null
  counts: { complete: number; unfinished: number; pinned: number; future: number; remove: number }
  storedBytes: number
  removeBytes: number
  policy: RetentionPolicy
  maxAge: string | null
  lastVerified: { id: string; status: Remembered['status']; mode: Remembered['mode']; at: string } | null
  lastBackup: RecordedRun | null
  timeline: { scale: AgeScale; all: Cell[]; lanes: { tier: Tier; label: string; count: number; cells: Cell[] }[] }
  /** Of complete snapshots, over the time they were made. `content` only where it is known. */
  stored: Point[]
  content: Point[]
  ratio: Point[]
  runs: {
    /** When the first that is known ended; null when there is none. */
    since: string | null
    backups: number
    failed: number
    incomplete: number
    /** Bytes before compression a second, of backups. */
    throughput: Point[]
    failures: { at: string; failed: boolean }[]
    /** How many runs of any command did not go well. */
    badCount: number
    /** The newest runs that did not go well, newest first. */
    bad: RecordedRun[]
  }
  /** What the next prune removes, newest first; `counts.remove` and `removeBytes` are of all. */
  remove: RemoveRow[]
  /** The newest, newest first. */
  snapshots: SnapshotRow[]
  /** The others, by month, newest first. */
  months: MonthRow[]
}

/** All that the page says; nothing in it is markup. */
export interface ReportModel {
  v: 1
  generated: string
  servers: ServerReport[]
  unreadable: { location: string; reason: string }[]
}

/**
 * Makes what is known into what is shown. Pure: it reads no clock, no store and no file.
 * @param limits how much is shown one by one; the rest is summarised.
 */
export function buildReport(
  { now, servers, unreadable }: ReportFacts,
  limits: ReportLimits = REPORT_LIMITS,
): ReportModel {
  const rows = Math.min(limits.rows, Math.max(ROWS_MIN, Math.floor(ROWS_OF_ALL / Math.max(1, servers.length))))
  return {
    v: 1,
    generated: now.toISOString(),
    servers: servers.map((facts) => buildServer(facts, now.getTime(), { ...limits, rows })),
    unreadable: [...unreadable],
  }
}

function buildServer(facts: ServerFacts, now: number, limits: ReportLimits): ServerReport {
  const { server, policy, runs } = facts
  const maxAgeMs = facts.maxAge === undefined ? undefined : parseDuration(facts.maxAge)
  const stores = facts.stores.map((store) => summaryOf(store, now, maxAgeMs))
  const { decisions } = facts.stores[0]
  const complete = decisions.filter(({ snapshot }) => snapshot.complete)
  const going = decisions.filter(({ action }) => action === 'remove')
  const notes = new Map(facts.pins.map(({ id, note }) => [id, note]))
  const rowOf = (decision: Decision<ListedSnapshot>) => rowFor(decision, facts, notes, now)
  const newestFirst = decisions.toReversed()
  const first = stores[0] as StoreSummary
  const backups = runs.filter(({ command }) => command === 'backup')
  const parts = {
    server,
    stores,
    newest: first.newest,
    oldest: complete[0]?.snapshot.created.toISOString() ?? null,
    counts: {
      complete: complete.length,
      unfinished: first.unfinished,
      pinned: decisions.filter(({ snapshot }) => snapshot.pinned).length,
      future: complete.filter(({ snapshot }) => isOfFuture(snapshot, now)).length,
      remove: going.length,
    },
    storedBytes: first.storedBytes,
    removeBytes: sum(going.map(({ snapshot }) => snapshot.storedBytes)),
    policy,
    maxAge: facts.maxAge ?? null,
    lastVerified: lastVerified(facts),
    lastBackup: backups.at(-1) ?? null,
    timeline: timelineOf(decisions, now, limits.places),
    ...sizesOf(complete, facts.heads, limits.points),
    runs: runsOf(runs, backups, limits),
    remove: removeRows(newestFirst).slice(0, limits.shortRows),
    snapshots: newestFirst.slice(0, limits.rows).map(rowOf),
    months: monthsOf(newestFirst.slice(limits.rows)),
  }
  const findings = findingsOf(parts, { now, verified: [...facts.verified.values()] })
  return { ...parts, findings, state: stateOf(findings) }
}

/** Future-dated snapshots say nothing of how old the backups are; which those are is as for `millrace status`. */
function summaryOf(
  { location, problem, decisions }: StoreFacts,
  now: number,
  maxAgeMs: number | undefined,
): StoreSummary {
  const complete = decisions.filter(({ snapshot }) => snapshot.complete)
  const newest = complete.findLast(({ snapshot }) => !isOfFuture(snapshot, now))?.snapshot
  const ageMs = newest ? Math.max(0, now - newest.created.getTime()) : 0
  return {
    location,
    problem: problem ?? null,
    newest: newest ? { id: newest.id, created: newest.created.toISOString(), ageMs } : null,
    complete: complete.length,
    unfinished: decisions.length - complete.length,
    storedBytes: sum(decisions.map(({ snapshot }) => snapshot.storedBytes)),
    tooOld: newest === undefined || (maxAgeMs !== undefined && ageMs > maxAgeMs),
  }
}

function rowFor(
  decision: Decision<ListedSnapshot>,
  { heads, verified }: ServerFacts,
  notes: ReadonlyMap<string, string | null>,
  now: number,
): SnapshotRow {
  const { snapshot, action, reasons } = decision
  const head = heads.get(snapshot.key)
  const last = verified.get(snapshot.key)
  return {
    id: snapshot.id,
    created: snapshot.created.toISOString(),
    ageMs: now - snapshot.created.getTime(),
    storedBytes: snapshot.storedBytes,
    bytes: head?.bytes ?? null,
    consistency: head?.consistency ?? null,
    tiers: tiersOf(decision),
    action,
    reasons,
    encrypted: snapshot.encrypted,
    note: snapshot.pinned ? (notes.get(snapshot.id) ?? null) : null,
    verified: last ? { status: last.status, mode: last.mode, at: new Date(last.at).toISOString() } : null,
  }
}

function removeRows(newestFirst: readonly Decision<ListedSnapshot>[]): RemoveRow[] {
  const rows: RemoveRow[] = []
  let last: RemoveRow | undefined
  for (const { snapshot, action, reasons } of newestFirst) {
    const made = snapshot.created.toISOString()
    if (action === 'keep') last = undefined
    else if (last && last.reasons.join() === reasons.join()) {
      last.from = made
      last.count += 1
      last.storedBytes += snapshot.storedBytes
    } else {
      last = { from: made, to: made, count: 1, storedBytes: snapshot.storedBytes, reasons }
      rows.push(last)
    }
  }
  return rows
}

function lastVerified({ stores, verified }: ServerFacts): ServerReport['lastVerified'] {
  const found = stores[0].decisions.flatMap(({ snapshot }) => {
    const one = verified.get(snapshot.key)
    return one ? [{ id: snapshot.id, ...one }] : []
  })
  const last = found.reduce<(typeof found)[number] | undefined>((a, b) => (a && a.at >= b.at ? a : b), undefined)
  return last ? { id: last.id, status: last.status, mode: last.mode, at: new Date(last.at).toISOString() } : null
}

function timelineOf(decisions: readonly Decision<ListedSnapshot>[], now: number, places: number) {
  const times = decisions.map(({ snapshot }) => snapshot.created.getTime())
  const scale = ageScale(times, now)
  const byTier = new Map<Tier, number[]>()
  for (const decision of decisions) {
    const tiers = tiersOf(decision)
    for (const tier of tiers) {
      // That the newest stays is of interest only where nothing else keeps it.
      if (tier === 'newest' && tiers.length > 1) continue
      const found = byTier.get(tier) ?? []
      found.push(decision.snapshot.created.getTime())
      byTier.set(tier, found)
    }
  }
  const lanes = TIERS.flatMap(({ tier, label }) => {
    const found = byTier.get(tier)
    return found ? [{ tier, label, count: found.length, cells: cellsOf(found, scale, places) }] : []
  })
  return { scale, all: cellsOf(times, scale, places), lanes }
}

function sizesOf(
  complete: readonly Decision<ListedSnapshot>[],
  heads: ReadonlyMap<string, KnownHead>,
  most: number,
): Pick<ServerReport, 'stored' | 'content' | 'ratio'> {
  const all = complete.map(({ snapshot }) => ({
    at: snapshot.created.getTime(),
    stored: snapshot.storedBytes,
    bytes: heads.get(snapshot.key)?.bytes,
  }))
  const known = all.filter(({ bytes }) => bytes !== undefined) as (Omit<(typeof all)[number], 'bytes'> & {
    bytes: number
  })[]
  return {
    stored: pointsOf(
      all.map(({ at, stored }) => ({ at, value: stored })),
      most,
    ),
    content: pointsOf(
      known.map(({ at, bytes }) => ({ at, value: bytes })),
      most,
    ),
    ratio: pointsOf(
      known.filter(({ stored }) => stored > 0).map(({ at, bytes, stored }) => ({ at, value: bytes / stored })),
      most,
    ),
  }
}

function runsOf(runs: readonly RecordedRun[], backups: readonly RecordedRun[], limits: ReportLimits) {
  const isBad = ({ outcome }: RecordedRun) => outcome !== 'ok'
  const rates = backups.flatMap(({ at, bytes, elapsedMs }) =>
    bytes === undefined || elapsedMs <= 0 ? [] : [{ at: Date.parse(at), value: (bytes * 1000) / elapsedMs }],
  )
  const bad = backups.filter(isBad)
  return {
    since: runs[0]?.at ?? null,
    backups: backups.length,
    failed: backups.filter(isFailure).length,
    incomplete: backups.filter(({ outcome }) => outcome === 'incomplete').length,
    throughput: pointsOf(rates, limits.points),
    failures: bad.slice(-limits.points).map((run) => ({ at: run.at, failed: isFailure(run) })),
    badCount: runs.filter(isBad).length,
    bad: runs.filter(isBad).slice(-limits.shortRows).reverse(),
  }
}

/** Whether nothing came of a run. */
export function isFailure({ outcome }: RecordedRun): boolean {
  return outcome === 'failed' || outcome === 'interrupted'
}

function monthsOf(older: readonly Decision<ListedSnapshot>[]): MonthRow[] {
  const months = Map.groupBy(older, ({ snapshot }) => snapshot.created.toISOString().slice(0, 7))
  return [...months].map(([month, found]) => ({
    month,
    snapshots: found.length,
    storedBytes: sum(found.map(({ snapshot }) => snapshot.storedBytes)),
    remove: found.filter(({ action }) => action === 'remove').length,
  }))
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
