import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { openPlain, openSeekable, type RangeSource, type Seekable } from '../../transforms/index.ts'
import { SeekTableBuilder, skippableHeader } from '../../transforms/seek-table.ts'

const CONTENT = Buffer.alloc(200_000, 'content ')

/** Opens frames as a table describes them: bytes of the stream, bytes of content. */
async function opened(
  frames: readonly Buffer[],
  table: readonly [number, number][],
  wrap = (source: RangeSource): RangeSource => source,
): Promise<Seekable> {
  const builder = new SeekTableBuilder()
  for (const [bytes, contentBytes] of table) builder.add(bytes, contentBytes)
  const stream = Buffer.concat([...frames, ...builder.finish()])
  const source = openPlain(async (offset, length) => stream.subarray(offset, offset + length), stream.length)
  return (await openSeekable(wrap(source))) as Seekable
}

test('a frame with more behind it than the table has frames is not read as if it were alone', async () => {
  const frame = zstdCompressSync(CONTENT)
  const more = [zstdCompressSync(Buffer.from('more')), Buffer.concat([skippableHeader(0x184d2a50, 3), Buffer.alloc(3)])]
  for (const behind of more) {
    const seekable = await opened([frame, behind], [[frame.length + behind.length, CONTENT.length]])
    await assert.rejects(seekable.read(0, 10), { code: 'CORRUPT' })
    seekable.close()
  }
})

test('what has far more bytes than content is not held to be read by itself', async () => {
  const frame = zstdCompressSync(CONTENT)
  const bytes = 1024 * 1024 + 1
  const between = Buffer.concat([skippableHeader(0x184d2a50, bytes - 8), Buffer.alloc(bytes - 8)])
  const data: [number, number] = [frame.length, CONTENT.length]
  const seekable = await opened([frame, between, frame], [data, [bytes, 0], data])
  assert.ok((await seekable.read(0, CONTENT.length)).equals(CONTENT))
  await assert.rejects(seekable.read(CONTENT.length - 1, 2), { code: 'LIMIT' })
  seekable.close()
})

test('who stops in the middle leaves no stream of the source open', { timeout: 20_000 }, async () => {
  const frame = zstdCompressSync(CONTENT)
  const frames = Array.from({ length: 20 }, () => frame)
  const streams: Readable[] = []
  const seekable = await opened(
    frames,
    frames.map(({ length }) => [length, CONTENT.length]),
    (source) => ({
      ...source,
      createReadStream(start, end) {
        const stream = source.createReadStream(start, end)
        // One that has more to come, however little was wanted of it.
        streams.push(Readable.from(slowly(stream), { objectMode: false, highWaterMark: 1 }))
        return streams.at(-1) as Readable
      },
    }),
  )
  for await (const piece of seekable.createReadStream()) {
    assert.ok((piece as Buffer).length > 0)
    break
  }
  const [stream, ...others] = streams
  assert.equal(others.length, 0)
  if (!stream?.closed) await once(stream as Readable, 'close')
  seekable.close()
})

async function* slowly(stream: Readable): AsyncGenerator<Buffer> {
  for await (const chunk of stream) {
    for (let at = 0; at < (chunk as Buffer).length; at += 10) yield (chunk as Buffer).subarray(at, at + 10)
  }
}
