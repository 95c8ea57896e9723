import { type Command, Option } from 'commander'
import { BackupError } from '../errors.ts'

const STORE_HELP =
  'the store: file:///folder, s3://bucket/prefix?endpoint=…, b2://bucket/prefix, drive:///folder, dropbox:///folder, or the name of a destination in the config'

/** Adds which config a command goes by. */
export function withConfig(command: Command): Command {
  return command
    .option(
      '--config <file>',
      'the config (default: MILLRACE_CONFIG, ./millrace.yaml, ~/.config/millrace/millrace.yaml, /etc/millrace/millrace.yaml)',
    )
    .option('--no-config', 'use no config, though there be one')
}

/** Adds the one store of a command. */
export function withStore(command: Command, flag: '--to' | '--from'): Command {
  return withConfig(command)
    .option(`${flag} <store>`, `${STORE_HELP} (default: what the config says)`, onlyOne(flag))
    .option('--json', 'one JSON object a line on stdout')
}

/**
 * Adds the store of a command that can do with several.
 * @param several what becomes of several.
 */
export function withStores(
  command: Command,
  flag: '--to' | '--from',
  several: string = flag === '--to' ? 'write to several in one pass' : 'fall back to others',
): Command {
  return withConfig(command)
    .option(`${flag} <store>`, `${STORE_HELP}; repeat it to ${several} (default: what the config says)`, oneMore)
    .option('--json', 'one JSON object a line on stdout')
}

/** Adds the store of a command that both looks and writes: whoever has just listed thinks of --from. */
export function withEither(command: Command): Command {
  return withServer(
    withConfig(command)
      .option('--from <store>', `${STORE_HELP} (default: all that the config says)`, onlyOne('--from'))
      .option('--to <store>', 'the same', onlyOne('--to'))
      .option('--json', 'one JSON object a line on stdout'),
  )
}

/** Adds whose backups a command is about. */
export function withServer(command: Command): Command {
  return command.option('--server <name>', "the server's name; may be left out where the config has one server")
}

/** Adds the file that tells Prometheus what came of a run. */
export function withMetrics(command: Command): Command {
  return command.option(
    '--metrics-file <file>',
    "bring a Prometheus file up to date (node_exporter's textfile collector)",
  )
}

/** Adds where passwords and keys come from. */
export function withKeys(command: Command, where = 'what the config says, else MILLRACE_PASSWORD'): Command {
  return command
    .option(
      '--password-file <file>',
      `file with the password (else ${where}, else a prompt); for reading, repeat it to try several`,
      oneMore,
    )
    .option('--key-file <file>', 'file with a 32-byte key: raw, hex or base64; for reading, repeat it', oneMore)
}

/** Adds what a command that reads may be told to take. */
export function withTrust(command: Command): Command {
  return command
    .addOption(new Option('--no-encryption', 'take unencrypted snapshots; no password is asked for'))
    .option('--allow-plain', 'take an unencrypted snapshot although a password is given')
    .option('--allow-renamed', 'take a snapshot whose index names another server or id, or that has none')
}

/** Collects an option that may be given more than once. */
export function oneMore(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value]
}

/** The store that an option gives: of two the last would count, and nothing be done at the other. @throws BackupError USAGE. */
export function onlyOne(flag: string): (value: string, before: string | undefined) => string {
  return (value, before) => {
    if (before === undefined) return value
    throw new BackupError('USAGE', `${flag} is given twice, and this command takes one store. Run it once for each.`)
  }
}

/** The number that an option gives; NaN, which whoever takes it refuses, when it is none. */
export function wholeNumber(text: string): number {
  return /^\d+$/.test(text) ? Number(text) : Number.NaN
}
