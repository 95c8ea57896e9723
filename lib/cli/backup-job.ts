import { resolve } from 'node:path'
import type { Backups } from '../backups.ts'
import { localStores } from '../config/storage.ts'
import type { CreatedSnapshot, CreateOptions } from '../create.ts'
import { parseDuration } from '../duration.ts'
import { BackupError } from '../errors.ts'
import type { SelectionOptions } from '../exclude.ts'
import { journalFolder } from '../journal/folder.ts'
import { leftUploads } from '../journal/left.ts'
import type { MetricValues } from '../metrics.ts'
import type { RetentionPolicy } from '../retention.ts'
import { type BackupSource, mayLack, type Omissions } from '../source.ts'
import { dryRun } from './commands/dry-run.ts'
import { showPrune } from './commands/prune.ts'
import { type Chosen, keysFor, openChosen } from './configured.ts'
import { EXIT } from './exit-codes.ts'
import { formatBytes, formatCount, formatDuration, formatRate, formatRatio } from './format.ts'
import { pruneExitCode } from './keep-options.ts'
import { type OwnRcon, resumeLeft } from './quiesce.ts'
import { errorOf, type RecordedInvocation, type RunFacts, recorded } from './recording.ts'
import type { Invocation } from './run.ts'
import type { SecretOptions } from './secrets.ts'
import { nowSeconds, reportMetrics } from './stores.ts'
import { style } from './style.ts'

/** The options of `backup` that go over what a config says. */
export interface JobOptions extends SecretOptions {
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
  include?: string[]
  exclude?: string[]
  /** false after `--no-default-excludes`. */
  defaultExcludes?: boolean
  dryRun?: boolean
  /** The folder of journals. */
  journal?: string
  /** true after `--resume`. */
  resume?: boolean | string
}

/** One server's backup: what of, where to, and all around it. */
export interface BackupJob extends Chosen {
  source: BackupSource
  /** What stays of the server after it; undefined for no prune. */
  policy: RetentionPolicy | undefined
  /** What the config says of what is taken. */
  selection: SelectionOptions
  /** Called when it begins: what holds the source still may need a password. */
  create: () => Promise<CreateOptions>
  rcon: OwnRcon
}

function selectionOver(given: SelectionOptions, options: JobOptions): SelectionOptions {
  return {
    include: options.include ?? given.include,
    exclude: options.exclude ?? given.exclude,
    // Without the option it is true, which says nothing.
    defaultExcludes: options.defaultExcludes === false ? false : given.defaultExcludes,
  }
}

/** What a config gives for `create`, and over it what the command line says. @throws BackupError USAGE. */
export function optionsOver(given: CreateOptions, options: JobOptions): CreateOptions {
  const ms = (text: string | undefined) => (text === undefined ? undefined : parseDuration(text))
  if (options.lease === false && (options.wait !== undefined || options.steal)) {
    const flag = options.steal ? '--steal' : '--wait'
    throw new BackupError('USAGE', `${flag} is about the lease that --no-lease goes without: give one of them.`)
  }
  const { hookBefore: before, hookAfter: after, hookFailure: failure } = options
  const { lease = {}, hooks = {} } = given
  return {
    level: options.level ?? given.level,
    allowEmpty: options.allowEmpty ?? given.allowEmpty,
    ...selectionOver(given, options),
    lease:
      options.lease === false || lease === false
        ? false
        : { waitMs: ms(options.wait) ?? lease.waitMs, steal: options.steal },
    stallMs: ms(options.stallTimeout) ?? given.stallMs,
    journal: given.journal,
    hooks: {
      before: before ?? hooks.before,
      after: after ?? hooks.after,
      failure: failure ?? hooks.failure,
      timeoutMs: ms(options.hookTimeout) ?? hooks.timeoutMs,
    },
  }
}

/**
 * What `--journal` and `--resume` say, and where only the folder is given, whether the config goes on with uploads.
 * @returns undefined where neither is given.
 * @throws BackupError USAGE.
 */
