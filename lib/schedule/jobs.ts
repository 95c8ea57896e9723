import type { LoadedConfig } from '../config/load.ts'
import type { ScheduleConfig } from '../config/schema.ts'
import { type ServerSettings, serverNames, serverSettings } from '../config/settings.ts'
import { parseDuration } from '../duration.ts'
import { BackupError } from '../errors.ts'
import type { JobTimes } from './plan.ts'
import { createTimes } from './times.ts'

export type JobKind = 'backup' | 'verify'

/** Something that is done to a server again and again. */
export interface Job extends JobTimes {
  server: string
  kind: JobKind
  /** The arguments of the command that does it. */
  args: readonly string[]
  /** The expression and its zone, to tell a changed schedule by. */
  schedule: Schedule
}

/** A schedule of the config, with its defaults. */
export interface Schedule {
  cron: string
  /** An IANA name. */
  timezone: string
  jitterMs: number
  catchUp: boolean
}

/** The name that a job goes by in the log and in the state. */
export function jobName({ server, kind }: { server: string; kind: JobKind }): string {
  return `${server} ${kind}`
}

/** What the config says of a schedule. */
export function scheduleOf(config: ScheduleConfig): Schedule {
  const { cron, timezone = 'UTC', jitter, catchUp = true } = typeof config === 'string' ? { cron: config } : config
  // YAML's | and > end a text with a line feed, which would end a comment in a unit.
  const fields = cron.trim().replaceAll(/\s+/g, ' ')
  return { cron: fields, timezone, jitterMs: jitter === undefined ? 0 : parseDuration(jitter), catchUp }
}

/**
 * The jobs of the servers of a config: a backup for each that has a schedule, and a verify for each whose `verify` does.
 * @param names which servers; all when it is empty.
 * @throws BackupError USAGE for a name that the config does not have, and where nothing has a schedule.
 */
export function jobsOf(loaded: LoadedConfig, names: readonly string[] = []): Job[] {
  const servers = names.length > 0 ? [...new Set(names)] : serverNames(loaded)
  const jobs = servers.flatMap((name) => jobsOfServer(loaded, serverSettings(loaded, name)))
  if (jobs.length > 0) return jobs
  const who = servers.length === 1 ? `The server ${servers[0]} has no schedule` : 'No server has a schedule'
  throw new BackupError(
    'USAGE',
    `${who} in ${loaded.file}: there is nothing to do. Write one, as in schedule: '@hourly'.`,
  )
}

function jobsOfServer({ file }: LoadedConfig, { name, schedule, verify }: ServerSettings): Job[] {
  const common = ['--config', file, '--json']
  const jobs: Job[] = []
  if (schedule !== undefined) jobs.push(jobOf(name, 'backup', ['backup', name, ...common], schedule))
  if (verify !== undefined) {
    const args = ['verify', 'latest', '--server', name, ...howOf(verify.how), ...common]
    jobs.push(jobOf(name, 'verify', args, verify.schedule))
  }
  return jobs
}

function jobOf(server: string, kind: JobKind, args: readonly string[], config: ScheduleConfig): Job {
  const schedule = scheduleOf(config)
  const { cron, timezone, jitterMs, catchUp } = schedule
  return { server, kind, args, schedule, times: createTimes(cron, timezone), jitterMs, catchUp }
}

/** The options of `verify` for what the config calls `how`. */
export function howOf(how: string): string[] {
  if (how === 'full') return []
  if (how === 'quick' || how === 'restore-test') return [`--${how}`]
  return ['--sample', how]
}
