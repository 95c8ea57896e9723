import assert from 'node:assert/strict'
import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { Storage } from '../../adapters/storage.ts'
import { KiB, MiB, openTestDrive, putInto, type TestDrive } from '../support/drive.ts'
import type { SeenRequest } from '../support/fault-proxy.ts'

const KEY = 'survival/world.mlr'
const OLD = Buffer.from('the old object')
const BYTES = Buffer.alloc(3 * MiB, 'some bytes that repeat. ')

type Asked = Pick<SeenRequest, 'method' | 'url'>
const isMedia = ({ url }: Asked) => url.includes('alt=media')
const isDelete = ({ method }: Asked) => method === 'DELETE'
const read = (storage: Storage, key: string) => buffer(storage.createReadStream(key))

describe('Google Drive: reads', () => {
  let drive: TestDrive

  beforeEach(async () => {
    drive = await openTestDrive()
    await drive.put(KEY, BYTES)
  })
  afterEach(() => drive.close())

  it('T13: an answer that drops, stalls or ends early is gone on with from where it broke', async () => {
    const store = await drive.another({ idleMs: 300 })
    for (const kind of ['drop-reply', 'reset-reply', 'stall-reply', 'shorten-reply'] as const) {
      drive.proxy.inject({ kind, afterBytes: 300 * KiB }, isMedia)
      drive.proxy.inject({ kind, afterBytes: 1 }, isMedia)
      assert.ok((await read(store, KEY)).equals(BYTES), kind)
    }
    const ranges = drive.proxy.seen.filter(isMedia).map(({ headers }) => headers.range)
    assert.ok(ranges.some((range) => /^bytes=[1-9]\d*-3145727$/.test(String(range))))
  })

  it('T14: a file that is replaced in the middle of a read is an error, not two halves', async () => {
    drive.proxy.inject({ kind: 'stall-reply', afterBytes: MiB }, isMedia)
    // Until it is read on, it has begun and does not stall.
    const stream = drive.storage.createReadStream(KEY)
    await once(stream, 'readable')
    await putInto(await drive.another(), KEY, Buffer.alloc(BYTES.length, 1))
    await assert.rejects(buffer(stream), { code: 'CONFLICT' })
  })

  it('T14: a file that somebody gives another content in place, between two ranges and in the middle of one', async () => {
    const { version } = await drive.storage.stat(KEY)
    const [file] = drive.fake.named('world.mlr')
    drive.proxy.inject({ kind: 'drop-reply', afterBytes: MiB }, isMedia)
    const stream = drive.storage.createReadStream(KEY)
    stream.once('readable', () => drive.fake.changeInPlace(file!.id, Buffer.alloc(BYTES.length, 1)))
    await assert.rejects(buffer(stream), { code: 'CONFLICT' })
    await assert.rejects(drive.storage.readRange(KEY, 0, 10, { version: version! }), { code: 'CONFLICT' })
    assert.deepEqual(await drive.storage.readRange(KEY, 0, 10), Buffer.alloc(10, 1))
  })

  it('T14: content that changes just as the read is opened is never passed off as the old one', async () => {
    const [file] = drive.fake.named('world.mlr')
    const before = file!.headRevisionId
    drive.proxy.arrival((asked) => {
      const isFirst = isMedia(asked) && file!.headRevisionId === before
      if (isFirst) drive.fake.changeInPlace(file!.id, Buffer.alloc(BYTES.length, 1))
      return isFirst
    })
    const bytes = await read(drive.storage, KEY)
    assert.notEqual(drive.fake.state.files.get(file!.id)?.headRevisionId, before)
    assert.ok(bytes.every((byte) => byte === 1))
  })

  it('T14: content that changes behind the answer is not joined to it', async () => {
    const [file] = drive.fake.named('world.mlr')
    const before = file!.headRevisionId
    const isAsked = ({ method, url }: Asked) =>
      method === 'GET' && url.includes(`/${file!.id}?`) && !isMedia({ method, url })
    drive.proxy.inject({ kind: 'drop-reply', afterBytes: MiB }, isMedia)
    drive.proxy.arrival((asked) => {
      if (isAsked(asked) && file!.headRevisionId === before) {
        drive.fake.changeInPlace(file!.id, Buffer.alloc(BYTES.length, 1))
      }
      return false
    })
    const bytes = await read(drive.storage, KEY)
    assert.notEqual(file!.headRevisionId, before)
    assert.ok(bytes.every((byte) => byte === 1))
  })

  it('the version pins a read to its file, whatever its name stands for now', async () => {
    const { version } = await drive.storage.stat(KEY)
    await drive.put('survival/other', OLD)
    await assert.rejects(drive.storage.readRange('survival/other', 0, 5, { version: version! }), { code: 'CONFLICT' })
    await assert.rejects(drive.storage.readRange('survival/none', 0, 5, { version: version! }), { code: 'NOT_FOUND' })
    await assert.rejects(drive.storage.readRange(KEY, 0, 5, { version: 'no version of ours' }), { code: 'CONFLICT' })
  })

  it('a file that Google takes for malware is read all the same', async () => {
    drive.fake.named('world.mlr')[0]!.abusive = true
    assert.ok((await read(drive.storage, KEY)).equals(BYTES))
  })

  it('a file that was read too often for a day is QUOTA, and no matter of rights', async () => {
    const message = 'The download quota for this file has been exceeded.'
    drive.fake.refuse({
      match: ({ query }) => query.get('alt') === 'media',
      status: 403,
      reason: 'downloadQuotaExceeded',
      message,
    })
    await assert.rejects(read(drive.storage, KEY), {
      code: 'QUOTA',
      retryable: false,
      message: /read too often; go on in 24 hours/,
    })
  })

  it('a delete whose answer is lost is done once more, and is success', async () => {
    drive.proxy.inject({ kind: 'lose-reply' }, isDelete)
    await drive.storage.delete(KEY)
    await drive.assertNothing(KEY)
  })
})
