import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, type TestContext, test } from 'node:test'
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  PutBucketPolicyCommand,
} from '@aws-sdk/client-s3'
import { type Backups, openBackups, openStorage } from '../../lib/index.ts'
import { type CliOptions, millrace, scratch } from '../support/cli.ts'
import { createTestUser, type TestUser } from '../support/radosgw-admin.ts'
import { seededBytes } from '../support/random.ts'
import { DAY_MS, keysIn, putSnapshot } from '../support/retention.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const MIB = 1024 * 1024
const key = Buffer.alloc(32, 9)
let bucket: TestBucket
let env: NodeJS.ProcessEnv

before(async () => {
  bucket = await openTestBucket()
  env = { AWS_ACCESS_KEY_ID: bucket.accessKeyId, AWS_SECRET_ACCESS_KEY: bucket.secretAccessKey }
  Object.assign(process.env, env)
})
after(() => bucket.remove())

const urlOf = (name: string, prefix: string, more = '') =>
  `s3://${name}/${prefix}?endpoint=${encodeURIComponent(bucket.endpoint)}&region=${bucket.region}${more}`

async function run(code: number, args: readonly string[], options: CliOptions = {}) {
  const result = await millrace(args, { ...options, env: { ...env, ...options.env } })
  assert.equal(result.code, code, `${result.stdout}${result.stderr}`)
  assert.doesNotMatch(result.stderr, /^\s+at /m)
  return result
}

async function open(t: TestContext, server: string): Promise<Backups> {
  const storage = await openStorage(urlOf(bucket.bucket, 'pruned'))
  t.after(() => storage.close())
  return openBackups({ storage, server, key })
}

test('T30: deletes that Object Lock refuses are deferred with an exit code of their own, and the snapshots stay', async (t) => {
  const name = `${bucket.bucket}-lock`
  await bucket.client.send(new CreateBucketCommand({ Bucket: name, ObjectLockEnabledForBucket: true }))
  t.after(async () => {
    const page = await bucket.client.send(new ListObjectVersionsCommand({ Bucket: name }))
    for (const { Key, VersionId } of [...(page.Versions ?? []), ...(page.DeleteMarkers ?? [])]) {
      const target = { Bucket: name, Key, VersionId, BypassGovernanceRetention: true }
      await bucket.client.send(new DeleteObjectCommand(target))
    }
    await bucket.client.send(new DeleteBucketCommand({ Bucket: name }))
  })
  const url = urlOf(name, 'kept', '&objectLock=GOVERNANCE:3')
  const world = join(await scratch(t), 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), seededBytes(1000, 1))
  const state = ['--state-dir', join(await scratch(t), 'state')]
  await run(0, ['backup', world, '--to', url])
  const backup = await run(7, ['backup', world, '--to', url, '--prune', '--keep-last', '1'])
  assert.match(backup.stdout.toString(), /locked by the store, so left for a later prune: 1/)
  const prune = ['prune', '--from', url, '--server', 'world', '--keep-last', '1', ...state]
  const events = (await run(7, [...prune, '--json'])).events()
  assert.deepEqual(
    events.map(({ event, outcome, code, deferred }) => [event, outcome ?? code, deferred]),
    [
      ['decision', 'deferred', undefined],
      ['decision', 'kept', undefined],
      ['problem', 'LOCKED', true],
      ['prune', undefined, undefined],
    ],
  )
  await run(0, [...prune, '--dry-run'])
  const id = events[0]?.id as string
  await run(0, ['verify', id, '--from', url, '--server', 'world'])
  await run(2, ['list', '--from', url.replace('GOVERNANCE:3', 'forever')])
})

