import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { type B2Config, openB2 } from '../../adapters/backblaze-b2.ts'
import type { StorageError } from '../../adapters/errors.ts'
import type { ProbeReport, Storage } from '../../adapters/storage.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { ALL_CAPABILITIES, type FakeKey, refusal } from '../fakes/b2-store.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'
import { sample } from '../support/streams.ts'

const PART_BYTES = 100_000
const BYTES = sample(3 * PART_BYTES + 1234, 3)
const SMALL = BYTES.subarray(0, 5000)
const QUICK = { attempts: 4, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
const EXPIRED = refusal(401, 'expired_auth_token', 'Authorization token has expired')
const BUSY = refusal(503, 'service_unavailable', 'c001_v0001001_t0001 is too busy', { 'retry-after': '0' })

type Seen = { url: string }
const to = (name: string) => (seen: Seen) => seen.url.includes(`/${name}`)

describe('B2 when things go wrong', () => {
  let fake: FakeB2
  let key: FakeKey
  let proxy: FaultProxy
  let storage: Storage
  let opened: Storage[]

  beforeEach(async () => {
    fake = await new FakeB2({ minPartBytes: PART_BYTES }).start()
    fake.store.addBucket('worlds')
    key = fake.store.addKey()
    proxy = await openFaultProxy(fake.origin)
    opened = []
    storage = await open()
  })
  afterEach(async () => {
    for (const one of opened) await one.close()
    await proxy.close()
    await fake.close()
  })

  async function open(more: Partial<B2Config> = {}): Promise<Storage> {
    const { keyId, applicationKey } = key
    const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES }
    const own = { keyId, applicationKey, bucket: 'worlds', endpoint: proxy.endpoint, ...sizes }
    const one = await openB2({ ...own, callRetry: QUICK, partRetry: QUICK, ...more })
    opened.push(one)
    return one
  }

  async function put(name: string, bytes: Buffer, into = storage): Promise<void> {
    const stream = into.createWriteStream(name)
    const close = new Promise((resolve) => stream.once('close', resolve))
    try {
      await pipeline(Readable.from([bytes]), stream)
    } finally {
      await close
    }
  }

  async function assertHolds(name: string, bytes: Buffer): Promise<void> {
    assert.ok((await buffer(storage.createReadStream(name))).equals(bytes))
    assert.deepEqual(fake.unfinished, [])
    assert.equal(fake.store.versions(name).length, 1, 'more than one version is left')
  }

  function assertNothing(name: string): void {
    assert.deepEqual(fake.store.versions(name), [])
    assert.deepEqual(fake.unfinished, [])
  }

  const caught = (work: Promise<unknown>): Promise<StorageError> =>
    work.then(
      () => assert.fail('it was not refused'),
      (error) => error,
    )

  describe('tokens and upload URLs', () => {
    it('T15: the account token expires between two parts: it signs in again, once, and sends no part again', async () => {
      await put('before', SMALL)
      const signIns = fake.count('b2_authorize_account')
      const stream = storage.createWriteStream('t15')
      stream.write(BYTES.subarray(0, PART_BYTES + 1))
      await until(() => fake.count('b2_upload_part') === 1)
      fake.expireTokens()
      stream.end(BYTES.subarray(PART_BYTES + 1))
      await closed(stream)
      await assertHolds('t15', BYTES)
      assert.equal(fake.count('b2_authorize_account'), signIns + 1)
      assert.equal(fake.count('b2_upload_part'), 4)
    })

    it('T15: many calls that find the token expired sign in once', async () => {
      await put('object', SMALL)
      fake.expireTokens()
      const before = fake.count('b2_authorize_account')
      await Promise.all(Array.from({ length: 10 }, () => storage.stat('object')))
      assert.equal(fake.count('b2_authorize_account'), before + 1)
    })

    it("T15: an upload URL's token expires in the middle of a part: one part is sent again", async () => {
      fake.refuse('b2_upload_part', EXPIRED, { afterBytes: PART_BYTES / 2 })
      await put('t15', BYTES)
      await assertHolds('t15', BYTES)
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
      await assertHolds('t15', BYTES)
      assert.equal(fake.count('b2_upload_part', 200), 4)
      assert.ok(fake.count('b2_upload_part', 401) <= 1)
      await put('whole', SMALL)
      fake.expireUploadUrls()
      await put('whole', BYTES.subarray(0, 6000))
      assert.equal(fake.count('b2_upload_file', 401), 1)
      await assertHolds('whole', BYTES.subarray(0, 6000))
    })

    it('T15: an account token expires while an object is read, and while a listing goes on', async () => {
      const paged = await open({ pageSize: 2 })
      for (const name of 'abcde') await put(`page/${name}`, Buffer.from(name))
      const found: string[] = []
      for await (const object of paged.list('page/')) {
        found.push(object.key)
        fake.expireTokens()
      }
      assert.equal(found.length, 5)
      await put('object', BYTES)
      proxy.inject({ kind: 'drop-reply', afterBytes: 100_000 }, to('file/worlds'))
      const reading = buffer(storage.createReadStream('object'))
      await until(() => proxy.seen.some((seen) => seen.fault === 'drop-reply'))
      fake.expireTokens()
      assert.ok((await reading).equals(BYTES))
    })

    it('an upload URL is not used after an error, nor by two requests at once', async () => {
      fake.refuse('b2_upload_part', BUSY, { times: 3 })
      await put('busy', BYTES)
      await assertHolds('busy', BYTES)
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
      await put('t10', BYTES)
      await assertHolds('t10', BYTES)
      assert.equal(fake.count('b2_start_large_file'), 1)
    })

    it('T10: a start that is found only after the upload is cancelled then, and those of others are not', async () => {
      const { bucketId } = fake.store.buckets[0]!
      const other = fake.store.add({ bucketId, name: 't10', action: 'start' })
      proxy.inject({ kind: 'lose-reply' }, to('b2_start_large_file'))
      proxy.inject({ kind: 'answer', status: 500 }, to('b2_list_unfinished_large_files'))
      proxy.inject({ kind: 'answer', status: 200, body: '{"files":[],"nextFileId":null}' }, to('b2_list_unfinished'))
      await put('t10', BYTES)
      assert.equal(fake.count('b2_start_large_file'), 2)
      assert.deepEqual(fake.unfinished, [other])
      fake.store.files.delete(other.fileId)
      await assertHolds('t10', BYTES)
    })

    for (const [name, bytes, call] of [
      ['of parts', BYTES, 'b2_finish_large_file'],
      ['whole', SMALL, 'b2_upload_file'],
    ] as const) {
      it(`T10: the answer to the commit is lost (${name}): one version, made once`, async () => {
        proxy.inject({ kind: 'lose-reply' }, to(call))
        await put('t10', bytes)
        await assertHolds('t10', bytes)
        assert.equal(fake.count(call), 1)
      })

      it(`T10: every answer to the commit is lost (${name}): found to be done`, async () => {
        proxy.inject({ kind: 'lose-reply' }, to(call), 10)
        await put('t10', bytes)
        await assertHolds('t10', bytes)
      })

      it(`T31: an upload reported as good that is not there (${name})`, async () => {
        const reply = '{"fileId":"4_z","fileName":"t31","action":"upload","contentLength":1,"uploadTimestamp":1}'
        proxy.inject({ kind: 'answer', status: 200, body: reply }, to(call))
        await assert.rejects(put('t31', bytes), { code: 'CORRUPT', operation: 'verify' })
        assertNothing('t31')
      })

      it(`destroy while the answer to the commit is lost (${name}): the old object is there again`, async () => {
        await put('old', Buffer.from('old'))
        proxy.inject({ kind: 'lose-reply' }, to(call))
        const arrived = proxy.arrival(to(call))
        const stream = storage.createWriteStream('old')
        stream.end(bytes)
        await arrived
        stream.destroy()
        await closed(stream).catch(() => {})
        await assertHolds('old', Buffer.from('old'))
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
      await put('storm', BYTES)
      await assertHolds('storm', BYTES)
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
      await assertHolds('t15', BYTES)
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
      assertNothing('t15')
    })

    it('T15: it is lost before the commit', async () => {
      fake.refuse('b2_finish_large_file', refusal(503, 'service_unavailable', '', { 'retry-after': '0.3' }))
      const writing = caught(put('t15', BYTES))
      await until(() => fake.count('b2_finish_large_file') === 1)
      fake.cancelUnfinished()
      assert.match((await writing).message, /lost its upload/)
      assertNothing('t15')
    })
  })

  describe('versions', () => {
    it('a replacement leaves one version, whatever was there', async () => {
      const { bucketId } = fake.store.buckets[0]!
      for (let count = 0; count < 25; count++) fake.store.add({ bucketId, name: 'v', action: 'upload' })
      fake.store.add({ bucketId, name: 'v', action: 'hide' })
      fake.store.add({ bucketId, name: 'v2', action: 'upload' })
      await put('v', BYTES)
      await assertHolds('v', BYTES)
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
      await storage.delete('v')
      assertNothing('v')
    })

    it('T30: an object under lock cannot be deleted, and a replacement of it stands', async () => {
      await put('locked', SMALL)
      fake.store.versions('locked')[0]!.isLocked = true
      const error = await caught(storage.delete('locked'))
      assert.equal(error.code, 'LOCKED')
      assert.match(error.message, /Object Lock/)
      await put('locked', BYTES)
      assert.ok((await buffer(storage.createReadStream('locked'))).equals(BYTES))
      assert.equal(fake.store.versions('locked').length, 2)
    })

    it('a large file that was overtaken while it was uploaded is a conflict, and leaves nothing of itself', async () => {
      const stream = storage.createWriteStream('raced')
      stream.write(BYTES)
      await until(() => fake.unfinished.length === 1)
      await put('raced', SMALL)
      stream.end()
      assert.equal((await caught(closed(stream))).code, 'CONFLICT')
      await assertHolds('raced', SMALL)
    })

    it('T14: a read that is resumed after a replacement is a conflict', async () => {
      await put('t14', BYTES)
      proxy.inject({ kind: 'stall-reply', afterBytes: 100_000 }, to('file/worlds'))
      const arrived = proxy.arrival(to('file/worlds'))
      const patient = await open({ idleMs: 1_000 })
      const reading = caught(buffer(patient.createReadStream('t14')))
      await arrived
      await put('t14', SMALL)
      assert.equal((await reading).code, 'CONFLICT')
      const ranges = proxy.seen.filter((seen) => to('b2_download_file_by_id')(seen))
      assert.ok(ranges.length > 0, 'it was not resumed by id')
    })

    it('a version of another object, and one that is none, are conflicts', async () => {
      await put('one', SMALL)
      await put('two', SMALL)
      const { version } = await storage.stat('two')
      await assert.rejects(storage.readRange('one', 0, 5, { version: version! }), { code: 'CONFLICT' })
      await assert.rejects(storage.readRange('one', 0, 5, { version: 'nonsense & more' }), { code: 'CONFLICT' })
    })

    it('purgeUnfinished cancels what is old enough, under the prefix, page by page', async () => {
      const paged = await open({ pageSize: 2 })
      const { bucketId } = fake.store.buckets[0]!
      for (const name of ['old/1', 'old/2', 'old/3', 'old/3', 'other/1']) {
        fake.store.add({ bucketId, name, action: 'start' })
      }
      assert.equal(await paged.purgeUnfinished?.(3_600_000), 0)
      assert.equal(await paged.purgeUnfinished?.(-60_000, { prefix: 'old/' }), 4)
      assert.deepEqual(
        fake.unfinished.map((file) => file.name),
        ['other/1'],
      )
      assert.equal(await paged.purgeUnfinished?.(-60_000), 1)
    })
  })

  describe('what a server owner is told', () => {
    const failed = (report: ProbeReport) =>
      report.steps.filter((step) => !step.ok).map(({ step, error }) => [step, error as StorageError] as const)

    it('T29: probe names the capability that is missing', async () => {
      await put('something', SMALL)
      for (const [capability, steps] of [
        ['listFiles', ['list', 'write', 'delete']],
        ['writeFiles', ['write']],
        ['readFiles', ['read', 'range']],
        ['deleteFiles', ['delete']],
        ['listBuckets', ['sign-in']],
      ] as const) {
        key = fake.store.addKey({ capabilities: ALL_CAPABILITIES.filter((one) => one !== capability) })
        const bad = failed(await (await open()).probe())
        for (const step of steps) {
          const [, error] = bad.find(([name]) => name === step) ?? []
          assert.equal(error?.code, 'ACCESS_DENIED', `${step} without ${capability}`)
          assert.match(error.message, new RegExp(`lacks the capability ${capability}`))
        }
      }
      assert.deepEqual(fake.unfinished, [])
    })

    it('T29: probe names a key that was deleted, is wrong, or is restricted to something else', async () => {
      const { bucketId } = fake.store.buckets[0]!
      const other = fake.store.addBucket('others')
      const deleted = fake.store.addBucket('deleted')
      fake.store.buckets.pop()
      const cases: [() => FakeKey, Partial<B2Config>, RegExp][] = [
        [() => fake.store.addKey({ bucketIds: [other.bucketId] }), {}, /restricted to the bucket "others"/],
        [() => fake.store.addKey({ bucketIds: [deleted.bucketId] }), {}, /restricted to a bucket that was deleted/],
        [() => fake.store.addKey({ namePrefix: 'servers/' }), {}, /names that begin with "servers\/", and no prefix/],
        [
          () => fake.store.addKey({ bucketIds: [bucketId], namePrefix: 'servers/' }),
          { prefix: 'backups' },
          /begin with "servers\/", and the prefix here is "backups\/"; set a prefix that begins so/,
        ],
        [() => fake.store.addKey({ bucketIds: [bucketId, other.bucketId] }), {}, /key for several chosen buckets/],
        [
          () => fake.store.addKey(),
          { applicationKey: 'wrong' },
          /the application key is wrong, or the key was deleted/,
        ],
        [() => fake.store.addKey(), { bucket: 'no-such-bucket' }, /has no bucket "no-such-bucket"/],
      ]
      for (const [makeKey, more, message] of cases) {
        key = makeKey()
        const one = await open(more)
        const before = fake.count('b2_authorize_account')
        const [[step, error] = [], ...rest] = failed(await one.probe())
        assert.equal(step, 'sign-in')
        assert.match(String(error?.message), message)
        assert.deepEqual(rest, [])
        assert.equal(fake.count('b2_authorize_account'), before + 1, 'a refused sign-in was tried again')
      }
    })

    it('T29: probe signs in anew, so a key that was deleted meanwhile shows', async () => {
      assert.equal((await storage.probe()).ok, true)
      fake.revokeKey(key.keyId)
      const [[step, error] = []] = failed(await storage.probe())
      assert.equal(step, 'sign-in')
      assert.match(String(error?.message), /the key was deleted/)
      await assert.rejects(storage.stat('x'), { code: 'ACCESS_DENIED', message: /the key was deleted/ })
    })

    it('a key that is restricted to a bucket and a prefix is enough', async () => {
      const { bucketId } = fake.store.buckets[0]!
      const capabilities = ['listFiles', 'readFiles', 'writeFiles', 'deleteFiles']
      key = fake.store.addKey({ bucketIds: [bucketId], namePrefix: 'servers/a', capabilities })
      const one = await open({ prefix: 'servers/a1' })
      assert.deepEqual(failed(await one.probe()), [])
      await put('big', BYTES, one)
      await put('big', SMALL, one)
      assert.ok((await one.readRange('big', 0, 5000)).equals(SMALL))
      await one.delete('big')
      assert.equal(await one.purgeUnfinished?.(0), 0)
      assert.equal(fake.count('b2_list_buckets'), 0)
    })

    it('a key that may not delete replaces, and leaves the old version', async () => {
      key = fake.store.addKey({ capabilities: ['listBuckets', 'listFiles', 'readFiles', 'writeFiles'] })
      const one = await open()
      await put('kept', BYTES, one)
      await put('kept', SMALL, one)
      assert.ok((await buffer(one.createReadStream('kept'))).equals(SMALL))
      assert.equal(fake.store.versions('kept').length, 2)
      await assert.rejects(one.delete('kept'), { code: 'ACCESS_DENIED', message: /capability deleteFiles/ })
      await assert.rejects(one.delete('absent'), { code: 'ACCESS_DENIED', message: /capability deleteFiles/ })
    })

    it('T16: caps are told apart, are not retried, and leave nothing', async () => {
      for (const [call, code, message] of [
        ['b2_upload_file', 'storage_cap_exceeded', /the storage cap of the account is reached; raise it/],
        ['b2_list_file_versions', 'transaction_cap_exceeded', /daily cap on transactions.*reset at 00:00 GMT/],
        ['download', 'download_cap_exceeded', /daily cap on downloads.*reset at 00:00 GMT/],
      ] as const) {
        const before = fake.count(call)
        fake.refuse(call, refusal(403, code))
        const work = call === 'download' ? storage.readRange('x', 0, 1) : put('capped', SMALL)
        const error = await caught(work)
        assert.equal(error.code, 'QUOTA')
        assert.equal(error.retryable, false)
        assert.match(error.message, message)
        if (call !== 'b2_list_file_versions') assert.equal(fake.count(call), before + 1)
        assertNothing('capped')
      }
      fake.refuse('b2_upload_file', refusal(403, 'storage_cap_exceeded'))
      const [[step, error] = []] = failed(await storage.probe())
      assert.equal(step, 'write')
      assert.match(String(error?.message), /the storage cap of the account is reached/)
    })

    it('T9: abort in the middle of a part, and no upload is pending at close', async () => {
      proxy.inject({ kind: 'swallow' }, to('b2_upload_part'))
      const arrived = proxy.arrival(to('b2_upload_part'))
      const stream = storage.createWriteStream('t9')
      stream.write(BYTES)
      await arrived
      stream.destroy()
      await closed(stream).catch(() => {})
      assertNothing('t9')
    })

    it('bad settings are INVALID, and a backslash in a key', async () => {
      for (const more of [
        { keyId: '' },
        { applicationKey: 'with\nline' },
        { keyId: 'a:b' },
        { bucket: '' },
        { endpoint: 'ftp://x' },
        { endpoint: 'https://user:secret@x' },
        { prefix: 'a//b' },
      ]) {
        const error = await caught(open(more))
        assert.equal(error.code, 'INVALID', JSON.stringify(more))
        assert.doesNotMatch(error.message, /secret|with\nline/)
      }
      assert.throws(() => storage.createWriteStream('a\\b'), { code: 'INVALID', message: /backslash/ })
      await new Promise((resolve) => setTimeout(resolve, 30))
      assert.deepEqual(proxy.seen, [], 'a request was made')
    })

    it('no secret is in an error, its cause, the location or the events', async () => {
      await put('object', SMALL)
      const texts = [storage.location]
      const note = (error: Error) => texts.push(tell(error))
      fake.refuse('b2_upload_file', refusal(503, 'service_unavailable'), { times: 99 })
      note(await caught(put('x', SMALL)))
      fake.refuseNothing()
      proxy.inject({ kind: 'drop-request', afterBytes: 10 }, to('b2_upload_part'), 99)
      note(await caught(put('x', BYTES)))
      proxy.inject({ kind: 'drop-reply', afterBytes: 0 }, to('b2_list_file_names'), 4)
      note(await caught(storage.stat('object')))
      for (const token of ['', 'expired_auth_token', 'bad_auth_token', 'auth_token_limit']) {
        // What B2 says of `auth_token_limit` repeats the token, and so may a proxy on the way.
        const answer = echo(token)
        for (const name of ['b2_upload_file', 'b2_list_file_names']) fake.refuse(name, answer, { times: 99 })
        note(await caught(put('x', SMALL)))
        note(await caught(storage.stat('object')))
        fake.refuseNothing()
      }
      fake.revokeKey(key.keyId)
      note(await caught(storage.stat('object')))
      const secrets = [key.applicationKey, Buffer.from(`${key.keyId}:${key.applicationKey}`).toString('base64')]
      for (const { headers, url } of proxy.seen) {
        if (headers.authorization) secrets.push(headers.authorization)
        if (url.includes('b2_upload')) secrets.push(url)
      }
      assert.ok(secrets.length > 10)
      for (const secret of secrets) {
        for (const text of texts) assert.ok(!text.includes(secret), `a secret is in ${text}`)
      }
    })
  })

  it('two accounts in one process do not mix, nor does a stranger that sets the package up in between', async () => {
    const other = await new FakeB2({ minPartBytes: PART_BYTES }).start()
    try {
      other.store.addBucket('worlds')
      const theirs = other.store.addKey()
      const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES }
      const { keyId, applicationKey } = theirs
      const second = await openB2({ keyId, applicationKey, bucket: 'worlds', endpoint: other.origin, ...sizes })
      opened.push(second)
      // @ts-expect-error: the package has no types.
      const { default: B2 } = await import('backblaze-b2')
      const axios = { baseURL: 'http://127.0.0.1:1', timeout: 1, headers: { 'X-Stranger': 'yes' } }
      new B2({ applicationKeyId: 'x', applicationKey: 'y', axios, retry: { retries: 9 } })
      await Promise.all(
        Array.from({ length: 6 }, async (_, index) => {
          await put(`mine/${index}`, index % 2 ? BYTES : SMALL)
          await put(`theirs/${index}`, index % 2 ? SMALL : BYTES, second)
        }),
      )
      const names = (one: FakeB2) => [...one.store.files.values()].map((file) => file.name.split('/')[0])
      assert.deepEqual(new Set(names(fake)), new Set(['mine']))
      assert.deepEqual(new Set(names(other)), new Set(['theirs']))
      await assertHolds('mine/1', BYTES)
      assert.ok((await buffer(second.createReadStream('theirs/0'))).equals(BYTES))
      assert.equal(other.count('b2_authorize_account'), 1)
    } finally {
      await other.close()
    }
  })
})

function echo(code: string) {
  return refusal(code === 'auth_token_limit' ? 400 : 401, code, 'token TOKEN')
}

/** Everything that a logger might print of an error. */
function tell(error: Error): string {
  const own = JSON.stringify(error, Object.getOwnPropertyNames(error))
  return `${error.stack} ${own} ${error.cause instanceof Error ? tell(error.cause) : ''}`
}

async function until(condition: () => boolean): Promise<void> {
  for (let count = 0; !condition(); count++) {
    if (count > 2000) throw new Error('it did not come about')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Resolves at `close`. @throws what the stream failed with. */
function closed(stream: NodeJS.WritableStream & { errored?: Error | null }): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.on('error', () => {})
    stream.once('close', () => (stream.errored ? reject(stream.errored) : resolve()))
  })
}
