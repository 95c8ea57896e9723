import { randomBytes, randomInt } from 'node:crypto'
import type { EncryptionConfig } from '../../config/schema.ts'
import { readKeyFile } from '../../key-file.ts'
import { type Asker, needed } from './ask.ts'
import { askVariable } from './keeper.ts'
import { typedPath } from './paths.ts'
import type { SecretBox } from './secret-box.ts'

/** Without what is taken for something else when it is read from paper: 0 o, 1 l i. */
const LETTERS = 'abcdefghjkmnpqrstuvwxyz23456789'
const GROUPS = 6
const GROUP_LETTERS = 5
const KEY_BYTES = 32
const SHORT_CHARS = 12

const lost = (what: string) =>
  `A lost ${what} means lost backups: nobody can read them without it, not even whoever made them. Keep it on paper or in a password manager, away from this machine.`

/** A password of 148 bits that can be written down and typed: `k7mqa-…`. */
export function generatePassword(): string {
  const group = () => Array.from({ length: GROUP_LETTERS }, () => LETTERS[randomInt(LETTERS.length)]).join('')
  return Array.from({ length: GROUPS }, group).join('-')
}

/** Asks what new snapshots are encrypted with. @returns what the config says of it. */
export async function askEncryption(ask: Asker, box: SecretBox): Promise<EncryptionConfig> {
  for (;;) {
    const how = await ask.choose<'typed' | 'generated' | 'environment' | 'key' | 'none'>(
      'What are backups encrypted with?',
      [
        { value: 'generated', label: 'A password that is made now', hint: 'strong, shown once, kept in a file' },
        { value: 'typed', label: 'A password of your own', hint: 'typed twice, kept in a file' },
        { value: 'environment', label: 'A password in an environment variable', hint: 'only its name is written' },
        { value: 'key', label: 'A key file', hint: '32 bytes: one that you have, or a new one' },
        { value: 'none', label: 'Nothing', hint: 'whoever can read the store can read the world' },
      ],
    )
    switch (how) {
      case 'generated':
        return { password: await box.keep('password', await showGenerated(ask)) }
      case 'typed':
        return { password: await box.keep('password', await askPassword(ask)) }
      case 'environment': {
        ask.say('warn', lost('password'))
        return { password: `\${${await askVariable(ask, "The variable's name", 'MILLRACE_PASSWORD')}}` }
      }
      case 'key':
        return { key: await askKey(ask, box) }
      case 'none': {
        ask.say(
          'warn',
          'Without encryption whoever gets at the store reads all of the world, its chat and plugin passwords among it, and can change it unseen.',
        )
        if (await ask.confirm('Go without encryption?', false)) return false
      }
    }
  }
}

async function showGenerated(ask: Asker): Promise<string> {
  const password = generatePassword()
  ask.box('The password, shown this once', password)
  ask.say('warn', lost('password'))
  while (!(await ask.confirm('Have you written it down?', false))) ask.say('info', 'Do it now: it is not shown again.')
  return password
}

async function askPassword(ask: Asker): Promise<string> {
  ask.say('warn', lost('password'))
  for (;;) {
    const password = await ask.hidden('Password', needed('A password'))
    const again = await ask.hidden('The same again', needed('The same password'))
    if (password !== again) {
      ask.say('bad', 'The two differ.')
      continue
    }
    if (password.length >= SHORT_CHARS) return password
    const isMeant = await ask.confirm(
      `It is shorter than ${SHORT_CHARS} characters, and can be guessed. Use it?`,
      false,
    )
    if (isMeant) return password
  }
}

async function askKey(ask: Asker, box: SecretBox): Promise<string> {
  const file = await ask.text('The file with the key (empty: a new key is made)', {
    validate: async (answer) => {
      if (answer === '') return undefined
      try {
        ;(await readKeyFile(typedPath(answer))).fill(0)
        return undefined
      } catch (error) {
        return (error as Error).message
      }
    },
  })
  ask.say('warn', lost('key'))
  if (file !== '') return `file:${typedPath(file)}`
  return box.keep('key', randomBytes(KEY_BYTES).toString('hex'))
}
