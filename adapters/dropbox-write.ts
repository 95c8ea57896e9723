import type { files } from 'dropbox'
import type { DropboxConnection, Send } from './dropbox-client.ts'
import { asRetryable, senseless, tagsOf } from './dropbox-errors.ts'
import { BLOCK_BYTES, blockDigests, contentHash } from './dropbox-hash.ts'
import { ADAPTER } from './dropbox-paths.ts'
import { type PartReceipt, UploadSession } from './dropbox-session.ts'
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
import type { WriteOptions } from './storage.ts'

/** https://www.dropbox.com/developers/documentation/http/documentation#files-upload_session-append */
const REQUEST_MAX_BYTES = 150 * 1024 * 1024
export const FILE_MAX_BYTES = 2 ** 41 - 2 ** 22
/** More than RING_BYTES allows. */
const APPENDS_AT_ONCE = 8

/** What Dropbox allows of an upload in parts. */
export function dropboxRules({
  blockBytes = BLOCK_BYTES,
  session,
}: {
  blockBytes?: number | undefined
  session?: 'concurrent' | 'sequential' | undefined
}): MultipartRules {
  return {
    minPartBytes: blockBytes,
    maxPartBytes: REQUEST_MAX_BYTES,
    alignBytes: blockBytes,
    maxParts: Number.POSITIVE_INFINITY,
    maxObjectBytes: FILE_MAX_BYTES,
    concurrency: session === 'sequential' ? 1 : APPENDS_AT_ONCE,
  }
}

/**
 * One write to one key.
 *
 * Dropbox has no field for an id of ours that needs no further permission. Which file is ours is told by the revision
 * of the answer; where the answer was lost, by all of: it is not the revision that was there before, it has our bytes
 * (`content_hash`) and our `client_modified`, a time in whole seconds. Somebody else's file is taken for ours only when
 * they store the same bytes under the same key, with that same second, while our own answer is lost.
 *
 * A write replaces the revision that it has looked at, and nothing else (`update`), or makes a file (`add`): so it
 * never replaces a file whose name differs from the key in case, which Dropbox takes for the same.
 */
export class DropboxWrite implements MultipartPrimitives<UploadSession, PartReceipt> {
  readonly rules: MultipartRules
  readonly #connection: DropboxConnection
  readonly #key: string
  readonly #path: string
  readonly #ifAbsent: boolean
  readonly #sessionType: 'concurrent' | 'sequential'
  readonly #onNotice: WriteOptions['onNotice']
  #expected = { bytes: 0, hash: '' }
  #clientModified: string | undefined
  /** The revision that was there before the first attempt to commit. */
  #before: string | undefined
  #looked = false
  /** Whether the answer to an attempt was lost, so that Dropbox may be at work on it yet. */
  #inDoubt = false
  /** The file that what was taken up is by now, as no other is written under this key. */
  #committed: files.FileMetadata | undefined
  /** As answered. */
  #written: { rev: string; isNew: boolean } | undefined
  /** What `find` called ours. */
  #found: { rev: string; isNew: boolean } | undefined

