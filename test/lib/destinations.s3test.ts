import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { openStorage } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { openFaultProxy } from '../support/fault-proxy.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

let buckets: TestBucket[]
let env: NodeJS.ProcessEnv

before(async () => {
  buckets = [await openTestBucket(), await openTestBucket()]
  env = { AWS_ACCESS_KEY_ID: buckets[0]!.accessKeyId, AWS_SECRET_ACCESS_KEY: buckets[0]!.secretAccessKey }
  Object.assign(process.env, env)
})

after(() => Promise.all(buckets.map((bucket) => bucket.remove())))

const urlOf = ({ bucket, region }: TestBucket, endpoint: string) =>
  `s3://${bucket}/backups?endpoint=${encodeURIComponent(endpoint)}&region=${region}`

const SOURCE_BYTES = 60_000_000

test('T28: one pass to a folder and two buckets; where one is cut off half-way the others are complete', async (t) => {
  const folder = await scratch(t)
  const [near, far] = buckets as [TestBucket, TestBucket]
  const proxy = await openFaultProxy(far.endpoint, { hashBodies: false })
  t.after(() => proxy.close())
  const disk = `file://${folder}/store`
  const urls = [urlOf(far, proxy.endpoint), disk, urlOf(near, near.endpoint)]
  const to = urls.flatMap((url) => ['--to', url])
  const source = ['--server', 'survival', '--json', '--from-command', '--', 'head', '-c', String(SOURCE_BYTES)]

  const whole = await millrace(['backup', ...to, ...source, '/dev/urandom'], { env })
  assert.equal(whole.code, 0, whole.stderr)
  const first = whole.events().find(({ event }) => event === 'snapshot') as { key: string; id: string; sha256: string }
  for (const url of [disk, urlOf(near, near.endpoint), urlOf(far, far.endpoint)]) {
    const verified = await millrace(['verify', first.id, '--from', url, '--server', 'survival'], { env })
    assert.equal(verified.code, 0, verified.stderr)
  }

  // The second part and all that follow are never answered: a plug that was pulled.
  let parts = 0
  proxy.follow(({ method, url }) => {
    if (method === 'PUT' && url.includes('partNumber=')) parts += 1
    return parts >= 2 ? { kind: 'swallow' } : undefined
  })
  const cut = await millrace(['backup', ...to, '--stall-timeout', '3s', ...source, '/dev/urandom'], { env })
  assert.equal(cut.code, 3, cut.stderr)
  assert.ok(parts >= 2)
  const second = cut.events().find(({ event }) => event === 'snapshot') as {
    key: string
    id: string
    destinations: { destination: string; ok: boolean; error?: { message: string } }[]
  }
  assert.deepEqual(
    second.destinations.map(({ ok }) => ok),
    [false, true, true],
  )
  assert.match(second.destinations[0]?.error?.message ?? '', /took nothing for/)
  const direct = await openStorage(urlOf(far, far.endpoint))
  t.after(() => direct.close())
  const left = (await Array.fromAsync(direct.list('survival/'))).map(({ key }) => key)
  assert.ok(!left.includes(second.key))

  // What is read falls back from the one that is cut off, or does not have it.
  proxy.follow(undefined)
  const from = urls.flatMap((url) => ['--from', url])
  const target = join(folder, 'restored')
  const args = ['restore', 'latest', ...from, '--server', 'survival', '--target', target, '--json']
  const restored = await millrace(args, { env })
  assert.equal(restored.code, 0, restored.stderr)
  assert.equal(restored.events().find(({ event }) => event === 'restored')?.id, second.id)
  assert.equal(restored.events().filter(({ kind }) => kind === 'fallback').length, 1)
})
