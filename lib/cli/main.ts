import { Command, CommanderError } from 'commander'
import { VERSION } from '../version.ts'
import { addAdopt } from './commands/adopt.ts'
import { addBackup } from './commands/backup.ts'
import { addCat } from './commands/cat.ts'
import { addCheck } from './commands/check.ts'
import { addConfig } from './commands/config.ts'
import { addDecrypt, addEncrypt } from './commands/crypt.ts'
import { addDoctor } from './commands/doctor.ts'
import { addInit } from './commands/init.ts'
import { addInspect } from './commands/inspect.ts'
import { addList } from './commands/list.ts'
import { addLogin } from './commands/login.ts'
import { addPin, addUnpin } from './commands/pin.ts'
import { addPrune } from './commands/prune.ts'
import { addRecoverySheet } from './commands/recovery-sheet.ts'
import { addRestore } from './commands/restore.ts'
import { addResumeSaving } from './commands/resume-saving.ts'
import { addStatus } from './commands/status.ts'
import { addVerify } from './commands/verify.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { Output } from './output.ts'
import type { Runner } from './run.ts'

/** In the order of the help. */
const COMMANDS = [
  addInit,
  addBackup,
  addCheck,
  addConfig,
  addList,
  addDoctor,
  addRecoverySheet,
  addStatus,
  addResumeSaving,
  addInspect,
  addRestore,
  addCat,
  addVerify,
  addLogin,
  addPrune,
  addPin,
  addUnpin,
  addAdopt,
  addEncrypt,
  addDecrypt,
]

const EXIT_HELP = `
Exit codes:
  0 good    1 failed    2 wrong usage    3 done, but something is missing or changed
  4 damaged, or wrong password
  5 refused (target not empty, empty source, not encrypted, another run at work, held by another backup)
  6 too old (status)    7 done, but the store's lock defers some deletes`

/**
 * Runs the command.
 * @param argv the arguments, without node and the script.
 * @returns the exit code.
 */
export async function main(argv: readonly string[]): Promise<number> {
  const stop = new AbortController()
  const onSignal = (signal: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(EXIT.FAILED)
    process.stderr.write(`\nmillrace: ${signal}: cleaning up; once more to leave at once\n`)
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  let unwritten: NodeJS.ErrnoException | undefined
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // A reader that has seen enough (head, less) is no failure.
    if (error.code === 'EPIPE') process.exit(EXIT.GOOD)
    // What a pipeline fails with comes by here too, and is reported where it was awaited.
    if (error.syscall) unwritten ??= error
  })
  let code: number = EXIT.GOOD
  const program = buildProgram(async (options, run) => {
    const output = new Output(options.json === true)
    try {
      code = await run({ output, signal: stop.signal })
    } catch (error) {
      code = report(output, error as Error, stop.signal.aborted)
    } finally {
      output.endProgress()
    }
  })
  try {
    await program.parseAsync(argv as string[], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    code = error.exitCode === 0 ? EXIT.GOOD : EXIT.USAGE
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
  await new Promise((resolve) => process.stdout.write('', resolve))
  if (unwritten && code === EXIT.GOOD) {
    process.stderr.write(`millrace: standard output cannot be written: ${unwritten.message}\n`)
    return EXIT.FAILED
  }
  return code
}

function report(output: Output, error: Error, interrupted: boolean): number {
  if (interrupted && error.name === 'AbortError') {
    output.error(new Error('Interrupted. Nothing unfinished was left behind.'), EXIT.FAILED)
    return EXIT.FAILED
  }
  const code = exitCodeOf(error)
  output.error(error, code)
  if (process.env.MILLRACE_DEBUG) process.stderr.write(`${error.stack}\n`)
  return code
}

function buildProgram(run: Runner): Command {
  const program = new Command('millrace')
    .description(
      'Back up very large folders, encrypted, into S3, Backblaze B2, Google Drive, Dropbox or a folder, and get them back.',
    )
    .version(VERSION)
    .exitOverride()
    .configureHelp({ sortSubcommands: false })
    .addHelpText('after', EXIT_HELP)
  for (const add of COMMANDS) add(program, run)
  for (const command of program.commands) command.exitOverride()
  return program
}
