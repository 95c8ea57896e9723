import * as http from 'node:http'
import * as https from 'node:https'
import { pipeline, Readable, Transform } from 'node:stream'
import { abortError } from './retry.ts'

/** More than the parts of one upload; several streams may use one Storage. */
const SOCKETS_MAX = 64
const SLICE_BYTES = 256 * 1024
const REFUSAL_MAX_BYTES = 64 * 1024

export interface HttpRequest {
  /** `http:` or `https:` */
  protocol: string
  hostname: string
  port?: number | undefined
  /** With the query, as it goes on the wire. */
  path: string
  method: string
  headers: Record<string, string>
  body?: Uint8Array | string | undefined
  signal?: AbortSignal | undefined
}

export interface HttpResponse {
  status: number
  /** Names in lower case; values of a header that came more than once are joined by `, `. */
  headers: Record<string, string>
  /** To be read to its end or destroyed, or its connection is lost. */
  body: Readable
}

/** How much of an answer that is read whole is kept: an error or a page of a listing is far below it. */
const TEXT_MAX_BYTES = 16 * 1024 * 1024

export interface HttpTimeouts {
  connectMs: number
  /** Without a byte in either direction. */
  idleMs: number
}

/**
 * An HTTP/1.1 client, for three things that `fetch` and the SDKs' own do not do. A promise settles only when no socket
 * reads from the request's body any more, so the body can be a buffer that is used again. A body goes out in slices,
 * as TLS would else hold a second copy of the whole. The idle watch is on the socket in both directions, and leaves
 * out the time in which our own consumer does not read.
 */
export class HttpClient {
  readonly #timeouts: HttpTimeouts
  readonly #plain: http.Agent
  readonly #secure: https.Agent
  #clockAheadMs = 0

  constructor(timeouts: HttpTimeouts) {
    this.#timeouts = timeouts
    // A connection that nobody has used for so long may be dead without a word, as when a router has forgotten it: the
    // next request would wait for nothing. Of those in use, `#watch` sets the time.
    const options = { keepAlive: true, maxSockets: SOCKETS_MAX, timeout: timeouts.idleMs }
    this.#plain = new http.Agent(options)
    this.#secure = new https.Agent(options)
  }

  /** The time by the server's clock, to the second, as its last answer says; ours before there is one. */
  get serverNow(): number {
    return Date.now() + this.#clockAheadMs
  }

  /**
   * Sends one request, and does not follow redirects.
   * @returns the answer, whatever its status, once the request's body is let go of.
   * @throws AbortError; a network error with Node's `code` (`ECONNRESET` …; `ETIMEDOUT` of an idle connection).
   */
  request(request: HttpRequest): Promise<HttpResponse> {
    return new Promise((resolve, reject) => {
      const { signal } = request
      if (signal?.aborted) {
        reject(abortError(signal))
        return
      }
      const secure = request.protocol === 'https:'
      const sent = (secure ? https : http).request({
        agent: secure ? this.#secure : this.#plain,
        hostname: request.hostname.replace(/^\[|\]$/g, ''),
        port: request.port,
        method: request.method,
        path: request.path,
        headers: request.headers,
      })
      this.#watch(sent)
      let reply: http.IncomingMessage | undefined
      const onAbort = () => {
        const error = abortError(signal)
        // Of a request that is destroyed alone, whoever reads the answer is told of a lost connection.
        reply?.destroy(error)
        sent.destroy(error)
      }
      signal?.addEventListener('abort', onAbort)

      let failure: Error | undefined
      sent.on('error', (error) => {
        failure ??= error
      })
      sent.on('close', () => {
        signal?.removeEventListener('abort', onAbort)
        // The socket is closed by now, and the body with it; at 'error' it may not be.
        reject(signal?.aborted ? abortError(signal) : (failure ?? hangUp()))
      })
      sent.on('response', (response) => {
        reply = response
        const serverMs = Date.parse(response.headers.date ?? '')
        if (!Number.isNaN(serverMs)) this.#clockAheadMs = serverMs - Date.now()
        const answer = (body: Readable) => {
          resolve({ status: response.statusCode ?? 0, headers: flatten(response.headers), body })
        }
        if (sent.writableFinished || !request.body) answer(response)
        else refuseEarly(sent, response, answer)
      })
      writeBody(sent, request.body)
    })
  }

