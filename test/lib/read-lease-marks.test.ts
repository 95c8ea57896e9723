import assert from 'node:assert/strict'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { MARK_TTL_MS } from '../../lib/marks.ts'
import { holdReadLease, markRemoval } from '../../lib/read-lease.ts'
import { keysIn, snapshotAt, withOlder } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'
import { feed } from '../support/streams.ts'

const server = 'survival'
const idAt = (at: number) => snapshotAt(Date.UTC(2025, 10, 24) + at * 1000).id
const asSnapshot = (id: string) => ({ ...snapshotAt(0, { id }), kind: 'tar', encrypted: true, storedBytes: 1 }) as const

const failing = (code: 'UNAVAILABLE' | 'ACCESS_DENIED', key: string) =>
  new StorageError('It fails.', { code, adapter: 'memory', operation: 'any', key })

/** Reads a snapshot's lease, gives it back, and says what was noticed. */
async function tryToRead(storage: Storage, id: string, signal?: AbortSignal): Promise<string[]> {
  const notices: string[] = []
  const release = await holdReadLease(storage, asSnapshot(id), { onNotice: (notice) => notices.push(notice), signal })
  await release()
  return notices
}

test('T21: each of hundreds that a prune removes is refused to who wants to read it, and leaves no mark of the reader', async () => {
  const storage = await openMemory()
  const ids = Array.from({ length: 300 }, (_, at) => idAt(at))
  const marks = await markRemoval(storage, server, ids)
  for (const id of [ids[0], ids[150], ids[299]]) {
    await assert.rejects(tryToRead(storage, id as string), { code: 'IN_USE' })
  }
  assert.deepEqual(await tryToRead(storage, idAt(300)), [])
  assert.deepEqual(await keysIn(storage), [marks[0]!.key])
  await marks[0]!.release()
})

test('a prune that died while it removed keeps nobody from reading what it has left', async () => {
  const storage = await openMemory()
  const key = `${server}/.lease/prune-0123456789ab`
  await pipeline(feed(Buffer.from(JSON.stringify({ removes: [idAt(1)] }))), storage.createWriteStream(key))
  await assert.rejects(tryToRead(storage, idAt(1)), { code: 'IN_USE' })
  const later = withOlder(storage, (one) => (one === key ? MARK_TTL_MS : 0))
  assert.deepEqual(await tryToRead(later, idAt(1)), [])
})

test('where it cannot be found out whether a prune removes a snapshot, it is not read', async () => {
  const storage = await openMemory()
  const [mark] = await markRemoval(storage, server, [idAt(1)])
  const blind = (code: 'UNAVAILABLE' | 'ACCESS_DENIED') =>
    overriding(storage, {
      createReadStream(key, options) {
        if (key === mark!.key) throw failing(code, key)
        return storage.createReadStream(key, options)
      },
    })
  await assert.rejects(tryToRead(blind('UNAVAILABLE'), idAt(1)), { code: 'UNAVAILABLE' })
  // Another account's, which may never be read: nothing could be then.
  assert.match((await tryToRead(blind('ACCESS_DENIED'), idAt(1))).join(), /may not read what it removes/)
  assert.deepEqual(await keysIn(storage), [mark!.key])
  await mark!.release()
})

test('an abort while the mark of a reader is written is an abort, and no store that cannot be written', async () => {
  const storage = await openMemory()
  await assert.rejects(tryToRead(storage, idAt(1), AbortSignal.abort()), { name: 'AbortError' })
  assert.deepEqual(await keysIn(storage), [])
})

test('a prune that cannot write all of its marks leaves none', async () => {
  const storage = await openMemory()
  let written = 0
  const full = overriding(storage, {
    createWriteStream(key, options) {
      written += 1
      if (written > 1) throw failing('UNAVAILABLE', key)
      return storage.createWriteStream(key, options)
    },
  })
  const ids = Array.from({ length: 1001 }, (_, at) => idAt(at))
  await assert.rejects(markRemoval(full, server, ids), { code: 'UNAVAILABLE' })
  assert.equal(written, 2)
  assert.deepEqual(await keysIn(storage), [])
})
