import type { ReadKeys } from '../../transforms/index.ts'
import { BackupError } from '../errors.ts'
import { readKeyFile, readPasswordFile } from '../key-file.ts'
import { noteSecret } from '../redact.ts'

export interface SecretOptions {
  passwordFile?: string[] | undefined
  keyFile?: string[] | undefined
  /** false after `--no-encryption`. */
  encryption?: boolean | undefined
}

/**
 * Finds the password or key: the files named on the command line, else MILLRACE_PASSWORD, else a hidden prompt.
 * @param purpose `write` asks a new password twice.
 * @throws BackupError USAGE when there is none, or it cannot be read.
 */
export async function findKeys(options: SecretOptions, purpose: 'read' | 'write'): Promise<ReadKeys> {
  const { passwordFile = [], keyFile = [] } = options
  if (purpose === 'write' && passwordFile.length + keyFile.length > 1) {
    throw new BackupError(
      'USAGE',
      'Give one --password-file or one --key-file, not both or several: a snapshot is encrypted with one of them.',
    )
  }
  if (passwordFile.length + keyFile.length > 0) {
    const password = await Promise.all(passwordFile.map(readPasswordFile))
    const key = await Promise.all(keyFile.map(readKeyFile))
    for (const one of [...password, ...key]) noteSecret(one)
    return { password, key }
  }
  const given = process.env.MILLRACE_PASSWORD
  if (given !== undefined) {
    if (given === '')
      throw new BackupError('USAGE', 'MILLRACE_PASSWORD is set and empty. Set it to the password, or unset it.')
    noteSecret(given)
    return { password: given }
  }
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new BackupError(
      'USAGE',
      'No password was given. Set MILLRACE_PASSWORD, or use --password-file or --key-file, or --no-encryption to go without.',
    )
  }
  return { password: await askOnce(purpose) }
}

/** What has been asked: the same for all servers of one run. */
const asked = new Map<'read' | 'write', Promise<string>>()

function askOnce(purpose: 'read' | 'write'): Promise<string> {
  let answer = asked.get(purpose)
  if (!answer) {
    answer = ask(purpose)
    asked.set(purpose, answer)
  }
  return answer
}

async function ask(purpose: 'read' | 'write'): Promise<string> {
  const password = await prompt('Password')
  if (purpose === 'write' && (await prompt('The same again')) !== password) {
    throw new BackupError('USAGE', 'The two passwords differ. Nothing was done.')
  }
  noteSecret(password)
  return password
}

async function prompt(message: string): Promise<string> {
  // Loaded where somebody is asked, which is seldom.
  const { isCancel, password: askPassword } = await import('@clack/prompts')
  const answer = await askPassword({
    message,
    output: process.stderr,
    validate: (value) => (value ? undefined : 'A password has at least one character.'),
  })
  if (isCancel(answer)) throw new BackupError('USAGE', 'No password was given. Nothing was done.')
  return answer
}