  constructor(connection: DropboxConnection, key: string, { ifAbsent = false, journal, onNotice }: WriteOptions) {
    const { blockBytes, config } = connection
    // A concurrent session does not say what it has.
    this.#sessionType = journal ? 'sequential' : (config.session ?? 'concurrent')
    this.rules = dropboxRules({ blockBytes, session: this.#sessionType })
    this.#connection = connection
    this.#key = key
    this.#path = connection.paths.pathOf(key, 'createWriteStream')
    this.#ifAbsent = ifAbsent
    this.#onNotice = onNotice
  }

  async putWhole(body: Buffer, { signal }: PrimitiveRequest): Promise<void> {
    const hash = contentHash([blockDigests(body, this.#connection.blockBytes)])
    await this.#commit('putWhole', { bytes: body.length, hash }, signal, (commit) => {
      const arg = { ...commit, content_hash: hash, contents: body }
      return this.#once('putWhole', signal, (client, options) => client.filesUpload(arg, options))
    })
  }

  begin({ signal }: PrimitiveRequest): Promise<UploadSession> {
    const options = { type: this.#sessionType, signal, onNotice: this.#onNotice }
    return UploadSession.begin(this.#connection, this.#key, options)
  }

  nameOf(session: UploadSession): string {
    return session.id
  }

  /** Dropbox gives none for a part. */
  checksumOf({ digests }: PartReceipt): string {
    return contentHash([digests])
  }

  /** Dropbox says how many bytes it has, and no sum of them: the file's own is compared in the end. */
  async takeUp(
    name: string,
    { signal }: PrimitiveRequest,
    sureBytes: number,
  ): Promise<TakenUp<UploadSession, PartReceipt> | undefined> {
    const options = { signal, onNotice: this.#onNotice }
    const taken = await UploadSession.takeUp(this.#connection, this.#key, name, options)
    if (!taken) return undefined
    const { session, held } = taken
    if (held === undefined) {
      // The run that had it may have died when it had asked for the commit.
      const there = await this.#look('takeUp', signal)
      if (there?.['.tag'] !== 'file' || there.size > sureBytes) return undefined
      this.#committed = there
    } else if (held > sureBytes) return undefined
    return { upload: session, receiptOf: (part) => this.#receiptOf(part, held ?? Number.POSITIVE_INFINITY) }
  }

  #receiptOf({ body, offset }: PartBody, held: number): PartReceipt | undefined {
    if (offset + body.length > held) return undefined
    return { bytes: body.length, digests: blockDigests(body, this.#connection.blockBytes) }
  }

  putPart(session: UploadSession, part: PartBody, { signal }: PrimitiveRequest): Promise<PartReceipt> {
    return session.append(part, signal)
  }

  async commit(session: UploadSession, receipts: PartReceipt[], { signal }: PrimitiveRequest): Promise<void> {
    const bytes = receipts.reduce((sum, receipt) => sum + receipt.bytes, 0)
    const hash = contentHash(receipts.map(({ digests }) => digests))
    if (this.#committed) {
      this.#expected = { bytes, hash }
      this.#written = { rev: this.#committed.rev, isNew: true }
      return
    }
    await this.#commit('commit', { bytes, hash }, signal, (commit) => session.finish(bytes, commit, signal))
  }

  /** There is nothing to ask Dropbox for; see UploadSession. */
  async abort(): Promise<void> {}

  async find({ signal }: PrimitiveRequest): Promise<FoundObject | undefined> {
    const there = await this.#look('stat', signal)
    if (there?.['.tag'] !== 'file') return undefined
    const ours = this.#written === undefined ? this.#seemsOurs(there) : there.rev === this.#written.rev
    this.#found = ours ? { rev: there.rev, isNew: this.#written?.isNew ?? true } : undefined
    return { size: there.size, ours, damage: ours ? this.#damage(there) : undefined }
  }

  async remove({ signal }: PrimitiveRequest): Promise<void> {
    // The same bytes were there already, so Dropbox wrote nothing, and nothing of ours is there.
    if (this.#found?.isNew) await this.#removeRevision(this.#found.rev, signal)
  }

  async #commit(
    operation: string,
    expected: { bytes: number; hash: string },
    signal: AbortSignal,
    send: (commit: files.CommitInfo) => Promise<files.FileMetadata>,
  ): Promise<void> {
    this.#expected = expected
    this.#clientModified ??= `${new Date().toISOString().slice(0, 19)}Z`
    const mode = await this.#mode(operation, signal)
    // An attempt before this one has made it.
    if (mode === undefined) return
    const commit: files.CommitInfo = {
      path: this.#path,
      mode,
      autorename: false,
      mute: true,
      // Where the same bytes are there already: a conflict for ifAbsent, and success for all others.
      strict_conflict: this.#ifAbsent,
      client_modified: this.#clientModified,
    }
    try {
      await this.#accept(operation, await send(commit), signal)
    } catch (error) {
      const mayPass = this.#ifAbsent ? error : retryableWhenStale(error)
      // A session that is gone, or closed, may be on its way to be our file.
      const isLost = mayPass instanceof StorageError && mayPass.code === 'UNAVAILABLE' && !mayPass.retryable
      if (isLost && this.#inDoubt) throw asRetryable(mayPass)
      this.#inDoubt ||= mayPass instanceof StorageError && mayPass.code === 'UNAVAILABLE' && mayPass.retryable
      throw mayPass
    }
  }

  /** What the commit is to replace; undefined when our own file is there already. */
  async #mode(operation: string, signal: AbortSignal): Promise<files.WriteMode | undefined> {
    if (this.#ifAbsent) return { '.tag': 'add' }
    const there = await this.#look(operation, signal)
    const isFirst = !this.#looked
    this.#looked = true
    if (there === undefined) return { '.tag': 'add' }
    if (there['.tag'] !== 'file') throw this.#conflict(operation, 'is the name of a folder in Dropbox')
    const isOurs = !isFirst && this.#seemsOurs(there)
    if (isFirst) this.#before = there.rev
    if (isOurs) {
      await this.#accept(operation, there, signal)
      return undefined
    }
    this.#checkName(operation, there)
    return { '.tag': 'update', update: there.rev }
  }

  /** @throws StorageError CONFLICT when Dropbox has put it under another name, from where it is then removed. */
  async #accept(operation: string, metadata: files.FileMetadata, signal: AbortSignal): Promise<void> {
    if (typeof metadata?.rev !== 'string') throw senseless(operation, this.#key)
    const isNew = metadata.rev !== this.#before && isSameTime(metadata.client_modified, this.#clientModified)
    try {
      this.#checkName(operation, metadata)
    } catch (error) {
      if (isNew) await this.#removeRevision(metadata.rev, signal)
      throw error
    }
    this.#written = { rev: metadata.rev, isNew }
  }

  #checkName(operation: string, { path_display: path }: files.FileMetadata): void {
    const other = this.#connection.paths.keyOf(path)
    if (other === this.#key) return
    const name = other === undefined ? 'another name' : `the name ${quoteKey(other)}`
    throw this.#conflict(operation, `is in Dropbox under ${name}, and Dropbox does not tell upper from lower case`)
  }

  #seemsOurs({ rev, size, content_hash: hash, client_modified: time }: files.FileMetadata): boolean {
    const { bytes, hash: expected } = this.#expected
    return rev !== this.#before && size === bytes && hash === expected && isSameTime(time, this.#clientModified)
  }

  #damage({ content_hash: hash }: files.FileMetadata): string | undefined {
    if (hash === undefined || hash === this.#expected.hash) return undefined
    return `has the content_hash ${hash} at Dropbox, and its bytes give ${this.#expected.hash}`
  }

  async #look(operation: string, signal: AbortSignal) {
    try {
      const arg = { path: this.#path }
      const there = await this.#once(operation, signal, (client, options) => client.filesGetMetadata(arg, options))
      // Of something in between: it says neither that a file is there nor that there is none.
      if (typeof there?.['.tag'] !== 'string') throw senseless(operation, this.#key)
      return there
    } catch (error) {
      if (error instanceof StorageError && error.code === 'NOT_FOUND') return undefined
      throw error
    }
  }

  async #removeRevision(rev: string, signal: AbortSignal): Promise<void> {
    const arg = { path: this.#path, parent_rev: rev }
    try {
      await this.#once('abort', signal, (client, options) => client.filesDeleteV2(arg, options))
    } catch (error) {
      // Gone, or replaced by somebody else.
      if (!(error instanceof StorageError && ['NOT_FOUND', 'CONFLICT'].includes(error.code))) throw error
    }
  }

  #once<T>(operation: string, signal: AbortSignal, send: Send<T>): Promise<T> {
    return this.#connection.once(operation, send, { signal, key: this.#key })
  }

  #conflict(operation: string, what: string): StorageError {
    const message = `The key ${quoteKey(this.#key)} ${what}.`
    return new StorageError(message, { code: 'CONFLICT', adapter: ADAPTER, operation, key: this.#key })
  }
}

/** Somebody wrote between our look and our commit: the next attempt looks again. */
function retryableWhenStale(error: unknown): unknown {
  const tags = tagsOf(error)
  return error instanceof StorageError && tags.includes('conflict') && tags.includes('file')
    ? asRetryable(error)
    : error
}

function isSameTime(one: string | undefined, other: string | undefined): boolean {
  return one !== undefined && other !== undefined && Date.parse(one) === Date.parse(other)
}
