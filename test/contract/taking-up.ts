import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Storage, StoredPart, UploadJournal } from '../../adapters/storage.ts'
import { assertIsStorageError, type ContractRun, closed, feed, keysOf, noise, write } from './support.ts'

/** How long something is watched that is not to happen. */
const WATCH_MS = 100
const PARTS = 3

/** A journal in memory that writes down what it is told, and holds what a test tells it to. */
export class UploadNotes implements UploadJournal {
  earlier: string | undefined
  sureBytes = Number.POSITIVE_INFINITY
  upload: string | undefined
  readonly parts: StoredPart[] = []
  readonly calls: string[] = []
  /** What `ready` waits for, and may fail with. */
  gate: Promise<void> = Promise.resolve()
  /** What `begun` fails with. */
  refusal: Error | undefined

  constructor(earlier?: UploadNotes) {
    this.earlier = earlier?.upload ?? earlier?.earlier
  }

  async begun(upload: string): Promise<void> {
    this.calls.push('begun')
    if (this.refusal) throw this.refusal
    this.upload = upload
  }

  async ready(): Promise<void> {
    this.calls.push('ready')
    await this.gate
  }

  stored(part: StoredPart): void {
    this.calls.push('stored')
    this.parts.push(part)
  }

  numbers(sent: boolean): number[] {
    return this.parts.flatMap((part) => (part.sent === sent ? [part.number] : [])).sort((a, b) => a - b)
  }
}

