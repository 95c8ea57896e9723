import { createHash } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { forwardAll, forwardSlowly, forwardUpTo } from './fault-bodies.ts'

/** What can befall a request. Counts of bytes are of a body, and fall short of its end even where it has fewer. */
export type Fault =
  /** Answers with a status after half of the body, and does not pass the request on. */
  | { kind: 'refuse-halfway'; status: number; headers?: Record<string, string> }
  /** Answers without passing the request on. */
  | { kind: 'answer'; status: number; headers?: Record<string, string>; body?: string }
  /** Passes the request on whole, then answers with something else than the server did. */
  | { kind: 'answer-after'; status: number; body: string }
  /** Closes the connection after so many bytes of the request's body. */
  | { kind: 'drop-request'; afterBytes: number }
  /** As drop-request, with a TCP reset. */
  | { kind: 'reset-request'; afterBytes: number }
  /** Takes no more after so many bytes of the request's body, and keeps the connection. */
  | { kind: 'stall-request'; afterBytes: number }
  /** Passes the request on, waits for the server's answer, then closes the connection without it. */
  | { kind: 'lose-reply' }
  /** Takes the whole request, passes nothing on and never answers. */
  | { kind: 'swallow' }
  /** Closes the connection after so many bytes of the answer's body; before the answer where it has none. */
  | { kind: 'drop-reply'; afterBytes: number }
  /** As drop-reply, with a TCP reset. */
  | { kind: 'reset-reply'; afterBytes: number }
  /** Sends no more after so many bytes of the answer's body, and keeps the connection. */
  | { kind: 'stall-reply'; afterBytes: number }
  /** Ends the answer after so many bytes as if it were all, with a Content-Length to match. */
  | { kind: 'shorten-reply'; afterBytes: number }
  /** Passes both bodies on whole, at so many bytes a second. */
  | { kind: 'slow'; bytesPerSecond: number }

/** A request of which nothing but the head has come. */
export interface ArrivedRequest {
  method: string
  /** With the query. */
  url: string
  headers: http.IncomingHttpHeaders
  /** Of JSON of at most 64 KiB, once it has come: what of it arrived. */
  json?: string
}

export interface SeenRequest extends ArrivedRequest {
  /** Its place in the order of arrival, from 0. */
  index: number
  bodyBytes: number
  /** Of what of the body arrived. */
  bodySha256: string
  /** How the body begins, for a protocol that names its objects there. */
  bodyHead: string
  /** Which fault befell it. */
  fault?: Fault['kind']
  /** Whether all of it was passed on to the server. */
  reached: boolean
  /** What the server answered; 0 where it broke off instead. */
  serverStatus?: number
  /** From when all of it was passed on until the server answered, in milliseconds. */
  serverMs?: number
  /** What the client was answered, once the answer was sent to its end. */
  answered?: number
}

/** Decides at a request's arrival whether a fault befalls it. */
export type FaultSchedule = (request: ArrivedRequest) => Fault | undefined

type Match = (request: ArrivedRequest) => boolean

export interface FaultProxy {
  /** To be used in place of the server's endpoint. */
  endpoint: string
  /** Every request, in the order in which they were read to their ends or broke off. */
  seen: SeenRequest[]
  /** How many requests have arrived. */
  readonly arrived: number
  /** Arms a fault for the next `times` requests (default 1) that match. */
  inject(fault: Fault, match: Match, times?: number): void
  /** Lets a schedule decide for each request for which no fault is armed; undefined: nothing befalls them. */
  follow(schedule: FaultSchedule | undefined): void
  /** Resolves when a request that matches has arrived. */
  arrival(match: Match): Promise<void>
  /** What was passed on to the server and is not over there. */
  readonly underWay: SeenRequest[]
  /** Resolves when the server has answered, or broken off, all that was passed on to it. */
  idle(): Promise<void>
  close(): Promise<void>
}

export interface FaultProxyOptions {
  /** Whether `bodySha256` is made, which costs time; else it is empty. Default true. */
  hashBodies?: boolean
}

const HEAD_BYTES = 1000
/** A stalled connection is read again after this time, or nobody would see that the other side has closed it. */
const STALL_MS = 10_000
const JSON_MAX_BYTES = 64 * 1024

