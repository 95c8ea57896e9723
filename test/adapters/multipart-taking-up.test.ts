import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, it } from 'node:test'
import { type MultipartOptions, MultipartWritable } from '../../adapters/multipart.ts'
import { UploadNotes } from '../contract/taking-up.ts'
import { seededBytes, seededRandom } from '../support/random.ts'
import { failure, fakeClock, ScriptedStore } from '../support/scripted-store.ts'

const PART = 10

function writer(store: ScriptedStore, journal: UploadNotes, options: Partial<MultipartOptions> = {}) {
  const names = { adapter: 'scripted', key: 'a/key' }
  return new MultipartWritable(store, { ...names, partBytes: PART, clock: fakeClock(), journal, ...options })
}

const bytes = Buffer.from(Array.from({ length: 95 }, (_, at) => at))

/** Writes and ends as a process does whose link is gone, when `parts` parts are stored. */
async function interrupted(store: ScriptedStore, parts: number): Promise<UploadNotes> {
  const notes = new UploadNotes()
  const stream = writer(store, notes)
  stream.write(bytes.subarray(0, parts * PART + 1))
  while (notes.parts.length < parts) await new Promise((resolve) => setImmediate(resolve))
  stream.destroy()
  await once(stream, 'close')
  return notes
}

describe('an upload with a journal', () => {
  it('stays at the store when it is destroyed, and its parts are not sent again', async () => {
    const store = new ScriptedStore()
    const left = await interrupted(store, 4)
    assert.equal(store.count('abort'), 0)
    assert.equal(store.uploads.size, 1)
    const notes = new UploadNotes(left)
    await pipeline(Readable.from([bytes]), writer(store, notes))
    assert.deepEqual(store.object?.bytes, bytes)
    assert.deepEqual(notes.numbers(false), [1, 2, 3, 4])
    assert.equal(store.count('begin'), 1)
    assert.equal(store.calls.filter(({ step, part }) => step === 'putPart' && (part as number) <= 4).length, 4)
  })

  it('is asked for at the store, with retries, and begun anew where it is gone', async () => {
    const store = new ScriptedStore()
    const left = await interrupted(store, 4)
    store.uploads.clear()
    store.next('takeUp', () => {
      throw failure('UNAVAILABLE', 'takeUp', true)
    })
    const notes = new UploadNotes(left)
    await pipeline(Readable.from([bytes]), writer(store, notes))
    assert.deepEqual(store.object?.bytes, bytes)
    assert.equal(store.count('takeUp'), 2)
    assert.deepEqual(notes.numbers(false), [])
  })

  it('fails where the store cannot be asked, and is still there for the next', async () => {
    const store = new ScriptedStore()
    const left = await interrupted(store, 4)
    store.next('takeUp', () => {
      throw failure('ACCESS_DENIED', 'takeUp', false)
    })
    const fails = pipeline(Readable.from([bytes]), writer(store, new UploadNotes(left)))
    await assert.rejects(fails, { code: 'ACCESS_DENIED' })
    assert.equal(store.uploads.size, 1)
    const notes = new UploadNotes(left)
    await pipeline(Readable.from([bytes]), writer(store, notes))
    assert.deepEqual(notes.numbers(false), [1, 2, 3, 4])
  })

  it('of parts of another size is begun anew', async () => {
    const store = new ScriptedStore()
    const left = await interrupted(store, 4)
    const notes = new UploadNotes(left)
    await pipeline(Readable.from([bytes]), writer(store, notes, { partBytes: 2 * PART }))
    assert.deepEqual(store.object?.bytes, bytes)
    assert.equal(store.count('takeUp'), 0)
    assert.equal(store.count('begin'), 2)
  })

  it('stays when a part fails for good, and no part is sent while the journal is not ready', async () => {
    const store = new ScriptedStore()
    store.next(
      'putPart',
      () => {
        throw failure('QUOTA', 'putPart', false)
      },
      3,
    )
    const notes = new UploadNotes()
    await assert.rejects(pipeline(Readable.from([bytes]), writer(store, notes)), { code: 'QUOTA' })
    assert.equal(store.uploads.size, 1)
    const sent = store.count('putPart')
    const next = new UploadNotes(notes)
    next.gate = new Promise(() => {})
    const stream = writer(store, next)
    stream.write(bytes)
    while (!next.calls.includes('ready')) await new Promise((resolve) => setImmediate(resolve))
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    assert.equal(store.count('putPart'), sent)
  })

  it('is whole in the end, whatever fails and whenever it is cut off', async () => {
    const counts = { runs: 0, held: 0 }
    for (let seed = 0; seed < 300; seed += 1) {
      const random = seededRandom('taking up', seed)
      const store = new ScriptedStore()
      const whole = seededBytes(1 + random.int(200), seed)
      let notes: UploadNotes | undefined
      for (let done = false; !done; counts.runs += 1) {
        for (const step of ['begin', 'putPart', 'takeUp', 'commit', 'find'] as const) {
          if (!random.chance(0.2)) continue
          const [retryable, happens] = [random.chance(0.5), random.chance(0.5)]
          store.next(step, ({ work }) => {
            if (happens) work()
            throw failure('UNAVAILABLE', step, retryable)
          })
        }
        const next: UploadNotes = new UploadNotes(notes)
        const stream = writer(store, next)
        const close = new Promise((resolve) => stream.on('error', () => {}).once('close', resolve))
        const cut = random.chance(0.5) ? random.int(whole.length) : whole.length
        for (let at = 0; at < cut && !stream.destroyed; at += 7) {
          stream.write(whole.subarray(at, Math.min(at + 7, cut)))
          if (random.chance(0.3)) await new Promise((resolve) => setImmediate(resolve))
        }
        if (cut < whole.length) stream.destroy()
        else stream.end()
        await close
        done = stream.writableFinished
        counts.held += next.numbers(false).length
        notes = next
      }
      assert.deepEqual(store.object?.bytes, whole, `seed ${seed}`)
    }
    assert.ok(counts.runs > 500 && counts.held > 300, JSON.stringify(counts))
  })

  it('that was committed and is not what it should be is removed', async () => {
    const store = new ScriptedStore()
    store.next('commit', ({ work }) => {
      work()
      if (store.object) store.object.bytes = Buffer.from('cut')
    })
    await assert.rejects(pipeline(Readable.from([bytes]), writer(store, new UploadNotes())), { code: 'CORRUPT' })
    assert.equal(store.object, undefined)
  })
})
