import { pathToFileURL } from 'node:url'
import { findOAuthCredentials, type OAuthStore } from '../../adapters/credentials.ts'
import { StorageError } from '../../adapters/errors.ts'
import { withBandwidth } from '../../adapters/layers/index.ts'
import { openStorage, type StorageConfig } from '../../adapters/open.ts'
import type { Storage } from '../../adapters/storage.ts'
import { BackupError } from '../errors.ts'
import type { StoreLocation } from '../kept.ts'
import type { DestinationConfig } from './destination.ts'
import type { LoadedConfig } from './load.ts'
import { pathFrom } from './paths.ts'
import { resolvePassword } from './secret.ts'
import { destinationConfig, hasDestination } from './settings.ts'
import { unopened } from './unopened.ts'

/** The fields of a destination that say where a secret is. */
export const SECRET_FIELDS = [
  'accessKeyId',
  'secretAccessKey',
  'sessionToken',
  'clientId',
  'clientSecret',
  'refreshToken',
  'keyId',
  'applicationKey',
] as const

/**
 * Opens a destination of the config, with its limits of bandwidth. Its secrets are read now.
 * @throws BackupError USAGE for a name that is not there, a secret that cannot be read, and settings that the adapter
 * does not take.
 */
export async function openDestination(loaded: LoadedConfig, name: string): Promise<Storage> {
  const { bandwidth, readBandwidth } = destinationConfig(loaded, name)
  try {
    const storage = await openStorage(await storageConfigOf(loaded, name))
    if (bandwidth === undefined && readBandwidth === undefined) return storage
    return withBandwidth(storage, { writeBytesPerSecond: bandwidth, readBytesPerSecond: readBandwidth })
  } catch (cause) {
    if (!(cause instanceof StorageError && cause.code === 'INVALID')) throw cause
    throw new BackupError('USAGE', `destinations.${name}: ${cause.message}`, { cause })
  }
}

/**
 * Opens several destinations. One that cannot be, as for want of a secret, fails in whatever is asked of it, and the
 * others go on.
 * @param open what opens one; of the config by its name when left out.
 * @throws BackupError USAGE, StorageError: when none can be opened, or what fails is none of the config's.
 */
export async function openDestinations(
  loaded: LoadedConfig | undefined,
  names: readonly string[],
  open: (name: string) => Promise<Storage> = (name) => openDestination(loaded as LoadedConfig, name),
): Promise<Storage[]> {
  const tried: { name: string; storage?: Storage; error?: unknown }[] = []
  // One after the other: where a secret is may be a question to somebody.
  for (const name of names) {
    tried.push(
      await open(name).then(
        (storage) => ({ name, storage }),
        (error: unknown) => ({ name, error }),
      ),
    )
  }
  const failed = tried.filter(({ storage }) => storage === undefined)
  const grave =
    failed.length === names.length ? failed[0] : failed.find(({ name, error }) => !mayGoOn(loaded, name, error))
  if (grave) {
    for (const { storage } of tried) await storage?.close()
    throw grave.error
  }
  return tried.map(({ name, storage, error }) => {
    if (storage) return storage
    return unopened(name, destinationConfig(loaded as LoadedConfig, name).provider, error as Error)
  })
}

/** What is no destination of the config is a mistake on the command line. */
function mayGoOn(loaded: LoadedConfig | undefined, name: string, error: unknown): boolean {
  const isKnown = loaded !== undefined && hasDestination(loaded, name)
  return isKnown && (error instanceof BackupError || error instanceof StorageError)
}

/**
 * Where those of some stores are that are folders of this machine; no store is opened, and no secret read.
 * @param stores URLs, and names of destinations.
 */
export function localStores(loaded: LoadedConfig | undefined, stores: readonly string[]): StoreLocation[] {
  return stores.flatMap((store) => {
    if (!loaded || !hasDestination(loaded, store)) return store.startsWith('file:') ? { location: store } : []
    const destination = destinationConfig(loaded, store)
    if (destination.provider !== 'filesystem') return []
    return { location: pathToFileURL(pathFrom(loaded.folder, destination.root)).href }
  })
}

/**
 * What `openStorage` takes for a destination: paths absolute, secrets as themselves. Keep it from logs.
 * @throws BackupError USAGE, StorageError INVALID when nobody has signed in.
 */
export async function storageConfigOf(loaded: LoadedConfig, name: string): Promise<StorageConfig> {
  const destination = destinationConfig(loaded, name)
  return storageConfigWith({ ...destination, ...(await secretsOf(loaded, name)) }, { name, folder: loaded.folder })
}

/**
 * The same for a destination whose secrets stand in it as themselves.
 * @throws BackupError USAGE, StorageError INVALID when nobody has signed in.
 */
export function storageConfigWith(
  destination: DestinationConfig,
  { name, folder }: { name: string; folder: string },
): StorageConfig {
  const { bandwidth: _, readBandwidth: __, ...given } = destination
  switch (given.provider) {
    case 'filesystem':
      return {
        ...given,
        root: pathFrom(folder, given.root),
        ...(given.mountPoint === undefined ? {} : { mountPoint: pathFrom(folder, given.mountPoint) }),
      }
    case 'google-drive': {
      const { endpoint, clientId, clientSecret, refreshToken, ...rest } = given
      const signIn = refreshToken === undefined ? kept('google-drive') : { clientId, clientSecret, refreshToken }
      if (signIn.clientSecret === undefined) {
        throw new BackupError(
          'USAGE',
          `destinations.${name}: Google wants the secret of the app as well. Sign in again, or give clientSecret.`,
        )
      }
      return clean({
        ...rest,
        ...(signIn as { clientId: string; clientSecret: string; refreshToken: string }),
        endpoints: endpoint === undefined ? undefined : { api: endpoint, token: endpoint },
      })
    }
    case 'dropbox':
      return clean(given.refreshToken === undefined ? { ...given, ...kept('dropbox') } : given)
    default:
      return clean(given) as StorageConfig
  }
}

/** Where each secret of a destination is, and what it is called in errors. */
export function secretReferences(
  loaded: LoadedConfig,
  name: string,
): { field: (typeof SECRET_FIELDS)[number]; reference: string; what: string }[] {
  const destination = destinationConfig(loaded, name) as Partial<Record<(typeof SECRET_FIELDS)[number], string>>
  return SECRET_FIELDS.flatMap((field) => {
    const reference = destination[field]
    return reference === undefined ? [] : [{ field, reference, what: `destinations.${name}.${field}` }]
  })
}

async function secretsOf(
  loaded: LoadedConfig,
  name: string,
): Promise<Partial<Record<(typeof SECRET_FIELDS)[number], string>>> {
  const found: Partial<Record<(typeof SECRET_FIELDS)[number], string>> = {}
  for (const { field, reference, what } of secretReferences(loaded, name)) {
    found[field] = await resolvePassword(reference, { folder: loaded.folder, what })
  }
  return found
}

function kept(store: OAuthStore) {
  return findOAuthCredentials(store)
}

/** The adapters tell a setting that is undefined from one that is not there. */
function clean<T extends object>(settings: T): StorageConfig {
  return Object.fromEntries(
    Object.entries(settings).filter(([, value]) => value !== undefined),
  ) as unknown as StorageConfig
}
