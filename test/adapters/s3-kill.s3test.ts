import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { openS3 } from '../../adapters/s3.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type Fault, type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { type KillableUpload, startUpload } from '../support/killed-upload.ts'
import { seededBytes, seededRandom } from '../support/random.ts'
import { runAll } from '../support/storage-trials.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
/** Three parts. */
const BYTES = 2 * PART_BYTES + 1000
const KILLS = 40

type Asked = { method: string; url: string }
const isBegin = ({ method, url }: Asked) => method === 'POST' && /[?&]uploads/.test(url)
const isPart = (number: number) => (asked: Asked) =>
  asked.method === 'PUT' && asked.url.includes(`partNumber=${number}&`)
const isCommit = ({ method, url }: Asked) => method === 'POST' && url.includes('uploadId=')
const isHead = ({ method }: Asked) => method === 'HEAD'

describe('an upload to S3 whose process is killed', { timeout: 300_000 }, () => {
  let bucket: TestBucket
  /** Past the proxy, and opened after the kills, as a next run would. */
  let storage: Storage

  before(async () => {
    bucket = await openTestBucket()
    const { endpoint, region, accessKeyId, secretAccessKey } = bucket
    storage = await openS3({ endpoint, region, accessKeyId, secretAccessKey, bucket: bucket.bucket })
  })
  after(async () => {
    await storage.close()
    await bucket.remove()
  })

  /** Starts an upload through a proxy of its own, kills it when `moment` resolves, and waits for the server. */
  async function killed(
    key: string,
    seed: number,
    moment: (proxy: FaultProxy, upload: KillableUpload) => Promise<unknown>,
  ): Promise<{ found: 'nothing' | 'old' | 'whole'; reported: boolean; committed: boolean }> {
    const proxy = await openFaultProxy(bucket.endpoint, { hashBodies: false })
    try {
      const config = { provider: 's3', endpoint: proxy.endpoint, bucket: bucket.bucket, partBytes: PART_BYTES } as const
      const upload = await startUpload({ config, key, bytes: BYTES, seed, pauseMs: 0 })
      try {
        const reached = moment(proxy, upload)
        upload.go()
        await reached
      } finally {
        await upload.kill()
      }
      await proxy.idle()
      const committed = proxy.seen.some((asked) => isCommit(asked) && asked.reached)
      return { found: await lookAt(key, seed), reported: upload.hasSaid('committed'), committed }
    } finally {
      await proxy.close()
    }
  }

  async function lookAt(key: string, seed: number): Promise<'nothing' | 'old' | 'whole'> {
    const listed: number[] = []
    for await (const object of storage.list(key)) listed.push(object.size)
    if (listed.length === 0) return 'nothing'
    const bytes = await buffer(storage.createReadStream(key))
    assert.deepEqual(listed, [bytes.length])
    if (bytes.toString() === oldOf(key)) return 'old'
    assert.equal(sha256(bytes), sha256(seededBytes(BYTES, seed)), 'an object that is not whole is listed')
    return 'whole'
  }

  async function assertSwept(): Promise<number> {
    const pending = await bucket.pendingUploads()
    assert.equal(await storage.purgeUnfinished?.(0), pending.length)
    assert.deepEqual(await bucket.pendingUploads(), [])
    return pending.length
  }

  /** When the server has answered a request, and its client, by the fault, knows nothing of it. */
  async function answered(proxy: FaultProxy, match: (asked: Asked) => boolean): Promise<void> {
    while (!proxy.seen.some((asked) => match(asked) && asked.serverStatus !== undefined)) await delay(5)
  }

  const CUT: Fault = { kind: 'stall-request', afterBytes: 2_000_000 }
  const SILENT: Fault = { kind: 'swallow' }
  const UNTOLD: Fault = { kind: 'stall-reply', afterBytes: 0 }
  for (const [name, fault, match, found, pending] of [
    ['before begin comes to the server', SILENT, isBegin, 'nothing', 0],
    ['after begin, whose answer never comes', UNTOLD, isBegin, 'nothing', 1],
    ['in the middle of part 1', CUT, isPart(1), 'nothing', 1],
    ['in the middle of part 2', CUT, isPart(2), 'nothing', 1],
    ['after the last part, whose answer never comes', UNTOLD, isPart(3), 'nothing', 1],
    ['before the commit comes to the server', SILENT, isCommit, 'nothing', 1],
    ['after the commit, whose answer never comes', UNTOLD, isCommit, 'whole', 0],
    ['at the check after the commit', SILENT, isHead, 'whole', 0],
  ] as const) {
    it(`T8: ${name}: ${found} is listed, and a sweep leaves no upload`, async () => {
      const result = await killed(`named/${name}`, 7, async (proxy) => {
        proxy.inject(fault, match)
        await proxy.arrival(match)
        if (fault === UNTOLD) await answered(proxy, match)
        // Until the bytes before the cut are on their way.
        else if (fault === CUT) await delay(50)
      })
      assert.equal(result.found, found)
      assert.equal(result.reported, false)
      assert.equal(await assertSwept(), pending)
    })
  }

  it(`T8: at ${KILLS} seeded moments: an object is whole or not there, the old one is intact, a sweep leaves nothing`, async () => {
    const [seed = 1] = faultSeeds(1)
    const counts: Record<string, number> = {}
    const count = (name: string) => {
      counts[name] = (counts[name] ?? 0) + 1
    }
    const kill = async (index: number) => {
      const random = seededRandom(seed, 'kill', index)
      const key = `seeded/${seed}/${index}`
      const hasOld = random.chance(0.3)
      if (hasOld) {
        await bucket.client.send(new PutObjectCommand({ Bucket: bucket.bucket, Key: key, Body: oldOf(key) }))
      }
      // A moment of each stage, however fast the machine is: begin, three parts, commit, check.
      const requests = random.int(7)
      const laterMs = random.next() * random.pick([5, 50])
      const { found, reported, committed } = await killed(key, index, async (proxy, upload) => {
        if (requests === 6) await upload.said('committed')
        else await nthArrival(proxy, requests)
        await delay(laterMs)
      })
      if (reported) assert.equal(found, 'whole', 'a commit was reported, and is not there')
      if (found === 'whole') assert.ok(committed, 'an object is there that nobody committed')
      else assert.equal(found, hasOld ? 'old' : 'nothing')
      count(reported ? 'whole and reported' : found)
    }
    await runAll(
      Array.from({ length: KILLS }, (_, index) => () => kill(index)),
      3,
    )
    const swept = await assertSwept()
    const said = Object.entries(counts).map(([name, times]) => `${name} ${times}`)
    console.log(`s3 on Ceph, ${KILLS} kills, seed ${seed}: ${said.join(', ')}; ${swept} uploads swept`)
    assert.ok(swept > 0, 'no kill came in the middle of an upload')
    assert.ok(counts.nothing && counts.whole, 'the kills did not come both before and after the commit')
  })
})

function oldOf(key: string): string {
  return `what was under ${key} before`
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}

/** Resolves when request number `index`, from 0, has arrived. */
function nthArrival(proxy: FaultProxy, index: number): Promise<void> {
  return proxy.arrival(() => proxy.arrived >= index)
}
