import type { Readable, Writable } from 'node:stream'
import type { HeadObjectCommandOutput } from '@aws-sdk/client-s3'
import type { Upload } from '@aws-sdk/lib-storage'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import { MultipartWritable } from './multipart.ts'
import { refuseJournal } from './multipart-taking-up.ts'
import { probeStorage } from './probe.ts'
import { openPastEnd, readByRanges } from './ranged-read.ts'
import { type OpenedRange, promisedLength, type RangeRequest, readRangeByStream } from './read.ts'
import { READ_CONNECTIONS } from './read-parallel.ts'
import { CALL_RETRY, retry } from './retry.ts'
import { S3Connection } from './s3-client.ts'
import { checkConfig, type S3Config } from './s3-config.ts'
import { bare } from './s3-digests.ts'
import { ADAPTER, s3CodeOf } from './s3-errors.ts'
import { isPassing } from './s3-fields.ts'
import { LibStorageWritable } from './s3-lib-storage.ts'
import { S3Probe } from './s3-probe.ts'
import { abortUpload, pendingUploads } from './s3-uploads.ts'
import { S3Write, uploadIdOf } from './s3-write.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from './storage.ts'
import { begunUntil, checkAge } from './unfinished.ts'

export type { S3Config }

/** What a refused sign-in is called; anything else that list answers was signed in. */
const SIGN_IN_REFUSED = ['InvalidAccessKeyId', 'SignatureDoesNotMatch', 'CredentialsProviderError']

/**
 * Opens a bucket of AWS S3, or of a store that speaks its protocol. Makes no request: the first call does.
 * @throws StorageError INVALID when a setting is missing or contradicts another.
 */
export async function openS3(config: S3Config): Promise<Storage> {
  checkConfig(config)
  const sdk = await import('@aws-sdk/client-s3')
  const isLibStorage = config.uploader === 'lib-storage'
  const uploadClass = isLibStorage ? (await import('@aws-sdk/lib-storage')).Upload : undefined
  return new S3Storage(new S3Connection(sdk, config), uploadClass)
}

class S3Storage implements Storage {
  readonly adapter = ADAPTER
  readonly parallelReads = READ_CONNECTIONS
  readonly ownedReads = true
  readonly location: string
  readonly #connection: S3Connection
  readonly #uploadClass: typeof Upload | undefined
  /** Not with lib-storage, which keeps its parts to itself. */
  readonly discardUpload?: NonNullable<Storage['discardUpload']>

  constructor(connection: S3Connection, uploadClass: typeof Upload | undefined) {
    const { config, prefix, names, isAws } = connection
    const endpoint = isAws ? '' : `?endpoint=${encodeURIComponent(names.endpoint)}`
    this.location = `s3://${config.bucket}/${prefix}${endpoint}`
    this.#connection = connection
    this.#uploadClass = uploadClass
    if (!uploadClass) this.discardUpload = (key, upload, options) => this.#discard(key, upload, options)
  }

  get conditionalWrites(): boolean {
    const { config, abilities } = this.#connection
    return config.conditionalWrites ?? abilities.conditionalPut
  }