/**
 * Stands on loopback between a client and a real HTTP server, and fails as networks and servers fail. The Host header
 * passes unchanged, as SigV4 signs it; a server that gives out URLs of its own (an upload session's) has to build them
 * from that header, or their requests go past the proxy.
 */
export async function openFaultProxy(target: string, options: FaultProxyOptions = {}): Promise<FaultProxy> {
  const { hostname, port } = new URL(target)
  const agent = new http.Agent({ keepAlive: true })
  const armed: { fault: Fault; match: Match; left: number }[] = []
  const seen: SeenRequest[] = []
  const arrivals: { match: Match; resolve: () => void }[] = []
  const underWay = new Map<SeenRequest, Promise<unknown>>()
  let schedule: FaultSchedule | undefined
  let count = 0

  const server = http.createServer((request, reply) => {
    const { method = '', url = '', headers } = request
    const arrived = { method, url, headers }
    for (const arrival of arrivals) if (arrival.match(arrived)) arrival.resolve()
    const found = armed.find((item) => item.left > 0 && item.match(arrived))
    if (found) found.left--
    const fault = found?.fault ?? schedule?.(arrived)
    const entry = record(request, reply, { ...arrived, index: count++, ...(fault ? { fault: fault.kind } : {}) })
    request.on('error', () => {})
    reply.on('error', () => {})
    reply.on('finish', () => {
      entry.answered = reply.statusCode
    })
    if (!answerAlone(request, reply, fault)) passOn(request, reply, fault, entry)
  })

  function record(
    request: http.IncomingMessage,
    reply: http.ServerResponse,
    facts: ArrivedRequest & { index: number },
  ): SeenRequest {
    const hash = options.hashBodies === false ? undefined : createHash('sha256')
    const entry: SeenRequest = { ...facts, bodyBytes: 0, bodySha256: '', bodyHead: '', reached: false }
    const { 'content-type': type = '', 'content-length': length } = facts.headers
    if (type.startsWith('application/json') && Number(length) <= JSON_MAX_BYTES) entry.json = ''
    request.on('data', (chunk: Buffer) => {
      if (entry.json !== undefined) entry.json += chunk.toString('latin1')
      hash?.update(chunk)
      if (entry.bodyBytes === 0) entry.bodyHead = chunk.toString('utf8', 0, HEAD_BYTES)
      entry.bodyBytes += chunk.length
    })
    let isOver = false
    const end = () => {
      if (isOver) return
      isOver = true
      if (entry.json !== undefined) entry.json = Buffer.from(entry.json, 'latin1').toString()
      entry.bodySha256 = hash?.copy().digest('hex') ?? ''
      seen.push(entry)
    }
    request.once('close', end)
    // Of a request that was answered before its end, Node reports no close.
    reply.once('close', end)
    return entry
  }

  function passOn(
    request: http.IncomingMessage,
    reply: http.ServerResponse,
    fault: Fault | undefined,
    entry: SeenRequest,
  ): void {
    const { method, url } = entry
    const headers = request.rawHeaders
    let reachedAt = performance.now()
    const passed = http.request({ hostname, port, method, path: url, headers, agent, setHost: false }, (answer) => {
      entry.serverStatus = answer.statusCode ?? 0
      entry.serverMs = performance.now() - reachedAt
      passBack(method, answer, reply, fault)
    })
    const ended = new Promise<void>((resolve) => passed.on('close', resolve))
    underWay.set(entry, ended)
    passed.on('close', () => {
      underWay.delete(entry)
      entry.serverStatus ??= 0
    })
    let isCut = false
    passed.on('error', () => isCut || request.socket.destroy())
    passed.on('finish', () => {
      entry.reached = true
      reachedAt = performance.now()
    })
    // What the server has whole it goes on with, whether its client waits or not.
    reply.on('close', () => entry.reached || passed.destroy())
    switch (fault?.kind) {
      case 'drop-request':
      case 'reset-request':
      case 'stall-request':
        forwardUpTo(request, passed, shortOf(request, fault.afterBytes), () => {
          isCut = true
          passed.destroy()
          if (fault.kind === 'drop-request') request.socket.destroy()
          else if (fault.kind === 'reset-request') reset(request.socket)
          else setTimeout(() => request.resume(), STALL_MS).unref()
        })
        break
      case 'slow':
        forwardSlowly(request, passed, fault.bytesPerSecond)
        break
      default:
        forwardAll(request, passed)
    }
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    get arrived() {
      return count
    },
    inject(fault, match, times = 1) {
      armed.push({ fault, match, left: times })
    },
    follow(next) {
      schedule = next
    },
    arrival: (match) => new Promise((resolve) => arrivals.push({ match, resolve })),
    get underWay() {
      return [...underWay.keys()]
    },
    async idle() {
      while (underWay.size > 0) await Promise.all(underWay.values())
    },
    async close() {
      server.closeAllConnections()
      server.close()
      agent.destroy()
      await once(server, 'close')
    },
  }
}

