import type { drive_v3 } from 'googleapis/build/src/apis/drive/v3.js'
import type { DriveCall, DriveConnection } from './google-drive-client.ts'
import { driveError, reasonOf } from './google-drive-errors.ts'
import { FOLDER_TYPE } from './google-drive-files.ts'

/**
 * Looks at the folder that a store was given by its id, for `probe`.
 * @throws StorageError that says, in words for people, why it will not do.
 */
export async function checkRoot(connection: DriveConnection, call: DriveCall): Promise<void> {
  const { folderId, sharedDriveId } = connection.config
  if (folderId === undefined) return
  const params = { fileId: folderId, fields: 'mimeType,trashed,driveId', ...connection.anyDrive }
  const folder = await connection
    .ask<drive_v3.Schema$File>('folder', (sdk, options) => sdk.files.get(params, options), call)
    .catch((error) => {
      if (reasonOf(error) !== 'notFound') throw error
      throw fault('NOT_FOUND', `${folderId} is not there, or this app does not see it. ${ONLY_ITS_OWN}`)
    })
  if (folder.mimeType !== FOLDER_TYPE)
    throw fault('INVALID', `${folderId} is a file, and no folder. Pass a folder's id.`)
  if (folder.trashed) throw fault('NOT_FOUND', `${folderId} is in the trash. Restore it, or pass another folder's id.`)
  if ((folder.driveId ?? undefined) !== sharedDriveId) {
    const where = folder.driveId ? `the shared drive ${folder.driveId}` : 'no shared drive'
    throw fault('INVALID', `${folderId} is in ${where}. Pass sharedDriveId to match.`)
  }
}

const ONLY_ITS_OWN =
  'Signed in with the scope drive.file, an app sees only what it made itself, and none of the folders that you made ' +
  'in the browser: pass folder, a path, and the app makes it; or sign in with the scope drive.'

function fault(code: 'NOT_FOUND' | 'INVALID', what: string): Error {
  return driveError(code, 'folder', `Google Drive: the folder ${what}`)
}
