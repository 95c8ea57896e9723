import type { Command } from 'commander'
import { EXAMPLE } from '../../config/example.ts'
import { findConfigFile } from '../../config/find.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { keysOf, rconPasswordOf } from '../../config/open.ts'
import type { ScheduleConfig } from '../../config/schema.ts'
import { resolvePassword } from '../../config/secret.ts'
import {
  destinationConfig,
  destinationNames,
  type ServerSettings,
  serverNames,
  serverSettings,
} from '../../config/settings.ts'
import { openDestination, secretReferences } from '../../config/storage.ts'
import { BackupError } from '../../errors.ts'
import type { RetentionPolicy } from '../../retention.ts'
import { EXIT, exitCodeOf, gravest } from '../exit-codes.ts'
import { formatCount, formatRate, formatTable, printable } from '../format.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace config`. */
export function addConfig(program: Command, run: Runner): void {
  const config = program.command('config').description('Look at the config, millrace.yaml.')
  config
    .command('check [file]')
    .description(
      'Check the config, all of it at once, and show what it says. No store is asked: `millrace check` does.',
    )
    .option('--config <file>', 'the same as the argument (default: as every command finds it)')
    .option('--secrets', 'get each secret from where it is, and say which cannot be had')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText('after', '\nExample:\n  $ millrace config check --secrets')
    .action((file, options) => run(options, (invocation) => configCheckCommand(file, options, invocation)))
  config
    .command('schema')
    .description('Print the JSON Schema of the config, for editors.')
    .addHelpText('after', '\nExample:\n  $ millrace config schema > millrace.schema.json')
    .action(() =>
      run({}, async () => {
        const { configJsonSchema } = await import('../../config/json-schema.ts')
        process.stdout.write(`${JSON.stringify(configJsonSchema(), null, 2)}\n`)
        return EXIT.GOOD
      }),
    )
  config
    .command('example')
    .description('Print a config with a word on each part, to begin from.')
    .addHelpText('after', '\nExample:\n  $ millrace config example > millrace.yaml')
    .action(() =>
      run({}, async () => {
        process.stdout.write(EXAMPLE)
        return EXIT.GOOD
      }),
    )
  for (const command of config.commands) command.exitOverride()
}

interface CheckOptions {
  config?: string
  secrets?: boolean
}

/** Says of a config that it can be used, and what it says, or all that is wrong with it. */
export async function configCheckCommand(
  given: string | undefined,
  options: CheckOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const file = await findConfigFile(given ?? options.config)
  if (file === undefined) {
    throw new BackupError('USAGE', 'There is no config. `millrace config example > millrace.yaml` begins one.')
  }
  const { loadConfig } = await import('../../config/load.ts')
  const loaded = await loadConfig(file)
  for (const message of loaded.warnings) output.warning({ kind: 'config', path: file, message })
  const codes: number[] = []
  const said = new Set<string>()
  for (const check of options.secrets ? secretsOf(loaded) : []) {
    signal.throwIfAborted()
    try {
      await check()
    } catch (error) {
      // The first secret of a destination is told when it is opened, and by itself.
      if (said.has((error as Error).message)) continue
      said.add((error as Error).message)
      codes.push(exitCodeOf(error))
      output.error(error as Error, exitCodeOf(error))
    }
  }
  const { config } = loaded
  const fields = {
    file,
    secrets: options.secrets ? (codes.length === 0 ? 'read' : 'missing') : 'not looked at',
    warnings: loaded.warnings,
    servers: serverNames(loaded).map((name) => fieldsOf(serverSettings(loaded, name))),
    destinations: Object.entries(config.destinations).map(([name, one]) => ({ name, provider: one.provider })),
  }
  output.result('config', fields, textOf(loaded, options.secrets ? codes.length : undefined))
  return gravest(codes)
}

/**
 * One function for each thing that needs a secret. A destination is opened, which asks nobody, so that what its adapter
 * does not take is told as well; where that fails, each of its secrets is looked at, as it stops at the first.
 */
