import { createRequire } from 'node:module'
import type { OAuth2Client } from 'google-auth-library'
import type { drive_v3 } from 'googleapis/build/src/apis/drive/v3.js'
import type { StorageError } from './errors.ts'
import { ADAPTER, driveError, refusalOf, statusOf, toStorageError } from './google-drive-errors.ts'
import { createFetch, HttpClient, type HttpResponse, readText, targetOf } from './http.ts'
import { checkKey } from './keys.ts'
import { abortError, CALL_RETRY, type RetryPolicy, retry, throwIfAborted } from './retry.ts'

const CONNECT_MS = 10_000
/** Drive takes its time over the end of a large upload. */
const IDLE_MS = 60_000
const API_ORIGIN = 'https://www.googleapis.com'
const TOKEN_URL = 'https://oauth2.googleapis.com/token'
/** Asked for at once, so that a write costs no further request. */
const IDS_AT_ONCE = 20
/** https://developers.google.com/workspace/drive/api/guides/about-files: names of folders that stand for themselves. */
const ROOT = 'root'
const APP_DATA = 'appDataFolder'

/** Settings of a folder in Google Drive; see docs/providers/google-drive.md. */
export interface GoogleDriveConfig {
  clientId: string
  clientSecret: string
  refreshToken: string
  /** The folder in which everything lives, by its id, as the browser shows it in its address. */
  folderId?: string
  /** The same by its path from the root, `backups/minecraft`; created at the first write when it is missing. */
  folder?: string
  /** The hidden folder of this app instead: nobody sees it in the browser, and it needs the scope drive.appdata. */
  appData?: boolean
  /** The shared drive that the folder is in. Without a folder: the shared drive's own root. */
  sharedDriveId?: string
  /** Bytes of one request of an upload at least, a multiple of 256 KiB. Default 16 MiB; an upload holds two of them. */
  partBytes?: number
  /** Files in one page of a listing, up to 1,000, which is the default. */
  pageSize?: number
  /** Time without a byte in either direction after which a request is given up. Default 60,000. */
  idleMs?: number
  /** Bounds the attempts at one call. */
  callRetry?: RetryPolicy
  /** Bounds the attempts at one part, at a commit, and at going on with a read. */
  partRetry?: RetryPolicy
  /** For proxies and tests: origins in place of Google's. */
  endpoints?: { api?: string; token?: string }
}

/** Where objects live: a folder's id, or a path of names beneath `top`. */
export interface DriveRoot {
  top: string
  path: string[]
}

export interface DriveCall {
  signal?: AbortSignal | undefined
  key?: string | undefined
  /** Each request is made again while it fails with what may pass. Absent: whoever calls does so. */
  retries?: boolean | undefined
}

/** A request that goes past the SDK, for its body or its answer. */
export interface RawRequest extends DriveCall {
  method: string
  url: string
  headers?: Record<string, string>
  body?: Uint8Array | string
  /** Not sent again where the token is refused: that is then an error, and the next request has a new token. */
  once?: boolean
}

interface SdkOptions {
  signal?: AbortSignal
  retry: false
  errorRedactor: false
}

/** One account and one place in its Drive: the SDK's client, a token that is always fresh, and errors that say which. */
export class DriveConnection {
  readonly config: GoogleDriveConfig
  readonly root: DriveRoot
  readonly apiOrigin: string
  /** Drive has shown a SHA-256, so nobody needs to make an MD5 as well, which costs twice as much. */
  showsSha256 = false
  readonly #drive: drive_v3.Drive
  readonly #auth: OAuth2Client
  readonly #http: HttpClient
  readonly #ids: string[] = []
  #asking: Promise<void> | undefined

