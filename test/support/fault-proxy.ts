import { createHash } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'

export type Fault =
  /** Answers with a status after half of the body, and does not pass the request on. */
  | { kind: 'refuse-halfway'; status: number; headers?: Record<string, string> }
  /** Answers without passing the request on. */
  | { kind: 'answer'; status: number; headers?: Record<string, string>; body?: string }
  /** Passes the request on whole, then answers with something else than the server did. */
  | { kind: 'answer-after'; status: number; body: string }
  /** Cuts the connection after so many bytes of the request's body. */
  | { kind: 'drop-request'; afterBytes: number }
  /** Passes the request on, waits for the server's answer, then cuts the connection without it. */
  | { kind: 'lose-reply' }
  /** Takes the request and never answers. */
  | { kind: 'swallow' }
  /** Cuts the connection after so many bytes of the answer's body. */
  | { kind: 'drop-reply'; afterBytes: number }
  /** Sends no more after so many bytes of the answer's body, and keeps the connection. */
  | { kind: 'stall-reply'; afterBytes: number }
  /** Ends the answer after so many bytes as if it were all, with a Content-Length to match. */
  | { kind: 'shorten-reply'; afterBytes: number }

export interface SeenRequest {
  method: string
  /** With the query. */
  url: string
  headers: http.IncomingHttpHeaders
  bodyBytes: number
  /** Of what of the body arrived. */
  bodySha256: string
  /** Which fault befell it. */
  fault?: Fault['kind']
}

export interface FaultProxy {
  /** To be used in place of the server's endpoint. */
  endpoint: string
  /** Every request, in the order of their ends. */
  seen: SeenRequest[]
  /** Arms a fault for the next `times` requests (default 1) that match. */
  inject(fault: Fault, match: (request: { method: string; url: string }) => boolean, times?: number): void
  /** Resolves when a request that matches has arrived. */
  arrival(match: (request: { method: string; url: string }) => boolean): Promise<void>
  close(): Promise<void>
}

interface Armed {
  fault: Fault
  match: (request: { method: string; url: string }) => boolean
  left: number
}

/**
 * Stands on loopback between a client and a real HTTP server, and fails as networks and servers fail. The Host header
 * passes unchanged, as SigV4 signs it.
 */
export async function openFaultProxy(target: string): Promise<FaultProxy> {
  const { hostname, port } = new URL(target)
  const agent = new http.Agent({ keepAlive: true })
  const armed: Armed[] = []
  const seen: SeenRequest[] = []
  const arrivals: { match: Armed['match']; resolve: () => void }[] = []

  const server = http.createServer((request, reply) => {
    const { method = '', url = '' } = request
    for (const arrival of arrivals) if (arrival.match({ method, url })) arrival.resolve()
    const found = armed.find((item) => item.left > 0 && item.match({ method, url }))
    if (found) found.left--
    const fault = found?.fault
    record(request, fault)
    request.on('error', () => {})
    reply.on('error', () => {})

    if (fault?.kind === 'answer' || fault?.kind === 'refuse-halfway') {
      const half = fault.kind === 'refuse-halfway' ? Number(request.headers['content-length']) / 2 : Infinity
      const body = fault.kind === 'answer' ? (fault.body ?? '') : ''
      const answer = () => reply.headersSent || reply.writeHead(fault.status, fault.headers).end(body)
      afterBytes(request, half, answer)
      request.on('end', answer)
      return
    }
    if (fault?.kind === 'swallow') {
      request.resume()
      return
    }
    if (fault?.kind === 'drop-request') afterBytes(request, fault.afterBytes, () => request.socket.destroy())
    const headers = request.rawHeaders
    const passed = http.request({ hostname, port, method, path: url, headers, agent, setHost: false }, (answer) => {
      passOn(answer, reply, fault)
    })
    passed.on('error', () => request.socket.destroy())
    request.on('close', () => request.complete || passed.destroy())
    request.pipe(passed)
  })

  function record(request: http.IncomingMessage, fault: Fault | undefined): void {
    const hash = createHash('sha256')
    let bodyBytes = 0
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk)
      bodyBytes += chunk.length
    })
    request.once('close', () => {
      const { method = '', url = '', headers } = request
      const entry: SeenRequest = { method, url, headers, bodyBytes, bodySha256: hash.digest('hex') }
      seen.push(fault ? { ...entry, fault: fault.kind } : entry)
    })
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    inject(fault, match, times = 1) {
      armed.push({ fault, match, left: times })
    },
    arrival: (match) => new Promise((resolve) => arrivals.push({ match, resolve })),
    async close() {
      server.closeAllConnections()
      server.close()
      agent.destroy()
      await once(server, 'close')
    },
  }
}

function passOn(answer: http.IncomingMessage, reply: http.ServerResponse, fault: Fault | undefined): void {
  const socket = reply.socket
  answer.on('error', () => socket?.destroy())
  const status = answer.statusCode ?? 500
  switch (fault?.kind) {
    case 'lose-reply':
      answer.resume().on('end', () => socket?.destroy())
      return
    case 'answer-after':
      answer.resume().on('end', () => reply.writeHead(fault.status).end(fault.body))
      return
    case 'shorten-reply': {
      reply.writeHead(status, { ...answer.headers, 'content-length': fault.afterBytes })
      forwardUpTo(answer, reply, fault.afterBytes, () => reply.end())
      return
    }
    case 'drop-reply':
    case 'stall-reply':
      reply.writeHead(status, answer.rawHeaders)
      reply.flushHeaders()
      forwardUpTo(answer, reply, fault.afterBytes, () => {
        if (fault.kind === 'drop-reply') socket?.destroy()
      })
      return
    default:
      reply.writeHead(status, answer.rawHeaders)
      answer.pipe(reply)
  }
}

/** Writes the first bytes of an answer, then leaves the rest unread and calls back. */
function forwardUpTo(answer: http.IncomingMessage, reply: http.ServerResponse, bytes: number, done: () => void): void {
  let left = bytes
  answer.on('data', (chunk: Buffer) => {
    const part = chunk.subarray(0, left)
    left -= part.length
    if (left > 0) {
      reply.write(part)
      return
    }
    answer.removeAllListeners('data').pause()
    reply.write(part, done)
  })
}

function afterBytes(request: http.IncomingMessage, bytes: number, action: () => void): void {
  let seen = 0
  request.on('data', (chunk: Buffer) => {
    const before = seen
    seen += chunk.length
    if (before < bytes && seen >= bytes) action()
  })
}
