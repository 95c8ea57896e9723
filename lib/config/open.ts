import type { Storage } from '../../adapters/storage.ts'
import type { ReadKeys, WriteKey } from '../../transforms/index.ts'
import { type Backups, type BackupsOptions, openBackups } from '../backups.ts'
import type { CreateOptions } from '../create.ts'
import { parseDuration } from '../duration.ts'
import { BackupError } from '../errors.ts'
import { journalFolder } from '../journal/folder.ts'
import { createCommandQuiescer } from '../quiesce/command.ts'
import { createMinecraftQuiescer } from '../quiesce/minecraft.ts'
import type { Quiescer } from '../quiesce/quiescer.ts'
import { parseAddress } from '../quiesce/resume.ts'
import type { LoadedConfig } from './load.ts'
import type { EncryptionConfig } from './schema.ts'
import { resolveKey, resolvePassword, secretFile } from './secret.ts'
import { hasServer, type ServerSettings, serverSettings, stateFolderOf } from './settings.ts'
import { openDestinations } from './storage.ts'

/** What `openBackups` takes of passwords and keys. */
export interface Keys extends ReadKeys {
  /** false: nothing is encrypted. */
  encryption: boolean
  /** What new snapshots are encrypted with, of several. */
  writeWith?: WriteKey | undefined
}

/** What `openServer` can be told beside the server's name. */
export interface OpenServerOptions extends Pick<BackupsOptions, 'onFallback' | 'onNotice'> {
  /** Names of destinations; the server's own when left out. The first is read from, the others where it fails. */
  destinations?: readonly string[] | undefined
  /** In place of what the config says. */
  keys?: Keys | undefined
}

/**
 * Opens the backups of a server as the config has them: its destinations with their credentials and limits, its
 * password or key (where the config has none, MILLRACE_PASSWORD), and its state folder. `close` closes the destinations.
 * Of several destinations one whose secret cannot be read fails in whatever is asked of it, and the others go on.
 * @throws BackupError USAGE for a name that is not in the config, and for a secret that cannot be read; StorageError.
 */
export async function openServer(
  loaded: LoadedConfig,
  name: string,
  options: OpenServerOptions = {},
): Promise<Backups> {
  const settings = serverSettings(loaded, name)
  const { destinations = settings.destinations, onFallback, onNotice } = options
  if (destinations.length === 0) throw new BackupError('USAGE', 'Name at least one destination.')
  const keys = options.keys ?? (await keysOf(loaded, name)) ?? keysOfEnvironment(loaded, name)
  const storages = await openDestinations(loaded, destinations)
  try {
    return await openOver(storages, { server: name, ...keys, stateFolder: stateFolderOf(loaded), onFallback, onNotice })
  } catch (error) {
    for (const storage of storages) await storage.close()
    throw error
  }
}

/** Opens backups over open stores, which its `close` closes. */
export async function openOver(
  storages: readonly Storage[],
  options: Omit<BackupsOptions, 'storage' | 'mirrors'>,
): Promise<Backups> {
  const [storage, ...mirrors] = storages as [Storage, ...Storage[]]
  const backups = await openBackups({ ...options, storage, mirrors })
  return {
    ...backups,
    async close() {
      await backups.close()
      for (const one of storages) await one.close()
    },
  }
}

/**
 * The password or key that the config gives for a server; where it has no such server, what it gives for all.
 * @returns undefined where the config says nothing.
 * @throws BackupError USAGE when one cannot be read.
 */
export async function keysOf(loaded: LoadedConfig, server: string): Promise<Keys | undefined> {
  const own = hasServer(loaded, server) ? loaded.config.servers[server]?.encryption : undefined
  const encryption = own ?? loaded.config.encryption
  const what = own === undefined ? 'encryption' : `servers.${server}.encryption`
  return encryption === undefined ? undefined : readKeys(encryption, loaded.folder, what)
}

