import type { Command } from 'commander'
import { parseAddress, type Resumed, resumeSaving } from '../../quiesce/resume.ts'
import { defaultStateFolder } from '../../state.ts'
import { EXIT } from '../exit-codes.ts'
import { printable } from '../format.ts'
import { type RconCliOptions, rconPassword, withRcon } from '../quiesce.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace resume-saving`. */
export function addResumeSaving(program: Command, run: Runner): void {
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
}

interface ResumeSavingOptions extends RconCliOptions {
  server?: string
  force?: boolean
}

/** Turns saving on where a backup that was killed left it off, or at the address that is given. */
export async function resumeSavingCommand(options: ResumeSavingOptions, { output }: Invocation): Promise<number> {
  const { rcon, server, force } = options
  const address = rcon === undefined ? undefined : parseAddress(rcon)
  const password = await rconPassword(options)
  const resumed = await resumeSaving({ stateFolder: defaultStateFolder(), address, server, password, force })
  output.result('resumed', { servers: resumed }, resumed.length > 0 ? resumed.map(lineOf).join('\n') : NOTHING)
  return EXIT.GOOD
}

const NOTHING = 'No backup has left saving off. Name a server with --rcon to turn it on there all the same.'

function lineOf({ where, server, since, already }: Resumed): string {
  const whose = server === null ? '' : ` (${server})`
  const left = since === null ? '' : `; a backup had turned it off on ${new Date(since).toISOString()}`
  return printable(`Saving at ${where}${whose} ${already ? 'was on already' : 'is on again'}${left}.`)
}
