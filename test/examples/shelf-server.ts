import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

interface Stored {
  bytes: Buffer
  etag: string
  modified: Date
  writeId: string
}

export interface ShelfServer {
  origin: string
  token: string
  /** Uploads that were begun and neither committed nor cancelled. */
  uploads: Map<string, Map<number, Buffer>>
  close(): Promise<void>
}

const PAGE = 100

/** The store that the example's adapter is for: small, in memory, over real HTTP, with the manners of a real one. */
export async function openShelfServer(): Promise<ShelfServer> {
  const token = randomUUID()
  const objects = new Map<string, Stored>()
  const uploads: ShelfServer['uploads'] = new Map()

  const server = http.createServer((request, reply) => {
    handle(request, reply).catch(() => reply.destroy())
  })

  async function handle(request: http.IncomingMessage, reply: http.ServerResponse): Promise<unknown> {
    // All of it or nothing: a body that breaks off throws here, and nothing is stored.
    const body = await buffer(request)
    if (request.headers.authorization !== `Bearer ${token}`) return answer(reply, 401)
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://shelf')
    const [, room, name, part] = pathname.split('/').map(decodeURIComponent)
    if (room === 'uploads') return name === undefined ? begin(reply) : upload(request, reply, name, part, body)
    if (room !== 'objects') return answer(reply, 404)
    return name === undefined ? list(reply, searchParams) : object(request, reply, name, body)
  }

  function begin(reply: http.ServerResponse): unknown {
    const id = randomUUID()
    uploads.set(id, new Map())
    return answer(reply, 201, { id })
  }

  function upload(
    request: http.IncomingMessage,
    reply: http.ServerResponse,
    id: string,
    part: string | undefined,
    body: Buffer,
  ): unknown {
    const parts = uploads.get(id)
    if (!parts) return answer(reply, 404)
    if (request.method === 'DELETE') {
      uploads.delete(id)
      return answer(reply, 204)
    }
    if (request.method === 'PUT') {
      parts.set(Number(part), body)
      return answer(reply, 200, { etag: `${part}-${body.length}` })
    }
    const wanted = JSON.parse(body.toString()) as { key: string; parts: string[] }
    const bodies = wanted.parts.map((_, index) => parts.get(index + 1))
    const fits = bodies.every((bytes, index) => bytes && wanted.parts[index] === `${index + 1}-${bytes.length}`)
    if (!fits) return answer(reply, 400)
    if (store(request, reply, wanted.key, Buffer.concat(bodies as Buffer[]))) uploads.delete(id)
    return reply
  }

  function store(request: http.IncomingMessage, reply: http.ServerResponse, key: string, bytes: Buffer): boolean {
    if (request.headers['if-none-match'] === '*' && objects.has(key)) {
      answer(reply, 412)
      return false
    }
    const writeId = String(request.headers['x-write-id'] ?? '')
    objects.set(key, { bytes, etag: `"${randomUUID()}"`, modified: new Date(), writeId })
    answer(reply, 201)
    return true
  }

  function object(request: http.IncomingMessage, reply: http.ServerResponse, key: string, body: Buffer): unknown {
    if (request.method === 'PUT') {
      store(request, reply, key, body)
      return reply
    }
    const found = objects.get(key)
    if (!found) return answer(reply, 404)
    const match = request.headers['if-match']
    if (match !== undefined && match !== found.etag) return answer(reply, 412)
    if (request.method === 'DELETE') {
      objects.delete(key)
      return answer(reply, 204)
    }
    const { bytes, etag, modified, writeId } = found
    const headers = { etag, 'last-modified': modified.toUTCString(), 'x-write-id': writeId }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    if (request.method === 'HEAD' || !range) {
      return reply.writeHead(200, { ...headers, 'content-length': bytes.length }).end(bytes)
    }
    const start = Number(range[1])
    const end = Math.min(range[2] === '' ? Number.POSITIVE_INFINITY : Number(range[2]), bytes.length - 1)
    if (start > end) {
      return reply.writeHead(416, { ...headers, 'content-range': `bytes */${bytes.length}` }).end()
    }
    const piece = bytes.subarray(start, end + 1)
    const where = { 'content-range': `bytes ${start}-${end}/${bytes.length}`, 'content-length': piece.length }
    return reply.writeHead(206, { ...headers, ...where }).end(piece)
  }

  function list(reply: http.ServerResponse, query: URLSearchParams): unknown {
    const prefix = query.get('prefix') ?? ''
    const after = query.get('after') ?? ''
    const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort()
    const page = keys.slice(0, PAGE).map((key) => {
      const { bytes, etag, modified } = objects.get(key) as Stored
      return { key, size: bytes.length, modified, version: etag }
    })
    return answer(reply, 200, { objects: page, ...(keys.length > PAGE ? { next: keys[PAGE - 1] } : {}) })
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token,
    uploads,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function answer(reply: http.ServerResponse, status: number, body?: object): unknown {
  return reply.writeHead(status, { 'content-type': 'application/json' }).end(body && JSON.stringify(body))
}
