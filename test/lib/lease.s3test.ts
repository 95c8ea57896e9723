import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openStorage } from '../../lib/index.ts'
import { raceBackups } from '../support/backup-race.ts'
import { scratch } from '../support/cli.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

let bucket: TestBucket

before(async () => {
  bucket = await openTestBucket()
  process.env.AWS_ACCESS_KEY_ID = bucket.accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = bucket.secretAccessKey
})

after(() => bucket.remove())

for (const [name, hidden] of [
  ['with conditional writes', [true, true]],
  ['without', [false, false]],
  ['of which one does not know of conditional writes', [true, false]],
] as const) {
  test(`T22: processes that back one server up to S3 at once, 50 times: one runs (${name})`, async (t) => {
    const mark = join(await scratch(t), 'mark')
    const { endpoint, region } = bucket
    const config = { provider: 's3', bucket: bucket.bucket, endpoint, region, profile: 'ceph' } as const
    const storage = await openStorage(config)
    t.after(() => storage.close())
    assert.equal(storage.conditionalWrites, true)
    await raceBackups(
      t,
      hidden.map((conditional) => ({ config, conditional, mark })),
      50,
    )
    assert.deepEqual(await Array.fromAsync(storage.list('survival/.lease/')), [])
  })
}
