import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Refusal, readBody } from './http.ts'

export interface FakeToken {
  expiresAt: number
  scopes: Set<string>
}

/**
 * A token endpoint, strict in what RFC 6749 and RFC 7636 ask of a client, with the error bodies of RFC 6749, 5.2 as
 * Dropbox words them. Secrets in a URL are refused.
 */
export class FakeTokens {
  readonly clientId = 'fake-app-key'
  readonly clientSecret = 'fake-app-secret/+&'
  refreshToken = newRefreshToken()
  /** Of a new token. */
  lifeSeconds = 14_400
  scopes: string[]
  /** Whether each refresh token is good for one use, and the next comes with the answer (RFC 6749, 6). */
  rotates = false
  /** Requests for a token that came, whatever became of them. */
  requests = 0
  /** Every access token there ever was, for searching a log for them. */
  readonly issued: string[] = []
  readonly #tokens = new Map<string, FakeToken>()
  readonly #codes = new Map<string, { challenge: string; redirectUri: string | undefined }>()
  #delayMs = 0

  constructor(scopes: string[]) {
    this.scopes = scopes
  }

  /** Makes every token of now expire. */
  expire(): void {
    for (const token of this.#tokens.values()) token.expiresAt = 0
  }

  /** As when the user removes the app: tokens and refresh token are worth nothing. */
  revoke(): void {
    this.#tokens.clear()
    this.refreshToken = newRefreshToken()
  }

  /** Answers later, so that requests can pile up. */
  slowDown(ms: number): void {
    this.#delayMs = ms
  }

  find(token: string): FakeToken | undefined {
    return this.#tokens.get(token)
  }

  /** What the authorisation page would do when the user agrees. @returns the code. */
  authorize(challenge: string, redirectUri?: string): string {
    const code = `fake-code-${randomBytes(12).toString('base64url')}`
    this.#codes.set(code, { challenge, redirectUri })
    return code
  }

  issue(): string {
    const token = `sl.fake-${randomBytes(40).toString('base64url')}`
    this.#tokens.set(token, { expiresAt: Date.now() + this.lifeSeconds * 1000, scopes: new Set(this.scopes) })
    this.issued.push(token)
    return token
  }

  /** Answers a request to the endpoint. @throws Refusal */
  async answer(request: IncomingMessage, url: URL): Promise<Record<string, unknown>> {
    this.requests++
    if (url.search !== '') throw refused('invalid_request', 'parameters belong into the body')
    if (request.method !== 'POST') throw refused('invalid_request', 'only POST is answered')
    if (!request.headers['content-type']?.startsWith('application/x-www-form-urlencoded')) {
      throw refused('invalid_request', 'the body is no form')
    }
    const form = new URLSearchParams((await readBody(request, 16_384)).toString('utf8'))
    if (this.#delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.#delayMs))
    const secret = form.get('client_secret')
    const isCode = form.get('grant_type') === 'authorization_code'
    // With PKCE no secret is needed; a wrong one is refused all the same.
    if (form.get('client_id') !== this.clientId || (secret !== null && secret !== this.clientSecret)) {
      throw refused('invalid_client: Invalid client_id or client_secret')
    }
    if (isCode) return this.#redeem(form)
    if (form.get('grant_type') !== 'refresh_token') throw refused('unsupported_grant_type')
    if (form.get('refresh_token') !== this.refreshToken) {
      throw refused('invalid_grant', 'refresh token is invalid or revoked')
    }
    if (!this.rotates) return this.#granted()
    this.refreshToken = newRefreshToken()
    return { ...this.#granted(), refresh_token: this.refreshToken }
  }

  #redeem(form: URLSearchParams): Record<string, unknown> {
    const code = form.get('code') ?? ''
    const known = this.#codes.get(code)
    this.#codes.delete(code)
    const verifier = form.get('code_verifier') ?? ''
    if (!/^[A-Za-z0-9\-._~]{43,128}$/.test(verifier)) throw refused('invalid_request', 'code_verifier is malformed')
    const challenge = createHash('sha256').update(verifier).digest('base64url')
    if (!known || known.challenge !== challenge || known.redirectUri !== (form.get('redirect_uri') ?? undefined)) {
      throw refused('invalid_grant', "code doesn't exist or has expired")
    }
    return { ...this.#granted(), refresh_token: this.refreshToken }
  }

  #granted(): Record<string, unknown> {
    const scope = this.scopes.join(' ')
    return { access_token: this.issue(), token_type: 'bearer', expires_in: this.lifeSeconds, scope }
  }
}

function refused(error: string, description?: string): Refusal {
  return new Refusal(400, { error, ...(description === undefined ? {} : { error_description: description }) })
}

function newRefreshToken(): string {
  return `fake-refresh-${randomBytes(24).toString('base64url')}`
}
