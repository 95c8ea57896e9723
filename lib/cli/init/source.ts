import { access, constants, readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { checkServer } from '../../names.ts'
import { addressText, openRcon } from '../../quiesce/rcon.ts'
import { parseAddress } from '../../quiesce/resume.ts'
import { printable } from '../format.ts'
import type { Asker } from './ask.ts'
import { type FoundMinecraft, type FoundRcon, findMinecraft } from './minecraft.ts'
import { isFolder, SERVER_NAME_MAX, serverNameOf } from './names.ts'
import { typedPath } from './paths.ts'
import type { SecretBox } from './secret-box.ts'

/** A server, as `servers` of the config has it. */
export interface ServerAnswers {
  name: string
  /** An absolute path. */
  source: string
  quiesce?: { by: 'rcon'; address: string; password: string; allowStopped: true } | undefined
}

const RCON_TRY_MS = 4000

/** Asks what is backed up, and what to call it; recognises a Minecraft server. */
export async function askServer(ask: Asker, box: SecretBox, signal: AbortSignal): Promise<ServerAnswers> {
  const folder = typedPath(
    await ask.path('Which folder is backed up? (the world, the server, or any other)', {
      initial: join(process.cwd(), '/'),
      validate: checkSource,
    }),
  )
  const minecraft = (await isFolder(folder)) ? await findMinecraft(folder) : undefined
  const source = minecraft ? await chooseWorld(ask, folder, minecraft) : folder
  const name = await ask.text('What is the server called? (the folder of its backups; it cannot be changed later)', {
    initial: serverNameOf(minecraft?.name ?? basename(folder)),
    validate: (answer) => {
      try {
        checkServer(answer)
        return undefined
      } catch {
        return `Small letters, digits, dots, dashes and underscores, beginning with a letter or digit, at most ${SERVER_NAME_MAX}.`
      }
    },
  })
  const quiesce = minecraft ? await askRcon(ask, box, name, minecraft.rcon, signal) : undefined
  return { name, source, quiesce }
}

async function chooseWorld(ask: Asker, folder: string, { worlds, isServer }: FoundMinecraft): Promise<string> {
  if (!isServer) {
    ask.say('good', `A Minecraft world: ${printable(folder)}`)
    return folder
  }
  ask.say('good', `A Minecraft server with ${worlds.length === 1 ? 'one world' : `${worlds.length} worlds`}.`)
  const [only, ...others] = worlds
  // The Nether and the End are folders of their own there, and one snapshot must have all of them.
  if (only === undefined || others.length > 0) return folder
  return ask.choose(
    'What of it?',
    [
      { value: folder, label: 'The whole server', hint: 'its worlds, plugins and settings' },
      { value: only, label: `Only the world ${printable(basename(only))}` },
    ],
    folder,
  )
}

async function askRcon(
  ask: Asker,
  box: SecretBox,
  server: string,
  rcon: FoundRcon | undefined,
  signal: AbortSignal,
): Promise<ServerAnswers['quiesce']> {
  if (!rcon) {
    ask.say('info', 'No server.properties beside it: the world is read while the server may write to it.')
    return undefined
  }
  if (!rcon.enabled || rcon.password === '') {
    ask.say(
      'warn',
      `RCON is off in ${printable(rcon.file)}, so the world is read while the server writes to it. For backups that are still: set enable-rcon=true and rcon.password there, restart the server, and run \`millrace init\` again or see docs/guides/live-worlds.md.`,
    )
    return undefined
  }
  const wants = await ask.confirm(
    `Turn saving off by RCON (${printable(rcon.address)}) while the world is read? The password of server.properties is kept in a file.`,
    true,
  )
  if (!wants) return undefined
  let { address } = rcon
  for (;;) {
    const problem = await tryRcon(address, rcon.password, signal)
    if (problem === undefined) ask.say('good', `RCON answers at ${address}.`)
    else ask.say('warn', printable(problem))
    if (problem === undefined || (await ask.confirm('Use it all the same? (a stopped server is backed up too)', true)))
      break
    address = await ask.text('RCON address, as HOST:PORT', { initial: address, validate: checkAddress })
  }
  return { by: 'rcon', address, password: await box.keep(`${server}-rcon-password`, rcon.password), allowStopped: true }
}

/** @returns what is wrong. */
async function tryRcon(address: string, password: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    const rcon = await openRcon({ ...parseAddress(address), password, connectMs: RCON_TRY_MS, signal })
    rcon.close()
    return undefined
  } catch (error) {
    if (signal.aborted) throw error
    return (error as Error).message
  }
}

function checkAddress(answer: string): string | undefined {
  try {
    return addressText(parseAddress(answer)) === '' ? 'An address is needed.' : undefined
  } catch {
    return 'Write it as HOST:PORT, as in localhost:25575.'
  }
}

async function checkSource(answer: string): Promise<string | undefined> {
  if (answer === '') return `There is no such folder.`
  const path = typedPath(answer)
  try {
    const found = await stat(path)
    await access(path, constants.R_OK)
    if (found.isDirectory()) await readdir(path)
    else if (!found.isFile()) return 'That is neither a folder nor a file.'
    return undefined
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? 'There is no such folder.' : `It cannot be read (${code}): run this as who may read it.`
  }
}
