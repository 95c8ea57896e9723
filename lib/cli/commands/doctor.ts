import type { Command } from 'commander'
import { onlyOne, withConfig } from '../options.ts'
import type { Runner } from '../run.ts'

/** Adds `millrace doctor`. */
export function addDoctor(program: Command, run: Runner): void {
  withConfig(program.command('doctor'))
    .description(
      'Look at all that backups stand on: runtime, config, secrets, stores, clocks, sources, and what runs have left. Nothing is changed.',
    )
    .option(
      '--to <store>',
      'look at this store alone: a URL, or the name of a destination in the config',
      onlyOne('--to'),
    )
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      "\nExamples:\n  $ millrace doctor\n  $ millrace doctor --config /etc/millrace/millrace.yaml --json\n  $ millrace doctor --to 's3://worlds/mc?region=eu-central-1'\n\nExit codes: 0 all good, or warnings only; 1 something fails.",
    )
    .action((options) =>
      run(options, async (invocation) => (await import('../work/doctor.ts')).doctorCommand(options, invocation)),
    )
}
