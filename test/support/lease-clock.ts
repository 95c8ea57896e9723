import { setImmediate as turn } from 'node:timers/promises'
import { abortError } from '../../adapters/retry.ts'
import type { Storage } from '../../adapters/storage.ts'
import type { LeaseClock } from '../../lib/index.ts'
import { overriding } from './storage.ts'

/** Turns of the event loop in which a memory store does all that it was asked for. */
const TURNS = 60

/** A clock that stands until it is moved, for a store that answers without waiting. */
export class HeldClock implements LeaseClock {
  #now = 0
  readonly #begun = Date.UTC(2026, 10, 24)
  readonly #sleepers: { at: number; wake: () => void }[] = []
  /** Beside the true time: a clock that is wrong. */
  skewMs = 0

  now = (): number => this.#now
  wall = (): number => this.#begun + this.#now + this.skewMs

  sleep = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve, reject) => {
      const stop = () => reject(abortError(signal))
      if (signal?.aborted) return stop()
      signal?.addEventListener('abort', stop, { once: true })
      this.#sleepers.push({ at: this.#now + ms, wake: resolve })
    })

  /** The same time, with a wall clock that is wrong. */
  skewed(skewMs: number): LeaseClock {
    return { now: this.now, sleep: this.sleep, wall: () => this.wall() + skewMs }
  }

  /** Lets `ms` pass, waking each sleeper in its turn. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms
    await settle()
    for (;;) {
      this.#sleepers.sort((a, b) => a.at - b.at)
      const next = this.#sleepers[0]
      if (!next || next.at > end) break
      this.#sleepers.shift()
      this.#now = Math.max(this.#now, next.at)
      next.wake()
      await settle()
    }
    this.#now = end
  }

  /** Lets time pass until something is settled. @throws what it is rejected with; Error after `limitMs`. */
  async until<T>(promise: Promise<T>, limitMs: number): Promise<T> {
    let over = false
    const done = () => {
      over = true
    }
    promise.then(done, done)
    const end = this.#now + limitMs
    for (await settle(); !over; await settle()) {
      if (this.#now >= end) throw new Error(`nothing was settled in ${limitMs} ms`)
      const next = Math.min(...this.#sleepers.map(({ at }) => at), end)
      await this.pass(next - this.#now)
    }
    return promise
  }
}

/** A store that says the time of a held clock. */
export function clockedStore(storage: Storage, clock: LeaseClock): Storage {
  const times = new Map<string, Date>()
  return overriding(storage, {
    createWriteStream(key, options) {
      const stream = storage.createWriteStream(key, options)
      stream.once('finish', () => times.set(key, new Date(clock.wall())))
      return stream
    },
    stat: async (key, options) => {
      const found = await storage.stat(key, options)
      return { ...found, modified: times.get(key) ?? found.modified }
    },
    list: async function* (prefix, options) {
      for await (const found of storage.list(prefix, options)) {
        yield { ...found, modified: times.get(found.key) ?? found.modified }
      }
    },
  })
}

/** The same store, which does not offer conditional writes. */
export function withoutConditions(storage: Storage): Storage {
  return overriding(storage, { conditionalWrites: false })
}

async function settle(): Promise<void> {
  for (let count = 0; count < TURNS; count += 1) await turn()
}
