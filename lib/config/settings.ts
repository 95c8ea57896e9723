import { BackupError } from '../errors.ts'
import { nearest } from '../nearest.ts'
import type { RetentionPolicy } from '../retention.ts'
import type { CommandSource } from '../source.ts'
import { defaultStateFolder } from '../state.ts'
import type { DestinationConfig } from './destination.ts'
import type { LoadedConfig } from './load.ts'
import { pathFrom } from './paths.ts'
import type { EncryptionConfig, ServerConfig } from './schema.ts'

/** What a config says of a server: its own entry, and `defaults` for the fields that it leaves out. */
export interface ServerSettings
  extends Omit<ServerConfig, 'source' | 'sourceCommand' | 'destinations' | 'prune' | 'retention'> {
  name: string
  /** An absolute path, or a program whose output is backed up. */
  source: string | CommandSource
  /** Names; the first is read from, the others where it fails. */
  destinations: string[]
  retention?: RetentionPolicy | undefined
  /** Whether each backup is followed by a prune. */
  prune: boolean
  /** The server's own, or the file's; undefined where neither says anything. */
  encryption?: EncryptionConfig | undefined
}

/** The names of the servers, in the order of the file. */
export function serverNames({ config }: LoadedConfig): string[] {
  return Object.keys(config.servers)
}

/** The names of the destinations, in the order of the file. */
export function destinationNames({ config }: LoadedConfig): string[] {
  return Object.keys(config.destinations)
}

/** Whether the config has a server of this name. */
export function hasServer({ config }: LoadedConfig, name: string): boolean {
  return Object.hasOwn(config.servers, name)
}

/** Whether the config has a destination of this name. */
export function hasDestination({ config }: LoadedConfig, name: string): boolean {
  return Object.hasOwn(config.destinations, name)
}

/**
 * What the config says of a server. A field that the server has replaces that of `defaults` whole.
 * @throws BackupError USAGE where there is no such server; the message has the nearest, and all.
 */
export function serverSettings(loaded: LoadedConfig, name: string): ServerSettings {
  const { config, folder, file } = loaded
  if (!hasServer(loaded, name)) throw unknown('server', name, serverNames(loaded), file)
  const own = config.servers[name] as ServerConfig
  const { source, sourceCommand, ...rest } = own
  const merged = { ...config.defaults, ...rest }
  return {
    ...merged,
    name,
    source: sourceCommand ? { command: sourceCommand as [string, ...string[]] } : pathFrom(folder, source as string),
    destinations: merged.destinations ?? destinationNames(loaded),
    retention: merged.retention,
    prune: merged.prune ?? merged.retention !== undefined,
    encryption: own.encryption ?? config.encryption,
  }
}

/** @throws BackupError USAGE where there is no such destination; the message has the nearest, and all. */
export function destinationConfig(loaded: LoadedConfig, name: string): DestinationConfig {
  if (!hasDestination(loaded, name)) throw unknown('destination', name, destinationNames(loaded), loaded.file)
  return loaded.config.destinations[name] as DestinationConfig
}

/** Where this machine keeps what it knows between runs: the config's `stateFolder`, else the system's place for it. */
export function stateFolderOf(loaded: LoadedConfig | undefined): string {
  const given = loaded?.config.stateFolder
  return given === undefined ? defaultStateFolder() : pathFrom((loaded as LoadedConfig).folder, given)
}

/** The config's file of metrics, as an absolute path. */
export function metricsFileOf({ config, folder }: LoadedConfig): string | undefined {
  return config.metricsFile === undefined ? undefined : pathFrom(folder, config.metricsFile)
}

function unknown(noun: string, name: string, names: readonly string[], file: string): BackupError {
  // What is no name may be a secret, or a URL with one.
  const shown = /^[A-Za-z0-9._-]{1,60}$/.test(name) ? ` called ${name}` : ' of that name'
  const meant = nearest(name, names)
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`
  return new BackupError('USAGE', `${file} has no ${noun}${shown}.${hint} It has ${names.join(', ')}.`)
}
