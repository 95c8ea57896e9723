import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteBucketPolicyCommand,
  PutBucketPolicyCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
} from '@aws-sdk/client-s3'
import { openS3, type S3Config } from '../../adapters/s3.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
const BYTES = createCipheriv('aes-128-ctr', Buffer.alloc(16, 3), Buffer.alloc(16)).update(
  Buffer.alloc(3 * PART_BYTES + 1234),
)
const QUICK = { attempts: 4, baseMs: 10, capMs: 50, deadlineMs: 20_000 }

type Seen = { method: string; url: string }
const isPart = (number: number) => (seen: Seen) => seen.method === 'PUT' && seen.url.includes(`partNumber=${number}&`)
const isBegin = ({ method, url }: Seen) => method === 'POST' && /[?&]uploads/.test(url)
const isCommit = ({ method, url }: Seen) => method === 'POST' && url.includes('uploadId=')
const isWhole = ({ method, url }: Seen) => method === 'PUT' && !url.includes('uploadId=')
const isGet = ({ method, url }: Seen) => method === 'GET' && !url.includes('list-type')
const isList = ({ url }: Seen) => url.includes('list-type')

for (const uploader of ['millrace', 'lib-storage'] as const) {
  describe(`S3 through a network that fails, uploaded by ${uploader}`, () => {
    let bucket: TestBucket
    let proxy: FaultProxy
    let storage: Storage

    before(async () => {
      bucket = await openTestBucket()
    })
    after(() => bucket.remove())
    beforeEach(async () => {
      proxy = await openFaultProxy(bucket.endpoint)
      storage = await openS3(settings())
    })
    afterEach(async () => {
      await storage.close()
      await proxy.close()
    })

    function settings(more: Partial<S3Config> = {}): S3Config {
      const { region, accessKeyId, secretAccessKey } = bucket
      const fast = { partBytes: PART_BYTES, callRetry: QUICK, partRetry: QUICK }
      return {
        profile: 'ceph',
        uploader,
        bucket: bucket.bucket,
        endpoint: proxy.endpoint,
        region,
        accessKeyId,
        secretAccessKey,
        ...fast,
        ...more,
      }
    }

    async function put(key: string, bytes: Buffer, options = {}): Promise<void> {
      const stream = storage.createWriteStream(key, options)
      const close = new Promise((resolve) => stream.once('close', resolve))
      try {
        await pipeline(Readable.from([bytes]), stream)
      } finally {
        await close
      }
    }

    async function assertHolds(key: string, bytes: Buffer): Promise<void> {
      assert.ok((await buffer(storage.createReadStream(key))).equals(bytes))
      assert.deepEqual(await bucket.pendingUploads(), [])
    }

    async function assertNothing(key: string): Promise<void> {
      await assert.rejects(storage.stat(key), { code: 'NOT_FOUND' })
      assert.deepEqual(await bucket.pendingUploads(), [])
    }

    describe('parts', () => {
      it('T7: 503 after half of a part: it is sent again, the same by hash', async () => {
        proxy.inject({ kind: 'refuse-halfway', status: 503, headers: { 'retry-after': '0' } }, isPart(2))
        await put('t7', BYTES)
        await assertHolds('t7', BYTES)
        const tries = proxy.seen.filter(isPart(2))
        assert.equal(tries.length, 2)
        const whole = tries.filter((request) => request.fault === undefined)
        assert.equal(whole[0]?.bodyBytes, PART_BYTES)
      })

      it('a connection that drops in the middle of a part, an answer that is lost', async () => {
        proxy.inject({ kind: 'drop-request', afterBytes: 1_000_000 }, isPart(1))
        proxy.inject({ kind: 'lose-reply' }, isPart(3))
        await put('drop', BYTES)
        await assertHolds('drop', BYTES)
        const hashes = proxy.seen.filter(isPart(3)).map((request) => request.bodySha256)
        assert.equal(hashes.length, 2)
        assert.equal(new Set(hashes).size, 1)
      })

      it('a part that is never answered is given up after the idle time, and sent again', async () => {
        await storage.close()
        storage = await openS3(settings({ idleMs: 3000 }))
        proxy.inject({ kind: 'swallow' }, isPart(2))
        await put('swallow', BYTES)
        await assertHolds('swallow', BYTES)
      })

      it('T6: a part that is refused for good ends the pipeline while the source stalls', async () => {
        proxy.inject({ kind: 'answer', status: 403, body: '<Error><Code>AccessDenied</Code></Error>' }, isPart(2))
        const source = new Readable({ read() {} })
        source.push(BYTES)
        const stream = storage.createWriteStream('t6')
        const close = new Promise((resolve) => stream.once('close', resolve))
        await assert.rejects(pipeline(source, stream), { code: 'ACCESS_DENIED', operation: 'putPart' })
        await close
        await assertNothing('t6')
      })

      it('the answer to begin is lost, one or all: no upload of an unknown id is left', async () => {
        proxy.inject({ kind: 'lose-reply' }, isBegin)
        await put('begin-lost', BYTES)
        await assertHolds('begin-lost', BYTES)
        proxy.inject({ kind: 'lose-reply' }, isBegin, QUICK.attempts)
        await assert.rejects(put('begin-lost-all', BYTES), { code: 'UNAVAILABLE', operation: 'begin' })
        await assertNothing('begin-lost-all')
      })

      it("another writer's upload of the same key is not taken for one of ours that was lost", async () => {
        const target = { Bucket: bucket.bucket, Key: 'begin-others' }
        const before = await bucket.client.send(new CreateMultipartUploadCommand(target))
        await new Promise((resolve) => setTimeout(resolve, 4000))
        proxy.inject({ kind: 'lose-reply' }, isBegin)
        await put('begin-others', BYTES)
        const { UploadId } = before
        assert.deepEqual(await bucket.pendingUploads(), [{ key: 'begin-others', uploadId: UploadId }])
        await bucket.client.send(new AbortMultipartUploadCommand({ ...target, UploadId }))
      })

      it('T9: abort in the middle of a part, and no upload is pending at close', async () => {
        proxy.inject({ kind: 'swallow' }, isPart(2))
        const arrived = proxy.arrival(isPart(2))
        const stream = storage.createWriteStream('t9')
        const close = new Promise((resolve) => stream.once('close', resolve))
        stream.write(BYTES)
        await arrived
        stream.destroy()
        await close
        await assertNothing('t9')
      })

      it('T9: abort while begin is on its way', async () => {
        const arrived = proxy.arrival(isBegin)
        const stream = storage.createWriteStream('t9-begin')
        const close = new Promise((resolve) => stream.once('close', resolve))
        stream.write(BYTES)
        await arrived
        stream.destroy()
        await close
        await assertNothing('t9-begin')
      })
    })

    describe('commits', () => {
      const ERROR_IN_200 =
        '<?xml version="1.0"?>\n<Error><Code>InternalError</Code><Message>try again</Message></Error>'

      for (const [name, size, match] of [
        ['of parts', BYTES.length, isCommit],
        ['whole', 5000, isWhole],
      ] as const) {
        const bytes = BYTES.subarray(0, size)

        it(`T10: the answer is lost after success (${name})`, async () => {
          proxy.inject({ kind: 'lose-reply' }, match)
          await put(`t10-lost-${name}`, bytes)
          await assertHolds(`t10-lost-${name}`, bytes)
        })

        it(`T10: a 503 before anything is done (${name})`, async () => {
          proxy.inject({ kind: 'answer', status: 503, body: '' }, match)
          await put(`t10-503-${name}`, bytes)
          await assertHolds(`t10-503-${name}`, bytes)
        })

        it(`T10: every answer is lost (${name}): found to be done`, async () => {
          proxy.inject({ kind: 'lose-reply' }, match, 4)
          await put(`t10-all-${name}`, bytes)
          await assertHolds(`t10-all-${name}`, bytes)
        })

        it(`T10: ifAbsent and a lost answer (${name}): the object is our own`, async () => {
          proxy.inject({ kind: 'lose-reply' }, match)
          await put(`t10-absent-${name}`, bytes, { ifAbsent: true })
          await assertHolds(`t10-absent-${name}`, bytes)
          await assert.rejects(put(`t10-absent-${name}`, bytes, { ifAbsent: true }), { code: 'CONFLICT' })
        })

        it(`destroy while the answer is lost (${name}): nothing is left, and the old object is kept or gone`, async () => {
          const key = `destroy-${name}`
          proxy.inject({ kind: 'lose-reply' }, match)
          const arrived = proxy.arrival(match)
          const stream = storage.createWriteStream(key)
          const close = new Promise((resolve) => stream.once('close', resolve))
          stream.end(bytes)
          await arrived
          stream.destroy()
          await close
          await assertNothing(key)
        })
      }

      it('T10: 200 with an error in its body, nothing done', async () => {
        proxy.inject({ kind: 'answer', status: 200, body: ERROR_IN_200 }, isCommit)
        await put('t10-200', BYTES)
        await assertHolds('t10-200', BYTES)
      })

      it('T10: 200 with an error in its body, done all the same', async () => {
        proxy.inject({ kind: 'answer-after', status: 200, body: ERROR_IN_200 }, isCommit)
        await put('t10-200-done', BYTES)
        await assertHolds('t10-200-done', BYTES)
      })

      it('T31: an upload reported as good, whose object is absent', async () => {
        proxy.inject({ kind: 'answer', status: 200 }, isWhole)
        await assert.rejects(put('t31', BYTES.subarray(0, 100)), { code: 'CORRUPT', operation: 'verify' })
        await assertNothing('t31')
        const good =
          '<?xml version="1.0"?><CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>'
        proxy.inject({ kind: 'answer', status: 200, body: good }, isCommit)
        await assert.rejects(put('t31', BYTES), { code: 'CORRUPT', operation: 'verify' })
      })

      it('an upload that the store has lost is an error, not a success', async () => {
        proxy.inject({ kind: 'answer', status: 404, body: '<Error><Code>NoSuchUpload</Code></Error>' }, isCommit, 10)
        await assert.rejects(put('no-upload', BYTES), { code: 'NOT_FOUND' })
        await assertNothing('no-upload')
      })
    })

    describe('reads', () => {
      before(async () => {
        proxy = await openFaultProxy(bucket.endpoint)
        storage = await openS3(settings())
        await put('object', BYTES)
        await storage.close()
        await proxy.close()
      })

      it('T13: an answer that drops is gone on with from where it broke', async () => {
        proxy.inject({ kind: 'drop-reply', afterBytes: 3_000_000 }, isGet)
        proxy.inject({ kind: 'drop-reply', afterBytes: 1 }, isGet)
        await assertHolds('object', BYTES)
        const [first, second] = proxy.seen.filter(isGet)
        assert.equal(first?.headers['if-match'], undefined)
        assert.ok(second?.headers['if-match'])
        assert.match(String(second?.headers.range), /^bytes=[1-9]/)
      })

      it('T13: an answer that stalls is dropped and gone on with', async () => {
        await storage.close()
        storage = await openS3(settings({ idleMs: 3000 }))
        proxy.inject({ kind: 'stall-reply', afterBytes: 2_000_000 }, isGet)
        await assertHolds('object', BYTES)
      })

      it('T13: an answer that ends early and cleanly is gone on with', async () => {
        proxy.inject({ kind: 'shorten-reply', afterBytes: 2_000_000 }, isGet)
        await assertHolds('object', BYTES)
        proxy.inject({ kind: 'shorten-reply', afterBytes: 10 }, isGet)
        assert.ok((await storage.readRange('object', 100, 50_000)).equals(BYTES.subarray(100, 50_100)))
      })

      it('T13: a refusal that breaks off in the middle is asked for again', async () => {
        proxy.inject({ kind: 'drop-reply', afterBytes: 30 }, isGet)
        assert.equal((await buffer(storage.createReadStream('object', { start: BYTES.length }))).length, 0)
        proxy.inject({ kind: 'shorten-reply', afterBytes: 30 }, isGet)
        assert.equal((await buffer(storage.createReadStream('object', { start: BYTES.length }))).length, 0)
        proxy.inject({ kind: 'reset-reply', afterBytes: 30 }, isGet)
        await assert.rejects(buffer(storage.createReadStream('no-such-object')), { code: 'NOT_FOUND' })
      })

      it('T14: an object that is replaced in the middle of a read is an error, not two halves', async () => {
        await put('t14', BYTES)
        proxy.inject({ kind: 'stall-reply', afterBytes: 2_000_000 }, isGet)
        await storage.close()
        storage = await openS3(settings({ idleMs: 3000 }))
        // Until it is read on, it has begun and does not stall.
        const stream = storage.createReadStream('t14')
        await once(stream, 'readable')
        await bucket.client.send(
          new PutObjectCommand({ Bucket: bucket.bucket, Key: 't14', Body: Buffer.alloc(BYTES.length, 1) }),
        )
        await assert.rejects(buffer(stream), { code: 'CONFLICT' })
      })

      it('a page of a listing that fails is asked for again, or is an error', async () => {
        await storage.close()
        storage = await openS3(settings({ pageSize: 2 }))
        for (const name of 'abcde') await put(`page/${name}`, Buffer.from(name))
        const keys = async () => {
          const found: string[] = []
          for await (const { key } of storage.list('page/')) found.push(key)
          return found
        }
        const isSecondPage = (seen: Seen) => isList(seen) && seen.url.includes('continuation-token')
        proxy.inject({ kind: 'drop-reply', afterBytes: 100 }, isSecondPage)
        proxy.inject({ kind: 'answer', status: 503, body: '' }, isSecondPage)
        assert.equal((await keys()).length, 5)
        proxy.inject({ kind: 'answer', status: 500, body: '' }, isSecondPage, 10)
        await assert.rejects(keys(), { code: 'UNAVAILABLE' })
      })
    })

    describe('refusals', () => {
      it('what is wrong with the settings is said plainly, and without a secret', async () => {
        const cases: [Partial<S3Config>, string, RegExp][] = [
          [{ accessKeyId: 'NOBODY' }, 'ACCESS_DENIED', /access key/],
          [{ secretAccessKey: 'wrong-secret' }, 'ACCESS_DENIED', /secret key/],
          [{ bucket: 'millrace-no-such-bucket' }, 'NOT_FOUND', /"millrace-no-such-bucket"/],
          [{ endpoint: 'http://127.0.0.1:1' }, 'UNAVAILABLE', /http:\/\/127\.0\.0\.1:1\b/],
        ]
        for (const [change, code, message] of cases) {
          const other = await openS3(settings(change))
          const first = async () => {
            for await (const _ of other.list('')) break
          }
          const caught = await first().then(
            () => assert.fail('it was not refused'),
            (error) => error,
          )
          assert.equal(caught.code, code, caught.message)
          assert.match(caught.message, message)
          assert.ok(!`${caught.stack}${JSON.stringify(caught)}${caught.cause?.stack}`.includes('secret-'))
          if (code !== 'NOT_FOUND') await assert.rejects(other.stat('x'), { code })
          else await assert.rejects(other.delete('x'), { code })
          await other.close()
        }
      })

      it('T29: probe says which right is missing, and leaves nothing behind', async () => {
        const deny = async (...actions: string[]) => {
          const resources = [`arn:aws:s3:::${bucket.bucket}`, `arn:aws:s3:::${bucket.bucket}/*`]
          const statement = { Effect: 'Deny', Principal: '*', Action: actions, Resource: resources }
          const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] })
          await bucket.client.send(new PutBucketPolicyCommand({ Bucket: bucket.bucket, Policy }))
        }
        await put('something', Buffer.from('to read'))
        try {
          for (const [action, failed] of [
            ['s3:ListBucket', ['list']],
            ['s3:PutObject', ['write']],
            ['s3:GetObject', ['stat', 'read', 'range']],
            ['s3:DeleteObject', ['delete']],
          ] as const) {
            await deny(action)
            const report = await storage.probe()
            const bad = report.steps.filter((step) => !step.ok)
            assert.deepEqual(
              bad.map((step) => step.step),
              failed,
              `${action} denied`,
            )
            assert.ok(bad.every((step) => (step.error as Error & { code?: string }).code === 'ACCESS_DENIED'))
            assert.equal(report.ok, false)
          }
        } finally {
          await bucket.client.send(new DeleteBucketPolicyCommand({ Bucket: bucket.bucket }))
        }
        const canaries: string[] = []
        for await (const { key } of storage.list('.millrace-canary-')) canaries.push(key)
        // The last one, which could not be deleted.
        assert.equal(canaries.length, 1)
        await storage.delete(canaries[0]!)

        const stranger = await openS3(settings({ accessKeyId: 'NOBODY' }))
        const seenBefore = proxy.seen.length
        const refused = await stranger.probe()
        assert.deepEqual(
          refused.steps.map(({ step, ok }) => ({ step, ok })),
          [{ step: 'sign-in', ok: false }],
        )
        await stranger.close()
        await new Promise((resolve) => setTimeout(resolve, 50))
        assert.equal(proxy.seen.length, seenBefore + 1, 'a refused sign-in was tried again')
      })

      it('makes no request before it is needed', async () => {
        const stream = storage.createWriteStream('idle')
        stream.write(Buffer.alloc(1000))
        storage.createReadStream('idle')
        assert.throws(() => storage.createWriteStream('../x'), { code: 'INVALID' })
        await assert.rejects(storage.stat('a//b'), { code: 'INVALID' })
        await new Promise((resolve) => setTimeout(resolve, 50))
        assert.deepEqual(proxy.seen, [])
        stream.destroy()
      })
    })

    describe('unfinished and versioned', () => {
      it('purgeUnfinished cancels what is old enough, under the prefix, page by page', async () => {
        await storage.close()
        storage = await openS3(settings({ pageSize: 2 }))
        for (const Key of ['old/1', 'old/2', 'old/3', 'old/3', 'other/1']) {
          await bucket.client.send(new CreateMultipartUploadCommand({ Bucket: bucket.bucket, Key }))
        }
        assert.equal(await storage.purgeUnfinished?.(3_600_000), 0)
        assert.equal(await storage.purgeUnfinished?.(-60_000, { prefix: 'old/' }), 4)
        assert.deepEqual(
          (await bucket.pendingUploads()).map((upload) => upload.key),
          ['other/1'],
        )
        assert.equal(await storage.purgeUnfinished?.(-60_000), 1)
      })

      it('CRC32 in place of Content-MD5, as on AWS', async () => {
        await storage.close()
        storage = await openS3(settings({ integrity: 'crc32' }))
        await put('crc', BYTES)
        await put('crc-small', BYTES.subarray(0, 100))
        await assertHolds('crc', BYTES)
        const part = proxy.seen.find(isPart(1))
        assert.ok(part?.headers['x-amz-checksum-crc32'])
        assert.equal(part?.headers['content-md5'], undefined)
      })

      it('in a versioned bucket an abort removes its own version, and the old one is there again', async () => {
        const versioned = await openTestBucket()
        const Status = 'Enabled' as const
        const own = { Bucket: versioned.bucket, VersioningConfiguration: { Status } }
        await versioned.client.send(new PutBucketVersioningCommand(own))
        const other = await openS3(settings({ bucket: versioned.bucket }))
        for (const [index, match, size] of [
          [0, isWhole, 100],
          [1, isWhole, 100],
          [2, isCommit, BYTES.length],
          [3, isCommit, BYTES.length],
        ] as const) {
          const key = `object-${index}`
          const old = other.createWriteStream(key)
          await pipeline(Readable.from([Buffer.from('old')]), old)
          const stream = other.createWriteStream(key)
          const close = new Promise((resolve) => stream.once('close', resolve))
          const arrived = proxy.arrival(match)
          // Its answer is lost, so it is the store that has to tell which version is ours.
          if (index % 2 === 1) proxy.inject({ kind: 'lose-reply' }, match)
          stream.end(BYTES.subarray(0, size))
          await arrived
          stream.destroy()
          await close
          assert.equal((await buffer(other.createReadStream(key))).toString(), 'old')
        }
        await other.close()
        versioned.client.destroy()
      })
    })
  })
}
