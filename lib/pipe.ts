import type { Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { chainUnchecked } from 'stream-chain'

// stream-chain's defaults are for objects: 16 chunks a stage would run 64 MiB ahead of a slow sink.
const BINARY = { readableObjectMode: false, writableObjectMode: false, highWaterMark: 64 * 1024 }

/** Makes one Duplex of several byte streams. The sink of a pipeline stays outside: a chain ends before it has committed. */
export function compose(transforms: readonly Duplex[]): Duplex {
  if (transforms.length === 1) return transforms[0] as Duplex
  return chainUnchecked(transforms, BINARY) as unknown as Duplex
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
  const middle = compose(transforms)
  try {
    await pipeline(source, middle, sink, { signal })
  } catch (error) {
    source.destroy()
    await Promise.all([middle, ...transforms, sink].map(closed))
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
 * Gives a chunk's memory back at once, instead of when the garbage collector comes by: left to it, buffers that are
 * long done with take 60 MiB more. Only for chunks that this process's own stages made and nobody else holds; one that
 * shares its memory with others is left alone.
 */
export function freeChunk(chunk: Buffer): void {
  const memory = chunk.buffer as ArrayBuffer
  if (chunk.byteLength === memory.byteLength && chunk.byteLength >= FREE_BYTES) memory.transfer(0)
}
