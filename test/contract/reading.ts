import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { ObjectStat } from '../../adapters/storage.ts'
import {
  assertAborts,
  assertFails,
  assertIsStorageError,
  assertReads,
  type ContractRun,
  inBatches,
  noise,
  write,
} from './support.ts'

/** A prune refuses to go by a clock that is further away. */
const CLOCKS_APART_MS = 24 * 60 * 60 * 1000

/** Registers the tests of reading, ranges, versions and `stat`. */
export function readingTests(run: ContractRun): void {
  const { partBytes } = run

  describe('reading', () => {
    const bytes = noise(partBytes + 70_001, 7)
    let key: string
    let stat: ObjectStat
    before(async () => {
      key = run.freshKey()
      await write(run.storage, key, bytes)
      stat = await run.storage.stat(key)
    })

    it('ranges: start, end inclusive, one byte, past the end, from the end', async () => {
      const last = bytes.length - 1
      const ranges: [{ start?: number; end?: number }, Buffer][] = [
        [{}, bytes],
        [{ start: 0 }, bytes],
        [{ start: 1 }, bytes.subarray(1)],
        [{ end: 0 }, bytes.subarray(0, 1)],
        [{ start: 5, end: 5 }, bytes.subarray(5, 6)],
        [{ start: 100, end: 299_999 }, bytes.subarray(100, 300_000)],
        [{ start: partBytes - 1, end: partBytes }, bytes.subarray(partBytes - 1, partBytes + 1)],
        [{ start: last }, bytes.subarray(last)],
        [{ start: last, end: last + 100 }, bytes.subarray(last)],
        [{ end: last + 1_000_000 }, bytes],
        [{ start: bytes.length }, Buffer.alloc(0)],
        [{ start: bytes.length + 10, end: bytes.length + 20 }, Buffer.alloc(0)],
      ]
      for (const [range, expected] of ranges) {
        const read = await buffer(run.storage.createReadStream(key, range))
        assert.ok(read.equals(expected), `${JSON.stringify(range)} gave ${read.length} bytes`)
      }
    })

    it('an empty object reads as nothing', async () => {
      const empty = run.freshKey()
      await write(run.storage, empty, Buffer.alloc(0))
      const { version } = await run.storage.stat(empty)
      for (const range of [{}, { start: 0 }, { start: 0, end: 10 }, { start: 5 }, { version: version! }]) {
        assert.equal((await buffer(run.storage.createReadStream(empty, range))).length, 0)
      }
      assert.equal((await run.storage.readRange(empty, 0, 0)).length, 0)
      await assertFails(run.storage.readRange(empty, 0, 1), 'INVALID')
    })

    it('refuses what is no range, before any request', async () => {
      for (const range of [{ start: 5, end: 4 }, { start: -1 }, { end: -1 }, { start: 0.5 }, { start: Number.NaN }]) {
        assert.throws(
          () => run.storage.createReadStream(key, range),
          (error) => assertIsStorageError(error, 'INVALID'),
        )
      }
    })

    it('readRange gives exactly what was asked for, or fails', async () => {
      for (const [offset, length] of [
        [0, 0],
        [0, 1],
        [17, 70_000],
        [bytes.length - 10, 10],
        [bytes.length, 0],
        [0, bytes.length],
      ] as const) {
        const read = await run.storage.readRange(key, offset, length)
        assert.ok(Buffer.isBuffer(read))
        assert.ok(read.equals(bytes.subarray(offset, offset + length)))
      }
      for (const [offset, length] of [
        [bytes.length - 10, 11],
        [bytes.length, 1],
        [bytes.length + 5, 0],
        [bytes.length + 5, 5],
        [-1, 1],
        [0, -1],
        [0.5, 1],
      ] as const) {
        await assertFails(run.storage.readRange(key, offset, length), 'INVALID')
      }
    })

    it('T14: a version pins a read to its bytes', async () => {
      const own = run.freshKey()
      await write(run.storage, own, noise(400, 1))
      const { version } = await run.storage.stat(own)
      assert.ok(version, 'stat gives no version')
      assert.equal((await buffer(run.storage.createReadStream(own, { version }))).length, 400)
      assert.equal((await run.storage.readRange(own, 10, 20, { version })).length, 20)
      await write(run.storage, own, noise(400, 2))
      await assertFails(buffer(run.storage.createReadStream(own, { version })), 'CONFLICT')
      await assertFails(buffer(run.storage.createReadStream(own, { version, start: 5, end: 9 })), 'CONFLICT')
      await assertFails(buffer(run.storage.createReadStream(own, { version, start: 4000 })), 'CONFLICT')
      await assertFails(run.storage.readRange(own, 10, 20, { version }), 'CONFLICT')
      await assertFails(run.storage.readRange(own, 0, 0, { version }), 'CONFLICT')
    })

    it('can be ended early, and aborted', async () => {
      const stream = run.storage.createReadStream(key)
      for await (const chunk of stream) {
        assert.ok(chunk.length > 0)
        break
      }
      assert.ok(stream.destroyed)
      const controller = new AbortController()
      const aborted = run.storage.createReadStream(key, { signal: controller.signal })
      const ended = assertAborts(buffer(aborted))
      controller.abort()
      await ended
      await assertAborts(buffer(run.storage.createReadStream(key, { signal: AbortSignal.abort() })))
      await assertAborts(run.storage.readRange(key, 0, 10, { signal: AbortSignal.abort() }))
    })

    it('a read of a version that was deleted is NOT_FOUND', async () => {
      const own = run.freshKey()
      await write(run.storage, own, noise(400, 1))
      const { version } = await run.storage.stat(own)
      await run.storage.delete(own)
      await assertFails(buffer(run.storage.createReadStream(own, { version: version! })), 'NOT_FOUND')
      await assertFails(run.storage.readRange(own, 10, 20, { version: version! }), 'NOT_FOUND')
    })

    for (const change of ['replaced', 'deleted'] as const) {
      it(`T14: a stream whose object is ${change} gives all of the old bytes, or fails`, async () => {
        const own = run.freshKey()
        await write(run.storage, own, bytes)
        const stream = run.storage.createReadStream(own)
        const gathered: Buffer[] = []
        try {
          for await (const chunk of stream) {
            if (gathered.length === 0) {
              if (change === 'deleted') await run.storage.delete(own)
              else await write(run.storage, own, noise(bytes.length, 8))
            }
            gathered.push(chunk)
          }
        } catch (error) {
          assertIsStorageError(error, change === 'deleted' ? 'NOT_FOUND' : 'CONFLICT')
          return
        }
        assert.ok(Buffer.concat(gathered).equals(bytes), 'bytes of two versions were joined')
      })
    }

    it('a slow reader gets every byte', async () => {
      const gathered: Buffer[] = []
      for await (const chunk of run.storage.createReadStream(key)) {
        gathered.push(chunk)
        if (gathered.length < 20) await delay(2)
      }
      assert.ok(Buffer.concat(gathered).equals(bytes))
    })

    it('streams left early, at any moment, leave nothing behind that others wait for', async () => {
      // More than the connections that an adapter keeps.
      await inBatches(
        Array.from({ length: 96 }, (_, index) => index),
        async (index) => {
          const stream = run.storage.createReadStream(key)
          const close = new Promise((resolve) => stream.once('close', resolve))
          if (index % 3 === 0) stream.destroy()
          else if (index % 3 === 1) stream.once('readable', () => stream.destroy())
          else setTimeout(() => stream.resume().destroy(), index % 7)
          await close
          assert.equal(stream.errored, null)
        },
      )
      await assertReads(run.storage, key, bytes)
    })

    it('gives bytes that are the reader’s own', async () => {
      for await (const chunk of run.storage.createReadStream(key)) chunk.fill(0)
      const range = await run.storage.readRange(key, 0, 100)
      range.fill(0)
      await assertReads(run.storage, key, bytes)
    })

    it('many readers at once', async () => {
      const reads = Array.from({ length: 8 }, (_, index) => run.storage.readRange(key, index * 1000, 50_000))
      for (const [index, read] of (await Promise.all(reads)).entries()) {
        assert.ok(read.equals(bytes.subarray(index * 1000, index * 1000 + 50_000)))
      }
    })

    it('stat says the size, the time, the version, and a checksum that is true', async () => {
      assert.equal(stat.size, bytes.length)
      assert.ok(stat.modified instanceof Date && !Number.isNaN(stat.modified.getTime()))
      assert.deepEqual(await run.storage.stat(key), stat)
      const small = run.freshKey()
      await write(run.storage, small, noise(1234, 5))
      const { checksum, modified } = await run.storage.stat(small)
      // No test of clocks: seconds taken for ms, or a time that an upload was given, are further away than any of them.
      const apart = Math.abs(Date.now() - modified.getTime())
      assert.ok(apart < CLOCKS_APART_MS, `modified is ${modified.toISOString()} of an object that was just written`)
      if (!checksum) return
      assert.match(checksum.value, /^[0-9a-f]+$/)
      const own = run.contract.digests?.[checksum.algorithm]
      const expected = own?.(noise(1234, 5)) ?? createHash(checksum.algorithm).update(noise(1234, 5)).digest('hex')
      assert.equal(checksum.value, expected)
    })

    it('what is not there is NOT_FOUND', async () => {
      const absent = run.freshKey()
      await assertFails(run.storage.stat(absent), 'NOT_FOUND')
      await assertFails(run.storage.readRange(absent, 0, 1), 'NOT_FOUND')
      await assertFails(run.storage.readRange(absent, 0, 0), 'NOT_FOUND')
      await assertFails(buffer(run.storage.createReadStream(absent)), 'NOT_FOUND')
      await assertFails(buffer(run.storage.createReadStream(absent, { start: 5, end: 9 })), 'NOT_FOUND')
      await assertFails(run.storage.stat(key.slice(0, key.lastIndexOf('/'))), 'NOT_FOUND')
      await assertFails(run.storage.stat(`${key}/beneath`), 'NOT_FOUND')
    })
  })
}
