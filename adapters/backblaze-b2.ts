import type { Readable } from 'node:stream'
import { type B2Config, B2Connection, checkConfig } from './backblaze-b2-client.ts'
import { ADAPTER, b2CauseOf } from './backblaze-b2-errors.ts'
import {
  cancelUpload,
  deleteVersion,
  listedIn,
  listFault,
  liveFile,
  unfinishedFiles,
  versionsOf,
} from './backblaze-b2-files.ts'
import { type FileVersion, loadSdk } from './backblaze-b2-sdk.ts'
import { B2Write, fileIdOf } from './backblaze-b2-write.ts'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import { MultipartWritable } from './multipart.ts'
import { probeStorage } from './probe.ts'
import { openPastEnd, readByRanges } from './ranged-read.ts'
import { type OpenedRange, promisedLength, type RangeRequest, readRangeByStream, replaced } from './read.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from './storage.ts'
import { begunUntil, checkAge } from './unfinished.ts'

export type { B2Config }

/** B2 bills a listing by thousands. */
const LIST_PAGE = 1000

/**
 * Opens a bucket of Backblaze B2 by its native API. Makes no request: the first call does.
 * @throws StorageError INVALID when a setting is missing or cannot be meant so.
 */
export async function openB2(config: B2Config): Promise<Storage> {
  checkConfig(config)
  return new B2Storage(new B2Connection(await loadSdk(), config))
}

class B2Storage implements Storage {
  readonly adapter = ADAPTER
  readonly location: string
  /** B2 has no write on a condition. */
  readonly conditionalWrites = false
  readonly #connection: B2Connection

  constructor(connection: B2Connection) {
    this.location = `b2://${connection.config.bucket}/${connection.prefix}`
    this.#connection = connection
  }

