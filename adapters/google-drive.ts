import { Readable } from 'node:stream'
import { DriveCatalog } from './google-drive-catalog.ts'
import {
  checkConfig,
  type DriveCall,
  DriveConnection,
  type GoogleDriveConfig,
  loadSdk,
  locationOf,
} from './google-drive-client.ts'
import { ADAPTER, driveError, reasonOf, statusOf } from './google-drive-errors.ts'
import { type DriveFile, parseVersion } from './google-drive-files.ts'
import { checkRoot } from './google-drive-root.ts'
import { UploadSession } from './google-drive-session.ts'
import { DRIVE_PART_BYTES, DriveWrite, sessionUriOf } from './google-drive-write.ts'
import type { HttpResponse } from './http.ts'
import { checkKey, quoteKey } from './keys.ts'
import { MultipartWritable } from './multipart.ts'
import { probeStorage } from './probe.ts'
import { readByRanges } from './ranged-read.ts'
import { type OpenedRange, type RangeRequest, readRangeByStream, replaced } from './read.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from './storage.ts'

export type { GoogleDriveConfig }

/**
 * Opens a folder of a Google Drive. Makes no request: the first call does.
 * @throws StorageError INVALID when a setting is missing or contradicts another.
 */
export async function openGoogleDrive(config: GoogleDriveConfig): Promise<Storage> {
  checkConfig(config)
  return new GoogleDriveStorage(new DriveConnection(await loadSdk(), config))
}

/**
 * There is no `purgeUnfinished`: Drive lists no upload sessions. One that is left over is seen by nobody, counts
 * towards no quota, and expires after a week.
 */
class GoogleDriveStorage implements Storage {
  readonly adapter = ADAPTER
  readonly location: string
  /** Names are not unique in Drive, and nothing makes a file only where there is none of its name. */
  readonly conditionalWrites = false
  readonly #connection: DriveConnection
  readonly #catalog: DriveCatalog

  constructor(connection: DriveConnection) {
    this.location = locationOf(connection.config)
    this.#connection = connection
    this.#catalog = new DriveCatalog(connection)
  }

