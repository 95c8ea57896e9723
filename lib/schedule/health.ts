import { parseDuration } from '../duration.ts'
import { formatSamples, type MetricUpdate, type SampleSet } from '../metrics.ts'
import type { JobKind } from './jobs.ts'
import { isFailing } from './outcome.ts'
import type { Reason } from './plan.ts'
import type { JobView } from './scheduler.ts'
import type { Outcome } from './state.ts'

/** As for `millrace status`. */
const FUTURE_MS = 10 * 60_000

/** What is to be seen of a job from outside. Times are texts of ISO 8601; null where there is none. */
export interface JobHealth {
  job: JobKind
  running: boolean
  queued: boolean
  lastStart: string | null
  lastEnd: string | null
  /** When the newest snapshot that is known was made; for a verify, when one last ended well. */
  lastSuccess: string | null
  lastExitCode: number | null
  lastOutcome: Outcome | null
  nextRun: string | null
  nextReason: Reason | null
}

export interface ServerHealth {
  ok: boolean
  /** Why it is not: a sentence each. */
  problems: string[]
  jobs: JobHealth[]
}

/** The content of the health file and of `GET /health`. */
export interface Health {
  ok: boolean
  pid: number
  started: string
  now: string
  servers: Record<string, ServerHealth>
}

/** When and where a daemon was started, in ms since 1970. */
export interface Daemon {
  pid: number
  startedAt: number
}

/**
 * Whether the backups come as they should.
 * @param maxAges the config's `maxAge` by server, as `26h`.
 * @param now ms since 1970.
 */
export function healthOf(
  views: readonly JobView[],
  maxAges: ReadonlyMap<string, string | undefined>,
  { pid, startedAt }: Daemon,
  now: number,
): Health {
  const servers: Record<string, ServerHealth> = {}
  for (const name of new Set(views.map(({ job }) => job.server))) {
    const jobs = views.filter(({ job }) => job.server === name)
    const problems = jobs.flatMap((one) => problemsOf(one, maxAges.get(name), now))
    servers[name] = { ok: problems.length === 0, problems, jobs: jobs.map(jobHealth) }
  }
  const ok = Object.values(servers).every((one) => one.ok)
  return { ok, pid, started: iso(startedAt) as string, now: iso(now) as string, servers }
}

function problemsOf({ job, state }: JobView, maxAge: string | undefined, now: number): string[] {
  const problems: string[] = []
  const what = job.kind === 'backup' ? 'backup' : 'verify'
  if (isFailing(job.kind, state)) {
    const missed = state.missed?.length ? ` has not reached ${state.missed.join(', ')}` : ' failed'
    problems.push(`The last ${what}${missed} (exit code ${state.exitCode ?? 'none: it was killed'}).`)
  }
  if (job.kind === 'backup' && maxAge !== undefined) {
    const { succeededAt } = state
    if (succeededAt === undefined) problems.push('There is no snapshot that is known of.')
    // It would hide that none has come since.
    else if (succeededAt > now + FUTURE_MS)
      problems.push(
        `The newest snapshot that is known of is dated in the future (${iso(succeededAt)}): a clock is wrong, or was.`,
      )
    else if (now - succeededAt > parseDuration(maxAge)) problems.push(`The newest snapshot is older than ${maxAge}.`)
  }
  return problems
}

function jobHealth({ job, state, next, isQueued, runningSince }: JobView): JobHealth {
  return {
    job: job.kind,
    running: runningSince !== undefined,
    queued: isQueued,
    lastStart: iso(state.startedAt),
    lastEnd: iso(state.endedAt),
    lastSuccess: iso(state.succeededAt),
    lastExitCode: state.exitCode ?? null,
    lastOutcome: state.outcome ?? null,
    nextRun: iso(next?.at),
    nextReason: next?.reason ?? null,
  }
}

function iso(at: number | undefined): string | null {
  return at === undefined ? null : new Date(at).toISOString()
}

/** The text of `GET /metrics`: what a metrics file has, and the daemon's own. */
export function metricsText(
  updates: readonly MetricUpdate[],
  views: readonly JobView[],
  { startedAt }: Daemon,
): string {
  const ofJobs = (value: (view: JobView) => number | undefined): SampleSet['samples'] =>
    views.flatMap((view) => {
      const found = value(view)
      return found === undefined ? [] : [{ labels: { server: view.job.server, job: view.job.kind }, value: found }]
    })
  const own: SampleSet[] = [
    {
      name: 'millrace_schedule_start_timestamp_seconds',
      help: 'When the daemon was started.',
      samples: [{ labels: {}, value: startedAt / 1000 }],
    },
    {
      name: 'millrace_schedule_next_run_timestamp_seconds',
      help: 'When a job runs next.',
      samples: ofJobs(({ next }) => (next === undefined ? undefined : next.at / 1000)),
    },
    {
      name: 'millrace_schedule_running',
      help: 'Whether a run of a job is at work.',
      samples: ofJobs(({ runningSince }) => (runningSince === undefined ? 0 : 1)),
    },
    {
      name: 'millrace_schedule_last_exit_code',
      help: "The exit code of a job's last run; -1 when it was killed.",
      samples: ofJobs(({ state }) => (state.outcome === undefined ? undefined : (state.exitCode ?? -1))),
    },
    {
      name: 'millrace_schedule_runs_total',
      help: 'Runs that have ended since the daemon was started.',
      type: 'counter',
      samples: views.flatMap(({ job, runs }) =>
        Object.entries(runs).map(([outcome, value]) => ({
          labels: { server: job.server, job: job.kind, outcome },
          value,
        })),
      ),
    },
  ]
  return formatSamples(updates, own)
}
