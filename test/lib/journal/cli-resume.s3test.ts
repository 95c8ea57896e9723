import assert from 'node:assert/strict'
import { statSync, writeFileSync } from 'node:fs'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { millrace, PASSWORD, scratch, startMillrace } from '../../support/cli.ts'
import { type FaultProxy, openFaultProxy } from '../../support/fault-proxy.ts'
import { seededBytes } from '../../support/random.ts'
import { openTestBucket, type TestBucket } from '../../support/test-bucket.ts'
import { diffTrees } from '../../support/tree.ts'

const WORLD_BYTES = 60_000_000
const PART_BYTES = 8 * 1024 * 1024

let bucket: TestBucket
let proxy: FaultProxy
let url: string
let env: NodeJS.ProcessEnv

before(async () => {
  bucket = await openTestBucket()
  proxy = await openFaultProxy(bucket.endpoint, { hashBodies: false })
  url = `s3://${bucket.bucket}/mc?endpoint=${encodeURIComponent(proxy.endpoint)}&region=${bucket.region}`
  env = { AWS_ACCESS_KEY_ID: bucket.accessKeyId, AWS_SECRET_ACCESS_KEY: bucket.secretAccessKey }
})

after(async () => {
  await proxy.close()
  await bucket.remove()
})

async function run(code: number, args: readonly string[]) {
  const result = await millrace(args, { env })
  assert.equal(result.code, code, result.stderr)
  return result
}

/** Ends a backup when so many parts of it have been answered. */
async function killed(args: readonly string[], parts: number, signal: NodeJS.Signals = 'SIGKILL') {
  let asked = 0
  proxy.follow(({ method, url: path }) => {
    if (method !== 'PUT' || !path.includes('partNumber=')) return undefined
    // The others are held back: they have not come to the server when the process is killed.
    return ++asked <= parts ? undefined : { kind: 'swallow' }
  })
  const { child, result } = startMillrace(args, { env })
  while (asked <= parts || proxy.seen.filter(isAnsweredPart).length < parts) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    assert.equal(child.exitCode, null, 'it ended before it was killed')
  }
  // Acknowledged parts are noted with the next block of the journal.
  await new Promise((resolve) => setTimeout(resolve, 200))
  child.kill(signal)
  const ended = await result
  proxy.follow(undefined)
  await proxy.idle()
  return ended
}

function isAnsweredPart({ method, url: path, serverStatus }: FaultProxy['seen'][number]): boolean {
  return method === 'PUT' && path.includes('partNumber=') && serverStatus === 200
}

test('backup --resume: a killed upload to S3 is shown by list, goes on at once under the same id, and is whole', async (t) => {
  const folder = await scratch(t)
  const [world, journals] = [join(folder, 'world'), join(folder, 'journals')]
  await mkdir(world)
  writeFileSync(join(world, 'region.mca'), seededBytes(WORLD_BYTES, 7))
  const backup = ['backup', world, '--to', url, '--journal', journals, '--resume', '--json']
  await killed(backup, 3)
  assert.equal((await bucket.pendingUploads()).length, 1)

  const listed = (await run(0, ['list', '--from', url, '--journal', journals, '--json'])).events()
  const upload = listed.find(({ event }) => event === 'upload') as Record<string, unknown>
  assert.deepEqual([upload.server, upload.state, upload.source], ['world', 'resumable', world])
  const text = (await run(0, ['list', '--from', url, '--journal', journals])).stdout.toString()
  assert.match(text, /unfinished upload of world \S+: .* stored, begun .*; backup --resume goes on with it/)

  const name = (await readdir(join(journals, 'world'))).find((one) => one.endsWith('.journal'))
  const file = join(journals, 'world', name as string)
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.ok(!(await readFile(file)).includes(PASSWORD))

  const made = (await run(0, backup)).events().find(({ event }) => event === 'snapshot') as Record<string, unknown>
  assert.equal(made.id, upload.id)
  const { heldBytes, sentBytes } = made.takenUp as { heldBytes: number; sentBytes: number }
  assert.ok(heldBytes >= 3 * PART_BYTES, `${heldBytes} bytes were held`)
  assert.equal(heldBytes + sentBytes, made.storedBytes)
  assert.deepEqual(await bucket.pendingUploads(), [])
  assert.deepEqual(await readdir(join(journals, 'world')), [])
  await run(0, ['verify', '--from', url, '--server', 'world'])
  await run(0, ['restore', 'latest', '--from', url, '--server', 'world', '--target', join(folder, 'out')])
  assert.deepEqual(diffTrees(world, join(folder, 'out')), [])
})

