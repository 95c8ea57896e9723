import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A relay on loopback that counts what clients send. */
export interface CountingProxy {
  /** To be used in place of the server's origin. */
  origin: string
  /** Bytes that clients have sent so far, heads of requests among them. */
  readonly sent: number
  /** Resolves when no connection is left: all that a dead client had sent has come to the server by then. */
  idle(): Promise<void>
  close(): Promise<void>
}

/** Relays every byte of every connection to the server at `origin`, and knows nothing of what it carries. */
export async function openCountingProxy(origin: string): Promise<CountingProxy> {
  const { hostname, port } = new URL(origin)
  const sockets = new Set<Socket>()
  const waiting: (() => void)[] = []
  let sent = 0
  const leave = (socket: Socket) => {
    sockets.delete(socket)
    if (sockets.size === 0) for (const resolve of waiting.splice(0)) resolve()
  }
  const server = createServer((client) => {
    const upstream = connect({ host: hostname, port: Number(port) })
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      // A client that is killed resets its connection: the server is to see that as well.
      socket.on('close', () => {
        leave(socket)
        other.destroySoon()
      })
      socket.pipe(other)
    }
    client.on('data', (chunk) => {
      sent += chunk.length
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get sent() {
      return sent
    },
    idle: () => (sockets.size === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    async close() {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    },
  }
}
