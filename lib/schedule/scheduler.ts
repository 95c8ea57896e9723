import type { Clock } from './clock.ts'
import { type Job, type JobKind, jobName } from './jobs.ts'
import { mayHeal, meaningOf, metricsAfter, outcomeOf, stateOf } from './outcome.ts'
import { type Pending, planJob, type Reason, recordEnd, shiftRecord } from './plan.ts'
import type { Run, Runner, RunResult } from './run.ts'
import type { JobState, Outcome, ServerState } from './state.ts'

/** However far away the next run is: the clock is looked at so often. */
const TICK_MS = 60_000
/** What a clock that is only corrected never does between two looks. */
const STEP_MS = 1000
/** A store that does not answer keeps its server waiting no longer than this. */
const LOOKUP_MS = 5 * 60_000

/** What the scheduler says while it works. Times are in ms since 1970. */
export type SchedulerEvent = { time: number } & (
  | { event: 'run-planned'; server: string; job: JobKind; at: number; due: number; reason: Reason }
  | { event: 'run-skipped'; server: string; job: JobKind; due: number; why: 'missed' | 'still running' }
  | { event: 'run-start'; server: string; job: JobKind; due: number; reason: Reason }
  | {
      event: 'run-end'
      server: string
      job: JobKind
      outcome: Outcome
      meaning: string
      elapsedMs: number
      result: RunResult
      next: Pending | undefined
    }
  | { event: 'clock-step'; byMs: number }
)

export interface SchedulerOptions {
  jobs: readonly Job[]
  /** By server, as they were saved; they are changed as runs end. */
  states: Map<string, ServerState>
  runner: Runner
  clock: Clock
  random: () => number
  /** How many runs may be at work at once, of different servers. */
  parallel: number
  /** Whether each backup runs at the start, whatever its time. */
  runNow?: boolean
  onEvent: (event: SchedulerEvent) => void
  /** Called after each change of `states`, and after each look at the clock. */
  onChange: () => void
}

/** What is to be seen of a job. */
export interface JobView {
  job: Job
  state: JobState
  next: Pending | undefined
  isQueued: boolean
  /** Since when it runs. */
  runningSince: number | undefined
  /** Runs that have ended since the start. */
  runs: Readonly<Record<Outcome, number>>
}

interface Wanted {
  due: number
  reason: Reason
}

interface Entry {
  job: Job
  /** false until it is known when it last ran: no plan without that. */
  isKnown: boolean
  pending: Pending | undefined
  wanted: Wanted | undefined
  /** `told`: the latest time that was said to be left out for it. */
  running: { run: Run; wanted: Wanted; startedAt: number; began: number; told: number } | undefined
  runs: Record<Outcome, number>
}

/**
 * Runs jobs at their times: one of a server at once, `parallel` in all, the others in the order of their times. The
 * clock, the runs and chance are given, so that a year can be tried in a second.
 */
export class Scheduler {
  readonly #options: SchedulerOptions
  readonly #entries = new Map<string, Entry>()
  /** In the order in which their times came. */
  #queue: Entry[] = []
  /** Also those whose job a new config no longer has. */
  readonly #running = new Set<Entry>()
  #looked: { now: number; monotonic: number }
  #cancel: (() => void) | undefined
  #isStopping = false
  #lookup: Promise<void> = Promise.resolve()
  #lookupRun: Run | undefined

  constructor(options: SchedulerOptions) {
    this.#options = options
    const { clock } = options
    this.#looked = { now: clock.now(), monotonic: clock.monotonic() }
  }

  /** Plans all jobs; it goes on until `stop`. */
  start(): void {
    this.#take(this.#options.jobs)
    if (this.#options.runNow) {
      const now = this.#options.clock.now()
      for (const entry of this.#entries.values()) {
        if (entry.job.kind === 'backup') this.#enqueue(entry, { due: now, reason: 'run-now' })
      }
    }
    this.#tick()
  }

  /** Takes other jobs. A run that is at work goes on, and what is known of the servers stays. */
  reload(jobs: readonly Job[]): void {
    if (this.#isStopping) return
    this.#take(jobs)
    this.#tick()
  }

  /**
   * Begins no run any more, and has those that are at work stop.
   * @returns when they have ended.
   */
  async stop(): Promise<void> {
    this.#isStopping = true
    this.#cancel?.()
    this.#queue = []
    this.#lookupRun?.stop('SIGTERM')
    const running = [...this.#running].map(({ running }) => running?.run)
    for (const run of running) run?.stop('SIGTERM')
    await Promise.all(running.map((run) => run?.ended))
    await this.#lookup
  }

  /** All jobs, in the order of the config. */
  view(): JobView[] {
    return [...this.#entries.values()].map((entry) => ({
      job: entry.job,
      state: this.#stateOf(entry.job),
      next: entry.pending,
      isQueued: entry.wanted !== undefined,
      runningSince: entry.running?.startedAt,
      runs: entry.runs,
    }))
  }