  createWriteStream(key: string, options: WriteOptions = {}): Writable {
    const { ifAbsent = false } = options
    const connection = this.#connection
    const write = new S3Write(connection, key, ifAbsent)
    if (ifAbsent && !this.conditionalWrites) {
      const message = 'ifAbsent was asked for, and conditionalWrites is false for this store.'
      throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'createWriteStream', key })
    }
    const { partBytes, callRetry, partRetry } = connection.config
    const uploading = { ...options, key, partBytes, callRetry, partRetry }
    if (this.#uploadClass === undefined) return new MultipartWritable(write, { ...uploading, adapter: ADAPTER })
    refuseJournal(options, { adapter: ADAPTER, key })
    const { sdk, client } = connection
    return new LibStorageWritable(write, { ...uploading, sdk, client, uploadClass: this.#uploadClass })
  }

  createReadStream(key: string, options: ReadOptions = {}): Readable {
    const fullKey = this.#connection.fullKey(key, 'createReadStream')
    const open = (request: RangeRequest) => this.#open(key, fullKey, request)
    return readByRanges({ adapter: ADAPTER, key }, options, this.#connection.config, open)
  }

  readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    return readRangeByStream(this, key, offset, length, options)
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    const head = await this.#head(key, options.signal)
    const etag = bare(head.ETag)
    const isMd5 = !head.ServerSideEncryption?.startsWith('aws:kms') && !head.SSECustomerAlgorithm
    return {
      key,
      size: head.ContentLength ?? 0,
      modified: head.LastModified ?? new Date(0),
      ...(etag ? { version: etag } : {}),
      ...(etag && isMd5 && /^[0-9a-f]{32}$/.test(etag) ? { checksum: { algorithm: 'md5', value: etag } } : {}),
    }
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    const { sdk, config, prefix: base } = this.#connection
    let token: string | undefined
    do {
      const page = await this.#connection.call(
        'list',
        (client, sending) =>
          client.send(
            new sdk.ListObjectsV2Command({
              Bucket: config.bucket,
              Prefix: base + prefix,
              ...(token === undefined ? {} : { ContinuationToken: token }),
              ...(config.pageSize === undefined ? {} : { MaxKeys: config.pageSize }),
            }),
            sending,
          ),
        { signal: options.signal },
      )
      for (const { Key, Size, LastModified, ETag } of page.Contents ?? []) {
        if (Key === undefined || Size === undefined)
          throw this.#connection.listFault('names an object without its key or size')
        const version = bare(ETag)
        const modified = LastModified ?? new Date(0)
        yield { key: Key.slice(base.length), size: Size, modified, ...(version ? { version } : {}) }
      }
      const next = page.IsTruncated ? page.NextContinuationToken : undefined
      if (page.IsTruncated && (!next || next === token))
        throw this.#connection.listFault('says there is more, and not where')
      token = next
    } while (token !== undefined)
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    const { config } = this.#connection
    const fullKey = this.#connection.fullKey(key, 'delete')
    // In a bucket with Object Lock a plain delete always succeeds: it hides the object, which stays and is billed.
    if (config.objectLock && !isPassing(key)) await this.#deleteVersions(key, fullKey, options)
    else await this.#connection.delete(key, undefined, options.signal)
  }

  async erase(key: string, options: CallOptions = {}): Promise<void> {
    // A plain delete of what is gone would put a marker there.
    if (!(await new S3Probe(this.#connection, options.signal).removeVersions(key))) await this.delete(key, options)
  }

  probe(options: CallOptions = {}): Promise<ProbeReport> {
    const signIn = async () => {
      for await (const _ of this.list('', options)) break
    }
    const judged = () =>
      signIn().catch((error) => {
        const refused = SIGN_IN_REFUSED.includes(s3CodeOf(error) ?? '')
        // A right that is missing shows in its own step.
        if (error instanceof StorageError && error.code === 'ACCESS_DENIED' && !refused) return
        throw error
      })
    const probe = new S3Probe(this.#connection, options.signal)
    return probeStorage(this, judged, options, {
      further: (attempt, canary) => probe.further(attempt, canary),
      // Also when the caller has given up.
      remove: (canary) => new S3Probe(this.#connection, undefined).remove(canary),
    })
  }

  async purgeUnfinished(olderThanMs: number, options: CallOptions & { prefix?: string } = {}): Promise<number> {
    const connection = this.#connection
    const { signal, prefix = '' } = options
    const { callRetry = CALL_RETRY } = connection.config
    checkAge(olderThanMs, ADAPTER)
    const limit = begunUntil(olderThanMs, connection.serverNow)
    let purged = 0
    const uploads = pendingUploads(connection, connection.prefix + prefix, (send) =>
      connection.call('purgeUnfinished', send, { signal }),
    )
    for await (const { Key, UploadId, Initiated } of uploads) {
      if (!Key || !UploadId || !Initiated || Initiated.getTime() > limit) continue
      await retry(() => abortUpload(connection, Key, UploadId, signal), callRetry, { signal })
      purged++
    }
    return purged
  }

  async close(): Promise<void> {
    this.#connection.close()
  }

  async #discard(key: string, upload: string, { signal }: CallOptions = {}): Promise<void> {
    const connection = this.#connection
    const { callRetry = CALL_RETRY } = connection.config
    const fullKey = connection.fullKey(key, 'discardUpload')
    const id = uploadIdOf(upload)
    if (id === undefined) {
      const message = `What was given for the upload of ${quoteKey(key)} names none.`
      throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'discardUpload', key })
    }
    await retry(() => abortUpload(connection, fullKey, id, signal), callRetry, { signal })
  }

  /** Every version and marker of one key, the oldest first: where one is locked, the newest is still the one to see. */
  async #deleteVersions(key: string, fullKey: string, options: CallOptions): Promise<void> {
    const { sdk, config } = this.#connection
    const versions: string[] = []
    let marker: { KeyMarker?: string; VersionIdMarker?: string } | undefined = {}
    while (marker) {
      const at: { KeyMarker?: string; VersionIdMarker?: string } = marker
      const page = await this.#connection.call(
        'delete',
        (client, sending) =>
          client.send(new sdk.ListObjectVersionsCommand({ Bucket: config.bucket, Prefix: fullKey, ...at }), sending),
        { signal: options.signal, key },
      )
      const found = [...(page.Versions ?? []), ...(page.DeleteMarkers ?? [])]
      const ours = found.filter(({ Key }) => Key === fullKey)
      ours.sort((a, b) => (b.LastModified?.getTime() ?? 0) - (a.LastModified?.getTime() ?? 0))
      versions.push(...ours.flatMap(({ VersionId }) => VersionId ?? []))
      // Keys come in order: past ours there is none of ours.
      const isLast = !page.IsTruncated || !page.NextKeyMarker || page.NextKeyMarker > fullKey
      marker = isLast ? undefined : { KeyMarker: page.NextKeyMarker!, VersionIdMarker: page.NextVersionIdMarker! }
    }
    for (const version of versions.reverse()) await this.#connection.delete(key, version, options.signal)
  }

  #head(key: string, signal: AbortSignal | undefined): Promise<HeadObjectCommandOutput> {
    const { sdk, config } = this.#connection
    const fullKey = this.#connection.fullKey(key, 'stat')
    return this.#connection.call(
      'stat',
      (client, sending) => client.send(new sdk.HeadObjectCommand({ Bucket: config.bucket, Key: fullKey }), sending),
      { signal, key },
    )
  }

  async #open(key: string, fullKey: string, request: RangeRequest): Promise<OpenedRange> {
    const { sdk, config } = this.#connection
    const { start, end, version, signal } = request
    try {
      const reply = await this.#connection.once(
        'read',
        (client, sending) =>
          client.send(
            new sdk.GetObjectCommand({
              Bucket: config.bucket,
              Key: fullKey,
              // Of a whole object too: only the Content-Range says how long it is when the answer is cut.
              Range: `bytes=${start}-${end ?? ''}`,
              ...(version === undefined ? {} : { IfMatch: `"${version}"` }),
            }),
            sending,
          ),
        { signal, key },
      )
      const body = reply.Body as Readable
      const length = promisedLength(start, end, {
        contentRange: reply.ContentRange,
        contentLength: reply.ContentLength,
      })
      const found = bare(reply.ETag)
      if (length !== undefined && found) return { body, length, version: found }
      body.on('error', () => {}).destroy()
      const fault = length === undefined ? 'another range' : 'no ETag'
      const message = `The store answered a read of ${quoteKey(key)} with ${fault}.`
      throw new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'read', key })
    } catch (error) {
      if (s3CodeOf(error) === 'InvalidRange') return openPastEnd(this, key, request)
      throw error
    }
  }
}
