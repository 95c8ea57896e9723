import { access, readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** What server.properties says of RCON. */
export interface FoundRcon {
  /** The file that says it. */
  file: string
  /** Whether `enable-rcon` is true. */
  enabled: boolean
  /** `host:port`. */
  address: string
  /** Empty where none is set. */
  password: string
}

/** What was seen of a Minecraft server at a folder. */
export interface FoundMinecraft {
  /** The folders that have a level.dat: the one that was named, or those in it. */
  worlds: string[]
  /** Whether the folder that was named is the server's own, with the worlds in it. */
  isServer: boolean
  /** The server's folder by its name, or the world's. */
  name: string
  rcon: FoundRcon | undefined
}

const DEFAULT_PORT = '25575'

/**
 * Looks whether a folder is a Minecraft world (by its level.dat), or a server with worlds in it.
 * @returns undefined where it is neither.
 */
export async function findMinecraft(folder: string): Promise<FoundMinecraft | undefined> {
  if (await isThere(join(folder, 'level.dat'))) {
    const server = dirname(folder)
    const properties = await readProperties(join(server, 'server.properties'))
    return {
      worlds: [folder],
      isServer: false,
      name: basename(properties ? server : folder),
      rcon: properties && rconOf(join(server, 'server.properties'), properties),
    }
  }
  const file = join(folder, 'server.properties')
  const properties = await readProperties(file)
  if (!properties) return undefined
  const level = properties.get('level-name') || 'world'
  const worlds: string[] = []
  // Paper and Spigot keep the Nether and the End in folders of their own.
  for (const name of [level, `${level}_nether`, `${level}_the_end`]) {
    if (await isThere(join(folder, name, 'level.dat'))) worlds.push(join(folder, name))
  }
  return { worlds, isServer: true, name: basename(folder), rcon: rconOf(file, properties) }
}

function rconOf(file: string, properties: ReadonlyMap<string, string>): FoundRcon {
  const host = properties.get('server-ip') || 'localhost'
  const port = properties.get('rcon.port') || DEFAULT_PORT
  return {
    file,
    enabled: properties.get('enable-rcon') === 'true',
    address: host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`,
    password: properties.get('rcon.password') ?? '',
  }
}

async function readProperties(file: string): Promise<Map<string, string> | undefined> {
  try {
    return parseProperties(await readFile(file, 'utf8'))
  } catch {
    return undefined
  }
}

/** Reads a Java properties file, as far as Minecraft writes one: a name and a value a line, with Java's escapes. */
export function parseProperties(text: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*([^#!\s=:][^\s=:]*)\s*[=:]?\s*(.*)$/.exec(line)
    if (match) found.set(match[1] as string, unescaped(match[2] as string))
  }
  return found
}

const ESCAPES: Record<string, string> = { t: '\t', n: '\n', r: '\r', f: '\f' }

function unescaped(text: string): string {
  return text.replace(/\\(?:u([0-9a-fA-F]{4})|(.))/g, (_, code: string | undefined, char: string) =>
    code === undefined ? (ESCAPES[char] ?? char) : String.fromCharCode(Number.parseInt(code, 16)),
  )
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
