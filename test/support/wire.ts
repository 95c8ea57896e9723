import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { ReadOptions, Storage } from '../../adapters/storage.ts'
import { overriding } from './storage.ts'

/** A store as over a network, and what went over it. */
export interface Wire {
  storage: Storage
  requests: ReadOptions[]
  stats: number
  /** Read streams that are open, now and at most. */
  open: number
  maxOpen: number
  /** Bytes that came out of the store. */
  bytes: number
}

export interface Habits {
  /** Bytes of each chunk that a stream brings. */
  chunkBytes?: number
  /** How long a request takes to bring its first byte, by its start. */
  latencyMs?: (start: number) => number
  /** What a request fails with after its first chunk, by its start. */
  fail?: (start: number) => Error | undefined
}

/** A store over `inner` whose reads take time, come in small chunks, and are counted. */
export function wireOver(inner: Storage, habits: Habits = {}): Wire {
  const { chunkBytes = 100, latencyMs = () => 0, fail = () => undefined } = habits
  const wire: Wire = { storage: inner, requests: [], stats: 0, open: 0, maxOpen: 0, bytes: 0 }
  async function* body(key: string, options: ReadOptions) {
    const { start = 0 } = options
    await delay(latencyMs(start))
    for await (const chunk of inner.createReadStream(key, options) as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += chunkBytes) {
        const piece = chunk.subarray(at, at + chunkBytes)
        wire.bytes += piece.length
        yield piece
        const error = fail(start)
        if (error) throw error
      }
    }
  }
  wire.storage = overriding(inner, {
    stat(key, options) {
      wire.stats++
      return inner.stat(key, options)
    },
    createReadStream(key, options = {}) {
      wire.requests.push(options)
      wire.maxOpen = Math.max(wire.maxOpen, ++wire.open)
      const stream = Readable.from(body(key, options), { objectMode: false, highWaterMark: chunkBytes })
      return stream.once('close', () => wire.open--)
    },
  })
  return wire
}