export function journalOf(
  { journal, resume }: Pick<JobOptions, 'journal' | 'resume'>,
  given: CreateOptions['journal'],
  stateFolder: string,
): CreateOptions['journal'] {
  if (journal === undefined && resume === undefined) return undefined
  if (typeof resume === 'string' && resume !== 'strict') {
    throw new BackupError(
      'USAGE',
      `--resume=${resume} is unknown. Say --resume, after the servers or the folder, or --resume=strict.`,
    )
  }
  return {
    folder: resolve(journal ?? journalFolder(stateFolder)),
    resume: (resume as boolean | 'strict' | undefined) ?? given?.resume,
  }
}

/** What the config says of journals, where it can be: another store is no reason to make no backup. */
function usable(
  journal: CreateOptions['journal'],
  storages: Backups['storages'],
  output: Invocation['output'],
): CreateOptions['journal'] {
  if (!journal || (storages.length === 1 && storages[0]?.discardUpload)) return journal
  const why = storages.length > 1 ? 'several destinations' : (storages[0]?.location ?? '')
  output.notice(`The config says resume, and an upload to ${why} cannot be taken up; it is made without a journal.`)
  return undefined
}

/** Backs one server up, and prunes it. @returns the exit code. */
export async function backUp(job: BackupJob, options: JobOptions, invocation: Invocation): Promise<number> {
  const { source, server, stateFolder } = job
  if (options.dryRun) {
    const state = [stateFolder, ...(options.journal === undefined ? [] : [options.journal])]
    const into = { stores: localStores(job.loaded, job.stores), server, state }
    return dryRun(source, selectionOver(job.selection, options), into, invocation)
  }
  return recorded({ command: 'backup', server, stateFolder }, invocation, (noted) => createOne(job, options, noted))
}

