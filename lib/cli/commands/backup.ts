import { basename, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { type Backups, openBackups } from '../../backups.ts'
import type { CreatedSnapshot, CreateOptions } from '../../create.ts'
import { parseDuration } from '../../duration.ts'
import { BackupError } from '../../errors.ts'
import type { SelectionOptions } from '../../exclude.ts'
import type { MetricValues } from '../../metrics.ts'
import { checkServer } from '../../names.ts'
import type { RetentionPolicy } from '../../retention.ts'
import type { BackupSource, Omissions } from '../../source.ts'
import { defaultStateFolder } from '../../state.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatDuration, formatRate, formatRatio } from '../format.ts'
import { type KeepOptions, policyOf, pruneExitCode, withKeep } from '../keep-options.ts'
import { wholeNumber, withKeys, withMetrics, withStores } from '../options.ts'
import { holdLimitMs, type QuiesceCliOptions, quiescerOf, resumeLeft, withQuiesce } from '../quiesce.ts'
import { type RecordedInvocation, recorded } from '../recording.ts'
import type { Invocation, Runner } from '../run.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { nowSeconds, reportMetrics, storesOf } from '../stores.ts'
import { dryRun } from './dry-run.ts'
import { showPrune } from './prune.ts'

/** Adds `millrace backup`. */
export function addBackup(program: Command, run: Runner): void {
  withQuiesce(withKeep(withMetrics(withKeys(withStores(program.command('backup'), '--to'))), wholeNumber))
    .description('Back up a folder or a file.')
    .argument('[source...]', 'the folder (or file) to back up; with --from-command, a program and its arguments')
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
    .option('--stall-timeout <time>', 'drop a store that takes nothing for so long (with several: 5m)')
    .option('--hook-before <cmd>', 'a shell command to run first; when it fails, nothing is backed up')
    .option('--hook-after <cmd>', 'a shell command to run when a snapshot was made, with it as JSON on stdin')
    .option('--hook-failure <cmd>', 'a shell command to run when none was made, with the error as JSON on stdin')
    .option('--hook-timeout <time>', 'what each of them may take (default: 5m)')
    .option(
      '--prune',
      'prune the server afterwards, in each store that took it, by the --keep options or the defaults of prune',
    )
    .addHelpText(
      'after',
      `
Examples:
  $ millrace backup /srv/minecraft/world --to file:///mnt/backups
  $ millrace backup world --to 's3://worlds/mc?region=eu-central-1' --server survival
  $ millrace backup world --to file:///mnt/backups --to 's3://worlds/mc?region=eu-central-1' --wait 10m
  $ millrace backup --to file:///mnt/backups --server db --from-command -- pg_dump game
  $ millrace backup world --to file:///mnt/backups --rcon localhost:25575 --allow-stopped
  $ millrace backup world --to file:///mnt/backups --before 'systemctl stop mc' --after 'systemctl start mc' --before-reaches stopped
  $ millrace backup world --to file:///mnt/backups --exclude '*.tmp' dynmap/ --dry-run`,
    )
    .action((source, options) => run(options, (invocation) => backupCommand(source, options, invocation)))
}

interface BackupOptions extends SecretOptions, KeepOptions, QuiesceCliOptions {
  to: string[]
  server?: string
  fromCommand?: boolean
  level?: number
  allowEmpty?: boolean
  /** false after `--no-lease`. */
  lease?: boolean
  wait?: string
  steal?: boolean
  stallTimeout?: string
  hookBefore?: string
  hookAfter?: string
  hookFailure?: string
  hookTimeout?: string
  metricsFile?: string
  prune?: boolean
  include?: string[]
  exclude?: string[]
  /** false after `--no-default-excludes`. */
  defaultExcludes?: boolean
  dryRun?: boolean
}

export async function backupCommand(
  words: readonly string[],
  options: BackupOptions,
  invocation: Invocation,
): Promise<number> {
  const source = sourceOf(words, options.fromCommand === true)
  const server = options.server ?? defaultServer(source)
  checkServer(server)
  const policy = prunePolicy(options)
  const { include, exclude, defaultExcludes } = options
  const selection = { include, exclude, defaultExcludes }
  if (options.dryRun) return dryRun(source, selection, invocation)
  return recorded({ command: 'backup', server }, invocation, (noted) =>
    backUp(source, { server, policy, selection }, options, noted),
  )
}

interface Chosen {
  server: string
  policy: RetentionPolicy | undefined
  selection: SelectionOptions
}

async function backUp(
  source: BackupSource,
  { server, policy, selection }: Chosen,
  options: BackupOptions,
  invocation: RecordedInvocation,
): Promise<number> {
  const { output, signal, note } = invocation
  const stateFolder = defaultStateFolder()
  const quiesceLimitMs = holdLimitMs(options)
  const quiesce = await quiescerOf(options, server, stateFolder)
  await resumeLeft(options, server, stateFolder, output)
  const encryption = options.encryption !== false
  const keys = encryption ? await findKeys(options, 'write') : {}
  const around = aroundOf(options)
  const backups = await openBackups({ ...storesOf(options.to), server, encryption, ...keys, stateFolder })
  const { storages } = backups
  const report = (values: (destination: string) => MetricValues) =>
    reportMetrics(options.metricsFile, server, storages, output, values)
  try {
    const { level, allowEmpty } = options
    const made = await backups
      .create(source, {
        level,
        allowEmpty,
        ...selection,
        ...around,
        quiesce,
        quiesceLimitMs,
        signal,
        onProgress: output.progress,
        onWarning: output.warning,
      })
      .catch(async (error) => {
        await report(() => ({ lastFailure: nowSeconds() }))
        throw error
      })
    const { id, files, bytes, storedBytes, elapsedMs, incomplete, consistency, destinations } = made
    note({ id, files, bytes, storedBytes, elapsedMs, consistency, destinations, error: firstError(made) })
    const text = [
      `Backed up ${made.kind === 'tar' ? formatCount(files, 'file') : 'the stream'} of ${server} as ${id}`,
      `  ${formatBytes(bytes)} -> ${formatBytes(storedBytes)} (ratio ${formatRatio(bytes, storedBytes)}) in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}`,
      ...made.destinations.map(({ destination, ok }) => `  ${ok ? '' : 'FAILED '}${destination} ${made.key}`),
      `  consistency: ${made.consistency}`,
      ...omissionLines(made.omissions),
    ].join('\n')
    output.result('snapshot', made, text)
    const seconds = elapsedMs / 1000
    let code: number = EXIT.GOOD
    try {
      if (policy) code = await pruneAfter(backups, policy, made, options.lease, invocation)
    } finally {
      // The counts are of what the prune has left.
      await report((destination) =>
        made.destinations.some((one) => one.ok && one.destination === destination)
          ? { bytes, storedBytes, seconds, bytesPerSecond: bytes / seconds }
          : { lastFailure: nowSeconds() },
      )
    }
    return incomplete ? EXIT.INCOMPLETE : code
  } finally {
    await backups.close()
  }
}

/** Of several destinations: what the first that failed says. */
function firstError({ destinations }: CreatedSnapshot): { code: string; message: string } | undefined {
  const { destination, error } = destinations.find(({ ok }) => !ok) ?? {}
  return error && { code: error.code ?? 'DESTINATIONS', message: `${destination} failed: ${error.message}` }
}

/** What `create` is told of everything around the backup. */
function aroundOf(options: BackupOptions): Pick<CreateOptions, 'lease' | 'stallMs' | 'hooks'> {
  const ms = (text: string | undefined) => (text === undefined ? undefined : parseDuration(text))
  const { lease, steal, hookBefore: before, hookAfter: after, hookFailure: failure } = options
  return {
    lease: lease === false ? false : { waitMs: ms(options.wait), steal },
    stallMs: ms(options.stallTimeout),
    hooks: { before, after, failure, timeoutMs: ms(options.hookTimeout) },
  }
}

/** Looked at before anything is backed up. @throws BackupError USAGE. */
function prunePolicy(options: BackupOptions): RetentionPolicy | undefined {
  if (options.prune) return policyOf(options)
  if (Object.keys(options).some((name) => name.startsWith('keep')) || options.minimum !== undefined) {
    throw new BackupError('USAGE', 'What to keep was given without --prune. Add it, or leave the --keep options out.')
  }
  return undefined
}

/**
 * Prunes each store that has taken the snapshot.
 * @param lease false after `--no-lease`.
 * @returns the exit code that the prunes are worth; the backup itself is good.
 */
async function pruneAfter(
  backups: Backups,
  policy: RetentionPolicy,
  { omissions, destinations }: CreatedSnapshot,
  lease: boolean | undefined,
  { output, signal, note }: RecordedInvocation,
): Promise<number> {
  if (omissions.names + omissions.unreadable > 0) {
    output.notice('Nothing was pruned: what is missing from this snapshot may be in the older ones.')
    return EXIT.INCOMPLETE
  }
  const codes: number[] = []
  let removed = 0
  for (const [index, storage] of backups.storages.entries()) {
    if (!destinations[index]?.ok) continue
    try {
      const report = await backups.prune(policy, { storage, lease: lease === false ? false : undefined, signal })
      showPrune(report, output, { all: false, at: destinations.length > 1 ? storage.location : undefined })
      removed += report.snapshots.filter(({ outcome }) => outcome === 'removed').length
      note({ removed })
      const code = pruneExitCode(report)
      codes.push(code === EXIT.FAILED ? EXIT.INCOMPLETE : code)
    } catch (error) {
      if (signal.aborted) throw error
      const where = destinations.length > 1 ? ` of ${storage.location}` : ''
      output.error(
        new Error(`The backup is good; the prune${where} after it failed: ${(error as Error).message}`),
        EXIT.INCOMPLETE,
      )
      codes.push(EXIT.INCOMPLETE)
    }
  }
  if (codes.includes(EXIT.INCOMPLETE)) return EXIT.INCOMPLETE
  return codes.includes(EXIT.DEFERRED) ? EXIT.DEFERRED : EXIT.GOOD
}

function sourceOf(words: readonly string[], program: boolean): BackupSource {
  const [first, ...rest] = words
  if (first === undefined) {
    throw new BackupError(
      'USAGE',
      'Name a folder or file to back up, or use --from-command and name a program after --.',
    )
  }
  if (program) return { command: [first, ...rest] }
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

function omissionLines({ special, names, unreadable, changed, excluded }: Omissions): string[] {
  const lines: string[] = []
  if (excluded > 0) lines.push(`  left out by patterns: ${formatCount(excluded, 'name')} (--dry-run shows them)`)
  if (special > 0)
    lines.push(`  left out: ${formatCount(special, 'socket, fifo or device', 'sockets, fifos or devices')}`)
  if (names > 0) lines.push(`  left out: ${formatCount(names, 'name')} not in UTF-8`)
  if (unreadable > 0) lines.push(`  left out: ${formatCount(unreadable, 'entry', 'entries')} that could not be read`)
  if (changed > 0) lines.push(`  changed while they were read: ${formatCount(changed, 'file')}`)
  return lines
}
