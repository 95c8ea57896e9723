import { stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { LoadedConfig } from '../../config/load.ts'
import { createOptionsOf, rconPasswordOf } from '../../config/open.ts'
import { hasServer, type ServerSettings, serverNames, serverSettings } from '../../config/settings.ts'
import { BackupError } from '../../errors.ts'
import { checkServer } from '../../names.ts'
import { nearest } from '../../nearest.ts'
import { DEFAULT_POLICY, type RetentionPolicy } from '../../retention.ts'
import type { BackupSource } from '../../source.ts'
import { type BackupJob, backUp, type JobOptions, optionsOver } from '../backup-job.ts'
import { chooseServer, configOf, type PlaceOptions } from '../configured.ts'
import { EXIT, exitCodeOf, gravest } from '../exit-codes.ts'
import { formatCount } from '../format.ts'
import { hasRule, type KeepOptions, policyOf, withKeep } from '../keep-options.ts'
import { wholeNumber, withKeys, withMetrics, withStores } from '../options.ts'
import { holdLimitMs, type QuiesceCliOptions, quiescerOf, rconPassword, withQuiesce } from '../quiesce.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace backup`. */
export function addBackup(program: Command, run: Runner): void {
  withQuiesce(withKeep(withMetrics(withKeys(withStores(program.command('backup'), '--to'))), wholeNumber))
    .description('Back up the servers of the config, or a folder or a file.')
    .argument(
      '[source...]',
      'servers of the config (all when none is named), one after the other; or a folder or file; with --from-command, a program and its arguments. A word that is a server and a folder is the server, and with --to the folder',
    )
    .option('--server <name>', "the server's name (default: the folder's base name)")
    .option('--from-command', 'back up the standard output of a program; name it after --')
    .option('--level <n>', 'zstd level, 1 to 22 (default: 3)', wholeNumber)
    .option('--allow-empty', 'back up an empty folder, file or stream')
    .option('--include <glob...>', 'only these files or folders')
    .option('--exclude <glob...>', 'not these, as in .millraceignore; repeat it or name several')
    .option('--no-default-excludes', "also what a known game makes anew, as Minecraft's session.lock")
    .option('--dry-run', 'show what would be backed up, and what is left out and why; nothing is written')
    .addOption(new Option('--no-encryption', 'write without encryption'))
    .addOption(new Option('--no-lease', 'do not keep other runs for this server out'))
    .option('--wait <time>', 'wait so long (90s, 10m, 2h) for another run to end, instead of being refused')
    .option('--steal', 'take the lease of another run, which is known to have died')
    .option(
      '--resume [how]',
      'keep a journal, and go on with what an earlier such run has uploaded; where it is not the same any more, begin anew, or stop with --resume=strict (to one store: S3, B2, Google Drive or Dropbox)',
    )
    .option('--journal <dir>', 'where the journals are (default: journals in the state folder)')
    .option('--stall-timeout <time>', 'drop a store that takes nothing for so long (with several: 5m)')
    .option('--hook-before <cmd>', 'a shell command to run first; when it fails, nothing is backed up')
    .option('--hook-after <cmd>', 'a shell command to run when a snapshot was made, with it as JSON on stdin')
    .option('--hook-failure <cmd>', 'a shell command to run when none was made, with the error as JSON on stdin')
    .option('--hook-timeout <time>', 'what each of them may take (default: 5m)')
    .option(
      '--prune',
      "prune the server afterwards, in each store that took it, by the --keep options, else the config's retention, else the defaults of prune",
    )
    .option('--no-prune', 'do not, though the config says so')
    .addHelpText(
      'after',
      `
Examples:
  $ millrace backup
  $ millrace backup survival creative --config /etc/millrace/millrace.yaml
  $ millrace backup /srv/minecraft/world --to file:///mnt/backups
  $ millrace backup world --to 's3://worlds/mc?region=eu-central-1' --server survival
  $ millrace backup world --to file:///mnt/backups --to 's3://worlds/mc?region=eu-central-1' --wait 10m
  $ millrace backup --to file:///mnt/backups --server db --from-command -- pg_dump game
  $ millrace backup world --to file:///mnt/backups --rcon localhost:25575 --allow-stopped
  $ millrace backup world --to file:///mnt/backups --before 'systemctl stop mc' --after 'systemctl start mc' --before-reaches stopped
  $ millrace backup world --to 's3://worlds/mc?region=eu-central-1' --resume
  $ millrace backup world --to file:///mnt/backups --exclude '*.tmp' dynmap/ --dry-run`,
    )
    .action((source, options) => run(options, (invocation) => backupCommand(source, options, invocation)))
}

interface BackupOptions extends JobOptions, KeepOptions, QuiesceCliOptions, PlaceOptions {
  to?: string[]
  fromCommand?: boolean
  /** false after `--no-prune`. */
  prune?: boolean
}

export async function backupCommand(
  words: readonly string[],
  options: BackupOptions,
  invocation: Invocation,
): Promise<number> {
  const loaded = await configOf(options, invocation.output)
  const servers = await serversOf(words, options, loaded)
  if (!loaded || servers === undefined) return backUp(await jobOfSource(words, options, loaded), options, invocation)
  const [only] = servers as [string, ...string[]]
  if (servers.length === 1) return backUp(await jobOfServer(loaded, only, options), options, invocation)
  return backUpAll(loaded, servers, options, invocation)
}

/** One after the other: two at once would share the machine's disk and line, and nothing would be done sooner. */
async function backUpAll(
  loaded: LoadedConfig,
  servers: readonly string[],
  options: BackupOptions,
  invocation: Invocation,
): Promise<number> {
  const { output, signal } = invocation
  const results: { server: string; exitCode: number }[] = []
  for (const server of servers) {
    let exitCode: number
    try {
      exitCode = await backUp(await jobOfServer(loaded, server, options), options, invocation)
    } catch (error) {
      if (signal.aborted) throw error
      exitCode = exitCodeOf(error)
      output.error(ofServer(server, error as Error), exitCode)
    }
    results.push({ server, exitCode })
  }
  const failed = results.filter(({ exitCode }) => exitCode !== EXIT.GOOD)
  const text =
    failed.length === 0
      ? `All ${formatCount(results.length, 'server')} were ${options.dryRun ? 'looked at' : 'backed up'}.`
      : `${results.length - failed.length} of ${formatCount(results.length, 'server')} without a complaint; not: ${failed.map(({ server, exitCode }) => `${server} (exit code ${exitCode})`).join(', ')}.`
  output.result('backup', { servers: results }, text)
  return gravest(results.map(({ exitCode }) => exitCode))
}

/** An error that says whose it is, with the code that programs tell it by. */
function ofServer(server: string, error: Error): Error {
  const named = new Error(`${server}: ${error.message}`, { cause: error })
  const { code } = error as { code?: unknown }
  return typeof code === 'string' ? Object.assign(named, { code }) : named
}

/**
 * Which servers of the config are meant.
 * @returns undefined where a folder, a file or a program is named instead.
 * @throws BackupError USAGE.
 */
async function serversOf(
  words: readonly string[],
  options: BackupOptions,
  loaded: LoadedConfig | undefined,
): Promise<string[] | undefined> {
  if (!loaded || options.fromCommand) return undefined
  if (words.length === 0) return options.server === undefined ? serverNames(loaded) : [options.server]
  const others = words.filter((word) => !hasServer(loaded, word))
  if (others.length === 0) {
    // With a store beside it, a folder of that name is meant, as it was before there was a config.
    if (options.to && words.length === 1 && (await isThere(words[0] as string))) return undefined
    if (options.server !== undefined) {
      throw new BackupError('USAGE', '--server names whose backup a folder is; here the servers are named already.')
    }
    return [...new Set(words)]
  }
  if (options.to || options.server !== undefined) return undefined
  const names = serverNames(loaded)
  const meant = nearest(others[0] as string, names)
  throw new BackupError(
    'USAGE',
    `${JSON.stringify(others[0])} is no server of ${loaded.file}.${meant === undefined ? '' : ` Did you mean ${meant}?`} Its servers are ${names.join(', ')}. To back up a folder of that name, say where with --to.`,
  )
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

async function jobOfSource(
  words: readonly string[],
  options: BackupOptions,
  loaded: LoadedConfig | undefined,
): Promise<BackupJob> {
  const source = sourceOf(words, options.fromCommand === true)
  const server = checkServer(options.server ?? defaultServer(source))
  const chosen = chooseServer(loaded, server, { to: options.to }, '--to')
  // It is the server that is pruned, whatever was backed up as it; whether it is, the config says for its own source.
  const policy = prunePolicy(options, { prune: false, retention: chosen.settings?.retention })
  const quiesceLimitMs = holdLimitMs(options)
  return {
    ...chosen,
    source,
    policy,
    selection: {},
    create: async () => ({
      ...optionsOver({}, options),
      quiesce: await quiescerOf(options, server, chosen.stateFolder),
      quiesceLimitMs,
    }),
    rcon: { address: options.rcon, password: () => rconPassword(options) },
  }
}

async function jobOfServer(loaded: LoadedConfig, server: string, options: BackupOptions): Promise<BackupJob> {
  const settings = serverSettings(loaded, server)
  const chosen = chooseServer(loaded, server, { to: options.to }, '--to')
  const limitMs = holdLimitMs(options)
  const { rcon, rconPasswordFile, before, after, allowStopped, allowSilent, beforeReaches } = options
  const isHeldByOptions = [rcon, rconPasswordFile, before, after, allowStopped, allowSilent, beforeReaches].some(
    (one) => one !== undefined,
  )
  const quiesce = isHeldByOptions ? undefined : settings.quiesce
  return {
    ...chosen,
    source: settings.source,
    policy: prunePolicy(options, settings),
    selection: settings,
    create: async () => {
      const given = await createOptionsOf(loaded, { ...settings, quiesce })
      return {
        ...optionsOver(given, options),
        quiesce: isHeldByOptions ? await quiescerOf(options, server, chosen.stateFolder) : given.quiesce,
        quiesceLimitMs: limitMs ?? given.quiesceLimitMs,
      }
    },
    rcon: {
      address: rcon ?? (quiesce?.by === 'rcon' ? quiesce.address : undefined),
      password: async () => (await rconPasswordOf(loaded, { ...settings, quiesce })) ?? rconPassword(options),
    },
  }
}

/** Looked at before anything is backed up. @throws BackupError USAGE. */
function prunePolicy(
  options: BackupOptions,
  { prune: byConfig, retention = DEFAULT_POLICY }: Pick<ServerSettings, 'prune' | 'retention'>,
): RetentionPolicy | undefined {
  const prune = options.prune ?? byConfig
  if (!prune && (hasRule(options) || options.minimum !== undefined)) {
    throw new BackupError('USAGE', 'What to keep was given without --prune. Add it, or leave the --keep options out.')
  }
  if (!prune) return undefined
  if (hasRule(options)) return policyOf(options)
  const { minimum } = policyOf(options)
  return { ...retention, ...(minimum === undefined ? {} : { minimum }) }
}

function sourceOf(words: readonly string[], program: boolean): BackupSource {
  const [first, ...rest] = words
  if (first === undefined) {
    throw new BackupError(
      'USAGE',
      'Name a folder or file to back up, or use --from-command and name a program after --.',
    )
  }
  if (program) {
    if (first === '') throw new BackupError('USAGE', 'The program after -- is empty text. Name it.')
    return { command: [first, ...rest] }
  }
  if (rest.length > 0) throw new BackupError('USAGE', `Name one folder or file; ${words.length} were given.`)
  return first
}

function defaultServer(source: BackupSource): string {
  if (typeof source !== 'string') throw new BackupError('USAGE', 'Name the server with --server.')
  const name = basename(resolve(source))
  try {
    return checkServer(name)
  } catch (cause) {
    throw new BackupError(
      'USAGE',
      `The folder's name ${JSON.stringify(name)} cannot be a server's name. Give one with --server.`,
      { cause },
    )
  }
}
