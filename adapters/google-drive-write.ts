import { createHash, type Hash, randomUUID } from 'node:crypto'
import { StorageError } from './errors.ts'
import type { DriveCatalog } from './google-drive-catalog.ts'
import type { DriveConnection } from './google-drive-client.ts'
import { dailyLimitError, driveError, isDailyLimit, statusOf } from './google-drive-errors.ts'
import { CHUNK_STEP_BYTES, metadataOf, type NewFile, UploadSession, uploadUrl } from './google-drive-session.ts'
import { readText } from './http.ts'
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
import { CALL_RETRY, PART_RETRY, type RetryPolicy } from './retry.ts'
import type { WriteOptions } from './storage.ts'

const MiB = 1024 * 1024
/** Twice the usual size: Drive takes parts one after the other, and each costs a round trip and its time to store. */
export const DRIVE_PART_BYTES = 16 * MiB

/** https://support.google.com/a/users/answer/7338880: files of up to 5 TB. */
export const DRIVE_RULES: MultipartRules = {
  minPartBytes: CHUNK_STEP_BYTES,
  maxPartBytes: 256 * MiB,
  alignBytes: CHUNK_STEP_BYTES,
  maxParts: Number.POSITIVE_INFINITY,
  maxObjectBytes: 5e12,
  concurrency: 1,
}

/** Up to this, an object and its name go in one request, which leaves no session behind. It costs a copy. */
const ONE_REQUEST_BYTES = MiB
/** How often in a row Drive says that the uploads of the day are used up, before it is believed. */
const DAILY_LIMIT_TRIES = 5

/** Drive gives none for a part. */
const NO_SUM = 'none'

/** What names a session for another process. */
const SESSION_NAME = ['id', 'uri'] as const

/** @returns the URI of the session that a stream's record is of; undefined when it is no such record. */
export function sessionUriOf(record: string): string | undefined {
  return nameIn(record, SESSION_NAME)?.uri
}

/** One write to one key. Its file has an id from before, so that no lost answer makes a second one. */
export class DriveWrite implements MultipartPrimitives<UploadSession, string> {
  readonly rules = DRIVE_RULES
  readonly #connection: DriveConnection
  readonly #catalog: DriveCatalog
  readonly #key: string
  readonly #onNotice: WriteOptions['onNotice']
  readonly #sha256 = createHash('sha256')
  readonly #md5: Hash | undefined
  #hashedBytes = 0
  #digests: { sha256: string; md5: string | undefined } | undefined
  #id: string | undefined
  /** The end of the object, held back for the commit: Drive makes the file as soon as it has the last byte. */
  #tail: { body: Buffer; offset: number } | undefined
  #found: FoundObject | undefined
  #limitHits = 0
  /** What was taken up is the file by now. */
  #isCommitted = false

  constructor(connection: DriveConnection, catalog: DriveCatalog, key: string, onNotice?: WriteOptions['onNotice']) {
    this.#connection = connection
    this.#catalog = catalog
    this.#key = key
    this.#onNotice = onNotice
    this.#md5 = connection.showsSha256 ? undefined : createHash('md5')
  }

