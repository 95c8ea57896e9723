import { Command, CommanderError } from 'commander'
import { VERSION } from '../version.ts'
import { addAdopt } from './commands/adopt.ts'
import { addBackup } from './commands/backup.ts'
import { addBench } from './commands/bench.ts'
import { addCat } from './commands/cat.ts'
import { addCheck } from './commands/check.ts'
import { addCompletion } from './commands/completion.ts'
import { addConfig } from './commands/config.ts'
import { addDecrypt, addEncrypt } from './commands/crypt.ts'
import { addDoctor } from './commands/doctor.ts'
import { addHistory } from './commands/history.ts'
import { addInit } from './commands/init.ts'
import { addInspect } from './commands/inspect.ts'
import { addInstallTimer } from './commands/install-timer.ts'
import { addList } from './commands/list.ts'
import { addLogin } from './commands/login.ts'
import { addPin, addUnpin } from './commands/pin.ts'
import { addPrune } from './commands/prune.ts'
import { addRecoverySheet } from './commands/recovery-sheet.ts'
import { addReport } from './commands/report.ts'
import { addRestore } from './commands/restore.ts'
import { addResumeSaving } from './commands/resume-saving.ts'
import { addSchedule } from './commands/schedule.ts'
import { addStatus } from './commands/status.ts'
import { addVerify } from './commands/verify.ts'
import { EXIT, exitCodeOf, signalExitCode } from './exit-codes.ts'
import { printable } from './format.ts'
import { Output } from './output.ts'
import type { Runner } from './run.ts'
import { tellStoreWaits } from './store-waits.ts'
import { style } from './style.ts'

/** In the order of the help. */
const COMMANDS = [
  addInit,
  addBackup,
  addCheck,
  addBench,
  addConfig,
  addList,
  addDoctor,
  addRecoverySheet,
  addStatus,
  addHistory,
  addReport,
  addSchedule,
  addInstallTimer,
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
  addCompletion,
]

/** All that these do is print: whoever reads it may have seen enough. Others go on to their end, and to its exit code. */
const PRINTING: ReadonlySet<string> = new Set(['cat', 'completion', 'decrypt', 'encrypt', 'history', 'inspect', 'list'])

/** One signal that is sent to a process and to its group, as by timeout(1), comes twice; nobody presses a key so fast. */
const ECHO_MS = 250

const EXIT_HELP = `
Exit codes:
  0 good    1 failed    2 wrong usage    3 done, but something is missing or changed
  4 damaged, or wrong password
  5 refused (target not empty, empty source, not encrypted, another run at work, held by another backup)
  6 too old (status)    7 done, but the store's lock defers some deletes
  129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM; what was unfinished has been cleaned up`

/**
 * Runs the command.
 * @param argv the arguments, without node and the script.
 * @returns the exit code.
 */
