import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { pipeline as pipelineOf, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { openMemory } from '../../adapters/index.ts'
import { type BlockSum, createBlockSums } from '../../examples/block-sums.ts'
import { openBackups } from '../../lib/index.ts'
import { composeBytes, createDecrypt, createEncrypt } from '../../transforms/index.ts'
import { feed, sample, through } from '../support/streams.ts'

/** What the sums have to be, by slices. */
function expected(data: Buffer, blockBytes: number): BlockSum[] {
  const sums: BlockSum[] = []
  for (let offset = 0; offset < data.length; offset += blockBytes) {
    const block = data.subarray(offset, offset + blockBytes)
    sums.push({ offset, bytes: block.length, sha256: createHash('sha256').update(block).digest('hex') })
  }
  return sums
}

describe('createBlockSums', () => {
  it('passes every byte on and sums every block, however the bytes come', async () => {
    const lengths = fc.record({ length: fc.nat(300), blockBytes: fc.integer({ min: 1, max: 100 }) })
    await fc.assert(
      fc.asyncProperty(lengths, fc.integer({ min: 1, max: 310 }), async ({ length, blockBytes }, writeBytes) => {
        const data = sample(length)
        const sums: BlockSum[] = []
        const stream = createBlockSums({ blockBytes, onBlock: (sum) => void sums.push(sum) })
        assert.ok((await through(data, [stream], writeBytes)).equals(data))
        assert.deepEqual(sums, expected(data, blockBytes))
      }),
    )
  })

  it('takes no more than its marks while nobody reads', async () => {
    const stream = createBlockSums({ highWaterMark: 4096, onBlock: () => {} })
    assert.equal(stream.readableObjectMode || stream.writableObjectMode, false)
    let taken = 0
    while (stream.write(sample(1000), () => (taken += 1000))) await new Promise(setImmediate)
    assert.ok(taken < 2 * 4096)
    // Somebody reads, and it goes on from there.
    const read = buffer(stream)
    await once(stream, 'drain')
    stream.end()
    assert.equal((await read).length % 1000, 0)
    assert.ok(taken > 4096)
  })

  it('waits for what onBlock does before it passes the chunk on or takes the next', async () => {
    let done = () => {}
    const onBlock = () => new Promise<void>((resolve) => (done = resolve))
    const stream = createBlockSums({ blockBytes: 10, highWaterMark: 10, onBlock })
    assert.equal(stream.write(sample(10)), false)
    await new Promise(setImmediate)
    assert.equal(stream.read(), null)
    done()
    await once(stream, 'readable')
    assert.equal(stream.read()?.length, 10)
  })

  for (const [how, onBlock] of [
    [
      'throws',
      () => {
        throw new Error('no room for the list')
      },
    ],
    [
      'rejects',
      async () => {
        throw new Error('no room for the list')
      },
    ],
    ['rejects with what is no error', () => Promise.reject(undefined)],
  ] as const) {
    it(`T4: fails when onBlock ${how}, and the store has nothing then`, async () => {
      const storage = await openMemory()
      for (const length of [100, 1005]) {
        // The block of the second is complete only at the end.
        const stream = createBlockSums({ blockBytes: length === 100 ? 10 : 2000, onBlock })
        const write = pipeline(feed(sample(length), 7), stream, storage.createWriteStream('a'))
        await assert.rejects(write, /no room for the list|onBlock failed/)
        await assert.rejects(storage.stat('a'), { code: 'NOT_FOUND' })
      }
    })
  }

  it('refuses a block of no bytes at once', () => {
    for (const blockBytes of [0, -1, 0.5, Number.NaN]) {
      assert.throws(() => createBlockSums({ blockBytes, onBlock: () => {} }), { code: 'BAD_OPTION' })
    }
  })

  it('stands in a chain with others, which can be restored', async () => {
    const key = Buffer.alloc(32, 1)
    const sums: BlockSum[] = []
    const chain = composeBytes([createEncrypt({ key }), createBlockSums({ onBlock: (sum) => void sums.push(sum) })])
    const data = sample(3_000_000)
    const sealed = await through(data, [chain], 100_000)
    assert.deepEqual(sums, expected(sealed, 1024 * 1024))
    assert.ok((await through(sealed, [createDecrypt({ key })])).equals(data))
  })

  it('stands in the source of a snapshot, and a source that fails is no snapshot', async () => {
    const storage = await openMemory()
    const backups = await openBackups({ storage, server: 'survival', key: Buffer.alloc(32, 1) })
    const data = sample(2_500_000)
    const sums: BlockSum[] = []
    const source = pipelineOf(feed(data), createBlockSums({ onBlock: (sum) => void sums.push(sum) }), () => {})
    const snapshot = await backups.create(source)
    assert.deepEqual(sums, expected(data, 1024 * 1024))
    assert.ok((await buffer(await backups.read(snapshot.id, undefined))).equals(data))

    const dying = Readable.from(
      (async function* () {
        yield data
        throw new Error('the source died')
      })(),
      { objectMode: false },
    )
    const failing = pipelineOf(dying, createBlockSums({ onBlock: () => {} }), () => {})
    await assert.rejects(backups.create(failing), /the source died/)
    assert.equal((await backups.list()).length, 1)
  })
})