test('T21: a prune while a snapshot is uploaded and another is restored leaves both alone', async (t) => {
  const backups = await open(t, 'busy')
  const stateDir = join(await scratch(t), 'state')
  const first = await backups.create(Readable.from([seededBytes(40 * MIB, 1)], { objectMode: false }))
  await backups.create(Readable.from([seededBytes(MIB, 2)], { objectMode: false }))
  const prune = () => backups.prune({ keepLast: 1 }, { stateDir })
  const outcomes: string[][] = []
  async function* slowly() {
    yield seededBytes(30 * MIB, 3)
    while ((await bucket.pendingUploads()).length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
    let pruned: Promise<unknown> | undefined
    const restoring = backups.restore(first.id, join(await scratch(t), 'out'), {
      onProgress() {
        pruned ??= prune().then(({ snapshots }) => outcomes.push(snapshots.map(({ outcome }) => outcome)))
      },
    })
    assert.equal((await restoring).verified, true)
    await pruned
    yield seededBytes(MIB, 4)
  }
  const last = await backups.create(Readable.from(slowly(), { objectMode: false }))
  assert.deepEqual(outcomes, [['in-use', 'kept']])
  assert.equal((await backups.verify(last.id)).status, 'ok')
  const report = await prune()
  assert.deepEqual(
    report.snapshots.map(({ outcome }) => outcome),
    ['removed', 'removed', 'kept'],
  )
  assert.deepEqual(await keysIn(backups.storage, 'busy/'), [last.key, `${last.key}.sha256`])
})

test('T20: the clocks of this machine and of a real store agree, and prune says nothing', async (t) => {
  const backups = await open(t, 'clocks')
  for (const days of [1, 2, 3]) await putSnapshot(backups.storage, Date.now() - days * DAY_MS, { server: 'clocks' })
  const report = await backups.prune({ keepLast: 2 }, { stateDir: await scratch(t) })
  assert.deepEqual(
    report.snapshots.map(({ outcome }) => outcome),
    ['removed', 'kept', 'kept'],
  )
})

test('a key that may only read restores and verifies; one that may not delete fails to prune, and says so', async (t) => {
  const user: TestUser = await createTestUser(bucket)
  t.after(() => user.remove())
  const allow = async (...rights: string[]) => {
    const Resource = [`arn:aws:s3:::${bucket.bucket}`, `arn:aws:s3:::${bucket.bucket}/*`]
    const Statement = [{ Effect: 'Allow', Principal: { AWS: [user.arn] }, Action: rights, Resource }]
    const Policy = JSON.stringify({ Version: '2012-10-17', Statement })
    await bucket.client.send(new PutBucketPolicyCommand({ Bucket: bucket.bucket, Policy }))
  }
  const theirs = { env: { AWS_ACCESS_KEY_ID: user.accessKeyId, AWS_SECRET_ACCESS_KEY: user.secretAccessKey } }
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), seededBytes(1000, 1))
  const url = urlOf(bucket.bucket, 'rights')
  const from = ['--from', url, '--server', 'world']
  for (let made = 0; made < 2; made += 1) await run(0, ['backup', world, '--to', url])

  await allow('s3:ListBucket', 's3:GetObject')
  const restored = await run(0, ['restore', 'latest', ...from, '--target', join(folder, 'out')], theirs)
  assert.match(restored.stderr, /Note: No lease could be written/)
  assert.match((await run(0, ['verify', ...from], theirs)).stderr, /Note: No lease/)
  assert.match((await run(0, ['cat', 'latest', 'level.dat', ...from], theirs)).stderr, /Note: No lease/)
  const all = await run(0, ['verify', '--all', ...from], theirs)
  assert.equal(all.stderr.match(/Note: No lease/g)?.length, 1)
  const prune = ['prune', ...from, '--keep-last', '1', '--state-dir', join(folder, 'state')]
  await run(0, [...prune, '--dry-run'], theirs)
  await run(1, prune, theirs)

  await allow('s3:ListBucket', 's3:GetObject', 's3:PutObject', 's3:ListBucketMultipartUploads')
  const refused = (await run(1, [...prune, '--json'], theirs)).events()
  assert.equal(refused.find(({ event }) => event === 'problem')?.code, 'ACCESS_DENIED')
  const storage = await openStorage(url)
  t.after(() => storage.close())
  assert.equal((await keysIn(storage, 'world/')).filter((name) => !name.includes('/.lease/')).length, 4)
  // What that key could not remove is of a process that died, and keeps the owner's prune from nothing.
  await run(0, prune)
  assert.equal((await keysIn(storage, 'world/')).filter((name) => !name.includes('/.lease/')).length, 2)
})
