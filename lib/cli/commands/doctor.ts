import type { Command } from 'commander'
import { findConfigFile } from '../../config/find.ts'
import type { Finding, FindingState } from '../../doctor/index.ts'
import type { ConfigOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatCount, printable } from '../format.ts'
import { withConfig } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace doctor`. */
export function addDoctor(program: Command, run: Runner): void {
  withConfig(program.command('doctor'))
    .description(
      'Look at all that backups stand on: runtime, config, secrets, stores, clocks, sources, and what runs have left. Nothing is changed.',
    )
    .option('--to <store>', 'look at this store alone: a URL, or the name of a destination in the config')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      "\nExamples:\n  $ millrace doctor\n  $ millrace doctor --config /etc/millrace/millrace.yaml --json\n  $ millrace doctor --to 's3://worlds/mc?region=eu-central-1'\n\nExit codes: 0 all good, or warnings only; 1 something fails.",
    )
    .action((options) => run(options, (invocation) => doctorCommand(options, invocation)))
}

interface DoctorCliOptions extends ConfigOptions {
  to?: string
}

/** Says of each thing that backups stand on whether it is good, and what to do where it is not. */
export async function doctorCommand({ config, to }: DoctorCliOptions, { output, signal }: Invocation): Promise<number> {
  const file = config === false ? undefined : await findConfigFile(typeof config === 'string' ? config : undefined)
  const { examine } = await import('../../doctor/index.ts')
  const counts: Record<FindingState, number> = { ok: 0, warn: 0, fail: 0 }
  for await (const finding of examine({ file, to, signal })) {
    counts[finding.state] += 1
    output.result('finding', finding, lineOf(finding))
  }
  const noConfig = file === undefined && to === undefined
  const text = [
    counts.fail > 0
      ? `${formatCount(counts.fail, 'failure')}, ${formatCount(counts.warn, 'warning')}. Backups do not work, or not all of them.`
      : counts.warn > 0
        ? `${formatCount(counts.warn, 'warning')}. Backups work.`
        : 'All is well.',
    ...(noConfig ? ['There is no config, so only the runtime was looked at; `millrace init` makes one.'] : []),
  ].join(' ')
  output.result('doctor', { ok: counts.fail === 0, config: file ?? null, counts }, `\n${text}`)
  return counts.fail > 0 ? EXIT.FAILED : EXIT.GOOD
}

function lineOf({ check, subject, state, message, advice }: Finding): string {
  const whose = subject === undefined ? '' : `${subject}: `
  const line = printable(`${state.padEnd(4)}  ${check.padEnd(16)}  ${whose}${message}`)
  return state === 'ok' || advice === undefined ? line : `${line}\n${' '.repeat(24)}${printable(advice)}`
}
