import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openKillBucket } from '../support/kill-bucket.ts'
import type { KillPlace } from '../support/kill-place.ts'
import { KillRounds, killAtRandom } from '../support/kill-rounds.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const KILLS = 60
const SEED = process.env.MILLRACE_SEED ?? 'service'

let bucket: TestBucket
let folder: string
let place: KillPlace

before(async () => {
  bucket = await openTestBucket()
  folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  place = await openKillBucket(bucket, folder)
})
after(async () => {
  await place.storage.close()
  await bucket.remove()
  await rm(folder, { recursive: true, force: true })
})

test('T8: a backup, a prune or a restore over S3 that is killed at a named moment leaves what that moment says', async () => {
  const rounds = await KillRounds.open(place, 'named', SEED)
  for (const [kind, when, at, nth, found, overwrite] of [
    ['backup', 'after', 'lease put', 0, /^absent$/],
    ['backup', 'before', 'object begin', 0, /^absent$/],
    ['backup', 'after', 'object begin', 0, /^absent$/],
    ['backup', 'within', 'object part', 0, /^absent$/],
    ['backup', 'after', 'object part', 1, /^absent$/],
    ['backup', 'before', 'object complete', 0, /^absent$/],
    ['backup', 'after', 'object complete', 0, /^unfinished$/],
    ['backup', 'before', 'object head', 0, /^unfinished$/],
    ['backup', 'before', 'companion put', 0, /^unfinished$/],
    ['backup', 'after', 'companion put', 0, /^complete$/],
    ['backup', 'before', 'object delete', 0, /^complete$/],
    ['backup', 'after', 'object delete', 0, /^complete, and pruned after it$/],
    ['prune', 'after', 'object delete', 0, /^[12] removed$/],
    ['prune', 'before', 'companion delete', 0, /^[12] removed$/],
    ['restore', 'within', 'object get', 0, /^absent$/, false],
    ['restore', 'before', 'file write', 0, /^absent, staged$/, false],
    ['restore', 'before', 'target renameSync', 0, /^absent, staged$/, true],
    ['restore', 'before', 'lease delete', 0, /^whole$/, true],
  ] as const) {
    const moment = { at, nth, when, share: 0.5 }
    assert.match(await rounds.kill(kind, moment, overwrite), found, `${kind} ${when} ${at}`)
  }
  await rounds.end()
})

test(`T8: after kill -9 at ${KILLS} moments over S3, what is complete is restorable, and the next run clean`, async () => {
  await killAtRandom(place, KILLS, SEED, 2)
})
