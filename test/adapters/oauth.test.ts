import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { inspect } from 'node:util'
import { StorageError } from '../../adapters/errors.ts'
import { HttpClient } from '../../adapters/http.ts'
import {
  beginSignIn,
  challengeOf,
  codeOf,
  DROPBOX_OAUTH,
  exchangeCode,
  GOOGLE_OAUTH,
  type OAuthApp,
  RefreshedToken,
} from '../../adapters/oauth.ts'
import { type FakeServer, Refusal, sendJson, serveFake } from '../fakes/http.ts'
import { FakeTokens } from '../fakes/oauth.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'

describe('OAuth', () => {
  let tokens: FakeTokens
  let server: FakeServer
  let proxy: FaultProxy
  let refusal: Refusal | undefined
  const http = new HttpClient({ connectMs: 1000, idleMs: 500 })

  before(async () => {
    server = await serveFake(async (request, reply, url) => {
      const answer = await tokens.answer(request, url)
      if (refusal) throw refusal
      sendJson(reply, 200, answer)
    })
  })
  after(async () => {
    http.destroy()
    await server.close()
  })
  beforeEach(async () => {
    tokens = new FakeTokens(['files.content.read', 'files.content.write'])
    refusal = undefined
    proxy = await openFaultProxy(server.origin)
  })
  afterEach(() => proxy.close())

  function app(more: Partial<OAuthApp> = {}): OAuthApp {
    const provider = { ...DROPBOX_OAUTH, tokenUrl: `${proxy.endpoint}/oauth2/token` }
    return { provider, clientId: tokens.clientId, clientSecret: tokens.clientSecret, http, ...more }
  }

  describe('renewing', () => {
    it('a token is used until shortly before its end, then renewed', async () => {
      let now = 1000
      const token = new RefreshedToken(app(), tokens.refreshToken, () => now)
      const first = await token.get()
      now += (14_400 - 301) * 1000
      assert.equal(await token.get(), first)
      now += 2000
      const second = await token.get()
      assert.notEqual(second, first)
      assert.equal(tokens.requests, 2)
    })

    it('many callers at once share one request, and one of them that gives up does not end it', async () => {
      tokens.slowDown(50)
      const token = new RefreshedToken(app(), tokens.refreshToken)
      const controller = new AbortController()
      const given = token.get(controller.signal)
      const others = Array.from({ length: 20 }, () => token.get())
      controller.abort()
      await assert.rejects(given, { name: 'AbortError' })
      assert.equal(new Set(await Promise.all(others)).size, 1)
      assert.equal(tokens.requests, 1)
      await assert.rejects(token.get(AbortSignal.abort()), { name: 'AbortError' })
    })

    it('a token that a store refuses is renewed once, however many requests it was refused in', async () => {
      const token = new RefreshedToken(app(), tokens.refreshToken)
      const first = await token.get()
      const renewed = await Promise.all([token.renew(first), token.renew(first), token.renew(first)])
      renewed.push(await token.renew(first))
      assert.equal(new Set(renewed).size, 1)
      assert.notEqual(renewed[0], first)
      assert.equal(tokens.requests, 2)
    })

    it('an early renewal that fails for now leaves the token that is still good', async () => {
      let now = 0
      const token = new RefreshedToken(app(), tokens.refreshToken, () => now)
      const first = await token.get()
      refusal = new Refusal(503, '')
      now = (14_400 - 100) * 1000
      assert.equal(await token.get(), first)
      now = 14_400 * 1000
      await assert.rejects(token.get(), { code: 'UNAVAILABLE', retryable: true })
      refusal = undefined
      assert.notEqual(await token.get(), first)
    })

    it('a refresh token that the server replaces is replaced', async () => {
      tokens.rotates = true
      const token = new RefreshedToken(app(), tokens.refreshToken)
      const first = await token.get()
      const second = await token.renew(first)
      assert.notEqual(await token.renew(second), second)
      assert.equal(tokens.requests, 3)
    })

    it('an app without a secret renews by its id alone', async () => {
      const token = new RefreshedToken(app({ clientSecret: undefined }), tokens.refreshToken)
      assert.match(await token.get(), /^sl\./)
    })
  })

  describe('refusals', () => {
    const cases: [string, () => unknown, string, RegExp, boolean][] = [
      [
        'a revoked refresh token',
        () => tokens.revoke(),
        'AUTH_EXPIRED',
        /sign in again: millrace login dropbox/,
        false,
      ],
      [
        'a wrong secret',
        () => ({ clientSecret: 'wrong-secret' }),
        'ACCESS_DENIED',
        /check clientId and clientSecret/,
        false,
      ],
      ['a wrong id', () => ({ clientId: 'nobody' }), 'ACCESS_DENIED', /check clientId and clientSecret/, false],
      ['a server that is overloaded', () => refuse(503), 'UNAVAILABLE', /could not answer \(503/, true],
      ['a server that limits', () => refuse(429, { 'retry-after': '7' }), 'RATE_LIMITED', /fewer requests/, true],
      ['a refusal that is not known', () => refuse(400), 'ACCESS_DENIED', /check the settings of the app/, false],
      ['an answer without a token', () => refuse(200), 'UNAVAILABLE', /no token/, true],
      [
        'a connection that drops',
        () => proxy.inject({ kind: 'lose-reply' }, () => true),
        'UNAVAILABLE',
        /the connection to http/,
        true,
      ],
      [
        'a server that says nothing',
        () => proxy.inject({ kind: 'swallow' }, () => true),
        'UNAVAILABLE',
        /ETIMEDOUT/,
        true,
      ],
      [
        'an answer that is cut',
        () => proxy.inject({ kind: 'drop-reply', afterBytes: 9 }, () => true),
        'UNAVAILABLE',
        /./,
        true,
      ],
    ]

    function refuse(status: number, headers: Record<string, string> = {}): void {
      refusal = new Refusal(status, { error: 'somehow' }, headers)
    }

    for (const [name, arrange, code, message, retryable] of cases) {
      it(`${name} is ${code}, and tells no secret`, async () => {
        const { refreshToken } = tokens
        const changed = (arrange() ?? {}) as Partial<OAuthApp>
        const error = await new RefreshedToken(app(changed), refreshToken).get().catch((thrown) => thrown)
        assert.ok(error instanceof StorageError, inspect(error))
        assert.equal(error.code, code)
        assert.equal(error.retryable, retryable)
        assert.match(error.message, message)
        const told = inspect(error, { depth: 9, showHidden: true })
        for (const secret of [refreshToken, tokens.clientSecret, 'wrong-secret', ...tokens.issued]) {
          assert.ok(!told.includes(secret), `${secret} is told: ${told}`)
        }
      })
    }

    it('no secret stands in a URL', async () => {
      await new RefreshedToken(app(), tokens.refreshToken).get()
      assert.deepEqual(
        proxy.seen.map(({ url }) => url),
        ['/oauth2/token'],
      )
    })
  })

  async function exchange() {
    const signIn = beginSignIn(app(), { redirectUri: 'http://127.0.0.1:1/back' })
    const code = tokens.authorize(challengeOf(signIn.verifier), signIn.redirectUri)
    return exchangeCode(app(), code, signIn)
  }

  describe('signing in', () => {
    it('the URL asks for a code with PKCE, a state, and a refresh token, as each provider wants it', () => {
      const scopes = ['files.content.read', 'files.content.write']
      const signIn = beginSignIn(app(), { scopes })
      const query = new URL(signIn.url).searchParams
      assert.equal(new URL(signIn.url).origin, 'https://www.dropbox.com')
      assert.equal(query.get('response_type'), 'code')
      assert.equal(query.get('token_access_type'), 'offline')
      assert.equal(query.get('scope'), scopes.join(' '))
      assert.equal(query.get('code_challenge_method'), 'S256')
      assert.equal(query.get('code_challenge'), createHash('sha256').update(signIn.verifier).digest('base64url'))
      assert.match(signIn.verifier, /^[A-Za-z0-9\-._~]{43,128}$/)
      assert.equal(query.get('redirect_uri'), null)
      assert.ok(!signIn.url.includes(signIn.verifier) && !signIn.url.includes(encodeURIComponent(tokens.clientSecret)))
      const google = new URL(
        beginSignIn({ provider: GOOGLE_OAUTH, clientId: 'x' }, { redirectUri: 'http://127.0.0.1:9/' }).url,
      )
      assert.equal(google.searchParams.get('access_type'), 'offline')
      assert.equal(google.searchParams.get('prompt'), 'consent')
      assert.equal(google.searchParams.get('redirect_uri'), 'http://127.0.0.1:9/')
      assert.notEqual(beginSignIn(app()).state, signIn.state)
    })

    it('the challenge is that of RFC 7636, appendix B', () => {
      const challenge = challengeOf('dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk')
      assert.equal(challenge, 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM')
    })

    it('a code is exchanged once, by who has the verifier', async () => {
      const answer = await exchange()
      assert.equal(answer.refreshToken, tokens.refreshToken)
      assert.deepEqual(answer.scopes, tokens.scopes)
      assert.equal(answer.expiresInMs, 14_400_000)
      const signIn = beginSignIn(app())
      const code = tokens.authorize(challengeOf(signIn.verifier))
      const other = { ...signIn, verifier: beginSignIn(app()).verifier }
      await assert.rejects(exchangeCode(app(), code, other), { code: 'AUTH_EXPIRED' })
      await assert.rejects(exchangeCode(app(), code, signIn), { code: 'AUTH_EXPIRED' })
      const typed = tokens.authorize(challengeOf(signIn.verifier))
      assert.ok((await exchangeCode(app({ clientSecret: undefined }), ` ${typed}\n`, signIn)).accessToken)
      await assert.rejects(exchangeCode(app(), 'x', signIn, AbortSignal.abort()), { name: 'AbortError' })
    })

    it('the code is taken only from the answer to this sign-in', () => {
      const signIn = beginSignIn(app(), { redirectUri: 'http://127.0.0.1:1/' })
      const back = (query: Record<string, string>) => `http://127.0.0.1:1/?${new URLSearchParams(query)}`
      assert.equal(codeOf(back({ code: 'c', state: signIn.state }), signIn, DROPBOX_OAUTH), 'c')
      const take = (query: Record<string, string>) => () => codeOf(back(query), signIn, DROPBOX_OAUTH)
      assert.throws(take({ code: 'c', state: 'other' }), { code: 'INVALID' })
      assert.throws(take({ code: 'c' }), { code: 'INVALID' })
      assert.throws(take({ state: signIn.state }), { code: 'INVALID' })
      assert.throws(take({ error: 'access_denied', state: signIn.state }), { code: 'ACCESS_DENIED' })
      assert.throws(take({ error: '<script>', state: signIn.state }), /an unknown reason/)
    })
  })
})
