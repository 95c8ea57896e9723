import { type Command, Option } from 'commander'
import type { PruneOutcome, PruneReport } from '../../prune.ts'
import type { RetentionPolicy } from '../../retention.ts'
import { type Chosen, choose, openChosen, type PlaceOptions } from '../configured.ts'
import { EXIT, exitCodeOf, gravest } from '../exit-codes.ts'
import { formatAge, formatBytes, formatCount, formatTable, printable } from '../format.ts'
import { hasRule, type KeepOptions, policyOf, pruneExitCode, withKeep } from '../keep-options.ts'
import { wholeNumber, withServer, withStore } from '../options.ts'
import type { Output } from '../output.ts'
import { errorOf, type RecordedInvocation, recorded } from '../recording.ts'
import type { Invocation, Runner } from '../run.ts'
import { style } from '../style.ts'

/** Adds `millrace prune`. */
export function addPrune(program: Command, run: Runner): void {
  withKeep(withServer(withStore(program.command('prune'), '--from')), wholeNumber)
    .description(
      "Remove the snapshots that no rule keeps. Without a rule: what the config's retention keeps, else 24 hourly, 14 daily and 8 weekly ones stay.",
    )
    .option('--dry-run', 'only say what would be removed, and why the others stay')
    .addOption(new Option('--no-lease', 'do not keep backups out meanwhile; unfinished snapshots are left alone then'))
    .option(
      '--state-dir <dir>',
      'where unfinished snapshots are remembered (default: as the config says, else ~/.local/state/millrace)',
    )
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace prune --from file:///mnt/backups --server survival --dry-run\n  $ millrace prune --from file:///mnt/backups --server survival --keep-last 3 --keep-daily 30 --keep-monthly 12\n  $ millrace prune --from file:///mnt/backups --server survival --keep-within 14d --minimum 5',
    )
    .action((options) => run(options, (invocation) => pruneCommand(options, invocation)))
}

interface PruneCommandOptions extends KeepOptions, PlaceOptions {
  dryRun?: boolean
  /** false after `--no-lease`. */
  lease?: boolean
  stateDir?: string
}

const WORDS: Record<PruneOutcome, string> = {
  kept: 'keep',
  planned: 'would remove',
  removed: 'removed',
  'in-use': 'in use',
  deferred: 'locked',
  failed: 'FAILED',
}

export async function pruneCommand(options: PruneCommandOptions, invocation: Invocation): Promise<number> {
  policyOf(options)
  const chosen = await choose(options, '--from', invocation.output)
  const policy = policyFor(options, chosen.settings?.retention)
  // A dry run changes nothing, and there is nothing to remember.
  if (options.dryRun) return pruneStores(chosen, policy, options, { ...invocation, note() {} })
  const { server, stateFolder } = chosen
  return recorded({ command: 'prune', server, stateFolder }, invocation, (noted) =>
    pruneStores(chosen, policy, options, noted),
  )
}

async function pruneStores(
  chosen: Chosen,
  policy: RetentionPolicy,
  options: PruneCommandOptions,
  { output, signal, note }: RecordedInvocation,
): Promise<number> {
  const { dryRun, stateDir } = options
  const destinations: { destination: string; ok: boolean }[] = []
  let removed = 0
  const lease = options.lease === false ? false : undefined
  const several = chosen.stores.length > 1
  const codes: number[] = []
  for (const store of chosen.stores) {
    try {
      // Nothing is opened, so no password is needed.
      const backups = await openChosen({ ...chosen, stores: [store] }, { encryption: false })
      try {
        const report = await backups.prune(policy, {
          dryRun,
          lease,
          stateDir: stateDir ?? chosen.stateFolder,
          signal,
          onProgress: output.progress,
        })
        // A server that is misspelt has none either.
        if (report.snapshots.length === 0) {
          output.notice(`There is no snapshot of ${report.server} at ${backups.storage.location}.`)
        }
        showPrune(report, output, { all: true, at: several ? backups.storage.location : undefined })
        const code = pruneExitCode(report)
        codes.push(code)
        destinations.push({ destination: backups.storage.location, ok: code === EXIT.GOOD })
        removed += report.snapshots.filter(({ outcome }) => outcome === 'removed').length
        const [problem] = report.problems
        note({ destinations, removed, ...(problem && { error: problem }) })
      } finally {
        await backups.close()
      }
    } catch (error) {
      if (!several || signal.aborted) throw error
      // The other stores are pruned all the same.
      codes.push(exitCodeOf(error))
      output.error(error as Error, exitCodeOf(error))
      note({ error: errorOf(error as Error) })
    }
  }
  return gravest(codes)
}