async function readKeys(encryption: EncryptionConfig, folder: string, what: string): Promise<Keys> {
  if (encryption === false) return { encryption: false }
  const { password, key, previousPasswords = [], previousKeys = [] } = encryption
  const passwords: string[] = []
  const keys: Buffer[] = []
  if (password !== undefined) passwords.push(await resolvePassword(password, { folder, what: `${what}.password` }))
  if (key !== undefined) keys.push(await resolveKey(key, { folder, what: `${what}.key` }))
  const writeWith = keys[0] === undefined ? { password: passwords[0] } : { key: keys[0] }
  for (const [at, one] of previousPasswords.entries()) {
    passwords.push(await resolvePassword(one, { folder, what: `${what}.previousPasswords[${at}]` }))
  }
  for (const [at, one] of previousKeys.entries()) {
    keys.push(await resolveKey(one, { folder, what: `${what}.previousKeys[${at}]` }))
  }
  return { encryption: true, password: passwords, key: keys, writeWith }
}

/**
 * The files that the config reads a server's passwords and keys from.
 * @returns absolute paths.
 */
export function keyFilesOf(loaded: LoadedConfig, server: string): string[] {
  const own = hasServer(loaded, server) ? loaded.config.servers[server]?.encryption : undefined
  const encryption = own ?? loaded.config.encryption
  if (!encryption) return []
  const { password, key, previousPasswords = [], previousKeys = [] } = encryption
  return [password, key, ...previousPasswords, ...previousKeys].flatMap((one) => secretFile(one, loaded.folder) ?? [])
}

function keysOfEnvironment({ file }: LoadedConfig, name: string): Keys {
  const password = process.env.MILLRACE_PASSWORD
  if (password) return { encryption: true, password }
  throw new BackupError(
    'USAGE',
    `${file} has no encryption for ${name}, and MILLRACE_PASSWORD is not set. Say where the password is, or write encryption: false.`,
  )
}

/**
 * What the config says of how a server is backed up, for `create`.
 * @throws BackupError USAGE when the RCON password cannot be read.
 */
export async function createOptionsOf(loaded: LoadedConfig, settings: ServerSettings): Promise<CreateOptions> {
  const { level, include, exclude, defaultExcludes, allowEmpty, wait, stallTimeout, hooks, quiesce, resume } = settings
  const { before, after, failure, timeout } = hooks ?? {}
  return {
    level,
    include,
    exclude,
    defaultExcludes,
    allowEmpty,
    lease: { waitMs: ms(wait) },
    stallMs: ms(stallTimeout),
    journal: resume ? { folder: journalFolder(stateFolderOf(loaded)), resume } : undefined,
    hooks: { before, after, failure, timeoutMs: ms(timeout) },
    quiesce: await quiescerOf(loaded, settings),
    quiesceLimitMs: ms(quiesce?.holdLimit),
  }
}

async function quiescerOf(loaded: LoadedConfig, settings: ServerSettings): Promise<Quiescer | undefined> {
  const { quiesce, name: server } = settings
  if (quiesce === undefined) return undefined
  const stateFolder = stateFolderOf(loaded)
  if (quiesce.by === 'commands') {
    const { before, after, reaches: level } = quiesce
    return createCommandQuiescer({ before, after, level, server, stateFolder })
  }
  const { address, allowStopped, allowSilent } = quiesce
  const password = await rconPasswordOf(loaded, settings)
  return createMinecraftQuiescer({
    ...parseAddress(address),
    password: password as string,
    server,
    stateFolder,
    allowStopped,
    allowSilent,
  })
}

/** The RCON password of a server that is held still by RCON; undefined for others. @throws BackupError USAGE. */
export async function rconPasswordOf(loaded: LoadedConfig, settings: ServerSettings): Promise<string | undefined> {
  const { quiesce, name } = settings
  if (quiesce?.by !== 'rcon') return undefined
  return resolvePassword(quiesce.password, { folder: loaded.folder, what: `servers.${name}.quiesce.password` })
}

function ms(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseDuration(text)
}
