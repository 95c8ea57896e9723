import { createHash, randomUUID } from 'node:crypto'
import { type B2Connection, UploadUrls } from './backblaze-b2-client.ts'
import { ADAPTER, isUploadGone } from './backblaze-b2-errors.ts'
import { cancelUpload, deleteVersion, partsOf, unfinishedFiles, versionsOf } from './backblaze-b2-files.ts'
import type { FileVersion, UploadedPart } from './backblaze-b2-sdk.ts'
import { StorageError, type StorageErrorCode } from './errors.ts'
import { quoteKey } from './keys.ts'
import type {
  FoundObject,
  MultipartPrimitives,
  MultipartRules,
  PartBody,
  PrimitiveRequest,
  TakenUp,
} from './multipart.ts'
import { nameIn, parseName, type UploadName } from './multipart-taking-up.ts'
import { isAbort, throwIfAborted } from './retry.ts'
import type { WriteOptions } from './storage.ts'

/** https://www.backblaze.com/docs/cloud-storage-large-files, where a megabyte has 10^6 bytes. */
const MIN_PART_BYTES = 5_000_000
const MAX_PART_BYTES = 5_000_000_000
const MAX_FILE_BYTES = 10_000_000_000_000

/** @param minPartBytes of a test's server; B2's where absent. */
export function b2Rules(minPartBytes = MIN_PART_BYTES): MultipartRules {
  return {
    minPartBytes,
    maxPartBytes: MAX_PART_BYTES,
    alignBytes: 1,
    maxParts: 10_000,
    maxObjectBytes: MAX_FILE_BYTES,
    concurrency: 8,
  }
}

/**
 * Names the write in the file's info. It tells our file from one with the same bytes, so that what came of a request
 * whose answer was lost can be found out, and an abort never removes what was there before.
 */
const WRITE_ID = 'millrace-write'
const CONTENT_TYPE = 'application/octet-stream'

/** A large file that parts are sent to. */
interface LargeFile {
  fileId: string
  /** One URL a part in flight: each is good for this file only. */
  urls: UploadUrls
  /** Parts that B2 has acknowledged. */
  accepted: number
  /** Set once a file was lost before B2 had any part of it, and another is or was begun in its place. */
  begunAnew: { lostId: string; done: Promise<void> } | undefined
}

/** What names a large file for another process: with the id of the write that the file's info has. */
const FILE_NAME = ['id', 'write'] as const

/** @returns the id of the large file that a stream's record is of; undefined when it is no such record. */
export function fileIdOf(record: string): string | undefined {
  return nameIn(record, FILE_NAME)?.id
}

/** B2 has made the SHA-1 of each part itself. */
function receiptOf({ body }: PartBody, held: UploadedPart | undefined): string | undefined {
  if (held?.contentLength !== body.length) return undefined
  const hash = createHash('sha1').update(body).digest('hex')
  return hash === held.contentSha1 ? hash : undefined
}

/** One write to one key of a bucket. */
export class B2Write implements MultipartPrimitives<LargeFile, string> {
  readonly rules: MultipartRules
  readonly #connection: B2Connection
  readonly #key: string
  readonly #onNotice: WriteOptions['onNotice']
  readonly #fullName: string
  /** Of the write whose large file was taken up, where one was. */
  #id: string = randomUUID()
  /** Of a file that was sent whole; B2 has none of a large one. */
  #sha1: string | undefined
  /** What there was under the name when `find` was asked last. */
  #versions: FileVersion[] = []
  /** A request that may have made a file or begun one was not answered. */
  #doubtfulWhole = false
  #doubtfulStart = false
  /** What was taken up is the file by now. */
  #isCommitted = false

  constructor(connection: B2Connection, key: string, onNotice?: WriteOptions['onNotice']) {
    this.rules = b2Rules(connection.config.minPartBytes)
    this.#connection = connection
    this.#key = key
    this.#onNotice = onNotice
    this.#fullName = connection.fullKey(key, 'createWriteStream')
  }

