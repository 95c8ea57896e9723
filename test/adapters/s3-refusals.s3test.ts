import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { inspect } from 'node:util'
import { PutBucketPolicyCommand } from '@aws-sdk/client-s3'
import { StorageError } from '../../adapters/errors.ts'
import { openS3, type S3Config } from '../../adapters/s3.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'
import { createTestUser, type TestUser } from '../support/radosgw-admin.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
const SMALL = randomBytes(1000)
const LARGE = randomBytes(2 * PART_BYTES + 1)
const QUICK = { attempts: 3, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
const HOUR_MS = 3_600_000
const anything = () => true

describe('S3 that refuses', () => {
  let bucket: TestBucket
  let proxy: FaultProxy
  const opened: Storage[] = []
  const users: TestUser[] = []

  before(async () => {
    bucket = await openTestBucket()
  })
  after(async () => {
    await bucket.remove()
    for (const user of users) await user.remove()
  })
  beforeEach(async () => {
    proxy = await openFaultProxy(bucket.endpoint)
  })
  afterEach(async () => {
    for (const storage of opened.splice(0)) await storage.close()
    await proxy.close()
  })

  async function open(change: Partial<S3Config> = {}): Promise<Storage> {
    const { region, accessKeyId, secretAccessKey } = bucket
    const quick = { partBytes: PART_BYTES, callRetry: QUICK, partRetry: QUICK }
    const own = { bucket: bucket.bucket, endpoint: proxy.endpoint, region, accessKeyId, secretAccessKey }
    const storage = await openS3({ ...own, ...quick, ...change })
    opened.push(storage)
    return storage
  }

  async function user(quota?: { maxBytes: number }): Promise<TestUser> {
    const made = await createTestUser(bucket, quota)
    users.push(made)
    return made
  }

  describe('the quota', () => {
    it('QUOTA, for an object whole and in parts, and what was sent of it is gone', async () => {
      // Less than a part: Ceph counts a part once it is stored, so two that come at once can both pass.
      const { accessKeyId, secretAccessKey, createBucket } = await user({ maxBytes: 3 * 1024 * 1024 })
      const storage = await open({ bucket: await createBucket(), accessKeyId, secretAccessKey })
      await put(storage, 'small', SMALL)
      for (const bytes of [LARGE, LARGE.subarray(0, 4_000_000)]) {
        await assertRefused(storage, put(storage, 'large', bytes), 'QUOTA', /free some space/, secretAccessKey)
        await assert.rejects(storage.stat('large'), { code: 'NOT_FOUND' })
      }
      assert.equal(await storage.purgeUnfinished?.(-HOUR_MS), 0, 'an upload is left')
      assert.ok((await buffer(storage.createReadStream('small'))).equals(SMALL))
    })
  })

  describe('the credentials', () => {
    const secretAccessKey = 'another-secret-that-is-nowhere-to-be-seen'

    it('a wrong secret is ACCESS_DENIED for every call, at once', async () => {
      const storage = await open({ secretAccessKey })
      await assertRefused(storage, listed(storage), 'ACCESS_DENIED', /secret key does not fit/, secretAccessKey)
      for (const bytes of [SMALL, LARGE]) {
        await assertRefused(storage, put(storage, 'x', bytes), 'ACCESS_DENIED', /secret key/, secretAccessKey)
      }
      const reading = buffer(storage.createReadStream('x'))
      await assertRefused(storage, reading, 'ACCESS_DENIED', /secret key/, secretAccessKey)
      await assertRefused(storage, storage.delete('x'), 'ACCESS_DENIED', /secret key/, secretAccessKey)
      // The answer to a HEAD has no body to say more.
      await assertRefused(storage, storage.stat('x'), 'ACCESS_DENIED', /credentials/, secretAccessKey)
      assert.equal(proxy.seen.length, 6, 'a refusal was asked for again')
      assert.deepEqual(await bucket.pendingUploads(), [])
    })

    it('a key that may only read reads, and is told so where it writes', async () => {
      const reader = await user()
      const resources = [`arn:aws:s3:::${bucket.bucket}`, `arn:aws:s3:::${bucket.bucket}/*`]
      const statement = {
        Effect: 'Allow',
        Principal: { AWS: [reader.arn] },
        Action: ['s3:ListBucket', 's3:GetObject'],
        Resource: resources,
      }
      const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] })
      await bucket.client.send(new PutBucketPolicyCommand({ Bucket: bucket.bucket, Policy }))
      await put(await open(), 'object', SMALL)
      const storage = await open({ accessKeyId: reader.accessKeyId, secretAccessKey: reader.secretAccessKey })
      assert.ok((await buffer(storage.createReadStream('object'))).equals(SMALL))
      const { secretAccessKey: own } = reader
      for (const attempt of [
        () => put(storage, 'object', SMALL),
        () => put(storage, 'new', LARGE),
        () => storage.delete('object'),
      ]) {
        await assertRefused(storage, attempt(), 'ACCESS_DENIED', /check the rights of the credentials/, own)
      }
      assert.ok((await buffer(storage.createReadStream('object'))).equals(SMALL))
      assert.deepEqual(await bucket.pendingUploads(), [])
      const { ok, steps } = await storage.probe()
      assert.equal(ok, false)
      assert.deepEqual(
        steps.filter((step) => !step.ok).map(({ step }) => step),
        ['write', 'delete'],
      )
    })

    it('an expired session token is AUTH_EXPIRED', async () => {
      const body = '<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>'
      proxy.inject({ kind: 'answer', status: 400, body }, anything)
      const storage = await open()
      await assertRefused(storage, put(storage, 'x', SMALL), 'AUTH_EXPIRED', /get a new one/)
    })
  })

  describe('the clock', () => {
    it('an hour off: the first refusal tells the time, and the next request is signed by it', async (t) => {
      const storage = await open()
      t.mock.timers.enable({ apis: ['Date'], now: Date.now() + HOUR_MS })
      await put(storage, 'skewed', LARGE)
      assert.ok((await buffer(storage.createReadStream('skewed'))).equals(LARGE))
      assert.equal(proxy.seen.filter(({ serverStatus }) => serverStatus === 403).length, 1)
    })

    it('where that does not help, the error names the clock', async () => {
      const body = '<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>'
      proxy.inject({ kind: 'answer', status: 403, body }, anything, 100)
      const storage = await open()
      await assertRefused(storage, put(storage, 'x', SMALL), 'ACCESS_DENIED', /clock is wrong; set it/)
      assert.equal(proxy.seen.length, QUICK.attempts)
    })
  })

  describe('the place', () => {
    it('a bucket that is not there is NOT_FOUND, by its name', async () => {
      const storage = await open({ bucket: 'millrace-not-there' })
      const message = /no such bucket; check its name, or create it.*NoSuchBucket|"millrace-not-there"/
      await assertRefused(storage, listed(storage), 'NOT_FOUND', message)
      for (const bytes of [SMALL, LARGE]) await assertRefused(storage, put(storage, 'x', bytes), 'NOT_FOUND', message)
      await assertRefused(storage, buffer(storage.createReadStream('x')), 'NOT_FOUND', message)
      await assertRefused(storage, storage.delete('x'), 'NOT_FOUND', message)
    })

    // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    const REDIRECT =
      '<Error><Code>PermanentRedirect</Code><Message>The bucket must be addressed by another endpoint.</Message>' +
      '<Endpoint>worlds.s3.eu-central-1.amazonaws.com</Endpoint><Bucket>worlds</Bucket></Error>'
    const MALFORMED =
      '<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region ' +
      "'us-east-1' is wrong; expecting 'eu-central-1'</Message><Region>eu-central-1</Region></Error>"
    const REGION = { 'x-amz-bucket-region': 'eu-central-1' }
    for (const [name, status, headers, body] of [
      ['301 with the region in a header', 301, REGION, REDIRECT],
      ['400 with the region in its body', 400, {}, MALFORMED],
    ] as const) {
      it(`a bucket in another region is INVALID, and the message names the region (${name})`, async () => {
        proxy.inject({ kind: 'answer', status, headers, body }, anything, 100)
        const storage = await open()
        await assertRefused(storage, listed(storage), 'INVALID', /region.*"eu-central-1"/)
        await assertRefused(storage, put(storage, 'x', SMALL), 'INVALID', /region.*"eu-central-1"/)
        await assertRefused(storage, put(storage, 'x', LARGE), 'INVALID', /region.*"eu-central-1"/)
        assert.equal(proxy.seen.length, 3, 'a refusal was asked for again')
      })
    }

    it('to a HEAD only a header can name the region', async () => {
      const storage = await open()
      for (const status of [301, 400]) {
        proxy.inject({ kind: 'answer', status, headers: REGION }, anything)
        await assertRefused(storage, storage.stat('x'), 'INVALID', /region.*"eu-central-1"/)
      }
      proxy.inject({ kind: 'answer', status: 301, body: REDIRECT }, anything)
      await assertRefused(storage, listed(storage), 'INVALID', /another region; pass its region/)
    })
  })
})

async function put(storage: Storage, key: string, bytes: Buffer): Promise<void> {
  const stream = storage.createWriteStream(key)
  const close = new Promise((resolve) => stream.once('close', resolve))
  try {
    await pipeline(Readable.from([bytes]), stream)
  } finally {
    await close
  }
}

async function listed(storage: Storage): Promise<void> {
  for await (const _ of storage.list('')) break
}

/** Refused with the right code and message, and no secret in any of the error. */
async function assertRefused(
  { adapter }: Storage,
  attempt: Promise<unknown>,
  code: string,
  message: RegExp,
  secret?: string,
): Promise<void> {
  const error = await attempt.then(
    () => assert.fail('it was not refused'),
    (caught: unknown) => caught,
  )
  assert.ok(error instanceof StorageError, inspect(error))
  assert.equal(error.code, code, error.message)
  assert.equal(error.adapter, adapter)
  assert.match(error.message, message)
  const whole = inspect(error, { depth: Number.POSITIVE_INFINITY, showHidden: true })
  if (secret !== undefined) assert.ok(!whole.includes(secret), 'a secret is in the error')
  assert.doesNotMatch(whole, /Signature=|x-amz-security-token/i)
}
