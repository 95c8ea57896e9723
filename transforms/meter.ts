import { Transform, type TransformCallback } from 'node:stream'
import { checkRange } from './zstd-compress.ts'

/** How far a stream has come. */
export interface Progress {
  /** Bytes that have passed. */
  bytes: number
  /** What `total` was given as. */
  totalBytes?: number | undefined
  elapsedMs: number
  /** Bytes a second over the last ten seconds or so. */
  bytesPerSecond: number
  /** ms to go at that rate; only with a total, and once there is a rate. */
  etaMs?: number | undefined
}

/** What a meter counts towards, and whom it tells. */
export interface MeterOptions {
  /** Bytes that are expected, for the ETA. */
  total?: number | undefined
  /** Least ms between two reports; 250 when left out. */
  intervalMs?: number | undefined
  /** Told how far it is. */
  onProgress: (progress: Progress) => void
  /** A clock in ms, for tests. */
  now?: (() => number) | undefined
}

const RATE_WINDOW_MS = 10_000

/**
 * A stream that passes bytes on unchanged and reports how many, how fast and how long still. The last report comes at
 * the end. The stream fails with what `onProgress` throws.
 * @throws TransformError BAD_OPTION.
 */
export function createMeter(options: MeterOptions): Transform {
  const intervalMs = checkRange('intervalMs', options.intervalMs ?? 250, 0, 2 ** 31 - 1)
  const now = options.now ?? performance.now.bind(performance)
  const begun = now()
  const marks = [{ at: begun, bytes: 0 }]
  let bytes = 0
  let reported = begun

  const report = (at: number) => {
    reported = at
    marks.push({ at, bytes })
    while (marks.length > 2 && (marks[1] as (typeof marks)[0]).at < at - RATE_WINDOW_MS) marks.shift()
    const oldest = marks[0] as (typeof marks)[0]
    const bytesPerSecond = at > oldest.at ? ((bytes - oldest.bytes) * 1000) / (at - oldest.at) : 0
    const left = options.total === undefined ? undefined : Math.max(0, options.total - bytes)
    options.onProgress({
      bytes,
      totalBytes: options.total,
      elapsedMs: at - begun,
      bytesPerSecond,
      etaMs: left !== undefined && bytesPerSecond > 0 ? (left * 1000) / bytesPerSecond : undefined,
    })
  }

  /** What a handler throws, no pipeline hears of: it ends the process, or whoever writes waits for ever. */
  const tell = (at: number, callback: TransformCallback, chunk?: Buffer) => {
    try {
      report(at)
    } catch (thrown) {
      callback(thrown instanceof Error ? thrown : new Error(`onProgress failed: ${thrown}`))
      return
    }
    callback(null, chunk)
  }

  return new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      bytes += chunk.length
      const at = now()
      if (at - reported >= intervalMs) tell(at, callback, chunk)
      else callback(null, chunk)
    },
    flush(callback) {
      tell(now(), callback)
    },
  })
}
