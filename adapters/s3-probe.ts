import { createHash } from 'node:crypto'
import { StorageError } from './errors.ts'
import { type Attempt, CANARY } from './probe.ts'
import { isAbort } from './retry.ts'
import type { S3Connection, Send } from './s3-client.ts'
import { ADAPTER, s3CodeOf } from './s3-errors.ts'
import type { S3Integrity } from './s3-profiles.ts'
import { abortUpload } from './s3-uploads.ts'
import { S3Write } from './s3-write.ts'

const BODY = Buffer.from(CANARY)
/** Of a canary in a bucket with versions: what this probe wrote, one each, and some to spare. */
const VERSIONS_MAX = 10
interface PutFields {
  IfNoneMatch?: string
  ContentMD5?: string
  ChecksumCRC32?: string
  sha256?: string
}

/** Digests of other bytes than the canary's. */
const WRONG: Record<S3Integrity, PutFields> = {
  md5: { ContentMD5: createHash('md5').update('other bytes').digest('base64') },
  sha256: { sha256: createHash('sha256').update('other bytes').digest('hex') },
  crc32: { ChecksumCRC32: 'AAAAAA==' },
}
/** As AWS, Ceph and Swift call a body that does not fit its digest. */
const DIGEST_REFUSED = ['BadDigest', 'InvalidDigest', 'XAmzContentSHA256Mismatch', 'XAmzContentChecksumMismatch']

/**
 * The steps that only S3 has: an upload in parts, one that is aborted, with the settings of real objects, and what the
 * server makes of a condition and of a wrong digest. From then on the connection goes by what was seen.
 */
export class S3Probe {
  readonly #connection: S3Connection
  readonly #signal: AbortSignal | undefined

  constructor(connection: S3Connection, signal: AbortSignal | undefined) {
    this.#connection = connection
    this.#signal = signal
  }

