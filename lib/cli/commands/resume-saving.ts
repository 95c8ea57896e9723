import type { Command } from 'commander'
import type { LoadedConfig } from '../../config/load.ts'
import { rconPasswordOf } from '../../config/open.ts'
import { hasServer, serverSettings, stateFolderOf } from '../../config/settings.ts'
import { listMarkings } from '../../quiesce/marker.ts'
import { parseAddress, type Resumed, resumeSaving } from '../../quiesce/resume.ts'
import { type ConfigOptions, configOf } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { printable } from '../format.ts'
import { withConfig } from '../options.ts'
import { type RconCliOptions, rconPassword, withRcon } from '../quiesce.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace resume-saving`. */
export function addResumeSaving(program: Command, run: Runner): void {
  withConfig(withRcon(program.command('resume-saving')))
    .description('Turn saving on at Minecraft servers where a backup that was killed has left it off.')
    .option('--server <name>', 'only what backups of this server have left')
    .option('--force', 'also while that backup seems to be at work')
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace resume-saving\n  $ millrace resume-saving --rcon localhost:25575 --rcon-password-file /etc/millrace/rcon',
    )
    .action((options) => run(options, (invocation) => resumeSavingCommand(options, invocation)))
}

interface ResumeSavingOptions extends RconCliOptions, ConfigOptions {
  server?: string
  force?: boolean
}

/** Turns saving on where a backup that was killed left it off, or at the address that is given. */
export async function resumeSavingCommand(options: ResumeSavingOptions, { output }: Invocation): Promise<number> {
  const { rcon, server, force } = options
  const loaded = await configOf(options, output)
  const stateFolder = stateFolderOf(loaded)
  const resumed: Resumed[] = []
  if (loaded && rcon === undefined && options.rconPasswordFile === undefined) {
    const { known, others } = await leftOf(loaded, stateFolder, server)
    for (const one of known) {
      const password = (await rconPasswordOf(loaded, serverSettings(loaded, one))) as string
      resumed.push(...(await resumeSaving({ stateFolder, server: one, password, force })))
    }
    // As of a backup that was told of its RCON by options: the config has no password for it.
    for (const one of others) {
      const password = await rconPassword(options)
      resumed.push(...(await resumeSaving({ stateFolder, server: one, password, force })))
    }
  } else {
    const address = rcon === undefined ? undefined : parseAddress(rcon)
    const password = await rconPassword(options)
    resumed.push(...(await resumeSaving({ stateFolder, address, server, password, force })))
  }
  output.result('resumed', { servers: resumed }, resumed.length > 0 ? resumed.map(lineOf).join('\n') : NOTHING)
  return EXIT.GOOD
}

/** The servers whose saving a backup has left off: those whose RCON password is in the config, and others. */
async function leftOf(loaded: LoadedConfig, stateFolder: string, server: string | undefined) {
  const marked = (await listMarkings(stateFolder)).filter(({ how }) => how === 'rcon').map((one) => one.server)
  const names = [...new Set(marked)].filter((name) => server === undefined || name === server)
  // A name that neither has is misspelt.
  if (server !== undefined && names.length === 0) serverSettings(loaded, server)
  const isKnown = (name: string) => hasServer(loaded, name) && serverSettings(loaded, name).quiesce?.by === 'rcon'
  return { known: names.filter(isKnown), others: names.filter((name) => !isKnown(name)) }
}

const NOTHING = 'No backup has left saving off. Name a server with --rcon to turn it on there all the same.'

function lineOf({ where, server, since, already }: Resumed): string {
  const whose = server === null ? '' : ` (${server})`
  const left = since === null ? '' : `; a backup had turned it off on ${new Date(since).toISOString()}`
  return printable(`Saving at ${where}${whose} ${already ? 'was on already' : 'is on again'}${left}.`)
}