  createWriteStream(key: string, options: WriteOptions = {}): MultipartWritable<unknown, string> {
    const write = new B2Write(this.#connection, key, options.onNotice)
    if (options.ifAbsent) {
      const message = 'ifAbsent was asked for, and B2 has no write that does not replace.'
      throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'createWriteStream', key })
    }
    const { partBytes, callRetry, partRetry } = this.#connection.config
    return new MultipartWritable(write, { ...options, adapter: ADAPTER, key, partBytes, callRetry, partRetry })
  }

  createReadStream(key: string, options: ReadOptions = {}): Readable {
    const fullName = this.#connection.fullKey(key, 'createReadStream')
    const open = (request: RangeRequest) => this.#open(key, fullName, request)
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
    const fullName = this.#connection.fullKey(key, 'stat')
    const file = await liveFile(this.#connection.call, fullName, { signal: options.signal, key })
    if (file) return statOf(key, file)
    const message = `B2: ${quoteKey(key)} is not in the bucket "${this.#connection.config.bucket}".`
    throw new StorageError(message, { code: 'NOT_FOUND', adapter: ADAPTER, operation: 'stat', key })
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    const { config, prefix: base, call } = this.#connection
    const { signal } = options
    const page = { prefix: base + prefix, maxFileCount: config.pageSize ?? LIST_PAGE }
    let startFileName = ''
    for (;;) {
      const from = startFileName
      const { data } = await call(
        'list',
        ({ b2, bucketId, override }) =>
          b2.listFileNames({ ...page, bucketId, startFileName: from, axiosOverride: override() }),
        { signal },
      )
      for (const file of listedIn(data?.files, 'list')) {
        if (!file.fileName?.startsWith(page.prefix) || !file.fileId || file.contentLength === undefined) {
          throw listFault(config.bucket, 'names a file that it was not asked for, or without its id or size')
        }
        yield statOf(file.fileName.slice(base.length), file)
      }
      if (data.nextFileName === null) return
      if (!data.nextFileName || data.nextFileName === from) {
        throw listFault(config.bucket, 'says there is more, and not where')
      }
      startFileName = data.nextFileName
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    const fullName = this.#connection.fullKey(key, 'delete')
    const { call } = this.#connection
    const named = { signal: options.signal, key }
    await this.#connection.require('deleteFiles', 'delete', named)
    const versions = await versionsOf(call, fullName, named)
    // From the oldest: the other way round, each one deleted would bring an older one to light.
    for (const version of versions.reverse()) await deleteVersion(call, version, named)
  }

  probe(options: CallOptions = {}): Promise<ProbeReport> {
    return probeStorage(this, () => this.#connection.signIn(options), options)
  }

  async purgeUnfinished(olderThanMs: number, options: CallOptions & { prefix?: string } = {}): Promise<number> {
    checkAge(olderThanMs, ADAPTER)
    const { call, http, prefix: base } = this.#connection
    const { signal, prefix = '' } = options
    let purged = 0
    for await (const file of unfinishedFiles(this.#connection, call, base + prefix, { signal })) {
      // By the clock that the times are of: ours may be days ahead.
      if (file.uploadTimestamp > begunUntil(olderThanMs, http.serverNow)) continue
      if (await cancelUpload(call, file.fileId, { signal })) purged++
    }
    return purged
  }

  async discardUpload(key: string, upload: string, { signal }: CallOptions = {}): Promise<void> {
    this.#connection.fullKey(key, 'discardUpload')
    const fileId = fileIdOf(upload)
    if (fileId === undefined) {
      const message = `What was given for the upload of ${quoteKey(key)} names none.`
      throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'discardUpload', key })
    }
    await cancelUpload(this.#connection.call, fileId, { signal, key })
  }

  async close(): Promise<void> {
    this.#connection.close()
  }

  async #open(key: string, fullName: string, request: RangeRequest): Promise<OpenedRange> {
    const { start, end, version, signal } = request
    const { config } = this.#connection
    const stream = 'stream' as const
    // Of a whole object too: only the Content-Range says how long it is when the answer is cut.
    const headers = { Range: `bytes=${start}-${end ?? ''}` }
    try {
      const { data: body, headers: answered } = await this.#connection.once(
        'read',
        ({ b2, override }) => {
          const axiosOverride = override({ headers })
          return version === undefined
            ? b2.downloadFileByName({
                bucketName: config.bucket,
                fileName: fullName,
                responseType: stream,
                axiosOverride,
              })
            : b2.downloadFileById({ fileId: encodeURIComponent(version), responseType: stream, axiosOverride })
        },
        { signal, key },
      )
      const contentRange = answered['content-range']
      const contentLength = numberOf(answered['content-length'])
      const length = promisedLength(start, end, { contentRange, contentLength })
      const found = answered['x-bz-file-id']
      const isOfKey = nameOf(answered['x-bz-file-name']) === fullName
      if (length !== undefined && found && isOfKey) return { body, length, version: found }
      body.on('error', () => {}).destroy()
      // The version is of another file.
      if (length !== undefined && found && version !== undefined) throw replaced({ adapter: ADAPTER, key })
      // B2 names the file in each answer: this is a page of something in between, and says nothing of the object.
      if (!found) {
        const message = `B2: reading ${quoteKey(key)} failed: what answers there is not B2; check whether the network asks for a sign-in.`
        throw new StorageError(message, { code: 'UNAVAILABLE', adapter: ADAPTER, operation: 'read', key })
      }
      const fault = length === undefined ? 'another range' : 'another file'
      const message = `B2 answered a read of ${quoteKey(key)} with ${fault}.`
      throw new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'read', key })
    } catch (error) {
      const { status } = b2CauseOf(error)
      if (status === 416) return openPastEnd(this, key, request)
      // An id that is none is 400, one of a version that was deleted is 404.
      if (version !== undefined && (status === 404 || status === 400)) await this.#judgeVersion(key, version, signal)
      throw error
    }
  }

  /** @throws StorageError CONFLICT where another version is there, NOT_FOUND where none is. */
  async #judgeVersion(key: string, version: string, signal: AbortSignal): Promise<void> {
    const { version: found } = await this.stat(key, { signal })
    if (found !== version) throw replaced({ adapter: ADAPTER, key })
  }
}

function statOf(key: string, file: FileVersion): ObjectStat {
  const { fileId, contentLength = 0, contentSha1, uploadTimestamp } = file
  return {
    key,
    size: contentLength,
    modified: new Date(uploadTimestamp),
    version: fileId,
    // Not of a large file, nor one that B2 marks as the uploader's mere word (`unverified:`).
    ...(contentSha1 && /^[0-9a-f]{40}$/.test(contentSha1)
      ? { checksum: { algorithm: 'sha1', value: contentSha1 } }
      : {}),
  }
}

/** https://www.backblaze.com/docs/cloud-storage-native-api-string-encoding: percent-encoded, a space perhaps as `+`. */
function nameOf(header: string | undefined): string | undefined {
  try {
    return header === undefined ? undefined : decodeURIComponent(header.replaceAll('+', ' '))
  } catch {
    return undefined
  }
}

function numberOf(header: string | undefined): number | undefined {
  return header === undefined ? undefined : Number(header)
}
