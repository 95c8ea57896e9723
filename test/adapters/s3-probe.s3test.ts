import assert from 'node:assert/strict'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { after, before, describe, it } from 'node:test'
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  GetObjectRetentionCommand,
  GetObjectTaggingCommand,
  HeadObjectCommand,
  ListObjectVersionsCommand,
  PutBucketVersioningCommand,
} from '@aws-sdk/client-s3'
import { openS3, type S3Config } from '../../adapters/s3.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

describe('S3: what a store can do, and what objects are stored with', () => {
  let bucket: TestBucket

  before(async () => {
    bucket = await openTestBucket()
  })
  after(() => bucket.remove())

  function settings(more: Partial<S3Config> = {}): S3Config {
    const { endpoint, region, accessKeyId, secretAccessKey } = bucket
    return { bucket: bucket.bucket, endpoint, region, accessKeyId, secretAccessKey, ...more }
  }

  async function versionsOf(name: string) {
    const page = await bucket.client.send(new ListObjectVersionsCommand({ Bucket: name }))
    return [...(page.Versions ?? []), ...(page.DeleteMarkers ?? [])]
  }

  it('probe finds out what the server does, goes by it, and leaves nothing', async () => {
    const storage = await openS3(settings({ profile: 'other' }))
    assert.equal(storage.conditionalWrites, false)
    const report = await storage.probe()
    assert.deepEqual(
      report.steps.filter((step) => !step.ok),
      [],
    )
    assert.deepEqual(
      report.steps.map((step) => step.step),
      ['sign-in', 'list', 'write', 'stat', 'read', 'range', 'multipart', 'abort', 'conditional', 'checksum', 'delete'],
    )
    assert.deepEqual(report.found, { conditionalPut: true, conditionalComplete: false, checksum: 'checked' })
    assert.equal(storage.conditionalWrites, true)
    await storage.close()
    for (const [integrity, checksum] of [
      ['md5', 'checked'],
      ['crc32', 'ignored'],
    ] as const) {
      const other = await openS3(settings({ integrity }))
      assert.equal((await other.probe()).found?.checksum, checksum, integrity)
      await other.close()
    }
    assert.deepEqual(await versionsOf(bucket.bucket), [])
    assert.deepEqual(await bucket.pendingUploads(), [])
  })

  it('probe leaves no version behind in a bucket that keeps them', async () => {
    const versioned = await openTestBucket()
    try {
      await bucket.client.send(
        new PutBucketVersioningCommand({
          Bucket: versioned.bucket,
          VersioningConfiguration: { Status: 'Enabled' },
        }),
      )
      const storage = await openS3(settings({ bucket: versioned.bucket }))
      assert.equal((await storage.probe()).ok, true)
      await storage.close()
      assert.deepEqual(await versionsOf(versioned.bucket), [])
    } finally {
      await versioned.remove()
    }
  })

  it('a probe that is aborted takes its canary with it, and one whose write is refused leaves no marker', async () => {
    const versioned = await openTestBucket()
    try {
      await bucket.client.send(
        new PutBucketVersioningCommand({ Bucket: versioned.bucket, VersioningConfiguration: { Status: 'Enabled' } }),
      )
      const storage = await openS3(settings({ bucket: versioned.bucket }))
      const abort = new AbortController()
      const probe = assert.rejects(storage.probe({ signal: abort.signal }), { name: 'AbortError' })
      while ((await versionsOf(versioned.bucket)).length === 0);
      abort.abort()
      await probe
      assert.deepEqual(await versionsOf(versioned.bucket), [])
      await storage.close()
      // Ceph takes no AES256 over http.
      const refused = await openS3(settings({ bucket: versioned.bucket, encryption: { algorithm: 'AES256' } }))
      const { steps } = await refused.probe()
      assert.equal(steps.find(({ step }) => step === 'write')?.ok, false)
      assert.equal(steps.find(({ step }) => step === 'delete')?.ok, true)
      await refused.close()
      assert.deepEqual(await versionsOf(versioned.bucket), [])
    } finally {
      await versioned.remove()
    }
  })

  it('erase leaves neither versions nor markers behind, and is no error for what is not there', async () => {
    for (const isVersioned of [true, false]) {
      const own = await openTestBucket()
      try {
        if (isVersioned) {
          const VersioningConfiguration = { Status: 'Enabled' } as const
          await bucket.client.send(new PutBucketVersioningCommand({ Bucket: own.bucket, VersioningConfiguration }))
        }
        const storage = await openS3(settings({ bucket: own.bucket }))
        for (const text of ['one', 'two'])
          await pipeline([Buffer.from(text)], storage.createWriteStream('server/.scratch'))
        await storage.erase?.('server/.scratch')
        await storage.erase?.('server/.never-there')
        assert.deepEqual(await versionsOf(own.bucket), [], `versioned: ${isVersioned}`)
        await storage.close()
      } finally {
        await own.remove()
      }
    }
  })

  it('storage class, encryption and tags go with every object, whole or in parts', async () => {
    const partBytes = 5 * 1024 * 1024
    const tags = { world: 'survival island', 'a/b': 'c+d=ü' }
    const storage = await openS3(settings({ storageClass: 'STANDARD', tags, partBytes }))
    for (const [key, bytes] of [
      ['small', 10],
      ['large', partBytes + 10],
    ] as const) {
      await pipeline([Buffer.alloc(bytes, 1)], storage.createWriteStream(key))
      const found = await bucket.client.send(new GetObjectTaggingCommand({ Bucket: bucket.bucket, Key: key }))
      const pairs = Object.fromEntries((found.TagSet ?? []).map(({ Key, Value }) => [Key, Value]))
      assert.deepEqual(pairs, tags, key)
      await storage.delete(key)
    }
    await storage.close()
    // Ceph takes no AES256 without keys of its own, over TLS only: the refusal shows that it was asked for.
    const encrypting = await openS3(settings({ encryption: { algorithm: 'AES256' } }))
    await assert.rejects(pipeline([Buffer.alloc(10)], encrypting.createWriteStream('encrypted')), { code: 'INVALID' })
    await encrypting.close()
  })

  it('T30: object lock: a delete before its day is LOCKED, and what passes is not locked', async () => {
    const name = `${bucket.bucket}-lock`
    await bucket.client.send(new CreateBucketCommand({ Bucket: name, ObjectLockEnabledForBucket: true }))
    const partBytes = 5 * 1024 * 1024
    const storage = await openS3(settings({ bucket: name, partBytes, objectLock: { mode: 'GOVERNANCE', days: 3 } }))
    try {
      for (const [key, bytes] of [
        ['small', 10],
        ['large', partBytes + 10],
      ] as const) {
        await pipeline([Buffer.alloc(bytes, 1)], storage.createWriteStream(key))
        const held = await bucket.client.send(new GetObjectRetentionCommand({ Bucket: name, Key: key }))
        assert.equal(held.Retention?.Mode, 'GOVERNANCE')
        const days = ((held.Retention?.RetainUntilDate?.getTime() ?? 0) - Date.now()) / 86_400_000
        assert.ok(days > 2.9 && days < 3.1, `${days} days`)
        await assert.rejects(storage.delete(key), { code: 'LOCKED', key })
        assert.equal((await storage.stat(key)).size, bytes)
      }
      await pipeline(['lease'], storage.createWriteStream('server/.lease/one'))
      assert.equal(await text(storage.createReadStream('server/.lease/one')), 'lease')
      await storage.delete('server/.lease/one')
      const report = await storage.probe()
      assert.deepEqual(
        report.steps.filter((step) => !step.ok),
        [],
      )
      const left = (await versionsOf(name)).filter(
        (version) => 'Size' in version && version.Key !== 'server/.lease/one',
      )
      assert.deepEqual(left.map((version) => version.Key).sort(), ['large', 'small'])
      await bucket.client.send(new HeadObjectCommand({ Bucket: name, Key: 'small' }))
    } finally {
      await storage.close()
      for (const { Key, VersionId } of await versionsOf(name)) {
        const target = { Bucket: name, Key, VersionId, BypassGovernanceRetention: true }
        await bucket.client.send(new DeleteObjectCommand(target))
      }
      await bucket.client.send(new DeleteBucketCommand({ Bucket: name }))
    }
  })
})
