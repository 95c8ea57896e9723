import { type Readable, Transform, type Writable } from 'node:stream'

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
  const brake = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      let at = 0
      const sendOn = () => {
        if (at >= chunk.length) {
          callback()
          return
        }
        const slice = chunk.subarray(at, at + sliceBytes)
        at += slice.length
        this.push(slice)
        setTimeout(sendOn, (slice.length / bytesPerSecond) * 1000)
      }
      sendOn()
    },
  })
  sink.on('close', () => brake.destroy())
  source.pipe(brake).pipe(sink)
}
