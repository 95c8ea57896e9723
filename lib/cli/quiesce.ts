import { type Command, Option } from 'commander'
import { BackupError } from '../errors.ts'
import { readPasswordFile } from '../key-file.ts'
import { createCommandQuiescer } from '../quiesce/command.ts'
import { createMinecraftQuiescer } from '../quiesce/minecraft.ts'
import type { QuiesceLevel, Quiescer } from '../quiesce/quiescer.ts'
import { addressText } from '../quiesce/rcon.ts'
import { leftSaving, parseAddress, resumeSaving } from '../quiesce/resume.ts'
import { noteSecret } from '../redact.ts'
import type { Output } from './output.ts'

export interface RconCliOptions {
  rcon?: string
  rconPasswordFile?: string
}

export interface QuiesceCliOptions extends RconCliOptions {
  allowStopped?: boolean
  allowSilent?: boolean
  before?: string
  after?: string
  beforeReaches?: QuiesceLevel
  /** Minutes. */
  holdLimit?: number
}

const MINUTE_MS = 60_000
/** What a timer can wait for: 24 days. */
const HOLD_LIMIT_MAX_MINUTES = 24 * 24 * 60

/** Adds the options of a backup that hold its source still. */
export function withQuiesce(command: Command): Command {
  return withRcon(command)
    .option('--allow-stopped', 'with --rcon: back a stopped server up too (nothing listens), as "stopped"')
    .option('--allow-silent', 'with --rcon: back up a server that does not answer too, as a paused one, as "live"')
    .option('--before <cmd>', "a shell's command that brings the source to rest before it is read")
    .option('--after <cmd>', 'one that lets it go on; it also runs when the first fails')
    .addOption(
      new Option('--before-reaches <level>', 'what --before makes of the source (default: quiesced)').choices([
        'stopped',
        'snapshot',
        'quiesced',
      ]),
    )
    .option('--hold-limit <minutes>', 'hold the source no longer than this, and be "live" then (default: 30)', Number)
}

/** Adds the options that say where a server's RCON is. */
export function withRcon(command: Command): Command {
  return command
    .option('--rcon <host:port>', "a Minecraft server's RCON: saving is off while the world is read")
    .option('--rcon-password-file <file>', 'file with its password (else MILLRACE_RCON_PASSWORD)')
}

/**
 * What brings the source to rest, as the options ask; undefined when they do not.
 * @throws BackupError USAGE.
 */
export async function quiescerOf(
  options: QuiesceCliOptions,
  server: string,
  stateFolder: string,
): Promise<Quiescer | undefined> {
  const { rcon, rconPasswordFile, before, after, allowStopped, allowSilent, beforeReaches: level, holdLimit } = options
  const commands = before !== undefined || after !== undefined
  if (rcon !== undefined && commands) {
    throw new BackupError('USAGE', 'Give --rcon, or --before and --after, not both.')
  }
  if (rcon === undefined && (allowStopped || allowSilent)) {
    throw new BackupError('USAGE', '--allow-stopped and --allow-silent say what to do about a server of --rcon.')
  }
  if (rcon === undefined && rconPasswordFile !== undefined) {
    throw new BackupError(
      'USAGE',
      '--rcon-password-file has the password of the server that --rcon names: give --rcon HOST:PORT beside it, or leave it out. A server that the config holds still has its password there.',
    )
  }
  if (before === undefined && level !== undefined) {
    throw new BackupError('USAGE', '--before-reaches says what --before does.')
  }
  if (rcon === undefined && !commands && holdLimit !== undefined) {
    throw new BackupError(
      'USAGE',
      '--hold-limit says how long --rcon or --before may hold the source: give one of them.',
    )
  }
  if (rcon !== undefined) {
    const password = await rconPassword(options)
    return createMinecraftQuiescer({
      ...parseAddress(rcon),
      password,
      server,
      stateFolder,
      allowStopped,
      allowSilent,
    })
  }
  return commands ? createCommandQuiescer({ before, after, level, server, stateFolder }) : undefined
}

/** The limit in ms. @throws BackupError USAGE. */
export function holdLimitMs({ holdLimit }: QuiesceCliOptions): number | undefined {
  if (holdLimit === undefined) return undefined
  if (!(holdLimit > 0 && holdLimit <= HOLD_LIMIT_MAX_MINUTES)) {
    throw new BackupError('USAGE', `--hold-limit takes minutes, more than 0 and at most ${HOLD_LIMIT_MAX_MINUTES}.`)
  }
  return Math.ceil(holdLimit * MINUTE_MS)
}

/**
 * The RCON password, from its file or MILLRACE_RCON_PASSWORD.
 * @throws BackupError USAGE when there is none.
 */
export async function rconPassword({ rconPasswordFile }: RconCliOptions): Promise<string> {
  if (rconPasswordFile !== undefined) {
    const password = await readPasswordFile(rconPasswordFile)
    noteSecret(password)
    return password
  }
  const given = process.env.MILLRACE_RCON_PASSWORD
  if (given) return given
  throw new BackupError(
    'USAGE',
    'No RCON password was given. Set MILLRACE_RCON_PASSWORD, or use --rcon-password-file; it is rcon.password in server.properties.',
  )
}

/** Who is held still by RCON in this run, and with which password others may be told to save. */
export interface OwnRcon {
  /** `host:port`; undefined when nobody is. */
  address: string | undefined
  password: () => Promise<string>
}

/**
 * Before a backup: where an earlier one of this server was killed and left saving off, it is turned on, for the backup
 * itself may be refused, or fail, before it holds anybody still. What cannot be done is a warning, but of the server that
 * is to be held still now: the backup tries again, and tells.
 */
export async function resumeLeft(rcon: OwnRcon, server: string, stateFolder: string, output: Output): Promise<void> {
  const own = rcon.address === undefined ? undefined : addressText(parseAddress(rcon.address))
  const warn = (message: string, cause?: unknown) => output.warning({ kind: 'quiesce', path: '', message, cause })
  const left = await leftSaving(stateFolder, server).catch((cause: Error) => {
    // A backup that holds nobody needs no state folder.
    warn(`Whether an earlier backup has left saving off is not known: ${cause.message}`, cause)
    return []
  })
  for (const { where, since } of left) {
    const what = `A backup that was killed left saving at ${where} off, on ${new Date(since).toISOString()}.`
    try {
      const password = await rcon.password()
      await resumeSaving({ stateFolder, address: parseAddress(where), server, password })
      warn(`${what} It is on again.`)
    } catch (cause) {
      if (where === own) continue
      warn(`${what} It could not be turned on: ${(cause as Error).message} Run \`millrace resume-saving\`.`, cause)
    }
  }
}
