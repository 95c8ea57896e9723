import { Command, CommanderError, Option } from 'commander'
import { VERSION } from '../version.ts'
import { adoptCommand } from './commands/adopt.ts'
import { backupCommand } from './commands/backup.ts'
import { catCommand } from './commands/cat.ts'
import { checkCommand } from './commands/check.ts'
import { decryptCommand, encryptCommand } from './commands/crypt.ts'
import { inspectCommand } from './commands/inspect.ts'
import { listCommand } from './commands/list.ts'
import { loginCommand } from './commands/login.ts'
import { pinCommand, unpinCommand } from './commands/pin.ts'
import { pruneCommand } from './commands/prune.ts'
import { restoreCommand } from './commands/restore.ts'
import { resumeSavingCommand } from './commands/resume-saving.ts'
import { statusCommand } from './commands/status.ts'
import { verifyCommand } from './commands/verify.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { withKeep } from './keep-options.ts'
import { Output } from './output.ts'
import { withQuiesce, withRcon } from './quiesce.ts'

/** What every command is given beside its own options. */
export interface Invocation {
  output: Output
  /** Aborts at the first SIGINT or SIGTERM. */
  signal: AbortSignal
}

const STORE_HELP =
  'the store: file:///folder, s3://bucket/prefix?endpoint=…, b2://bucket/prefix, drive:///folder, dropbox:///folder'

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

type Runner = (options: { json?: boolean }, run: (invocation: Invocation) => Promise<number>) => Promise<void>