function secretsOf(loaded: LoadedConfig): (() => Promise<unknown>)[] {
  const { folder, config } = loaded
  const servers = serverNames(loaded)
  const likeAll = servers.find((name) => config.servers[name]?.encryption === undefined)
  const withKeys = servers.filter((name) => config.servers[name]?.encryption !== undefined || name === likeAll)
  return [
    ...destinationNames(loaded).flatMap((name) => {
      let isOpened = false
      return [
        async () => {
          await (await openDestination(loaded, name)).close()
          isOpened = true
        },
        ...secretReferences(loaded, name).map(({ reference, what }) => async () => {
          if (!isOpened) await resolvePassword(reference, { folder, what })
        }),
      ]
    }),
    ...withKeys.map((name) => () => keysOf(loaded, name)),
    ...servers.map((name) => () => rconPasswordOf(loaded, serverSettings(loaded, name))),
  ]
}

/** What is shown of a server: no commands, as whoever wrote them may have put a secret into them. */
function fieldsOf(settings: ServerSettings): object {
  const { name, source, destinations, schedule, retention, prune, maxAge, verify } = settings
  const from = typeof source === 'string' ? { source } : { program: source.command[0] }
  return { name, ...from, destinations, schedule, retention, prune, maxAge, verify }
}

/** @param unread how many secrets cannot be read; undefined where they were not looked at. */
function textOf(loaded: LoadedConfig, unread: number | undefined): string {
  const servers = serverNames(loaded).map((name) => {
    const { source, destinations, schedule, retention, prune, maxAge, encryption } = serverSettings(loaded, name)
    return [
      name,
      printable(typeof source === 'string' ? source : `output of ${source.command[0]}`),
      destinations.join(', '),
      scheduleText(schedule),
      prune ? retentionText(retention) : '-',
      maxAge ?? '-',
      encryption === false
        ? 'NONE'
        : encryption === undefined
          ? 'MILLRACE_PASSWORD'
          : encryption.key
            ? 'key'
            : 'password',
    ]
  })
  const destinations = destinationNames(loaded).map((name) => {
    const one = destinationConfig(loaded, name)
    const limits = [
      ...(one.bandwidth === undefined ? [] : [`writes ${formatRate(one.bandwidth)}`]),
      ...(one.readBandwidth === undefined ? [] : [`reads ${formatRate(one.readBandwidth)}`]),
    ]
    const place = 'bucket' in one ? one.bucket : 'root' in one ? one.root : 'folder' in one ? one.folder : undefined
    return [name, one.provider, printable(place ?? '-'), limits.join(', ') || '-']
  })
  return [
    formatTable(['SERVER', 'SOURCE', 'DESTINATIONS', 'SCHEDULE', 'KEEPS', 'MAX AGE', 'ENCRYPTION'], servers),
    '',
    formatTable(['DESTINATION', 'PROVIDER', 'WHERE', 'LIMITS'], destinations),
    '',
    `${loaded.file} is good: ${formatCount(servers.length, 'server')}, ${formatCount(destinations.length, 'destination')}.${secretsText(unread)}`,
  ].join('\n')
}

function secretsText(unread: number | undefined): string {
  if (unread === undefined) return ''
  return unread === 0 ? ' All secrets can be read.' : ` But ${formatCount(unread, 'secret')} cannot be read.`
}

function scheduleText(schedule: ScheduleConfig | undefined): string {
  if (schedule === undefined) return '-'
  if (typeof schedule === 'string') return `${schedule} UTC`
  return `${schedule.cron} ${schedule.timezone ?? 'UTC'}${schedule.jitter === undefined ? '' : ` +${schedule.jitter}`}`
}

function retentionText(retention: RetentionPolicy | undefined): string {
  if (retention === undefined) return 'the defaults'
  const rules = Object.entries(retention).filter(([, value]) => value !== undefined && value !== 0)
  return rules.map(([name, value]) => `${name.replace(/^keep/, '').toLowerCase()} ${value}`).join(', ')
}
