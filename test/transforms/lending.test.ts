import assert from 'node:assert/strict'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { seededBytes } from '../../bench/world.ts'
import { giveBack, lend } from '../../transforms/lending.ts'
import { createLendingZstdCompress } from '../../transforms/zstd-compress.ts'

const FRAME_BYTES = 64 * 1024

function* pieces(count: number): Generator<Buffer> {
  const random = seededBytes('lending')
  for (let i = 0; i < count; i++) yield i % 2 ? Buffer.alloc(30_000, i) : random(50_000)
}

test('what was lent comes back once, and what was not is refused', () => {
  const memory = Buffer.allocUnsafeSlow(100)
  let returned = 0
  lend(memory, () => returned++)
  assert.equal(giveBack(memory.subarray(10, 20)), false)
  assert.equal(giveBack(memory), true)
  assert.equal(giveBack(memory), false)
  assert.equal(giveBack(Buffer.allocUnsafeSlow(10)), false)
  assert.equal(returned, 1)
})

for (const held of [1, 4, Infinity]) {
  test(`frames whose memory is used again are right, however late ${held} of them come back`, async () => {
    const plain = Buffer.concat([...pieces(60)])
    const copies: Buffer[] = []
    const waiting: { chunk: Buffer; copy: Buffer }[] = []
    const memories = new Set<ArrayBufferLike>()
    const sink = new Writable({
      write(chunk: Buffer, _encoding, callback) {
        memories.add(chunk.buffer)
        const copy = Buffer.from(chunk)
        copies.push(copy)
        waiting.push({ chunk, copy })
        if (waiting.length >= held) {
          const oldest = waiting.shift() as (typeof waiting)[0]
          // Nobody has written into it while it was out.
          assert.ok(oldest.chunk.equals(oldest.copy))
          giveBack(oldest.chunk)
        }
        setImmediate(callback)
      },
    })
    const compress = createLendingZstdCompress({ frameBytes: FRAME_BYTES, threads: 2 })
    await pipeline(Readable.from(pieces(60), { objectMode: false }), compress, sink)
    for (const { chunk, copy } of waiting) assert.ok(chunk.equals(copy))
    assert.ok(zstdDecompressSync(Buffer.concat(copies)).equals(plain))
    if (held === 1)
      assert.ok(memories.size < copies.length / 1.5, `${memories.size} buffers for ${copies.length} frames`)
  })
}