  destroy(): void {
    this.#plain.destroy()
    this.#secure.destroy()
  }

  #watch(sent: http.ClientRequest): void {
    const { connectMs, idleMs } = this.#timeouts
    let response: http.IncomingMessage | undefined
    sent.on('response', (value) => {
      response = value
    })
    const expire = (what: string) => {
      const error = Object.assign(new Error(what), { name: 'TimeoutError', code: 'ETIMEDOUT' })
      // Destroying the request alone would end a response that is being read without an error.
      response?.destroy(error)
      sent.destroy(error)
    }
    sent.on('socket', (socket) => {
      const connecting = setTimeout(() => expire(`no connection within ${connectMs} ms`), connectMs)
      const connected = () => clearTimeout(connecting)
      if (socket.connecting) socket.once('connect', connected)
      else connected()
      const onIdle = () => {
        // Bytes that wait to be read: it is our consumer that is slow.
        if (response && response.readableLength > 0) socket.setTimeout(idleMs)
        else expire(`no byte for ${idleMs} ms`)
      }
      socket.setTimeout(idleMs)
      socket.on('timeout', onIdle)
      sent.once('close', () => {
        connected()
        socket.setTimeout(0)
        socket.off('timeout', onIdle)
      })
    })
  }
}

/** The parts of a request that its URL says. @throws TypeError for what is no URL of http or https. */
export function targetOf(url: string | URL): Pick<HttpRequest, 'protocol' | 'hostname' | 'port' | 'path'> {
  const { protocol, hostname, port, pathname, search } = new URL(url)
  if (protocol !== 'http:' && protocol !== 'https:') throw new TypeError('only http and https URLs can be asked')
  return { protocol, hostname, path: pathname + search, ...(port === '' ? {} : { port: Number(port) }) }
}

/**
 * Reads an answer's body whole, as UTF-8.
 * @throws Error with `code` ECONNRESET when it breaks off; EMSGSIZE above 16 MiB.
 */
export async function readText({ body }: Pick<HttpResponse, 'body'>): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > TEXT_MAX_BYTES) throw tooLong()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/**
 * An answer's body for whoever reads it whole, however long it is: one that becomes longer than 16 MiB fails with `code`
 * EMSGSIZE.
 */
export function boundedBody({ headers, body }: Pick<HttpResponse, 'headers' | 'body'>): Readable {
  // No more comes than it says.
  if (Number(headers['content-length']) <= TEXT_MAX_BYTES) return body
  let bytes = 0
  const bound = new Transform({
    transform(chunk: Buffer, _, callback) {
      bytes += chunk.length
      if (bytes > TEXT_MAX_BYTES) callback(tooLong())
      else callback(null, chunk)
    },
  })
  // Its reader is told by the stream itself.
  return pipeline(body, bound, () => {})
}

function tooLong(): Error {
  return Object.assign(new Error('the answer is longer than any that is expected'), { code: 'EMSGSIZE' })
}

/**
 * An {@link HttpClient} in the shape of `fetch`, for SDKs that take one. It sends buffers, strings and URLSearchParams
 * without a copy, follows no redirect, and reads an answer whole, as text: files are got with `request`.
 */
export function createFetch(client: HttpClient): typeof fetch {
  const ask = createTextFetch(client)
  return async (input, init = {}) => {
    const { status, headers, text } = await ask(input, init)
    const hasBody = ![101, 204, 205, 304].includes(status) && init.method !== 'HEAD'
    return new Response(hasBody ? text : null, { status, headers })
  }
}

