import type { drive_v3 } from 'googleapis/build/src/apis/drive/v3.js'
import type { DriveCall, DriveConnection } from './google-drive-client.ts'
import { driveError, reasonOf } from './google-drive-errors.ts'

export const FOLDER_TYPE = 'application/vnd.google-apps.folder'
/** Documents, shortcuts and the like: they have no bytes. */
const BYTELESS_TYPE = /^application\/vnd\.google-apps\./
/** https://developers.google.com/workspace/drive/api/reference/rest/v3/files; without a mask four fields come. */
export const FILE_FIELDS =
  'id,name,mimeType,parents,trashed,size,createdTime,modifiedTime,headRevisionId,md5Checksum,sha256Checksum'
const PAGE_FILES = 1000

/** What Drive says of one file or folder. */
export interface DriveFile {
  id: string
  name: string
  isFolder: boolean
  /** Whether it has bytes: folders, documents and shortcuts have none. */
  hasBytes: boolean
  trashed: boolean
  /** Bytes; 0 where it has none. */
  size: number
  /** Milliseconds since 1970, of Drive's clock. */
  created: number
  modified: Date
  /** The file and its revision: other bytes, whoever put them there, have another one. */
  version: string
  md5: string | undefined
  sha256: string | undefined
}

/** Newest first. What is of one moment is told apart by its id, so that everybody finds the same one. */
export function byAge(a: DriveFile, b: DriveFile): number {
  return b.created - a.created || (a.id < b.id ? 1 : -1)
}

/** A version's parts; undefined for what is none of ours. */
export function parseVersion(version: string): { id: string; size: number } | undefined {
  const match = /^([\w-]+)\.[^.]*\.(\d+)$/.exec(version)
  return match ? { id: match[1] as string, size: Number(match[2]) } : undefined
}

/** @throws StorageError CORRUPT for an answer without what was asked for. */
export function fileOf(raw: drive_v3.Schema$File, connection: DriveConnection): DriveFile {
  const { id, name, mimeType, createdTime, modifiedTime, headRevisionId, md5Checksum, sha256Checksum } = raw
  const hasBytes = !BYTELESS_TYPE.test(mimeType ?? '') && raw.size != null
  if (!id || typeof name !== 'string' || !mimeType || !createdTime) {
    throw driveError('CORRUPT', 'list', 'Google Drive: it named a file without its id, name, type or time.')
  }
  if (sha256Checksum) connection.showsSha256 = true
  const size = Number(raw.size ?? 0)
  return {
    id,
    name,
    isFolder: mimeType === FOLDER_TYPE,
    hasBytes,
    trashed: raw.trashed === true,
    size,
    created: Date.parse(createdTime),
    modified: new Date(modifiedTime ?? createdTime),
    version: `${id}.${headRevisionId ?? md5Checksum ?? ''}.${size}`,
    md5: md5Checksum ?? undefined,
    sha256: sha256Checksum ?? undefined,
  }
}

/** A text as it stands in a query. */
export function quoteQuery(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`
}

/** `'a' in parents`, or any of several. */
export function inParents(ids: readonly string[]): string {
  const terms = ids.map((id) => `${quoteQuery(id)} in parents`)
  return terms.length === 1 ? (terms[0] as string) : `(${terms.join(' or ')})`
}

/**
 * Every file and folder that a query finds and that is not in the trash, page by page.
 * @throws StorageError NOT_FOUND when a folder in the query is not there, or not to be seen.
 */
export async function* search(
  connection: DriveConnection,
  query: string,
  operation: string,
  call: DriveCall,
): AsyncGenerator<DriveFile> {
  const { sharedDriveId, pageSize = PAGE_FILES } = connection.config
  const drive = sharedDriveId
    ? { corpora: 'drive', driveId: sharedDriveId, includeItemsFromAllDrives: true, ...connection.anyDrive }
    : {}
  const fields = `nextPageToken,incompleteSearch,files(${FILE_FIELDS})`
  const asked = { q: `${query} and trashed = false`, spaces: connection.space, pageSize, fields, ...drive }
  let pageToken: string | undefined
  do {
    const params = pageToken === undefined ? asked : { ...asked, pageToken }
    const page = await connection.ask<drive_v3.Schema$FileList>(
      operation,
      (sdk, options) => sdk.files.list(params, options),
      call,
    )
    if (!page.files || page.incompleteSearch) {
      throw driveError('UNAVAILABLE', operation, 'Google Drive: it did not search everything. Try again later.')
    }
    for (const file of page.files) yield fileOf(file, connection)
    const next = page.nextPageToken ?? undefined
    if (next !== undefined && next === pageToken) {
      throw driveError('CORRUPT', operation, 'Google Drive: the listing says there is more, and not where.')
    }
    pageToken = next
  } while (pageToken !== undefined)
}

/** Asks for a file by its id, which no listing's delay touches. @returns undefined when it is gone or trashed. */
export async function getFile(
  connection: DriveConnection,
  fileId: string,
  operation: string,
  call: DriveCall,
): Promise<DriveFile | undefined> {
  try {
    const params = { fileId, fields: FILE_FIELDS, ...connection.anyDrive }
    const raw = await connection.ask<drive_v3.Schema$File>(
      operation,
      (sdk, options) => sdk.files.get(params, options),
      call,
    )
    const file = fileOf(raw, connection)
    return file.trashed ? undefined : file
  } catch (error) {
    if (reasonOf(error) === 'notFound') return undefined
    throw error
  }
}

/**
 * Removes a file for good; one that is gone already is success. In a shared drive only managers may:
 * there the trash has to do, which Drive empties after 30 days.
 */
export async function removeFile(
  connection: DriveConnection,
  fileId: string,
  operation: string,
  call: DriveCall,
): Promise<void> {
  const params = { fileId, ...connection.anyDrive }
  try {
    await connection.ask<object>(operation, (sdk, options) => sdk.files.delete(params, options), call)
  } catch (error) {
    const reason = reasonOf(error)
    if (reason === 'notFound') return
    if (reason !== 'insufficientFilePermissions' || !connection.config.sharedDriveId) throw error
    const trashing = { ...params, requestBody: { trashed: true }, fields: 'id' }
    await connection.ask<object>(operation, (sdk, options) => sdk.files.update(trashing, options), call)
  }
}
