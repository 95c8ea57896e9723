import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { B2Config } from '../../adapters/backblaze-b2.ts'
import type { StorageError } from '../../adapters/errors.ts'
import type { ProbeReport, Storage } from '../../adapters/storage.ts'
import type { FakeB2 } from '../fakes/b2.ts'
import { ALL_CAPABILITIES, type FakeKey, refusal } from '../fakes/b2-store.ts'
import { BYTES, caught, openTestB2, SMALL, type TestB2, to } from '../support/b2.ts'
import type { FaultProxy } from '../support/fault-proxy.ts'

describe('what a server owner is told of B2', () => {
  let b2: TestB2
  let fake: FakeB2
  let proxy: FaultProxy
  let storage: Storage

  beforeEach(async () => {
    b2 = await openTestB2()
    ;({ fake, proxy, storage } = b2)
  })
  afterEach(() => b2.close())

  const failed = (report: ProbeReport) =>
    report.steps.filter((step) => !step.ok).map(({ step, error }) => [step, error as StorageError] as const)

  it('T29: probe names the capability that is missing', async () => {
    await b2.put('something', SMALL)
    for (const [capability, steps] of [
      ['listFiles', ['list', 'write', 'delete']],
      ['writeFiles', ['write']],
      ['readFiles', ['read', 'range']],
      ['deleteFiles', ['delete']],
      ['listBuckets', ['sign-in']],
    ] as const) {
      b2.key = fake.store.addKey({ capabilities: ALL_CAPABILITIES.filter((one) => one !== capability) })
      const bad = failed(await (await b2.open()).probe())
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
      [() => fake.store.addKey(), { applicationKey: 'wrong' }, /the application key is wrong, or the key was deleted/],
      [() => fake.store.addKey(), { bucket: 'no-such-bucket' }, /has no bucket "no-such-bucket"/],
    ]
    for (const [makeKey, more, message] of cases) {
      b2.key = makeKey()
      const one = await b2.open(more)
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
    fake.revokeKey(b2.key.keyId)
    const [[step, error] = []] = failed(await storage.probe())
    assert.equal(step, 'sign-in')
    assert.match(String(error?.message), /the key was deleted/)
    await assert.rejects(storage.stat('x'), { code: 'ACCESS_DENIED', message: /the key was deleted/ })
  })

  it('a key that is restricted to a bucket and a prefix is enough', async () => {
    const { bucketId } = fake.store.buckets[0]!
    const capabilities = ['listFiles', 'readFiles', 'writeFiles', 'deleteFiles']
    b2.key = fake.store.addKey({ bucketIds: [bucketId], namePrefix: 'servers/a', capabilities })
    const one = await b2.open({ prefix: 'servers/a1' })
    assert.deepEqual(failed(await one.probe()), [])
    await b2.put('big', BYTES, one)
    await b2.put('big', SMALL, one)
    assert.ok((await one.readRange('big', 0, 5000)).equals(SMALL))
    await one.delete('big')
    assert.equal(await one.purgeUnfinished?.(0), 0)
    assert.equal(fake.count('b2_list_buckets'), 0)
  })

  it('a key that may not delete replaces, and leaves the old version', async () => {
    b2.key = fake.store.addKey({ capabilities: ['listBuckets', 'listFiles', 'readFiles', 'writeFiles'] })
    const one = await b2.open()
    await b2.put('kept', BYTES, one)
    await b2.put('kept', SMALL, one)
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
      const work = call === 'download' ? storage.readRange('x', 0, 1) : b2.put('capped', SMALL)
      const error = await caught(work)
      assert.equal(error.code, 'QUOTA')
      assert.equal(error.retryable, false)
      assert.match(error.message, message)
      if (call !== 'b2_list_file_versions') assert.equal(fake.count(call), before + 1)
      b2.assertNothing('capped')
    }
    fake.refuse('b2_upload_file', refusal(403, 'storage_cap_exceeded'))
    const [[step, error] = []] = failed(await storage.probe())
    assert.equal(step, 'write')
    assert.match(String(error?.message), /the storage cap of the account is reached/)
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
      const error = await caught(b2.open(more))
      assert.equal(error.code, 'INVALID', JSON.stringify(more))
      assert.doesNotMatch(error.message, /secret|with\nline/)
    }
    assert.throws(() => storage.createWriteStream('a\\b'), { code: 'INVALID', message: /backslash/ })
    await new Promise((resolve) => setTimeout(resolve, 30))
    assert.deepEqual(proxy.seen, [], 'a request was made')
  })

  it('no secret is in an error, its cause, the location or the events', async () => {
    await b2.put('object', SMALL)
    const texts = [storage.location]
    const note = (error: Error) => texts.push(tell(error))
    fake.refuse('b2_upload_file', refusal(503, 'service_unavailable'), { times: 99 })
    note(await caught(b2.put('x', SMALL)))
    fake.refuseNothing()
    proxy.inject({ kind: 'drop-request', afterBytes: 10 }, to('b2_upload_part'), 99)
    note(await caught(b2.put('x', BYTES)))
    proxy.inject({ kind: 'drop-reply', afterBytes: 0 }, to('b2_list_file_names'), 4)
    note(await caught(storage.stat('object')))
    for (const token of ['', 'expired_auth_token', 'bad_auth_token', 'auth_token_limit']) {
      // What B2 says of `auth_token_limit` repeats the token, and so may a proxy on the way.
      const answer = echo(token)
      for (const name of ['b2_upload_file', 'b2_list_file_names']) fake.refuse(name, answer, { times: 99 })
      note(await caught(b2.put('x', SMALL)))
      note(await caught(storage.stat('object')))
      fake.refuseNothing()
    }
    fake.revokeKey(b2.key.keyId)
    note(await caught(storage.stat('object')))
    const secrets = [b2.key.applicationKey, Buffer.from(`${b2.key.keyId}:${b2.key.applicationKey}`).toString('base64')]
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

function echo(code: string) {
  return refusal(code === 'auth_token_limit' ? 400 : 401, code, 'token TOKEN')
}

/** Everything that a logger might print of an error. */
function tell(error: Error): string {
  const own = JSON.stringify(error, Object.getOwnPropertyNames(error))
  return `${error.stack} ${own} ${error.cause instanceof Error ? tell(error.cause) : ''}`
}