  constructor(sdk: DriveSdk, config: GoogleDriveConfig) {
    const { clientId, clientSecret, refreshToken, endpoints = {} } = config
    this.config = config
    this.root = rootOf(config)
    this.apiOrigin = originOf(endpoints.api ?? API_ORIGIN)
    this.#http = new HttpClient({ connectMs: CONNECT_MS, idleMs: config.idleMs ?? IDLE_MS })
    this.#auth = new sdk.OAuth2Client({
      clientId,
      clientSecret,
      credentials: { refresh_token: refreshToken },
      endpoints: { oauth2TokenUrl: endpoints.token ? `${originOf(endpoints.token)}/token` : TOKEN_URL },
      transporterOptions: { fetchImplementation: plainFetch(this.#http) },
      // They write requests to a debug log, tokens and all.
      useAuthRequestParameters: false,
    })
    // The refresh of a token asks for the SDK's own retries, whatever the defaults are. Retrying is done in one place.
    this.#auth.transporter.interceptors.request.add({
      resolved: async (request) =>
        Object.assign(request, { retry: false, retryConfig: undefined, errorRedactor: false }),
    })
    this.#drive = new sdk.Drive({ auth: this.#auth, rootUrl: `${this.apiOrigin}/` })
  }

  /** Parameters of every call about a file that may lie in a shared drive. */
  get anyDrive(): { supportsAllDrives: true } {
    return { supportsAllDrives: true }
  }

  get space(): 'drive' | 'appDataFolder' {
    return this.config.appData ? APP_DATA : 'drive'
  }

  /** Makes a call of the SDK. @returns what its JSON says. @throws StorageError, AbortError */
  ask<T extends object>(
    operation: string,
    send: (drive: drive_v3.Drive, options: SdkOptions) => Promise<{ data: unknown }>,
    call: DriveCall = {},
  ): Promise<T> {
    const attempt = () => this.#once<T>(operation, send, call)
    return call.retries ? this.again(attempt, call.signal) : attempt()
  }

  #once<T extends object>(
    operation: string,
    send: (drive: drive_v3.Drive, options: SdkOptions) => Promise<{ data: unknown }>,
    { signal, key }: DriveCall = {},
  ): Promise<T> {
    return this.#signedIn(operation, { signal, key }, async () => {
      const options: SdkOptions = { ...(signal ? { signal } : {}), retry: false, errorRedactor: false }
      const { data } = await send(this.#drive, options)
      if (data !== null && typeof data === 'object') return data as T
      // 204 has no body, and the SDK makes it an empty text.
      if ((data as unknown) === '') return {} as T
      throw refusalOf(200, 'an answer that is no JSON', undefined)
    })
  }

  /** Does it again while it fails with what may pass. */
  again<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return retry(work, this.config.callRetry ?? CALL_RETRY, { signal })
  }

  /**
   * One attempt at a request that goes past the SDK, which would give its body to its own errors.
   * @returns the answer where `accepts` its status. Its body is the caller's to read.
   * @throws StorageError of any other answer; AbortError
   */
  raw(operation: string, request: RawRequest, accepts: (status: number) => boolean): Promise<HttpResponse> {
    const { method, url, headers, body, signal } = request
    return this.#signedIn(operation, request, async (token) => {
      const answer = await this.#http.request({
        ...targetOf(url),
        method,
        headers: {
          ...headers,
          authorization: `Bearer ${token}`,
          ...(method === 'GET' ? {} : { 'content-length': String(body === undefined ? 0 : Buffer.byteLength(body)) }),
        },
        body,
        signal,
      })
      if (accepts(answer.status)) return answer
      throw refusalOf(answer.status, await readText(answer), answer.headers['retry-after'])
    })
  }

  /** Fetches an access token, and asks who it is for. @throws StorageError that says what is wrong with the sign-in. */
  async signIn(options: DriveCall): Promise<void> {
    await this.ask('about', (drive, sending) => drive.about.get({ fields: 'user(displayName)' }, sending), options)
  }

  /**
   * An id for a file that is to be made. With an id from before, an upload whose answer was lost makes no second file.
   * @throws StorageError, AbortError
   */
  async takeId(options: DriveCall): Promise<string> {
    while (this.#ids.length === 0) {
      this.#asking ??= this.#askIds(options).finally(() => {
        this.#asking = undefined
      })
      await orAbort(this.#asking, options.signal)
    }
    return this.#ids.pop() as string
  }

  close(): void {
    this.#http.destroy()
  }

  async #askIds({ key }: DriveCall): Promise<void> {
    const params = { count: IDS_AT_ONCE, space: this.space, fields: 'ids' }
    // Without the caller's signal: others wait for the same answer.
    const { ids } = await this.ask<drive_v3.Schema$GeneratedIds>(
      'generateIds',
      (drive, sending) => drive.files.generateIds(params, sending),
      {
        key,
      },
    )
    if (!ids?.length) throw driveError('UNAVAILABLE', 'generateIds', 'Google Drive: it gave no ids for new files.')
    this.#ids.push(...ids)
  }

  /** Runs `send`, and once more with a new token where the old one is refused, whatever its expiry says. */
  async #signedIn<T>(
    operation: string,
    { signal, key, once }: DriveCall & { once?: boolean },
    send: (token: string) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(signal)
      let used: string | undefined
      try {
        // Renewed before it expires, and once for all who ask meanwhile: the SDK does that.
        const { token } = await orAbort(this.#getToken(operation), signal)
        used = token ?? ''
        return await send(used)
      } catch (error) {
        if (signal?.aborted) throw abortError(signal)
        const cleaned = toStorageError(fromSdk(error), operation, key)
        if (statusOf(cleaned) !== 401 || used === undefined) throw cleaned
        this.#forget(used)
        if (once || attempt > 1) throw cleaned
      }
    }
  }

  /** The package fails as a bug does where what answers is no JSON, such as the sign-in page of a network. */
  async #getToken(operation: string): Promise<{ token?: string | null }> {
    try {
      return await this.#auth.getAccessToken()
    } catch (error) {
      if (!(error instanceof TypeError)) throw error
      const message =
        'Google Drive: it gave no token: what answers there is not Google. Look whether the network asks for a sign-in.'
      throw driveError('UNAVAILABLE', operation, message, { retryable: true })
    }
  }

  /** The next request fetches a new token, unless another has done so already. */
  #forget(used: string): void {
    if (this.#auth.credentials.access_token !== used) return
    this.#auth.setCredentials({ refresh_token: this.config.refreshToken })
  }
}

