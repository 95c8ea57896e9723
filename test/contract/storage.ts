import assert from 'node:assert/strict'
import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Readable, type Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { after, before, describe, it } from 'node:test'
import type { StorageErrorCode } from '../../adapters/errors.ts'
import type { ObjectStat, Storage, WriteOptions } from '../../adapters/storage.ts'

export interface StorageContract {
  /** Opens the store under test. Called once; tests keep to keys of their own, beneath `contract-…/`. */
  open(): Promise<Storage>
  /** Called after the last test, with the store still open. */
  cleanup?(storage: Storage): Promise<void>
  /** How many uploads the store holds that were begun and neither committed nor cancelled. */
  pendingUploads?(): Promise<number>
  /** Where the adapter begins to send parts: objects around this size are tested. Default 8 MiB. */
  partBytes?: number
  /** Objects in one listing; above the size of a page. Default 25. */
  manyKeys?: number
  /** Whether the store takes the two Unicode forms of one text for one key, as some file systems do. */
  foldsUnicode?: boolean
}

/**
 * Registers the tests that every Storage has to pass: each sentence of its guarantees, held to a store that is
 * really there. For node:test; an adapter's own test file only says how to open it.
 */
export function storageContract(name: string, contract: StorageContract): void {
  const partBytes = contract.partBytes ?? 8 * 1024 * 1024
  const base = `contract-${randomBytes(6).toString('hex')}`
  let storage: Storage
  let count = 0
  const freshPrefix = () => `${base}/${++count}/`
  const freshKey = () => `${freshPrefix()}object.bin`

  async function assertNothingLeft(key: string): Promise<void> {
    await assertFails(storage.stat(key), 'NOT_FOUND')
    const folder = key.slice(0, key.lastIndexOf('/') + 1)
    assert.deepEqual(await keysOf(storage, folder), [], 'an object is left')
    await assertNoUploads()
  }

  async function assertNoUploads(): Promise<void> {
    if (contract.pendingUploads) assert.equal(await contract.pendingUploads(), 0, 'an unfinished upload is left')
  }

  async function assertHolds(key: string, bytes: Buffer): Promise<void> {
    const stat = await storage.stat(key)
    assert.equal(stat.size, bytes.length)
    assert.equal(stat.key, key)
    assert.ok(digest(await buffer(storage.createReadStream(key))) === digest(bytes), 'other bytes were read')
    await assertNoUploads()
  }

  describe(`Storage contract: ${name}`, () => {
    before(async () => {
      storage = await contract.open()
    })

    after(async () => {
      try {
        for await (const object of storage.list(`${base}/`)) await storage.delete(object.key)
        await contract.cleanup?.(storage)
      } finally {
        await storage.close()
      }
    })

    describe('writing', () => {
      const sizes = [0, 1, partBytes - 1, partBytes, partBytes + 1, 2 * partBytes, 3 * partBytes + 4567]
      for (const size of sizes) {
        it(`T11: an object of ${size} bytes comes back as it was, its size told or not`, async () => {
          const bytes = noise(size, 1)
          for (const options of [{}, { size }, { expectedSize: size + 1000 }]) {
            const key = freshKey()
            await write(storage, key, bytes, options)
            await assertHolds(key, bytes)
          }
        })
      }

      it('T12: writes of a few bytes each, a chunk used again by its owner, and strings', async () => {
        const key = freshKey()
        const stream = storage.createWriteStream(key)
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
        await assertHolds(key, Buffer.concat(expected))
      })

      it('keeps nothing of a chunk that it has called consumed', async () => {
        const key = freshKey()
        const bytes = noise(2 * partBytes + 77, 4)
        const chunks = Array.from({ length: Math.ceil(bytes.length / 100_000) }, (_, index) =>
          Buffer.from(bytes.subarray(index * 100_000, (index + 1) * 100_000)),
        )
        const stream = storage.createWriteStream(key, { onConsumed: (chunk) => chunk.fill(0) })
        for (const chunk of chunks) await feed(stream, chunk)
        stream.end()
        await finished(stream)
        await assertHolds(key, bytes)
      })

      it('replaces an object, and one is left', async () => {
        const key = freshKey()
        await write(storage, key, noise(partBytes + 10, 1))
        const first = await storage.stat(key)
        await write(storage, key, noise(1000, 2))
        await assertHolds(key, noise(1000, 2))
        assert.notEqual((await storage.stat(key)).version, first.version)
        await write(storage, key, noise(partBytes + 11, 3))
        await assertHolds(key, noise(partBytes + 11, 3))
        assert.equal((await listOf(storage, key)).length, 1)
      })

      it('shows the old object, whole, until the new one is committed', async () => {
        const key = freshKey()
        await write(storage, key, noise(1000, 1))
        const stream = storage.createWriteStream(key)
        await feed(stream, noise(2 * partBytes + 5, 2))
        await assertReads(storage, key, noise(1000, 1))
        stream.end()
        await finished(stream)
        await assertHolds(key, noise(2 * partBytes + 5, 2))
      })

      it('makes no object before the end of the stream', async () => {
        const key = freshKey()
        const stream = storage.createWriteStream(key)
        await assertFails(storage.stat(key), 'NOT_FOUND')
        await feed(stream, noise(2 * partBytes + 5, 1))
        await assertFails(storage.stat(key), 'NOT_FOUND')
        assert.deepEqual(await keysOf(storage, key), [])
        stream.end()
        await finished(stream)
        await assertHolds(key, noise(2 * partBytes + 5, 1))
      })

      for (const length of [0, 10, partBytes + 10]) {
        it(`refuses fewer and more bytes than size says, around ${length}`, async () => {
          const key = freshKey()
          await assertFails(write(storage, key, noise(length, 1), { size: length + 1 }), 'INVALID')
          await assertNothingLeft(key)
          if (length === 0) return
          await assertFails(write(storage, key, noise(length, 1), { size: length - 1 }), 'INVALID')
          await assertNothingLeft(key)
        })
      }

      it('leaves the old object alone when the new one has the wrong size', async () => {
        const key = freshKey()
        await write(storage, key, noise(500, 1))
        await assertFails(write(storage, key, noise(partBytes + 1, 2), { size: partBytes + 2 }), 'INVALID')
        await assertHolds(key, noise(500, 1))
      })

      it('ifAbsent makes an object and refuses to replace one', async () => {
        const key = freshKey()
        if (!storage.conditionalWrites) {
          await assertFails(write(storage, key, noise(10, 1), { ifAbsent: true }), 'INVALID')
          await assertNothingLeft(key)
          return
        }
        for (const size of [10, partBytes + 10]) {
          const own = freshKey()
          await write(storage, own, noise(size, 1), { ifAbsent: true })
          await assertFails(write(storage, own, noise(size, 2), { ifAbsent: true }), 'CONFLICT')
          await assertHolds(own, noise(size, 1))
        }
      })

      it('ifAbsent lets one of many writers at once win', async () => {
        if (!storage.conditionalWrites) return
        const key = freshKey()
        const writers = Array.from({ length: 6 }, (_, index) =>
          write(storage, key, noise(100 + index, index), { ifAbsent: true }),
        )
        const results = await Promise.allSettled(writers)
        const winners = results.flatMap((result, index) => (result.status === 'fulfilled' ? [index] : []))
        assert.equal(winners.length, 1)
        for (const result of results) {
          if (result.status === 'rejected') assertIsStorageError(result.reason, 'CONFLICT')
        }
        await assertHolds(key, noise(100 + winners[0]!, winners[0]!))
      })

      for (const size of [2000, partBytes + 2000]) {
        it(`two writers of ${size} bytes at once leave one whole object`, async () => {
          const key = freshKey()
          const results = await Promise.allSettled([
            write(storage, key, noise(size, 1)),
            write(storage, key, noise(size + 1, 2)),
          ])
          // One that was replaced in the moment before it looked has not seen its own object, and says so.
          for (const result of results) {
            if (result.status === 'rejected') assertIsStorageError(result.reason, 'CONFLICT')
          }
          assert.ok(results.some((result) => result.status === 'fulfilled'))
          const bytes = await buffer(storage.createReadStream(key))
          assert.ok([noise(size, 1), noise(size + 1, 2)].some((whole) => whole.equals(bytes)))
          assert.equal((await listOf(storage, key)).length, 1)
          await assertNoUploads()
        })
      }
    })

    describe('aborting', () => {
      it('destroy before the first byte', async () => {
        const key = freshKey()
        const stream = storage.createWriteStream(key)
        stream.destroy()
        await closedCleanly(stream)
        await assertNothingLeft(key)
      })

      for (const size of [10, partBytes, 2 * partBytes + 10]) {
        it(`destroy after ${size} bytes, the source stalled`, async () => {
          const key = freshKey()
          const stream = storage.createWriteStream(key)
          await feed(stream, noise(size, 1))
          stream.destroy()
          await closedCleanly(stream)
          assert.equal(stream.writableFinished, false)
          await assertNothingLeft(key)
        })

        it(`destroy just after end() of ${size} bytes leaves nothing, or had finished`, async () => {
          const key = freshKey()
          const stream = storage.createWriteStream(key)
          stream.end(noise(size, 1))
          stream.destroy()
          await closedCleanly(stream)
          await assertNothingLeft(key)
        })

        it(`destroy at any moment of the commit of ${size} bytes leaves nothing, or had finished`, async () => {
          for (const ms of [0, 1, 3, 6, 12, 25]) {
            const key = freshKey()
            const stream = storage.createWriteStream(key)
            const close = closedCleanly(stream)
            stream.end(noise(size, 1))
            await new Promise((resolve) => setTimeout(resolve, ms))
            const had = stream.writableFinished
            stream.destroy()
            await close
            assert.equal(stream.writableFinished, had)
            if (had) await assertHolds(key, noise(size, 1))
            else await assertNothingLeft(key)
          }
        })
      }

      it('destroy with an error gives that error, then close', async () => {
        const key = freshKey()
        const stream = storage.createWriteStream(key)
        await feed(stream, noise(2 * partBytes, 1))
        const failure = new Error('of our own making')
        const seen = once(stream, 'error')
        const close = closed(stream)
        stream.destroy(failure)
        assert.equal((await seen)[0], failure)
        await close
        await assertNothingLeft(key)
      })

      it('destroy leaves the object that was there before', async () => {
        const key = freshKey()
        await write(storage, key, noise(300, 1))
        for (const size of [10, 300, 2 * partBytes]) {
          const stream = storage.createWriteStream(key)
          await feed(stream, noise(size, 1))
          stream.destroy()
          await closedCleanly(stream)
          await assertHolds(key, noise(300, 1))
        }
      })

      it('destroy after finish does nothing', async () => {
        for (const size of [10, partBytes + 10]) {
          const key = freshKey()
          const stream = storage.createWriteStream(key)
          stream.once('finish', () => stream.destroy())
          stream.end(noise(size, 1))
          await closedCleanly(stream)
          stream.destroy()
          await assertHolds(key, noise(size, 1))
        }
      })

      it('T4: a source that fails leaves nothing', async () => {
        for (const size of [0, 10, partBytes + 10, 3 * partBytes]) {
          const key = freshKey()
          const failure = new Error('the source died')
          async function* source() {
            yield* chunksOf(noise(size, 1), 100_000)
            throw failure
          }
          await assert.rejects(transfer(source(), storage.createWriteStream(key)), failure)
          await assertNothingLeft(key)
        }
      })

      it('a signal aborts with AbortError: before, at the start, in the middle', async () => {
        const key = freshKey()
        const fired = storage.createWriteStream(key, { signal: AbortSignal.abort() })
        await assertAborts(finished(fired))
        await closed(fired)
        for (const size of [0, 10, 2 * partBytes]) {
          const controller = new AbortController()
          const stream = storage.createWriteStream(key, { signal: controller.signal })
          const ended = assertAborts(finished(stream))
          const close = closed(stream)
          await feed(stream, noise(size, 1))
          controller.abort()
          await ended
          await close
        }
        await assertNothingLeft(key)
      })

      it("a pipeline's own signal settles it, with nothing left", async () => {
        const key = freshKey()
        const controller = new AbortController()
        const chunks = chunksOf(noise(2 * partBytes, 1), 200_000)
        const source = new Readable({
          read() {
            const { value, done } = chunks.next()
            if (done) controller.abort()
            else this.push(value)
          },
        })
        const stream = storage.createWriteStream(key)
        const close = closed(stream)
        await assertAborts(pipeline(source, stream, { signal: controller.signal }))
        await close
        await assertNothingLeft(key)
      })
    })

    describe('reading', () => {
      const bytes = noise(partBytes + 70_001, 7)
      let key: string
      let stat: ObjectStat
      before(async () => {
        key = freshKey()
        await write(storage, key, bytes)
        stat = await storage.stat(key)
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
          const read = await buffer(storage.createReadStream(key, range))
          assert.ok(read.equals(expected), `${JSON.stringify(range)} gave ${read.length} bytes`)
        }
      })

      it('an empty object reads as nothing', async () => {
        const empty = freshKey()
        await write(storage, empty, Buffer.alloc(0))
        const { version } = await storage.stat(empty)
        for (const range of [{}, { start: 0 }, { start: 0, end: 10 }, { start: 5 }, { version: version! }]) {
          assert.equal((await buffer(storage.createReadStream(empty, range))).length, 0)
        }
        assert.equal((await storage.readRange(empty, 0, 0)).length, 0)
        await assertFails(storage.readRange(empty, 0, 1), 'INVALID')
      })

      it('refuses what is no range, before any request', async () => {
        for (const range of [{ start: 5, end: 4 }, { start: -1 }, { end: -1 }, { start: 0.5 }, { start: Number.NaN }]) {
          assert.throws(
            () => storage.createReadStream(key, range),
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
          const read = await storage.readRange(key, offset, length)
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
          await assertFails(storage.readRange(key, offset, length), 'INVALID')
        }
      })

      it('T14: a version pins a read to its bytes', async () => {
        const own = freshKey()
        await write(storage, own, noise(400, 1))
        const { version } = await storage.stat(own)
        assert.ok(version, 'stat gives no version')
        assert.equal((await buffer(storage.createReadStream(own, { version }))).length, 400)
        assert.equal((await storage.readRange(own, 10, 20, { version })).length, 20)
        await write(storage, own, noise(400, 2))
        await assertFails(buffer(storage.createReadStream(own, { version })), 'CONFLICT')
        await assertFails(buffer(storage.createReadStream(own, { version, start: 5, end: 9 })), 'CONFLICT')
        await assertFails(buffer(storage.createReadStream(own, { version, start: 4000 })), 'CONFLICT')
        await assertFails(storage.readRange(own, 10, 20, { version }), 'CONFLICT')
        await assertFails(storage.readRange(own, 0, 0, { version }), 'CONFLICT')
      })

      it('can be ended early, and aborted', async () => {
        const stream = storage.createReadStream(key)
        for await (const chunk of stream) {
          assert.ok(chunk.length > 0)
          break
        }
        assert.ok(stream.destroyed)
        const controller = new AbortController()
        const aborted = storage.createReadStream(key, { signal: controller.signal })
        const ended = assertAborts(buffer(aborted))
        controller.abort()
        await ended
        await assertAborts(buffer(storage.createReadStream(key, { signal: AbortSignal.abort() })))
        await assertAborts(storage.readRange(key, 0, 10, { signal: AbortSignal.abort() }))
      })

      it('gives bytes that are the reader’s own', async () => {
        for await (const chunk of storage.createReadStream(key)) chunk.fill(0)
        const range = await storage.readRange(key, 0, 100)
        range.fill(0)
        await assertReads(storage, key, bytes)
      })

      it('many readers at once', async () => {
        const reads = Array.from({ length: 8 }, (_, index) => storage.readRange(key, index * 1000, 50_000))
        for (const [index, read] of (await Promise.all(reads)).entries()) {
          assert.ok(read.equals(bytes.subarray(index * 1000, index * 1000 + 50_000)))
        }
      })

      it('stat says the size, the time, the version, and a checksum that is true', async () => {
        assert.equal(stat.size, bytes.length)
        assert.ok(stat.modified instanceof Date && !Number.isNaN(stat.modified.getTime()))
        assert.deepEqual(await storage.stat(key), stat)
        const small = freshKey()
        await write(storage, small, noise(1234, 5))
        const { checksum } = await storage.stat(small)
        if (!checksum) return
        assert.equal(checksum.value, createHash(checksum.algorithm).update(noise(1234, 5)).digest('hex'))
      })

      it('what is not there is NOT_FOUND', async () => {
        const absent = freshKey()
        await assertFails(storage.stat(absent), 'NOT_FOUND')
        await assertFails(storage.readRange(absent, 0, 1), 'NOT_FOUND')
        await assertFails(storage.readRange(absent, 0, 0), 'NOT_FOUND')
        await assertFails(buffer(storage.createReadStream(absent)), 'NOT_FOUND')
        await assertFails(buffer(storage.createReadStream(absent, { start: 5, end: 9 })), 'NOT_FOUND')
        await assertFails(storage.stat(key.slice(0, key.lastIndexOf('/'))), 'NOT_FOUND')
        await assertFails(storage.stat(`${key}/beneath`), 'NOT_FOUND')
      })
    })

    describe('listing', () => {
      it('T19: a prefix is a plain string prefix', async () => {
        const prefix = freshPrefix()
        const keys = ['world/a', 'world/b/c', 'world2/a', 'world', 'worl', '1/x', '10/x'].map((key) =>
          // An object and a folder of one name cannot be side by side in a file system.
          key === 'world' ? `${prefix}world-` : prefix + key,
        )
        for (const key of keys) await write(storage, key, noise(10, 1))
        const starting = (text: string) => keys.filter((key) => key.startsWith(prefix + text)).sort()
        for (const text of ['', 'w', 'world', 'world/', 'world/b', 'world/b/', 'world2', 'world2/', '1', '1/', 'x']) {
          assert.deepEqual(await keysOf(storage, prefix + text), starting(text), `prefix ${text}`)
        }
      })

      it('gives what stat gives, but perhaps the checksum', async () => {
        const key = freshKey()
        await write(storage, key, noise(1234, 1))
        const [listed] = await listOf(storage, key)
        const stat = await storage.stat(key)
        assert.equal(listed?.key, stat.key)
        assert.equal(listed?.size, stat.size)
        assert.equal(listed?.version, stat.version)
        // A header tells whole seconds, a listing tells more.
        assert.equal(seconds(listed?.modified), seconds(stat.modified))
      })

      it('many objects, over the pages of a listing', async () => {
        const prefix = freshPrefix()
        const keys = Array.from({ length: contract.manyKeys ?? 25 }, (_, index) => `${prefix}${index % 7}/${index}`)
        for (let index = 0; index < keys.length; index += 20) {
          await Promise.all(keys.slice(index, index + 20).map((key) => write(storage, key, Buffer.from(key))))
        }
        assert.deepEqual(await keysOf(storage, prefix), [...keys].sort())
        for await (const object of storage.list(prefix)) {
          assert.ok(object.key.startsWith(prefix))
          break
        }
      })

      it('nothing there is an empty listing, and a signal aborts one', async () => {
        assert.deepEqual(await keysOf(storage, freshPrefix()), [])
        await write(storage, freshKey(), noise(1, 1))
        const aborted = async () => {
          for await (const _ of storage.list(`${base}/`, { signal: AbortSignal.abort() })) assert.fail('went on')
        }
        await assertAborts(aborted())
      })
    })

    describe('keys', () => {
      it('odd ones are kept as they are', async () => {
        const prefix = freshPrefix()
        const odd = [
          'a b/ c',
          'a+b',
          'a%20b',
          'a%2Fb',
          'what?',
          '#1',
          `it's "quoted"`,
          'back`tick&amp;<xml>',
          '~!@$^*()_=[]{}|;,',
          'grüße/世界/🌍',
          'e\u0301',
          'trailing.',
          'x'.repeat(250),
          '-dash',
          '.hidden/..x',
        ].map((key) => prefix + key)
        if (!contract.foldsUnicode) odd.push(`${prefix}\u00e9`)
        for (const [index, key] of odd.entries()) await write(storage, key, noise(20, index))
        assert.deepEqual(await keysOf(storage, prefix), [...odd].sort())
        for (const [index, key] of odd.entries()) {
          await assertReads(storage, key, noise(20, index))
          await storage.delete(key)
          await assertFails(storage.stat(key), 'NOT_FOUND')
        }
        assert.deepEqual(await keysOf(storage, prefix), [])
      })

      it('bad ones are INVALID, before any request', async () => {
        const bad = [
          '',
          '/',
          '/a',
          'a/',
          'a//b',
          '.',
          '..',
          'a/../b',
          'a/.',
          './a',
          '..',
          'nul\0',
          'line\n',
          'del\u007f',
        ]
        bad.push('x'.repeat(251), `${'x'.repeat(205)}/`.repeat(5).slice(0, -1), '\u{d800}', 'ü'.repeat(126))
        for (const key of bad) {
          const isInvalid = (error: unknown) => assertIsStorageError(error, 'INVALID')
          assert.throws(() => storage.createWriteStream(key), isInvalid)
          assert.throws(() => storage.createReadStream(key), isInvalid)
          await assertFails(storage.stat(key), 'INVALID')
          await assertFails(storage.delete(key), 'INVALID')
          await assertFails(storage.readRange(key, 0, 1), 'INVALID')
        }
      })

      it('the longest ones', async () => {
        const key = `${base}/${'long/'.repeat(250)}`.slice(0, 900).replace(/\/$/, '')
        await write(storage, key, noise(5, 1))
        await assertReads(storage, key, noise(5, 1))
        await storage.delete(key)
      })
    })

    describe('deleting', () => {
      it('removes one object and no other, and an absent one is success', async () => {
        const prefix = freshPrefix()
        for (const name of ['a', 'ab', 'b/c']) await write(storage, prefix + name, noise(10, 1))
        await storage.delete(`${prefix}a`)
        await storage.delete(`${prefix}a`)
        await storage.delete(`${prefix}never`)
        await storage.delete(`${prefix}b`)
        assert.deepEqual(await keysOf(storage, prefix), [`${prefix}ab`, `${prefix}b/c`])
        await storage.delete(`${prefix}b/c`)
        await storage.delete(`${prefix}ab`)
        assert.deepEqual(await keysOf(storage, prefix), [])
      })
    })

    describe('the rest', () => {
      it('T29: probe tries every right, and leaves nothing behind', async () => {
        const before = await keysOf(storage, '')
        const report = await storage.probe()
        assert.deepEqual(
          report.steps.filter(({ ok, error }) => !ok || error),
          [],
        )
        const everywhere = ['sign-in', 'list', 'write', 'stat', 'read', 'range', 'delete']
        const steps = report.steps.map(({ step }) => step as string)
        assert.deepEqual(
          steps.filter((step) => everywhere.includes(step)),
          everywhere,
        )
        assert.ok(report.steps.every(({ ms }) => ms >= 0))
        assert.equal(report.ok, true)
        assert.deepEqual(await keysOf(storage, ''), before)
        await assertNoUploads()
        await assertAborts(storage.probe({ signal: AbortSignal.abort() }))
      })

      it('purgeUnfinished leaves what is finished, and what is young', async () => {
        if (!storage.purgeUnfinished) return
        const key = freshKey()
        await write(storage, key, noise(10, 1))
        const stream = storage.createWriteStream(`${key}-open`)
        await feed(stream, noise(2 * partBytes, 1))
        assert.equal(await storage.purgeUnfinished(3_600_000, { prefix: `${base}/` }), 0)
        stream.end()
        await finished(stream)
        await assertHolds(key, noise(10, 1))
        await assertHolds(`${key}-open`, noise(2 * partBytes, 1))
      })

      it('says what and where it is, without a secret', () => {
        assert.ok(storage.adapter.length > 0)
        assert.ok(URL.canParse(storage.location))
        assert.doesNotMatch(storage.location, /@/)
      })
    })
  })
}