/**
 * The policy that the command line gives, else the config's, else the defaults.
 * @throws BackupError USAGE.
 */
export function policyFor(options: KeepOptions, retention: RetentionPolicy | undefined): RetentionPolicy {
  const given = policyOf(options)
  return hasRule(options) || !retention ? given : withMinimum(retention, options.minimum)
}

function withMinimum(policy: RetentionPolicy, minimum: number | undefined): RetentionPolicy {
  return minimum === undefined ? policy : { ...policy, minimum }
}

/**
 * @param how.all whether those that stay are named too.
 * @param how.at the store's location, where there are several.
 */
export function showPrune(
  report: PruneReport,
  output: Output,
  { all, at }: { all: boolean; at?: string | undefined },
): void {
  const where = at === undefined ? {} : { destination: at }
  const { server, dryRun, removedBytes, orphans, strayPins, foreign, cancelledUploads, problems, notes } = report
  const shown = all ? report.snapshots : report.snapshots.filter(({ action }) => action === 'remove')
  if (output.json) {
    for (const { snapshot, action, outcome, reasons } of shown) {
      output.result('decision', { ...where, ...snapshot, action, outcome, reasons }, '')
    }
    for (const problem of problems) output.result('problem', { ...where, ...problem }, '')
  } else if (shown.length > 0) {
    output.text(table(shown))
  }
  const counts = Object.fromEntries(
    Object.keys(WORDS).map((name) => [name, report.snapshots.filter(({ outcome }) => outcome === name).length]),
  ) as Record<PruneOutcome, number>
  const unfinished = report.snapshots.filter(({ snapshot, action }) => !snapshot.complete && action === 'keep').length
  const fields = {
    server,
    ...where,
    dryRun,
    counts,
    removedBytes,
    unfinished,
    orphans,
    strayPins,
    foreign,
    cancelledUploads,
    notes,
  }
  output.result('prune', fields, summary(report, counts, unfinished, at))
  if (!output.json) for (const { message } of problems) output.complain(message)
}

function table(shown: PruneReport['snapshots']): string {
  const now = Date.now()
  return formatTable(
    ['SNAPSHOT', 'AGE', 'STORED', 'WHAT', 'BECAUSE'],
    shown.map(({ snapshot, outcome, reasons }) => [
      snapshot.id,
      formatAge(now - snapshot.created.getTime()),
      formatBytes(snapshot.storedBytes),
      outcome === 'failed' ? style('bad', WORDS[outcome]) : WORDS[outcome],
      reasons.join('; '),
    ]),
    [2],
  )
}

function summary(
  report: PruneReport,
  counts: Record<PruneOutcome, number>,
  unfinished: number,
  at: string | undefined,
): string {
  const { server, dryRun, removedBytes, orphans, strayPins, foreign, cancelledUploads, notes } = report
  const gone = dryRun ? counts.planned : counts.removed
  const lines = [
    `${server}${at === undefined ? '' : ` in ${at}`}: ${dryRun ? 'would remove' : 'removed'} ${formatCount(gone, 'snapshot')} (${formatBytes(removedBytes)}), kept ${counts.kept}`,
  ]
  if (counts['in-use'] > 0) lines.push(`  in use, so left for the next prune: ${counts['in-use']}`)
  if (counts.deferred > 0) lines.push(`  locked by the store, so left for a later prune: ${counts.deferred}`)
  if (counts.failed > 0) lines.push(`  could not be removed: ${counts.failed}`)
  if (unfinished > 0)
    lines.push(`  unfinished, not touched: ${unfinished} (\`millrace adopt ID\` reads one and makes it complete)`)
  if (orphans.length > 0) lines.push(`  ${formatCount(orphans.length, 'companion')} without an object`)
  if (cancelledUploads > 0) lines.push(`  ${formatCount(cancelledUploads, 'unfinished upload')} cancelled`)
  if (strayPins.length > 0) lines.push(`  ${formatCount(strayPins.length, 'pin')} without a snapshot`)
  if (foreign.length > 0) lines.push(`  ${formatCount(foreign.length, 'other object')} left alone`)
  return [...lines, ...notes.map((note) => `  ${printable(note)}`)].join('\n')
}
