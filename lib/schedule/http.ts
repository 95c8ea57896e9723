import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { BackupError } from '../errors.ts'

/** Never another: what is shown here is for this machine. */
const HOST = '127.0.0.1'
const TIMEOUT_MS = 10_000
const MAX_HEADER_BYTES = 8 * 1024
const MAX_CONNECTIONS = 32
const LOOPBACK_NAMES = new Set(['127.0.0.1', 'localhost', '[::1]'])

export interface Answer {
  status: number
  type: string
  body: string
}

/** What is there to be read, by path. */
export type Pages = Readonly<Record<string, () => Answer>>

export interface StatusServer {
  /** The one that it listens on. */
  port: number
  close(): Promise<void>
}

/**
 * Serves pages on loopback, for reading only.
 * @param port 0 picks a free one.
 * @throws BackupError USAGE when the port cannot be had.
 */
export async function serveStatus(port: number, pages: Pages): Promise<StatusServer> {
  const server = createServer(
    {
      requestTimeout: TIMEOUT_MS,
      headersTimeout: TIMEOUT_MS,
      keepAliveTimeout: TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_MS / 2,
      maxHeaderSize: MAX_HEADER_BYTES,
    },
    (request, response) => answer(request, response, pages),
  )
  server.maxConnections = MAX_CONNECTIONS
  server.setTimeout(TIMEOUT_MS)
  await listen(server, port)
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'something else listens there' : cause.message
      reject(new BackupError('USAGE', `The daemon cannot listen on ${HOST}:${port} (daemon.port): ${why}.`, { cause }))
    })
    server.listen(port, HOST, () => {
      // A connection that cannot be taken, as when there are no descriptors left, must not end the daemon.
      server.on('error', () => {})
      resolve()
    })
  })
}

function answer(request: IncomingMessage, response: ServerResponse, pages: Pages): void {
  const { status, type, body } = pageFor(request, pages)
  const bytes = Buffer.from(body)
  response.writeHead(status, {
    'content-type': type,
    'content-length': bytes.length,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
    // What is sent behind it is not read.
    ...(hasBody(request) ? { connection: 'close' } : {}),
  })
  response.end(request.method === 'HEAD' ? undefined : bytes)
}

function pageFor(request: IncomingMessage, pages: Pages): Answer {
  const { method = '', url = '/', headers } = request
  // A page of the web can have its name point here: the browser then says that name.
  if (!isLoopback(headers.host)) return text(403, 'This is for this machine alone.')
  if (method !== 'GET' && method !== 'HEAD') return text(405, 'Only GET and HEAD.')
  if (hasBody(request)) return text(413, 'No body is read here.')
  const path = url.split('?', 1)[0] as string
  const page = Object.hasOwn(pages, path) ? pages[path] : undefined
  return page ? page() : text(404, `There are ${Object.keys(pages).join(', ')}.`)
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** A page of plain text. */
export function text(status: number, body: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${body}\n` }
}

function isLoopback(host: string | undefined): boolean {
  return host !== undefined && LOOPBACK_NAMES.has(host.toLowerCase().replace(/:\d{1,5}$/, ''))
}
