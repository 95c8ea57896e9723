import { fileURLToPath } from 'node:url'
import { StorageError } from './errors.ts'
import type { FilesystemConfig } from './filesystem.ts'
import type { S3Config } from './s3-config.ts'
import type { Storage } from './storage.ts'

/** Which store to open, and how: each adapter's own settings, with its name. */
export type StorageConfig =
  | ({ provider: 'filesystem' } & FilesystemConfig)
  | { provider: 'memory' }
  | ({ provider: 's3' } & S3Config)

const PROVIDERS = ['filesystem', 'memory', 's3']

/** Loads only the adapter that is asked for. */
const SCHEMES: Record<string, (url: URL) => StorageConfig> = {
  'file:': (url) => {
    takeParameters(url, [])
    if (url.host !== '') throw invalid('A file: URL has three slashes before an absolute path: file:///srv/backups.')
    return { provider: 'filesystem', root: fileURLToPath(url) }
  },
  's3:': (url) => {
    const { forcePathStyle, objectLock, ...given } = takeParameters(url, [
      'endpoint',
      'region',
      'forcePathStyle',
      'profile',
      'storageClass',
      'uploader',
      'objectLock',
    ])
    if (url.hostname === '') throw invalid('An s3: URL begins with the bucket: s3://bucket/prefix.')
    if (forcePathStyle !== undefined && !/^(true|false)$/.test(forcePathStyle)) {
      throw invalid('forcePathStyle in an s3: URL is true or false.')
    }
    const lock = objectLock === undefined ? undefined : /^(GOVERNANCE|COMPLIANCE):(\d+)$/.exec(objectLock)
    if (lock === null) throw invalid('objectLock in an s3: URL is a mode and days: objectLock=GOVERNANCE:30.')
    return {
      provider: 's3',
      bucket: url.hostname,
      prefix: decodeURIComponent(url.pathname),
      // Held to what they can be by openS3.
      ...(given as Pick<S3Config, 'endpoint' | 'region' | 'profile' | 'storageClass' | 'uploader'>),
      ...(forcePathStyle === undefined ? {} : { forcePathStyle: forcePathStyle === 'true' }),
      ...(lock === undefined
        ? {}
        : { objectLock: { mode: lock[1] as 'GOVERNANCE' | 'COMPLIANCE', days: Number(lock[2]) } }),
    }
  },
}

/**
 * Opens a store by its settings, or by a URL: `file:///srv/backups`, or
 * `s3://bucket/prefix?endpoint=https://…&region=…`. Credentials never stand in a URL: they come from the environment,
 * or in the settings.
 * @throws StorageError INVALID for a URL or settings that name no known store, or contradict themselves.
 */
export async function openStorage(config: StorageConfig | string | URL): Promise<Storage> {
  const settings = typeof config === 'string' || config instanceof URL ? parseStorageUrl(config) : config
  switch (settings.provider) {
    case 'filesystem':
      return (await import('./filesystem.ts')).openFilesystem(settings)
    case 'memory':
      return (await import('./memory.ts')).openMemory()
    case 's3':
      return (await import('./s3.ts')).openS3(settings)
    default:
      throw invalid(`There is no such provider. The known ones are ${PROVIDERS.join(', ')}.`)
  }
}

/** Reads a storage URL into settings. @throws StorageError INVALID, with no part of a URL that could be a secret. */
export function parseStorageUrl(text: string | URL): StorageConfig {
  const schemes = Object.keys(SCHEMES)
    .map((scheme) => `${scheme}//`)
    .join(', ')
  if (!URL.canParse(String(text))) throw invalid(`This is not a URL. A storage URL begins with one of ${schemes}.`)
  const url = new URL(String(text))
  const parse = SCHEMES[url.protocol]
  if (!parse) throw invalid(`The scheme ${url.protocol} is not known. A storage URL begins with one of ${schemes}.`)
  if (url.username !== '' || url.password !== '') {
    throw invalid('The URL has credentials in it. Take them out: they belong in the environment or in the settings.')
  }
  try {
    return parse(url)
  } catch (error) {
    if (error instanceof StorageError) throw error
    throw invalid('The path of the URL cannot be decoded.')
  }
}

function takeParameters(url: URL, known: string[]): Record<string, string | undefined> {
  const found: Record<string, string> = {}
  for (const [name, value] of url.searchParams) {
    if (!known.includes(name)) {
      const advice = known.length === 0 ? 'It takes none.' : `It takes ${known.join(', ')}.`
      throw invalid(`A ${url.protocol} URL has a parameter that is not known. ${advice} Secrets never stand in a URL.`)
    }
    found[name] = value
  }
  return found
}

function invalid(message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter: 'none', operation: 'openStorage' })
}
