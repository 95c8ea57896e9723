import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { it } from 'node:test'
import { type FoundObject, type MultipartOptions, MultipartWritable } from '../../adapters/multipart.ts'
import { UploadNotes } from '../contract/taking-up.ts'
import { failure, fakeClock, ScriptedStore, untilAborted } from '../support/scripted-store.ts'

const PART = 10
const bytes = Buffer.from(Array.from({ length: 45 }, (_, at) => at))

function writer(store: ScriptedStore, options: Partial<MultipartOptions> = {}) {
  const names = { adapter: 'scripted', key: 'a/key' }
  return new MultipartWritable(store, { ...names, partBytes: PART, clock: fakeClock(), ...options })
}

async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve))
}

it('the receipts of parts are committed in the order of the parts, in whichever order they were acknowledged', async () => {
  const committed: string[][] = []
  class Watched extends ScriptedStore {
    override commit(...[upload, receipts, request]: Parameters<ScriptedStore['commit']>) {
      committed.push([...receipts])
      return super.commit(upload, receipts, request)
    }
  }
  const store = new Watched()
  const late = Promise.withResolvers<void>()
  const third = ({ work }: { work: () => void }) => {
    work()
    late.resolve()
  }
  store.next('putPart', ({ work }) => late.promise.then(work), 1)
  store.next('putPart', third, 3)
  await pipeline(Readable.from([bytes]), writer(store))
  assert.deepEqual(
    committed[0]?.map((receipt) => Number.parseInt(receipt, 10)),
    [1, 2, 3, 4, 5],
  )
})

for (const size of [PART, bytes.length]) {
  it(`an object of ${size} bytes that the store's own sum calls damaged is an error, and is removed`, async () => {
    class Damaging extends ScriptedStore {
      override async find(...args: Parameters<ScriptedStore['find']>): Promise<FoundObject | undefined> {
        const found = await super.find(...args)
        return found && { ...found, damage: 'has another sum' }
      }
    }
    const store = new Damaging()
    await assert.rejects(pipeline(Readable.from([bytes.subarray(0, size)]), writer(store)), {
      code: 'CORRUPT',
      message: /has another sum/,
    })
    assert.equal(store.object, undefined)
  })
}

it('what a commit that was cut off makes while its upload is cancelled is removed', async () => {
  const store = new ScriptedStore()
  store.next('commit', untilAborted)
  // The store had the commit all the same, and comes to its end just now.
  store.next('abort', ({ work }) => {
    work()
    store.object = { bytes, owner: 'us' }
  })
  const stream = writer(store, { settleMs: 1 })
  stream.on('error', () => {}).end(bytes)
  while (store.count('commit') === 0) await turns(1)
  stream.destroy()
  await once(stream, 'close')
  assert.equal(store.count('abort'), 1)
  assert.equal(store.object, undefined)
})

it('with a journal, an upload that was begun without an answer is cleared up after', async () => {
  let cleared = 0
  const store = Object.assign(new ScriptedStore(), {
    clear: async () => {
      cleared += 1
    },
  })
  store.next('begin', () => {
    throw failure('UNAVAILABLE', 'begin', false)
  })
  const failed = pipeline(Readable.from([bytes]), writer(store, { journal: new UploadNotes() }))
  await assert.rejects(failed, { code: 'UNAVAILABLE' })
  assert.equal(cleared, 1)
})

it('with a journal that does not take the name of the upload, the upload is cancelled', async () => {
  const store = new ScriptedStore()
  const journal = new UploadNotes()
  journal.refusal = new Error('the disk is full')
  await assert.rejects(pipeline(Readable.from([bytes]), writer(store, { journal })), /the disk is full/)
  assert.equal(store.count('begin'), 1)
  assert.equal(store.count('putPart'), 0)
  assert.equal(store.uploads.size, 0)
})

it('with a journal, a small object too is sent only when the journal is ready', async () => {
  const store = new ScriptedStore()
  const journal = new UploadNotes()
  const gate = Promise.withResolvers<void>()
  journal.gate = gate.promise
  const stream = writer(store, { journal })
  stream.end(bytes.subarray(0, PART))
  await turns()
  assert.ok(journal.calls.includes('ready'))
  assert.equal(store.count('putWhole'), 0)
  gate.resolve()
  await once(stream, 'finish')
  assert.equal(store.count('putWhole'), 1)
})
