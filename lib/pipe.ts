import type { Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { composeBytes } from '../transforms/index.ts'
import { giveBack } from '../transforms/lending.ts'

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

const FREE_BYTES = 16 * 1024

/**
 * Gives a chunk's memory back at once, to the stage that lent it or to the system, instead of when the garbage collector comes by: left to it, buffers that are
 * long done with take 60 MiB more. Only for chunks that this process's own stages made and nobody else holds; one that
 * shares its memory with others is left alone.
 */
export function freeChunk(chunk: Buffer): void {
  if (giveBack(chunk)) return
  const memory = chunk.buffer as ArrayBuffer
  if (chunk.byteLength === memory.byteLength && chunk.byteLength >= FREE_BYTES) memory.transfer(0)
}
