import { join } from 'node:path'
import { backupCommand } from '../commands/backup.ts'
import { EXIT } from '../exit-codes.ts'
import { printable } from '../format.ts'
import type { Invocation } from '../run.ts'
import { recoverySheetCommand } from '../work/recovery-sheet.ts'
import type { Asker } from './ask.ts'
import { typedPath } from './paths.ts'
import type { Written } from './wizard.ts'

const SCHEDULED =
  'Backups are made on their schedule while `millrace schedule` runs; `millrace install-timer` has systemd run it.'

/**
 * What comes after the config: the recovery sheet, and the first backup.
 * @returns the exit code.
 */
export async function askNext(ask: Asker, { file, server }: Written, invocation: Invocation): Promise<number> {
  if (
    await ask.confirm('Write a recovery sheet? (what to keep, and how to restore on a new machine; no password)', true)
  ) {
    const sheet = await ask.text('Which file? (.html to print, .md, or .txt)', {
      initial: join(process.cwd(), `millrace-recovery-${server}.html`),
      validate: (answer) => (/\.(?:html|md|txt)$/i.test(answer) ? undefined : 'It ends in .html, .md or .txt.'),
    })
    try {
      await recoverySheetCommand({ config: file, server, output: typedPath(sheet) }, invocation)
    } catch (error) {
      // The config is there all the same, and so is the command.
      ask.say('bad', `${printable((error as Error).message)} \`millrace recovery-sheet\` makes one later.`)
    }
  }
  const next = await ask.choose('What now?', [
    { value: 'backup', label: 'Make a backup now' },
    { value: 'nothing', label: 'Nothing', hint: 'millrace backup makes one' },
  ])
  const code = next === 'backup' ? await backupCommand([server], { config: file }, invocation) : EXIT.GOOD
  ask.say('info', SCHEDULED)
  return code
}
