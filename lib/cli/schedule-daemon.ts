import type { LoadedConfig } from '../config/load.ts'
import { BackupError } from '../errors.ts'
import { Daemon } from '../schedule/daemon.ts'
import { eventFields, eventText, timeText } from '../schedule/log.ts'
import { createChildRunner } from '../schedule/run.ts'
import type { SchedulerEvent } from '../schedule/scheduler.ts'
import { configOf } from './configured.ts'
import type { EventFields } from './events.ts'
import { EXIT } from './exit-codes.ts'
import { formatTable } from './format.ts'
import type { Hangups } from './hangups.ts'
import type { Invocation } from './run.ts'

type LoggedEvent = 'daemon-start' | 'daemon-reload' | 'daemon-stop'
type FieldsOf<Name extends LoggedEvent> =
  EventFields<Name> extends infer Fields ? (Fields extends unknown ? Omit<Fields, 'time'> : never) : never

interface ScheduleOptions {
  config?: string
  server?: string[]
  parallel?: number
  runNow?: boolean
}

/** Runs until a signal; the exit code of a daemon that was asked to stop is 0. */
export async function scheduleCommand(
  options: ScheduleOptions,
  { output, signal }: Invocation,
  hangups: Hangups,
): Promise<number> {
  const { parallel = 1, server: servers = [], runNow = false } = options
  if (!(parallel >= 1)) throw new BackupError('USAGE', '--parallel must be a whole number, 1 or more.')
  const loaded = await loadedOf(options, output)
  const show = (event: SchedulerEvent) => {
    const fields = eventFields(event) as EventFields<SchedulerEvent['event']>
    output.result(event.event, fields, eventText(event))
  }
  // The first runs begin while the daemon starts, and are told of after it.
  let early: SchedulerEvent[] | undefined = []
  const daemon = new Daemon({
    ...{ loaded, servers, parallel, runNow },
    runner: createChildRunner([process.execPath, process.argv[1] as string]),
    onEvent: (event: SchedulerEvent) => (early ? early.push(event) : show(event)),
    onProblem: (error) => output.warning({ kind: 'schedule', path: '', message: error.message }),
  })
  const log = <Name extends LoggedEvent>(event: Name, fields: FieldsOf<Name>, text: string) => {
    const now = Date.now()
    const all = { time: new Date(now).toISOString(), ...fields } as unknown as EventFields<Name>
    output.result(event, all, `${timeText(now)} ${text}`)
  }
  const reload = () => {
    void loadedOf({ ...options, config: loaded.file }, output)
      .then((again) => {
        daemon.reload(again)
        log('daemon-reload', { ok: true, jobs: jobsOf(daemon) }, `${loaded.file} was read again\n${tableOf(daemon)}`)
      })
      .catch((error: Error) => {
        // A run is a process of its own, which reads the file as it is.
        const text = `the config as it is now cannot be used: the schedules stay as they were, and each run fails until it is mended: ${error.message}`
        log('daemon-reload', { ok: false, message: error.message }, text)
      })
  }
  try {
    await daemon.start()
    const { port } = daemon
    const fields = { pid: process.pid, config: loaded.file, port: port ?? null, jobs: jobsOf(daemon) }
    const page = port === undefined ? '' : `, status on http://127.0.0.1:${port}/`
    log('daemon-start', fields, `millrace schedule, pid ${process.pid}, by ${loaded.file}${page}\n${tableOf(daemon)}`)
    for (const event of early) show(event)
    early = undefined
    hangups.listen(reload)
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      else signal.addEventListener('abort', () => resolve(), { once: true })
    })
  } finally {
    await daemon.stop()
  }
  log('daemon-stop', {}, 'stopped; no run is at work')
  return EXIT.GOOD
}

async function loadedOf({ config }: ScheduleOptions, output: Invocation['output']): Promise<LoadedConfig> {
  const loaded = await configOf({ config }, output)
  if (loaded) return loaded
  throw new BackupError('USAGE', 'There is no config to go by. `millrace config example > millrace.yaml` begins one.')
}

function jobsOf(daemon: Daemon): FieldsOf<'daemon-start'>['jobs'] {
  return daemon.view().map(({ job, next }) => ({
    server: job.server,
    job: job.kind,
    cron: job.schedule.cron,
    timezone: job.schedule.timezone,
    next: next === undefined ? null : new Date(next.at).toISOString(),
  }))
}

function tableOf(daemon: Daemon): string {
  const rows = daemon.view().map(({ job, next, isQueued, runningSince }) => {
    const { cron, timezone } = job.schedule
    const when = runningSince !== undefined ? 'now' : isQueued ? 'in turn' : next ? timeText(next.at) : '-'
    return [job.server, job.kind, `${cron} ${timezone}`, when]
  })
  return formatTable(['SERVER', 'JOB', 'SCHEDULE', 'NEXT'], rows)
}
