import { type Command, Option } from 'commander'
import { takeHangups } from '../hangups.ts'
import { wholeNumber } from '../options.ts'
import type { Runner } from '../run.ts'

/** Adds `millrace schedule`. */
export function addSchedule(program: Command, run: Runner): void {
  program
    .command('schedule')
    .description('Run the backups and verifies of the config at their times, in the foreground, until a signal.')
    .addOption(
      new Option(
        '--config <file>',
        'the config (default: MILLRACE_CONFIG, ./millrace.yaml, ~/.config/millrace/millrace.yaml, /etc/millrace/millrace.yaml)',
      ),
    )
    .option('--server <name...>', 'only these servers (default: all that have a schedule)')
    .option('--parallel <n>', 'so many servers at once (default: 1); the others wait', wholeNumber)
    .option('--run-now', 'back each server up at the start as well')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      `
SIGTERM and SIGINT stop it: the run that is at work cleans up first; a second signal kills it. SIGHUP reads the config
again. daemon.port and daemon.healthFile in the config tell how it goes.

Examples:
  $ millrace schedule
  $ millrace schedule --config /etc/millrace/millrace.yaml --server survival creative --parallel 2
  $ millrace schedule --run-now --json >> /var/log/millrace.jsonl`,
    )
    .action(async (options) => {
      // At once: one that comes while the daemon is loaded must not end it.
      const hangups = takeHangups()
      try {
        await run(options, async (invocation) =>
          (await import('../schedule-daemon.ts')).scheduleCommand(options, invocation, hangups),
        )
      } finally {
        hangups.giveBack()
      }
    })
}
