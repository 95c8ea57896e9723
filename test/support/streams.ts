import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** A stream of `data` in writes of `writeBytes`. */
export function feed(data: Buffer, writeBytes: number = data.length): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < data.length; at += writeBytes) yield data.subarray(at, at + writeBytes)
    })(),
    { objectMode: false },
  )
}

/** All bytes that come out of `streams` when `data` goes in, or what they fail with. */
export async function through(
  data: Buffer,
  streams: readonly NodeJS.ReadWriteStream[],
  writeBytes?: number,
): Promise<Buffer> {
  const out: Buffer[] = []
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      out.push(chunk)
      callback()
    },
  })
  await pipeline([feed(data, writeBytes), ...streams, sink])
  return Buffer.concat(out)
}

/** Bytes that are the same every time and do not compress much more than a world does. */
export function sample(bytes: number, seed = 1): Buffer {
  const data = Buffer.allocUnsafe(bytes)
  let state = seed >>> 0 || 1
  for (let i = 0; i < bytes; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    data[i] = (i >>> 6) % 3 === 0 ? 0x20 : state >>> 24
  }
  return data
}
