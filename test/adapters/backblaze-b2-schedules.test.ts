import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openB2 } from '../../adapters/backblaze-b2.ts'
import { FakeB2 } from '../fakes/b2.ts'
import type { ArrivedRequest } from '../support/fault-proxy.ts'
import { faultSeeds, type RequestKind } from '../support/fault-schedule.ts'
import { rounds } from '../support/rounds.ts'
import { runTrials } from '../support/storage-trials.ts'

const PART_BYTES = 128 * 1024
/** Few attempts, so that some calls use them up; waits of no length. */
const QUICK = { attempts: 3, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
const IDLE_MS = 1_000
/** Tokens last no longer: not by the clock, or a machine that is busy would get none that lasts for one request. */
const TOKEN_REQUESTS = 60
const ERROR = '{"status":503,"code":"service_unavailable","message":"c001_v0001001_t0001 is too busy"}'
const EXPIRED = '{"status":401,"code":"expired_auth_token","message":"Authorization token has expired"}'

/** https://www.backblaze.com/apidocs */
const KINDS: Record<string, RequestKind> = {
  b2_authorize_account: { kind: 'authorize', role: 'renew' },
  b2_list_buckets: { kind: 'buckets' },
  b2_get_upload_url: { kind: 'url' },
  b2_upload_file: { kind: 'put', role: 'commit' },
  b2_start_large_file: { kind: 'start', role: 'begin' },
  b2_get_upload_part_url: { kind: 'part-url' },
  b2_upload_part: { kind: 'part' },
  b2_finish_large_file: { kind: 'finish', role: 'commit' },
  b2_cancel_large_file: { kind: 'cancel', role: 'settle' },
  b2_list_file_versions: { kind: 'versions', role: 'settle' },
  b2_list_unfinished_large_files: { kind: 'unfinished', role: 'settle' },
  b2_delete_file_version: { kind: 'delete', role: 'settle' },
  b2_get_file_info: { kind: 'info', role: 'settle' },
  b2_download_file_by_id: { kind: 'get', role: 'read' },
}

function classify(fake: FakeB2, { url, headers, json }: ArrivedRequest): RequestKind {
  const { pathname, searchParams } = new URL(url, 'http://b2')
  const [, area, , name = '', target = ''] = pathname.split('/')
  const named = (subject: string | undefined) => (subject === undefined ? {} : { subject })
  if (area === 'file') {
    return { kind: 'get', role: 'read', subject: decodeURIComponent(pathname.replace(/^\/file\/[^/]+\//, '')) }
  }
  // Only once it has arrived is it known which file a call is about.
  const body = parsed(json)
  const given = headers['x-bz-file-name'] ?? body.fileName
  const prefix = body.prefix ?? body.namePrefix
  const id = body.fileId ?? searchParams.get('fileId') ?? target
  const subject = typeof given === 'string' ? decodeURIComponent(given) : (fake.store.names.get(String(id)) ?? prefix)
  if (name === 'b2_list_file_names') {
    const isStat = prefix !== undefined && prefix === body.startFileName
    return isStat ? { kind: 'stat', role: 'settle', ...named(String(subject)) } : { kind: 'list' }
  }
  const found = KINDS[name]
  assert.ok(found, `no kind for ${name}`)
  return { ...found, ...named(subject as string | undefined) }
}

function parsed(json: string | undefined): Record<string, unknown> {
  try {
    return JSON.parse(json ?? '{}')
  } catch {
    // A body that broke off.
    return {}
  }
}

describe('B2 under seeded faults', () => {
  for (const seed of faultSeeds(...rounds([1], [1, 2]))) {
    it(`every upload is whole or leaves nothing, every download is right or fails (seed ${seed})`, async () => {
      const fake = await new FakeB2({ minPartBytes: PART_BYTES, tokenRequests: TOKEN_REQUESTS }).start()
      const { bucketName: bucket } = fake.store.addBucket('worlds')
      const { keyId, applicationKey } = fake.store.addKey()
      const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES, pageSize: 7 }
      const retries = { callRetry: QUICK, partRetry: QUICK, idleMs: IDLE_MS }
      try {
        const report = await runTrials({
          name: 'backblaze-b2 on a fake B2',
          seed,
          uploads: 120,
          downloads: 120,
          concurrency: 12,
          endpoint: fake.origin,
          open: (endpoint) => openB2({ keyId, applicationKey, bucket, endpoint, ...sizes, ...retries }),
          pendingUploads: async () => fake.unfinished.length,
          partBytes: PART_BYTES,
          idleMs: IDLE_MS,
          attempts: QUICK.attempts,
          multipartShare: 0.5,
          classify: (request) => classify(fake, request),
          special: {
            put: [{ kind: 'answer', status: 401, body: EXPIRED }],
            part: [{ kind: 'answer', status: 401, body: EXPIRED }],
            finish: [{ kind: 'answer-after', status: 503, body: ERROR }],
            url: [{ kind: 'answer', status: 429, body: ERROR }],
          },
          refusalBody: ERROR,
        })
        assert.ok((report.uploads.unknown ?? 0) <= 4, report.line)
        assert.deepEqual([...fake.store.files.values()], [], 'a version is left')
      } finally {
        await fake.close()
      }
    })
  }
})
