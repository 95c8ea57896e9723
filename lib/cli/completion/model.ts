import type { Argument, Command, Option } from 'commander'

/** What an option or an argument can be completed with. */
export type Values =
  | { kind: 'nothing' | 'file' | 'folder' | 'server' | 'destination' | 'source' }
  | { kind: 'words'; words: readonly string[] }

export interface CompletedOption {
  /** With their dashes. */
  long: string | undefined
  short: string | undefined
  description: string
  /** undefined: it takes no value. */
  value: Values | undefined
}

/** A command as a shell has to know it. */
export interface CompletedCommand {
  /** From the program's own name on; that one is left out. Empty for the program itself. */
  path: readonly string[]
  description: string
  /** Of the program too: they are taken anywhere. */
  options: CompletedOption[]
  arguments: { name: string; repeats: boolean; values: Values }[]
  /** The names of its own commands. */
  commands: string[]
}

/** What commander does not know: words of which its text tells. */
const WORDS: Record<string, readonly string[]> = {
  '--layout': ['millrace', 'seed'],
  '--access': ['file', 'appdata', 'full', 'files'],
  id: ['latest'],
  provider: ['google-drive', 'dropbox'],
}

/** By what stands for the value in the help. */
const PLACEHOLDERS: Record<string, Values['kind'] & ('file' | 'folder' | 'destination')> = {
  file: 'file',
  dir: 'folder',
  folder: 'folder',
  store: 'destination',
  url: 'destination',
}

/** Every command that the help shows, each before its own commands. */
export function completedCommands(program: Command): CompletedCommand[] {
  const found: CompletedCommand[] = []
  const visit = (command: Command, path: readonly string[]) => {
    const help = command.createHelp()
    // The command `help` is made by commander, of which only its name is known.
    const own = help.visibleCommands(command)
    found.push({
      path,
      description: command.description(),
      options: [...help.visibleOptions(command), ...help.visibleGlobalOptions(command)].map(optionOf),
      arguments: path.at(-1) === 'help' ? [] : command.registeredArguments.map(argumentOf),
      commands: own.map((one) => one.name()),
    })
    for (const one of own) visit(one, [...path, one.name()])
  }
  visit(program, [])
  return found
}

function optionOf(option: Option): CompletedOption {
  const { long, short, description, required, optional, argChoices, flags } = option
  return {
    long: long ?? undefined,
    short: short ?? undefined,
    description: oneLine(description),
    value: required || optional ? valuesOf(long ?? '', /[<[](\w+)/.exec(flags)?.[1] ?? '', argChoices) : undefined,
  }
}

function argumentOf(argument: Argument): CompletedCommand['arguments'][number] {
  const name = argument.name()
  // An id without it is of one snapshot, which cannot be known here.
  const choices = name === 'id' && !argument.description.includes('latest') ? [] : argument.argChoices
  return { name, repeats: argument.variadic, values: valuesOf(name, name, choices) }
}

function valuesOf(name: string, placeholder: string, choices: readonly string[] | undefined): Values {
  const words = choices ?? WORDS[name]
  if (words) return { kind: 'words', words }
  if (name === '--server') return { kind: 'server' }
  if (name === 'source') return { kind: 'source' }
  return { kind: PLACEHOLDERS[placeholder] ?? 'nothing' }
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}
