import { randomBytes } from 'node:crypto'
import { access, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { stateFolderOf } from '../config/settings.ts'
import { BackupError } from '../errors.ts'
import { type Job, jobsOf } from '../schedule/jobs.ts'
import { environmentOf, MARK, type Unit, unitName, unitsOf, writableFolders } from '../schedule/units.ts'
import { configOf } from './configured.ts'
import { EXIT } from './exit-codes.ts'
import { formatCount } from './format.ts'
import type { Invocation } from './run.ts'

const UNIT_FILE = /^millrace-(?:backup|verify)-(.+)\.(?:service|timer)$/

interface InstallOptions {
  config?: string
  server?: string[]
  user?: boolean
  system?: boolean
  unitDir?: string
  dryRun?: boolean
  uninstall?: boolean
}

interface Place {
  dir: string
  scope: 'user' | 'system'
}

export async function installTimerCommand(options: InstallOptions, invocation: Invocation): Promise<number> {
  const isSystem = options.system ?? (options.user ? false : process.getuid?.() === 0)
  const scope = isSystem ? 'system' : 'user'
  const userDir = join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'systemd/user')
  const place: Place = { scope, dir: resolve(options.unitDir ?? (isSystem ? '/etc/systemd/system' : userDir)) }
  return options.uninstall ? uninstall(place, options, invocation) : install(place, options, invocation)
}

async function install(place: Place, options: InstallOptions, { output }: Invocation): Promise<number> {
  const { dir, scope } = place
  const loaded = await configOf({ config: options.config }, output)
  if (!loaded) {
    throw new BackupError('USAGE', 'There is no config to go by. `millrace config example > millrace.yaml` begins one.')
  }
  const jobs = jobsOf(loaded, options.server)
  const environmentFile = join(loaded.folder, 'millrace.env')
  // The link of the command stays: it outlives the version that it points to.
  const command = [process.execPath, resolve(process.argv[1] as string)] as const
  const units = jobs.flatMap((job) => unitsOf(loaded, job, { command, scope, environmentFile }))
  const names = [...new Set(jobs.flatMap(({ server }) => environmentOf(loaded, server)))]
  if (options.dryRun) {
    for (const unit of units) {
      const path = join(dir, unit.name)
      output.result('unit', { path, text: unit.text, state: 'dry-run' }, `# ${path}\n${unit.text}`)
    }
  } else {
    const own = await ownUnits(dir)
    for (const unit of units) await refuseForeign(dir, unit, own)
    await mkdir(dir, { recursive: true })
    // A service that may write there only is refused while it is not there.
    await mkdir(stateFolderOf(loaded), { recursive: true, mode: 0o700 })
    for (const unit of units) {
      const path = join(dir, unit.name)
      const state = await write(path, unit.text)
      output.result('unit', { path, state }, `${state === 'written' ? 'Wrote' : 'As it was:'} ${path}`)
    }
    const old = own.filter((name) => !units.some((unit) => unit.name === name))
    if (!options.server && old.length > 0) {
      output.notice(`No longer in the config: ${old.join(', ')}. --uninstall --server NAME removes them.`)
    }
  }
  if (/[\\/]_npx[\\/]/.test(command[1])) {
    const message = `${command[1]} is a copy that npx may remove. Install millrace (npm install --global), and run this again.`
    output.warning({ kind: 'install-timer', path: command[1], message })
  }
  await warn(jobs, loaded, output)
  const steps = stepsOf(scope, jobs, names, environmentFile)
  const text = `${options.dryRun ? 'Nothing was written. After that' : formatCount(units.length, 'unit')}${options.dryRun ? '' : ` in ${dir}. Now`}:\n${steps.map((step) => `  ${step}`).join('\n')}`
  const environment = names.length === 0 ? null : { file: environmentFile, names }
  output.result('timers', { dir, scope, units: units.map(({ name }) => name), environment, steps }, text)
  return EXIT.GOOD
}

type Output = Invocation['output']

async function warn(jobs: readonly Job[], loaded: Parameters<typeof writableFolders>[0], output: Output) {
  for (const folder of new Set(jobs.flatMap(({ server }) => writableFolders(loaded, server)))) {
    if (!(await isThere(folder))) {
      const message = `${folder} is not there. The services do not start until it is: make it, or mount what it is in.`
      output.warning({ kind: 'install-timer', path: folder, message })
    }
  }
  if (jobs.some(({ schedule }) => hasDaylightSaving(schedule.timezone))) {
    output.notice(
      'systemd leaves out a time that the change to daylight saving skips, and in autumn one of the two hours of the same name. `millrace schedule` does not.',
    )
  }
}

