import { createHash, randomBytes } from 'node:crypto'
import { StorageError, type StorageErrorCode } from './errors.ts'
import { type HttpClient, type HttpResponse, readText, targetOf } from './http.ts'
import { isNetworkCode, isUntrusted, networkAdvice, retryAfter } from './network.ts'
import { abortError, throwIfAborted } from './retry.ts'

/** How long before its end a token is replaced: longer than a request waits for its turn. */
const RENEW_EARLY_MS = 5 * 60_000
/** At most this share of a token's life is given up for it. */
const RENEW_EARLY_SHARE = 0.1
/** RFC 7636 wants 43 to 128 characters; 64 random bytes are 86 in base64url. */
const VERIFIER_BYTES = 64
const STATE_BYTES = 24

/** An authorisation server, in what differs between them. */
export interface OAuthProvider {
  /** For people. */
  name: string
  adapter: string
  /** What signs in again, for advice. */
  signIn: string
  authorizeUrl: string
  tokenUrl: string
  /** What has to stand in the authorisation URL for a refresh token to be given. */
  offline: Record<string, string>
}

/** https://developers.dropbox.com/oauth-guide */
export const DROPBOX_OAUTH: OAuthProvider = {
  name: 'Dropbox',
  adapter: 'dropbox',
  signIn: 'millrace login dropbox',
  authorizeUrl: 'https://www.dropbox.com/oauth2/authorize',
  tokenUrl: 'https://api.dropboxapi.com/oauth2/token',
  offline: { token_access_type: 'offline' },
}

/** https://developers.google.com/identity/protocols/oauth2/native-app */
export const GOOGLE_OAUTH: OAuthProvider = {
  name: 'Google',
  adapter: 'google-drive',
  signIn: 'millrace login google-drive',
  authorizeUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
  tokenUrl: 'https://oauth2.googleapis.com/token',
  // Without the prompt, a user who has agreed once gets no refresh token the second time.
  offline: { access_type: 'offline', prompt: 'consent' },
}

/** The app that asks. Public apps have no secret, and prove themselves by PKCE alone. */
export interface OAuthApp {
  provider: OAuthProvider
  clientId: string
  clientSecret?: string | undefined
  http: HttpClient
}

export interface TokenAnswer {
  accessToken: string
  /** From now; undefined where the server does not say. */
  expiresInMs: number | undefined
  refreshToken: string | undefined
  /** As granted, which may be fewer than were asked for; undefined where the server does not say. */
  scopes: string[] | undefined
}

/** One sign-in: `url` is for the browser, the rest is kept until it comes back. */
export interface SignIn {
  url: string
  verifier: string
  state: string
  redirectUri: string | undefined
}

/**
 * Begins the authorisation-code flow with PKCE (S256, RFC 7636).
 * @param options.redirectUri absent where the provider shows the code for the user to copy, as Dropbox does.
 */
export function beginSignIn(
  { provider, clientId }: Pick<OAuthApp, 'provider' | 'clientId'>,
  options: { scopes?: readonly string[]; redirectUri?: string } = {},
): SignIn {
  const { scopes = [], redirectUri } = options
  const verifier = randomBytes(VERIFIER_BYTES).toString('base64url')
  const state = randomBytes(STATE_BYTES).toString('base64url')
  const url = new URL(provider.authorizeUrl)
  const query = {
    client_id: clientId,
    response_type: 'code',
    code_challenge: challengeOf(verifier),
    code_challenge_method: 'S256',
    state,
    ...(redirectUri === undefined ? {} : { redirect_uri: redirectUri }),
    ...(scopes.length === 0 ? {} : { scope: scopes.join(' ') }),
    ...provider.offline,
  }
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  return { url: url.href, verifier, state, redirectUri }
}

/** The S256 challenge of a PKCE verifier. */
export function challengeOf(verifier: string): string {
  return createHash('sha256').update(verifier).digest('base64url')
}

