import type { Times } from './times.ts'

/*
 * When a job runs next: a pure function of its schedule, of what came of it before, of the clock, and of chance. It is
 * asked anew after each event and at least once a minute, so a clock that jumps is answered by the next plan. All times
 * are in ms since 1970 and by the machine's clock.
 */

/** So much late, a run is still the one of its time, and none that makes up for it. */
export const LATE_MS = 2 * 60_000

/** After the first, second and third failure in a row; then the next time of the schedule is waited for. */
export const RETRY_MS: readonly number[] = [5 * 60_000, 15 * 60_000, 45 * 60_000]

/** What is to be done at which times. */
export interface JobTimes {
  times: Times
  /** A run begins up to so much later than its time, drawn anew for each. */
  jitterMs: number
  /** Whether a run is made up for that was missed. */
  catchUp: boolean
}

/** What is known of a job's runs. */
export interface JobRecord {
  /** The latest time of the schedule that needs no run any more. */
  servedAt?: number | undefined
  startedAt?: number | undefined
  endedAt?: number | undefined
  /** How often in a row the run of `servedAt` has failed in a way that trying again may heal. */
  failures?: number | undefined
}

export type Reason = 'schedule' | 'catch-up' | 'retry' | 'run-now'

/** A run that is to come. */
export interface Pending {
  /** The time of the schedule that it is for. */
  due: number
  /** When it begins. */
  at: number
  reason: Reason
}

export interface Plan {
  /** The record as it is to be kept. */
  record: JobRecord
  /** undefined for a schedule whose times are over. */
  pending: Pending | undefined
  /** A time that has passed without a run, and without one that makes up for it. */
  skipped?: number
}

/**
 * Plans a job's next run.
 * @param record what came of it before; of one that has never run, its times count from now.
 * @param pending the plan before this one; it stays as it is, its jitter too, unless the clock or the record say
 * otherwise.
 * @param random gives numbers from 0 up to 1, as Math.random does.
 */
export function planJob(
  job: JobTimes,
  record: JobRecord,
  pending: Pending | undefined,
  now: number,
  random: () => number,
): Plan {
  const { times, jitterMs, catchUp } = job
  const draw = () => Math.floor(random() * jitterMs)
  const kept = withoutFuture(times, record, now)
  let servedAt = kept.servedAt as number
  let skipped: number | undefined
  const latest = times.latest(now)
  if (latest !== undefined && latest > servedAt) {
    const isWaitedFor =
      pending !== undefined &&
      pending.due > servedAt &&
      pending.due <= now &&
      now - pending.at <= LATE_MS &&
      pending.at <= now + jitterMs
    if (isWaitedFor) return { record: kept, pending: { ...pending, due: latest } }
    if (now - latest <= LATE_MS)
      return { record: kept, pending: { due: latest, at: latest + draw(), reason: 'schedule' } }
    if (catchUp) return { record: kept, pending: { due: latest, at: now + draw(), reason: 'catch-up' } }
    servedAt = latest
    skipped = latest
  }
  const due = times.next(Math.max(now, servedAt))
  const next = { ...kept, servedAt }
  const plan = (one: Pending | undefined): Plan =>
    skipped === undefined ? { record: next, pending: one } : { record: next, pending: one, skipped }
  const retry = retryOf(next, now)
  if (retry !== undefined && (due === undefined || retry < due)) {
    const isKept = pending?.reason === 'retry' && pending.at <= retry
    return plan({ due: servedAt, at: isKept ? pending.at : retry, reason: 'retry' })
  }
  if (due === undefined) return plan(undefined)
  const isKept = pending?.reason === 'schedule' && pending.due === due
  return plan({ due, at: isKept ? pending.at : due + draw(), reason: 'schedule' })
}

/**
 * What a run that has ended leaves behind.
 * @param run its time of the schedule, when it began, and why.
 * @param outcome 'retry' for a failure that trying again may heal.
 * @returns the record, and the time that came while the run was at work, if one did: it is left out.
 */
export function recordEnd(
  job: JobTimes,
  record: JobRecord,
  run: { due: number; startedAt: number; reason: Reason },
  outcome: 'done' | 'retry',
  now: number,
): { record: JobRecord; skipped?: number } {
  const latest = job.times.latest(now)
  const isPassed = latest !== undefined && latest > run.due
  const before = run.reason === 'retry' ? (record.failures ?? 0) : 0
  const failures = outcome === 'retry' ? before + 1 : 0
  const servedAt = Math.max(record.servedAt ?? run.due, isPassed ? latest : run.due)
  const ended = { servedAt, startedAt: run.startedAt, endedAt: now, failures }
  return isPassed && latest > run.startedAt ? { record: ended, skipped: latest } : { record: ended }
}

/**
 * The record after the clock has been set: its moments, as the clock now says that they were.
 * @param byMs how far it has jumped; negative for back.
 */
export function shiftRecord<T extends JobRecord>(record: T, byMs: number): T {
  const { startedAt, endedAt } = record
  return {
    ...record,
    ...(startedAt === undefined ? {} : { startedAt: startedAt + byMs }),
    ...(endedAt === undefined ? {} : { endedAt: endedAt + byMs }),
  }
}

/** When a failed run is tried again; undefined when it is not. */
function retryOf({ failures = 0, endedAt }: JobRecord, now: number): number | undefined {
  const wait = failures > 0 ? RETRY_MS[failures - 1] : undefined
  if (wait === undefined) return undefined
  return Math.min((endedAt ?? now) + wait, now + wait)
}

/**
 * The record without times that are still to come, which it has when the clock was set back. The next time counts as
 * served when the last run, in real time, was less than half of the way to it ago: it is the same one, once more. Any
 * other that the clock says is to come did not happen by this clock.
 */
function withoutFuture(times: Times, record: JobRecord, now: number): JobRecord {
  const { servedAt = now } = record
  if (servedAt <= now) return { ...record, servedAt }
  const startedAt = Math.min(record.startedAt ?? now, now)
  const endedAt = record.endedAt === undefined ? {} : { endedAt: Math.min(record.endedAt, now) }
  const next = times.next(now)
  const after = next === undefined ? undefined : times.next(next)
  const isSame = next !== undefined && after !== undefined && servedAt >= next && next - startedAt < (after - next) / 2
  return { ...record, startedAt, ...endedAt, servedAt: isSame ? next : now }
}
