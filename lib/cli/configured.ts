import { openStorage } from '../../adapters/open.ts'
import type { Storage } from '../../adapters/storage.ts'
import type { Backups, BackupsOptions } from '../backups.ts'
// Not by its index: what reads the file is large, and loaded only where there is one.
import { findConfigFile } from '../config/find.ts'
import type { LoadedConfig } from '../config/load.ts'
import { type Keys, keysOf, openOver } from '../config/open.ts'
import {
  destinationNames,
  hasDestination,
  hasServer,
  metricsFileOf,
  type ServerSettings,
  serverNames,
  serverSettings,
  stateFolderOf,
} from '../config/settings.ts'
import { openDestination, openDestinations } from '../config/storage.ts'
import { BackupError } from '../errors.ts'
import { nearest } from '../nearest.ts'
import type { Output } from './output.ts'
import { findKeys, type SecretOptions } from './secrets.ts'

export interface ConfigOptions {
  /** A file; false after `--no-config`. */
  config?: string | boolean | undefined
}

export interface PlaceOptions extends ConfigOptions {
  /** A URL, or the name of a destination in the config. */
  from?: string | readonly string[] | undefined
  to?: string | readonly string[] | undefined
  server?: string | undefined
}

/** What a command works on: a server, its stores, and what the config says of both. */
export interface Chosen {
  loaded: LoadedConfig | undefined
  server: string
  /** What the config says of the server; undefined where it has none of that name. */
  settings: ServerSettings | undefined
  /** URLs, and names of destinations. */
  stores: readonly string[]
  stateFolder: string
  /** The config's, for a server of the config. */
  metricsFile: string | undefined
}

/**
 * Loads the config that the command line names, or the one that is found.
 * @returns undefined where there is none, and after `--no-config`.
 * @throws BackupError USAGE.
 */
export async function configOf({ config }: ConfigOptions, output: Output): Promise<LoadedConfig | undefined> {
  if (config === false) return undefined
  const file = await findConfigFile(typeof config === 'string' ? config : undefined)
  if (file === undefined) return undefined
  const { loadConfig } = await import('../config/load.ts')
  const loaded = await loadConfig(file)
  for (const message of loaded.dangers) output.warning({ kind: 'config', path: file, message })
  return loaded
}

/**
 * Finds what a command about one server works on.
 * @throws BackupError USAGE where the server or its stores are neither given nor in a config.
 */
export async function choose(options: PlaceOptions, flag: '--from' | '--to', output: Output): Promise<Chosen> {
  const loaded = await configOf(options, output)
  return chooseServer(loaded, serverOf(options.server, loaded), options, flag)
}

/** The same for a server that is known. */
export function chooseServer(
  loaded: LoadedConfig | undefined,
  server: string,
  options: PlaceOptions,
  flag: '--from' | '--to',
): Chosen {
  const settings = loaded && hasServer(loaded, server) ? serverSettings(loaded, server) : undefined
  const given = givenStores(options)
  if (given.length > 0) for (const one of given) checkStore(loaded, one, flag)
  else if (!loaded) throw missing(flag)
  return {
    loaded,
    server,
    settings,
    // A server that the config does not have is refused here, with those that it has.
    stores: given.length > 0 ? given : (settings ?? serverSettings(loaded as LoadedConfig, server)).destinations,
    stateFolder: stateFolderOf(loaded),
    metricsFile: loaded && settings ? metricsFileOf(loaded) : undefined,
  }
}

/**
 * Finds what a command about several servers works on: the one that is given, else each of the config.
 * @returns for a store that is given without a server, one place with `server: undefined`.
 */
export async function chooseAll(
  options: PlaceOptions,
  output: Output,
): Promise<(Omit<Chosen, 'server'> & { server: string | undefined })[]> {
  const loaded = await configOf(options, output)
  if (options.server !== undefined) return [chooseServer(loaded, options.server, options, '--from')]
  const stores = givenStores(options)
  if (stores.length === 0) {
    if (!loaded) throw missing('--from')
    return serverNames(loaded).map((server) => chooseServer(loaded, server, options, '--from'))
  }
  for (const one of stores) checkStore(loaded, one, '--from')
  return [
    {
      loaded,
      server: undefined,
      settings: undefined,
      stores,
      stateFolder: stateFolderOf(loaded),
      metricsFile: undefined,
    },
  ]
}

function givenStores({ from, to }: PlaceOptions): readonly string[] {
  return [from ?? to ?? []].flat()
}