  createWriteStream(key: string, options: WriteOptions = {}): MultipartWritable<unknown, string> {
    checkKey(key, ADAPTER, 'createWriteStream')
    if (options.ifAbsent) {
      const message = 'ifAbsent was asked for, and Google Drive cannot honour it: its names are not unique.'
      throw driveError('INVALID', 'createWriteStream', message, { key })
    }
    const { partBytes = DRIVE_PART_BYTES, callRetry, partRetry } = this.#connection.config
    const write = new DriveWrite(this.#connection, this.#catalog, key, options.onNotice)
    return new MultipartWritable(write, { ...options, adapter: ADAPTER, key, partBytes, callRetry, partRetry })
  }

  createReadStream(key: string, options: ReadOptions = {}): Readable {
    checkKey(key, ADAPTER, 'createReadStream')
    const open = (request: RangeRequest) => this.#open(key, request)
    return readByRanges({ adapter: ADAPTER, key }, options, this.#connection.config, open)
  }

  async readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    checkKey(key, ADAPTER, 'readRange')
    return readRangeByStream(this, key, offset, length, options)
  }

  async stat(key: string, { signal }: CallOptions = {}): Promise<ObjectStat> {
    checkKey(key, ADAPTER, 'stat')
    const file = await this.#connection.again(() => this.#catalog.lookup(key, { signal, key }), signal)
    return statOf(key, file)
  }

  async *list(prefix: string, { signal }: CallOptions = {}): AsyncGenerator<ObjectStat> {
    const call = { signal, retries: true }
    for await (const { key, file } of this.#catalog.list(prefix, call)) yield statOf(key, file)
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key, ADAPTER, 'delete')
    await this.#catalog.delete(key, { signal, key, retries: true })
  }

  probe({ signal }: CallOptions = {}): Promise<ProbeReport> {
    const signIn = async () => {
      await this.#connection.signIn({ signal })
      await checkRoot(this.#connection, { signal })
    }
    return probeStorage(this, signIn, signal ? { signal } : {})
  }

  async discardUpload(key: string, upload: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key, ADAPTER, 'discardUpload')
    const uri = sessionUriOf(upload)
    if (uri === undefined) {
      const message = `What was given for the upload of ${quoteKey(key)} names none.`
      throw driveError('INVALID', 'discardUpload', message, { key })
    }
    const session = new UploadSession(this.#connection, { id: '', name: '', parent: '' }, key)
    await this.#connection.again(() => session.cancelOther(uri, { signal, key }), signal)
  }

  async close(): Promise<void> {
    this.#connection.close()
  }

  /**
   * Opens bytes of one revision. Files that were written here never change: a replacement is another file. Others may,
   * as when somebody uploads a new version in the browser, so the revision is asked for once the bytes are on their
   * way: it is the one that was meant, or none of them is given out.
   */
  async #open(key: string, { start, end, version, signal }: RangeRequest): Promise<OpenedRange> {
    const call = { signal, key }
    const meant = version === undefined ? await this.#catalog.lookup(key, call) : parseVersion(version)
    if (meant === undefined) throw await this.#whyNot(key, call)
    const last = Math.min(end ?? meant.size - 1, meant.size - 1)
    const isEmpty = start > last
    const answer = isEmpty ? undefined : await this.#media(meant.id, `bytes=${start}-${last}`, call)
    try {
      const found = await this.#catalog.get(meant.id, 'read', call)
      const isMeant = found?.version === (version ?? (meant as DriveFile).version)
      const isWhole = isEmpty || (answer !== undefined && answersRange(answer, start, last, meant.size))
      if (found && isMeant && isWhole && found.name === this.#catalog.folders.placeOf(key).name) {
        const body = answer?.body ?? Readable.from([])
        return { body, length: isEmpty ? 0 : last - start + 1, version: found.version }
      }
      if (version !== undefined) throw await this.#whyNot(key, call)
      if (!found) this.#catalog.noteGone(meant.id)
      throw this.#catalog.lagging(key)
    } catch (error) {
      answer?.body.on('error', () => {}).destroy()
      throw error
    }
  }

  /**
   * Of a file that Google takes for malware its owner gets the bytes on request, which nobody runs here.
   * https://developers.google.com/workspace/drive/api/reference/rest/v3/files/get: acknowledgeAbuse
   * @returns undefined when there is no such file, or no such range of it.
   */
  async #media(id: string, range: string, call: DriveCall, more = ''): Promise<HttpResponse | undefined> {
    const url = `${this.#connection.apiOrigin}/drive/v3/files/${id}?alt=media&supportsAllDrives=true${more}`
    const request = { method: 'GET', url, headers: { range }, ...call }
    try {
      return await this.#connection.raw('read', request, (status) => status === 206 || status === 200)
    } catch (error) {
      if (statusOf(error) === 404 || statusOf(error) === 416) return undefined
      const isRefused = reasonOf(error) === 'cannotDownloadAbusiveFile' && more === ''
      if (isRefused) return this.#media(id, range, call, '&acknowledgeAbuse=true')
      throw error
    }
  }

  /** What to say where the version that was asked for is not there: it was replaced, or nothing is there. */
  async #whyNot(key: string, call: DriveCall): Promise<unknown> {
    try {
      await this.#catalog.lookup(key, call)
      return replaced({ adapter: ADAPTER, key })
    } catch (error) {
      return error
    }
  }
}

function answersRange({ status, headers }: HttpResponse, start: number, last: number, size: number): boolean {
  if (status === 206) return headers['content-range'] === `bytes ${start}-${last}/${size}`
  return start === 0 && last === size - 1
}

function statOf(key: string, { size, modified, version, sha256, md5 }: DriveFile): ObjectStat {
  const checksum = sha256 ? { algorithm: 'sha256', value: sha256 } : md5 ? { algorithm: 'md5', value: md5 } : undefined
  return { key, size, modified, version, ...(checksum ? { checksum } : {}) }
}
