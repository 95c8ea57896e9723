import { fileURLToPath } from 'node:url'
import type { B2Config } from './backblaze-b2-client.ts'
import { findOAuthCredentials, type OAuthCredentials } from './credentials.ts'
import type { DropboxConfig } from './dropbox-config.ts'
import { StorageError } from './errors.ts'
import type { FilesystemConfig } from './filesystem.ts'
import type { GoogleDriveConfig } from './google-drive-client.ts'
import type { S3Config } from './s3-config.ts'
import type { Storage } from './storage.ts'

/** Which store to open, and how: each adapter's own settings, with its name. */
export type StorageConfig =
  | ({ provider: 'filesystem' } & FilesystemConfig)
  | { provider: 'memory' }
  | ({ provider: 's3' } & S3Config)
  | ({ provider: 'google-drive' } & GoogleDriveConfig)
  | ({ provider: 'dropbox' } & DropboxConfig)
  | ({ provider: 'backblaze-b2' } & B2Config)

const PROVIDERS = ['filesystem', 'memory', 's3', 'google-drive', 'dropbox', 'backblaze-b2']

/** Loads only the adapter that is asked for. */
const SCHEMES: Record<string, (url: URL) => StorageConfig> = {
  'file:': (url) => {
    const { mountPoint } = takeParameters(url, ['mountPoint'])
    if (url.host !== '') throw invalid('A file: URL has three slashes before an absolute path: file:///srv/backups.')
    return { provider: 'filesystem', root: fileURLToPath(url), ...(mountPoint === undefined ? {} : { mountPoint }) }
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
    // It would be left out, and another store asked.
    if (url.port !== '')
      throw invalid('An s3: URL has no port: it begins with the bucket. Name the server with endpoint=….')
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
  'drive:': (url) => {
    const { endpoint, sharedDrive } = takeParameters(url, ['sharedDrive', 'endpoint'])
    const folder = folderOf(url)
    const isHidden = url.host === 'appdata'
    if (url.host !== '' && folder !== '') {
      throw invalid('A drive: URL has the id of a folder, drive://ID, or a path, drive:///backups/minecraft.')
    }
    return {
      provider: 'google-drive',
      ...(needsSecret(findOAuthCredentials('google-drive')) as Required<OAuthCredentials>),
      ...(isHidden ? { appData: true } : url.host === '' ? {} : { folderId: url.host }),
      ...(folder === '' ? {} : { folder }),
      ...(sharedDrive === undefined ? {} : { sharedDriveId: sharedDrive }),
      ...(endpoint === undefined ? {} : { endpoints: { api: endpoint, token: endpoint } }),
    }
  },
  'dropbox:': (url) => {
    const given = takeParameters(url, ['namespace', 'session', 'endpoint'])
    if (url.host !== '') throw invalid('A dropbox: URL has three slashes before its path: dropbox:///backups.')
    const folder = folderOf(url)
    return {
      provider: 'dropbox',
      ...findOAuthCredentials('dropbox'),
      ...(folder === '' ? {} : { root: `/${folder}` }),
      // Held to what they can be by openDropbox.
      ...(given as Pick<DropboxConfig, 'namespace' | 'session' | 'endpoint'>),
    }
  },
  'b2:': (url) => {
    const { endpoint } = takeParameters(url, ['endpoint'])
    if (url.host === '') throw invalid('A b2: URL begins with the bucket: b2://bucket/prefix.')
    const { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey } = process.env
    if (!keyId || !applicationKey) {
      throw invalid('A b2: URL needs B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY in the environment.')
    }
    const prefix = folderOf(url)
    return {
      provider: 'backblaze-b2',
      keyId,
      applicationKey,
      bucket: url.host,
      ...(prefix === '' ? {} : { prefix }),
      ...(endpoint === undefined ? {} : { endpoint }),
    }
  },
}

/**
 * Opens a store by its settings, or by a URL: `file:///srv/backups`, `s3://bucket/prefix?endpoint=https://…&region=…`,
 * `b2://bucket/prefix`, `dropbox:///folder`, `drive:///folder`, `drive://FOLDER-ID` or `drive://appdata`. Credentials
 * never stand in a URL: they come from the environment, from `millrace login`, or in the settings.
 * @throws StorageError INVALID for a URL or settings that name no known store, or contradict themselves.
 */
export async function openStorage(config: StorageConfig | string | URL): Promise<Storage> {
  const settings = typeof config === 'string' || config instanceof URL ? parseStorageUrl(config) : config
  switch (settings?.provider) {
    case 'filesystem':
      return (await import('./filesystem.ts')).openFilesystem(settings)
    case 'memory':
      return (await import('./memory.ts')).openMemory()
    case 's3':
      return (await import('./s3.ts')).openS3(settings)
    case 'google-drive':
      return (await import('./google-drive.ts')).openGoogleDrive(settings)
    case 'dropbox':
      return (await import('./dropbox.ts')).openDropbox(settings)
    case 'backblaze-b2':
      return (await import('./backblaze-b2.ts')).openB2(settings)
    default:
      throw invalid(`There is no such provider. The known ones are ${PROVIDERS.join(', ')}.`)
  }
}

/** Reads a storage URL into settings. @throws StorageError INVALID, with no part of a URL that could be a secret. */
export function parseStorageUrl(text: string | URL): StorageConfig {
  const schemes = Object.keys(SCHEMES)
    .map((scheme) => `${scheme}//`)
    .join(', ')
  if (!URL.canParse(String(text))) {
    const folder = /^[~./]/.test(String(text))
      ? ' A folder is written file:///srv/backups, with its absolute path.'
      : ''
    throw invalid(`This is not a URL. A storage URL begins with one of ${schemes}.${folder}`)
  }
  const url = new URL(String(text))
  const parse = SCHEMES[url.protocol]
  if (!parse) throw invalid(`The scheme ${url.protocol} is not known. A storage URL begins with one of ${schemes}.`)
  if (url.username !== '' || url.password !== '') {
    throw invalid('The URL has credentials in it. Take them out: they belong in the environment or in the settings.')
  }
  // All after it would be left out, and another folder meant.
  if (url.hash !== '' || String(text).endsWith('#')) {
    throw invalid('The URL has a # in it. In the name of a folder it is written %23, and nothing else begins with one.')
  }
  try {
    return parse(url)
  } catch (error) {
    if (error instanceof StorageError) throw error
    throw invalid('The path of the URL cannot be decoded.')
  }
}

/** The path of a URL, decoded, without the slashes around it. */
function folderOf(url: URL): string {
  return decodeURIComponent(url.pathname).replace(/^\/+|\/+$/g, '')
}

function needsSecret(credentials: OAuthCredentials): OAuthCredentials {
  if (credentials.clientSecret !== undefined) return credentials
  throw invalid('Google wants the secret of the app as well: set MILLRACE_GOOGLE_CLIENT_SECRET, or sign in again.')
}

function takeParameters(url: URL, known: string[]): Record<string, string | undefined> {
  const found: Record<string, string> = {}
  for (const [name, value] of url.searchParams) {
    if (!known.includes(name)) {
      const advice = known.length === 0 ? 'It takes none.' : `It takes ${known.join(', ')}.`
      throw invalid(`A ${url.protocol} URL has a parameter that is not known. ${advice} Secrets never stand in a URL.`)
    }
    if (Object.hasOwn(found, name)) throw invalid(`A ${url.protocol} URL has ${name} twice. Leave one of them out.`)
    // As of a variable of a script that is not set.
    if (value === '') throw invalid(`A ${url.protocol} URL has ${name} without a value. Give it one, or leave it out.`)
    found[name] = value
  }
  return found
}

function invalid(message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter: 'none', operation: 'openStorage' })
}
