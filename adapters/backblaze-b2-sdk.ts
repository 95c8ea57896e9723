/**
 * The parts of the package `backblaze-b2` that are used, typed here as it brings no types.
 * Fields are those of https://www.backblaze.com/apidocs (version 2, which the package speaks).
 */

/** What `axiosOverride` is merged into a call's axios config. */
export interface AxiosOverride {
  /** Takes the request in place of axios's own transport. */
  adapter: (config: SentConfig) => Promise<AxiosAnswer>
  /** For axios-retry. */
  'axios-retry': { retries: number }
  transformResponse: (data: unknown) => unknown
  url?: string
  headers?: Record<string, string>
  data?: Record<string, unknown>
}

/** A request as axios hands it to its adapter. */
export interface SentConfig {
  url: string
  method?: string
  headers: { toJSON(): Record<string, unknown> }
  /** A Buffer as it was given, JSON as text. */
  data?: unknown
  /** `stream` where the package was told so. */
  responseType?: string | null
}

export interface AxiosAnswer {
  data: unknown
  status: number
  statusText: string
  headers: Record<string, string>
  config: SentConfig
}

interface Override {
  axiosOverride: AxiosOverride
}

/** What came back: `data` is the JSON that B2 answered, or the stream of a download. */
export interface Reply<T> {
  data: T
  headers: Record<string, string>
}

/** What a key may do. */
export interface Allowed {
  capabilities: string[]
  /** The one bucket of a restricted key, else null. */
  bucketId: string | null
  /** Null also where that bucket was deleted. */
  bucketName: string | null
  namePrefix: string | null
}

export interface Authorization {
  accountId: string
  authorizationToken: string
  apiUrl: string
  downloadUrl: string
  allowed?: Allowed
}

export interface Bucket {
  bucketId: string
  bucketName: string
}

/** Where one request at a time may send bytes, for 24 hours or until something goes wrong there. */
export interface UploadUrl {
  uploadUrl: string
  authorizationToken: string
}

/** A version of a file; of an unfinished large file, its action is `start` or absent. */
export interface FileVersion {
  fileId: string
  fileName: string
  action?: 'upload' | 'hide' | 'start' | 'folder'
  contentLength?: number
  /** Hex; `none` or null of a large file; `unverified:` before it where the uploader gave none. */
  contentSha1?: string | null
  fileInfo?: Record<string, string>
  /** Milliseconds since 1970; of a large file, of its start. */
  uploadTimestamp: number
}

export interface UploadedPart {
  partNumber: number
  contentLength: number
  contentSha1: string
}

export interface UploadedParts {
  parts: UploadedPart[]
  nextPartNumber: number | null
}

export interface FileNames {
  files: FileVersion[]
  nextFileName: string | null
}

export interface FileVersions extends FileNames {
  nextFileId: string | null
}

export interface UnfinishedFiles {
  files: FileVersion[]
  nextFileId: string | null
}

/** An instance of the package's class. It holds the account's token, which every call sends. */
export interface B2Sdk {
  authorizationToken: string | null
  apiUrl: string | null
  authorize(args: Override): Promise<Reply<Authorization>>
  getBucket(args: Override & { bucketName: string }): Promise<Reply<{ buckets: Bucket[] }>>
  getUploadUrl(args: Override & { bucketId: string }): Promise<Reply<UploadUrl>>
  uploadFile(
    args: Override & {
      uploadUrl: string
      uploadAuthToken: string
      fileName: string
      data: Buffer
      hash: string
      info: Record<string, string>
      mime: string
    },
  ): Promise<Reply<FileVersion>>
  startLargeFile(
    args: Override & { bucketId: string; fileName: string; contentType: string },
  ): Promise<Reply<FileVersion>>
  getUploadPartUrl(args: Override & { fileId: string }): Promise<Reply<UploadUrl>>
  uploadPart(
    args: Override & {
      uploadUrl: string
      uploadAuthToken: string
      partNumber: number
      data: Buffer
      hash: string
    },
  ): Promise<Reply<UploadedPart>>
  listParts(
    args: Override & { fileId: string; startPartNumber: number; maxPartCount: number },
  ): Promise<Reply<UploadedParts>>
  finishLargeFile(args: Override & { fileId: string; partSha1Array: string[] }): Promise<Reply<FileVersion>>
  cancelLargeFile(args: Override & { fileId: string }): Promise<Reply<unknown>>
  listFileNames(
    args: Override & { bucketId: string; startFileName: string; maxFileCount: number; prefix: string },
  ): Promise<Reply<FileNames>>
  listFileVersions(
    args: Override & { bucketId: string; startFileName: string; startFileId?: string; maxFileCount: number },
  ): Promise<Reply<FileVersions>>
  getFileInfo(args: Override & { fileId: string }): Promise<Reply<FileVersion>>
  deleteFileVersion(args: Override & { fileName: string; fileId: string }): Promise<Reply<unknown>>
  downloadFileByName(
    args: Override & { bucketName: string; fileName: string; responseType: 'stream' },
  ): Promise<Reply<import('node:stream').Readable>>
  downloadFileById(
    args: Override & { fileId: string; responseType: 'stream' },
  ): Promise<Reply<import('node:stream').Readable>>
}

export type B2Class = new (options: {
  applicationKeyId: string
  applicationKey: string
  retry: { retries: number }
}) => B2Sdk

/** Loads the package. */
export async function loadSdk(): Promise<B2Class> {
  // @ts-expect-error: it brings no types.
  const { default: B2 } = await import('backblaze-b2')
  return B2 as B2Class
}
