import type { LoadedConfig } from '../config/load.ts'
import { pathFrom } from '../config/paths.ts'
import { serverSettings, stateFolderOf } from '../config/settings.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import { type Health, healthOf, metricsText } from './health.ts'
import { type StatusServer, serveStatus, text } from './http.ts'
import { type Job, jobsOf } from './jobs.ts'
import { planText } from './log.ts'
import type { Runner } from './run.ts'
import { type JobView, Scheduler, type SchedulerEvent } from './scheduler.ts'
import { ScheduleState, writeAtomically } from './state.ts'

export interface DaemonOptions {
  loaded: LoadedConfig
  /** Which servers; all of the config when it is empty. */
  servers: readonly string[]
  runner: Runner
  parallel: number
  runNow: boolean
  clock?: Clock
  random?: () => number
  onEvent: (event: SchedulerEvent) => void
  /** Told once when a file cannot be written, and again after it could. */
  onProblem: (error: Error) => void
}

/** The scheduler of a config, with its state, its health file and its status page. */
export class Daemon {
  readonly #options: DaemonOptions
  readonly #clock: Clock
  readonly #state: ScheduleState
  readonly #healthFile: string | undefined
  readonly #startedAt: number
  #loaded: LoadedConfig
  #scheduler: Scheduler | undefined
  #states: Awaited<ReturnType<ScheduleState['load']>> = new Map()
  #server: StatusServer | undefined
  /** One write after the other, and the newest wins. */
  #writes: Promise<void> = Promise.resolve()
  #isWriteWanted = false
  /** The state as it was last written. */
  #saved = ''
  readonly #failing = new Set<string>()

  constructor(options: DaemonOptions) {
    const { loaded, clock = SYSTEM_CLOCK } = options
    const { healthFile } = loaded.config.daemon ?? {}
    this.#options = options
    this.#clock = clock
    this.#startedAt = clock.now()
    this.#loaded = loaded
    this.#state = new ScheduleState(stateFolderOf(loaded))
    this.#healthFile = healthFile === undefined ? undefined : pathFrom(loaded.folder, healthFile)
  }

  /** The port of the status page; undefined without one. */
  get port(): number | undefined {
    return this.#server?.port
  }

  /**
   * Plans all jobs, and goes on until `stop`.
   * @throws BackupError USAGE where nothing has a schedule, or the port cannot be had.
   */
  async start(): Promise<void> {
    const { runner, parallel, runNow, random = Math.random, onEvent } = this.#options
    // What is wrong with the config is told before anything is touched.
    this.#jobs(this.#loaded)
    this.#states = await this.#state.load()
    const { port } = this.#loaded.config.daemon ?? {}
    if (port !== undefined) this.#server = await serveStatus(port, this.#pages())
    const scheduler = new Scheduler({
      // Only now: the config may have been read again meanwhile.
      jobs: this.#jobs(this.#loaded),
      ...{ runner, parallel, runNow, random, onEvent },
      states: this.#states,
      clock: this.#clock,
      onChange: () => this.#changed(),
    })
    this.#scheduler = scheduler
    scheduler.start()
  }

  /**
   * Goes by another config from now on; its port, health file and state folder stay as they were.
   * @throws BackupError USAGE where nothing has a schedule in it; then the old one stays.
   */
  reload(loaded: LoadedConfig): void {
    const jobs = this.#jobs(loaded)
    this.#loaded = loaded
    this.#scheduler?.reload(jobs)
  }

  /** Has the runs that are at work stop. @returns when they have, and all is written down. */
  async stop(): Promise<void> {
    if (!this.#scheduler) return
    await this.#scheduler.stop()
    this.#changed()
    await this.#writes
    await this.#server?.close()
  }

  /** All jobs with what is known of them. */
  view(): JobView[] {
    return this.#scheduler?.view() ?? []
  }

  health(): Health {
    const views = this.view()
    const maxAges = new Map(views.map(({ job }) => [job.server, serverSettings(this.#loaded, job.server).maxAge]))
    return healthOf(views, maxAges, { pid: process.pid, startedAt: this.#startedAt }, this.#clock.now())
  }

  #jobs(loaded: LoadedConfig): Job[] {
    return jobsOf(loaded, this.#options.servers)
  }

  #pages() {
    return {
      '/': () => text(200, this.#lines().join('\n')),
      '/health': () => {
        const health = this.health()
        return { status: health.ok ? 200 : 503, type: 'application/json', body: `${JSON.stringify(health)}\n` }
      },
      '/metrics': () => {
        const views = this.view()
        const names = new Set(views.map(({ job }) => job.server))
        const updates = [...names].flatMap((name) => this.#states.get(name)?.metrics ?? [])
        const daemon = { pid: process.pid, startedAt: this.#startedAt }
        return {
          status: 200,
          type: 'text/plain; version=0.0.4; charset=utf-8',
          body: metricsText(updates, views, daemon),
        }
      },
    }
  }

  #lines(): string[] {
    const { ok, servers } = this.health()
    const problems = Object.entries(servers).flatMap(([name, one]) => one.problems.map((text) => `${name}: ${text}`))
    const jobs = this.view().map(({ job, runningSince, isQueued, next }) => {
      const what =
        runningSince !== undefined ? 'running' : isQueued ? 'waits for another run' : next ? planText(next) : '-'
      return `${job.server} ${job.kind}: ${what}`
    })
    return [`millrace schedule, pid ${process.pid}: ${ok ? 'all is well' : 'NOT WELL'}`, ...problems, ...jobs]
  }

  /** Has the state and the health written; many changes at once are one write. */
  #changed(): void {
    if (this.#isWriteWanted) return
    this.#isWriteWanted = true
    this.#writes = this.#writes.then(async () => {
      this.#isWriteWanted = false
      const names = new Set(this.view().map(({ job }) => job.server))
      const states = [...this.#states].filter(([name]) => names.has(name))
      const text = JSON.stringify(states)
      if (text !== this.#saved) {
        await this.#write(this.#state.file, async () => {
          await this.#state.save(new Map(states))
          this.#saved = text
        })
      }
      const file = this.#healthFile
      // Whoever watches the daemon runs as another user.
      if (file !== undefined) await this.#write(file, () => writeAtomically(file, this.health(), 0o644))
    })
  }

  async #write(file: string, write: () => Promise<void>): Promise<void> {
    try {
      await write()
      this.#failing.delete(file)
    } catch (error) {
      // Runs go on without it: a full disk must not end the backups.
      if (!this.#failing.has(file)) this.#options.onProblem(error as Error)
      this.#failing.add(file)
    }
  }
}
