import type { B2CallOptions, B2Connection, Run } from './backblaze-b2-client.ts'
import { ADAPTER } from './backblaze-b2-errors.ts'
import type { FileVersion, UnfinishedFiles, UploadedPart } from './backblaze-b2-sdk.ts'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'

/** Versions in one page of one name's; more than one is rare, and other names fill the rest. */
const VERSIONS_PAGE = 10
/** https://www.backblaze.com/apidocs/b2-list-unfinished-large-files */
const UNFINISHED_PAGE_MAX = 100
/** The most that one request gives: https://www.backblaze.com/apidocs/b2-list-parts. */
const PARTS_PAGE = 1000

/** What a listing said that cannot be. */
export function listFault(bucket: string, what: string): StorageError {
  const message = `B2: the listing of the bucket "${bucket}" ${what}.`
  return new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'list' })
}

/**
 * What an answer lists.
 * @throws StorageError UNAVAILABLE for one without a list, which B2 does not give: from something in between.
 */
export function listedIn<T>(list: readonly T[] | undefined, operation: string): readonly T[] {
  if (Array.isArray(list)) return list
  const message = `B2: the answer to the request for ${operation} makes no sense: it lists nothing. Try again later.`
  throw new StorageError(message, { code: 'UNAVAILABLE', adapter: ADAPTER, operation })
}

/**
 * Asks for the file that readers see under a name.
 * @returns undefined where there is none, or its newest version is a hide marker.
 */
export async function liveFile(run: Run, fullName: string, options: B2CallOptions): Promise<FileVersion | undefined> {
  const names = { startFileName: fullName, prefix: fullName, maxFileCount: 1 }
  const { data } = await run(
    'stat',
    ({ b2, bucketId, override }) => b2.listFileNames({ ...names, bucketId, axiosOverride: override() }),
    options,
  )
  return listedIn(data?.files, 'stat').find(({ fileName }) => fileName === fullName)
}

/**
 * Lists what there is of one name, newest first: files and hide markers, and no unfinished uploads.
 * Its first one is what readers see, unless that is a hide marker.
 */
export async function versionsOf(run: Run, fullName: string, options: B2CallOptions): Promise<FileVersion[]> {
  const versions: FileVersion[] = []
  let from: string | undefined
  for (;;) {
    const at = from === undefined ? {} : { startFileId: from }
    const { data } = await run(
      'versions',
      ({ b2, bucketId, override }) =>
        b2.listFileVersions({
          ...at,
          bucketId,
          startFileName: fullName,
          maxFileCount: VERSIONS_PAGE,
          // The package takes no prefix, and a key that is restricted to one has to send it.
          axiosOverride: override({ data: { prefix: fullName } }),
        }),
      options,
    )
    const files = listedIn(data?.files, 'versions')
    const own = files.filter(({ fileName }) => fileName === fullName)
    versions.push(...own.filter(({ action }) => action === 'upload' || action === 'hide'))
    if (own.length < files.length || data.nextFileName !== fullName || data.nextFileId === null) return versions
    if (data.nextFileId === from)
      throw new StorageError(`B2: the listing of the versions of ${quoteKey(fullName)} does not end.`, {
        code: 'CORRUPT',
        adapter: ADAPTER,
        operation: 'versions',
      })
    from = data.nextFileId
  }
}

/** Deletes one version; one that is gone already is success. */
export async function deleteVersion(run: Run, version: FileVersion, options: B2CallOptions): Promise<void> {
  const { fileName, fileId } = version
  try {
    await run(
      'delete',
      ({ b2, override }) => b2.deleteFileVersion({ fileName, fileId, axiosOverride: override() }),
      options,
    )
  } catch (error) {
    if (!(error instanceof StorageError && error.code === 'NOT_FOUND')) throw error
  }
}

/** Large files under a prefix of names that were begun and neither finished nor cancelled, oldest first. */
export async function* unfinishedFiles(
  connection: B2Connection,
  run: Run,
  namePrefix: string,
  options: B2CallOptions,
): AsyncGenerator<FileVersion> {
  const maxFileCount = Math.min(connection.config.pageSize ?? UNFINISHED_PAGE_MAX, UNFINISHED_PAGE_MAX)
  let startFileId: string | undefined
  do {
    const at = startFileId === undefined ? {} : { startFileId }
    // The package has the method, which rejects with a string: "Feature not yet implemented".
    const page: UnfinishedFiles = await run(
      'unfinished',
      ({ post, bucketId }) => post('b2_list_unfinished_large_files', { ...at, bucketId, namePrefix, maxFileCount }),
      options,
    )
    yield* listedIn(page?.files, 'unfinished')
    if (page.nextFileId === startFileId) throw listFault(connection.config.bucket, 'of unfinished uploads does not end')
    startFileId = page.nextFileId ?? undefined
  } while (startFileId !== undefined)
}

/** The parts that B2 has of a large file. NOT_FOUND when it is not open: cancelled, finished, or never there. */
export async function* partsOf(run: Run, fileId: string, options: B2CallOptions): AsyncGenerator<UploadedPart> {
  let startPartNumber: number | null = 1
  while (startPartNumber !== null) {
    const from: number = startPartNumber
    const { data } = await run(
      'takeUp',
      ({ b2, override }) =>
        b2.listParts({ fileId, startPartNumber: from, maxPartCount: PARTS_PAGE, axiosOverride: override() }),
      options,
    )
    yield* listedIn(data?.parts, 'parts')
    if (data.nextPartNumber !== null && !(data.nextPartNumber > from)) {
      const message = 'B2 gave a listing of parts that does not go on.'
      throw new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'takeUp' })
    }
    startPartNumber = data.nextPartNumber
  }
}

/**
 * Cancels the upload of a large file, and with it its parts.
 * @returns whether it was there to be cancelled: if not, it may have been finished.
 */
export async function cancelUpload(run: Run, fileId: string, options: B2CallOptions): Promise<boolean> {
  try {
    await run('abort', ({ b2, override }) => b2.cancelLargeFile({ fileId, axiosOverride: override() }), options)
    return true
  } catch (error) {
    // 400 with one text or another, https://www.backblaze.com/apidocs/b2-cancel-large-file: "an error if there is no
    // active upload with the given file ID".
    if (error instanceof StorageError && (error.code === 'NOT_FOUND' || error.code === 'INVALID')) return false
    throw error
  }
}
