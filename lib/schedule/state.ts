import { chmod, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { BackupError } from '../errors.ts'
import { makeFolders } from '../folders.ts'
import type { MetricUpdate } from '../metrics.ts'
import type { JobKind } from './jobs.ts'
import type { JobRecord } from './plan.ts'

const FILE_NAME = 'schedule.json'
/** A thousand servers have a tenth of that. */
const MAX_BYTES = 8 * 1024 * 1024

/** What came of a job's last run. */
export type Outcome = 'good' | 'incomplete' | 'failed' | 'interrupted'

/** What is kept of a job between runs, and between starts of the daemon. Times are in ms since 1970. */
export interface JobState extends JobRecord {
  /** null when a signal ended it. */
  exitCode?: number | null | undefined
  outcome?: Outcome | undefined
  /** When the newest snapshot was made, or the last good verify ended. */
  succeededAt?: number | undefined
  /** Locations of destinations that the last backup has not reached. */
  missed?: readonly string[] | undefined
}

export interface ServerState {
  jobs: Partial<Record<JobKind, JobState>>
  /** What the metrics say, one for each destination. */
  metrics: MetricUpdate[]
}

interface StateFile {
  v: 1
  servers: Record<string, ServerState>
}

/** What the daemon knows of its servers: `schedule.json` in the state folder, replaced atomically. */
export class ScheduleState {
  readonly file: string

  constructor(folder: string) {
    this.file = join(folder, FILE_NAME)
  }

  /** By server; empty where the file is missing or cannot be used: it can be lost without harm. */
  async load(): Promise<Map<string, ServerState>> {
    return new Map(Object.entries((await this.#read()).servers))
  }

  /**
   * Writes what is known of these servers. Another daemon's servers in the same file stay.
   * @throws BackupError TARGET when it cannot be written.
   */
  async save(servers: ReadonlyMap<string, ServerState>): Promise<void> {
    const before = await this.#read()
    await writeAtomically(this.file, { v: 1, servers: { ...before.servers, ...Object.fromEntries(servers) } }, 0o600)
  }

  async #read(): Promise<StateFile> {
    const none: StateFile = { v: 1, servers: {} }
    try {
      const text = await readFile(this.file, 'utf8')
      const state = text.length > MAX_BYTES ? undefined : JSON.parse(text)
      if (state?.v !== 1 || typeof state.servers !== 'object' || state.servers === null) return none
      const good = Object.entries(state.servers).flatMap(([name, one]) => {
        const server = serverOf(one)
        return server ? [[name, server] as const] : []
      })
      return { v: 1, servers: Object.fromEntries(good) }
    } catch {
      return none
    }
  }
}

const NUMBERS = ['servedAt', 'startedAt', 'endedAt', 'failures', 'succeededAt'] as const
/** What a Date can hold. */
const TIME_MAX_MS = 8.64e15

/** undefined for what somebody else has written. */
function serverOf(value: unknown): ServerState | undefined {
  const { jobs, metrics } = (value ?? {}) as Partial<ServerState>
  if (typeof jobs !== 'object' || jobs === null || !Array.isArray(metrics)) return undefined
  for (const one of metrics) {
    if (typeof one?.server !== 'string' || typeof one.destination !== 'string') return undefined
  }
  for (const job of Object.values(jobs)) {
    if (typeof job !== 'object' || job === null) return undefined
    for (const field of NUMBERS) {
      const one: unknown = job[field]
      if (one !== undefined && !(typeof one === 'number' && Math.abs(one) <= TIME_MAX_MS)) return undefined
    }
    const { exitCode = null, missed = [] } = job as { exitCode?: unknown; missed?: unknown }
    if (exitCode !== null && !Number.isFinite(exitCode)) return undefined
    if (!Array.isArray(missed) || missed.some((one) => typeof one !== 'string')) return undefined
  }
  return { jobs, metrics }
}

/**
 * Replaces a file of JSON by rename: whoever reads it sees the old one or the new one. One write at a time.
 * @param mode its rights, whatever the umask says.
 * @throws BackupError TARGET when it cannot be written.
 */
export async function writeAtomically(file: string, value: unknown, mode: number): Promise<void> {
  // What a crash leaves behind is written over by the next start in the same container.
  const partial = `${file}.${process.pid}.new`
  try {
    // Who may read the file must get to it.
    await makeFolders(dirname(file), mode & 0o044 ? 0o755 : 0o700)
    await writeFile(partial, `${JSON.stringify(value)}\n`, { mode: 0o600, flush: true })
    await chmod(partial, mode)
    await rename(partial, file)
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => {})
    throw new BackupError('TARGET', `${file} cannot be written: ${(cause as Error).message}.`, { cause })
  }
}
