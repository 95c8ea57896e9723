import { Argument, type Command } from 'commander'
import { findConfigFile } from '../../config/find.ts'
import { destinationNames, serverNames } from '../../config/settings.ts'
import { bashScript } from '../completion/bash.ts'
import { fishScript } from '../completion/fish.ts'
import { completedCommands } from '../completion/model.ts'
import { zshScript } from '../completion/zsh.ts'
import { EXIT } from '../exit-codes.ts'
import type { Runner } from '../run.ts'

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript }

/** Adds `millrace completion`, and what its scripts ask. */
export function addCompletion(program: Command, run: Runner): void {
  program
    .command('completion')
    .description('Print a script that completes commands, options, files and names of the config in a shell.')
    .addArgument(new Argument('<shell>', 'which one').choices(Object.keys(SCRIPTS)))
    .addHelpText(
      'after',
      `
Examples:
  $ millrace completion bash > ~/.local/share/bash-completion/completions/millrace
  $ millrace completion zsh > ~/.zsh/completions/_millrace
  $ millrace completion fish > ~/.config/fish/completions/millrace.fish`,
    )
    .action((shell: keyof typeof SCRIPTS) =>
      run({}, async ({ output }) => {
        output.text(SCRIPTS[shell](completedCommands(program)).trimEnd())
        return EXIT.GOOD
      }),
    )
  program
    .command('__complete', { hidden: true })
    .addArgument(new Argument('<what>').choices(Object.keys(NAMES)))
    .option('--config <file>')
    .action((what: keyof typeof NAMES, { config }) =>
      run({}, async ({ output }) => {
        const file = await findConfigFile(config)
        if (file === undefined) return EXIT.GOOD
        const { loadConfig } = await import('../../config/load.ts')
        const names = NAMES[what](await loadConfig(file))
        output.text(names.join('\n'))
        return EXIT.GOOD
      }),
    )
}

const NAMES = { servers: serverNames, destinations: destinationNames }
