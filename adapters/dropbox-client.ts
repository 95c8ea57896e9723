import { Readable } from 'node:stream'
import type { Dropbox, DropboxResponse, files } from 'dropbox'
import { checkConfig, type DropboxConfig, parseEndpoint } from './dropbox-config.ts'
import { asRetryable, isTokenRefused, senseless, toStorageError } from './dropbox-errors.ts'
import { BLOCK_BYTES } from './dropbox-hash.ts'
import { DropboxPaths } from './dropbox-paths.ts'
import { createTextFetch, HttpClient, type HttpResponse, targetOf } from './http.ts'
import { DROPBOX_OAUTH, RefreshedToken } from './oauth.ts'
import { CALL_RETRY, retry, throwIfAborted } from './retry.ts'

export type Sdk = typeof import('dropbox')

const CONNECT_MS = 10_000
/** Dropbox says nothing while it makes a file of a session, which takes it longer the larger it is. */
const IDLE_MS = 60_000
const API = 'https://api.dropboxapi.com'

export interface DropboxCallOptions {
  signal?: AbortSignal | undefined
  key?: string | undefined
}

/** Sends one request with the SDK's client. */
export type Send<T> = (client: Dropbox, options: { signal?: AbortSignal }) => Promise<DropboxResponse<T>>

/** What a download's answer begins with. */
export interface OpenedDownload {
  /** Of the file, whole. */
  metadata: files.FileMetadata
  headers: Record<string, string>
  body: Readable
}

interface Tokens {
  get(signal?: AbortSignal): Promise<string>
  /** @throws when there is no other. */
  renew?(refused: string, signal?: AbortSignal): Promise<string>
}

/** One folder of one account: the SDK's client, paths, tokens, and errors that say what was asked for. */
export class DropboxConnection {
  readonly config: DropboxConfig
  readonly paths: DropboxPaths
  readonly blockBytes: number
  readonly #sdk: Sdk
  readonly #http: HttpClient
  readonly #fetch: typeof fetch
  readonly #tokens: Tokens
  readonly #endpoint: URL | undefined
  /** The SDK's constructor copies each of its some 280 methods: one client a token, not one a request. */
  #kept: { token: string; client: Dropbox } | undefined

  /** @throws StorageError INVALID when a setting cannot be meant so. */
  constructor(sdk: Sdk, config: DropboxConfig) {
    checkConfig(config)
    this.#sdk = sdk
    this.config = config
    this.paths = new DropboxPaths(config.root)
    this.blockBytes = config.blockBytes ?? BLOCK_BYTES
    this.#endpoint = config.endpoint === undefined ? undefined : parseEndpoint(config.endpoint)
    this.#http = new HttpClient({ connectMs: CONNECT_MS, idleMs: config.idleMs ?? IDLE_MS })
    this.#fetch = lightFetch(this.#http)
    this.#tokens = this.#openTokens()
  }

  /** One attempt at one request; a second one with another token where the first's is refused. */
  async once<T>(operation: string, send: Send<T>, options: DropboxCallOptions = {}): Promise<T> {
    const { signal, key } = options
    const sending = signal ? { signal } : {}
    const { result } = await this.#authorised(operation, options, (token) => send(this.#clientOf(token), sending))
    // What is not JSON the SDK passes on as the text that it is.
    if (typeof result === 'string') throw senseless(operation, key)
    return result
  }

  /** As `once`, and again while the error is one that may pass. */
  call<T>(operation: string, send: Send<T>, options: DropboxCallOptions = {}): Promise<T> {
    const { callRetry = CALL_RETRY } = this.config
    return retry(() => this.once(operation, send, options), callRetry, { signal: options.signal })
  }

