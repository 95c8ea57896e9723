import { type Command, CommanderError } from 'commander'
import { buildProgram } from '../../lib/cli/main.ts'

/** What may stand before it: programs that run others, their options, variables, and the fields of a crontab. */
const BEFORE = /^(?:\$|!|npx|npm|run|exec|if|then|sudo|nice|ionice|-[a-z]?\d*|[A-Z_]+=.*|[\d*/,-]+|@[a-z]+)$/

/**
 * The invocations of millrace in some lines of shell, as lists of arguments. It knows quotes, comments, continued lines
 * and what separates commands, and no expansions: a variable stays what it is.
 */
export function invocations(text: string): string[][] {
  const found: string[][] = []
  let words: string[] = []
  const end = () => {
    const at = words.findIndex((word) => /^(?:[^=]*\/)?millrace$/.test(word))
    if (at >= 0 && words.slice(0, at).every((word) => BEFORE.test(word))) {
      found.push(words.slice(words[at + 1] === '--' ? at + 2 : at + 1))
    }
    words = []
  }
  const token =
    /\\\n|(?<=^|\s)#[^\n]*|\n|[;&|()]+|\d?[<>]+&?\s*(?:'[^']*'|"[^"]*"|[^\s;&|()]+)|(?:'[^']*'|"[^"]*"|\\.|[^\s;&|()<>'"\\])+|[ \t]+/g
  for (const [piece] of text.replaceAll('ExecStart=', '').matchAll(token)) {
    if (/^(?:\\\n|#|[ \t]|\d?[<>])/.test(piece)) continue
    if (/^[\n;&|()]/.test(piece)) end()
    else words.push(piece.replaceAll(/'([^']*)'|"([^"]*)"|\\(.)/g, '$1$2$3'))
  }
  end()
  return found
}

/** What the real parser of the command line says against some arguments; undefined when it takes them. */
export async function refusal(args: readonly string[]): Promise<string | undefined> {
  const program = buildProgram(async () => {})
  const said: string[] = []
  for (const command of [program, ...program.commands]) {
    command.configureOutput({ writeErr: (text) => said.push(text), writeOut: () => {} })
  }
  try {
    await program.parseAsync(args, { from: 'user' })
    return undefined
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? undefined : said.join('').trim() || error.message
  }
}

/** Every option of every command, as `--name`. */
export function allOptions(): Set<string> {
  const options = new Set(['--help', '--version'])
  const add = (command: Command) => {
    for (const { long } of command.options) if (long) options.add(long)
    for (const sub of command.commands) add(sub)
  }
  add(buildProgram(async () => {}))
  return options
}

/** The name of every command. */
export function allCommands(): Set<string> {
  return new Set(buildProgram(async () => {}).commands.map((command) => command.name()))
}