/** Registers the tests of uploads that another stream takes up. */
export function takingUpTests(run: ContractRun): void {
  const { partBytes } = run
  const size = PARTS * partBytes + 1000
  const all = Array.from({ length: PARTS + 1 }, (_, at) => at + 1)

  /** Writes until `count` parts are stored, and ends there as a process does that cannot clean up. */
  async function interrupted(key: string, bytes: Buffer, count: number): Promise<UploadNotes> {
    const notes = new UploadNotes()
    const stream = run.storage.createWriteStream(key, { journal: notes })
    const close = closed(stream)
    await feed(stream, bytes.subarray(0, count * partBytes + 10))
    while (notes.parts.length < count) await delay(5)
    stream.destroy()
    await close
    assert.equal(stream.errored, null)
    return notes
  }

  const can = (storage: Storage) => storage.discardUpload !== undefined

  describe('taking up', () => {
    it('a journal is INVALID where uploads cannot be taken up', (t) => {
      if (can(run.storage)) t.diagnostic('they can')
      else {
        const open = () => run.storage.createWriteStream(run.freshKey(), { journal: new UploadNotes() })
        assert.throws(open, (error) => assertIsStorageError(error, 'INVALID'))
      }
    })

    it('an upload that was left is taken up, and what the store holds is not sent again', async () => {
      if (!can(run.storage)) return
      for (const count of [1, 2, PARTS]) {
        const key = run.freshKey()
        const bytes = noise(size, 1)
        const left = await interrupted(key, bytes, count)
        const notes = new UploadNotes(left)
        await write(run.storage, key, bytes, { journal: notes })
        await run.assertHolds(key, bytes)
        assert.equal(notes.upload, undefined, 'another upload was begun')
        // A part more may have been on its way when the first one ended.
        const held = notes.numbers(false)
        assert.deepEqual(held, all.slice(0, held.length))
        assert.ok(held.length >= count, `${held.length} of ${count} parts were held`)
        assert.deepEqual(notes.numbers(true), all.slice(held.length))
      }
    })

    it('it can be left and taken up again and again', async () => {
      if (!can(run.storage)) return
      const key = run.freshKey()
      const bytes = noise(size, 1)
      let notes = await interrupted(key, bytes, 1)
      for (const count of [1, 2, 3]) {
        const next = new UploadNotes(notes)
        const stream = run.storage.createWriteStream(key, { journal: next })
        const close = closed(stream)
        await feed(stream, bytes.subarray(0, count * partBytes + 10))
        while (next.parts.length < count) await delay(5)
        stream.destroy()
        await close
        notes = next
      }
      const last = new UploadNotes(notes)
      await write(run.storage, key, bytes, { journal: last })
      await run.assertHolds(key, bytes)
      assert.deepEqual(last.numbers(false).slice(0, 3), [1, 2, 3])
    })

    it('a part that is not the same is sent again, and the object is of the bytes that were given last', async () => {
      if (!can(run.storage)) return
      const key = run.freshKey()
      const left = await interrupted(key, noise(size, 1), 2)
      const bytes = noise(size, 1)
      bytes[partBytes + 5] = (bytes[partBytes + 5] as number) ^ 1
      const notes = new UploadNotes(left)
      notes.sureBytes = partBytes + 5
      await write(run.storage, key, bytes, { journal: notes })
      await run.storage.discardUpload?.(key, left.upload as string)
      await run.assertHolds(key, bytes)
      assert.ok(notes.numbers(true).includes(2))
      // Else the store cannot compare, and has begun anew.
      if (notes.upload === undefined) assert.ok(notes.numbers(false).includes(1))
    })

    it('bytes that end earlier make the object that they are', async () => {
      if (!can(run.storage)) return
      for (const bytes of [noise(partBytes + 7, 1), noise(2 * partBytes, 1)]) {
        const key = run.freshKey()
        const left = await interrupted(key, noise(size, 1), 2)
        const notes = new UploadNotes(left)
        notes.sureBytes = partBytes
        await write(run.storage, key, bytes, { journal: notes })
        await run.storage.discardUpload?.(key, left.upload as string)
        await run.assertHolds(key, bytes)
      }
    })

    it('an upload that was discarded is begun anew', async () => {
      if (!can(run.storage)) return
      const key = run.freshKey()
      const bytes = noise(size, 1)
      const left = await interrupted(key, bytes, 2)
      assert.ok(left.upload)
      await run.storage.discardUpload?.(key, left.upload)
      await run.assertNothingLeft(key)
      await run.storage.discardUpload?.(key, left.upload)
      const notes = new UploadNotes(left)
      await write(run.storage, key, bytes, { journal: notes })
      await run.assertHolds(key, bytes)
      // Where a store has no way to cancel one, it is there yet.
      if (!run.contract.pendingUploads) return
      assert.deepEqual([notes.numbers(false), notes.numbers(true)], [[], all])
      assert.ok(notes.upload && notes.upload !== left.upload)
    })

    it('an upload that has become the object is not sent again', async () => {
      if (!can(run.storage)) return
      const key = run.freshKey()
      const bytes = noise(size, 1)
      const first = new UploadNotes()
      await write(run.storage, key, bytes, { journal: first })
      for (const sureBytes of [size, size + 1000]) {
        const notes = new UploadNotes(first)
        notes.sureBytes = sureBytes
        await write(run.storage, key, bytes, { journal: notes })
        await run.assertHolds(key, bytes)
        assert.deepEqual([notes.numbers(false), notes.numbers(true), notes.upload], [all, [], undefined])
      }
      await run.storage.discardUpload?.(key, first.upload as string)
      await run.assertHolds(key, bytes)
    })

    it('where its bytes are not all certain to be given again it is begun anew, and discarding it leaves the object', async () => {
      if (!can(run.storage)) return
      const key = run.freshKey()
      const first = new UploadNotes()
      await write(run.storage, key, noise(size, 1), { journal: first })
      await run.storage.discardUpload?.(key, first.upload as string)
      await run.assertHolds(key, noise(size, 1))
      const second = new UploadNotes(first)
      second.sureBytes = size - 1
      await write(run.storage, key, noise(size, 2), { journal: second })
      await run.storage.discardUpload?.(key, first.upload as string)
      await run.assertHolds(key, noise(size, 2))
      assert.deepEqual(second.numbers(true), all)
      assert.deepEqual(await keysOf(run.storage, key), [key])
    })

    it('what names no upload is none', async () => {
      if (!can(run.storage)) return
      for (const earlier of ['', '{}', 'null', '{"partBytes":1,"name":"x"}']) {
        const key = run.freshKey()
        const notes = new UploadNotes()
        notes.earlier = earlier
        await write(run.storage, key, noise(partBytes + 1, 1), { journal: notes })
        await run.assertHolds(key, noise(partBytes + 1, 1))
      }
    })

    for (const bytes of [0, 10, partBytes + 10]) {
      it(`of ${bytes} bytes nothing is sent before the journal is ready`, async () => {
        if (!can(run.storage)) return
        const key = run.freshKey()
        const notes = new UploadNotes()
        let open: () => void = () => {}
        notes.gate = new Promise((resolve) => {
          open = resolve
        })
        const stream = run.storage.createWriteStream(key, { journal: notes })
        const close = closed(stream)
        stream.end(noise(bytes, 1))
        while (!notes.calls.includes('ready')) await delay(5)
        await delay(WATCH_MS)
        assert.ok(!notes.calls.includes('stored') && !stream.writableFinished)
        await assert.rejects(run.storage.stat(key))
        if (bytes > partBytes) assert.deepEqual(notes.calls.slice(0, 2), ['begun', 'ready'])
        open()
        await close
        assert.ok(stream.writableFinished)
        await run.assertHolds(key, noise(bytes, 1))
      })
    }

    it('where the journal cannot take it, nothing is sent', async () => {
      if (!can(run.storage)) return
      const fault = new Error('the disk is full')
      for (const bytes of [10, partBytes + 10]) {
        const key = run.freshKey()
        const notes = new UploadNotes()
        notes.gate = Promise.reject(fault)
        notes.gate.catch(() => {})
        await assert.rejects(write(run.storage, key, noise(bytes, 1), { journal: notes }), fault)
        assert.deepEqual(notes.parts, [])
        if (notes.upload) await run.storage.discardUpload?.(key, notes.upload)
        await run.assertNothingLeft(key)
      }
    })

    it('an upload whose name the journal cannot take is cancelled', async () => {
      if (!can(run.storage)) return
      const key = run.freshKey()
      const notes = new UploadNotes()
      notes.refusal = new Error('the disk is full')
      await assert.rejects(write(run.storage, key, noise(partBytes + 10, 1), { journal: notes }), notes.refusal)
      assert.deepEqual(notes.parts, [])
      await run.assertNothingLeft(key)
    })
  })
}