/**
 * The code out of the URL that the browser came back to.
 * @throws StorageError ACCESS_DENIED when the user or the server refused; INVALID when the answer is not to this sign-in.
 */
export function codeOf(returned: string | URL, signIn: SignIn, provider: OAuthProvider): string {
  const query = new URL(returned).searchParams
  // First: an answer that is not to our question says nothing to us, not even a refusal.
  if (query.get('state') !== signIn.state) {
    throw failure(provider, 'INVALID', 'the answer belongs to another sign-in; begin anew')
  }
  const refused = query.get('error')
  if (refused) throw failure(provider, 'ACCESS_DENIED', `it was refused (${plain(refused)}); begin anew and allow it`)
  const code = query.get('code')
  if (!code) throw failure(provider, 'INVALID', 'the answer has no code; begin anew')
  return code
}

/**
 * Exchanges a code for tokens.
 * @throws StorageError AUTH_EXPIRED for a code that is used up or wrong; ACCESS_DENIED for a wrong app id or secret;
 *   UNAVAILABLE, RATE_LIMITED; AbortError.
 */
export function exchangeCode(app: OAuthApp, code: string, signIn: SignIn, signal?: AbortSignal): Promise<TokenAnswer> {
  const form = { grant_type: 'authorization_code', code: code.trim(), code_verifier: signIn.verifier }
  return askForToken(
    app,
    signIn.redirectUri === undefined ? form : { ...form, redirect_uri: signIn.redirectUri },
    signal,
  )
}

/**
 * An access token that is renewed by a refresh token: before its end, and when a store refuses it. Callers that need
 * one at once share one request.
 */
export class RefreshedToken {
  readonly #app: OAuthApp
  readonly #now: () => number
  #refreshToken: string
  #current: { token: string; renewAt: number; endAt: number } | undefined
  #renewing: Promise<string> | undefined

  /** @param now milliseconds, for tests. */
  constructor(app: OAuthApp, refreshToken: string, now: () => number = Date.now) {
    this.#app = app
    this.#refreshToken = refreshToken
    this.#now = now
  }