function stepsOf(scope: Place['scope'], jobs: readonly Job[], names: readonly string[], file: string): string[] {
  const systemctl = scope === 'user' ? 'systemctl --user' : 'systemctl'
  const timers = jobs.map((job) => `${unitName(job)}.timer`)
  const [first] = jobs as [Job, ...Job[]]
  return [
    ...(names.length > 0 ? [`put ${names.map((name) => `${name}=…`).join(', ')} into ${file}, and chmod 600 it`] : []),
    `${systemctl} daemon-reload`,
    `${systemctl} enable --now ${timers.join(' ')}`,
    ...(scope === 'user' ? ['loginctl enable-linger    # or the timers stop when you log out'] : []),
    `${systemctl} start ${unitName(first)}.service    # to try it`,
    `${systemctl} list-timers 'millrace-*'`,
  ]
}

async function uninstall({ dir, scope }: Place, options: InstallOptions, { output }: Invocation): Promise<number> {
  const { server: servers, dryRun } = options
  const own = await ownUnits(dir)
  const meant = own.filter((name) => servers === undefined || servers.includes(UNIT_FILE.exec(name)?.[1] as string))
  for (const name of meant) {
    const path = join(dir, name)
    if (!dryRun) {
      // What `systemctl enable` has made.
      await rm(join(dir, 'timers.target.wants', name), { force: true })
      await rm(path, { force: true })
    }
    output.result(
      'unit',
      { path, state: dryRun ? 'dry-run' : 'removed' },
      `${dryRun ? 'Would remove' : 'Removed'} ${path}`,
    )
  }
  const systemctl = scope === 'user' ? 'systemctl --user' : 'systemctl'
  const timers = meant.filter((name) => name.endsWith('.timer'))
  const steps = timers.length === 0 ? [] : [`${systemctl} stop ${timers.join(' ')}`, `${systemctl} daemon-reload`]
  const text =
    meant.length === 0
      ? `There is no unit of millrace in ${dir}${servers === undefined ? '' : ` for ${servers.join(', ')}`}.`
      : `${formatCount(meant.length, 'unit')} ${dryRun ? 'would go' : 'removed'}. Then:\n${steps.map((step) => `  ${step}`).join('\n')}`
  output.result('timers', { dir, scope, units: meant, environment: null, steps }, text)
  return EXIT.GOOD
}

/** The names of the units in a folder that this command has written. */
async function ownUnits(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new BackupError('USAGE', `The folder of units ${dir} cannot be read (${error.code}).`, { cause: error })
  })
  const own: string[] = []
  for (const name of names.sort()) {
    if (!UNIT_FILE.test(name)) continue
    const text = await readFile(join(dir, name), 'utf8').catch(() => '')
    if (text.startsWith(MARK)) own.push(name)
  }
  return own
}

async function refuseForeign(dir: string, { name }: Unit, own: readonly string[]): Promise<void> {
  const path = join(dir, name)
  if (own.includes(name) || !(await isThere(path))) return
  throw new BackupError('TARGET', `${path} is there, and was not written by this command. Move it away first.`)
}

async function write(path: string, text: string): Promise<'written' | 'unchanged'> {
  const before = await readFile(path, 'utf8').catch(() => undefined)
  if (before === text) return 'unchanged'
  const partial = `${path}.${randomBytes(6).toString('hex')}.new`
  try {
    await writeFile(partial, text, { mode: 0o644, flush: true })
    await rename(partial, path)
    return 'written'
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => {})
    throw new BackupError('TARGET', `The unit ${path} cannot be written: ${(cause as Error).message}.`, { cause })
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

/** Whether the clocks of a zone are set twice a year, this year. */
function hasDaylightSaving(timezone: string): boolean {
  const year = new Date().getUTCFullYear()
  const format = new Intl.DateTimeFormat('en', { timeZone: timezone, timeZoneName: 'longOffset' })
  const offsets = Array.from({ length: 12 }, (_, month) => {
    const parts = format.formatToParts(Date.UTC(year, month, 15))
    return parts.find(({ type }) => type === 'timeZoneName')?.value
  })
  return new Set(offsets).size > 1
}