  #take(jobs: readonly Job[]): void {
    const before = new Map(this.#entries)
    this.#entries.clear()
    for (const job of jobs) {
      const old = before.get(jobName(job))
      // A plan by the old schedule is none by the new one.
      if (old) Object.assign(old, { job, pending: isSame(old.job, job) ? old.pending : undefined })
      const entry = old ?? this.#newEntry(job)
      this.#entries.set(jobName(job), entry)
      if (!old && !entry.isKnown) this.#lookUp(entry)
    }
    this.#queue = this.#queue.filter((entry) => this.#entries.get(jobName(entry.job)) === entry)
  }

  #newEntry(job: Job): Entry {
    // A run of it may be at work that began before the config was without it.
    const old = [...this.#running].find((one) => jobName(one.job) === jobName(job))
    if (old) return Object.assign(old, { job, pending: undefined })
    return {
      job,
      isKnown: job.kind !== 'backup' || this.#stateOf(job).servedAt !== undefined,
      pending: undefined,
      wanted: undefined,
      running: undefined,
      runs: { good: 0, incomplete: 0, failed: 0, interrupted: 0 },
    }
  }

  #stateOf({ server, kind }: Job): JobState {
    return this.#serverOf(server).jobs[kind] ?? {}
  }

  #serverOf(server: string): ServerState {
    const found = this.#options.states.get(server) ?? { jobs: {}, metrics: [] }
    this.#options.states.set(server, found)
    return found
  }

  #keep({ server, kind }: Job, state: JobState): void {
    this.#serverOf(server).jobs[kind] = state
  }

  /** Asks the stores for the newest snapshot of a server that nothing is known of, one server after the other. */
  #lookUp(entry: Entry): void {
    const known = () => {
      entry.isKnown = true
      this.#tick()
    }
    // Counted from now: those before it in turn may have stores that do not answer either.
    const cancel = this.#options.clock.after(LOOKUP_MS, known)
    this.#lookup = this.#lookup.then(async () => {
      await this.#askStores(entry.job)
      cancel()
      known()
    })
  }

  async #askStores(job: Job): Promise<void> {
    if (this.#isStopping) return
    const { runner, clock } = this.#options
    const run = runner(['status', '--server', job.server, ...job.args.slice(job.args.indexOf('--config'))])
    this.#lookupRun = run
    const cancel = clock.after(LOOKUP_MS, () => run.stop('SIGKILL'))
    const { statuses } = await run.ended
    cancel()
    this.#lookupRun = undefined
    if (this.#isStopping) return
    const newest = Math.max(...statuses.map(({ newestAt }) => newestAt ?? Number.NEGATIVE_INFINITY))
    const { servedAt, startedAt } = this.#stateOf(job)
    // Without a run, `servedAt` is only when its times began to count.
    if ((servedAt === undefined || startedAt === undefined) && Number.isFinite(newest)) {
      this.#keep(job, { ...this.#stateOf(job), servedAt: newest, startedAt: newest, succeededAt: newest })
    }
    const server = this.#serverOf(job.server)
    if (server.metrics.length === 0) {
      server.metrics = statuses.map(({ destination, newestAt }) => ({
        server: job.server,
        destination,
        lastSuccess: newestAt === undefined ? undefined : newestAt / 1000,
      }))
    }
  }

  #tick(): void {
    if (this.#isStopping) return
    this.#cancel?.()
    this.#lookAtClock()
    const { clock } = this.#options
    for (const entry of this.#entries.values()) this.#plan(entry)
    const now = clock.now()
    const due = [...this.#entries.values()].filter((one) => one.pending !== undefined && one.pending.at <= now)
    due.sort((a, b) => (a.pending as Pending).at - (b.pending as Pending).at)
    for (const entry of due) this.#enqueue(entry, entry.pending as Pending)
    this.#startQueued()
    const next = Math.min(...[...this.#entries.values()].map(({ pending }) => pending?.at ?? Number.POSITIVE_INFINITY))
    this.#cancel = clock.after(Math.max(0, Math.min(TICK_MS, next - clock.now())), () => this.#tick())
    this.#options.onChange()
  }

  #lookAtClock(): void {
    const { clock, onEvent } = this.#options
    const looked = { now: clock.now(), monotonic: clock.monotonic() }
    const byMs = looked.now - this.#looked.now - (looked.monotonic - this.#looked.monotonic)
    this.#looked = looked
    if (Math.abs(byMs) < STEP_MS) return
    // What looks like a jump forward may be the sleep of the machine, and is time that has passed.
    if (byMs < 0) {
      for (const { job, running } of this.#entries.values()) {
        this.#keep(job, shiftRecord(this.#stateOf(job), byMs))
        if (running) Object.assign(running, { startedAt: running.startedAt + byMs, told: running.told + byMs })
      }
    }
    if (Math.abs(byMs) >= TICK_MS) onEvent({ time: looked.now, event: 'clock-step', byMs: Math.round(byMs) })
  }

  #plan(entry: Entry): void {
    const { job } = entry
    const { clock, random, onEvent } = this.#options
    const time = clock.now()
    // Of a run that hangs, nothing else tells.
    if (entry.running) this.#tellLeftOut(entry.running, job, job.times.latest(time), time)
    if (!entry.isKnown || entry.running || entry.wanted) return
    const before = entry.pending
    const state = this.#stateOf(job)
    const { record, pending, skipped } = planJob(job, state, before, time, random)
    this.#keep(job, { ...state, ...record })
    entry.pending = pending
    const at = { time, server: job.server, job: job.kind }
    if (skipped !== undefined) onEvent({ ...at, event: 'run-skipped', due: skipped, why: 'missed' })
    const isNews = pending !== undefined && pending.reason !== 'schedule' && pending.reason !== before?.reason
    if (isNews) onEvent({ ...at, event: 'run-planned', ...pending })
  }

  #tellLeftOut(running: NonNullable<Entry['running']>, job: Job, due: number | undefined, time: number): void {
    if (due === undefined || due <= Math.max(running.told, running.startedAt, running.wanted.due)) return
    running.told = due
    this.#options.onEvent({ time, server: job.server, job: job.kind, event: 'run-skipped', due, why: 'still running' })
  }

  #enqueue(entry: Entry, { due, reason }: Wanted): void {
    entry.pending = undefined
    if (entry.wanted || entry.running) return
    entry.wanted = { due, reason }
    this.#queue.push(entry)
  }

  #startQueued(): void {
    for (const entry of [...this.#queue]) {
      if (this.#running.size >= this.#options.parallel) return
      const isBusy = [...this.#running].some(({ job }) => job.server === entry.job.server)
      if (!isBusy) this.#begin(entry)
    }
  }

  #begin(entry: Entry): void {
    const { clock, runner, onEvent } = this.#options
    const { job } = entry
    const wanted = entry.wanted as Wanted
    this.#queue = this.#queue.filter((one) => one !== entry)
    entry.wanted = undefined
    const time = clock.now()
    const run = runner(job.args)
    entry.running = { run, wanted, startedAt: time, began: clock.monotonic(), told: Number.NEGATIVE_INFINITY }
    this.#running.add(entry)
    this.#keep(job, { ...this.#stateOf(job), startedAt: time })
    onEvent({ time, event: 'run-start', server: job.server, job: job.kind, ...wanted })
    void run.ended.then((result) => this.#end(entry, result))
  }

  #end(entry: Entry, result: RunResult): void {
    const { clock, onEvent } = this.#options
    const { job } = entry
    this.#lookAtClock()
    const { wanted, startedAt, began, told } = entry.running as NonNullable<Entry['running']>
    entry.running = undefined
    entry.isKnown = true
    this.#running.delete(entry)
    const time = clock.now()
    const outcome = outcomeOf(job.kind, result, this.#isStopping)
    entry.runs[outcome] += 1
    const before = this.#stateOf(job)
    const said = stateOf(job.kind, before, result, outcome, time)
    const server = this.#serverOf(job.server)
    const isWhole = !job.args.includes('--quick')
    server.metrics = metricsAfter(job.server, job.kind, server.metrics, result, { outcome, now: time, isWhole })
    const at = { time, server: job.server, job: job.kind }
    let skipped: number | undefined
    if (outcome === 'interrupted') {
      // Its time is not served: the next start makes up for it.
      this.#keep(job, { ...before, ...said, endedAt: time })
    } else {
      const healing = outcome === 'failed' && mayHeal(result) ? 'retry' : 'done'
      const ended = recordEnd(job, before, { ...wanted, startedAt }, healing, time)
      skipped = ended.skipped
      this.#keep(job, { ...said, ...ended.record })
    }
    // The next run is part of what is said of this one.
    if (!this.#isStopping && this.#entries.get(jobName(job)) === entry) {
      const { record, pending } = planJob(job, this.#stateOf(job), undefined, time, this.#options.random)
      this.#keep(job, { ...this.#stateOf(job), ...record })
      entry.pending = pending
    }
    const elapsedMs = clock.monotonic() - began
    const { pending: next } = entry
    onEvent({ ...at, event: 'run-end', outcome, meaning: meaningOf(result), elapsedMs, result, next })
    if (skipped !== undefined && skipped > told)
      onEvent({ ...at, event: 'run-skipped', due: skipped, why: 'still running' })
    if (this.#isStopping) this.#options.onChange()
    else this.#tick()
  }
}

function isSame(a: Job, b: Job): boolean {
  return JSON.stringify(a.schedule) === JSON.stringify(b.schedule)
}
