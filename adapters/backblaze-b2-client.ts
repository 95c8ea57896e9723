import {
  ADAPTER,
  type B2Names,
  B2Refusal,
  missingCapability,
  refusalOf,
  toStorageError,
} from './backblaze-b2-errors.ts'
import type { Allowed, AxiosAnswer, AxiosOverride, B2Class, B2Sdk, SentConfig, UploadUrl } from './backblaze-b2-sdk.ts'
import { StorageError } from './errors.ts'
import { HttpClient, type HttpResponse, readText, targetOf } from './http.ts'
import { checkKey, normalizePrefix, prefixedKey, quoteKey } from './keys.ts'
import { abortError, CALL_RETRY, type RetryPolicy, retry, throwIfAborted } from './retry.ts'

const ENDPOINT = 'https://api.backblazeb2.com'
const API_PATH = '/b2api/v2'
const CONNECT_MS = 5_000
const IDLE_MS = 30_000

/** Settings of a Backblaze B2 bucket; see docs/providers/backblaze-b2.md. */
export interface B2Config {
  /** The application key's ID. */
  keyId: string
  applicationKey: string
  /** The bucket's name. */
  bucket: string
  /** All keys live beneath it, and are given without it. A slash at its end is implied. */
  prefix?: string
  /** Bytes of a part at least, from 5,000,000. Default 8 MiB. */
  partBytes?: number
  /** Files in one page of a listing, up to 10,000; B2 bills each 1,000 as a transaction. Default 1,000. */
  pageSize?: number
  /** Time without a byte in either direction after which a request is given up. Default 30,000. */
  idleMs?: number
  /** Bounds the attempts at one call. */
  callRetry?: RetryPolicy
  /** Bounds the attempts at one part, at a commit, and at going on with a read. */
  partRetry?: RetryPolicy
  /** Where to sign in, in place of `https://api.backblazeb2.com`: for a proxy, and for tests. */
  endpoint?: string
  /** For tests against a server that takes smaller parts than B2 does. Default 5,000,000. */
  minPartBytes?: number
}

export interface B2CallOptions {
  signal?: AbortSignal | undefined
  key?: string | undefined
}

/** What a signed-in account gives to a request. */
export interface B2Api {
  b2: B2Sdk
  bucketId: string
  /** Goes into each call of the package: it carries the caller's signal, and our transport in place of axios's. */
  override(more?: Pick<AxiosOverride, 'headers' | 'data'>): AxiosOverride
  /** A call that the package does not have. @returns B2's answer. */
  post<T>(name: string, body: Record<string, unknown>): Promise<T>
}

export type Send<T> = (api: B2Api) => Promise<T>
export type Run = <T>(operation: string, send: Send<T>, options: B2CallOptions) => Promise<T>

interface Session {
  token: string
  bucketId: string
  allowed: Allowed
}

/** One bucket of one account: its session, our names for what is in it, and errors that say which. */
export class B2Connection {
  readonly config: B2Config
  /** Ends in a slash, unless it is empty. */
  readonly prefix: string
  readonly #endpoint: string
  readonly http: HttpClient
  readonly #b2: B2Sdk
  readonly #uploadUrls = new UploadUrls()
  #session: Promise<Session> | undefined
  #allowed: Allowed | undefined
  #bucketId: string | undefined

