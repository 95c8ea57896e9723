import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'

/** What is done in a turn is a read and a write of a small file. */
const PATIENCE_MS = 30_000
const PAUSE_MS = 10

/**
 * Does short work on a file while no other process of this machine is in here with the same one. A turn is a name in
 * Linux's abstract namespace of sockets: the system gives it back when a process is killed, and nothing of it is on the
 * disk. Where there are none, or none is had in time, the work is done all the same: without a turn it may undo another's,
 * and left out its own would be lost for certain.
 */
export async function inTurn<T>(file: string, work: () => Promise<T>): Promise<T> {
  const turn = process.platform === 'linux' ? await take(file) : undefined
  try {
    return await work()
  } finally {
    turn?.close()
  }
}

async function take(file: string): Promise<Server | undefined> {
  const name = `\0millrace-${createHash('sha256').update(resolve(file)).digest('hex')}`
  const end = performance.now() + PATIENCE_MS
  while (performance.now() < end) {
    const server = createServer((socket) => socket.destroy())
    try {
      server.listen(name)
      await once(server, 'listening')
      return server
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return undefined
    }
    await setTimeout(PAUSE_MS * (0.5 + Math.random()))
  }
  return undefined
}