test('backup --resume: Ctrl-C leaves the upload, and says so', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'interrupted')
  await mkdir(world)
  writeFileSync(join(world, 'region.mca'), seededBytes(WORLD_BYTES, 11))
  const backup = ['backup', world, '--to', url, '--journal', join(folder, 'journals'), '--resume']
  const { code, stderr } = await killed(backup, 3, 'SIGINT')
  assert.equal(code, 130, stderr)
  assert.match(stderr, /stay in the store\. The same command with --resume goes on with them/)
  assert.equal((await bucket.pendingUploads()).length, 1)
  const again = await run(0, backup)
  assert.match(again.stdout.toString() + again.stderr, /taken up: begun .*were in the store/)
  assert.deepEqual(await bucket.pendingUploads(), [])
  await run(0, ['verify', '--from', url, '--server', 'interrupted'])
})

test('backup --resume: where the world has changed it says so and begins anew; --resume=strict stops with exit code 5', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'other')
  await mkdir(world)
  writeFileSync(join(world, 'region.mca'), seededBytes(WORLD_BYTES, 8))
  const backup = ['backup', world, '--to', url, '--journal', join(folder, 'journals')]
  await killed([...backup, '--resume'], 3)
  writeFileSync(join(world, 'region.mca'), seededBytes(WORLD_BYTES, 9))
  const strict = await run(5, [...backup, '--resume=strict'])
  assert.match(strict.stderr, /cannot be taken up\. .*differ in frame 0/)
  assert.equal((await bucket.pendingUploads()).length, 1)
  const anew = await run(0, [...backup, '--resume'])
  assert.match(anew.stderr, /is not taken up\. .*differ in frame 0/)
  assert.deepEqual(await bucket.pendingUploads(), [])
  await run(0, ['verify', '--from', url, '--server', 'other'])
})

test('backup --resume: to a store whose uploads cannot be taken up it is a wrong usage', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  writeFileSync(join(folder, 'world', 'level.dat'), 'level')
  const refused = await run(2, ['backup', join(folder, 'world'), '--to', `file://${folder}/backups`, '--resume'])
  assert.match(refused.stderr, /cannot be taken up/)
  const unknown = await run(2, ['backup', join(folder, 'world'), '--to', url, '--resume=never'])
  assert.match(unknown.stderr, /--resume=strict/)
})

test('resume: true in the config: the next backup of the server goes on, without an option', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  writeFileSync(join(folder, 'world', 'region.mca'), seededBytes(WORLD_BYTES, 10))
  writeFileSync(
    join(folder, 'millrace.yaml'),
    `destinations:
  s3: { provider: s3, bucket: ${bucket.bucket}, endpoint: '${proxy.endpoint}', region: ${bucket.region} }
stateFolder: state
servers: { configured: { source: world, resume: true } }
`,
  )
  const config = ['--config', join(folder, 'millrace.yaml')]
  await killed(['backup', 'configured', ...config], 3)
  const list = (await run(0, ['list', ...config])).stdout.toString()
  assert.match(list, /unfinished upload of configured/)
  const made = (await run(0, ['backup', 'configured', ...config, '--json'])).events()
  const { takenUp } = made.find(({ event }) => event === 'snapshot') as { takenUp: { heldBytes: number } }
  assert.ok(takenUp.heldBytes >= 3 * PART_BYTES)
  await run(0, ['verify', '--server', 'configured', ...config])
})
