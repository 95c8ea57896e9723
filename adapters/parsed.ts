import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { Duplex, type Readable } from 'node:stream'
import { freeMemory } from './free.ts'

/** As large as what a socket gives at a time. */
const TRIAL_BYTES = 64 * 1024

const watched = new WeakSet<Socket>()
let copies: Promise<boolean> | undefined

/**
 * Gives what a socket has read back as soon as it is parsed. Node's parser copies what belongs to a body, and leaves the
 * original to the garbage collector: of a large object as much again as it has bytes. Does nothing for a body that does
 * not come from a socket of node:http, and nothing where the parser does not copy.
 * @param body of an answer.
 */
export function freeWhatIsParsed(body: Readable): void {
  const { socket } = body as Partial<IncomingMessage>
  if (!(socket instanceof Socket) || watched.has(socket)) return
  watched.add(socket)
  copies ??= parserCopies()
  void copies.then((yes) => {
    if (yes && !socket.destroyed) freeEachAfterTheNext(socket)
  })
}

/** The one before: it is parsed, whichever listener of an event is called first. */
function freeEachAfterTheNext(socket: Socket): void {
  let before: Buffer | undefined
  socket.on('data', (chunk: Buffer) => {
    if (before) freeMemory(before)
    before = chunk
  })
}

/** Whether the bytes of an answer's body have memory of their own, apart from what the socket gave; by trying it. */
export async function parserCopies(): Promise<boolean> {
  const head = Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${2 * TRIAL_BYTES}\r\n\r\n`)
  const given = [Buffer.alloc(head.length + TRIAL_BYTES), Buffer.alloc(TRIAL_BYTES)]
  head.copy(given[0] as Buffer)
  const line = new Duplex({
    read() {},
    write(_chunk, _encoding, callback) {
      callback()
    },
  })
  try {
    // Not at the top: node:http brings node's whole fetch with it, 15 ms for every command that asks no server.
    const { request } = await import('node:http')
    const asked = request({ createConnection: () => line as Socket, path: '/' })
    asked.end()
    const answered = once(asked, 'response') as Promise<[IncomingMessage]>
    for (const chunk of given) line.push(chunk)
    const [answer] = await answered
    let bytes = 0
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (given.some(({ buffer }) => buffer === chunk.buffer)) return false
    }
    return bytes === 2 * TRIAL_BYTES
  } catch {
    return false
  } finally {
    line.destroy()
  }
}
