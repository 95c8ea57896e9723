import type { Readable } from 'node:stream'
import { HttpClient, type HttpTimeouts, sendable } from './http.ts'

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

/** The SDK's request handler, in place of its own: see {@link HttpClient} for why. */
export class S3HttpHandler {
  readonly metadata = { handlerProtocol: 'http/1.1' }
  readonly #http: HttpClient

  constructor(timeouts: HttpTimeouts) {
    this.#http = new HttpClient(timeouts)
  }

  /** See {@link HttpClient}. */
  get serverNow(): number {
    return this.#http.serverNow
  }

  async handle(request: SdkRequest, options: { abortSignal?: AbortSignal } = {}): Promise<{ response: SdkResponse }> {
    const { protocol, hostname, port, method, path, query, headers, body } = request
    const { status, ...answer } = await this.#http.request({
      protocol,
      hostname,
      port,
      method,
      path: path + queryOf(query),
      headers,
      body: sendable(body),
      signal: options.abortSignal,
    })
    return { response: { statusCode: status, ...answer } }
  }

  destroy(): void {
    this.#http.destroy()
  }

  // The SDK asks every handler for these two.
  updateHttpClientConfig(): void {}
  httpHandlerConfigs(): object {
    return {}
  }
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
