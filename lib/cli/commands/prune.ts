import { type Command, Option } from 'commander'
import { openBackups } from '../../backups.ts'
import type { PruneOutcome, PruneReport } from '../../prune.ts'
import type { RetentionPolicy } from '../../retention.ts'
import { EXIT } from '../exit-codes.ts'
import { formatAge, formatBytes, formatCount, formatTable, printable } from '../format.ts'
import { type KeepOptions, policyOf, pruneExitCode, withKeep } from '../keep-options.ts'
import { wholeNumber, withStore } from '../options.ts'
import type { Output } from '../output.ts'
import { type RecordedInvocation, recorded } from '../recording.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace prune`. */
export function addPrune(program: Command, run: Runner): void {
  withKeep(withStore(program.command('prune'), '--from'), wholeNumber)
    .description('Remove the snapshots that no rule keeps. Without a rule: 24 hourly, 14 daily and 8 weekly ones stay.')
    .requiredOption('--server <name>', "the server's name")
    .option('--dry-run', 'only say what would be removed, and why the others stay')
    .addOption(new Option('--no-lease', 'do not keep backups out meanwhile; unfinished snapshots are left alone then'))
    .option('--state-dir <dir>', 'where unfinished snapshots are remembered (default: ~/.local/state/millrace)')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace prune --from file:///mnt/backups --server survival --dry-run\n  $ millrace prune --from file:///mnt/backups --server survival --keep-last 3 --keep-daily 30 --keep-monthly 12\n  $ millrace prune --from file:///mnt/backups --server survival --keep-within 14d --minimum 5',
    )
    .action((options) => run(options, (invocation) => pruneCommand(options, invocation)))
}

interface PruneCommandOptions extends KeepOptions {
  from: string
  server: string
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
  const policy = policyOf(options)
  // A dry run changes nothing, and there is nothing to remember.
  if (options.dryRun) return prune(policy, options, { ...invocation, note() {} })
  return recorded({ command: 'prune', server: options.server }, invocation, (noted) => prune(policy, options, noted))
}

async function prune(
  policy: RetentionPolicy,
  options: PruneCommandOptions,
  { output, signal, note }: RecordedInvocation,
): Promise<number> {
  const { from, server, dryRun, stateDir } = options
  const lease = options.lease === false ? false : undefined
  // Nothing is opened, so no password is needed.
  const backups = await openBackups({ storage: from, server, encryption: false })
  try {
    const report = await backups.prune(policy, { dryRun, lease, stateDir, signal })
    showPrune(report, output, { all: true })
    const code = pruneExitCode(report)
    const [problem] = report.problems
    note({
      removed: report.snapshots.filter(({ outcome }) => outcome === 'removed').length,
      destinations: [{ destination: backups.storage.location, ok: code === EXIT.GOOD }],
      ...(problem && { error: { code: problem.code, message: problem.message } }),
    })
    return code
  } finally {
    await backups.close()
  }
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
    output.result('decisions', {}, table(shown))
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
  if (!output.json) for (const { message } of problems) process.stderr.write(`millrace: ${printable(message)}\n`)
}

function table(shown: PruneReport['snapshots']): string {
  const now = Date.now()
  return formatTable(
    ['SNAPSHOT', 'AGE', 'STORED', 'WHAT', 'BECAUSE'],
    shown.map(({ snapshot, outcome, reasons }) => [
      snapshot.id,
      formatAge(now - snapshot.created.getTime()),
      formatBytes(snapshot.storedBytes),
      WORDS[outcome],
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
