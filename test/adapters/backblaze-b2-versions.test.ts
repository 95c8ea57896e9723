import assert from 'node:assert/strict'
import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { Storage } from '../../adapters/storage.ts'
import type { FakeB2 } from '../fakes/b2.ts'
import { refusal } from '../fakes/b2-store.ts'
import { BYTES, caught, closed, openTestB2, SMALL, type TestB2, to, until } from '../support/b2.ts'
import type { FaultProxy } from '../support/fault-proxy.ts'
import { sample } from '../support/streams.ts'

describe('versions of an object in B2', () => {
  let b2: TestB2
  let fake: FakeB2
  let proxy: FaultProxy
  let storage: Storage

  beforeEach(async () => {
    b2 = await openTestB2()
    ;({ fake, proxy, storage } = b2)
  })
  afterEach(() => b2.close())

  it('a replacement leaves one version, whatever was there', async () => {
    const { bucketId } = fake.store.buckets[0]!
    for (let count = 0; count < 25; count++) fake.store.add({ bucketId, name: 'v', action: 'upload' })
    fake.store.add({ bucketId, name: 'v', action: 'hide' })
    fake.store.add({ bucketId, name: 'v2', action: 'upload' })
    await b2.put('v', BYTES)
    await b2.assertHolds('v', BYTES)
    assert.equal(fake.store.versions('v2').length, 1)
  })

  it('delete removes every version and hide marker, the one that is seen last', async () => {
    const { bucketId } = fake.store.buckets[0]!
    for (let count = 0; count < 25; count++) fake.store.add({ bucketId, name: 'v', action: 'upload' })
    await storage.stat('v')
    fake.refuse('b2_delete_file_version', refusal(403, 'access_denied'), { times: 1 })
    const { version } = await storage.stat('v')
    await assert.rejects(storage.delete('v'), { code: 'LOCKED' })
    assert.equal((await storage.stat('v')).version, version)
    // An older one that cannot go does not come to light.
    const all = fake.store.versions('v')
    const oldest = all[0]!.fileId === version ? all.at(-1) : all[0]
    oldest!.isLocked = true
    await assert.rejects(storage.delete('v'), { code: 'LOCKED' })
    assert.equal((await storage.stat('v')).version, version)
    oldest!.isLocked = false
    await storage.delete('v')
    b2.assertNothing('v')
  })

  it('T30: an object under lock cannot be deleted, and a replacement of it stands', async () => {
    await b2.put('locked', SMALL)
    fake.store.versions('locked')[0]!.isLocked = true
    const error = await caught(storage.delete('locked'))
    assert.equal(error.code, 'LOCKED')
    assert.match(error.message, /Object Lock/)
    await b2.put('locked', BYTES)
    assert.ok((await buffer(storage.createReadStream('locked'))).equals(BYTES))
    assert.equal(fake.store.versions('locked').length, 2)
  })

  it('a large file that was overtaken while it was uploaded is a conflict, and leaves nothing of itself', async () => {
    const stream = storage.createWriteStream('raced')
    stream.write(BYTES)
    await until(() => fake.unfinished.length === 1)
    await b2.put('raced', SMALL)
    stream.end()
    assert.equal((await caught(closed(stream))).code, 'CONFLICT')
    await b2.assertHolds('raced', SMALL)
  })

  it('T14: a read that is resumed after a replacement is a conflict', async () => {
    // More than a stream holds: until it is read on, it has begun and does not stall.
    await b2.put('t14', sample(1_000_000))
    proxy.inject({ kind: 'stall-reply', afterBytes: 800_000 }, to('file/worlds'))
    const stream = (await b2.open({ idleMs: 2_000 })).createReadStream('t14')
    await once(stream, 'readable')
    await b2.put('t14', SMALL)
    assert.equal((await caught(buffer(stream))).code, 'CONFLICT')
    const ranges = proxy.seen.filter((seen) => to('b2_download_file_by_id')(seen))
    assert.ok(ranges.length > 0, 'it was not resumed by id')
  })

  it('a version of another object, and one that is none, are conflicts', async () => {
    await b2.put('one', SMALL)
    await b2.put('two', SMALL)
    const { version } = await storage.stat('two')
    await assert.rejects(storage.readRange('one', 0, 5, { version: version! }), { code: 'CONFLICT' })
    await assert.rejects(storage.readRange('one', 0, 5, { version: 'nonsense & more' }), { code: 'CONFLICT' })
  })

  it('purgeUnfinished cancels what is old enough, under the prefix, page by page', async () => {
    const paged = await b2.open({ pageSize: 2 })
    const { bucketId } = fake.store.buckets[0]!
    for (const name of ['old/1', 'old/2', 'old/3', 'old/3', 'other/1']) {
      fake.store.add({ bucketId, name, action: 'start' })
    }
    assert.equal(await paged.purgeUnfinished?.(3_600_000), 0)
    for (const none of [undefined, Number.NaN, null, '3600000']) {
      await assert.rejects(paged.purgeUnfinished!(none as never), { code: 'INVALID' })
    }
    assert.equal(await paged.purgeUnfinished?.(-60_000, { prefix: 'old/' }), 4)
    assert.deepEqual(
      fake.unfinished.map((file) => file.name),
      ['other/1'],
    )
    assert.equal(await paged.purgeUnfinished?.(-60_000), 1)
  })

  it('an upload is as old as the clock of B2 says, however far ahead ours is', async (t) => {
    const { bucketId } = fake.store.buckets[0]!
    fake.store.add({ bucketId, name: 'begun/now', action: 'start' })
    const ahead = Date.now() + 8 * 86_400_000
    t.mock.method(Date, 'now', () => ahead)
    assert.equal(await storage.purgeUnfinished?.(7 * 86_400_000), 0)
    t.mock.restoreAll()
    assert.deepEqual(
      fake.unfinished.map((file) => file.name),
      ['begun/now'],
    )
  })
})