async function createOne(job: BackupJob, options: JobOptions, invocation: RecordedInvocation): Promise<number> {
  const { output, signal, note } = invocation
  const { source, server, policy, stateFolder } = job
  const create = await job.create()
  const asked = journalOf(options, create.journal, stateFolder)
  await resumeLeft(job.rcon, server, stateFolder, output)
  const keys = await keysFor(job, options, 'write')
  const backups = await openChosen(job, { ...keys, stateFolder })
  const { storages } = backups
  const journal = asked ?? usable(create.journal, storages, output)
  const report = (values: (destination: string) => MetricValues) =>
    reportMetrics(options.metricsFile ?? job.metricsFile, server, storages, output, values)
  try {
    const made = await backups
      .create(source, { ...create, journal, signal, onProgress: output.progress, onWarning: output.warning })
      .catch(async (error) => {
        if (journal) await tellWhatStays(journal.folder, server, storages, output)
        await report(() => ({ lastFailure: nowSeconds() }))
        throw error
      })
    const { id, files, bytes, storedBytes, elapsedMs, incomplete, consistency, destinations } = made
    note({ id, files, bytes, storedBytes, elapsedMs, consistency, destinations, error: whyIncomplete(made) })
    const text = [
      `Backed up ${made.kind === 'tar' ? formatCount(files, 'file') : 'the stream'} of ${server} as ${id}`,
      `  ${formatBytes(bytes)} -> ${formatBytes(storedBytes)} (ratio ${formatRatio(bytes, storedBytes)}) in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}`,
      ...made.destinations.map(
        ({ destination, ok }) => `  ${ok ? '' : style('bad', 'FAILED ')}${destination} ${made.key}`,
      ),
      ...(made.takenUp ? [takenUpLine(made.takenUp)] : []),
      `  consistency: ${made.consistency}`,
      ...omissionLines(made.omissions),
    ].join('\n')
    output.result('snapshot', made, text)
    const seconds = elapsedMs / 1000
    let code: number = EXIT.GOOD
    try {
      if (policy)
        code = await pruneAfter(backups, policy, made, { lease: options.lease, stateDir: stateFolder }, invocation)
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

/** After a failure or an interrupt: that what was uploaded is not lost. */
async function tellWhatStays(
  folder: string,
  server: string,
  storages: Backups['storages'],
  output: Invocation['output'],
): Promise<void> {
  const locations = storages.map(({ location }) => location)
  const left = await leftUploads(folder, locations, server).catch(() => [])
  const newest = left.filter(({ state }) => state === 'resumable').at(-1)
  if (!newest) return
  output.notice(
    `${formatBytes(newest.storedBytes)} of ${newest.id} stay in the store. The same command with --resume goes on with them.`,
  )
}

function takenUpLine({ since, heldBytes, sentBytes }: NonNullable<CreatedSnapshot['takenUp']>): string {
  const begun = new Date(since).toISOString()
  return `  taken up: begun ${begun}, ${formatBytes(heldBytes)} were in the store, ${formatBytes(sentBytes)} were sent now`
}

/** Why it is incomplete, for the history: what the first destination that failed says, or what is missing. */
function whyIncomplete({ incomplete, destinations, omissions }: CreatedSnapshot): RunFacts['error'] {
  const { destination, error } = destinations.find(({ ok }) => !ok) ?? {}
  if (error) return { code: error.code ?? 'DESTINATIONS', message: `${destination} failed: ${error.message}` }
  if (!incomplete) return undefined
  const missing = omissionLines({ ...omissions, special: 0, excluded: 0 }).map((line) => line.trim())
  const otherwise = 'The source did not hold still as it should, or the hook after the backup failed'
  return { code: 'INCOMPLETE', message: `${missing.length > 0 ? missing.join('; ') : otherwise}.` }
}

/**
 * Prunes each store that has taken the snapshot.
 * @param how.lease false after `--no-lease`.
 * @returns the exit code that the prunes are worth; the backup itself is good.
 */
async function pruneAfter(
  backups: Backups,
  policy: RetentionPolicy,
  { omissions, files, destinations }: CreatedSnapshot,
  { lease, stateDir }: { lease: boolean | undefined; stateDir: string },
  { output, signal, note }: RecordedInvocation,
): Promise<number> {
  if (mayLack(omissions, files)) {
    output.notice('Nothing was pruned: what is missing from this snapshot may be in the older ones.')
    return EXIT.INCOMPLETE
  }
  const codes: number[] = []
  let removed = 0
  for (const [index, storage] of backups.storages.entries()) {
    if (!destinations[index]?.ok) continue
    try {
      const report = await backups.prune(policy, {
        storage,
        lease: lease === false ? false : undefined,
        stateDir,
        signal,
        onProgress: output.progress,
      })
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
      note({ error: errorOf(error as Error) })
      codes.push(EXIT.INCOMPLETE)
    }
  }
  if (codes.includes(EXIT.INCOMPLETE)) return EXIT.INCOMPLETE
  return codes.includes(EXIT.DEFERRED) ? EXIT.DEFERRED : EXIT.GOOD
}

function omissionLines({ special, names, unreadable, removed, changed, excluded }: Omissions): string[] {
  const lines: string[] = []
  if (excluded > 0) lines.push(`  left out by patterns: ${formatCount(excluded, 'name')} (--dry-run shows them)`)
  if (special > 0)
    lines.push(`  left out: ${formatCount(special, 'socket, fifo or device', 'sockets, fifos or devices')}`)
  if (names > 0) lines.push(`  left out: ${formatCount(names, 'name')} not in UTF-8`)
  if (unreadable > 0)
    lines.push(`  left out: ${formatCount(unreadable, 'entry', 'entries')} that could not be read, or were gone`)
  if (removed > 0) lines.push(`  removed before they could be read: ${formatCount(removed, 'file')}`)
  if (changed > 0) lines.push(`  changed while they were read: ${formatCount(changed, 'file')}`)
  return lines
}