  async putWhole(body: Buffer, { signal }: PrimitiveRequest): Promise<void> {
    const hash = createHash('sha1').update(body).digest('hex')
    this.#sha1 = hash
    // Another upload would be another version of the file.
    if (this.#doubtfulWhole && (await this.find({ signal }))?.ours) return
    try {
      await this.#connection.uploadWhole(
        (url, axiosOverride, b2) =>
          b2.uploadFile({
            uploadUrl: url.uploadUrl,
            uploadAuthToken: url.authorizationToken,
            fileName: this.#fullName,
            data: body,
            hash,
            info: { [WRITE_ID]: this.#id },
            mime: CONTENT_TYPE,
            axiosOverride,
          }),
        this.#options(signal),
      )
    } catch (error) {
      this.#doubtfulWhole ||= isDoubtful(error)
      throw error
    }
  }

  async begin({ signal }: PrimitiveRequest): Promise<LargeFile> {
    return { fileId: await this.#start(signal), urls: new UploadUrls(), accepted: 0, begunAnew: undefined }
  }

  nameOf({ fileId }: LargeFile): string {
    return JSON.stringify({ id: fileId, write: this.#id } satisfies UploadName<typeof FILE_NAME>)
  }

  checksumOf(hash: string): string {
    return hash
  }

  async takeUp(
    name: string,
    { signal }: PrimitiveRequest,
    sureBytes: number,
  ): Promise<TakenUp<LargeFile, string> | undefined> {
    const named = parseName(name, FILE_NAME)
    if (!named) return undefined
    const { id: fileId, write } = named
    const held = new Map<number, UploadedPart>()
    try {
      const parts = partsOf(this.#connection.once, fileId, this.#options(signal))
      for await (const part of parts) held.set(part.partNumber, part)
    } catch (error) {
      // Of an id that is none, and of a file that is not open: there are several texts for it.
      if (!(error instanceof StorageError && (error.code === 'NOT_FOUND' || error.code === 'INVALID'))) throw error
      // The run that had it may have died when it had asked for the commit.
      const finished = await this.#finished(fileId, signal)
      if (!finished || (finished.contentLength ?? Number.POSITIVE_INFINITY) > sureBytes) return undefined
      this.#isCommitted = true
    }
    this.#id = write
    const upload = { fileId, urls: new UploadUrls(), accepted: held.size, begunAnew: undefined }
    if (this.#isCommitted) return { upload, receiptOf: ({ body }) => createHash('sha1').update(body).digest('hex') }
    return { upload, receiptOf: (part) => receiptOf(part, held.get(part.number)) }
  }

  async putPart(file: LargeFile, part: PartBody, { signal }: PrimitiveRequest): Promise<string> {
    const hash = createHash('sha1').update(part.body).digest('hex')
    for (;;) {
      const { fileId } = file
      try {
        await this.#sendPart(file, part, hash, signal)
        file.accepted++
        return hash
      } catch (error) {
        if (!isUploadGone(error)) throw error
        await this.#beginAnew(file, fileId, signal)
      }
    }
  }

  async commit(file: LargeFile, hashes: string[], { signal }: PrimitiveRequest): Promise<void> {
    if (this.#isCommitted) return
    const { fileId } = file
    try {
      await this.#connection.once(
        'commit',
        ({ b2, override }) => b2.finishLargeFile({ fileId, partSha1Array: hashes, axiosOverride: override() }),
        this.#options(signal),
      )
    } catch (error) {
      if (!isDoubtful(error) && !isUploadGone(error)) throw error
      // https://www.backblaze.com/apidocs/b2-finish-large-file: an answer may have been lost, and finishing again is
      // refused, so ask.
      if (!(await this.#finished(fileId, signal))) throw isUploadGone(error) ? this.#lost(file) : error
    }
  }

  async abort(file: LargeFile, { signal }: PrimitiveRequest): Promise<void> {
    await file.begunAnew?.done.catch(() => {})
    const wasOpen = await cancelUpload(this.#connection.once, file.fileId, this.#options(signal))
    // It was finished after all, and `find` did not call it ours: another file has come above it.
    if (!wasOpen) {
      await this.find({ signal })
      await this.remove({ signal })
    }
    await this.#cancelStrays(signal)
  }

  async find({ signal }: PrimitiveRequest): Promise<FoundObject | undefined> {
    this.#versions = await versionsOf(this.#connection.once, this.#fullName, this.#options(signal))
    const [live] = this.#versions
    if (live?.action !== 'upload') return undefined
    return { size: live.contentLength ?? 0, ours: this.#isOurs(live), damage: this.#damage(live) }
  }

  async remove({ signal }: PrimitiveRequest): Promise<void> {
    const options = this.#options(signal)
    // From the oldest: what readers see stays until it is the last one of ours.
    for (const version of [...this.#versions].reverse()) {
      if (this.#isOurs(version)) await deleteVersion(this.#connection.once, version, options)
    }
  }

  /** Leaves our file as the only version of its name. */
  async secure({ signal }: PrimitiveRequest): Promise<void> {
    const options = this.#options(signal)
    try {
      for (const version of this.#versions.slice(1).reverse()) {
        await deleteVersion(this.#connection.call, version, options)
      }
      await this.#cancelStrays(signal)
    } catch (error) {
      throwIfAborted(signal)
      // The file is stored, and readers see it alone. A key that may not delete, a lock on the old version and a
      // store that does not answer any more are no reason to take it back: the next write or delete sweeps again.
      if (!(error instanceof StorageError)) throw error
    }
  }

  async #start(signal: AbortSignal): Promise<string> {
    if (this.#doubtfulStart) {
      const begun = await this.#findBegun(signal)
      if (begun !== undefined) return begun
    }
    try {
      const { data } = await this.#connection.once(
        'begin',
        ({ b2, bucketId, override }) =>
          b2.startLargeFile({
            bucketId,
            fileName: this.#fullName,
            contentType: CONTENT_TYPE,
            // The package leaves out the info that it is given.
            axiosOverride: override({ data: { fileInfo: { [WRITE_ID]: this.#id } } }),
          }),
        this.#options(signal),
      )
      if (data.fileId) return data.fileId
      throw this.#error('CORRUPT', 'begin', 'got no id for its upload')
    } catch (error) {
      if (!isDoubtful(error)) throw error
      this.#doubtfulStart = true
      throwIfAborted(signal)
      const begun = await this.#findBegun(signal).catch(() => undefined)
      if (begun !== undefined) return begun
      throw error
    }
  }

  /** The large file of this write that B2 has, although its answer was lost. */
  async #findBegun(signal: AbortSignal): Promise<string | undefined> {
    for await (const { fileId } of this.#ourUnfinished(signal)) return fileId
    return undefined
  }

  async *#ourUnfinished(signal: AbortSignal): AsyncGenerator<FileVersion> {
    const options = this.#options(signal)
    const files = unfinishedFiles(this.#connection, this.#connection.once, this.#fullName, options)
    for await (const file of files) if (file.fileName === this.#fullName && this.#isOurs(file)) yield file
  }

  /** Cancels what requests begun that were not answered. Whatever is still open is not the one in use. */
  async #cancelStrays(signal: AbortSignal): Promise<void> {
    if (!this.#doubtfulStart) return
    for await (const { fileId } of this.#ourUnfinished(signal)) {
      await cancelUpload(this.#connection.once, fileId, this.#options(signal))
    }
  }

  async #sendPart(file: LargeFile, { number, body }: PartBody, hash: string, signal: AbortSignal): Promise<void> {
    const { fileId, urls } = file
    const { data } = await this.#connection.upload(
      urls,
      'putPart',
      async ({ b2, override }) => (await b2.getUploadPartUrl({ fileId, axiosOverride: override() })).data,
      (url, axiosOverride, b2) =>
        b2.uploadPart({
          uploadUrl: url.uploadUrl,
          uploadAuthToken: url.authorizationToken,
          partNumber: number,
          data: body,
          hash,
          axiosOverride,
        }),
      this.#options(signal),
    )
    if (data.contentLength === body.length && data.contentSha1 === hash) return
    throw this.#error('CORRUPT', 'putPart', `had part ${number} damaged on its way: B2 has other bytes`, true)
  }

  /**
   * The large file is gone, cancelled by a lifecycle rule or another program. While B2 has no part of it nothing is
   * lost: every part that was sent is in its buffer yet.
   */
  async #beginAnew(file: LargeFile, lostId: string, signal: AbortSignal): Promise<void> {
    if (lostId !== file.fileId) return
    if (file.accepted > 0 || (file.begunAnew && file.begunAnew.lostId !== lostId)) throw this.#lost(file)
    file.begunAnew ??= { lostId, done: this.#replace(file, signal) }
    await file.begunAnew.done
  }

  async #replace(file: LargeFile, signal: AbortSignal): Promise<void> {
    try {
      file.fileId = await this.#start(signal)
      file.urls = new UploadUrls()
      this.#onNotice?.(`Backblaze B2 lost the unfinished large file of ${quoteKey(this.#key)}; another was begun.`)
    } catch (error) {
      file.begunAnew = undefined
      throw error
    }
  }

  #lost({ accepted }: LargeFile): StorageError {
    const what = `has lost its upload at the store after ${accepted} parts (was it cancelled there, or by a lifecycle rule?)`
    return this.#error('UNAVAILABLE', 'putPart', `${what}; begin the upload anew`, false)
  }

  /** @returns the file that a large one has become; undefined while it has not. */
  async #finished(fileId: string, signal: AbortSignal): Promise<FileVersion | undefined> {
    throwIfAborted(signal)
    try {
      const { data } = await this.#connection.once(
        'info',
        ({ b2, override }) => b2.getFileInfo({ fileId, axiosOverride: override() }),
        this.#options(signal),
      )
      return data.action === 'upload' ? data : undefined
    } catch (error) {
      if (isAbort(error)) throw error
      // Not there, or not for this key to see: the listing of `find` tells as well.
      return undefined
    }
  }

  #isOurs({ fileInfo }: FileVersion): boolean {
    return fileInfo?.[WRITE_ID] === this.#id
  }

  #damage({ contentSha1 }: FileVersion): string | undefined {
    if (this.#sha1 === undefined || contentSha1 === this.#sha1) return undefined
    return `has the SHA-1 ${contentSha1} at the store, and its bytes give ${this.#sha1}`
  }

  #options(signal: AbortSignal): { signal: AbortSignal; key: string } {
    return { signal, key: this.#key }
  }

  #error(code: StorageErrorCode, operation: string, what: string, retryable = false): StorageError {
    const message = `The object ${quoteKey(this.#key)} ${what}.`
    return new StorageError(message, { code, adapter: ADAPTER, operation, key: this.#key, retryable })
  }
}

/** Whether a request that failed so may have been done. */
function isDoubtful(error: unknown): boolean {
  return isAbort(error) || (error instanceof StorageError && error.code === 'UNAVAILABLE')
}