/** Handles the faults of which the server is to know nothing. @returns whether this is one. */
function answerAlone(request: http.IncomingMessage, reply: http.ServerResponse, fault: Fault | undefined): boolean {
  if (fault?.kind === 'swallow') {
    request.resume()
    return true
  }
  if (fault?.kind !== 'answer' && fault?.kind !== 'refuse-halfway') return false
  const half = fault.kind === 'refuse-halfway' ? Number(request.headers['content-length']) / 2 : Infinity
  const body = fault.kind === 'answer' && request.method !== 'HEAD' ? (fault.body ?? '') : ''
  const answer = () => reply.headersSent || reply.writeHead(fault.status, fault.headers).end(body)
  let bytes = 0
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes >= half) answer()
  })
  request.on('end', answer)
  return true
}

function passBack(
  method: string,
  answer: http.IncomingMessage,
  reply: http.ServerResponse,
  fault: Fault | undefined,
): void {
  const socket = reply.socket
  if (socket === null || socket.destroyed) {
    answer.on('error', () => {}).resume()
    return
  }
  answer.on('error', () => socket.destroy())
  reply.on('close', () => answer.readableEnded || answer.destroy())
  const status = answer.statusCode ?? 500
  const isEmpty = method === 'HEAD' || answer.headers['content-length'] === '0' || status === 204 || status === 304
  switch (fault?.kind) {
    case 'lose-reply':
      answer.resume().on('end', () => socket.destroy())
      return
    case 'answer-after':
      answer.resume().on('end', () => reply.writeHead(fault.status).end(fault.body))
      return
    case 'shorten-reply': {
      const bytes = shortOf(answer, fault.afterBytes)
      reply.writeHead(status, { ...answer.headers, 'content-length': bytes })
      forwardUpTo(answer, reply, bytes, () => reply.end())
      return
    }
    case 'drop-reply':
    case 'reset-reply':
    case 'stall-reply': {
      const stop = () => {
        // What is left of it would keep the connection to the server from being used again.
        answer.resume()
        if (fault.kind === 'drop-reply') socket.destroy()
        else if (fault.kind === 'reset-reply') reset(socket)
      }
      // The head alone would be the whole of such an answer.
      if (isEmpty) {
        stop()
        return
      }
      reply.writeHead(status, answer.rawHeaders)
      reply.flushHeaders()
      forwardUpTo(answer, reply, shortOf(answer, fault.afterBytes), stop)
      return
    }
    case 'slow':
      reply.writeHead(status, answer.rawHeaders)
      forwardSlowly(answer, reply, fault.bytesPerSecond)
      return
    default:
      reply.writeHead(status, answer.rawHeaders)
      answer.pipe(reply)
  }
}

/**
 * Closes a connection with a TCP reset, or plainly where its end has begun already, as when its client has just left.
 * There a reset fails with EINVAL, and Node (24.21) never lets go of the socket: the process spins for ever at its exit.
 */
export function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

/** `bytes`, or fewer where the message says that its body has no more than that. */
function shortOf({ headers }: http.IncomingMessage, bytes: number): number {
  const length = headers['content-length']
  return length === undefined ? bytes : Math.max(0, Math.min(bytes, Number(length) - 1))
}
