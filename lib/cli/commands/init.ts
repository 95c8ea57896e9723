import { resolve } from 'node:path'
import type { Command } from 'commander'
import { BackupError } from '../../errors.ts'
import { EXIT } from '../exit-codes.ts'
import type { Written } from '../init/wizard.ts'
import type { Invocation, Runner } from '../run.ts'

/** As shells have it for what was ended by Ctrl-C. */
const CANCELLED = 130

/** Adds `millrace init`. */
export function addInit(program: Command, run: Runner): void {
  program
    .command('init')
    .description(
      'Ask what is backed up, where to and when, try the store, and write the config, millrace.yaml. For scripts: `millrace config example`.',
    )
    .option('--config <file>', 'the config to write (default: MILLRACE_CONFIG, ./millrace.yaml)')
    .option('--force', 'replace a config that is there; a copy of it is kept')
    .addHelpText('after', '\nExamples:\n  $ millrace init\n  $ sudo millrace init --config /etc/millrace/millrace.yaml')
    .action((options) => run({}, (invocation) => initCommand(options, invocation)))
}

interface InitOptions {
  config?: string
  force?: boolean
}

/** Asks for a config and writes it. Exit code 130 when somebody stops: nothing is left then. */
export async function initCommand({ config, force = false }: InitOptions, invocation: Invocation): Promise<number> {
  const { signal } = invocation
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new BackupError(
      'USAGE',
      '`millrace init` asks questions, and there is no terminal. `millrace config example > millrace.yaml` begins a config without one.',
    )
  }
  const file = resolve(config ?? (process.env.MILLRACE_CONFIG || 'millrace.yaml'))
  const [{ runWizard }, { Cancelled, terminalAsker }, { obtainCredentials }, { cancel, intro, outro }] =
    await Promise.all([
      import('../init/wizard.ts'),
      import('../init/ask.ts'),
      import('../work/login.ts'),
      import('@clack/prompts'),
    ])
  const ask = terminalAsker(signal)
  let written: Written | undefined
  try {
    intro(`millrace: a config in ${file}. Ctrl-C stops; nothing is written before the end.`)
    written = await runWizard({
      ask,
      file,
      force,
      signal,
      signIn: async (store, app, paste) => (await obtainCredentials(store, app, { paste }, signal)).credentials,
    })
    const { copy } = written
    ask.say('good', `Written: ${file}${copy === undefined ? '' : `. What it was is in ${copy}.`}`)
    const { askNext } = await import('../init/next.ts')
    const code = await askNext(ask, written, invocation)
    outro(NEXT)
    return code
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof Cancelled)) throw error
    if (written === undefined) {
      cancel('Stopped. Nothing was written.')
      return CANCELLED
    }
    // The config is there, and only what comes after it was declined.
    outro(NEXT)
    return EXIT.GOOD
  }
}

const NEXT = 'From now on: `millrace backup`, `millrace list`, `millrace doctor`. On its schedule: `millrace schedule`.'
