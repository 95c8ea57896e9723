import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { describe, it } from 'node:test'
import {
  assertFails,
  assertIsStorageError,
  assertReads,
  type ContractRun,
  feed,
  keysOf,
  listOf,
  noise,
  write,
} from './support.ts'

/** Registers the tests of what is written, and of when it is there. */
export function writingTests(run: ContractRun): void {
  const { partBytes } = run

  describe('writing', () => {
    const sizes = [0, 1, partBytes - 1, partBytes, partBytes + 1, 2 * partBytes, 3 * partBytes + 4567]
    for (const size of sizes) {
      it(`T11: an object of ${size} bytes comes back as it was, its size told or not`, async () => {
        const bytes = noise(size, 1)
        for (const options of [{}, { size }, { expectedSize: size + 1000 }]) {
          const key = run.freshKey()
          await write(run.storage, key, bytes, options)
          await run.assertHolds(key, bytes)
        }
      })
    }

    it('T12: writes of a few bytes each, a chunk used again by its owner, and strings', async () => {
      const key = run.freshKey()
      const stream = run.storage.createWriteStream(key)
      const chunk = Buffer.alloc(3)
      const expected: Buffer[] = []
      for (let index = 0; index < 5000; index++) {
        chunk.fill(index % 251)
        expected.push(Buffer.from(chunk))
        await new Promise<void>((resolve, reject) => {
          stream.write(chunk, (error) => (error ? reject(error) : resolve()))
        })
      }
      stream.write('grüße')
      expected.push(Buffer.from('grüße'))
      stream.end()
      await finished(stream)
      await run.assertHolds(key, Buffer.concat(expected))
    })

    it('one chunk of several parts', async () => {
      const key = run.freshKey()
      const stream = run.storage.createWriteStream(key)
      stream.end(noise(3 * partBytes + 1, 1))
      await finished(stream)
      await run.assertHolds(key, noise(3 * partBytes + 1, 1))
    })

    it('an expectedSize that was far off changes nothing', async () => {
      for (const [size, expectedSize] of [
        [2 * partBytes + 5, 1],
        [2 * partBytes + 5, 0],
        [10, 10 * 1024 ** 3],
        [0, 10 * 1024 ** 3],
      ] as const) {
        const key = run.freshKey()
        await write(run.storage, key, noise(size, 1), { expectedSize })
        await run.assertHolds(key, noise(size, 1))
      }
    })

    it('a size that is no count of bytes, or more than the store holds, is INVALID at once', () => {
      const { maxObjectBytes } = run.contract
      for (const size of [-1, 0.5, Number.NaN, ...(maxObjectBytes ? [maxObjectBytes + 1] : [])]) {
        assert.throws(
          () => run.storage.createWriteStream(run.freshKey(), { size }),
          (error) => assertIsStorageError(error, 'INVALID'),
          `size ${size}`,
        )
      }
    })

    it('keeps nothing of a chunk that it has called consumed', async () => {
      const key = run.freshKey()
      const bytes = noise(2 * partBytes + 77, 4)
      const chunks = Array.from({ length: Math.ceil(bytes.length / 100_000) }, (_, index) =>
        Buffer.from(bytes.subarray(index * 100_000, (index + 1) * 100_000)),
      )
      const stream = run.storage.createWriteStream(key, { onConsumed: (chunk) => chunk.fill(0) })
      for (const chunk of chunks) await feed(stream, chunk)
      stream.end()
      await finished(stream)
      await run.assertHolds(key, bytes)
    })

    it('replaces an object, and one is left', async () => {
      const key = run.freshKey()
      await write(run.storage, key, noise(partBytes + 10, 1))
      const first = await run.storage.stat(key)
      await write(run.storage, key, noise(1000, 2))
      await run.assertHolds(key, noise(1000, 2))
      assert.notEqual((await run.storage.stat(key)).version, first.version)
      await write(run.storage, key, noise(partBytes + 11, 3))
      await run.assertHolds(key, noise(partBytes + 11, 3))
      assert.equal((await listOf(run.storage, key)).length, 1)
    })

    it('shows the old object, whole, until the new one is committed', async () => {
      const key = run.freshKey()
      await write(run.storage, key, noise(1000, 1))
      const stream = run.storage.createWriteStream(key)
      await feed(stream, noise(2 * partBytes + 5, 2))
      await assertReads(run.storage, key, noise(1000, 1))
      stream.end()
      await finished(stream)
      await run.assertHolds(key, noise(2 * partBytes + 5, 2))
    })

    it('a reader beside a writer that replaces sees the old object or the new one, whole', async () => {
      const key = run.freshKey()
      const versions = [noise(partBytes + 10, 1), noise(1000, 2), noise(partBytes + 20, 3), noise(0, 4), noise(2000, 5)]
      await write(run.storage, key, versions[0]!)
      let writing = true
      let seen = 0
      const reading = async () => {
        // The last one after all writing, so that one is read whole however slow reads are.
        for (let isLast = false; !isLast; ) {
          isLast = !writing
          try {
            const bytes = await buffer(run.storage.createReadStream(key))
            assert.ok(
              versions.some((version) => version.equals(bytes)),
              `${bytes.length} bytes that nobody wrote so`,
            )
            seen++
          } catch (error) {
            // Replaced in the middle of this read.
            assertIsStorageError(error, 'CONFLICT')
          }
          // One that has its object in memory would else leave the writer no turn.
          await new Promise(setImmediate)
        }
      }
      const readers = Promise.all([reading(), reading()])
      try {
        for (const version of versions) await write(run.storage, key, version)
      } finally {
        writing = false
        await readers
      }
      assert.ok(seen > 0)
      await run.assertHolds(key, versions.at(-1)!)
    })

    it('makes no object before the end of the stream', async () => {
      const key = run.freshKey()
      const stream = run.storage.createWriteStream(key)
      await assertFails(run.storage.stat(key), 'NOT_FOUND')
      await run.assertNoUploads()
      await feed(stream, noise(2 * partBytes + 5, 1))
      await assertFails(run.storage.stat(key), 'NOT_FOUND')
      assert.deepEqual(await keysOf(run.storage, key), [])
      stream.end()
      await finished(stream)
      await run.assertHolds(key, noise(2 * partBytes + 5, 1))
    })

    for (const length of [0, 10, partBytes + 10]) {
      it(`refuses fewer and more bytes than size says, around ${length}`, async () => {
        const key = run.freshKey()
        await assertFails(write(run.storage, key, noise(length, 1), { size: length + 1 }), 'INVALID')
        await run.assertNothingLeft(key)
        if (length === 0) return
        await assertFails(write(run.storage, key, noise(length, 1), { size: length - 1 }), 'INVALID')
        await run.assertNothingLeft(key)
      })
    }

    it('leaves the old object alone when the new one has the wrong size', async () => {
      const key = run.freshKey()
      await write(run.storage, key, noise(500, 1))
      await assertFails(write(run.storage, key, noise(partBytes + 1, 2), { size: partBytes + 2 }), 'INVALID')
      await run.assertHolds(key, noise(500, 1))
    })

    it('ifAbsent makes an object and refuses to replace one', async () => {
      const key = run.freshKey()
      if (!run.storage.conditionalWrites) {
        assert.throws(
          () => run.storage.createWriteStream(key, { ifAbsent: true }),
          (error) => assertIsStorageError(error, 'INVALID'),
        )
        await run.assertNothingLeft(key)
        return
      }
      for (const size of [10, partBytes + 10]) {
        const own = run.freshKey()
        await write(run.storage, own, noise(size, 1), { ifAbsent: true })
        await assertFails(write(run.storage, own, noise(size, 2), { ifAbsent: true }), 'CONFLICT')
        await run.assertHolds(own, noise(size, 1))
      }
    })

    it('ifAbsent lets one of many writers at once win', async () => {
      if (!run.storage.conditionalWrites) return
      const key = run.freshKey()
      const writers = Array.from({ length: 6 }, (_, index) =>
        write(run.storage, key, noise(100 + index, index), { ifAbsent: true }),
      )
      const results = await Promise.allSettled(writers)
      const winners = results.flatMap((result, index) => (result.status === 'fulfilled' ? [index] : []))
      assert.equal(winners.length, 1)
      for (const result of results) {
        if (result.status === 'rejected') assertIsStorageError(result.reason, 'CONFLICT')
      }
      await run.assertHolds(key, noise(100 + winners[0]!, winners[0]!))
    })

    for (const size of [2000, partBytes + 2000]) {
      it(`two writers of ${size} bytes at once leave one whole object`, async () => {
        const key = run.freshKey()
        const results = await Promise.allSettled([
          write(run.storage, key, noise(size, 1)),
          write(run.storage, key, noise(size + 1, 2)),
        ])
        // One that was replaced in the moment before it looked has not seen its own object, and says so.
        for (const result of results) {
          if (result.status === 'rejected') assertIsStorageError(result.reason, 'CONFLICT')
        }
        assert.ok(results.some((result) => result.status === 'fulfilled'))
        const bytes = await buffer(run.storage.createReadStream(key))
        assert.ok([noise(size, 1), noise(size + 1, 2)].some((whole) => whole.equals(bytes)))
        assert.equal((await listOf(run.storage, key)).length, 1)
        await run.assertNoUploads()
      })
    }
  })
}
