import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'

export interface FakeServer {
  /** `http://127.0.0.1:PORT` */
  origin: string
  close(): Promise<void>
}

/** A request that a fake answers with an error: the status, the provider's own error body, and headers. */
export class Refusal extends Error {
  readonly status: number
  readonly body: unknown
  readonly headers: Record<string, string>

  constructor(status: number, body: unknown, headers: Record<string, string> = {}) {
    super(`${status}`)
    this.status = status
    this.body = body
    this.headers = headers
  }
}

/**
 * Serves a fake provider on loopback. A handler that throws a {@link Refusal} answers with it; anything else that it
 * throws is a fault of the fake: 500, and a line on stderr.
 */
export async function serveFake(
  handle: (request: http.IncomingMessage, reply: http.ServerResponse, url: URL) => Promise<void>,
): Promise<FakeServer> {
  const server = http.createServer((request, reply) => {
    // The client's own idea of the host, so that URLs made from it lead back through a proxy in between.
    const url = new URL(request.url ?? '/', `http://${request.headers.host}`)
    reply.on('error', () => {})
    handle(request, reply, url).catch((error) => {
      // Cut off by the client: there is nobody to answer.
      if (request.destroyed && !request.complete) return
      if (reply.headersSent) {
        reply.destroy()
        return
      }
      if (error instanceof Refusal) {
        sendJson(reply, error.status, error.body, error.headers)
        return
      }
      console.error('the fake failed:', error)
      reply.writeHead(500).end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Answers with JSON; a string goes out as it is, as plain text. */
export function sendJson(
  reply: http.ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  const isText = typeof body === 'string'
  const bytes = Buffer.from(isText ? body : JSON.stringify(body))
  const type = isText ? 'text/plain; charset=utf-8' : 'application/json; charset=utf-8'
  reply.writeHead(status, { 'content-type': type, 'content-length': bytes.length, ...headers }).end(bytes)
}

/** Reads a request's body whole. @throws when the client cuts it off, or sends more than `maxBytes`. */
export async function readBody(request: http.IncomingMessage, maxBytes = 256 * 1024 * 1024): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > maxBytes) throw new Refusal(413, 'the body is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** The first and last byte that a Range header asks for of `size` bytes; undefined for none; `416` out of bounds. */
export function rangeOf(request: http.IncomingMessage, size: number): { start: number; end: number } | undefined | 416 {
  const match = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '')
  if (!match || (match[1] === '' && match[2] === '')) return undefined
  const start = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1])
  const end = match[1] === '' || match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1)
  return start >= size || end < start ? 416 : { start, end }
}
