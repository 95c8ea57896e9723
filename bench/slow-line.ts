// A TCP proxy on loopback that makes one line as slow as a far store: `node slow-line.ts PORT LATENCY_MS BYTES_PER_SECOND`
// passes connections on to 127.0.0.1:PORT, holds what the client sends back for LATENCY_MS, and lets no connection
// bring more than BYTES_PER_SECOND. Prints its own port. In a process of its own, so that its work is not measured.
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

const [port = 0, latencyMs = 0, bytesPerSecond = 0] = process.argv.slice(2).map(Number)

async function* late(source: Socket): AsyncGenerator<Buffer> {
  for await (const chunk of source as AsyncIterable<Buffer>) {
    await delay(latencyMs)
    yield chunk
  }
}

async function* paced(source: Socket): AsyncGenerator<Buffer> {
  // Debt rather than a wait for each chunk: timers are late, and what they are late by is made up for.
  let due = performance.now()
  for await (const chunk of source as AsyncIterable<Buffer>) {
    yield chunk
    due = Math.max(due, performance.now() - 50) + (chunk.length * 1000) / bytesPerSecond
    const wait = due - performance.now()
    if (wait >= 1) await delay(wait)
  }
}

async function pass(source: AsyncIterable<Buffer>, to: Socket): Promise<void> {
  try {
    for await (const chunk of source) {
      if (!to.write(chunk)) await new Promise((resolve) => to.once('drain', resolve).once('close', resolve))
    }
    to.end()
  } catch {
    to.destroy()
  }
}

const server = createServer((client) => {
  const store = connect(port, '127.0.0.1')
  for (const [one, other] of [
    [client, store],
    [store, client],
  ] as const) {
    one.on('error', () => other.destroy())
    one.on('close', () => other.destroy())
  }
  pass(late(client), store)
  pass(paced(store), client)
})
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
