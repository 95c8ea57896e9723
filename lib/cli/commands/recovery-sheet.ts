import type { Command } from 'commander'
import { withConfig, withServer } from '../options.ts'
import type { Runner } from '../run.ts'

/** Adds `millrace recovery-sheet`. */
export function addRecoverySheet(program: Command, run: Runner): void {
  withServer(withConfig(program.command('recovery-sheet')))
    .description(
      'Write a page that says what to keep, where the backups of a server are, and the commands that restore them on a new machine.',
    )
    .requiredOption('-o, --output <file>', 'where to: .html (to print), .md or .txt; one that is there is replaced')
    .option('--with-password', 'put the password (or key) on it; you are asked whether you mean it')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace recovery-sheet -o recovery.html\n  $ millrace recovery-sheet --config /etc/millrace/millrace.yaml --server survival -o survival.md',
    )
    .action((options) =>
      run(options, async (invocation) =>
        (await import('../work/recovery-sheet.ts')).recoverySheetCommand(options, invocation),
      ),
    )
}
