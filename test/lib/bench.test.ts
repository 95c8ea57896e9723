import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { FakeB2 } from '../fakes/b2.ts'
import { refusal } from '../fakes/b2-store.ts'
import { millrace, scratch } from '../support/cli.ts'
import { runMany } from '../support/config-place.ts'
import { sample } from '../support/streams.ts'

const QUICK = ['--size', '4MiB', '--seconds', '0.05']

async function worldIn(folder: string): Promise<string> {
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  await writeFile(join(world, 'region.mca'), Buffer.concat([sample(600_000), randomBytes(600_000)]))
  return world
}

/** A bucket of a server of our own, and how the command reaches it. */
async function bucket(t: TestContext) {
  const fake = await new FakeB2().start()
  t.after(() => fake.close())
  const { bucketName } = fake.store.addBucket('worlds')
  const { keyId, applicationKey } = fake.store.addKey()
  const env = { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey, MILLRACE_PASSWORD: undefined }
  return { fake, env, url: `b2://${bucketName}?endpoint=${fake.origin}` }
}

test('bench measures a server of the config and its destination, says what limits, and leaves nothing', async (t) => {
  const folder = await scratch(t)
  const world = await worldIn(folder)
  const before = await readFile(join(world, 'region.mca'))
  await writeFile(
    join(folder, 'millrace.yaml'),
    `destinations: { disk: { provider: filesystem, root: store } }
servers: { survival: { source: world, level: 6 } }
encryption: { password: '\${NOT_SET}' }
`,
  )
  // No password is there, and none is needed.
  const run = await millrace(['bench', ...QUICK], { cwd: folder, env: { MILLRACE_PASSWORD: undefined } })
  const said = run.stdout.toString()
  assert.equal(run.code, 0, run.stderr)
  for (const stage of [
    'reading',
    'zstd, level 1',
    'AES-256-GCM',
    'SHA-256',
    'all of it, level 6',
    'write',
    'read back',
  ])
    assert.match(said, new RegExp(`^${stage} +[\\d.]+ .iB/s +[\\d.]+ .iB/s +\\d`, 'm'))
  assert.match(said, /^zstd, level 6 .*as now$/m)
  assert.match(said, /^What limits: .* at [\d.]+ .iB\/s of your data\./m)
  assert.match(said, /^A backup of these 1\.\d+ MiB takes about /m)
  assert.match(said, /^(Keep|Set) level /m)
  assert.match(run.stderr, /^Note: Up to 4\.00 MiB will be written to disk,/m)
  assert.deepEqual(await readFile(join(world, 'region.mca')), before)
  assert.deepEqual((await readdir(world)).sort(), ['level.dat', 'region.mca'])
  assert.ok(!existsSync(join(folder, 'store')))
})

test('bench sends to a bucket, says so before, and leaves nothing there, also when it refuses an upload', async (t) => {
  const { fake, env, url } = await bucket(t)
  const folder = await scratch(t)
  const world = await worldIn(folder)
  const args = ['bench', world, '--to', url, '--server', 'survival', ...QUICK]
  const good = await millrace([...args, '--json'], { env })
  assert.equal(good.code, 0, good.stderr)
  const events = good.events()
  const warning = events.find(({ event }) => event === 'warning') as { kind: string; message: string }
  assert.equal(warning.kind, 'bench')
  assert.match(warning.message, /^Up to 4\.00 MiB will be sent to b2:/)
  const found = events.find(({ event }) => event === 'bench') as {
    stores: { sentBytes: number; partBytes: number; notCompared: string; uploads: unknown[] }[]
    estimate: { bytes: number; nowMs: number }
  }
  const [store, ...others] = found.stores
  assert.equal(others.length, 0)
  assert.ok(store && store.sentBytes > 0 && store.sentBytes <= 4 * 1024 ** 2)
  assert.equal(store.partBytes, 8 * 1024 ** 2)
  assert.match(store.notCompared, /--size allows less/)
  assert.ok(found.estimate.bytes > 1_200_000 && found.estimate.nowMs > 0)
  assert.equal(fake.store.files.size, 0)

  const seen = fake.count('b2_upload_file')
  assert.ok(seen >= 4, 'the canary, trials and what was measured')
  // From the moment that the store was found to work: the canary goes.
  fake.beforeCall = (name, { fileName }) => {
    if (name === 'b2_delete_file_version' && /canary/.test(String(fileName))) {
      fake.refuse('b2_upload_file', refusal(403, 'cap_exceeded', 'the cap is reached'), { times: 99 })
    }
    return undefined
  }
  const bad = await millrace(args, { env })
  assert.equal(bad.code, 1, bad.stdout.toString())
  assert.match(bad.stderr, /cap_exceeded/)
  assert.equal(bad.stdout.toString(), '')
  assert.equal(fake.store.files.size, 0)
})

test('bench refuses what makes no sense, and a destination that does not work, before it measures', async (t) => {
  const folder = await scratch(t)
  const world = await worldIn(folder)
  await writeFile(join(folder, 'file'), 'no folder')
  await writeFile(
    join(folder, 'two.yaml'),
    `destinations: { disk: { provider: filesystem, root: store } }
servers: { survival: { source: world }, creative: { source: world } }
encryption: { password: '\${NOT_SET}' }
`,
  )
  const two = ['--config', join(folder, 'two.yaml')]
  const cases: [number, RegExp, string[]][] = [
    [2, /--size is 10kB; it has to be from 1MiB/, [world, '--size', '10kB']],
    [2, /"much" is no size/, [world, '--size', 'much']],
    [2, /--seconds has to be a number from/, [world, '--seconds', '0']],
    [2, /--seconds has to be a number from/, [world, '--seconds', 'long']],
    [2, /--level has to be a whole number from 1 to 22/, [world, '--level', '23']],
    [2, /not a URL/, [world, '--to', './store']],
    [2, /Name one server with --server: .* has survival, creative/, [...two]],
    [2, /Name one server with --server/, [world, ...two]],
    [2, /has no server called survivl\. Did you mean survival/, ['--server', 'survivl', ...two]],
    [2, /--to names neither a URL/, [world, '--to', 'dsk', ...two]],
    [
      1,
      /does not work as a destination, and nothing was measured: list fails/,
      [world, '--to', `file://${folder}/file`],
    ],
    [1, /does not exist|no such file/i, [join(folder, 'gone')]],
  ]
  const results = await runMany(
    folder,
    cases.map(([, , args]) => ({ args: ['bench', ...args] })),
  )
  for (const [at, [code, message, args]] of cases.entries()) {
    const { stderr, stdout } = results[at]!
    assert.match(stderr, message, args.join(' '))
    assert.deepEqual([results[at]!.code, stdout], [code, ''], `${args.join(' ')}: ${stderr}`)
  }
  assert.deepEqual((await readdir(folder)).sort(), ['file', 'two.yaml', 'world'])
})
