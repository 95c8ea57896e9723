import { availableParallelism } from 'node:os'
import type { Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { freeMemory } from '../adapters/free.ts'
import { abortError, isAbort } from '../adapters/retry.ts'
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
    // What the abort closed may be heard of before the abort.
    throw signal?.aborted && isEcho(error) ? abortError(signal) : error
  }
}

/**
 * Runs a source through transforms into a consumer, and gives what the consumer gives.
 * @throws the first error of any of them.
 */
export async function pump<T>(
  source: Readable,
  transforms: readonly Duplex[],
  consume: (stream: Readable) => Promise<T>,
): Promise<T> {
  const plain = composeBytes(transforms)
  // All of a small source may have come, and be found damaged, before the consumer listens: then it finds the error.
  plain.on('error', () => {})
  const results = await Promise.allSettled([pipeline(source, plain), consume(plain).finally(() => plain.destroy())])
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
  // One end that fails takes the other along: what that one says is only an echo.
  if (failures.length > 0) throw failures.find((error) => !isEcho(error)) ?? failures.find(isAbort) ?? failures[0]
  return (results[1] as PromiseFulfilledResult<T>).value
}

function isEcho(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ERR_STREAM_PREMATURE_CLOSE' || isAbort(error)
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
