import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { loadConfig, openServer } from '../../lib/config/index.ts'
import { millrace, scratch } from '../support/cli.ts'

const OFFSITE = `provider: s3, bucket: worlds, endpoint: "http://127.0.0.1:9", region: x, accessKeyId: "\${UNOPENED_NOT_SET}", secretAccessKey: "\${UNOPENED_NOT_SET}"`

async function config(t: TestContext, destinations: string): Promise<{ folder: string; file: string }> {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  await writeFile(join(folder, 'world/level.dat'), 'level')
  const file = join(folder, 'millrace.yaml')
  const text = [
    `destinations: {offsite: {${OFFSITE}}, other: {${OFFSITE}}, disk: {provider: filesystem, root: store}}`,
    'encryption: false',
    'stateFolder: state',
    `servers: {survival: {source: world, destinations: [${destinations}]}}`,
  ]
  await writeFile(file, `${text.join('\n')}\n`)
  return { folder, file }
}

test('of several destinations one whose secret is not there is as one that is down', async (t) => {
  const { folder, file } = await config(t, 'offsite, disk')
  const run = (...args: string[]) => millrace([...args, '--config', file])
  const made = await run('backup', 'survival')
  assert.equal(made.code, 3, made.stderr)
  assert.match(String(made.stdout), /FAILED destination:offsite/)
  assert.match(made.stderr, /UNOPENED_NOT_SET, which is not set/)
  assert.equal((await readdir(join(folder, 'store/survival'))).filter((name) => name.endsWith('.sha256')).length, 1)
  for (const [command, ...args] of [['list'], ['verify', 'latest'], ['cat', 'latest', 'level.dat']] as const) {
    const { code, stderr } = await run(command, ...args)
    assert.ok(code === 0 || (code === 3 && command === 'verify'), `${command}: ${code} ${stderr}`)
    assert.match(stderr, /destination:offsite was not used.*UNOPENED_NOT_SET/)
  }
  const restored = await run('restore', 'latest', '--target', join(folder, 'restored'))
  assert.equal(restored.code, 0, restored.stderr)
  assert.equal(await readFile(join(folder, 'restored/level.dat'), 'utf8'), 'level')
})

test('alone, or with others that are no better, it is refused, and so is a mistake on the command line', async (t) => {
  const { file } = await config(t, 'offsite, other')
  for (const args of [
    ['backup', 'survival'],
    ['list', '--server', 'survival'],
    ['backup', 'survival', '--to', 'offsite'],
    ['backup', 'survival', '--to', 'disk', '--to', 's3://bucket/x?nonsense=1'],
  ]) {
    const { code, stderr } = await millrace([...args, '--config', file])
    assert.equal(code, 2, `${args.join(' ')}: ${stderr}`)
  }
  const loaded = await loadConfig(file)
  await assert.rejects(openServer(loaded, 'survival'), { code: 'USAGE', message: /UNOPENED_NOT_SET/ })
})

test('whatever is asked of it fails in the words of why it is not there', async (t) => {
  const { file } = await config(t, 'disk, offsite')
  const backups = await openServer(await loadConfig(file), 'survival')
  t.after(() => backups.close())
  const storage = backups.storages[1]
  assert.ok(storage)
  const isTold = { name: 'StorageError', code: 'ACCESS_DENIED', message: /UNOPENED_NOT_SET/ }
  await assert.rejects(storage.stat('a'), isTold)
  await assert.rejects(storage.delete('a'), isTold)
  await assert.rejects(storage.readRange('a', 0, 1), isTold)
  await assert.rejects(Array.fromAsync(storage.list('')), isTold)
  await assert.rejects(Array.fromAsync(storage.createReadStream('a')), isTold)
  for (const bytes of [[], [Buffer.from('x')]]) {
    await assert.rejects(pipeline(Readable.from(bytes), storage.createWriteStream('a')), isTold)
  }
  const { ok, steps } = await storage.probe()
  assert.equal(ok, false)
  assert.match(String(steps[0]?.error?.message), /UNOPENED_NOT_SET/)
})
