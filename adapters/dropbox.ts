import type { Readable, Writable } from 'node:stream'
import type { files } from 'dropbox'
import { DropboxConnection, type Sdk } from './dropbox-client.ts'
import type { DropboxConfig } from './dropbox-config.ts'
import { causeOf, senseless, tagsOf } from './dropbox-errors.ts'
import { ADAPTER } from './dropbox-paths.ts'
import { DropboxWrite } from './dropbox-write.ts'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import { MultipartWritable } from './multipart.ts'
import { probeStorage } from './probe.ts'
import { openPastEnd, readByRanges } from './ranged-read.ts'
import { type OpenedRange, promisedLength, type RangeRequest, readRangeByStream, replaced } from './read.ts'
import { CALL_RETRY, retry, throwIfAborted } from './retry.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from './storage.ts'

export type { DropboxConfig }

/** How often a listing begins again because Dropbox has given its cursor up. */
const LISTING_RESETS_MAX = 10

/**
 * Opens a folder of a Dropbox. Makes no request: the first call does.
 * @throws StorageError INVALID when a setting is missing or contradicts another.
 */
export async function openDropbox(config: DropboxConfig): Promise<Storage> {
  const imported = await import('dropbox')
  // CommonJS, of which a bundler may leave the default alone.
  const sdk = 'Dropbox' in imported ? imported : (imported as unknown as { default: Sdk }).default
  return new DropboxStorage(new DropboxConnection(sdk, config))
}

/**
 * Folders come to be as they are needed, and are left where their last file goes: removing one would remove what another
 * writer puts into it at that moment. They are in no listing.
 *
 * There is no `purgeUnfinished`: Dropbox lists no upload sessions and cancels none. See UploadSession.
 */
class DropboxStorage implements Storage {
  readonly adapter = ADAPTER
  readonly location: string
  readonly conditionalWrites = true
  readonly #connection: DropboxConnection

  constructor(connection: DropboxConnection) {
    const { namespace, rootNamespace } = connection.config
    const id = namespace ?? rootNamespace
    const path = connection.paths.root.split('/').map(encodeURIComponent).join('/')
    this.location = `dropbox://${path}/${id === undefined ? '' : `?namespace=${id}`}`
    this.#connection = connection
  }

  createWriteStream(key: string, options: WriteOptions = {}): Writable {
    const connection = this.#connection
    const write = new DropboxWrite(connection, key, options)
    const { partBytes, callRetry, partRetry } = connection.config
    return new MultipartWritable(write, { ...options, adapter: ADAPTER, key, partBytes, callRetry, partRetry })
  }

  /** There is nothing to ask Dropbox for: what is never finished is seen nowhere, and gone after seven days. */
  async discardUpload(key: string, _upload: string, { signal }: CallOptions = {}): Promise<void> {
    this.#connection.paths.pathOf(key, 'discardUpload')
    throwIfAborted(signal)
  }

