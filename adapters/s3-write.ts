import { createHash, randomUUID } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { CompletedPart, HeadObjectCommandOutput, PutObjectCommandInput } from '@aws-sdk/client-s3'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import type {
  FoundObject,
  MultipartPrimitives,
  MultipartRules,
  PartBody,
  PrimitiveRequest,
  TakenUp,
} from './multipart.ts'
import { mayHaveHappened } from './multipart-commit.ts'
import { nameIn, parseName, type UploadName } from './multipart-taking-up.ts'
import type { S3Connection, Send } from './s3-client.ts'
import { bare, byMd5, composite, type Digest, digestFields, partEtag } from './s3-digests.ts'
import { ADAPTER, s3CodeOf } from './s3-errors.ts'
import { isPassing, lockFields, type ObjectFields, objectFields } from './s3-fields.ts'
import { abortUpload, LostUploads, listParts } from './s3-uploads.ts'
import { KEY_MAX_BYTES } from './storage.ts'

/**
 * Names the write in the object's metadata. It tells our object from one with the same bytes, which an ETag cannot:
 * so a commit whose answer was lost is known for what it is, and an abort never removes what was there before.
 */
const WRITE_ID = 'millrace-write'

export interface Receipt {
  part: CompletedPart
  digest: Digest
}

/** What names an upload for another process: with the id of the write that the object's metadata has. */
const UPLOAD_NAME = ['id', 'write'] as const

/** @returns the id of the upload that a stream's record is of; undefined when it is no such record. */
export function uploadIdOf(record: string): string | undefined {
  return nameIn(record, UPLOAD_NAME)?.id
}

/** One write to one key of a bucket. */
export class S3Write implements MultipartPrimitives<string, Receipt> {
  readonly rules: MultipartRules
  readonly #connection: S3Connection
  readonly #key: string
  readonly #fullKey: string
  readonly #ifAbsent: boolean
  /** Of the write whose upload was taken up, where one was. */
  #id: string = randomUUID()
  /** What the store's own digest of the object must be. */
  #expected: { etag?: string; crc32?: string } = {}
  #versionId: string | undefined
  #lastHead: HeadObjectCommandOutput | undefined
  #lost: LostUploads | undefined
  /** What was taken up is the object by now. */
  #isCommitted = false
  /** Those of ours whose id we know. */
  readonly #uploads = new Set<string>()

  constructor(connection: S3Connection, key: string, ifAbsent: boolean) {
    this.rules = connection.abilities.rules
    this.#connection = connection
    this.#key = key
    this.#fullKey = connection.fullKey(key, 'createWriteStream')
    this.#ifAbsent = ifAbsent
  }

  async putWhole(body: Buffer, { signal }: PrimitiveRequest): Promise<void> {
    const digest = this.#digest(body)
    const { conditionalPut } = this.#connection.abilities
    if (!conditionalPut) await this.#lookBefore(signal)
    const input: PutObjectCommandInput = {
      ...this.target,
      ...this.#condition(conditionalPut),
      ...this.#objectFields(),
      Body: body,
      ContentLength: body.length,
      ...digestFields(digest),
    }
    this.#expected = { etag: digest.md5?.toString('hex'), crc32: digest.crc32?.toString('base64') }
    const reply = await this.#once('putWhole', signal, (client, options) =>
      client.send(new this.#sdk.PutObjectCommand(input), options),
    )
    this.#versionId = reply.VersionId
  }

