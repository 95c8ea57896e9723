import { extname, resolve } from 'node:path'
import type { Command } from 'commander'
import { BackupError } from '../../errors.ts'
import { replaceFile } from '../../replace-file.ts'
import { type ConfigOptions, configOf, serverOf } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { withConfig, withServer } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'

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
    .action((options) => run(options, (invocation) => recoverySheetCommand(options, invocation)))
}

interface RecoverySheetOptions extends ConfigOptions {
  server?: string
  output: string
  withPassword?: boolean
}

/** Writes the recovery sheet of a server, for the owner's eyes only. */
export async function recoverySheetCommand(
  options: RecoverySheetOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const { withPassword = false } = options
  const file = resolve(options.output)
  const format = formatOf(file)
  const loaded = await configOf(options, output)
  if (!loaded) {
    throw new BackupError(
      'USAGE',
      'A recovery sheet is made of a config, and there is none. Name it with --config; `millrace init` makes one.',
    )
  }
  const server = serverOf(options.server, loaded)
  if (withPassword) await confirmPassword(signal)
  const [{ makeRecoverySheet }, { sheetText }] = await Promise.all([
    import('../../recovery-sheet.ts'),
    import('../../recovery-sheet-text.ts'),
  ])
  const text = sheetText(await makeRecoverySheet(loaded, server, { withPassword }), format)
  await replaceFile(file, text, { mode: 0o600, what: 'The recovery sheet' })
  const advice = withPassword
    ? 'The password is on it: print it, lock it away, and delete the file.'
    : 'Print it, and write on it by hand what has a line.'
  output.result('recovery-sheet', { file, server, format, withPassword }, `The recovery sheet is in ${file}. ${advice}`)
  return EXIT.GOOD
}

function formatOf(file: string): 'html' | 'md' | 'txt' {
  const format = extname(file).slice(1).toLowerCase()
  if (format === 'html' || format === 'md' || format === 'txt') return format
  throw new BackupError('USAGE', 'The file of a recovery sheet ends in .html, .md or .txt: that says what it is.')
}

async function confirmPassword(signal: AbortSignal): Promise<void> {
  if (process.stdin.isTTY && process.stderr.isTTY) {
    const { confirm } = await import('@clack/prompts')
    const answer = await confirm({
      message: 'Whoever finds the sheet can read all backups then. Put the password on it?',
      initialValue: false,
      output: process.stderr,
      signal,
    })
    signal.throwIfAborted()
    if (answer === true) return
    throw new BackupError('USAGE', 'The password was not to be on the sheet. Nothing was written.')
  }
  throw new BackupError('USAGE', '--with-password asks whether you mean it, and there is no terminal.')
}