  async further(attempt: Attempt, canary: string): Promise<Record<string, boolean | string>> {
    await attempt('multipart', () => this.#uploadInParts(canary))
    // Without the dot, so that storage class and lock are asked for as well: nothing is made, so nothing is locked.
    await attempt('abort', () => this.#abort(canary.slice(1)))
    const found: Record<string, boolean | string> = {}
    const { abilities } = this.#connection
    await attempt('conditional', async () => {
      const conditionalPut = await this.#honours((options) => this.#put(canary, options))
      const conditionalComplete = await this.#honours((options) => this.#complete(canary, options))
      this.#connection.abilities = { ...abilities, conditionalPut, conditionalComplete }
      Object.assign(found, { conditionalPut, conditionalComplete })
    })
    await attempt('checksum', async () => {
      found.checksum = await this.#digests(canary)
      // Nothing would notice a body that was damaged on its way: MD5 is what every store has learnt first.
      if (found.checksum === 'ignored' && this.#connection.integrity === 'sha256') this.#connection.integrity = 'md5'
    })
    return found
  }

  /**
   * Deletes as backups are deleted. Where that puts a marker over the versions, the marker and all versions that this
   * probe wrote are removed as well; where they may not be, the marker stays.
   * @throws StorageError when the plain delete is refused.
   */
  async remove(key: string): Promise<void> {
    const marker = await this.#connection.delete(key, undefined, this.#signal)
    if (marker === undefined) return
    try {
      await this.#connection.delete(key, marker, this.#signal)
    } catch (error) {
      if (isRefusal(error)) return
      throw error
    }
    if (!(await this.removeVersions(key))) await this.#connection.delete(key, undefined, this.#signal)
  }

  /**
   * Removes every version that this probe wrote, where a plain delete would leave them behind a marker.
   * @returns whether nothing is left; else a plain delete is all that is left to try.
   */
  async removeVersions(key: string): Promise<boolean> {
    for (let version = 0; version < VERSIONS_MAX; version++) {
      try {
        const head = await this.#send('delete', key, (client, options) =>
          client.send(new this.#connection.sdk.HeadObjectCommand(this.#target(key)), options),
        )
        if (!head.VersionId || head.VersionId === 'null') return false
        await this.#connection.delete(key, head.VersionId, this.#signal)
      } catch (error) {
        if (error instanceof StorageError && error.code === 'NOT_FOUND') return true
        if (isRefusal(error)) return false
        throw error
      }
    }
    return false
  }

  /** Over the canary, so that one object is to be removed, also where that is refused. */
  async #uploadInParts(key: string): Promise<void> {
    const signal = this.#signal ?? new AbortController().signal
    const write = new S3Write(this.#connection, key, false)
    const upload = await write.begin({ signal })
    try {
      const receipt = await write.putPart(upload, { number: 1, offset: 0, body: BODY, last: true }, { signal })
      await write.commit(upload, [receipt], { signal })
    } catch (error) {
      await abortUpload(this.#connection, this.#fullKey(key), upload, undefined)
      throw error
    }
    // Where a look is refused, the step 'stat' says so.
    const found = await write.find({ signal }).catch(ignoreRefusal)
    const isGood = found === undefined || (found.ours && found.size === BODY.length && found.damage === undefined)
    if (!isGood) throw this.#corrupt(`The object in parts ${found.damage ?? 'is not what was uploaded'}.`)
  }

  async #abort(key: string): Promise<void> {
    const signal = this.#signal ?? new AbortController().signal
    const write = new S3Write(this.#connection, key, false)
    const upload = await write.begin({ signal })
    try {
      await write.putPart(upload, { number: 1, offset: 0, body: BODY, last: true }, { signal })
    } finally {
      await write.abort(upload, { signal: new AbortController().signal })
    }
    const { sdk, config } = this.#connection
    const page = await this.#send('abort', key, (client, options) =>
      client.send(new sdk.ListMultipartUploadsCommand({ Bucket: config.bucket, Prefix: this.#fullKey(key) }), options),
    )
    if (page.Uploads?.some(({ UploadId }) => UploadId === upload)) {
      throw this.#corrupt('The store says that an upload was aborted, and goes on to list it.')
    }
  }

  /** Whether a write over the canary is refused for its condition. */
  async #honours(write: (options: { IfNoneMatch: string }) => Promise<unknown>): Promise<boolean> {
    try {
      await write({ IfNoneMatch: '*' })
      return false
    } catch (error) {
      if (isAbort(error) || !(error instanceof StorageError) || error.retryable) throw error
      return error.code === 'CONFLICT'
    }
  }

  /** What becomes of a body whose digest is wrong. */
  async #digests(canary: string): Promise<'checked' | 'ignored' | 'refused'> {
    try {
      await this.#put(canary, WRONG[this.#connection.integrity])
      return 'ignored'
    } catch (error) {
      if (isAbort(error) || !(error instanceof StorageError)) throw error
      if (error.code === 'CORRUPT' || DIGEST_REFUSED.includes(s3CodeOf(error) ?? '')) return 'checked'
      // What AWS says of a CRC32 that does not fit.
      if (this.#connection.integrity === 'crc32' && s3CodeOf(error) === 'InvalidRequest') return 'checked'
      if (error.retryable) throw error
      return 'refused'
    }
  }

  #put(key: string, { sha256, ...fields }: PutFields): Promise<unknown> {
    const input = { ...this.#target(key), Body: BODY, ContentLength: BODY.length, ...fields }
    const command = new this.#connection.sdk.PutObjectCommand(input)
    if (sha256 !== undefined) {
      command.middlewareStack.add(
        (next) => (args) => {
          ;(args as { request: { headers: Record<string, string> } }).request.headers['x-amz-content-sha256'] = sha256
          return next(args)
        },
        { step: 'build', priority: 'low' },
      )
    }
    return this.#send('putWhole', key, (client, options) => client.send(command, options))
  }

  async #complete(key: string, condition: { IfNoneMatch: string }): Promise<void> {
    const signal = this.#signal ?? new AbortController().signal
    const write = new S3Write(this.#connection, key, false)
    const upload = await write.begin({ signal })
    try {
      const { part } = await write.putPart(upload, { number: 1, offset: 0, body: BODY, last: true }, { signal })
      const input = { ...this.#target(key), UploadId: upload, MultipartUpload: { Parts: [part] }, ...condition }
      await this.#send('commit', key, (client, options) =>
        client.send(new this.#connection.sdk.CompleteMultipartUploadCommand(input), options),
      )
    } finally {
      // Gone already, where it was completed.
      await abortUpload(this.#connection, this.#fullKey(key), upload, undefined)
    }
  }

  #send<T>(operation: string, key: string, send: Send<T>): Promise<T> {
    return this.#connection.once(operation, send, { signal: this.#signal, key })
  }

  #target(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#connection.config.bucket, Key: this.#fullKey(key) }
  }

  #fullKey(key: string): string {
    return this.#connection.fullKey(key, 'probe')
  }

  #corrupt(message: string): StorageError {
    return new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'probe' })
  }
}

function ignoreRefusal(error: unknown): undefined {
  if (error instanceof StorageError && error.code === 'ACCESS_DENIED') return undefined
  throw error
}

/** Whether a version may not be removed: by this key, or yet. */
function isRefusal(error: unknown): boolean {
  return error instanceof StorageError && (error.code === 'ACCESS_DENIED' || error.code === 'LOCKED')
}
