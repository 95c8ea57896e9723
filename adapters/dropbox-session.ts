import type { files } from 'dropbox'
import type { DropboxConnection } from './dropbox-client.ts'
import { causeOf, senseless, tagsOf } from './dropbox-errors.ts'
import { blockDigests, contentHash } from './dropbox-hash.ts'
import { ADAPTER } from './dropbox-paths.ts'
import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import type { PartBody } from './multipart.ts'
import { abortError } from './retry.ts'

const EMPTY = Buffer.alloc(0)

interface SessionOptions {
  signal: AbortSignal
  onNotice?: ((message: string) => void) | undefined
}

/** What is left of a part once Dropbox has it. */
export interface PartReceipt {
  bytes: number
  digests: Buffer
}

/**
 * One upload session, in the place of the one before where that was lost. Dropbox has no way to cancel one: what is
 * never finished never becomes a file, is nowhere to be seen, counts for no quota, and is gone after seven days.
 */
export class UploadSession {
  readonly #connection: DropboxConnection
  readonly #key: string
  readonly #type: 'concurrent' | 'sequential'
  readonly #onNotice: ((message: string) => void) | undefined
  #id: string
  /** Parts that Dropbox has, and that nobody else has any more. */
  #accepted = 0
  #onAccepted: (() => void) | undefined
  #restarted = false
  #restarting: Promise<void> | undefined
  /** The id of a session that was asked to close: the answer may have been lost. */
  #closing: string | undefined

  private constructor(
    connection: DropboxConnection,
    key: string,
    {
      type,
      id,
      onNotice,
    }: { type: 'concurrent' | 'sequential'; id: string; onNotice: ((message: string) => void) | undefined },
  ) {
    this.#connection = connection
    this.#key = key
    this.#type = type
    this.#id = id
    this.#onNotice = onNotice
  }

  /** Begins a session, in one attempt. @throws StorageError, AbortError */
  static async begin(
    connection: DropboxConnection,
    key: string,
    { signal, type, onNotice }: SessionOptions & { type: 'concurrent' | 'sequential' },
  ): Promise<UploadSession> {
    const id = await startSession(connection, key, type, signal)
    return new UploadSession(connection, key, { type, id, onNotice })
  }

  /**
   * Goes on with a sequential session of another process: one attempt at asking Dropbox what it has. Only an append at
   * the wrong place tells.
   * @returns the session and the bytes it has; the session alone when it is gone, or its file is made; undefined when
   *   it has none.
   */
  static async takeUp(
    connection: DropboxConnection,
    key: string,
    id: string,
    { signal, onNotice }: SessionOptions,
  ): Promise<{ session: UploadSession; held: number | undefined } | undefined> {
    const session = new UploadSession(connection, key, { type: 'sequential', id, onNotice })
    try {
      await session.#send(id, 0, EMPTY, contentHash([]), false, signal)
      return undefined
    } catch (error) {
      const held = causeOf(error)?.correctOffset
      if (held === undefined) {
        if (tagsOf(error).includes('not_found') || tagsOf(error).includes('closed')) return { session, held }
        throw error
      }
      // What it has is in nobody's buffer any more.
      session.#accepted = 1
      return { session, held }
    }
  }

  /** Names it for another process. */
  get id(): string {
    return this.#id
  }