/** An answer that was read whole. */
export interface TextAnswer {
  status: number
  headers: Record<string, string>
  text: string
}

/** What `fetch` takes, and a plain answer: a Response holds web streams, which outlive many a collection. */
export function createTextFetch(
  client: HttpClient,
): (input: string | URL | Request, init?: RequestInit) => Promise<TextAnswer> {
  return async (input, init = {}) => {
    const url = input instanceof Request ? input.url : input
    const { body, signal } = init
    const headers = headersOf(init.headers)
    const isForm = body instanceof URLSearchParams
    if (isForm) headers['content-type'] ??= 'application/x-www-form-urlencoded;charset=UTF-8'
    const sent = isForm ? body.toString() : sendable(body)
    headers['content-length'] = String(sent === undefined ? 0 : Buffer.byteLength(sent))
    const method = init.method ?? 'GET'
    if (sent === undefined && (method === 'GET' || method === 'HEAD')) delete headers['content-length']
    const answer = await client.request({
      ...targetOf(url),
      method,
      headers,
      body: sent,
      signal: signal ?? undefined,
    })
    return { status: answer.status, headers: answer.headers, text: await readText(answer) }
  }
}

/** By name in lower case. */
function headersOf(given: RequestInit['headers']): Record<string, string> {
  if (given === undefined || given instanceof Headers || Array.isArray(given)) {
    return Object.fromEntries(new Headers(given))
  }
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name.toLowerCase(), String(value)]))
}

/** A request's body as it can be sent. @throws TypeError for a stream, a form or anything else. */
export function sendable(body: unknown): Uint8Array | string | undefined {
  if (typeof body === 'string' || body instanceof Uint8Array) return body
  if (body === undefined || body === null) return undefined
  throw new TypeError('only buffers and strings are sent')
}

/** Writes the body as the socket takes it. An answer that comes before the end stops it. */
function writeBody(sent: http.ClientRequest, body: Uint8Array | string | undefined): void {
  if (body === undefined || body === '') {
    sent.end()
    return
  }
  if (typeof body === 'string') {
    sent.end(body)
    return
  }
  let at = 0
  const writeOn = () => {
    while (at < body.length && !sent.destroyed) {
      const slice = body.subarray(at, at + SLICE_BYTES)
      at += slice.length
      if (!sent.write(slice) && at < body.length) {
        sent.once('drain', writeOn)
        return
      }
    }
    if (!sent.destroyed) sent.end()
  }
  writeOn()
}

/**
 * An answer before the whole body was sent is a refusal. It is read to its end, then the connection is closed, as it
 * would go on to send from the body; only then is the answer passed on.
 */
function refuseEarly(sent: http.ClientRequest, response: http.IncomingMessage, answer: (body: Readable) => void): void {
  const chunks: Buffer[] = []
  let bytes = 0
  let done = false
  const finish = () => {
    if (done) return
    done = true
    sent.prependOnceListener('close', () => answer(Readable.from(chunks, { objectMode: false })))
    sent.destroy()
  }
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > REFUSAL_MAX_BYTES) finish()
  })
  response.on('end', finish)
  response.on('error', finish)
}

function flatten(headers: http.IncomingHttpHeaders): Record<string, string> {
  const flat: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value
  }
  // A time is the server's (RFC 9110, 10.2.3): this machine's clock may be hours from it.
  const ms = Date.parse(flat['retry-after'] ?? '') - Date.parse(flat.date ?? '')
  if (Number.isNaN(Number(flat['retry-after'])) && !Number.isNaN(ms)) {
    flat['retry-after'] = String(Math.max(0, Math.ceil(ms / 1000)))
  }
  return flat
}

function hangUp(): Error {
  return Object.assign(new Error('the connection was closed before an answer'), { code: 'ECONNRESET' })
}
