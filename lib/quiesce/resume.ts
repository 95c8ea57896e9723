import { BackupError } from '../errors.ts'
import { listMarkings, type Marking, removeMarking } from './marker.ts'
import { type SaveOnOptions, saveOn } from './minecraft.ts'
import { addressText, type RconAddress } from './rcon.ts'

/** Where saving is to be turned on. */
export interface ResumeOptions extends Omit<SaveOnOptions, 'host' | 'port'> {
  stateFolder: string
  /** Only this RCON address; it is sent save-on though there be no marker. All that are marked when left out. */
  address?: RconAddress | undefined
  /** Only what was left by backups of this server. */
  server?: string | undefined
  /** Also where the backup that turned saving off is still at work. */
  force?: boolean | undefined
}

/** A server whose saving was turned on. */
export interface Resumed {
  /** `host:port`. */
  where: string
  server: string | null
  /** When saving was turned off, ms since 1970; null when no backup left a mark. */
  since: number | null
  /** Whether saving was on already. */
  already: boolean
}

/** Saving that backups turned off and did not live to turn on again; those at work are not among them. */
export async function leftSaving(stateFolder: string, server?: string): Promise<Marking[]> {
  const markings = await listMarkings(stateFolder)
  return markings.filter((one) => one.how === 'rcon' && !one.alive && (server === undefined || one.server === server))
}

/**
 * Turns saving on again where a backup that was killed has left it off.
 * @returns the servers that were told to save.
 * @throws BackupError QUIESCE when one cannot be told, BUSY when a backup is still at work there (unless `force`).
 */
export async function resumeSaving(options: ResumeOptions): Promise<Resumed[]> {
  const { stateFolder, address, server, force = false } = options
  const marked = (await listMarkings(stateFolder)).filter(
    ({ how, where, server: owner }) =>
      how === 'rcon' &&
      (address === undefined || where === addressText(address)) &&
      (server === undefined || owner === server),
  )
  const atWork = marked.find(({ alive }) => alive)
  if (atWork && !force) {
    throw new BackupError(
      'BUSY',
      `A backup of ${atWork.server} (process ${atWork.pid}) is at work and holds saving at ${atWork.where} off; it will turn it on. Force it if that process is none of millrace's.`,
    )
  }
  const resumed: Resumed[] = []
  for (const marking of marked) {
    const { where, server: owner, since } = marking
    const already = await saveOn({ ...options, ...parseAddress(where) })
    await removeMarking(stateFolder, marking)
    resumed.push({ where, server: owner, since, already })
  }
  if (address && resumed.length === 0) {
    const already = await saveOn({ ...options, ...address })
    resumed.push({ where: addressText(address), server: server ?? null, since: null, already })
  }
  return resumed
}

/**
 * Reads `host:port`, `host` (port 25575) or `[v6]:port`.
 * @throws BackupError USAGE.
 */
export function parseAddress(text: string): RconAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/@\s]+))(?::(\d{1,5}))?$/.exec(text)
  const port = Number(match?.[3] ?? DEFAULT_PORT)
  if (!match || port < 1 || port > 65_535) {
    throw new BackupError('USAGE', 'The RCON address cannot be read. Give it as host:port, as in localhost:25575.')
  }
  return { host: (match[1] ?? match[2]) as string, port }
}

const DEFAULT_PORT = 25_575