  createReadStream(key: string, options: ReadOptions = {}): Readable {
    const path = this.#connection.paths.pathOf(key, 'createReadStream')
    let isOpened = false
    return readByRanges({ adapter: ADAPTER, key }, options, this.#connection.config, async (request) => {
      // By its revision, bytes can be read on when another file has taken their place; but only then.
      const opened = await this.#open(key, isOpened ? `rev:${request.version}` : path, request)
      isOpened = true
      return opened
    })
  }

  async readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    this.#connection.paths.pathOf(key, 'readRange')
    return readRangeByStream(this, key, offset, length, options)
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    const { callRetry = CALL_RETRY } = this.#connection.config
    const path = this.#connection.paths.pathOf(key, 'stat')
    return retry(async () => this.#statOf(key, await this.#lookUp('stat', key, path, options)), callRetry, {
      signal: options.signal,
    })
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    // Dropbox lists what changes meanwhile once more, and all of it again when it has given the cursor up.
    const seen = new Set<string>()
    const folder = this.#connection.paths.folderOf(prefix)
    if (folder === undefined) return
    for await (const entry of this.#entries(folder, options)) {
      if (entry['.tag'] !== 'file') continue
      const key = this.#connection.paths.keyOf(entry.path_display)
      if (key === undefined || !key.startsWith(prefix) || seen.has(key)) continue
      seen.add(key)
      yield this.#statOf(key, entry)
    }
  }

  /** Looks first: to Dropbox a folder, with all that is in it, may have the name too, or a file in another case. */
  async delete(key: string, options: CallOptions = {}): Promise<void> {
    const { callRetry = CALL_RETRY } = this.#connection.config
    const path = this.#connection.paths.pathOf(key, 'delete')
    const { signal } = options
    const attempt = async () => {
      try {
        const { rev } = await this.#lookUp('delete', key, path, options)
        const arg = { path, parent_rev: rev }
        await this.#connection.once('delete', (client, sending) => client.filesDeleteV2(arg, sending), { signal, key })
      } catch (error) {
        if (error instanceof StorageError && error.code === 'NOT_FOUND') return
        // Replaced since the look.
        if (tagsOf(error).includes('conflict'))
          throw this.#error('UNAVAILABLE', 'delete', key, 'was replaced meanwhile', error)
        throw error
      }
    }
    await retry(attempt, callRetry, { signal })
  }

  probe(options: CallOptions = {}): Promise<ProbeReport> {
    const signIn = async () => {
      try {
        for await (const _ of this.#entries(this.#connection.paths.root, options)) break
      } catch (error) {
        // A permission that is missing, or a root that is none, shows in its own step.
        const tags = tagsOf(error)
        if (!tags.includes('missing_scope') && !tags.includes('not_folder')) throw error
      }
    }
    return probeStorage(this, signIn, options)
  }

  async close(): Promise<void> {
    this.#connection.close()
  }

  /** @throws StorageError NOT_FOUND where there is no file, or one whose name differs in case; UNAVAILABLE for no answer. */
  async #lookUp(
    operation: string,
    key: string,
    path: string,
    { signal }: CallOptions,
  ): Promise<files.FileMetadataReference> {
    const there = await this.#connection.once(
      operation,
      (client, sending) => client.filesGetMetadata({ path }, sending),
      { signal, key },
    )
    // Of something in between: taken for absent, a delete of it would be told as done.
    if (typeof there?.['.tag'] !== 'string') throw senseless(operation, key)
    if (there['.tag'] === 'file' && this.#connection.paths.keyOf(there.path_display) === key) return there
    throw this.#error('NOT_FOUND', operation, key, 'is not there')
  }

  #statOf(key: string, metadata: files.FileMetadata): ObjectStat {
    const { size, rev, server_modified: modified, content_hash: hash } = metadata
    if (typeof size !== 'number' || typeof rev !== 'string') throw senseless('stat', key)
    return {
      key,
      size,
      modified: new Date(modified),
      version: rev,
      ...(hash === undefined ? {} : { checksum: { algorithm: 'dropbox-content-hash', value: hash } }),
    }
  }

  /** All beneath a folder, to any depth; nothing where there is no such folder. */
  async *#entries(folder: string, { signal }: CallOptions): AsyncGenerator<files.ListFolderResult['entries'][number]> {
    const { pageSize } = this.#connection.config
    const arg = {
      path: folder,
      recursive: true,
      include_non_downloadable_files: false,
      ...(pageSize === undefined ? {} : { limit: pageSize }),
    }
    let cursor: string | undefined
    for (let resets = 0; ; ) {
      let page: files.ListFolderResult
      try {
        page = await this.#connection.call(
          'list',
          (client, sending) =>
            cursor === undefined
              ? client.filesListFolder(arg, sending)
              : client.filesListFolderContinue({ cursor }, sending),
          { signal },
        )
      } catch (error) {
        const tags = tagsOf(error)
        if (tags.includes('reset')) {
          if (++resets > LISTING_RESETS_MAX) throw this.#endlessListing(error)
          cursor = undefined
          continue
        }
        if (!(error instanceof StorageError && error.code === 'NOT_FOUND')) throw error
        // Between two pages, that would be a short list.
        if (cursor !== undefined) throw error
        // The root as a file is a mistake in the settings.
        if (!tags.includes('not_folder') || folder !== this.#connection.paths.root) return
        throw this.#error('INVALID', 'list', folder, 'is a file, and cannot be the root', error)
      }
      if (!Array.isArray(page?.entries)) throw senseless('list', undefined)
      for (const entry of page.entries) {
        throwIfAborted(signal)
        if (typeof entry?.['.tag'] !== 'string') throw senseless('list', undefined)
        yield entry
      }
      if (!page.has_more) return
      if (!page.cursor) throw senseless('list', undefined)
      cursor = page.cursor
    }
  }

  async #open(key: string, path: string, request: RangeRequest): Promise<OpenedRange> {
    const { start, end, version, signal } = request
    // Of a whole object too: only the Content-Range says how long it is when the answer is cut.
    const range = `bytes=${start}-${end ?? ''}`
    try {
      const { metadata, headers, body } = await this.#connection.download(path, range, { signal, key })
      const length = promisedLength(start, end, {
        contentRange: headers['content-range'],
        contentLength: headers['content-length'] === undefined ? undefined : Number(headers['content-length']),
      })
      const isOther = path.startsWith('/') && this.#connection.paths.keyOf(metadata.path_display) !== key
      const isReplaced = version !== undefined && metadata.rev !== version
      if (length !== undefined && !isOther && !isReplaced) return { body, length, version: metadata.rev }
      body.on('error', () => {}).destroy()
      if (isOther) throw this.#error('NOT_FOUND', 'read', key, 'is not there')
      if (isReplaced) throw replaced({ adapter: ADAPTER, key })
      throw this.#error('CORRUPT', 'read', key, 'was answered with another range than was asked for')
    } catch (error) {
      if (causeOf(error)?.status === 416) return openPastEnd(this, key, request)
      throw error
    }
  }

  #endlessListing(error: unknown): StorageError {
    const message = `Dropbox: listing the folder failed: it was begun anew ${LISTING_RESETS_MAX} times; try again later.`
    return new StorageError(message, {
      code: 'UNAVAILABLE',
      adapter: ADAPTER,
      operation: 'list',
      cause: causeOf(error),
    })
  }

  #error(
    code: 'NOT_FOUND' | 'INVALID' | 'CORRUPT' | 'UNAVAILABLE',
    operation: string,
    key: string,
    what: string,
    error?: unknown,
  ): StorageError {
    const message = `The object ${quoteKey(key)} ${what}.`
    return new StorageError(message, { code, adapter: ADAPTER, operation, key, cause: causeOf(error) })
  }
}
