import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Command } from 'commander'
import { buildProgram } from '../../lib/cli/main.ts'

/** The words that a shell makes of a line, up to where it goes on with another program or a file. */
function wordsOf(line: string): string[] {
  const words: string[] = []
  for (const [token] of line.matchAll(/(?:[^\s'"|<>&]|'[^']*'|"[^"]*")+|[|<>&]/g)) {
    if (/^[|<>&]$/.test(token)) break
    words.push(token.replaceAll(/'([^']*)'|"([^"]*)"/g, '$1$2'))
  }
  return words
}

/** Those of a pipe that are this command. */
function examplesIn(line: string): string[][] {
  return line
    .split(/ \| | \|\| | && /)
    .map(wordsOf)
    .filter(([program]) => program === 'millrace')
}

function helpOf(command: Command): string {
  let shown = ''
  command.configureOutput({ writeOut: (text) => (shown += text) }).outputHelp()
  return shown
}

function leaves(command: Command): Command[] {
  const own = command.commands.filter((one) => !one.name().startsWith('_'))
  return own.length > 0 ? own.flatMap(leaves) : [command]
}

test('the help of every command has examples, of that command, that the command line takes', async () => {
  const program = () => buildProgram(async () => {})
  const commands = leaves(program())
  assert.ok(commands.length >= 18)
  for (const command of commands) {
    const help = helpOf(command)
    const path = [command.parent, command].filter((one) => one?.parent).map((one) => one?.name())
    assert.match(help, /^Examples?:$/m, path.join(' '))
    const lines = [...help.matchAll(/^ {2}\$ (.*)$/gm)].map((match) => match[1] as string)
    const examples = lines.flatMap(examplesIn)
    assert.ok(examples.length > 0, path.join(' '))
    for (const [, ...args] of examples) {
      assert.deepEqual(args.slice(0, path.length), path)
      const fresh = program().configureOutput({ writeErr: () => {} })
      await assert.doesNotReject(fresh.parseAsync(args, { from: 'user' }), `${args.join(' ')}`)
    }
    assert.match(help, /--quiet/)
    assert.match(help, /--debug/)
  }
  const help = helpOf(program())
  for (const code of [0, 1, 2, 3, 4, 5, 6, 7, 129, 130, 143]) assert.match(help, new RegExp(`\\b${code}\\b`))
})

test('a password is looked for in the config by those that take one', () => {
  for (const command of leaves(buildProgram(async () => {}))) {
    const help = helpOf(command).replaceAll(/\s+/g, ' ')
    if (help.includes('--password-file'))
      assert.equal(/else what the config says/.test(help), help.includes('--config'))
  }
})
