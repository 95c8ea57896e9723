import { type Command, Option } from 'commander'
import type { Runner } from '../run.ts'

/** Adds `millrace install-timer`. */
export function addInstallTimer(program: Command, run: Runner): void {
  program
    .command('install-timer')
    .description("Write systemd timers for the config's schedules, in place of `millrace schedule`.")
    .addOption(
      new Option(
        '--config <file>',
        'the config (default: MILLRACE_CONFIG, ./millrace.yaml, ~/.config/millrace/millrace.yaml, /etc/millrace/millrace.yaml)',
      ),
    )
    .option('--server <name...>', 'only these servers (default: all that have a schedule)')
    .addOption(new Option('--user', 'for the manager of this user (default, but for root)').conflicts('system'))
    .addOption(new Option('--system', 'for the whole machine (default for root)'))
    .option('--unit-dir <dir>', 'where the units go (default: /etc/systemd/system, or ~/.config/systemd/user)')
    .option('--dry-run', 'show the units; nothing is written')
    .option('--uninstall', 'remove the units that it has written')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      `
No secret is written: where the config says \${NAME}, the units read NAME from millrace.env beside the config. Nothing is
enabled or started either; what to do next is printed.

Examples:
  $ millrace install-timer --dry-run
  $ sudo millrace install-timer --config /etc/millrace/millrace.yaml
  $ millrace install-timer --user --server survival
  $ sudo millrace install-timer --uninstall`,
    )
    .action((options) =>
      run(options, async (invocation) => (await import('../timer-units.ts')).installTimerCommand(options, invocation)),
    )
}
