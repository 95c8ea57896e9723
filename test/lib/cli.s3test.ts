import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { openStorage, type Storage } from '../../lib/index.ts'
import { BIN, type CliOptions, millrace, PASSWORD, scratch } from '../support/cli.ts'
import { assertNoSecrets } from '../support/no-secrets.ts'
import { feed, sample } from '../support/streams.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'
import { diffTrees, makeTree, oddTree } from '../support/tree.ts'
import { NO_WORLDS, WORLDS } from '../support/worlds.ts'

let bucket: TestBucket
let url: string
let storage: Storage
let env: NodeJS.ProcessEnv

before(async () => {
  bucket = await openTestBucket()
  url = `s3://${bucket.bucket}/backups?endpoint=${encodeURIComponent(bucket.endpoint)}&region=${bucket.region}`
  env = { AWS_ACCESS_KEY_ID: bucket.accessKeyId, AWS_SECRET_ACCESS_KEY: bucket.secretAccessKey }
  Object.assign(process.env, env)
  storage = await openStorage(url)
})

after(async () => {
  await storage.close()
  await bucket.remove()
})

async function run(code: number, args: readonly string[], options: CliOptions = {}) {
  const result = await millrace(args, { ...options, env: { ...env, ...options.env } })
  assert.equal(result.code, code, result.stderr)
  assert.doesNotMatch(result.stderr, /^\s+at /m)
  assert.ok(!result.stderr.includes(bucket.secretAccessKey))
  return result
}

async function keys(server: string): Promise<string[]> {
  return (await Array.fromAsync(storage.list(`${server}/`))).map(({ key }) => key).sort()
}

test('a world makes the round trip through S3, in parts, and its companion fits', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await makeTree(world, oddTree())
  await writeFile(join(world, 'region.mca'), sample(60_000_000))
  await run(0, ['backup', world, '--to', url])
  await run(0, ['verify', '--from', url, '--server', 'world'])
  await run(0, ['inspect', 'latest', '--from', url, '--server', 'world'])
  await run(0, ['restore', 'latest', '--from', url, '--server', 'world', '--target', join(folder, 'out')])
  assert.deepEqual(diffTrees(world, join(folder, 'out')), [])
  const [object, companion] = await keys('world')
  const bytes = Buffer.concat(await Array.fromAsync(storage.createReadStream(object as string)))
  await writeFile(join(folder, (object as string).split('/')[1] as string), bytes)
  const text = Buffer.concat(await Array.fromAsync(storage.createReadStream(companion as string)))
  await writeFile(join(folder, 'sums'), text)
  assert.match(execFileSync('sha256sum', ['-c', 'sums'], { cwd: folder }).toString(), /: OK/)
  assert.equal(text.toString().slice(0, 64), createHash('sha256').update(bytes).digest('hex'))
  const list = await run(0, ['list', '--from', url])
  // What was made here is known without opening it: the version in a listing is that of stat.
  assert.match(list.stdout.toString(), /world .* live +complete/)
})

test('a real world makes the round trip through S3', { skip: NO_WORLDS }, async (t) => {
  const folder = await scratch(t)
  await run(0, ['backup', WORLDS, '--to', url, '--server', 'real'])
  await run(0, ['restore', 'latest', '--from', url, '--server', 'real', '--target', join(folder, 'out')])
  execFileSync('diff', ['-r', WORLDS, join(folder, 'out')])
  assert.deepEqual(diffTrees(WORLDS, join(folder, 'out')), [])
})

test('T4: a source that dies half-way leaves no object and no upload', async () => {
  const command = ['backup', '--to', url, '--server', 'dying', '--from-command', '--', 'sh', '-c']
  const failed = await run(1, [...command, 'head -c 60000000 /dev/urandom; exit 3'])
  assert.match(failed.stderr, /exit code 3/)
  await run(1, [...command, 'head -c 60000000 /dev/urandom; kill -9 $$'])
  assert.deepEqual(await keys('dying'), [])
  assert.deepEqual(await bucket.pendingUploads(), [])
})

test('T9: SIGINT in the middle of an upload leaves no object and no upload', async () => {
  const args = ['backup', '--to', url, '--server', 'stopped', '--from-command', '--', 'cat', '/dev/urandom']
  const child = spawn(process.execPath, [BIN, ...args], {
    env: { ...process.env, ...env, MILLRACE_PASSWORD: PASSWORD },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  const exit = new Promise<number | null>((resolve) => child.on('close', resolve))
  while ((await bucket.pendingUploads()).length === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  child.kill('SIGINT')
  assert.equal(await exit, 130, said)
  assert.match(said, /Interrupted/)
  assertNoSecrets(said, { args, env: { ...env, MILLRACE_PASSWORD: PASSWORD } })
  assert.deepEqual(await keys('stopped'), [])
  assert.deepEqual(await bucket.pendingUploads(), [])
})

test('an endpoint that does not answer, a missing bucket and wrong keys are told in a sentence', async (t) => {
  const world = join(await scratch(t), 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(1000))
  const nowhere = 's3://bucket/x?endpoint=http://127.0.0.1:9&region=us-east-1'
  for (const args of [
    ['backup', world, '--to', nowhere],
    ['list', '--from', nowhere],
  ]) {
    assert.match((await run(1, args)).stderr, /nothing answers at http:\/\/127\.0\.0\.1:9/)
  }
  const missing = url.replace(bucket.bucket, 'no-such-bucket-here')
  for (const args of [
    ['backup', world, '--to', missing],
    ['list', '--from', missing],
  ]) {
    assert.match((await run(1, args)).stderr, /no such bucket/)
  }
  const wrong = { AWS_SECRET_ACCESS_KEY: 'not-the-secret-not-the-secret-not-the-se' }
  assert.match(
    (await run(1, ['backup', world, '--to', url], { env: wrong })).stderr,
    /secret key does not fit|access is denied/,
  )
  assert.match((await run(2, ['list', '--from', url.replace('s3://', 's3://key:secret@')])).stderr, /credentials/)
})

test('T26 and T34: a wrong password and a damaged object restore nothing', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'small')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(1000))
  await run(0, ['backup', world, '--to', url])
  const restore = ['restore', 'latest', '--from', url, '--server', 'small', '--target', join(folder, 'out')]
  await run(4, restore, { env: { MILLRACE_PASSWORD: 'guess' } })
  const [object] = await keys('small')
  const bytes = Buffer.concat(await Array.fromAsync(storage.createReadStream(object as string)))
  bytes[100] = (bytes[100] as number) ^ 1
  await pipeline(feed(bytes), storage.createWriteStream(object as string))
  await run(4, restore)
  assert.deepEqual(await readdir(folder), ['small'])
  assert.equal((await readFile(join(world, 'level.dat'))).length, 1000)
})