/** Bytes that look random and are the same for the same seed. */
function noise(length: number, seed: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(length))
}

function* chunksOf(bytes: Buffer, length: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

async function write(storage: Storage, key: string, bytes: Buffer, options?: WriteOptions): Promise<void> {
  await transfer(Readable.from(chunksOf(bytes, 99_991)), storage.createWriteStream(key, options))
}

/** A pipeline whose sink has closed as well: with a generator as its source, pipeline rejects before that. */
async function transfer(source: AsyncIterable<Buffer>, stream: Writable): Promise<void> {
  const close = closed(stream)
  try {
    await pipeline(source, stream)
  } finally {
    await close
  }
}

/** Writes all of the bytes and waits until the stream has taken them, without an end. */
async function feed(stream: Writable, bytes: Buffer): Promise<void> {
  for (const chunk of chunksOf(bytes, 99_991)) {
    await new Promise<void>((resolve, reject) => {
      stream.write(chunk, (error) => (error ? reject(error) : resolve()))
    })
  }
}

/** Waits for `close`, whether or not an error comes first. */
function closed(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    stream.on('error', () => {})
    if (stream.closed) resolve()
    else stream.once('close', resolve)
  })
}

/** Waits for `close`; an error is one, as destroy() without an error gives none unless the clean-up failed. */
async function closedCleanly(stream: Writable): Promise<void> {
  await closed(stream)
  assert.equal(stream.errored, null)
}

function seconds(date: Date | undefined): number {
  return Math.floor((date?.getTime() ?? 0) / 1000)
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function assertReads(storage: Storage, key: string, bytes: Buffer): Promise<void> {
  const read = await buffer(storage.createReadStream(key))
  assert.ok(read.equals(bytes), `${key} gave other bytes`)
}

async function listOf(storage: Storage, prefix: string): Promise<ObjectStat[]> {
  const objects: ObjectStat[] = []
  for await (const object of storage.list(prefix)) objects.push(object)
  return objects
}

async function keysOf(storage: Storage, prefix: string): Promise<string[]> {
  return (await listOf(storage, prefix)).map((object) => object.key).sort()
}

function assertIsStorageError(error: unknown, code: StorageErrorCode): true {
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'StorageError', String(error.stack))
  assert.equal((error as Error & { code?: string }).code, code, error.message)
  return true
}

async function assertFails(promise: Promise<unknown>, code: StorageErrorCode): Promise<void> {
  await assert.rejects(promise, (error) => assertIsStorageError(error, code))
}

async function assertAborts(promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, { name: 'AbortError' })
}
