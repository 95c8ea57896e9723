import { extname, resolve } from 'node:path'
import { BackupError } from '../../errors.ts'
import { replaceFile } from '../../replace-file.ts'
import { type ConfigOptions, configOf, serverOf } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import type { Invocation } from '../run.ts'

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
