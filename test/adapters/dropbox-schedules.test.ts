import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openDropbox } from '../../adapters/dropbox.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import type { ArrivedRequest, Fault } from '../support/fault-proxy.ts'
import { faultSeeds, type RequestKind } from '../support/fault-schedule.ts'
import { rounds } from '../support/rounds.ts'
import { runTrials } from '../support/storage-trials.ts'

const BLOCK_BYTES = 128 * 1024
/** Few attempts, so that some calls use them up; waits of no length. */
const QUICK = { attempts: 4, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
const IDLE_MS = 1500
/** Of each seed. */
const TRIALS = 30

const ROLES: Record<string, RequestKind> = {
  'files/upload': { kind: 'upload', role: 'commit' },
  'files/upload_session/start': { kind: 'start' },
  'files/upload_session/append_v2': { kind: 'append' },
  'files/upload_session/finish': { kind: 'finish', role: 'commit' },
  'files/download': { kind: 'download', role: 'read' },
  'files/get_metadata': { kind: 'metadata', role: 'settle' },
  'files/delete_v2': { kind: 'delete', role: 'settle' },
  'files/list_folder': { kind: 'list' },
  'files/list_folder/continue': { kind: 'list' },
}

/** Most requests tell their path in the body alone, so trials run one at a time, and have no subject. */
function classify({ url }: ArrivedRequest): RequestKind {
  return ROLES[url.replace(/^\/2\//, '')] ?? { kind: 'token' }
}

function answer(status: number, error: unknown, headers: Record<string, string> = {}): Fault {
  const body = JSON.stringify({ error_summary: '…/..', error })
  return { kind: 'answer', status, headers: { 'content-type': 'application/json', ...headers }, body }
}

const EXPIRED = answer(401, { '.tag': 'expired_access_token' })
const LIMITED = answer(429, { reason: { '.tag': 'too_many_requests' }, retry_after: 0 }, { 'retry-after': '0' })
const BUSY = { '.tag': 'too_many_write_operations' }

// Each on a server of its own, all at once: they mostly wait.
describe('Dropbox under seeded faults', { concurrency: true }, () => {
  for (const seed of faultSeeds(...rounds([1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8]))) {
    it(`every upload is whole or leaves nothing, every download is right or fails (seed ${seed})`, async () => {
      const fake = await FakeDropbox.open({ blockBytes: BLOCK_BYTES })
      try {
        fake.sessions.keepFinished = seed % 4 < 2
        fake.repeatsEntries = true
        const session = seed % 2 ? 'concurrent' : 'sequential'
        const settings = { ...fake.credentials, root: '/trials', session, blockBytes: BLOCK_BYTES } as const
        const more = { partBytes: BLOCK_BYTES, callRetry: QUICK, partRetry: QUICK, idleMs: IDLE_MS, pageSize: 4 }
        const report = await runTrials({
          name: `dropbox, ${session} sessions`,
          seed,
          uploads: TRIALS,
          downloads: TRIALS,
          concurrency: 1,
          endpoint: fake.origin,
          open: (endpoint) => openDropbox({ ...settings, ...more, endpoint }),
          // A session that is never finished is no upload that is left: see UploadSession.
          pendingUploads: async () => 0,
          partBytes: BLOCK_BYTES,
          classify,
          idleMs: IDLE_MS,
          attempts: QUICK.attempts,
          special: {
            append: [EXPIRED, LIMITED],
            finish: [EXPIRED, LIMITED, answer(409, BUSY)],
            upload: [EXPIRED, answer(409, { '.tag': 'path', reason: BUSY, upload_session_id: 'x' })],
            download: [EXPIRED, LIMITED],
            metadata: [EXPIRED, LIMITED],
            list: [answer(409, { '.tag': 'reset' })],
          },
          refusalBody: 'Internal Server Error',
        })
        assert.ok(report.multipart >= TRIALS / 6, report.line)
        assert.ok((report.uploads.unknown ?? 0) <= 3, report.line)
      } finally {
        await fake.close()
      }
    })
  }
})
