import { PassThrough, Readable, type Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'

/** Of a slow body one slice goes out, then comes the wait for it. */
const SLICES_A_SECOND = 20

/** Passes a body on to its end. A source that breaks off leaves the sink open, for its owner to destroy. */
export function forwardAll(source: Readable, sink: Writable): void {
  source.pipe(sink)
}

/**
 * Passes the first bytes of a body on, then pauses the source and calls back; also where the body ends before. The sink
 * is not ended.
 */
export function forwardUpTo(source: Readable, sink: Writable, bytes: number, done: () => void): void {
  let left = bytes
  let isDone = false
  const stop = () => {
    if (isDone) return
    isDone = true
    source.off('data', forward).pause()
    done()
  }
  const forward = (chunk: Buffer) => {
    const part = chunk.subarray(0, left)
    left -= part.length
    // Only what the other side has taken counts as passed on.
    if (left > 0) sink.write(part)
    else if (part.length > 0) sink.write(part, stop)
    if (left === 0) source.pause()
  }
  source.once('end', stop)
  if (left === 0) stop()
  else source.on('data', forward)
}

/** Passes a body on to its end, at so many bytes a second. */
export function forwardSlowly(source: Readable, sink: Writable, bytesPerSecond: number): void {
  const sliceBytes = Math.max(1, Math.floor(bytesPerSecond / SLICES_A_SECOND))
  // At once: a source that others listen to flows from the next tick on, and what came first would be lost.
  const waiting = source.pipe(new PassThrough())
  source.on('error', (error) => waiting.destroy(error))
  async function* slices() {
    for await (const chunk of waiting as AsyncIterable<Buffer>) {
      for (let at = 0; at < chunk.length; at += sliceBytes) {
        const slice = chunk.subarray(at, at + sliceBytes)
        yield slice
        await delay((slice.length / bytesPerSecond) * 1000)
      }
    }
  }
  const slow = Readable.from(slices(), { objectMode: false })
  slow.on('error', () => sink.destroy())
  sink.on('close', () => slow.destroy())
  slow.pipe(sink)
}
