import { EXIT, signalExitCode } from '../cli/exit-codes.ts'
import { type MetricUpdate, withoutFuture } from '../metrics.ts'
import type { JobKind } from './jobs.ts'
import type { RunResult } from './run.ts'
import type { JobState, Outcome } from './state.ts'

/** What an exit code of the command means. */
const MEANINGS: Readonly<Record<number, string>> = {
  [EXIT.GOOD]: 'good',
  [EXIT.FAILED]: 'failed',
  [EXIT.USAGE]: 'cannot be done as the config says',
  [EXIT.INCOMPLETE]: 'done, but incomplete',
  [EXIT.DAMAGED]: 'damaged, or wrong password',
  [EXIT.REFUSED]: 'refused',
  [EXIT.TOO_OLD]: 'too old',
  [EXIT.DEFERRED]: 'good; the lock of the store defers some deletes',
  // A run that a signal asked to stop cleans up, and then ends by itself.
  [signalExitCode('SIGHUP')]: 'interrupted',
  [signalExitCode('SIGINT')]: 'interrupted',
  [signalExitCode('SIGTERM')]: 'interrupted',
}

/** In words, how a run ended. */
export function meaningOf({ exitCode, signal }: RunResult): string {
  if (exitCode === null) return signal === undefined ? 'not started' : `ended by ${signal}`
  return MEANINGS[exitCode] ?? 'failed'
}

/** @param isStopping whether it was asked to stop: then a run that made nothing was interrupted. */
export function outcomeOf(kind: JobKind, { exitCode, snapshot }: RunResult, isStopping: boolean): Outcome {
  if (exitCode === EXIT.GOOD || exitCode === EXIT.DEFERRED) return 'good'
  // An object without its companion is that exit code too, and no snapshot.
  if (exitCode === EXIT.INCOMPLETE && (kind !== 'backup' || snapshot)) return 'incomplete'
  return isStopping ? 'interrupted' : 'failed'
}

/**
 * Whether trying again may heal it. A config that is wrong stays so until somebody changes it, and what is damaged stays
 * damaged; a store that did not answer, a held lease and a killed process may go better.
 */
export function mayHeal({ exitCode }: RunResult): boolean {
  return exitCode !== EXIT.USAGE && exitCode !== EXIT.DAMAGED && exitCode !== EXIT.TOO_OLD
}

/** Whether the last run of a job is one to look after. */
export function isFailing(kind: JobKind, { outcome, missed }: JobState): boolean {
  if (outcome === 'failed') return true
  // A world that changes while it is read is incomplete each time; a copy that is missing is another matter.
  return outcome === 'incomplete' && (kind === 'verify' || (missed?.length ?? 0) > 0)
}

/** What of a run is kept in the job's state, beside its times. */
export function stateOf(kind: JobKind, before: JobState, result: RunResult, outcome: Outcome, now: number): JobState {
  const { exitCode, snapshot } = result
  const succeededAt = kind === 'backup' ? snapshot?.createdAt : outcome === 'good' ? now : undefined
  const missed = snapshot?.destinations.filter(({ ok }) => !ok).map(({ destination }) => destination)
  return { exitCode, outcome, succeededAt: succeededAt ?? before.succeededAt, missed: missed ?? [] }
}

/**
 * The metrics of a server after a run.
 * @param before those that it had; what the run says nothing of stays.
 * @param isWhole whether a verify read what it looked at, and not names and sizes alone.
 */
export function metricsAfter(
  server: string,
  kind: JobKind,
  known: readonly MetricUpdate[],
  result: RunResult,
  { outcome, now, isWhole }: { outcome: Outcome; now: number; isWhole: boolean },
): MetricUpdate[] {
  const before = known.map((one) => withoutFuture(one, now))
  const seconds = Math.floor(now / 1000)
  const { snapshot } = result
  if (kind === 'verify') {
    // It is the first that is read from.
    return before.map((one, at) =>
      at === 0 && outcome === 'good' && isWhole ? { ...one, lastVerified: seconds } : one,
    )
  }
  if (snapshot === undefined) {
    return outcome === 'failed' ? before.map((one) => ({ ...one, lastFailure: seconds })) : before
  }
  const { bytes, storedBytes, elapsedMs, createdAt, destinations } = snapshot
  const took = elapsedMs / 1000
  return destinations.map(({ destination, ok }) => {
    const old = before.find((one) => one.destination === destination)
    const made = { lastSuccess: createdAt / 1000, bytes, storedBytes, seconds: took, bytesPerSecond: bytes / took }
    return { ...old, server, destination, ...(ok ? made : { lastFailure: seconds }) }
  })
}