function buildProgram(run: Runner): Command {
  const program = new Command('millrace')
    .description(
      'Back up very large folders, encrypted, into S3, Backblaze B2, Google Drive, Dropbox or a folder, and get them back.',
    )
    .version(VERSION)
    .exitOverride()
    .configureHelp({ sortSubcommands: false })
    .addHelpText('after', EXIT_HELP)

  const withStore = (command: Command, flag: '--to' | '--from') =>
    command.requiredOption(`${flag} <url>`, STORE_HELP).option('--json', 'one JSON object a line on stdout')
  const withStores = (command: Command, flag: '--to' | '--from') =>
    command
      .requiredOption(
        `${flag} <url>`,
        `${STORE_HELP}; repeat it to ${flag === '--to' ? 'write to several in one pass' : 'fall back to others'}`,
        oneMore,
      )
      .option('--json', 'one JSON object a line on stdout')
  const withMetrics = (command: Command) =>
    command.option('--metrics-file <file>', "bring a Prometheus file up to date (node_exporter's textfile collector)")
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

  withQuiesce(withKeep(withMetrics(withKeys(withStores(program.command('backup'), '--to'))), wholeNumber))
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
    .addOption(new Option('--no-lease', 'do not keep other runs for this server out'))
    .option('--wait <time>', 'wait so long (90s, 10m, 2h) for another run to end, instead of being refused')
    .option('--steal', 'take the lease of another run, which is known to have died')
    .option('--stall-timeout <time>', 'drop a store that takes nothing for so long (with several: 5m)')
    .option('--hook-before <cmd>', 'a shell command to run first; when it fails, nothing is backed up')
    .option('--hook-after <cmd>', 'a shell command to run when a snapshot was made, with it as JSON on stdin')
    .option('--hook-failure <cmd>', 'a shell command to run when none was made, with the error as JSON on stdin')
    .option('--hook-timeout <time>', 'what each of them may take (default: 5m)')
    .option(
      '--prune',
      'prune the server afterwards, in each store that took it, by the --keep options or the defaults of prune',
    )
    .addHelpText(
      'after',
      `
Examples:
  $ millrace backup /srv/minecraft/world --to file:///mnt/backups
  $ millrace backup world --to 's3://worlds/mc?region=eu-central-1' --server survival
  $ millrace backup world --to file:///mnt/backups --to 's3://worlds/mc?region=eu-central-1' --wait 10m
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

  withKeys(withStores(program.command('list'), '--from'))
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

  withMetrics(withStores(program.command('status'), '--from'))
    .description('Tell whether the backups of a server still come. Nothing is opened, so no password is needed.')
    .requiredOption('--server <name>', "the server's name")
    .option(
      '--max-age <time>',
      'exit with 6 when the newest complete snapshot is older (90m, 26h, 7d), or there is none',
    )
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace status --from file:///mnt/backups --server survival --max-age 26h || mail-the-owner',
    )
    .action((options) => run(options, (invocation) => statusCommand(options, invocation)))

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

  withTrust(withKeys(withStores(program.command('restore'), '--from')))
    .description('Restore a snapshot. The target is put in place when everything has been checked.')
    .argument('<id>', "a snapshot's id, or latest")
    .requiredOption('--server <name>', "the server's name")
    .requiredOption('--target <dir>', 'becomes the folder that was backed up; must be absent or empty')
    .option('--include <glob...>', 'only these files or folders, fetched by ranges; repeat it or name several')
    .option('--overwrite', 'replace what is at the target; with --merge, also what is of another type')
    .option('--merge', 'restore into a folder that stands: files of the snapshot replace, others stay')
    .option('--no-resume', 'do not go on with an interrupted restore to this target; remove it')
    .option('--no-space-check', 'do not ask the file system for room first')
    .option('--owner <uid:gid>', 'give everything this owner (default: the numeric owners, when run as root)')
    .option('--no-owner', 'leave everything to whoever restores it')
    .option('--no-mode', 'give files and folders the modes that new ones get')
    .addOption(
      new Option(
        '--portable-names <how>',
        'names that Windows cannot hold (default: refuse on Windows, else keep)',
      ).choices(['refuse', 'map', 'keep']),
    )
    .option('--allow-unverified', 'take a snapshot whose companion is missing or differs')
    .addHelpText(
      'after',
      `
Examples:
  $ millrace restore latest --from file:///mnt/backups --server survival --target /srv/restored
  $ millrace restore latest --from … --server survival --target /tmp/some --include level.dat 'region/r.0.*.mca'
  $ millrace restore latest --from … --server survival --target /srv/minecraft/world --overwrite
  $ millrace restore latest --from … --server survival --target /srv/minecraft/world --merge --include 'playerdata/*'`,
    )
    .action((id, options) => run(options, (invocation) => restoreCommand(id, options, invocation)))

  withTrust(withKeys(withStores(program.command('cat'), '--from')))
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

  withMetrics(withTrust(withKeys(withStores(program.command('verify'), '--from'))))
    .description('Verify a snapshot by reading all of it, or less, or by restoring it.')
    .argument('[id]', "a snapshot's id, or latest (the default)")
    .requiredOption('--server <name>', "the server's name")
    .option('--all', 'every snapshot of the server in one store: a line each, and a summary')
    .option('--quick', 'only its companion, header and size')
    .option('--sample <share>', 'header, index, last frame, and a share of the frames chosen at random, as 5%')
    .option('--seed <text>', 'choose the same frames as a sample before')
    .option('--restore-test', 'restore into a scratch folder, compare with the index, and remove it')
    .option('--scratch <dir>', "where the scratch folder is made (default: the system's temporary folder)")
    .addHelpText(
      'after',
      `
Examples:
  $ millrace verify latest --from file:///mnt/backups --server survival
  $ millrace verify --all --sample 5% --from 's3://worlds/mc?region=eu-central-1' --server survival
  $ millrace verify --restore-test --scratch /mnt/big --from file:///mnt/backups --server survival`,
    )
    .action((id, options) => run(options, (invocation) => verifyCommand(id, options, invocation)))

  program
    .command('login')
    .description('Sign in to Google Drive or Dropbox, and keep what signs in from then on.')
    .argument('<provider>', 'google-drive or dropbox')
    .option('--client-id <id>', "the app's id (else MILLRACE_GOOGLE_CLIENT_ID or MILLRACE_DROPBOX_CLIENT_ID)")
    .option('--client-secret-file <file>', "file with the app's secret (else MILLRACE_…_CLIENT_SECRET, else a prompt)")
    .option('--access <name>', 'google-drive: file (only what millrace makes), appdata (hidden), full; dropbox: files')
    .option('--paste', 'for a machine without a browser: paste the code, or the address that the browser ends at')
    .option('--port <n>', 'the port on loopback that the browser comes back to (default: any)', wholeNumber)
    .option('-o, --output <file>', 'where to keep it, mode 0600 (default: ~/.config/millrace/PROVIDER.json)')
    .option('--print', 'print the refresh token instead of keeping it')
    .addOption(new Option('--authorize-url <url>').hideHelp())
    .addOption(new Option('--token-url <url>').hideHelp())
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace login google-drive --client-id 1234.apps.googleusercontent.com\n  $ millrace login dropbox --client-id abcd1234 --paste',
    )
    .action((provider, options) => run(options, (invocation) => loginCommand(provider, options, invocation)))
  withKeep(withStore(program.command('prune'), '--from'), wholeNumber)
    .description('Remove the snapshots that no rule keeps. Without a rule: 24 hourly, 14 daily and 8 weekly ones stay.')
    .requiredOption('--server <name>', "the server's name")
    .option('--dry-run', 'only say what would be removed, and why the others stay')
    .addOption(new Option('--no-lease', 'do not keep backups out meanwhile; unfinished snapshots are left alone then'))
    .option('--state-dir <dir>', 'where unfinished snapshots are remembered (default: ~/.local/state/millrace)')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace prune --from file:///mnt/backups --server survival --dry-run\n  $ millrace prune --from file:///mnt/backups --server survival --keep-last 3 --keep-daily 30 --keep-monthly 12\n  $ millrace prune --from file:///mnt/backups --server survival --keep-within 14d --minimum 5',
    )
    .action((options) => run(options, (invocation) => pruneCommand(options, invocation)))

  // Whoever writes it may think of --to, whoever has just listed of --from.
  const withEither = (command: Command) =>
    command
      .option('--from <url>', 'the store: file:///folder, s3://bucket/prefix?endpoint=…&region=…')
      .option('--to <url>', 'the same')
      .option('--json', 'one JSON object a line on stdout')
      .requiredOption('--server <name>', "the server's name")

  withEither(program.command('pin'))
    .description('Keep a snapshot from every prune; without an id, show what is pinned.')
    .argument('[id]', "a snapshot's id, or latest")
    .option('--note <text>', 'why, for people; stored in plain text')
    .addHelpText(
      'after',
      "\nExample:\n  $ millrace pin latest --from file:///mnt/backups --server survival --note 'before the update'",
    )
    .action((id, options) => run(options, (invocation) => pinCommand(id, options, invocation)))

  withEither(program.command('unpin'))
    .description("Take a snapshot's pin away.")
    .argument('<id>', "a snapshot's id")
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace unpin 2026-11-22T10-00-00.000Z-k3f9 --from file:///mnt/backups --server survival',
    )
    .action((id, options) => run(options, (invocation) => unpinCommand(id, options, invocation)))

  withKeys(withStore(program.command('adopt'), '--from'))
    .description('Read an unfinished snapshot whole and, when it is whole and authentic, make it complete.')
    .argument('<id>', "a snapshot's id")
    .requiredOption('--server <name>', "the server's name")
    .addOption(new Option('--no-encryption', 'take an unencrypted snapshot; no password is asked for'))
    .option('--allow-plain', 'take an unencrypted snapshot although a password is given')
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace adopt 2026-11-22T10-00-00.000Z-k3f9 --from file:///mnt/backups --server survival',
    )
    .action((id, options) => run(options, (invocation) => adoptCommand(id, options, invocation)))

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
