import type { Command } from 'commander'
import { withKeep } from '../keep-options.ts'
import { wholeNumber, withStores } from '../options.ts'
import type { Runner } from '../run.ts'

const DEFAULT_FILE = 'report.html'

/** Adds `millrace report`. */
export function addReport(program: Command, run: Runner): void {
  withKeep(withStores(program.command('report'), '--from'), wholeNumber)
    .description('Write a page about the backups. Nothing is opened, so no password is needed.')
    .option('--server <name>', 'only this server (default: all of the config, or all that the stores have)')
    .option('-o, --output <file>', `where to write it (default: ${DEFAULT_FILE}); replaced at once`)
    .option(
      '--max-age <time>',
      'a newest snapshot that is older (90m, 26h, 7d) is shown as a problem (default: maxAge of the config)',
    )
    .addHelpText(
      'after',
      `
The --keep options say which policy to show; without one it is the config's, else the default of \`millrace prune\`.
With --json the model of the page goes to stdout, and the page is written where -o says so.

Examples:
  $ millrace report -o /var/www/backups.html
  $ millrace report --from file:///mnt/backups -o /var/www/backups.html
  $ millrace report --from file:///mnt/backups --server survival --max-age 26h --keep-daily 30 --keep-monthly 12`,
    )
    .action((options) =>
      run(options, async (invocation) => (await import('../work/report.ts')).reportCommand(options, invocation)),
    )
}
