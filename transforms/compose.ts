import type { Duplex } from 'node:stream'
import { chainUnchecked } from 'stream-chain'

// stream-chain's defaults are for objects: 16 chunks a stage would run 64 MiB ahead of a slow sink. Its own events are
// off, because an 'error' alone does not end a stream: see below.
const BINARY = {
  readableObjectMode: false,
  writableObjectMode: false,
  highWaterMark: 64 * 1024,
  skipEvents: true,
}

/**
 * Makes one Duplex of several byte streams, through stream-chain. The sink of a pipeline stays outside: a chain ends
 * before its last stream has committed anything. When one of the streams fails or closes early, all are destroyed,
 * also where a handler throws while bytes are written to the first.
 */
export function composeBytes(streams: readonly Duplex[]): Duplex {
  if (streams.length === 1) return streams[0] as Duplex
  const whole = chainUnchecked(streams, BINARY) as unknown as Duplex
  // stream-chain's own keeps what a handler throws until a callback that does not come then.
  whole._write = (chunk, encoding, callback) => {
    try {
      ;(streams[0] as Duplex).write(chunk, encoding, callback)
    } catch (thrown) {
      whole.destroy(thrown instanceof Error ? thrown : new Error(`A stream of the chain failed: ${thrown}`))
    }
  }
  for (const stream of streams) {
    stream.on('error', (error) => whole.destroy(error))
    stream.on('close', () => {
      if (!stream.readableEnded) whole.destroy(new Error('A stream of the chain was closed before its end.'))
    })
  }
  return whole
}