  /**
   * Sends a part, in one attempt. A session that is gone is begun anew, once, while all of its bytes are still here.
   * @throws StorageError; UNAVAILABLE, not to be retried, when a session is lost with bytes that are gone; AbortError.
   */
  async append(part: PartBody, signal: AbortSignal): Promise<PartReceipt> {
    const digests = blockDigests(part.body, this.#connection.blockBytes)
    // Closing ends a concurrent session for every other part.
    if (part.last && this.#type === 'concurrent') await this.#othersAccepted(part.number - 1, signal)
    for (;;) {
      const id = this.#id
      try {
        if (this.#type === 'concurrent') await this.#appendConcurrent(id, part, digests, signal)
        else await this.#appendSequential(id, part, digests, signal)
      } catch (error) {
        if (!tagsOf(error).includes('not_found')) throw error
        await this.#restart(id, error, signal)
        continue
      }
      await this.#restarting
      // Else it went into the session that was lost meanwhile.
      if (id === this.#id) break
    }
    this.#accepted++
    this.#onAccepted?.()
    return { bytes: part.body.length, digests }
  }

  /**
   * Makes a file of the session, in one attempt, without a byte more, as bytes would stay even where the commit fails.
   * @throws StorageError; AbortError.
   */
  async finish(bytes: number, commit: files.CommitInfo, signal: AbortSignal): Promise<files.FileMetadata> {
    const arg = { cursor: { session_id: this.#id, offset: bytes }, commit, contents: EMPTY }
    try {
      return await this.#connection.once('commit', (client, options) => client.filesUploadSessionFinish(arg, options), {
        signal,
        key: this.#key,
      })
    } catch (error) {
      // `not_found` and `closed` may be about our own success, which the caller then finds out.
      throw tagsOf(error).includes('lookup_failed') ? this.#lost('commit', error) : error
    }
  }

  async #appendConcurrent(id: string, part: PartBody, digests: Buffer, signal: AbortSignal): Promise<void> {
    const wasClosing = this.#closing === id
    if (part.last) this.#closing = id
    try {
      await this.#send(id, part.offset, part.body, contentHash([digests]), part.last, signal)
    } catch (error) {
      if (part.last && wasClosing && tagsOf(error).includes('closed')) return
      throw error
    }
  }

  async #appendSequential(id: string, part: PartBody, digests: Buffer, signal: AbortSignal): Promise<void> {
    const { body, offset } = part
    const end = offset + body.length
    for (let at = offset; at < end; ) {
      const rest = body.subarray(at - offset)
      const own = at === offset ? digests : blockDigests(rest, this.#connection.blockBytes)
      try {
        await this.#send(id, at, rest, contentHash([own]), false, signal)
        return
      } catch (error) {
        const held = causeOf(error)?.correctOffset
        if (held === undefined) throw error
        // An append whose answer was lost leaves the session there, or on the way.
        if (held <= at || held > end) throw this.#lost('putPart', error)
        at = held
      }
    }
  }

  async #send(
    id: string,
    offset: number,
    contents: Buffer,
    hash: string,
    close: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const arg = { cursor: { session_id: id, offset }, close, content_hash: hash, contents }
    await this.#connection.once('putPart', (client, options) => client.filesUploadSessionAppendV2(arg, options), {
      signal,
      key: this.#key,
    })
  }

  async #restart(id: string, error: unknown, signal: AbortSignal): Promise<void> {
    if (this.#restarting === undefined) {
      // Another part has found it lost before, and begun the next.
      if (id !== this.#id) return
      if (this.#restarted || this.#accepted > 0) throw this.#lost('putPart', error)
      this.#restarting = startSession(this.#connection, this.#key, this.#type, signal)
        .then((next) => {
          this.#id = next
          this.#restarted = true
          this.#onNotice?.(`Dropbox lost the upload session of ${quoteKey(this.#key)}; another was begun.`)
        })
        .finally(() => {
          this.#restarting = undefined
        })
    }
    await this.#restarting
  }

  /** Waits until Dropbox has so many parts, as far as it has to be waited for. @throws AbortError */
  async #othersAccepted(parts: number, signal: AbortSignal): Promise<void> {
    const onAbort = () => this.#onAccepted?.()
    signal.addEventListener('abort', onAbort)
    try {
      while (this.#accepted < parts) {
        if (signal.aborted) throw abortError(signal)
        await new Promise<void>((resolve) => {
          this.#onAccepted = resolve
        })
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#onAccepted = undefined
    }
  }

  #lost(operation: string, error: unknown): StorageError {
    const message = `Dropbox lost the upload session of ${quoteKey(this.#key)}; the upload must be begun anew.`
    const cause = causeOf(error)
    return new StorageError(message, {
      code: 'UNAVAILABLE',
      adapter: ADAPTER,
      operation,
      key: this.#key,
      retryable: false,
      cause,
    })
  }
}

async function startSession(
  connection: DropboxConnection,
  key: string,
  type: 'concurrent' | 'sequential',
  signal: AbortSignal,
): Promise<string> {
  const arg = { session_type: { '.tag': type }, contents: EMPTY } as const
  const { session_id: id } = await connection.once(
    'begin',
    (client, options) => client.filesUploadSessionStart(arg, options),
    { signal, key },
  )
  if (typeof id !== 'string' || id === '') throw senseless('begin', key)
  return id
}