  /**
   * Opens a range of a file, in one attempt. The SDK would read all of it into memory, so it is given an empty body, and
   * the real one is taken past it.
   * @param path of a file, or `rev:` and a revision.
   */
  async download(path: string, range: string, options: DropboxCallOptions): Promise<OpenedDownload> {
    const { signal, key } = options
    return this.#authorised('read', options, async (token) => {
      let taken: HttpResponse | undefined
      const client = this.#client(token, async (input, init = {}) => {
        const headers = { ...Object.fromEntries(new Headers(init.headers)), 'content-length': '0' }
        const answer = await this.#http.request({ ...targetOf(String(input)), method: 'POST', headers, signal })
        if (answer.status >= 300) return new Response(Readable.toWeb(answer.body) as ReadableStream, answer)
        taken = answer
        return new Response(null, { status: answer.status, headers: answer.headers })
      })
      try {
        const asking = { extraHeaders: { Range: range }, ...(signal ? { signal } : {}) }
        const { result } = await client.filesDownload({ path }, asking)
        if (!taken || typeof result?.size !== 'number') throw senseless('read', key)
        return { metadata: result, headers: taken.headers, body: taken.body }
      } catch (error) {
        taken?.body.on('error', () => {}).destroy()
        // The metadata comes in a header: that is not JSON, or there is none, as of a page from something in between.
        throw error instanceof SyntaxError || error instanceof TypeError ? senseless('read', key) : error
      }
    })
  }

  close(): void {
    this.#http.destroy()
  }

  async #authorised<T>(
    operation: string,
    { signal, key }: DropboxCallOptions,
    send: (token: string) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal)
    const attempt = async (token: string) => {
      try {
        return await send(token)
      } catch (error) {
        throw toStorageError(error, operation, this.#endpoint?.origin ?? API, key)
      }
    }
    const token = await this.#tokens.get(signal)
    try {
      return await attempt(token)
    } catch (error) {
      if (!isTokenRefused(error) || !this.#tokens.renew) throw error
    }
    const renewed = await this.#tokens.renew(token, signal)
    try {
      return await attempt(renewed)
    } catch (error) {
      // Just made, and not known everywhere yet. Where the access was revoked, `renew` has said so.
      throw isTokenRefused(error) ? asRetryable(error) : error
    }
  }

  #clientOf(token: string): Dropbox {
    if (this.#kept?.token !== token) this.#kept = { token, client: this.#client(token, this.#fetch) }
    return this.#kept.client
  }

  /** The SDK's own tokens are of no use: it puts the secrets into a URL, and renews nothing that is refused. */
  #client(token: string, send: typeof fetch): Dropbox {
    const { namespace, rootNamespace } = this.config
    const directed: typeof fetch = (input, init) => send(this.#direct(String(input)), init)
    const options = { accessToken: token, fetch: directed }
    if (namespace !== undefined) return this.#rooted(options, { '.tag': 'namespace_id', namespace_id: namespace })
    if (rootNamespace !== undefined) return this.#rooted(options, { '.tag': 'root', root: rootNamespace })
    return new this.#sdk.Dropbox(options)
  }

  #rooted(options: { accessToken: string; fetch: typeof fetch }, root: Record<string, string>): Dropbox {
    return new this.#sdk.Dropbox({ ...options, pathRoot: JSON.stringify(root) })
  }

  #direct(url: string): string {
    if (this.#endpoint === undefined) return url
    const { pathname, search } = new URL(url)
    return new URL(pathname + search, this.#endpoint).href
  }

  #openTokens(): Tokens {
    const { clientId = '', clientSecret, refreshToken, accessToken } = this.config
    if (refreshToken === undefined) return { get: async () => accessToken ?? '' }
    const provider = { ...DROPBOX_OAUTH, tokenUrl: this.#direct(DROPBOX_OAUTH.tokenUrl) }
    return new RefreshedToken({ provider, clientId, clientSecret, http: this.#http }, refreshToken)
  }
}

/** Of a good answer only what the SDK looks at: there is one for each part of an upload. */
function lightFetch(http: HttpClient): typeof fetch {
  const ask = createTextFetch(http)
  const send = async (input: string | URL | Request, init?: RequestInit) => {
    const { status, headers, text } = await ask(input, init)
    if (status >= 300) return new Response(text, { status, headers })
    return { ok: true, status, headers, text: async () => text }
  }
  return send as unknown as typeof fetch
}