/** @throws BackupError USAGE where none is given, and the config has not exactly one. */
export function serverOf(given: string | undefined, loaded: LoadedConfig | undefined): string {
  if (given !== undefined) return given
  if (!loaded) {
    throw new BackupError('USAGE', 'The required option --server is missing: name the server whose backups are meant.')
  }
  const [only, ...others] = serverNames(loaded)
  if (only !== undefined && others.length === 0) return only
  throw new BackupError('USAGE', `Name one server with --server: ${loaded.file} has ${[only, ...others].join(', ')}.`)
}

/** What `check` looks at: the store that is given, else every destination. @throws BackupError USAGE. */
export function storesToCheck(loaded: LoadedConfig | undefined, given: string | undefined): readonly string[] {
  if (given === undefined && !loaded) throw missing('--to')
  if (given !== undefined) checkStore(loaded, given, '--to')
  return given === undefined ? destinationNames(loaded as LoadedConfig) : [given]
}

/** The one store that is meant where a command works on one: the first. */
export function firstOf<T extends { stores: readonly string[] }>(chosen: T): T {
  return { ...chosen, stores: chosen.stores.slice(0, 1) }
}

/** Opens a store by its URL, or a destination by its name. */
export function openStore(loaded: LoadedConfig | undefined, store: string): Promise<Storage> {
  return loaded && hasDestination(loaded, store) ? openDestination(loaded, store) : openStorage(store)
}

/** Opens the backups that a command works on; `close` closes the stores. */
export async function openChosen(
  { loaded, server, stores }: Pick<Chosen, 'loaded' | 'server' | 'stores'>,
  options: Omit<BackupsOptions, 'storage' | 'mirrors' | 'server'>,
): Promise<Backups> {
  const storages = await openDestinations(loaded, stores, (one) => openStore(loaded, one))
  try {
    return await openOver(storages, { ...options, server })
  } catch (error) {
    for (const storage of storages) await storage.close()
    throw error
  }
}

/**
 * The password or key of a command: what the command line gives; for a server of the config what that says; else
 * MILLRACE_PASSWORD; else what the config says for all; else a prompt.
 * @throws BackupError USAGE when there is none, or it cannot be read.
 */
export async function keysFor(
  { loaded, server }: { loaded: LoadedConfig | undefined; server: string | undefined },
  options: SecretOptions,
  purpose: 'read' | 'write',
): Promise<Keys> {
  const isGiven = Boolean(options.passwordFile?.length || options.keyFile?.length)
  if (options.encryption === false) {
    if (isGiven) throw contradiction(purpose)
    return { encryption: false }
  }
  if (loaded && !isGiven) {
    const isKnown = server !== undefined && hasServer(loaded, server)
    // Whoever sets it for a server that the config does not know means it.
    const isMeant = isKnown || process.env.MILLRACE_PASSWORD === undefined
    const keys = isMeant ? await keysOf(loaded, server ?? '') : undefined
    if (keys) return keys
  }
  return { encryption: true, ...(await findKeys(options, purpose)) }
}

/** @throws BackupError USAGE for what is neither a URL nor a destination's name. */
function checkStore(loaded: LoadedConfig | undefined, store: string, flag: string): void {
  // Without a config, whoever opens the URL says what is wrong with it.
  if (!loaded || hasDestination(loaded, store) || /^[A-Za-z][A-Za-z0-9+.-]*:/.test(store)) return
  const names = destinationNames(loaded)
  const meant = nearest(store, names)
  throw new BackupError(
    'USAGE',
    `${flag} names neither a URL, such as file:///mnt/backups, nor a destination of ${loaded.file}.${meant === undefined ? '' : ` Did you mean ${meant}?`} Its destinations are ${names.join(', ')}.`,
  )
}

/** Whoever names a key does not want it left out: what was written would lie open in the store. */
function contradiction(purpose: 'read' | 'write'): BackupError {
  const advice =
    purpose === 'write'
      ? 'To encrypt, leave --no-encryption out; to write what everybody can read, leave the password or key out.'
      : 'To take an unencrypted snapshot although a password or key is given, say --allow-plain.'
  return new BackupError('USAGE', `--no-encryption goes together with no --password-file and no --key-file. ${advice}`)
}

function missing(flag: string): BackupError {
  return new BackupError(
    'USAGE',
    `The required option ${flag} is missing: give the store's URL, such as file:///mnt/backups. There is no config either that could say it; \`millrace config example\` shows one.`,
  )
}
