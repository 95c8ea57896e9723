import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { StorageError } from './errors.ts'
import { beginSignIn, codeOf, exchangeCode, type OAuthApp, type SignIn, type TokenAnswer } from './oauth.ts'
import { abortError } from './retry.ts'

export interface SignInOptions {
  scopes: readonly string[]
  /** Told the address that the user is to open. */
  onUrl: (url: string) => void
  signal?: AbortSignal | undefined
}

/** Shown in the browser; nothing of the answer is repeated in it. */
const PAGE = (text: string) =>
  `<!doctype html><meta charset="utf-8"><title>millrace</title><body style="font-family:sans-serif;margin:4em"><p>${text}</p>`

/**
 * Signs in with a browser on this machine: it comes back to a server on loopback (RFC 8252, 7.3), which takes one answer.
 * @param port 0: any that is free, where the provider allows it, as Google does; Dropbox wants a registered one.
 * @throws StorageError as `codeOf` and `exchangeCode`; INVALID when the port is taken; AbortError.
 */
export async function signInByBrowser(app: OAuthApp, port: number, options: SignInOptions): Promise<TokenAnswer> {
  const { scopes, onUrl, signal } = options
  const server = http.createServer()
  server.listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw invalid(app, `port ${port} of this machine cannot be used (${code}); name another with --port`)
  }
  try {
    const redirectUri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    const signIn = beginSignIn(app, { scopes, redirectUri })
    const returned = answerOf(server, app, signIn, signal)
    onUrl(signIn.url)
    return await exchangeCode(app, await returned, signIn, signal)
  } finally {
    server.close()
    server.closeAllConnections()
  }
}

/**
 * Signs in from a machine without a browser: the user opens the address elsewhere, and pastes back what it ends with, a
 * code or the whole address that could not be opened.
 * @param redirectUri where the provider sends the browser; absent where it shows the code itself, as Dropbox does.
 * @param ask asks for it.
 * @throws StorageError as `codeOf` and `exchangeCode`; AbortError.
 */
export async function signInByPaste(
  app: OAuthApp,
  redirectUri: string | undefined,
  ask: () => Promise<string>,
  options: SignInOptions,
): Promise<TokenAnswer> {
  const { scopes, onUrl, signal } = options
  const signIn = beginSignIn(app, { scopes, ...(redirectUri === undefined ? {} : { redirectUri }) })
  onUrl(signIn.url)
  const pasted = (await ask()).trim()
  const isAddress = /^https?:\/\//.test(pasted) && URL.canParse(pasted)
  if (pasted === '') throw invalid(app, 'nothing was pasted; begin anew')
  const code = isAddress ? codeOf(pasted, signIn, app.provider) : pasted
  return exchangeCode(app, code, signIn, signal)
}

/** Waits for the browser to come back. What is no answer of ours, such as a favicon's request, is 404. */
function answerOf(
  server: http.Server,
  { provider }: OAuthApp,
  signIn: SignIn,
  signal: AbortSignal | undefined,
): Promise<string> {
  const answer = new Promise<string>((resolve, reject) => {
    const onAbort = () => reject(abortError(signal))
    if (signal?.aborted) onAbort()
    signal?.addEventListener('abort', onAbort, { once: true })
    server.on('request', (request, reply) => {
      // A page of the web, or another user, can ask for anything here, `//` for one.
      const url = URL.parse(request.url ?? '/', signIn.redirectUri)
      const isAnswer = url?.pathname === '/' && (url.searchParams.has('code') || url.searchParams.has('error'))
      const show = (status: number, text: string) =>
        reply.writeHead(status, { 'content-type': 'text/html; charset=utf-8', connection: 'close' }).end(PAGE(text))
      if (!isAnswer) {
        show(404, 'There is nothing here.')
        return
      }
      try {
        const code = codeOf(url, signIn, provider)
        // Only once the page is on its way, as the server ends right after.
        show(200, 'Signed in. You can close this page and go back to the terminal.').once('close', () => resolve(code))
      } catch (error) {
        show(400, 'Signing in failed. The terminal says why.').once('close', () => reject(error))
      }
    })
  })
  // Whoever waits may still be on the way to it.
  answer.catch(() => {})
  return answer
}

function invalid({ provider }: OAuthApp, what: string): StorageError {
  const message = `${provider.name}: signing in failed: ${what}.`
  return new StorageError(message, { code: 'INVALID', adapter: provider.adapter, operation: 'sign-in' })
}
