export type { DestinationConfig } from './destination.ts'
export { findConfigFile } from './find.ts'
export { type LoadedConfig, loadConfig, parseConfig } from './load.ts'
export {
  createOptionsOf,
  type Keys,
  keysOf,
  type OpenServerOptions,
  openOver,
  openServer,
  rconPasswordOf,
} from './open.ts'
export type { Config, EncryptionConfig, ScheduleConfig, ServerConfig } from './schema.ts'
export { resolveKey, resolvePassword, resolveSecret, type SecretAt } from './secret.ts'
export {
  destinationConfig,
  destinationNames,
  hasDestination,
  hasServer,
  metricsFileOf,
  type ServerSettings,
  serverNames,
  serverSettings,
  stateFolderOf,
} from './settings.ts'
export { openDestination, storageConfigOf } from './storage.ts'
