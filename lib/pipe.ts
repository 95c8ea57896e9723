import { availableParallelism } from 'node:os'
import type { Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { freeMemory } from '../adapters/free.ts'
import { composeBytes } from '../transforms/index.ts'
import { giveBack } from '../transforms/lending.ts'

/** Less is encrypted and hashed before a thread has begun that could do it beside the rest. */
const THREAD_AFTER_BYTES = 64 * 1024 * 1024

/** @param bytes how much there is to do, where it is known. */
export function isWorthThread(bytes = Number.POSITIVE_INFINITY): boolean {
  return bytes >= THREAD_AFTER_BYTES && availableParallelism() > 1
}

/**
 * Runs a source through transforms into a sink. When it fails, it returns only after the sink and every transform have
 * closed, so that nothing of an aborted upload is left.
 * @throws the first error of any of them; AbortError when `signal` aborts.
 */
export async function run(
  source: Readable,
  transforms: readonly Duplex[],
  sink: Writable,
  signal?: AbortSignal,
): Promise<void> {
  const middle = transforms.length > 0 ? [composeBytes(transforms)] : []
  try {
    await pipeline([source, ...middle, sink], { signal })
  } catch (error) {
    source.destroy()
    await Promise.all([...middle, ...transforms, sink].map(closed))
    throw error
  }
}

function closed(stream: Writable | Duplex): Promise<void> | undefined {
  if (stream.closed) return undefined
  const close = new Promise<void>((resolve) => stream.once('close', () => resolve()))
  stream.destroy()
  return close
}

/**
 * Gives a chunk's memory back at once, to the stage that lent it or to the system; see `freeMemory` for why, and for
 * which chunks.
 */
export function freeChunk(chunk: Buffer): void {
  if (!giveBack(chunk)) freeMemory(chunk)
}