export async function main(argv: readonly string[]): Promise<number> {
  let output = new Output()
  let stoppedBy: NodeJS.Signals | undefined
  let stoppedAt = 0
  const stop = new AbortController()
  const onSignal = (signal: NodeJS.Signals) => {
    if (stoppedBy) {
      if (performance.now() - stoppedAt < ECHO_MS) return
      process.exit(signalExitCode(signal))
    }
    stoppedBy = signal
    stoppedAt = performance.now()
    output.endProgress()
    output.complain(`${signal}: cleaning up; once more to leave at once`)
    stop.abort()
  }
  const onUncaught = (error: unknown) => {
    report(output, error instanceof Error ? error : new Error(String(error)), stoppedBy)
    process.exit(EXIT.FAILED)
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal).on('SIGHUP', onSignal)
  process.on('uncaughtException', onUncaught)
  const endTelling = tellStoreWaits((message) => output.notice(message))
  let unwritten: NodeJS.ErrnoException | undefined
  let isPrinting = false
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // A reader that has seen enough (head, less) is no failure.
    if (error.code === 'EPIPE') {
      if (isPrinting) process.exit(EXIT.GOOD)
      return
    }
    // What a pipeline fails with comes by here too, and is reported where it was awaited.
    if (error.syscall) unwritten ??= error
  })
  // A terminal that is gone, as after SIGHUP: there is nobody to tell, and still something to clean up.
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {})
  let code: number = EXIT.GOOD
  const program = buildProgram(async ({ json }, run) => {
    const { quiet, debug = isDebugging() } = program.opts<{ quiet?: boolean; debug?: boolean }>()
    output = new Output({ json, quiet, debug })
    try {
      code = await run({ output, signal: stop.signal })
    } catch (error) {
      code = report(output, error as Error, stoppedBy)
    } finally {
      output.endProgress()
    }
  })
  program.hook('preAction', (_, command) => {
    isPrinting = PRINTING.has(command.name())
  })
  try {
    await program.parseAsync(argv as string[], { from: 'user' })
  } catch (error) {
    code = error instanceof CommanderError ? ofUsage(error, argv) : report(output, error as Error, stoppedBy)
  } finally {
    endTelling()
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal).off('SIGHUP', onSignal)
    process.off('uncaughtException', onUncaught)
  }
  await new Promise((resolve) => process.stdout.write('', resolve))
  if (unwritten && code === EXIT.GOOD) {
    output.complain(`standard output cannot be written: ${unwritten.message}`)
    return EXIT.FAILED
  }
  return code
}

function isDebugging(): boolean {
  return Boolean(process.env.MILLRACE_DEBUG)
}

function report(output: Output, thrown: Error, stoppedBy: NodeJS.Signals | undefined): number {
  const error = (thrown as NodeJS.ErrnoException).syscall === 'uv_cwd' ? ofNoFolder(thrown) : thrown
  const isAbort = (one: unknown) => (one as Error | undefined)?.name === 'AbortError'
  if (stoppedBy && isAbort(error)) {
    const code = signalExitCode(stoppedBy)
    output.error(new Error('Interrupted. Nothing unfinished was left behind.', { cause: error }), code)
    return code
  }
  const code = stoppedBy && isAbort(error.cause) ? signalExitCode(stoppedBy) : exitCodeOf(error)
  output.error(error, code)
  return code
}

/** Of a relative path where there is nothing that it could be relative to. */
function ofNoFolder(cause: Error): Error {
  const message = 'The folder that this runs in has been removed: change to one that is there, or give absolute paths.'
  return new Error(message, { cause })
}

/** commander has written the message to stderr already. */
function ofUsage(error: CommanderError, argv: readonly string[]): number {
  if (error.exitCode === 0) return EXIT.GOOD
  const wantsJson = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : undefined).includes('--json')
  if (wantsJson) new Output({ json: true }).usageError(withoutValues(error.message).replace(/^error: /, ''), EXIT.USAGE)
  return EXIT.USAGE
}

/** commander repeats what it does not know: a password behind `--password=`, and URLs with keys in them. */
function withoutValues(message: string): string {
  return message
    .replace(/(unknown option '-[^=']*)=.*'/s, "$1'")
    .replace(/\b([A-Za-z][A-Za-z0-9+.-]*:\/\/)[^\s,']\S*/g, '$1…')
}

/**
 * The command line: every command with its options.
 * @param run runs the work of the command that is given.
 */
export function buildProgram(run: Runner): Command {
  const program = new Command('millrace')
    .description(
      'Back up very large folders, encrypted, into S3, Backblaze B2, Google Drive, Dropbox or a folder, and get them back.',
    )
    .version(VERSION)
    .option('-q, --quiet', 'only results, warnings and errors: no progress, no notes')
    .option('--debug', 'show with an error where it came from (also: MILLRACE_DEBUG)')
    .exitOverride()
    .configureHelp({ sortSubcommands: false, showGlobalOptions: true })
    .configureOutput({
      outputError(text, write) {
        const lines = withoutValues(text.trimEnd()).split('\n').map(printable)
        write(`${style('bad', lines.join('\n'), process.stderr)}\n`)
      },
    })
    .addHelpText('after', EXIT_HELP)
  for (const add of COMMANDS) add(program, run)
  for (const command of program.commands) command.exitOverride()
  return program
}
