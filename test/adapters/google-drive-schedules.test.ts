import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { openGoogleDrive } from '../../adapters/google-drive.ts'
import { type DriveFake, startDriveFake } from '../fakes/drive.ts'
import type { ArrivedRequest, Fault, SeenRequest } from '../support/fault-proxy.ts'
import { faultSeeds, type RequestKind } from '../support/fault-schedule.ts'
import { rounds } from '../support/rounds.ts'
import { runTrials } from '../support/storage-trials.ts'

const MiB = 1024 * 1024
/** Few attempts, so that some calls use them up; waits of no length. */
const QUICK = { attempts: 3, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
const IDLE_MS = 1000
/** All keys of the trials begin so, and it is a folder. */
const FOLDER = 'trials'

const errorBody = (code: number, reason: string) =>
  JSON.stringify({ error: { code, message: reason, errors: [{ domain: 'global', reason, message: reason }] } })
const answer = (status: number, reason: string): Fault => ({ kind: 'answer', status, body: errorBody(status, reason) })
const SPECIAL = [answer(403, 'rateLimitExceeded'), answer(429, 'rateLimitExceeded')]

/** https://developers.google.com/workspace/drive/api/reference/rest/v3/files, and the guide to uploads. */
function classifier(fake: DriveFake): (request: ArrivedRequest) => RequestKind {
  const keyOf = (name: string | undefined) => (name === undefined ? {} : { subject: `${FOLDER}/${name}` })
  return (request) => {
    const { method, url, headers } = request
    const { pathname, searchParams: query } = new URL(url, 'http://drive')
    const uploadId = query.get('upload_id')
    if (uploadId !== null) {
      const key = keyOf(fake.state.sessionNames.get(uploadId))
      if (method === 'DELETE') return { kind: 'cancel', role: 'settle', ...key }
      const range = String(headers['content-range'])
      if (!range.endsWith('/*')) return { kind: 'commit', role: 'commit', ...key }
      return { kind: range.includes('-') ? 'part' : 'status', ...key }
    }
    if (pathname.startsWith('/upload/')) {
      // Which key it is about is only known once its body has come.
      const name = /"name":"([^"]*)"/.exec((request as Partial<SeenRequest>).bodyHead ?? '')?.[1]
      const isWhole = query.get('uploadType') === 'multipart'
      return { kind: isWhole ? 'whole' : 'begin', role: isWhole ? 'commit' : 'begin', ...keyOf(name) }
    }
    const id = /^\/drive\/v3\/files\/([^/]+)$/.exec(pathname)?.[1]
    if (id === undefined || id === 'generateIds') {
      const name = /^name = '([^']*)' and mimeType !=/.exec(query.get('q') ?? '')?.[1]
      return { kind: name === undefined ? `${method} ${pathname}` : 'lookup', ...keyOf(name) }
    }
    const name = fake.state.fileNames.get(id)
    // An id whose file is not there yet is of the trial that asked for it, and of no other: it proves nothing to them.
    const key = name === undefined ? { subject: `the id ${id}` } : keyOf(name)
    if (query.get('alt') === 'media') return { kind: 'media', role: 'read', ...key }
    // Of a replacement two files have to do with one key: what is known of one says nothing of the other.
    return { kind: `${method === 'DELETE' ? 'delete' : 'get'} ${id}`, role: 'settle', ...key }
  }
}

describe('Google Drive under seeded faults', () => {
  for (const [seed, partBytes] of faultSeeds(...rounds([1, 3], [1, 2, 3])).map(
    (seed) => [seed, seed % 3 === 0 ? 2 * MiB : MiB / 4] as const,
  )) {
    it(`every upload is whole or leaves nothing, every download is right or fails (seed ${seed})`, async () => {
      const fake = await startDriveFake()
      try {
        const { clientId, clientSecret, refreshToken = '' } = fake.state
        const settings = { clientId, clientSecret, refreshToken, folder: 'backups', partBytes, idleMs: IDLE_MS }
        const report = await runTrials({
          name: `google-drive on its fake, parts of ${partBytes / 1024} KiB`,
          seed,
          uploads: 100,
          downloads: 100,
          concurrency: 8,
          endpoint: fake.origin,
          open: (endpoint) => {
            const endpoints = { api: endpoint, token: endpoint }
            return openGoogleDrive({ ...settings, endpoints, callRetry: QUICK, partRetry: QUICK })
          },
          pendingUploads: async () => fake.pendingSessions,
          partBytes,
          multipartShare: 0.5,
          classify: classifier(fake),
          idleMs: IDLE_MS,
          attempts: QUICK.attempts,
          special: { part: SPECIAL, commit: SPECIAL, whole: SPECIAL, begin: SPECIAL, lookup: SPECIAL, media: SPECIAL },
          refusalBody: errorBody(503, 'backendError'),
        })
        assert.ok(report.multipart >= 100 / 4, report.line)
        assert.ok((report.uploads.unknown ?? 0) <= 4, report.line)
      } finally {
        await fake.close()
      }
    })
  }
})
