import type { drive_v3 } from 'googleapis/build/src/apis/drive/v3.js'
import type { DriveCall, DriveConnection } from './google-drive-client.ts'
import { driveError, statusOf } from './google-drive-errors.ts'
import { FILE_FIELDS } from './google-drive-files.ts'
import { type HttpResponse, readText } from './http.ts'
import { quoteKey } from './keys.ts'

/** Every request of a session but the last carries a multiple of this. */
export const CHUNK_STEP_BYTES = 256 * 1024
const OBJECT_TYPE = 'application/octet-stream'

export interface NewFile {
  id: string
  name: string
  /** The folder's id. */
  parent: string
}

/** Bytes of an object, to be put behind what the session has. */
export interface Chunk {
  body: Buffer
  /** Of the chunk's first byte in the object. */
  offset: number
  /** The object's size, with its last chunk only: then Drive makes the file. */
  total?: number
}

/** What an answer of a session says: the file, once it is made. */
type Progress = drive_v3.Schema$File | undefined

/** The metadata of a file that is to be made, as JSON. */
export function metadataOf({ id, name, parent }: NewFile): string {
  return JSON.stringify({ id, name, parents: [parent], mimeType: OBJECT_TYPE })
}

/** The URL of an upload's first request. */
export function uploadUrl(connection: DriveConnection, uploadType: 'resumable' | 'multipart'): string {
  const query = new URLSearchParams({ uploadType, supportsAllDrives: 'true', fields: FILE_FIELDS })
  return `${connection.apiOrigin}/upload/drive/v3/files?${query}`
}

/**
 * A resumable upload: https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable
 *
 * Drive keeps bytes in order and says how many it has. After any doubt it is asked, and what it has is not sent again.
 * The session's URI is a secret: whoever has it can write the file.
 */
export class UploadSession {
  readonly #connection: DriveConnection
  readonly #file: NewFile
  readonly #key: string
  readonly #onNotice: ((message: string) => void) | undefined
  #uri: string | undefined
  /** Bytes that Drive said it has. */
  #persisted = 0
  /** A request was sent, and its answer did not come. */
  #doubt = false
  #restarted = false

  constructor(connection: DriveConnection, file: NewFile, key: string, onNotice?: (message: string) => void) {
    this.#connection = connection
    this.#file = file
    this.#key = key
    this.#onNotice = onNotice
  }

  /** What another process needs to go on with it. A secret, as the URI is. */
  get uri(): string | undefined {
    return this.#uri
  }

