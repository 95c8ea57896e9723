import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { openS3 } from '../../adapters/s3.ts'
import type { ArrivedRequest } from '../support/fault-proxy.ts'
import { faultSeeds, type RequestKind } from '../support/fault-schedule.ts'
import { runTrials } from '../support/storage-trials.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
/** Few attempts, so that some calls use them up; waits of no length. */
const QUICK = { attempts: 3, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
/** Longer than a busy machine leaves a request waiting: then it would look like a fault that nobody planned. */
const IDLE_MS = 6000
const ERROR = '<?xml version="1.0"?>\n<Error><Code>InternalError</Code><Message>Try again.</Message></Error>'

/** https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html, in path style. */
function classify({ method, url }: ArrivedRequest): RequestKind {
  const { pathname, searchParams: query } = new URL(url, 'http://s3')
  const subject = decodeURIComponent(pathname.replace(/^\/[^/]*\/?/, ''))
  if (query.has('list-type')) return { kind: 'list' }
  if (query.has('uploads')) return method === 'POST' ? { kind: 'begin', role: 'begin', subject } : { kind: 'uploads' }
  if (query.has('uploadId')) {
    if (method === 'PUT') return { kind: 'part', subject }
    if (method === 'POST') return { kind: 'complete', role: 'commit', subject }
    return { kind: method === 'DELETE' ? 'abort' : 'parts', role: 'settle', subject }
  }
  if (method === 'PUT') return { kind: 'put', role: 'commit', subject }
  if (method === 'GET') return { kind: 'get', role: 'read', subject }
  return { kind: method === 'HEAD' ? 'head' : 'delete', role: 'settle', subject }
}

describe('S3 under seeded faults', () => {
  let bucket: TestBucket

  before(async () => {
    bucket = await openTestBucket()
  })
  after(() => bucket.remove())

  const seeds = { millrace: faultSeeds(2, 4, 11, 13), 'lib-storage': faultSeeds(5) }
  const runs = (['millrace', 'lib-storage'] as const).flatMap((uploader) =>
    seeds[uploader].map((seed) => ({ uploader, seed })),
  )
  for (const { uploader, seed } of runs) {
    it(`every upload is whole or leaves nothing, every download is right or fails (${uploader}, seed ${seed})`, async () => {
      const { region, accessKeyId, secretAccessKey } = bucket
      const store = { bucket: bucket.bucket, region, accessKeyId, secretAccessKey, profile: 'ceph' as const }
      const settings = { ...store, uploader, partBytes: PART_BYTES }
      const report = await runTrials({
        name: `s3 on Ceph, ${uploader}`,
        seed,
        uploads: 130,
        downloads: 130,
        concurrency: 12,
        endpoint: bucket.endpoint,
        open: (endpoint) => openS3({ ...settings, endpoint, callRetry: QUICK, partRetry: QUICK, idleMs: IDLE_MS }),
        pendingUploads: async () => (await bucket.pendingUploads()).length,
        partBytes: PART_BYTES,
        classify,
        idleMs: IDLE_MS,
        attempts: QUICK.attempts,
        special: {
          complete: [
            { kind: 'answer', status: 200, body: ERROR },
            { kind: 'answer-after', status: 200, body: ERROR },
          ],
        },
        refusalBody: ERROR,
      })
      assert.ok(report.multipart >= 130 / 4, report.line)
      assert.ok((report.uploads.unknown ?? 0) <= 4, report.line)
    })
  }
})
