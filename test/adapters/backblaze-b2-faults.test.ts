import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { openB2 } from '../../adapters/backblaze-b2.ts'
import type { Storage } from '../../adapters/storage.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { refusal } from '../fakes/b2-store.ts'
import { BYTES, caught, closed, openTestB2, PART_BYTES, SMALL, type TestB2, to, until } from '../support/b2.ts'
import type { FaultProxy } from '../support/fault-proxy.ts'

const EXPIRED = refusal(401, 'expired_auth_token', 'Authorization token has expired')
const BUSY = refusal(503, 'service_unavailable', 'c001_v0001001_t0001 is too busy', { 'retry-after': '0' })

describe('B2 when things go wrong', () => {
  let b2: TestB2
  let fake: FakeB2
  let proxy: FaultProxy
  let storage: Storage

  beforeEach(async () => {
    b2 = await openTestB2()
    ;({ fake, proxy, storage } = b2)
  })
  afterEach(() => b2.close())

  describe('tokens and upload URLs', () => {
    it('T15: the account token expires between two parts: it signs in again, once, and sends no part again', async () => {
      await b2.put('before', SMALL)
      const signIns = fake.count('b2_authorize_account')
      const stream = storage.createWriteStream('t15')
      stream.write(BYTES.subarray(0, PART_BYTES + 1))
      await until(() => fake.count('b2_upload_part') === 1)
      fake.expireTokens()
      stream.end(BYTES.subarray(PART_BYTES + 1))
      await closed(stream)
      await b2.assertHolds('t15', BYTES)
      assert.equal(fake.count('b2_authorize_account'), signIns + 1)
      assert.equal(fake.count('b2_upload_part'), 4)
    })

    it('T15: many calls that find the token expired sign in once', async () => {
      await b2.put('object', SMALL)
      fake.expireTokens()
      const before = fake.count('b2_authorize_account')
      await Promise.all(Array.from({ length: 10 }, () => storage.stat('object')))
      assert.equal(fake.count('b2_authorize_account'), before + 1)
    })

    it("T15: an upload URL's token expires in the middle of a part: one part is sent again", async () => {
      fake.refuse('b2_upload_part', EXPIRED, { afterBytes: PART_BYTES / 2 })
      await b2.put('t15', BYTES)
      await b2.assertHolds('t15', BYTES)
      assert.equal(fake.count('b2_upload_part', 200), 4)
      assert.equal(fake.count('b2_upload_part', 401), 1)
    })

    it('T15: upload URLs are revoked between parts, and between files', async () => {
      const stream = storage.createWriteStream('t15')
      stream.write(BYTES.subarray(0, PART_BYTES + 1))
      await until(() => fake.count('b2_upload_part') === 1)
      fake.expireUploadUrls()
      stream.end(BYTES.subarray(PART_BYTES + 1))
      await closed(stream)
      await b2.assertHolds('t15', BYTES)
      assert.equal(fake.count('b2_upload_part', 200), 4)
      assert.ok(fake.count('b2_upload_part', 401) <= 1)
      await b2.put('whole', SMALL)
      fake.expireUploadUrls()
      await b2.put('whole', BYTES.subarray(0, 6000))
      assert.equal(fake.count('b2_upload_file', 401), 1)
      await b2.assertHolds('whole', BYTES.subarray(0, 6000))
    })

    it('a page in place of an object, as of a proxy that asks for a sign-in, is asked again, and is no damage', async () => {
      const page = { kind: 'answer', status: 200, body: '<html>Please sign in</html>' } as const
      await b2.put('object', BYTES)
      proxy.inject(page, to('file/worlds'))
      assert.ok((await buffer(storage.createReadStream('object'))).equals(BYTES))
      proxy.inject(page, to('file/worlds'), 10)
      await assert.rejects(buffer(storage.createReadStream('object')), { code: 'UNAVAILABLE', operation: 'read' })
    })

    it('T15: an account token expires while an object is read, and while a listing goes on', async () => {
      const paged = await b2.open({ pageSize: 2 })
      for (const name of 'abcde') await b2.put(`page/${name}`, Buffer.from(name))
      const found: string[] = []
      for await (const object of paged.list('page/')) {
        found.push(object.key)
        fake.expireTokens()
      }
      assert.equal(found.length, 5)
      await b2.put('object', BYTES)
      proxy.inject({ kind: 'drop-reply', afterBytes: 100_000 }, to('file/worlds'))
      const reading = buffer(storage.createReadStream('object'))
      await until(() => proxy.seen.some((seen) => seen.fault === 'drop-reply'))
      fake.expireTokens()
      assert.ok((await reading).equals(BYTES))
    })

    it('an upload URL is not used after an error, nor by two requests at once', async () => {
      fake.refuse('b2_upload_part', BUSY, { times: 3 })
      await b2.put('busy', BYTES)
      await b2.assertHolds('busy', BYTES)
      // auth_token_limit is what the fake, as B2, says to two requests with one URL.
      assert.equal(fake.count('b2_upload_part', 400), 0)
      const urls = proxy.seen.filter(to('b2_upload_part')).map((seen) => [seen.url, seen.serverStatus] as const)
      const refused = urls.filter(([, status]) => status === 503).map(([url]) => url)
      assert.equal(new Set(refused).size, 3, 'a URL that had refused was used again')
    })
  })

  describe('requests whose answers are lost', () => {
    it('T10: the answer to the start of a large file is lost: no second file', async () => {
      proxy.inject({ kind: 'lose-reply' }, to('b2_start_large_file'))
      await b2.put('t10', BYTES)
      await b2.assertHolds('t10', BYTES)
      assert.equal(fake.count('b2_start_large_file'), 1)
    })

    it('T10: a start that is found only after the upload is cancelled then, and those of others are not', async () => {
      const { bucketId } = fake.store.buckets[0]!
      const other = fake.store.add({ bucketId, name: 't10', action: 'start' })
      proxy.inject({ kind: 'lose-reply' }, to('b2_start_large_file'))
      proxy.inject({ kind: 'answer', status: 500 }, to('b2_list_unfinished_large_files'))
      proxy.inject({ kind: 'answer', status: 200, body: '{"files":[],"nextFileId":null}' }, to('b2_list_unfinished'))
      await b2.put('t10', BYTES)
      assert.equal(fake.count('b2_start_large_file'), 2)
      assert.deepEqual(fake.unfinished, [other])
      fake.store.files.delete(other.fileId)
      await b2.assertHolds('t10', BYTES)
    })

    for (const [name, bytes, call] of [
      ['of parts', BYTES, 'b2_finish_large_file'],
      ['whole', SMALL, 'b2_upload_file'],
    ] as const) {
      it(`T10: the answer to the commit is lost (${name}): one version, made once`, async () => {
        proxy.inject({ kind: 'lose-reply' }, to(call))
        await b2.put('t10', bytes)
        await b2.assertHolds('t10', bytes)
        assert.equal(fake.count(call), 1)
      })

      it(`T10: every answer to the commit is lost (${name}): found to be done`, async () => {
        proxy.inject({ kind: 'lose-reply' }, to(call), 10)
        await b2.put('t10', bytes)
        await b2.assertHolds('t10', bytes)
      })

      it(`T31: an upload reported as good that is not there (${name})`, async () => {
        const reply = '{"fileId":"4_z","fileName":"t31","action":"upload","contentLength":1,"uploadTimestamp":1}'
        proxy.inject({ kind: 'answer', status: 200, body: reply }, to(call))
        await assert.rejects(b2.put('t31', bytes), { code: 'CORRUPT', operation: 'verify' })
        b2.assertNothing('t31')
      })

      it(`destroy while the answer to the commit is lost (${name}): the old object is there again`, async () => {
        await b2.put('old', Buffer.from('old'))
        proxy.inject({ kind: 'lose-reply' }, to(call))
        const arrived = proxy.arrival(to(call))
        const stream = storage.createWriteStream('old')
        stream.end(bytes)
        await arrived
        stream.destroy()
        await closed(stream).catch(() => {})
        await b2.assertHolds('old', Buffer.from('old'))
      })
    }

    for (const [what, contentLength, contentSha1] of [
      ['of other bytes', PART_BYTES, '0'.repeat(40)],
      ['of fewer bytes', PART_BYTES - 1, createHash('sha1').update(BYTES.subarray(0, PART_BYTES)).digest('hex')],
    ] as const) {
      it(`T31: a part that is reported as good, ${what}, is sent again`, async () => {
        const body = JSON.stringify({ partNumber: 1, contentLength, contentSha1 })
        proxy.inject({ kind: 'answer', status: 200, body }, (request) => {
          return to('b2_upload_part')(request) && request.headers['x-bz-part-number'] === '1'
        })
        await b2.put('t31', BYTES)
        await b2.assertHolds('t31', BYTES)
        // The first of them did not come to the store.
        assert.equal(fake.count('b2_upload_part'), 4)
        assert.equal(fake.count('b2_start_large_file'), 1)
      })
    }

    it('503 storms: parts, URLs, commits, listings', async () => {
      for (const name of [
        'b2_get_upload_part_url',
        'b2_upload_part',
        'b2_finish_large_file',
        'b2_list_file_versions',
      ]) {
        fake.refuse(name, BUSY, { times: 3 })
      }
      fake.refuse('b2_start_large_file', refusal(429, 'too_many_requests', '', { 'retry-after': '0' }), { times: 2 })
      await b2.put('storm', BYTES)
      await b2.assertHolds('storm', BYTES)
      fake.refuse('download', BUSY, { times: 3 })
      assert.ok((await storage.readRange('storm', 10, 20)).equals(BYTES.subarray(10, 30)))
    })
  })

  describe('large files that are gone', () => {
    it('T15: before any part was accepted the adapter begins a new one by itself, and tells the caller', async () => {
      const notices: string[] = []
      proxy.inject({ kind: 'answer', status: 503 }, to('b2_get_upload_part_url'))
      const arrived = proxy.arrival(to('b2_get_upload_part_url'))
      const stream = storage.createWriteStream('t15', { onNotice: (message) => notices.push(message) })
      stream.write(BYTES.subarray(0, PART_BYTES + 1))
      await arrived
      fake.cancelUnfinished()
      stream.end(BYTES.subarray(PART_BYTES + 1))
      await closed(stream)
      await b2.assertHolds('t15', BYTES)
      assert.equal(fake.count('b2_start_large_file'), 2)
      assert.deepEqual(notices, ['Backblaze B2 lost the unfinished large file of "t15"; another was begun.'])
    })

    it('T15: once parts are lost with it, the write fails at once and says so', async () => {
      const stream = storage.createWriteStream('t15')
      stream.write(BYTES.subarray(0, PART_BYTES + 1))
      await until(() => fake.count('b2_upload_part') === 1)
      fake.cancelUnfinished()
      stream.end(BYTES.subarray(PART_BYTES + 1))
      const error = await caught(closed(stream))
      assert.equal(error.code, 'UNAVAILABLE')
      assert.equal(error.retryable, false)
      assert.match(error.message, /lost its upload .* begin the upload anew/)
      b2.assertNothing('t15')
    })

    it('T15: it is lost before the commit', async () => {
      fake.refuse('b2_finish_large_file', refusal(503, 'service_unavailable', '', { 'retry-after': '0.3' }))
      const writing = caught(b2.put('t15', BYTES))
      await until(() => fake.count('b2_finish_large_file') === 1)
      fake.cancelUnfinished()
      assert.match((await writing).message, /lost its upload/)
      b2.assertNothing('t15')
    })
  })

  it('T9: abort in the middle of a part, and no upload is pending at close', async () => {
    proxy.inject({ kind: 'swallow' }, to('b2_upload_part'))
    const arrived = proxy.arrival(to('b2_upload_part'))
    const stream = storage.createWriteStream('t9')
    stream.write(BYTES)
    await arrived
    stream.destroy()
    await closed(stream).catch(() => {})
    b2.assertNothing('t9')
  })

  it('two accounts in one process do not mix, nor does a stranger that sets the package up in between', async () => {
    const other = await new FakeB2({ minPartBytes: PART_BYTES }).start()
    try {
      other.store.addBucket('worlds')
      const theirs = other.store.addKey()
      const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES }
      const { keyId, applicationKey } = theirs
      const second = await openB2({ keyId, applicationKey, bucket: 'worlds', endpoint: other.origin, ...sizes })
      b2.closeAtEnd(second)
      // @ts-expect-error: the package has no types.
      const { default: B2 } = await import('backblaze-b2')
      const axios = { baseURL: 'http://127.0.0.1:1', timeout: 1, headers: { 'X-Stranger': 'yes' } }
      new B2({ applicationKeyId: 'x', applicationKey: 'y', axios, retry: { retries: 9 } })
      await Promise.all(
        Array.from({ length: 6 }, async (_, index) => {
          await b2.put(`mine/${index}`, index % 2 ? BYTES : SMALL)
          await b2.put(`theirs/${index}`, index % 2 ? SMALL : BYTES, second)
        }),
      )
      const names = (one: FakeB2) => [...one.store.files.values()].map((file) => file.name.split('/')[0])
      assert.deepEqual(new Set(names(fake)), new Set(['mine']))
      assert.deepEqual(new Set(names(other)), new Set(['theirs']))
      await b2.assertHolds('mine/1', BYTES)
      assert.ok((await buffer(second.createReadStream('theirs/0'))).equals(BYTES))
      assert.equal(other.count('b2_authorize_account'), 1)
    } finally {
      await other.close()
    }
  })

  it('an answer without the list that was asked for is UNAVAILABLE', async () => {
    await b2.put('sense', SMALL)
    const calls: [string, () => Promise<unknown>][] = [
      ['b2_list_file_names', () => Array.fromAsync(storage.list(''))],
      ['b2_list_file_names', () => storage.stat('sense')],
      ['b2_list_file_versions', () => storage.delete('sense')],
      ['b2_list_unfinished_large_files', () => storage.purgeUnfinished!(1000)],
    ]
    for (const [route, call] of calls) {
      for (const body of ['{}', '{"files":null}', '{"files":{}}']) {
        const headers = { 'content-type': 'application/json' }
        proxy.inject({ kind: 'answer', status: 200, headers, body }, to(route))
        assert.equal((await caught(call())).code, 'UNAVAILABLE', `${route} ${body}`)
      }
    }
    await b2.assertHolds('sense', SMALL)
  })
})
