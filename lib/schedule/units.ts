import { dirname } from 'node:path'
import type { LoadedConfig } from '../config/load.ts'
import { pathFrom } from '../config/paths.ts'
import {
  destinationConfig,
  metricsFileOf,
  type ServerSettings,
  serverSettings,
  stateFolderOf,
} from '../config/settings.ts'
import { BackupError } from '../errors.ts'
import { calendarOf } from './calendar.ts'
import type { Job } from './jobs.ts'

/** The first line of each unit; what does not begin with it is somebody else's, and left alone. */
export const MARK = '# Written by `millrace install-timer`. Changes belong into a drop-in: systemctl edit'

export interface Unit {
  /** Of the file. */
  name: string
  text: string
}

export interface UnitOptions {
  /** Absolute paths: this node, and the script of the command. */
  command: readonly [node: string, bin: string]
  scope: 'user' | 'system'
  /** Where the variables are that the config names. */
  environmentFile: string
}

/** The name that the service and the timer of a job share. */
export function unitName({ server, kind }: Pick<Job, 'server' | 'kind'>): string {
  return `millrace-${kind}-${server}`
}

/**
 * The service and the timer of a job.
 * @throws BackupError USAGE for a schedule that a timer cannot have, and a path that a unit cannot name.
 */
export function unitsOf(loaded: LoadedConfig, job: Job, options: UnitOptions): [service: Unit, timer: Unit] {
  const name = unitName(job)
  return [
    { name: `${name}.service`, text: serviceText(loaded, job, options) },
    { name: `${name}.timer`, text: timerText(job) },
  ]
}

function timerText({ server, kind, schedule }: Job): string {
  const { cron, timezone, jitterMs, catchUp } = schedule
  return lines([
    MARK,
    '[Unit]',
    `Description=Times of the ${kind} of ${server} (millrace)`,
    '',
    '[Timer]',
    `# ${cron} ${timezone}`,
    ...calendarOf(cron, timezone).map((one) => `OnCalendar=${one}`),
    'AccuracySec=1s',
    ...(jitterMs > 0 ? [`RandomizedDelaySec=${Math.ceil(jitterMs / 1000)}s`] : []),
    `Persistent=${catchUp}`,
    '',
    '[Install]',
    'WantedBy=timers.target',
  ])
}

function serviceText(loaded: LoadedConfig, job: Job, { command, scope, environmentFile }: UnitOptions): string {
  const settings = serverSettings(loaded, job.server)
  const isSystem = scope === 'system'
  const folders = destinationFolders(loaded, settings)
  const needed = typeof settings.source === 'string' ? [settings.source, ...folders] : folders
  const [program, ...args] = [...command, ...job.args.filter((one) => one !== '--json')] as [string, ...string[]]
  return lines([
    MARK,
    '[Unit]',
    `Description=millrace ${job.kind} of ${job.server}`,
    ...(isSystem ? ['Wants=network-online.target', 'After=network-online.target'] : []),
    ...(needed.length > 0 ? [`RequiresMountsFor=${[...new Set(needed)].map(pathWord).join(' ')}`] : []),
    '',
    '[Service]',
    'Type=oneshot',
    `ExecStart=${[programWord(program), ...args.map(argument)].join(' ')}`,
    '# 7: done; the lock of the store defers some deletes.',
    'SuccessExitStatus=7',
    ...(loaded.config.stateFolder === undefined
      ? [`Environment=${quoted(`MILLRACE_STATE_DIR=${stateFolderOf(loaded)}`)}`]
      : []),
    ...(variablesOf(loaded, settings).length > 0 ? [`EnvironmentFile=${percent(plainPath(environmentFile))}`] : []),
    '# SIGTERM is for the command, which cleans up; what is left after that is killed.',
    'KillMode=mixed',
    'TimeoutStopSec=5min',
    'Nice=10',
    'IOSchedulingClass=idle',
    ...hardening(loaded, settings, isSystem, [...needed, ...command, loaded.file]),
  ])
}