  constructor(B2: B2Class, config: B2Config) {
    this.config = config
    this.prefix = normalizePrefix(config.prefix)
    this.#endpoint = new URL(config.endpoint ?? ENDPOINT).origin
    this.http = new HttpClient({ connectMs: CONNECT_MS, idleMs: config.idleMs ?? IDLE_MS })
    this.#b2 = new B2({
      applicationKeyId: config.keyId,
      applicationKey: config.applicationKey,
      retry: { retries: 0 },
    })
  }

  /** The name of a key in the bucket. @throws StorageError INVALID */
  fullKey(key: string, operation: string): string {
    const full = prefixedKey(this.prefix, key, ADAPTER, operation)
    if (!full.includes('\\')) return full
    // https://www.backblaze.com/docs/cloud-storage-files: the one character that our keys may have and B2's may not.
    const message = `The key ${quoteKey(key)} has a backslash, which B2 does not allow.`
    throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation, key })
  }

  /** One attempt at one request, after signing in where that is needed. @throws StorageError, AbortError */
  readonly once: Run = async (operation, send, options) => {
    const { signal, key } = options
    for (let isFresh = false; ; isFresh = true) {
      throwIfAborted(signal)
      const signingIn = this.#signedIn()
      const session = await unlessAborted(signingIn, signal)
      try {
        return await send(this.#api(session, signal))
      } catch (error) {
        if (isFresh || !(error instanceof B2Refusal) || !error.isStaleToken) throw this.#mapped(error, operation, key)
        // Others may have found out as well, and have a new one already.
        if (this.#session === signingIn) this.#session = undefined
      }
    }
  }

  /** As `once`, and again while the error is one that may pass. */
  readonly call: Run = (operation, send, options) => {
    const { callRetry = CALL_RETRY } = this.config
    return retry(() => this.once(operation, send, options), callRetry, { signal: options.signal })
  }

  /**
   * Sends a body to an upload URL that no other request uses meanwhile. Whatever goes wrong, that URL is not used
   * again, as https://www.backblaze.com/docs/cloud-storage-integration-checklist asks.
   * @param getUrl asks for one.
   */
  async upload<T>(
    urls: UploadUrls,
    operation: string,
    getUrl: Send<UploadUrl>,
    send: (url: UploadUrl, override: AxiosOverride, b2: B2Sdk) => Promise<T>,
    { signal, key }: B2CallOptions,
  ): Promise<T> {
    let url = urls.take()
    for (let isFresh = url === undefined; ; isFresh = true) {
      url ??= await this.once(operation, getUrl, { signal, key })
      try {
        const result = await send(url, this.#override(signal), this.#b2)
        urls.giveBack(url)
        return result
      } catch (error) {
        if (isFresh || !(error instanceof B2Refusal) || !error.isStaleToken) throw this.#mapped(error, operation, key)
        // It has lived its 24 hours, or its pod is gone: so have the others that were kept.
        urls.clear()
        url = undefined
      }
    }
  }

  /** `upload` of a whole file, with the URLs that are kept for that. */
  uploadWhole<T>(
    send: (url: UploadUrl, override: AxiosOverride, b2: B2Sdk) => Promise<T>,
    options: B2CallOptions,
  ): Promise<T> {
    const getUrl: Send<UploadUrl> = async ({ b2, bucketId, override }) =>
      (await b2.getUploadUrl({ bucketId, axiosOverride: override() })).data
    return this.upload(this.#uploadUrls, 'putWhole', getUrl, send, options)
  }

  /** Signs in anew, whatever is known. @throws StorageError ACCESS_DENIED … */
  async signIn({ signal }: B2CallOptions): Promise<void> {
    const { callRetry = CALL_RETRY } = this.config
    this.#session = undefined
    this.#bucketId = undefined
    await retry(() => unlessAborted(this.#signedIn(), signal), callRetry, { signal })
  }

  /**
   * Holds an operation to what the key may do, where B2 itself would have nothing to refuse.
   * @throws StorageError ACCESS_DENIED that names the capability.
   */
  async require(capability: string, operation: string, options: B2CallOptions): Promise<void> {
    const { callRetry = CALL_RETRY } = this.config
    const { signal, key } = options
    const { allowed } = await retry(() => unlessAborted(this.#signedIn(), signal), callRetry, { signal })
    if (allowed.capabilities.includes(capability)) return
    throw this.#denied(missingCapability(capability), operation, key)
  }

  close(): void {
    this.http.destroy()
  }

  /** One sign-in for all that ask meanwhile. */
  #signedIn(): Promise<Session> {
    if (this.#session) return this.#session
    const signingIn = this.#authorize()
    signingIn.catch(() => {
      if (this.#session === signingIn) this.#session = undefined
    })
    this.#session = signingIn
    return signingIn
  }

  async #authorize(): Promise<Session> {
    try {
      // Nobody's signal: others may wait for the answer as well.
      const axiosOverride = { ...this.#override(undefined), url: `${this.#endpoint}${API_PATH}/b2_authorize_account` }
      const { data } = await this.#b2.authorize({ axiosOverride })
      const { authorizationToken: token, apiUrl, downloadUrl, allowed } = data
      if (!token || !apiUrl || !downloadUrl || !allowed?.capabilities) {
        throw this.#fault('The answer to signing in lacks the token, the URLs or the rights of the key.', 'authorize')
      }
      this.#allowed = allowed
      this.#checkRestrictions(allowed)
      this.#bucketId = allowed.bucketId ?? this.#bucketId ?? (await this.#findBucket())
      return { token, bucketId: this.#bucketId, allowed }
    } catch (error) {
      throw this.#mapped(error, 'authorize', undefined)
    }
  }

  #checkRestrictions({ bucketId, bucketName, namePrefix }: Allowed): void {
    const { bucket } = this.config
    if (bucketId !== null && bucketName === null) {
      throw this.#denied('the application key is restricted to a bucket that was deleted; make a new key', 'authorize')
    }
    if (bucketId !== null && bucketName !== bucket) {
      throw this.#denied(`the application key is restricted to the bucket "${bucketName}"`, 'authorize')
    }
    if (namePrefix !== null && !this.prefix.startsWith(namePrefix)) {
      const asked = this.prefix === '' ? 'and no prefix is set here' : `and the prefix here is ${quoteKey(this.prefix)}`
      const only = `the application key is restricted to names that begin with ${quoteKey(namePrefix)}`
      throw this.#denied(`${only}, ${asked}; set a prefix that begins so`, 'authorize')
    }
  }

  async #findBucket(): Promise<string> {
    const bucketName = this.config.bucket
    try {
      const { data } = await this.#b2.getBucket({ bucketName, axiosOverride: this.#override(undefined) })
      const found = data.buckets?.find((bucket) => bucket.bucketName === bucketName)
      if (found) return found.bucketId
    } catch (error) {
      throw this.#mapped(error, 'bucket', undefined)
    }
    const message = `B2: the account has no bucket "${bucketName}"; check its name, or create it.`
    throw new StorageError(message, { code: 'NOT_FOUND', adapter: ADAPTER, operation: 'bucket' })
  }

  #api(session: Session, signal: AbortSignal | undefined): B2Api {
    const override = (more: Pick<AxiosOverride, 'headers' | 'data'> = {}) => ({ ...this.#override(signal), ...more })
    return {
      b2: this.#b2,
      bucketId: session.bucketId,
      override,
      post: async <T>(name: string, body: Record<string, unknown>): Promise<T> => {
        const sent: SentConfig = {
          url: `${this.#b2.apiUrl}${API_PATH}/${name}`,
          method: 'POST',
          headers: {
            toJSON: () => ({ authorization: this.#b2.authorizationToken, 'content-type': 'application/json' }),
          },
          data: JSON.stringify(body),
        }
        return (await this.#exchange(sent, signal)).data as T
      },
    }
  }

  #override(signal: AbortSignal | undefined): AxiosOverride {
    return {
      // The package keeps one axios instance for the whole process, and the last account opened sets it. With the
      // transport, the retries and the parsing given per call, nothing of that instance is left to mix accounts up.
      adapter: (config) => this.#exchange(config, signal),
      'axios-retry': { retries: 0 },
      transformResponse: (data) => data,
    }
  }

  /** @throws B2Refusal for an answer that is no success; a network error; AbortError. */
  async #exchange(config: SentConfig, signal: AbortSignal | undefined): Promise<AxiosAnswer> {
    const headers = headersOf(config)
    const answer = await this.http.request({
      ...this.#targetOf(config.url),
      method: (config.method ?? 'GET').toUpperCase(),
      headers,
      body: config.data as Buffer | string | undefined,
      signal,
    })
    const { status } = answer
    if (status !== 200 && status !== 206) {
      const secrets = [headers.authorization ?? '', this.#b2.authorizationToken ?? '', this.config.applicationKey]
      throw refusalOf(status, await readText(answer), answer.headers, secrets)
    }
    const data = config.responseType === 'stream' ? answer.body : await readJson(answer)
    return { data, status, statusText: '', headers: answer.headers, config }
  }

  #targetOf(url: string): ReturnType<typeof targetOf> {
    try {
      return targetOf(url)
    } catch {
      // Not repeated: it may be an upload URL.
      throw this.#fault('B2 gave out a URL that is none.', 'request')
    }
  }

  #mapped(error: unknown, operation: string, key: string | undefined): unknown {
    const { capabilities } = this.#allowed ?? {}
    const names: B2Names = { bucket: this.config.bucket, endpoint: this.#endpoint, capabilities }
    return toStorageError(error, operation, names, key)
  }

  #denied(why: string, operation: string, key?: string): StorageError {
    const message = `B2: the bucket "${this.config.bucket}" cannot be used so: ${why}.`
    const named = key === undefined ? {} : { key }
    return new StorageError(message, { code: 'ACCESS_DENIED', adapter: ADAPTER, operation, ...named })
  }

  #fault(message: string, operation: string): StorageError {
    return new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation })
  }
}

/** Upload URLs that are free to be used. B2 gives out as many as are asked for, and forgets them by itself. */
export class UploadUrls {
  readonly #free: UploadUrl[] = []

  take(): UploadUrl | undefined {
    return this.#free.pop()
  }

  giveBack(url: UploadUrl): void {
    if (this.#free.length < URLS_KEPT) this.#free.push(url)
  }

  clear(): void {
    this.#free.length = 0
  }
}

/** More than the parts of one upload; a burst of small files may have had many at once. */
const URLS_KEPT = 16

/** @throws StorageError INVALID when a setting cannot be meant so. Repeats no secret. */
export function checkConfig(config: B2Config): void {
  const { keyId, applicationKey, bucket, endpoint = ENDPOINT } = config
  for (const [name, value] of Object.entries({ keyId, applicationKey, bucket })) {
    if (typeof value !== 'string' || value === '') throw invalid(`openB2 needs ${name}.`)
    // A header could not carry them, and Node's error about that would repeat them.
    if (/[^\x21-\x7e]/.test(value)) throw invalid(`${name} has a character that no ${name} of B2 has; copy it again.`)
  }
  if (keyId.includes(':')) throw invalid('keyId has a colon, which no key ID has; copy it again.')
  const prefix = normalizePrefix(config.prefix)
  if (prefix !== '') checkKey(prefix.slice(0, -1), ADAPTER, 'open')
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw invalid('The endpoint must be a URL that begins with https:// or http://, without credentials.')
  }
}

function invalid(message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
}

function headersOf({ headers, data }: SentConfig): Record<string, string> {
  // https://www.backblaze.com/docs/cloud-storage-integration-checklist asks for a name.
  const sent: Record<string, string> = { 'user-agent': 'millrace' }
  for (const [name, value] of Object.entries(headers.toJSON())) {
    if (value !== undefined && value !== null) sent[name.toLowerCase()] = String(value)
  }
  // axios puts a form's type on whatever has none.
  if (Buffer.isBuffer(data)) sent['content-type'] = 'application/octet-stream'
  if (typeof data === 'string' || Buffer.isBuffer(data)) sent['content-length'] = String(Buffer.byteLength(data))
  return sent
}

/** @throws an error with Node's code EBADMSG for what is no JSON: most often an answer from something in between. */
async function readJson(answer: HttpResponse): Promise<unknown> {
  const text = await readText(answer)
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value
  } catch {
    // Said below.
  }
  throw Object.assign(new Error('the answer is not what B2 answers'), { code: 'EBADMSG' })
}

async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  let onAbort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortError(signal))
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort)
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
