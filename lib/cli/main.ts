import { Command, CommanderError, Option } from 'commander'
import { VERSION } from '../version.ts'
import { backupCommand } from './commands/backup.ts'
import { catCommand } from './commands/cat.ts'
import { checkCommand } from './commands/check.ts'
import { decryptCommand, encryptCommand } from './commands/crypt.ts'
import { inspectCommand } from './commands/inspect.ts'
import { listCommand } from './commands/list.ts'
import { restoreCommand } from './commands/restore.ts'
import { resumeSavingCommand } from './commands/resume-saving.ts'
import { verifyCommand } from './commands/verify.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { Output } from './output.ts'
import { withQuiesce, withRcon } from './quiesce.ts'

/** What every command is given beside its own options. */
export interface Invocation {
  output: Output
  /** Aborts at the first SIGINT or SIGTERM. */
  signal: AbortSignal
}

const EXIT_HELP = `
Exit codes:
  0 good    1 failed    2 wrong usage    3 done, but something is missing or changed
  4 damaged, or wrong password    5 refused (target not empty, empty source, not encrypted, held by another backup)`

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

type Runner = (options: { json?: boolean }, run: (invocation: Invocation) => Promise<number>) => Promise<void>

function buildProgram(run: Runner): Command {
  const program = new Command('millrace')
    .description('Back up very large folders, encrypted, into S3 or a folder, and get them back.')
    .version(VERSION)
    .exitOverride()
    .configureHelp({ sortSubcommands: false })
    .addHelpText('after', EXIT_HELP)

  const withStore = (command: Command, flag: '--to' | '--from') =>
    command
      .requiredOption(`${flag} <url>`, 'the store: file:///folder, s3://bucket/prefix?endpoint=…&region=…')
      .option('--json', 'one JSON object a line on stdout')
  const withKeys = (command: Command) =>
    command
      .option(
        '--password-file <file>',
        'file with the password (else MILLRACE_PASSWORD, else a prompt); for reading, repeat it to try several',
        oneMore,
      )
      .option('--key-file <file>', 'file with a 32-byte key: raw, hex or base64; for reading, repeat it', oneMore)
  const withTrust = (command: Command) =>
    command
      .addOption(new Option('--no-encryption', 'take unencrypted snapshots; no password is asked for'))
      .option('--allow-plain', 'take an unencrypted snapshot although a password is given')
      .option('--allow-renamed', 'take a snapshot whose index names another server or id, or that has none')

  withQuiesce(withKeys(withStore(program.command('backup'), '--to')))
    .description('Back up a folder or a file.')
    .argument('[source...]', 'the folder (or file) to back up; with --from-command, a program and its arguments')
    .option('--server <name>', "the server's name (default: the folder's base name)")
    .option('--from-command', 'back up the standard output of a program; name it after --')
    .option('--level <n>', 'zstd level, 1 to 22 (default: 3)', wholeNumber)
    .option('--allow-empty', 'back up an empty folder, file or stream')
    .option('--include <glob...>', 'only these files or folders')
    .option('--exclude <glob...>', 'not these, as in .millraceignore; repeat it or name several')
    .option('--no-default-excludes', "also what a known game makes anew, as Minecraft's session.lock")
    .option('--dry-run', 'show what would be backed up, and what is left out and why; nothing is written')
    .addOption(new Option('--no-encryption', 'write without encryption'))
    .addHelpText(
      'after',
      `
Examples:
  $ millrace backup /srv/minecraft/world --to file:///mnt/backups
  $ millrace backup world --to 's3://worlds/mc?region=eu-central-1' --server survival
  $ millrace backup --to file:///mnt/backups --server db --from-command -- pg_dump game
  $ millrace backup world --to file:///mnt/backups --rcon localhost:25575 --allow-stopped
  $ millrace backup world --to file:///mnt/backups --before 'systemctl stop mc' --after 'systemctl start mc' --before-reaches stopped
  $ millrace backup world --to file:///mnt/backups --exclude '*.tmp' dynmap/ --dry-run`,
    )
    .action((source, options) => run(options, (invocation) => backupCommand(source, options, invocation)))

  withStore(program.command('check'), '--to')
    .description('Test a store and its credentials without a backup: each right by name, timed, nothing left behind.')
    .addHelpText(
      'after',
      "\nExample:\n  $ millrace check --to 's3://worlds/mc?endpoint=https://minio.example.org&profile=minio'",
    )
    .action((options) => run(options, (invocation) => checkCommand(options, invocation)))

  withKeys(withStore(program.command('list'), '--from'))
    .description('List the snapshots in a store. Nothing is opened without --long, so no password is needed.')
    .option('--server <name>', 'only this server')
    .option('--long', 'open those of which too little is known here (shown as -), and show more')
    .addOption(new Option('--no-encryption', 'with --long: take unencrypted snapshots; no password is asked for'))
    .option('--allow-plain', 'with --long: open unencrypted snapshots although a password is given')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace list --from file:///mnt/backups --server survival\n  $ millrace list --from file:///mnt/backups --long',
    )
    .action((options) => run(options, (invocation) => listCommand(options, invocation)))

  withRcon(program.command('resume-saving'))
    .description('Turn saving on at Minecraft servers where a backup that was killed has left it off.')
    .option('--server <name>', 'only what backups of this server have left')
    .option('--force', 'also while that backup seems to be at work')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace resume-saving\n  $ millrace resume-saving --rcon localhost:25575 --rcon-password-file /etc/millrace/rcon',
    )
    .action((options) => run(options, (invocation) => resumeSavingCommand(options, invocation)))

  withTrust(withKeys(withStore(program.command('inspect'), '--from')))
    .description('Show what a snapshot says of itself; little of it is read.')
    .argument('<id>', "a snapshot's id, or latest")
    .requiredOption('--server <name>', "the server's name")
    .option('--files', 'list the files in it')
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace inspect latest --from file:///mnt/backups --server survival --files',
    )
    .action((id, options) => run(options, (invocation) => inspectCommand(id, options, invocation)))

  withTrust(withKeys(withStore(program.command('restore'), '--from')))
    .description('Restore a snapshot. The target is put in place when everything has been checked.')
    .argument('<id>', "a snapshot's id, or latest")
    .requiredOption('--server <name>', "the server's name")
    .requiredOption('--target <dir>', 'becomes the folder that was backed up; must be absent or empty')
    .option('--include <glob...>', 'only these files or folders, fetched by ranges; repeat it or name several')
    .option('--overwrite', 'replace what is at the target')
    .option('--allow-unverified', 'take a snapshot whose companion is missing or differs')
    .addHelpText(
      'after',
      "\nExample:\n  $ millrace restore latest --from file:///mnt/backups --server survival --target /srv/restored\n  $ millrace restore latest --from … --server survival --target /tmp/some --include level.dat 'region/r.0.*.mca'",
    )
    .action((id, options) => run(options, (invocation) => restoreCommand(id, options, invocation)))

  withTrust(withKeys(withStore(program.command('cat'), '--from')))
    .description('Write one file of a snapshot to standard output; only what holds it is fetched.')
    .argument('<id>', "a snapshot's id, or latest")
    .argument('[path]', 'the file, relative to the folder that was backed up; none for a snapshot of one file')
    .requiredOption('--server <name>', "the server's name")
    .option('--allow-unverified', 'take a snapshot whose companion is missing or differs')
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace cat latest level.dat --from file:///mnt/backups --server survival > level.dat',
    )
    .action((id, path, options) => run({}, (invocation) => catCommand(id, path, options, invocation)))

  withTrust(withKeys(withStore(program.command('verify'), '--from')))
    .description('Verify a snapshot by reading all of it.')
    .argument('[id]', "a snapshot's id, or latest", 'latest')
    .requiredOption('--server <name>', "the server's name")
    .option('--quick', 'only its companion, header and size')
    .addHelpText('after', '\nExample:\n  $ millrace verify latest --from file:///mnt/backups --server survival')
    .action((id, options) => run(options, (invocation) => verifyCommand(id, options, invocation)))

  withKeys(program.command('encrypt'))
    .description('Encrypt standard input to standard output (the container alone, nothing is compressed).')
    .option('-o, --output <file>', 'write a file instead; it appears when it is whole')
    .option('--layout <name>', "millrace, or seed: the original service's salt, nonce, ciphertext, tag", 'millrace')
    .addHelpText('after', '\nExample:\n  $ tar c world | zstd | millrace encrypt > world.tar.zst.mlr')
    .action((options) => run({}, (invocation) => encryptCommand(options, invocation)))

  withKeys(program.command('decrypt'))
    .description('Decrypt standard input to standard output.')
    .option('-o, --output <file>', 'write a file instead; it appears when it is whole and authentic')
    .option(
      '--layout <name>',
      "millrace, or seed: the original service's, checked whole before a byte is written",
      'millrace',
    )
    .addHelpText('after', '\nExample:\n  $ millrace decrypt < world.tar.zst.mlr | zstd -dc | tar x')
    .action((options) => run({}, (invocation) => decryptCommand(options, invocation)))

  for (const command of program.commands) command.exitOverride()
  return program
}

/** Collects an option that may be given more than once. */
function oneMore(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value]
}

function wholeNumber(text: string): number {
  return /^\d+$/.test(text) ? Number(text) : Number.NaN
}