function hardening(
  loaded: LoadedConfig,
  settings: ServerSettings,
  isSystem: boolean,
  read: readonly string[],
): string[] {
  if (runsCommands(loaded, settings)) {
    return ['# Not hardened: the commands of the config may need rights of their own (sudo, mount, snapshots).']
  }
  // A user's manager cannot give its services a view of the file system everywhere.
  if (!isSystem) return ['NoNewPrivileges=yes']
  const metricsFile = metricsFileOf(loaded)
  const folders = destinationFolders(loaded, settings)
  const writable = [stateFolderOf(loaded), ...folders, ...(metricsFile === undefined ? [] : [dirname(metricsFile)])]
  // What lies in /tmp would not be seen in one of its own; without that it has to be named to be written to.
  const isTmpUsed = [...read, ...writable].some((path) => /^(?:\/var)?\/tmp(?:\/|$)/.test(path))
  if (isTmpUsed) writable.push('/tmp')
  return [
    'NoNewPrivileges=yes',
    'ProtectSystem=strict',
    `ReadWritePaths=${[...new Set(writable)].map(pathWord).join(' ')}`,
    ...(isTmpUsed ? [] : ['PrivateTmp=yes']),
    'ProtectKernelTunables=yes',
    'ProtectControlGroups=yes',
    'RestrictSUIDSGID=yes',
    'LockPersonality=yes',
  ]
}

/** Whether runs of the server start programs that the config names. */
function runsCommands(loaded: LoadedConfig, settings: ServerSettings): boolean {
  const { source, hooks, quiesce } = settings
  const hasHook = [hooks?.before, hooks?.after, hooks?.failure].some((one) => one !== undefined)
  return (
    typeof source !== 'string' ||
    hasHook ||
    quiesce?.by === 'commands' ||
    secretText(loaded, settings).includes('"command:')
  )
}

/** Folders of this machine that backups of the server are written to. */
function destinationFolders(loaded: LoadedConfig, { destinations }: ServerSettings): string[] {
  return destinations.flatMap((name) => {
    const one = destinationConfig(loaded, name)
    return one.provider === 'filesystem' ? [pathFrom(loaded.folder, one.root)] : []
  })
}

/** The folders that runs of the server write to, whether they are there or not. */
export function writableFolders(loaded: LoadedConfig, server: string): string[] {
  return destinationFolders(loaded, serverSettings(loaded, server))
}

/** The variables of the environment that runs of a server take secrets from. */
export function environmentOf(loaded: LoadedConfig, server: string): string[] {
  return variablesOf(loaded, serverSettings(loaded, server))
}

function variablesOf(loaded: LoadedConfig, settings: ServerSettings): string[] {
  const found = [...secretText(loaded, settings).matchAll(/"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"/g)].map(
    ([, name]) => name as string,
  )
  if (settings.encryption === undefined) found.push('MILLRACE_PASSWORD')
  return [...new Set(found)]
}

/** All of the config that can say where a secret of the server is. */
function secretText(loaded: LoadedConfig, { encryption, quiesce, destinations }: ServerSettings): string {
  return JSON.stringify([encryption, quiesce, destinations.map((name) => destinationConfig(loaded, name))])
}

function lines(all: readonly string[]): string {
  return `${all.join('\n')}\n`
}

/** The program of ExecStart: no variable is looked for in it. @throws BackupError USAGE for a path that systemd refuses. */
function programWord(path: string): string {
  if (!/["'\\]/.test(path)) return pathWord(path)
  throw new BackupError(
    'USAGE',
    `systemd starts no program whose path has quotes or backslashes, as ${path} does. Use Node from another place.`,
  )
}

/** An argument of ExecStart, as systemd.service(5) has it. */
function argument(text: string): string {
  const plain = plainPath(text)
  return /^[\w@:/.,+=-]+$/.test(plain) ? plain : quoted(plain).replaceAll('$', '$$$$')
}

/** A word of a list of paths. */
function pathWord(path: string): string {
  return /^[\w@:/.,+=-]+$/.test(path) ? path : quoted(plainPath(path))
}

function quoted(text: string): string {
  return `"${percent(plainPath(text)).replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
}

function percent(text: string): string {
  return text.replaceAll('%', '%%')
}

/** @throws BackupError USAGE for what would end the line of a unit. */
function plainPath(path: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (!/[\u0000-\u001f\u007f]/.test(path)) return path
  throw new BackupError('USAGE', `The path ${JSON.stringify(path)} has a character that a unit of systemd cannot have.`)
}