  /**
   * A token that is good for some minutes more, as far as is known.
   * @throws StorageError AUTH_EXPIRED when the refresh token is revoked; ACCESS_DENIED; UNAVAILABLE; AbortError.
   */
  async get(signal?: AbortSignal): Promise<string> {
    throwIfAborted(signal)
    const current = this.#current
    if (current && this.#now() < current.renewAt) return current.token
    try {
      return await this.#renew(signal)
    } catch (error) {
      const mayPass = error instanceof StorageError && error.retryable
      if (current && mayPass && this.#now() < current.endAt) return current.token
      throw error
    }
  }

  /** Another token than the one that a store has just refused. @throws as `get` */
  async renew(refused: string, signal?: AbortSignal): Promise<string> {
    throwIfAborted(signal)
    if (this.#current && this.#current.token !== refused) return this.#current.token
    return this.#renew(signal)
  }

  #renew(signal: AbortSignal | undefined): Promise<string> {
    // Without a signal of its own: it is not for one caller to end what others wait for.
    this.#renewing ??= this.#refresh().finally(() => {
      this.#renewing = undefined
    })
    this.#renewing.catch(() => {})
    return abandonable(this.#renewing, signal)
  }

  async #refresh(): Promise<string> {
    const form = { grant_type: 'refresh_token', refresh_token: this.#refreshToken }
    const { accessToken: token, expiresInMs = Infinity, refreshToken } = await askForToken(this.#app, form)
    const now = this.#now()
    const early = Math.min(RENEW_EARLY_MS, expiresInMs * RENEW_EARLY_SHARE)
    this.#current = { token, renewAt: now + expiresInMs - early, endAt: now + expiresInMs }
    // Neither Dropbox nor Google replaces it; the standard lets a server do so (RFC 6749, 6).
    if (refreshToken) this.#refreshToken = refreshToken
    return token
  }
}

/** Waits for work that goes on without us when the signal fires. */
function abandonable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

/** One request to the token endpoint, with every secret in its body, where no log has it. */
async function askForToken(app: OAuthApp, form: Record<string, string>, signal?: AbortSignal): Promise<TokenAnswer> {
  const { provider, clientId, clientSecret, http } = app
  const client = { client_id: clientId, ...(clientSecret === undefined ? {} : { client_secret: clientSecret }) }
  const body = new URLSearchParams({ ...form, ...client }).toString()
  const headers = {
    'content-type': 'application/x-www-form-urlencoded',
    'content-length': String(Buffer.byteLength(body)),
    accept: 'application/json',
  }
  let answer: HttpResponse
  let text: string
  try {
    answer = await http.request({ ...targetOf(provider.tokenUrl), method: 'POST', headers, body, signal })
    text = await readText(answer)
  } catch (error) {
    throw networkFailure(provider, error)
  }
  const said = parse(text)
  if (answer.status !== 200) throw refusal(provider, answer, said)
  const { access_token: accessToken, expires_in: expiresIn, refresh_token: refreshToken, scope } = said
  // It is to go into a header.
  if (typeof accessToken !== 'string' || !/^[\x21-\x7e]+$/.test(accessToken)) {
    throw failure(provider, 'UNAVAILABLE', 'the answer has no token')
  }
  const seconds = Number(expiresIn)
  return {
    accessToken,
    expiresInMs: seconds > 0 ? seconds * 1000 : undefined,
    refreshToken: typeof refreshToken === 'string' ? refreshToken : undefined,
    scopes: typeof scope === 'string' ? scope.split(' ').filter(Boolean) : undefined,
  }
}

/** RFC 6749, 5.2. Its error_description is not repeated: it is free text, and may quote what was sent. */
function refusal(provider: OAuthProvider, { status, headers }: HttpResponse, said: Record<string, unknown>): Error {
  // Dropbox has been seen to put the description behind the code: `invalid_client: Invalid client_id or …`.
  const code = /^[\w.-]{1,60}/.exec(typeof said.error === 'string' ? said.error : '')?.[0] ?? ''
  const told = code === '' ? `${status}` : `${status} ${code}`
  switch (code) {
    case 'invalid_grant': {
      const what = 'the access was revoked, or has expired'
      return failure(provider, 'AUTH_EXPIRED', `${what}; sign in again: ${provider.signIn} (${told})`)
    }
    case 'invalid_client':
    case 'unauthorized_client':
      return failure(
        provider,
        'ACCESS_DENIED',
        `the app's id or secret is wrong; check clientId and clientSecret (${told})`,
      )
  }
  if (status === 429) {
    return failure(provider, 'RATE_LIMITED', `it asks for fewer requests (${told})`, retryAfter(headers['retry-after']))
  }
  if (status >= 500 || status === 408) {
    return failure(provider, 'UNAVAILABLE', `it could not answer (${told})`, retryAfter(headers['retry-after']))
  }
  return failure(provider, 'ACCESS_DENIED', `the request was refused; check the settings of the app (${told})`)
}

function networkFailure(provider: OAuthProvider, error: unknown): unknown {
  const code = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.name) : ''
  if (!isNetworkCode(code)) return error
  const advice = networkAdvice(code, new URL(provider.tokenUrl).origin)
  return failure(provider, 'UNAVAILABLE', `${advice} (${code})`, { retryable: !isUntrusted(code) })
}

function failure(
  provider: OAuthProvider,
  code: StorageErrorCode,
  what: string,
  more: { retryAfterMs?: number; retryable?: boolean } = {},
): StorageError {
  const message = `${provider.name}: signing in failed: ${what}.`
  return new StorageError(message, { code, adapter: provider.adapter, operation: 'sign-in', ...more })
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

/** A server's own word, where it is one. */
function plain(word: string): string {
  return /^[\w.-]{1,60}$/.test(word) ? word : 'an unknown reason'
}
