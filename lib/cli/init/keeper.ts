import type { Asker } from './ask.ts'
import type { SecretBox } from './secret-box.ts'

/**
 * Asks for one credential, or for the variable that holds it.
 * @param what its name in a file's: `access-key-id`.
 * @param how what is typed: hidden for what is secret.
 * @returns what the config says of it.
 */
export type Keeper = (what: string, label: string, how: 'shown' | 'hidden') => Promise<string>

const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/

/** @param from.prefix what names of variables begin with, to begin from. */
export function keeperOf(
  how: 'typed' | 'environment',
  from: { ask: Asker; box: SecretBox; name: string; prefix: string },
): Keeper {
  const { ask, box, name, prefix } = from
  if (how === 'environment') {
    return async (what, label) => {
      const variable = await askVariable(ask, `${label}: the variable's name`, `${prefix}_${what}`)
      return `\${${variable}}`
    }
  }
  return async (what, label, shown) => {
    const validate = (answer: string) => (answer.trim() === '' ? `${label}: something is needed.` : undefined)
    const typed = shown === 'hidden' ? await ask.hidden(label, validate) : await ask.text(label, { validate })
    // What is copied often has a space or a line end with it, and no key has one.
    return box.keep(`${name}-${what}`, typed.trim())
  }
}

/** Asks for the name of an environment variable, and says when it is not set. */
export async function askVariable(ask: Asker, message: string, like: string): Promise<string> {
  const variable = await ask.text(message, {
    initial: like.toUpperCase().replace(/[^A-Z0-9]+/g, '_'),
    validate: (answer) => (VARIABLE.test(answer) ? undefined : 'Letters, digits and underscores.'),
  })
  if (!process.env[variable]) ask.say('warn', `${variable} is not set here. It must be wherever millrace runs.`)
  return variable
}
