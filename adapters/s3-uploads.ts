import type { MultipartUpload, Part } from '@aws-sdk/client-s3'
import { StorageError } from './errors.ts'
import { CALL_RETRY, retry } from './retry.ts'
import type { S3Connection } from './s3-client.ts'
import { s3CodeOf } from './s3-errors.ts'

/** An abort is repeated while the store still lists parts: one that arrived meanwhile would be billed for ever. */
const ABORT_ATTEMPTS = 3
/** Times of S3 are whole seconds. */
const CLOCK_STEP_MS = 2000

/**
 * Cancels an upload and makes sure that its parts are gone, as AWS advises where parts were in flight:
 * https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
 */
export async function abortUpload(
  connection: S3Connection,
  fullKey: string,
  uploadId: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { sdk, config } = connection
  const target = { Bucket: config.bucket, Key: fullKey, UploadId: uploadId }
  for (let attempt = 1; attempt <= ABORT_ATTEMPTS; attempt++) {
    try {
      await connection.once(
        'abort',
        (client, options) => client.send(new sdk.AbortMultipartUploadCommand(target), options),
        { signal },
      )
      const parts = await connection.once(
        'abort',
        (client, options) => client.send(new sdk.ListPartsCommand({ ...target, MaxParts: 1 }), options),
        { signal },
      )
      if (!parts.Parts?.length) return
    } catch (error) {
      // NoSuchUpload; Ceph calls it NoSuchKey in ListParts.
      const isGone = error instanceof StorageError && error.code === 'NOT_FOUND'
      if (isGone && s3CodeOf(error) !== 'NoSuchBucket') return
      throw error
    }
  }
}

/**
 * Lists the uploads that were begun and neither completed nor aborted, beneath a full key or prefix.
 * @param ask makes one request of the listing.
 */
export async function* pendingUploads(
  connection: S3Connection,
  prefix: string,
  ask: <T>(send: Parameters<typeof connection.once<T>>[1]) => Promise<T>,
): AsyncGenerator<MultipartUpload> {
  const { sdk, config } = connection
  const { bucket: Bucket, pageSize } = config
  let marker: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {}
  while (marker) {
    const input = {
      Bucket,
      Prefix: prefix,
      ...(marker as { KeyMarker?: string; UploadIdMarker?: string }),
      ...(pageSize === undefined ? {} : { MaxUploads: pageSize }),
    }
    const page: import('@aws-sdk/client-s3').ListMultipartUploadsCommandOutput = await ask((client, options) =>
      client.send(new sdk.ListMultipartUploadsCommand(input), options),
    )
    yield* page.Uploads ?? []
    if (page.IsTruncated && !page.NextKeyMarker) throw connection.listFault('says there is more, and not where')
    marker = page.IsTruncated ? { KeyMarker: page.NextKeyMarker!, UploadIdMarker: page.NextUploadIdMarker! } : undefined
  }
}

/**
 * Lists the parts that the store holds of an upload.
 * @param ask makes one request of the listing; NOT_FOUND when there is no such upload.
 */
export async function* listParts(
  connection: S3Connection,
  fullKey: string,
  UploadId: string,
  ask: <T>(send: Parameters<typeof connection.once<T>>[1]) => Promise<T>,
): AsyncGenerator<Part> {
  const { sdk, config } = connection
  const target = { Bucket: config.bucket, Key: fullKey, UploadId }
  let marker: string | undefined
  do {
    const input = {
      ...target,
      ...(marker === undefined ? {} : { PartNumberMarker: marker }),
      ...(config.pageSize === undefined ? {} : { MaxParts: config.pageSize }),
    }
    const page: import('@aws-sdk/client-s3').ListPartsCommandOutput = await ask((client, options) =>
      client.send(new sdk.ListPartsCommand(input), options),
    )
    yield* page.Parts ?? []
    const next = page.IsTruncated ? page.NextPartNumberMarker : undefined
    if (page.IsTruncated && (!next || next === marker)) throw connection.listFault('says there is more, and not where')
    marker = next
  } while (marker !== undefined)
}

/**
 * The uploads of one write that the store may have begun without our being told their ids. A listing of uploads does not
 * say whose they are, so what is cancelled is of this very key, has no part, and was begun since our first lost request.
 * Another writer of the same key in the same seconds could be hit: it then fails, and makes no wrong object.
 */
export class LostUploads {
  readonly #connection: S3Connection
  readonly #fullKey: string
  readonly #sinceMs: number

  /** @param sinceMs by `performance.now()`, when the first of them was asked for. */
  constructor(connection: S3Connection, fullKey: string, sinceMs: number) {
    this.#connection = connection
    this.#fullKey = fullKey
    this.#sinceMs = sinceMs
  }

  /**
   * Cancels them, as well as it goes: a key that may not list uploads can do no more.
   * @param known uploads whose ids we were told.
   * @throws StorageError when the store could not be asked, AbortError.
   */
  async sweep(known: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const { callRetry = CALL_RETRY } = this.#connection.config
    try {
      await retry(() => this.#sweep(known, signal), callRetry, { signal })
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== 'ACCESS_DENIED') throw error
    }
  }

  async #sweep(known: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const found: string[] = []
    const uploads = pendingUploads(this.#connection, this.#fullKey, (send) =>
      this.#connection.once('abort', send, { signal }),
    )
    for await (const { Key, UploadId, Initiated } of uploads) {
      const age = performance.now() - this.#sinceMs + CLOCK_STEP_MS
      const isRecent = Initiated !== undefined && Initiated.getTime() >= this.#connection.serverNow - age
      if (Key === this.#fullKey && UploadId && !known.has(UploadId) && isRecent) found.push(UploadId)
    }
    for (const upload of found) {
      if (!(await this.#hasParts(upload, signal))) {
        await abortUpload(this.#connection, this.#fullKey, upload, signal)
      }
    }
  }

  async #hasParts(UploadId: string, signal: AbortSignal): Promise<boolean> {
    const { sdk, config } = this.#connection
    const target = { Bucket: config.bucket, Key: this.#fullKey, UploadId, MaxParts: 1 }
    try {
      const parts = await this.#connection.once(
        'abort',
        (client, options) => client.send(new sdk.ListPartsCommand(target), options),
        { signal },
      )
      return (parts.Parts?.length ?? 0) > 0
    } catch (error) {
      if (error instanceof StorageError && error.code === 'NOT_FOUND') return false
      throw error
    }
  }
}
