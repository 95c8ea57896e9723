import { parseAddress, type Resumed, resumeSaving } from '../../quiesce/resume.ts'
import { defaultStateFolder } from '../../state.ts'
import { EXIT } from '../exit-codes.ts'
import { printable } from '../format.ts'
import type { Invocation } from '../main.ts'
import { type RconCliOptions, rconPassword } from '../quiesce.ts'

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
