import { type Duplex, Readable, Writable } from 'node:stream'
import { freeChunk, run } from '../pipe.ts'
import type { PackedRate, Rate } from './facts.ts'

const CHUNK_BYTES = 512 * 1024

/** Wall time, the process's CPU and the work of its main thread from now on. */
export class Stopwatch {
  readonly #at = performance.now()
  readonly #cpu = process.cpuUsage()
  readonly #loop = performance.eventLoopUtilization()

  /** @param bytes that went by since. */
  read(bytes: number): Rate {
    const { user, system } = process.cpuUsage(this.#cpu)
    const { active } = performance.eventLoopUtilization(this.#loop)
    return {
      bytes,
      seconds: (performance.now() - this.#at) / 1000,
      cpuSeconds: (user + system) / 1e6,
      mainSeconds: active / 1000,
    }
  }
}

/** How a pass goes. */
export interface PassOptions {
  /** Asked after each chunk of the source; true ends it. */
  isDone?: ((bytes: number) => boolean) | undefined
  /** What becomes of a chunk at the end; its memory is given back when left out. */
  onChunk?: ((chunk: Buffer) => void) | undefined
  /** Told how many bytes the source has given. */
  onBytes?: ((bytes: number) => void) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Runs a source through stages to nowhere, and says what it took. The source is closed where it is cut short.
 * @throws what a stage fails with; AbortError.
 */
export async function timed(
  source: Iterable<Buffer> | AsyncIterable<Buffer>,
  stages: readonly Duplex[],
  { isDone, onChunk = freeChunk, onBytes, signal }: PassOptions = {},
): Promise<PackedRate> {
  let bytes = 0
  let storedBytes = 0
  async function* counted() {
    for await (const chunk of source) {
      bytes += chunk.length
      onBytes?.(bytes)
      yield chunk
      if (isDone?.(bytes)) return
    }
  }
  const sink = new Writable({
    highWaterMark: CHUNK_BYTES,
    write(chunk: Buffer, _encoding, callback) {
      storedBytes += chunk.length
      onChunk(chunk)
      callback()
    },
  })
  const watch = new Stopwatch()
  await run(Readable.from(counted(), { objectMode: false, highWaterMark: CHUNK_BYTES }), stages, sink, signal)
  return { ...watch.read(bytes), storedBytes }
}

/** @returns a test that is true from so many seconds after it was made. */
export function after(seconds: number): () => boolean {
  const end = performance.now() + seconds * 1000
  return () => performance.now() >= end
}