  /**
   * Goes on with a session of another process: one attempt at asking Drive what it has.
   * @returns bytes that it has; 'over' when the session is gone, or its file is made.
   */
  async takeUp(uri: string, call: DriveCall): Promise<number | 'over' | undefined> {
    if (!this.#mayAsk(uri)) return undefined
    this.#uri = uri
    try {
      const file = await this.#send(Buffer.alloc(0), 'bytes */*', 'takeUp', call)
      return file ? 'over' : this.#persisted
    } catch (error) {
      const status = statusOf(error)
      if (status === 404 || status === 410) return 'over'
      throw error
    }
  }

  /** One attempt at cancelling a session of another process. */
  async cancelOther(uri: string, call: DriveCall): Promise<void> {
    if (!this.#mayAsk(uri)) return
    this.#uri = uri
    await this.cancel(call)
  }

  /** One attempt at beginning the upload. @throws StorageError, AbortError */
  async begin({ signal }: DriveCall): Promise<void> {
    const answer = await this.#connection.raw(
      'begin',
      {
        method: 'POST',
        url: uploadUrl(this.#connection, 'resumable'),
        headers: { 'content-type': 'application/json; charset=UTF-8', 'x-upload-content-type': OBJECT_TYPE },
        body: metadataOf(this.#file),
        signal,
        key: this.#key,
      },
      isSuccess,
    )
    answer.body.on('error', () => {}).resume()
    const { location } = answer.headers
    if (location === undefined || !this.#mayAsk(location)) {
      throw driveError('CORRUPT', 'begin', 'Google Drive: it gave no address to upload to.', { key: this.#key })
    }
    this.#uri = location
    this.#persisted = 0
    this.#doubt = false
  }

  /**
   * One attempt at putting a chunk, all of it, from wherever Drive is by now. Where the session is lost and nothing
   * before this chunk is lost with it, another is begun, once.
   * @returns the file, with the last chunk.
   * @throws StorageError; UNAVAILABLE, not retryable, when bytes that nobody has any more are lost.
   */
  async put(chunk: Chunk, operation: string, call: DriveCall): Promise<Progress> {
    let reauthorized = false
    for (;;) {
      try {
        if (this.#uri === undefined) await this.begin(call)
        return await this.#putRest(chunk, operation, call)
      } catch (error) {
        const status = statusOf(error)
        if (status === 401 && !reauthorized) {
          // The token died on the way. Another is fetched, and Drive is asked first what it has.
          reauthorized = true
        } else if ((status === 404 || status === 410) && this.#uri !== undefined) {
          if (chunk.offset > 0 || this.#restarted) throw this.#lost(operation, error)
          this.#restarted = true
          this.#onNotice?.(`Google Drive lost the upload session of ${quoteKey(this.#key)}; another was begun.`)
          this.#uri = undefined
        } else throw error
      }
    }
  }

  /** One attempt at cancelling; a session that is gone, or over, is success. */
  async cancel({ signal }: DriveCall): Promise<void> {
    if (this.#uri === undefined) return
    const isOver = (status: number) => isSuccess(status) || status === 499 || status === 404 || status === 410
    const request = { method: 'DELETE', url: this.#uri, signal, key: this.#key }
    const answer = await this.#connection.raw('abort', request, isOver)
    answer.body.on('error', () => {}).resume()
  }

  async #putRest({ body, offset, total }: Chunk, operation: string, call: DriveCall): Promise<Progress> {
    const end = offset + body.length
    if (this.#doubt) {
      const done = await this.#send(Buffer.alloc(0), `bytes */${total ?? '*'}`, operation, call)
      if (done) return done
    }
    while (this.#persisted < end || total !== undefined) {
      const from = this.#persisted
      if (from < offset) throw this.#lost(operation, undefined)
      if (from > end) throw this.#fault(operation, 'has more bytes than were sent')
      const rest = body.subarray(from - offset)
      const range = rest.length === 0 ? `bytes */${total}` : `bytes ${from}-${end - 1}/${total ?? '*'}`
      const done = await this.#send(rest, range, operation, call)
      if (done) return done
      if (this.#persisted <= from) throw this.#fault(operation, 'took nothing of a part')
    }
    return undefined
  }

  async #send(body: Buffer, range: string, operation: string, { signal }: DriveCall): Promise<Progress> {
    this.#doubt = true
    const answer = await this.#connection.raw(
      operation,
      {
        method: 'PUT',
        url: this.#uri as string,
        headers: { 'content-range': range },
        body,
        signal,
        key: this.#key,
        // What Drive has of a body may not be sent again: it is asked first.
        ...(body.length > 0 ? { once: true } : {}),
      },
      (status) => isSuccess(status) || status === 308,
    )
    const text = await this.#textOf(answer, operation)
    this.#doubt = false
    if (answer.status === 308) {
      this.#persisted = this.#persistedOf(answer, operation)
      return undefined
    }
    return this.#parse(text, operation)
  }

  async #textOf(answer: HttpResponse, operation: string): Promise<string> {
    try {
      return await readText(answer)
    } catch (cause) {
      throw this.#fault(operation, `broke off its answer (${(cause as { code?: string }).code})`)
    }
  }

  #persistedOf({ headers }: HttpResponse, operation: string): number {
    if (headers.range === undefined) return 0
    const match = /^bytes=0-(\d+)$/.exec(headers.range)
    if (!match) throw this.#fault(operation, 'did not say which bytes it has')
    return Number(match[1]) + 1
  }

  #parse(text: string, operation: string): drive_v3.Schema$File {
    try {
      const file = JSON.parse(text) as drive_v3.Schema$File
      if (file.id === this.#file.id) return file
    } catch {
      // Below.
    }
    this.#doubt = true
    throw this.#fault(operation, 'answered with something else than the file')
  }

  /** Whether an address is Google's own: the token goes with every request to it. */
  #mayAsk(uri: string): boolean {
    if (!URL.canParse(uri)) return false
    const { origin, protocol, hostname } = new URL(uri)
    return origin === this.#connection.apiOrigin || (protocol === 'https:' && hostname.endsWith('.googleapis.com'))
  }

  #lost(operation: string, cause: unknown): Error {
    const again = this.#restarted ? ', again, after it had been begun anew once' : ''
    const what = `the upload session of ${quoteKey(this.#key)} was lost${again}, and bytes that are sent with it`
    const message = `Google Drive: ${what}. The upload must be begun anew.`
    const inner = cause instanceof Error ? { cause: cause.cause } : {}
    return driveError('UNAVAILABLE', operation, message, { key: this.#key, retryable: false, ...inner })
  }

  #fault(operation: string, what: string): Error {
    const message = `Google Drive: the upload session of ${quoteKey(this.#key)} ${what}.`
    return driveError('UNAVAILABLE', operation, message, { key: this.#key })
  }
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300
}
