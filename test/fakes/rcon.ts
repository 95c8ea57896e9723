import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'

/*
 * A server of the Source RCON protocol in Minecraft's dialect, after developer.valvesoftware.com/wiki/Source_RCON_Protocol
 * and wiki.vg/RCON: length, id and type as 32 bits little-endian, a text, two NULs. Login is type 3, answered by type 2
 * with the same id, or with -1 for a wrong password and for a command without a login. A command is type 2, answered by
 * type 0 in pieces of 4096 characters, an empty answer by one empty piece; another type by `Unknown request` and its
 * number in hex. One read takes at most 1460 bytes and has to hold exactly one packet, or the connection is dropped.
 */

const READ_BYTES = 1460
const PIECE_CHARS = 4096

export interface RconRequest {
  id: number
  type: number
  text: string
}

export interface RconServer {
  port: number
  /** All that was asked, logins as `login`, in order. */
  asked: string[]
  /** Connections that are open. */
  readonly open: number
  /** Resolves when something was asked for the nth time (the first by default), from now or before. */
  wasAsked(text: string, times?: number): Promise<void>
  close(): Promise<void>
}

export interface RconServerOptions {
  password: string
  /** Carries out a command and gives its answer. */
  run(command: string): string | Promise<string>
  /** Another port than a free one. */
  port?: number
  /** Bytes of each write of an answer; all its packets in one write when left out. */
  writeBytes?: number
  /** Called for each request first; true when it has dealt with it: by silence, by closing, by bytes of its own. */
  intercept?: (request: RconRequest, socket: Socket) => boolean
  /** As servers of Source do: an empty response before that to a login. */
  emptyBeforeLogin?: boolean
}

/** A packet as it goes over the wire. */
export function rconPacket(id: number, type: number, text: string): Buffer {
  const body = Buffer.from(text)
  const packet = Buffer.alloc(body.length + 14)
  packet.writeInt32LE(body.length + 10, 0)
  packet.writeInt32LE(id, 4)
  packet.writeInt32LE(type, 8)
  body.copy(packet, 12)
  return packet
}

export async function serveRcon(options: RconServerOptions): Promise<RconServer> {
  const sockets = new Set<Socket>()
  const asked: string[] = []
  let heard = () => {}
  let hearing = new Promise<void>((resolve) => {
    heard = resolve
  })
  const note = (text: string) => {
    asked.push(text)
    const tell = heard
    hearing = new Promise((resolve) => {
      heard = resolve
    })
    tell()
  }
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    converse(socket, options, note).catch(() => socket.destroy())
  })
  server.listen(options.port ?? 0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    asked,
    get open() {
      return sockets.size
    },
    async wasAsked(text, times = 1) {
      while (asked.filter((one) => one === text).length < times) await hearing
    },
    async close() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

async function converse(socket: Socket, options: RconServerOptions, note: (text: string) => void): Promise<void> {
  let loggedIn = false
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    if (chunk.length < 14 || chunk.length > READ_BYTES || chunk.readInt32LE(0) !== chunk.length - 4) {
      socket.destroy()
      return
    }
    const request = {
      id: chunk.readInt32LE(4),
      type: chunk.readInt32LE(8),
      text: chunk.toString('utf8', 12, chunk.length - 2),
    }
    const { id, type, text } = request
    if (type === 3) note('login')
    else if (type === 2) note(text)
    if (options.intercept?.(request, socket)) continue
    if (type === 3) {
      loggedIn = text === options.password
      const before = options.emptyBeforeLogin ? [rconPacket(id, 0, '')] : []
      await send(socket, [...before, rconPacket(loggedIn ? id : -1, 2, '')], options.writeBytes)
    } else if (type === 2) {
      if (!loggedIn) await send(socket, [rconPacket(-1, 2, '')], options.writeBytes)
      else await send(socket, pieces(id, await options.run(text)), options.writeBytes)
    } else {
      await send(socket, [rconPacket(id, 0, `Unknown request ${type.toString(16)}`)], options.writeBytes)
    }
  }
}

function pieces(id: number, answer: string): Buffer[] {
  const packets: Buffer[] = []
  for (let at = 0; at === 0 || at < answer.length; at += PIECE_CHARS) {
    packets.push(rconPacket(id, 0, answer.slice(at, at + PIECE_CHARS)))
  }
  return packets
}

async function send(socket: Socket, packets: Buffer[], writeBytes = Number.POSITIVE_INFINITY): Promise<void> {
  const all = Buffer.concat(packets)
  for (let at = 0; at < all.length; at += writeBytes) {
    socket.write(all.subarray(at, at + writeBytes))
    await turn()
  }
}
