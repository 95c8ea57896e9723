import type { ListedSnapshot } from '../../lib/catalog.ts'
import type { KnownHead } from '../../lib/head-cache.ts'
import type { RecordedRun } from '../../lib/history.ts'
import type { ServerFacts } from '../../lib/report/model.ts'
import { type Decision, decideRetention, type RetentionPolicy } from '../../lib/retention.ts'
import type { Remembered } from '../../lib/verify-notes.ts'
import { DAY_MS, HOUR_MS } from './retention.ts'

export const NOW = new Date('2026-11-27T22:40:00.000Z')
export const STORE = 's3://worlds/mc?region=eu-central-1'
const MIB = 1024 * 1024

/** From 0 to 1, the same for the same number. */
export function noise(n: number): number {
  const x = Math.sin(n * 12.9898 + 4.1414) * 43758.5453
  return x - Math.floor(x)
}

/** A snapshot as a listing gives it. */
export function listedAt(server: string, created: number, state: Partial<ListedSnapshot> = {}): ListedSnapshot {
  const time = new Date(created)
  const random = Math.floor(noise(created / 1000) * 36 ** 4)
    .toString(36)
    .padStart(4, '0')
  const id = `${time.toISOString().replaceAll(':', '-')}-${random}`
  const of = { server, id, kind: 'tar', encrypted: true, key: `${server}/${id}.tar.zst.mlr` } as const
  return { ...of, created: time, modified: time, storedBytes: 0, complete: true, pinned: false, ...state }
}

export interface WorldOptions {
  server?: string
  /** How many backups there were, one each `everyMs`, the newest `agoMs` before NOW. */
  backups: number
  everyMs?: number
  agoMs?: number
  policy?: RetentionPolicy
  /** Whether a prune has removed all but the last few of what the policy does not keep. */
  pruned?: boolean
  /** The stored bytes of the first; they grow. */
  storedBytes?: number
  /** How many of the newest are known here. */
  known?: number
}

/** A server whose world grows, with a few failures, one pin and one unfinished snapshot: the same each time. */
export function worldFacts(options: WorldOptions): ServerFacts {
  const { server = 'survival', backups, everyMs = HOUR_MS, agoMs = 41 * 60_000, known = backups } = options
  const { policy = { keepHourly: 24, keepDaily: 14, keepWeekly: 8 }, storedBytes = 38_000 * MIB } = options
  const newest = NOW.getTime() - agoMs
  const all: ListedSnapshot[] = []
  const heads = new Map<string, KnownHead>()
  const runs: RecordedRun[] = []
  for (let n = 0; n < backups; n += 1) {
    const left = backups - 1 - n
    const created = newest - left * everyMs + Math.round(noise(n) * 40_000)
    const size = Math.round(storedBytes * (1 + 0.35 * (n / backups) + 0.02 * noise(n + 7)))
    const ratio = 1.62 + 0.08 * Math.sin(n / 900) + 0.02 * noise(n + 3)
    const bytes = Math.round(size * ratio)
    const bad = n % 97 === 61 ? 'failed' : n % 211 === 130 ? 'incomplete' : 'ok'
    const elapsedMs = Math.round((bytes / (170 * MIB)) * 1000 * (0.9 + 0.35 * noise(n + 11)))
    const at = new Date(created + elapsedMs).toISOString()
    const base = { v: 1, at, command: 'backup', server, elapsedMs } as const
    if (bad === 'failed') {
      const message = `${STORE} did not answer within 60 seconds, 5 times in a row.`
      runs.push({
        ...base,
        outcome: 'failed',
        exitCode: 1,
        elapsedMs: 300_000,
        error: { code: 'UNAVAILABLE', message },
      })
      continue
    }
    const snapshot = listedAt(server, created, { storedBytes: size, pinned: left === 40 })
    all.push(snapshot)
    if (left < known) heads.set(snapshot.key, { consistency: 'quiesced', files: 21_000 + n, bytes, excluded: 2 })
    const made = { id: snapshot.id, bytes, storedBytes: size, files: 21_000 + n, consistency: 'quiesced' }
    if (bad === 'ok') runs.push({ ...base, ...made, outcome: 'ok', exitCode: 0 })
    else {
      const error = { code: 'INCOMPLETE', message: 'changed while they were read: 3 files.' }
      runs.push({ ...base, ...made, outcome: 'incomplete', exitCode: 3, error })
    }
  }
  all.push(listedAt(server, newest - 3.4 * everyMs, { storedBytes: 12_000 * MIB, complete: false }))
  all.sort((a, b) => a.created.getTime() - b.created.getTime())
  const decisions = options.pruned ? afterPrune(all, policy) : decideRetention(all, policy, NOW)
  const verified = new Map<string, Remembered>()
  const [last] = decisions
    .filter(({ snapshot }) => snapshot.complete && snapshot.created.getTime() < newest - DAY_MS)
    .slice(-1)
  if (last) {
    const { key, storedBytes: size } = last.snapshot
    verified.set(key, { size, version: null, status: 'ok', mode: 'full', at: NOW.getTime() - 20 * HOUR_MS })
  }
  const pins = all
    .filter(({ pinned }) => pinned)
    .map(({ id }) => ({ id, note: 'before the update to 1.22', since: NOW, snapshot: true }))
  return { server, stores: [{ location: STORE, decisions }], policy, maxAge: '26h', heads, verified, pins, runs }
}

/** What stays when a prune ran two snapshots ago. */
function afterPrune(all: readonly ListedSnapshot[], policy: RetentionPolicy): Decision<ListedSnapshot>[] {
  const before = all.slice(0, -2)
  const kept = decideRetention(before, policy, NOW).filter(({ action }) => action === 'keep')
  return decideRetention([...kept.map(({ snapshot }) => snapshot), ...all.slice(-2)], policy, NOW)
}