  async putWhole(body: Buffer, { signal }: PrimitiveRequest): Promise<void> {
    this.#hash(body, 0)
    await this.#limited(this.#connection.config.callRetry ?? CALL_RETRY, async () => {
      const file = await this.#newFile(signal)
      try {
        if (body.length <= ONE_REQUEST_BYTES) await this.#putAtOnce(file, body, signal)
        else await this.#putInSession(file, body, signal)
      } catch (error) {
        // An attempt before this one made it, and its answer was lost.
        if (statusOf(error) !== 409) throw error
      }
      this.#catalog.noteWritten(this.#key, file.id)
    })
  }

  begin({ signal }: PrimitiveRequest): Promise<UploadSession> {
    return this.#limited(this.#connection.config.callRetry ?? CALL_RETRY, async () => {
      const session = new UploadSession(this.#connection, await this.#newFile(signal), this.#key, this.#onNotice)
      await this.#inFolder(() => session.begin({ signal }))
      return session
    })
  }

  nameOf(session: UploadSession): string {
    return JSON.stringify({ id: this.#id as string, uri: session.uri as string } satisfies UploadName<
      typeof SESSION_NAME
    >)
  }

  checksumOf(receipt: string): string {
    return receipt
  }

  /** Drive says how many bytes it has, and no sum of them: the file's own is compared in the end. */
  async takeUp(
    name: string,
    { signal }: PrimitiveRequest,
    sureBytes: number,
  ): Promise<TakenUp<UploadSession, string> | undefined> {
    const named = parseName(name, SESSION_NAME)
    if (!named) return undefined
    const call = { signal, key: this.#key }
    const { path, name: base } = this.#catalog.folders.placeOf(this.#key)
    const file = { id: named.id, name: base, parent: await this.#catalog.folders.ensure(path, call) }
    const session = new UploadSession(this.#connection, file, this.#key, this.#onNotice)
    const persisted = await session.takeUp(named.uri, { signal })
    if (persisted === 'over') {
      // The run that had it may have died when it had sent the last byte.
      const made = await this.#catalog.get(named.id, 'takeUp', call)
      if (!made || made.size > sureBytes) return undefined
      this.#isCommitted = true
    } else if (persisted === undefined || persisted > sureBytes) return undefined
    this.#id = named.id
    const held = persisted === 'over' ? Number.POSITIVE_INFINITY : persisted
    return { upload: session, receiptOf: (part) => this.#receiptOf(part, held) }
  }

  /** The last part is held back in part, whatever Drive has of it. */
  #receiptOf({ body, offset, last }: PartBody, persisted: number): string | undefined {
    if (!this.#isCommitted && (last || offset + body.length > persisted)) return undefined
    this.#hash(body, offset)
    return NO_SUM
  }

  async putPart(session: UploadSession, part: PartBody, { signal }: PrimitiveRequest): Promise<string> {
    const { body, offset, last } = part
    this.#hash(body, offset)
    const held = last ? body.length % CHUNK_STEP_BYTES || Math.min(CHUNK_STEP_BYTES, body.length) : 0
    const sent = body.length - held
    if (last) this.#tail = { body: Buffer.from(body.subarray(sent)), offset: offset + sent }
    if (sent === 0) return NO_SUM
    await this.#limited(this.#connection.config.partRetry ?? PART_RETRY, () =>
      session.put({ body: body.subarray(0, sent), offset }, 'putPart', { signal }),
    )
    return NO_SUM
  }

  async commit(session: UploadSession, _receipts: unknown, { signal }: PrimitiveRequest): Promise<void> {
    if (this.#isCommitted) {
      this.#catalog.noteWritten(this.#key, this.#id as string)
      return
    }
    const { body, offset } = this.#tail as { body: Buffer; offset: number }
    await this.#limited(this.#connection.config.partRetry ?? PART_RETRY, async () => {
      try {
        await session.put({ body, offset, total: offset + body.length }, 'commit', { signal })
      } catch (error) {
        // A session is over once its file is made, and its file may be ours.
        if (!(error instanceof StorageError) || error.retryable || !(await this.find({ signal }))) throw error
      }
      this.#catalog.noteWritten(this.#key, this.#id as string)
    })
  }

  abort(session: UploadSession, { signal }: PrimitiveRequest): Promise<void> {
    return session.cancel({ signal })
  }

  async find({ signal }: PrimitiveRequest): Promise<FoundObject | undefined> {
    if (this.#id === undefined) return undefined
    // Whoever asks once more wants to remove it, for which its id is enough.
    if (this.#found) return this.#found
    const file = await this.#catalog.get(this.#id, 'verify', { signal, key: this.#key })
    this.#found = file && { size: file.size, ours: true, damage: this.#damage(file) }
    return this.#found
  }

  async remove({ signal }: PrimitiveRequest): Promise<void> {
    if (this.#id !== undefined) await this.#catalog.remove(this.#id, 'delete', { signal, key: this.#key })
  }

  secure({ signal }: PrimitiveRequest): Promise<void> {
    return this.#catalog.retire(this.#key, this.#id as string, { signal, key: this.#key })
  }

  async #newFile(signal: AbortSignal): Promise<NewFile> {
    const call = { signal, key: this.#key }
    const { path, name } = this.#catalog.folders.placeOf(this.#key)
    const parent = await this.#catalog.folders.ensure(path, call)
    this.#id ??= await this.#connection.takeId(call)
    return { id: this.#id, name, parent }
  }

  /** Where the folder has been deleted since it was looked up, another attempt finds or makes it. */
  async #inFolder<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      const isGone = error instanceof StorageError && error.code === 'NOT_FOUND'
      if (!isGone) throw error
      const { folders } = this.#catalog
      const retryable = folders.forget(folders.placeOf(this.#key).path)
      const message = `Google Drive: the folder for ${quoteKey(this.#key)} is not there, or not to be seen by this app.`
      throw driveError('NOT_FOUND', error.operation, message, { key: this.#key, retryable, cause: error.cause })
    }
  }

  /** A multipart upload: https://developers.google.com/workspace/drive/api/guides/manage-uploads#multipart */
  async #putAtOnce(file: NewFile, body: Buffer, signal: AbortSignal): Promise<void> {
    const boundary = randomUUID()
    const head = `--${boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n${metadataOf(file)}\r\n`
    const middle = `--${boundary}\r\ncontent-type: application/octet-stream\r\n\r\n`
    const whole = Buffer.concat([Buffer.from(head + middle), body, Buffer.from(`\r\n--${boundary}--\r\n`)])
    const request = {
      method: 'POST',
      url: uploadUrl(this.#connection, 'multipart'),
      headers: { 'content-type': `multipart/related; boundary=${boundary}` },
      body: whole,
      signal,
      key: this.#key,
    }
    const isSuccess = (status: number) => status >= 200 && status < 300
    const answer = await this.#inFolder(() => this.#connection.raw('putWhole', request, isSuccess))
    await readText(answer).catch((error) => {
      const message = `Google Drive: the answer to the upload of ${quoteKey(this.#key)} broke off (${error.code}).`
      throw driveError('UNAVAILABLE', 'putWhole', message, { key: this.#key })
    })
  }

  async #putInSession(file: NewFile, body: Buffer, signal: AbortSignal): Promise<void> {
    const session = new UploadSession(this.#connection, file, this.#key, this.#onNotice)
    try {
      await this.#inFolder(() => session.begin({ signal }))
      await session.put({ body, offset: 0, total: body.length }, 'putWhole', { signal })
    } catch (error) {
      // Nobody else knows of this session. What fails here leaves it to expire.
      await this.#connection.again(() => session.cancel({ key: this.#key }), undefined).catch(() => {})
      throw error
    }
  }

  /** Takes each byte once, in order, however often it is sent. */
  #hash(body: Buffer, offset: number): void {
    if (offset !== this.#hashedBytes || this.#digests) return
    this.#sha256.update(body)
    this.#md5?.update(body)
    this.#hashedBytes += body.length
  }

  #damage({ sha256, md5 }: { sha256: string | undefined; md5: string | undefined }): string | undefined {
    this.#digests ??= { sha256: this.#sha256.digest('hex'), md5: this.#md5?.digest('hex') }
    const made = this.#digests
    if (sha256 !== undefined) {
      return sha256 === made.sha256
        ? undefined
        : `has the SHA-256 ${sha256} at Drive, and its bytes give ${made.sha256}`
    }
    if (md5 === undefined || made.md5 === undefined || md5 === made.md5) return undefined
    return `has the MD5 ${md5} at Drive, and its bytes give ${made.md5}`
  }

  /** Counts how often in a row the limit of the day is named, and in the end says so. */
  async #limited<T>(policy: RetryPolicy, work: () => Promise<T>): Promise<T> {
    try {
      const result = await work()
      this.#limitHits = 0
      return result
    } catch (error) {
      if (!isDailyLimit(error)) throw error
      const isFinal = ++this.#limitHits >= Math.min(DAILY_LIMIT_TRIES, policy.attempts)
      throw isFinal ? dailyLimitError(error as StorageError, this.#key) : error
    }
  }
}
