import * as http from 'node:http'
import * as https from 'node:https'
import { Readable } from 'node:stream'
import { abortError } from './retry.ts'

/** More than the parts of one upload; several streams may use one Storage. */
const SOCKETS_MAX = 64
const SLICE_BYTES = 256 * 1024
const REFUSAL_MAX_BYTES = 64 * 1024

/** The parts of the SDK's HttpRequest that are used here. */
interface SdkRequest {
  protocol: string
  hostname: string
  port?: number
  method: string
  path: string
  query?: Record<string, string | string[] | null>
  headers: Record<string, string>
  body?: unknown
}

interface SdkResponse {
  statusCode: number
  headers: Record<string, string>
  body: Readable
}

export interface HttpTimeouts {
  connectMs: number
  /** Without a byte in either direction. */
  idleMs: number
}

/**
 * The SDK's request handler, in place of its own, for three things that its own does not do. A promise settles only
 * when no socket reads from the request's body any more, so the body can be a buffer that is used again. A body goes
 * out in slices, as TLS would else hold a second copy of the whole. The idle watch is on the socket in both
 * directions, and leaves out the time in which our own consumer does not read.
 */
export class S3HttpHandler {
  readonly metadata = { handlerProtocol: 'http/1.1' }
  readonly #timeouts: HttpTimeouts
  readonly #plain = new http.Agent({ keepAlive: true, maxSockets: SOCKETS_MAX })
  readonly #secure = new https.Agent({ keepAlive: true, maxSockets: SOCKETS_MAX })

  constructor(timeouts: HttpTimeouts) {
    this.#timeouts = timeouts
  }

  handle(request: SdkRequest, options: { abortSignal?: AbortSignal } = {}): Promise<{ response: SdkResponse }> {
    return new Promise((resolve, reject) => {
      const signal = options.abortSignal
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
        path: request.path + queryOf(request.query),
        headers: request.headers,
      })
      this.#watch(sent)
      const onAbort = () => sent.destroy(abortError(signal))
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
        const answer = (body: Readable) => {
          const headers = flatten(response.headers)
          resolve({ response: { statusCode: response.statusCode ?? 0, headers, body } })
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

  // The SDK asks every handler for these two.
  updateHttpClientConfig(): void {}
  httpHandlerConfigs(): object {
    return {}
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

/** Writes the body as the socket takes it. An answer that comes before the end stops it. */
function writeBody(sent: http.ClientRequest, body: unknown): void {
  if (body === undefined || body === null || body === '') {
    sent.end()
    return
  }
  if (typeof body === 'string') {
    sent.end(body)
    return
  }
  if (!(body instanceof Uint8Array)) {
    sent.destroy(new TypeError('only buffers and strings are sent'))
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

function queryOf(query: SdkRequest['query']): string {
  const pairs: string[] = []
  for (const [name, value] of Object.entries(query ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) {
    for (const item of Array.isArray(value) ? value : [value]) {
      pairs.push(item === null || item === '' ? encode(name) : `${encode(name)}=${encode(item)}`)
    }
  }
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`
}

/** As SigV4 encodes: all but letters, digits and `-_.~`. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
}

function flatten(headers: http.IncomingHttpHeaders): Record<string, string> {
  const flat: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return flat
}

function hangUp(): Error {
  return Object.assign(new Error('the connection was closed before an answer'), { code: 'ECONNRESET' })
}
