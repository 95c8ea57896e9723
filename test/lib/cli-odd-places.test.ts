import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { exitCodeOf } from '../../lib/cli/exit-codes.ts'
import { TransformError } from '../../transforms/index.ts'
import { BIN, millrace, scratch } from '../support/cli.ts'

const THREADED_BYTES = 72 * 1024 * 1024

interface Place {
  folder: string
  world: string
  url: string
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), 'level')
  return { folder, world, url: `file://${folder}/store` }
}

test('a state folder that cannot be read is told in a sentence, and a store is listed without it', async (t) => {
  const { folder, world, url } = await place(t)
  assert.equal((await millrace(['backup', world, '--to', url, '--no-encryption'])).code, 0)
  const env = { MILLRACE_STATE_DIR: join(folder, 'state') }
  await mkdir(env.MILLRACE_STATE_DIR)
  // Also for root, who may read everything.
  for (const name of ['journals', 'history.jsonl']) await symlink(name, join(env.MILLRACE_STATE_DIR, name))
  const listed = await millrace(['list', '--from', url], { env })
  assert.equal(listed.code, 0, listed.stderr)
  assert.match(listed.stdout.toString(), /^world .* complete/m)
  assert.match(listed.stderr, /^Note: Uploads that can be gone on with are not shown\. .*journals cannot be read/)
  const named = ['list', '--from', url, '--journal', join(env.MILLRACE_STATE_DIR, 'journals')]
  assert.equal((await millrace(named, { env })).code, 1)
  for (const args of [['history'], ['report', '--from', url, '-o', join(folder, 'report.html')]]) {
    const { code, stderr } = await millrace(args, { env })
    assert.equal(code, 1)
    assert.match(stderr, /^millrace: The history in \/.*\/state cannot be read: it is a symlink.*\.\n$/)
  }
})

/** Runs the command in a folder that has been removed. */
function inNoFolder(folder: string, args: string[]): Promise<{ code: number; stderr: string }> {
  const script = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
  const argv = ['-c', script, join(folder, 'gone'), process.execPath, BIN, ...args]
  return new Promise((resolve) =>
    execFile('sh', argv, (error, _, stderr) => resolve({ code: Number(error?.code ?? 0), stderr })),
  )
}

test('in a folder that has been removed absolute paths are as good as ever, and others are told', async (t) => {
  const { folder, world, url } = await place(t)
  const backup = (source: string) => ['backup', source, '--to', url, '--no-encryption', '--server', 'world']
  assert.deepEqual(await inNoFolder(folder, backup(world)), { code: 0, stderr: '' })
  const config = join(folder, 'none.yaml')
  const loaded = await inNoFolder(folder, ['config', 'check', '--config', config])
  assert.equal(loaded.code, 2)
  assert.ok(loaded.stderr.includes(config), loaded.stderr)
  const restore = ['restore', 'latest', '--from', url, '--server', 'world', '--no-encryption', '--target']
  assert.equal((await inNoFolder(folder, [...restore, join(folder, 'out')])).code, 0)
  await writeFile(join(world, 'region.mca'), '')
  // Large enough for threads, of which none begins there.
  await truncate(join(world, 'region.mca'), THREADED_BYTES)
  assert.deepEqual(await inNoFolder(folder, backup(world)), { code: 0, stderr: '' })
  const large = join(folder, 'large')
  assert.deepEqual(await inNoFolder(folder, [...restore, large]), { code: 0, stderr: '' })
  assert.equal((await stat(join(large, 'region.mca'))).size, THREADED_BYTES)
  const { code, stderr } = await inNoFolder(folder, [...restore, 'out'])
  assert.equal(code, 1)
  assert.match(stderr, /^millrace: The folder that this runs in has been removed: [^\n]*\n$/)
})

test('a thread that ends is no damage', () => {
  assert.equal(exitCodeOf(new TransformError('THREAD', 'The thread that encrypts and hashes has ended.')), 1)
})