  async begin({ signal }: PrimitiveRequest): Promise<string> {
    const { partNameBytes } = this.#connection.abilities
    if (Buffer.byteLength(this.#fullKey) + partNameBytes > KEY_MAX_BYTES) {
      const most = KEY_MAX_BYTES - partNameBytes
      throw this.#error('INVALID', 'begin', `has a name above the ${most} bytes that this store can upload in parts`)
    }
    const sentAt = performance.now()
    const reply = await this.#once('begin', signal, (client, options) =>
      client.send(
        new this.#sdk.CreateMultipartUploadCommand({
          ...this.target,
          ...this.#objectFields(),
          ...(this.#connection.integrity === 'crc32' ? { ChecksumAlgorithm: 'CRC32' as const } : {}),
        }),
        options,
      ),
    ).catch(async (error) => {
      if (!mayHaveHappened(error)) throw error
      this.#lost ??= new LostUploads(this.#connection, this.#fullKey, sentAt)
      // The last chance, where no attempt follows; a signal that has fired would only cut it off.
      await this.#lost.sweep(this.#uploads, new AbortController().signal).catch(() => {})
      throw error
    })
    if (!reply.UploadId) throw this.#error('CORRUPT', 'begin', 'got no id for its upload')
    this.#uploads.add(reply.UploadId)
    return reply.UploadId
  }

  nameOf(uploadId: string): string {
    return JSON.stringify({ id: uploadId, write: this.#id } satisfies UploadName<typeof UPLOAD_NAME>)
  }

  checksumOf({ part }: Receipt): string {
    return bare(part.ETag) ?? ''
  }

  async takeUp(
    name: string,
    { signal }: PrimitiveRequest,
    sureBytes: number,
  ): Promise<TakenUp<string, Receipt> | undefined> {
    const named = parseName(name, UPLOAD_NAME)
    if (!named) return undefined
    const { id, write } = named
    const held = new Map<number, { etag: string; size: number }>()
    try {
      const parts = listParts(this.#connection, this.#fullKey, id, (send) => this.#once('takeUp', signal, send))
      for await (const { PartNumber, ETag, Size } of parts) {
        if (PartNumber !== undefined && ETag && Size !== undefined) held.set(PartNumber, { etag: ETag, size: Size })
      }
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      if (isGone(error)) return this.#takeUpObject(named, signal, sureBytes)
      // For a key that may not list parts, whether there is still such an upload cannot be told.
      if (error.code === 'ACCESS_DENIED') return undefined
      throw error
    }
    this.#id = write
    this.#uploads.add(id)
    return { upload: id, receiptOf: (part) => this.#receiptOf(part, held.get(part.number)) }
  }

  /** The run that had it may have died when it had asked for the commit, or the store was at work on that until now. */
  async #takeUpObject(
    { id, write }: UploadName<typeof UPLOAD_NAME>,
    signal: AbortSignal,
    sureBytes: number,
  ): Promise<TakenUp<string, Receipt> | undefined> {
    const own = this.#id
    this.#id = write
    try {
      const found = await this.find({ signal })
      this.#isCommitted = found?.ours === true && found.size <= sureBytes
    } finally {
      if (!this.#isCommitted) this.#id = own
    }
    if (!this.#isCommitted) return undefined
    return { upload: id, receiptOf: ({ number, body }) => this.#receipt(number, partEtag(body), this.#digest(body)) }
  }

  /** Where the store's ETag of a part is no MD5, as under SSE-KMS, it never fits, and the part is sent again. */
  #receiptOf({ number, body }: PartBody, held: { etag: string; size: number } | undefined): Receipt | undefined {
    if (held?.size !== body.length || partEtag(body) !== bare(held.etag)) return undefined
    return this.#receipt(number, held.etag, this.#digest(body))
  }

  async putPart(uploadId: string, { number, body }: PartBody, { signal }: PrimitiveRequest): Promise<Receipt> {
    const digest = this.#digest(body)
    const reply = await this.#once('putPart', signal, (client, options) =>
      client.send(
        new this.#sdk.UploadPartCommand({
          ...this.target,
          UploadId: uploadId,
          PartNumber: number,
          Body: body,
          ContentLength: body.length,
          ...digestFields(digest),
        }),
        options,
      ),
    )
    const etag = reply.ETag
    if (!etag) throw this.#error('CORRUPT', 'putPart', `got no ETag for part ${number}`)
    if (digest.md5 && this.#trusts(etag, reply) && bare(etag) !== digest.md5.toString('hex')) {
      throw this.#error('CORRUPT', 'putPart', `had part ${number} damaged on its way: the store has other bytes`)
    }
    return this.#receipt(number, etag, digest)
  }

  #receipt(number: number, etag: string, digest: Digest): Receipt {
    const checksum = digest.crc32 ? { ChecksumCRC32: digest.crc32.toString('base64') } : {}
    return { part: { PartNumber: number, ETag: etag, ...checksum }, digest }
  }

  async commit(uploadId: string, receipts: Receipt[], { signal }: PrimitiveRequest): Promise<void> {
    this.#expected = composite(receipts.map(({ digest }) => digest))
    if (this.#isCommitted) return
    const { conditionalComplete } = this.#connection.abilities
    if (!conditionalComplete) await this.#lookBefore(signal)
    const reply = await this.#once('commit', signal, (client, options) =>
      client.send(
        new this.#sdk.CompleteMultipartUploadCommand({
          ...this.target,
          ...this.#condition(conditionalComplete),
          UploadId: uploadId,
          MultipartUpload: { Parts: receipts.map(({ part }) => part) },
        }),
        options,
      ),
    ).catch(async (error) => {
      // The commit of the run that had the upload before may have come to its end just now.
      if (isGone(error) && (await this.find({ signal }))?.ours) return undefined
      throw error
    })
    // Not the ETag: Ceph's reply has an empty one. `find` asks for it.
    if (reply) this.#versionId = reply.VersionId
  }

  async abort(uploadId: string, { signal }: PrimitiveRequest): Promise<void> {
    await abortUpload(this.#connection, this.#fullKey, uploadId, signal)
    await this.#lost?.sweep(this.#uploads, signal)
  }

  async clear({ signal }: PrimitiveRequest): Promise<void> {
    await this.#lost?.sweep(this.#uploads, signal)
  }

  async find({ signal }: PrimitiveRequest): Promise<FoundObject | undefined> {
    try {
      const head = await this.#head(signal)
      const ours = head.Metadata?.[WRITE_ID] === this.#id
      this.#lastHead = ours ? head : undefined
      // In a versioned bucket this names ours for `remove`, where the commit's own answer was lost.
      if (ours) this.#versionId = head.VersionId
      return { size: head.ContentLength ?? 0, ours, damage: ours ? this.#damage(head) : undefined }
    } catch (error) {
      if (error instanceof StorageError && error.code === 'NOT_FOUND') return undefined
      throw error
    }
  }

  async remove({ signal }: PrimitiveRequest): Promise<void> {
    const remove = (version: { VersionId?: string | undefined }) =>
      this.#once('abort', signal, (client, options) =>
        client.send(new this.#sdk.DeleteObjectCommand({ ...this.target, ...version }), options),
      )
    try {
      await remove(this.#version)
    } catch (error) {
      if (!this.#mayNotName(error)) throw error
      // A marker hides it, as a delete does; but nobody else's that is above it by now.
      const seen = await this.#headOf({}, signal)
      if (seen.Metadata?.[WRITE_ID] === this.#id) await remove({})
    }
  }

  /** Ceph takes neither lock nor tags with an upload in parts, and says nothing. Uploads of lost answers go now too. */
  async secure({ signal }: PrimitiveRequest): Promise<void> {
    // The object is there, and whole: what else may be left is for purgeUnfinished.
    await this.#lost?.sweep(this.#uploads, signal).catch(() => {})
    const { objectLock, tags } = this.#connection.config
    const target = { ...this.target, ...this.#version }
    const lock = objectLock && !isPassing(this.#key) ? lockFields(objectLock) : undefined
    if (lock && this.#lastHead?.ObjectLockMode === undefined) {
      const Retention = { Mode: lock.ObjectLockMode, RetainUntilDate: lock.ObjectLockRetainUntilDate }
      const command = new this.#sdk.PutObjectRetentionCommand({ ...target, Retention })
      byMd5(command)
      await this.#once('secure', signal, (client, options) => client.send(command, options))
    }
    const TagSet = Object.entries(tags ?? {}).map(([Key, Value]) => ({ Key, Value }))
    if (TagSet.length > 0 && !this.#connection.isAws && this.#lastHead?.TagCount !== TagSet.length) {
      const command = new this.#sdk.PutObjectTaggingCommand({ ...target, Tagging: { TagSet } })
      byMd5(command)
      await this.#once('secure', signal, (client, options) => client.send(command, options))
    }
  }

  get #sdk() {
    return this.#connection.sdk
  }

  get target(): { Bucket: string; Key: string } {
    return { Bucket: this.#connection.config.bucket, Key: this.#fullKey }
  }

  /** Where the store does not honour it, it may also refuse it. */
  #condition(isHonoured: boolean): { IfNoneMatch?: string } {
    return this.#ifAbsent && isHonoured ? { IfNoneMatch: '*' } : {}
  }

  #objectFields(): ObjectFields {
    return { Metadata: { [WRITE_ID]: this.#id }, ...objectFields(this.#connection.config, this.#key) }
  }

  /** Where the store does not honour a condition, looking first is all that there is. */
  async #lookBefore(signal: AbortSignal): Promise<void> {
    if (!this.#ifAbsent) return
    const found = await this.find({ signal })
    if (found) throw this.#error('CONFLICT', 'commit', 'is there already')
  }

  get #version(): { VersionId?: string } {
    return this.#versionId === undefined ? {} : { VersionId: this.#versionId }
  }

  /** To name a version takes rights of its own: s3:GetObjectVersion, s3:DeleteObjectVersion. */
  #mayNotName(error: unknown): boolean {
    return this.#versionId !== undefined && error instanceof StorageError && error.code === 'ACCESS_DENIED'
  }

  /** Of our version, where it is known; for a key that may not name versions of what readers see. */
  async #head(signal: AbortSignal): Promise<HeadObjectCommandOutput> {
    try {
      return await this.#headOf(this.#version, signal)
    } catch (error) {
      if (!this.#mayNotName(error)) throw error
      return this.#headOf({}, signal)
    }
  }

  #headOf(version: { VersionId?: string }, signal: AbortSignal): Promise<HeadObjectCommandOutput> {
    const checksum = this.#connection.integrity === 'crc32' ? { ChecksumMode: 'ENABLED' as const } : {}
    return this.#once('stat', signal, (client, options) =>
      client.send(new this.#sdk.HeadObjectCommand({ ...this.target, ...version, ...checksum }), options),
    )
  }

  #damage(head: HeadObjectCommandOutput): string | undefined {
    const { etag, crc32: checksum } = this.#expected
    if (etag !== undefined && this.#trusts(head.ETag, head) && bare(head.ETag) !== etag) {
      return `has the ETag ${head.ETag} at the store, and its bytes give ${etag}`
    }
    if (checksum !== undefined && head.ChecksumCRC32 !== undefined && head.ChecksumCRC32 !== checksum) {
      return `has the CRC32 ${head.ChecksumCRC32} at the store, and its bytes give ${checksum}`
    }
    return undefined
  }

  /** Whether an ETag is the MD5 that S3 makes it, which it is not under SSE-KMS and SSE-C. */
  #trusts(etag: string | undefined, reply: { ServerSideEncryption?: string; SSECustomerAlgorithm?: string }): boolean {
    const { md5Etags, partsEtags } = this.#connection
    const digest = /^[0-9a-f]{32}(-\d+)?$/.exec(bare(etag) ?? '')
    if (!digest || !(digest[1] ? partsEtags : md5Etags)) return false
    return !reply.ServerSideEncryption?.startsWith('aws:kms') && reply.SSECustomerAlgorithm === undefined
  }

  #digest(body: Buffer): Digest {
    const { integrity, config } = this.#connection
    const isLocked = config.objectLock !== undefined && !isPassing(this.#key)
    // A lock demands a digest of its own, beside the signature's.
    if (integrity === 'md5' || (integrity === 'sha256' && isLocked)) {
      return { md5: createHash('md5').update(body).digest() }
    }
    if (integrity === 'sha256') return {}
    const sum = Buffer.alloc(4)
    sum.writeUInt32BE(crc32(body))
    return { crc32: sum }
  }

  #once<T>(operation: string, signal: AbortSignal, send: Send<T>): Promise<T> {
    return this.#connection.once(operation, send, { signal, key: this.#key })
  }

  #error(code: 'CORRUPT' | 'CONFLICT' | 'INVALID', operation: string, what: string): StorageError {
    const message = `The object ${quoteKey(this.#key)} ${what}.`
    const retryable = code === 'CORRUPT'
    return new StorageError(message, { code, adapter: ADAPTER, operation, key: this.#key, retryable })
  }
}

/** Whether it is about an upload that the store has no more. */
function isGone(error: unknown): boolean {
  return error instanceof StorageError && error.code === 'NOT_FOUND' && s3CodeOf(error) !== 'NoSuchBucket'
}
