import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { after, before, describe, it } from 'node:test'
import { readParallel } from '../../adapters/read-parallel.ts'
import { openS3 } from '../../adapters/s3.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'
import { sample } from '../support/streams.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const MIB = 2 ** 20
const BYTES = sample(24 * MIB + 12_345)
const RANGE = { rangeBytes: 2 * MIB, connections: 4 }
const isRead = ({ method }: { method: string }) => method === 'GET'

describe('readParallel from S3', () => {
  let bucket: TestBucket
  let proxy: FaultProxy
  let storage: Storage
  before(async () => {
    bucket = await openTestBucket()
    proxy = await openFaultProxy(bucket.endpoint)
    const { region, accessKeyId, secretAccessKey } = bucket
    const settings = { region, accessKeyId, secretAccessKey, bucket: bucket.bucket, idleMs: 3000 }
    storage = await openS3({ ...settings, endpoint: proxy.endpoint })
    await put(BYTES)
  })
  after(async () => {
    await storage.close()
    await proxy.close()
    await bucket.remove()
  })

  async function put(bytes: Buffer): Promise<void> {
    const stream = storage.createWriteStream('object')
    stream.end(bytes)
    await finished(stream)
  }

  it('gives the object, each range by one request that is pinned to its version', async () => {
    const from = proxy.seen.length
    assert.ok((await buffer(readParallel(storage, 'object', RANGE))).equals(BYTES))
    const reads = proxy.seen.slice(from).filter(isRead)
    assert.equal(reads.length, 13)
    assert.equal(new Set(reads.map(({ headers }) => headers['if-match'])).size, 1)
    assert.ok(reads[0]?.headers['if-match'])
    const some = readParallel(storage, 'object', { ...RANGE, start: 3 * MIB + 1, end: 9 * MIB })
    assert.ok((await buffer(some)).equals(BYTES.subarray(3 * MIB + 1, 9 * MIB + 1)))
  })

  it('T13: ranges that drop, stall or end early are gone on with', async () => {
    const from = proxy.seen.length
    proxy.inject({ kind: 'drop-reply', afterBytes: 700_000 }, isRead, 3)
    proxy.inject({ kind: 'stall-reply', afterBytes: 1_000_000 }, isRead)
    proxy.inject({ kind: 'shorten-reply', afterBytes: 300_000 }, isRead)
    assert.ok((await buffer(readParallel(storage, 'object', RANGE))).equals(BYTES))
    assert.ok(proxy.seen.slice(from).filter(isRead).length >= 13 + 4)
  })

  it('T14: an object that is replaced meanwhile is CONFLICT', async () => {
    const stream = readParallel(storage, 'object', RANGE)
    await new Promise((resolve) => stream.once('readable', resolve))
    await put(sample(BYTES.length, 2))
    await assert.rejects(buffer(stream), { code: 'CONFLICT' })
    await put(BYTES)
  })
})