/** What a promise comes to, or AbortError as soon as the signal fires; what it stands for goes on, for others. */
export function orAbort<T>(shared: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return shared
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal))
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    shared.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

/** What is loaded of the packages: Drive's own module and the sign-in, and none of the other 300 APIs. */
export interface DriveSdk {
  Drive: typeof drive_v3.Drive
  OAuth2Client: typeof OAuth2Client
}

export async function loadSdk(): Promise<DriveSdk> {
  const path = 'googleapis/build/src/apis/drive/v3.js'
  const module = (await import(
    'googleapis/build/src/apis/drive/v3.js'
  )) as typeof import('googleapis/build/src/apis/drive/v3.js')
  // As googleapis itself finds it: it is a dependency of googleapis, and not of ours.
  const { OAuth2Client: client } = createRequire(import.meta.resolve(path))('google-auth-library')
  return { Drive: module.drive_v3.Drive, OAuth2Client: client }
}

/** @throws StorageError INVALID when a setting is missing or contradicts another. Repeats no secret. */
export function checkConfig(config: GoogleDriveConfig): void {
  for (const name of ['clientId', 'clientSecret', 'refreshToken'] as const) {
    if (typeof config[name] !== 'string' || config[name] === '') throw invalid(`openGoogleDrive needs ${name}.`)
  }
  const { folderId, folder, appData, sharedDriveId, partBytes, endpoints } = config
  if ([folderId, folder, appData || undefined].filter((value) => value !== undefined).length > 1) {
    throw invalid('folderId, folder and appData exclude each other: pass one of them.')
  }
  if (appData && sharedDriveId !== undefined) throw invalid('A shared drive has no appData folder.')
  for (const [name, id] of Object.entries({ folderId, sharedDriveId })) {
    if (id !== undefined && !/^[\w-]+$/.test(id)) throw invalid(`${name} is an id such as the browser's address shows.`)
  }
  if (folder !== undefined && pathOf(folder).length > 0) checkKey(pathOf(folder).join('/'), ADAPTER, 'open')
  if (partBytes !== undefined && !(Number.isSafeInteger(partBytes) && partBytes > 0)) {
    throw invalid('partBytes must be a whole number of bytes.')
  }
  for (const url of Object.values(endpoints ?? {})) originOf(url)
}

/** Of a store: `drive:///path`, with what else says where it is behind a question mark. */
export function locationOf({ folder, folderId, appData, sharedDriveId }: GoogleDriveConfig): string {
  const path = pathOf(folder ?? '')
    .map(encodeURIComponent)
    .join('/')
  const where = { ...(folderId ? { folderId } : {}), ...(appData ? { appData: 'true' } : {}) }
  const query = new URLSearchParams({ ...where, ...(sharedDriveId ? { sharedDriveId } : {}) }).toString()
  return `drive:///${path}${query === '' ? '' : `?${query}`}`
}

function rootOf({ folderId, folder, appData, sharedDriveId }: GoogleDriveConfig): DriveRoot {
  if (appData) return { top: APP_DATA, path: [] }
  // The root folder of a shared drive has the drive's own id.
  return { top: folderId ?? sharedDriveId ?? ROOT, path: pathOf(folder ?? '') }
}

function pathOf(folder: string): string[] {
  return folder.split('/').filter((name) => name !== '')
}

function originOf(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (url && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '') return url.origin
  throw invalid('An endpoint must be a URL that begins with https:// or http://, without credentials.')
}

function invalid(message: string): StorageError {
  return driveError('INVALID', 'open', message)
}

/** The SDK asks for gzip, which its usual fetch undoes, and this one does not. */
function plainFetch(http: HttpClient): typeof fetch {
  const send = createFetch(http)
  return (input, init = {}) => {
    const headers = new Headers(init.headers)
    headers.delete('accept-encoding')
    return send(input, { ...init, headers })
  }
}

/** What the SDK throws for an answer has the answer in it. */
function fromSdk(error: unknown): unknown {
  const { response } = (error ?? {}) as { response?: { status: number; data: unknown; headers: Headers } }
  if (response === undefined) return error
  return refusalOf(response.status, response.data, response.headers.get('retry-after') ?? undefined)
}
