import type { Command } from 'commander'
import type { PruneReport } from '../prune.ts'
import { checkPolicy, DEFAULT_POLICY, type RetentionPolicy } from '../retention.ts'
import { EXIT } from './exit-codes.ts'

/** The options of commander that say what to keep. */
export type KeepOptions = RetentionPolicy

const NAMES = [
  'keepLast',
  'keepHourly',
  'keepDaily',
  'keepWeekly',
  'keepMonthly',
  'keepYearly',
  'keepWithin',
  'minimum',
] as const

/** Adds `--keep-…` and `--minimum` to a command. */
export function withKeep(command: Command, wholeNumber: (text: string) => number): Command {
  return command
    .option('--keep-last <n>', 'keep the newest n', wholeNumber)
    .option('--keep-hourly <n>', 'keep the newest of each of the last n hours that have one (UTC)', wholeNumber)
    .option('--keep-daily <n>', 'likewise for days', wholeNumber)
    .option('--keep-weekly <n>', 'likewise for ISO weeks', wholeNumber)
    .option('--keep-monthly <n>', 'likewise for months', wholeNumber)
    .option('--keep-yearly <n>', 'likewise for years', wholeNumber)
    .option('--keep-within <time>', 'keep all that are at most so old: 14d, 1d12h')
    .option(
      '--minimum <n>',
      'keep the newest n complete ones whatever else (1; 3 with --keep-within alone)',
      wholeNumber,
    )
}

/** Whether the command line says what to keep; `--minimum` alone does not. */
export function hasRule(options: KeepOptions): boolean {
  return NAMES.some((name) => name !== 'minimum' && options[name] !== undefined)
}

/**
 * The policy that the command line gives; the defaults when it gives no rule.
 * @throws BackupError USAGE.
 */
export function policyOf(options: KeepOptions): RetentionPolicy {
  const given: Record<string, unknown> = {}
  for (const name of NAMES) if (options[name] !== undefined) given[name] = options[name]
  const policy: RetentionPolicy = hasRule(options) ? given : { ...DEFAULT_POLICY, ...given }
  checkPolicy(policy)
  return policy
}

/** The exit code that a prune is worth. */
export function pruneExitCode({ problems }: PruneReport): number {
  if (problems.some(({ deferred }) => !deferred)) return EXIT.FAILED
  return problems.length > 0 ? EXIT.DEFERRED : EXIT.GOOD
}
