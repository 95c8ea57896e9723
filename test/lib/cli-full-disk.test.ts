import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type CliOptions, type CliResult, millrace, scratch } from '../support/cli.ts'
import { mounted, NO_MOUNT } from '../support/tmpfs.ts'
import { diffTrees } from '../support/tree.ts'

const CONTENT = randomBytes(6_000_000)

interface Place {
  folder: string
  world: string
  /** A folder for a file system that is too small. */
  small: string
  key: string[]
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const [world, small] = [join(folder, 'world'), join(folder, 'small')]
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), CONTENT)
  await writeFile(join(folder, 'key'), randomBytes(32))
  return { folder, world, small, key: ['--key-file', join(folder, 'key')] }
}

/** One sentence that says which disk, and no stack. */
async function full(disk: string, args: string[], options?: CliOptions): Promise<CliResult> {
  const result = await millrace(args, options)
  assert.equal(result.code, 1, result.stderr)
  assert.match(result.stderr, /full|no space|room/i)
  assert.ok(result.stderr.includes(disk), result.stderr)
  assert.equal(result.stderr.trim().split('\n').length, 1, result.stderr)
  return result
}

async function succeeds(args: string[], options?: CliOptions): Promise<CliResult> {
  const result = await millrace(args, options)
  assert.equal(result.code, 0, result.stderr)
  return result
}

test('T23: the disk of the store is full: nothing half-made is there, and the next backup is clean', {
  skip: NO_MOUNT,
}, async (t) => {
  const { folder, world, small, key } = await place(t)
  await mounted(small, 3, async (grow) => {
    const backup = ['backup', world, '--to', `file://${small}`, ...key]
    await full(small, backup)
    assert.deepEqual(await leftIn(small), [])
    // One of two is full: the other has it.
    const both = await millrace([...backup, '--to', `file://${folder}/other`, '--json'])
    assert.equal(both.code, 3, both.stderr)
    const made = both.events().find(({ event }) => event === 'snapshot') as { destinations: { ok: boolean }[] }
    assert.deepEqual(
      made.destinations.map(({ ok }) => ok),
      [false, true],
    )
    assert.deepEqual(await leftIn(small), [])
    grow(32)
    await succeeds(backup)
    await succeeds(['verify', '--from', `file://${small}`, '--server', 'world', ...key])
  })
})

test('T23: the disk of a restore is full: nothing half-made is there, and the next restore is clean', {
  skip: NO_MOUNT,
}, async (t) => {
  const { folder, world, small, key } = await place(t)
  const url = `file://${folder}/store`
  await succeeds(['backup', world, '--to', url, ...key])
  await mounted(small, 3, async (grow) => {
    const restore = ['restore', 'latest', '--from', url, '--server', 'world', '--target', join(small, 'out'), ...key]
    const refused = await millrace(restore)
    assert.equal(refused.code, 5, refused.stderr)
    assert.match(refused.stderr, /small.*(?:room|free)/)
    await full(small, [...restore, '--no-space-check'])
    assert.deepEqual(await readdir(small), [])
    grow(32)
    await succeeds(restore)
    assert.deepEqual(diffTrees(world, join(small, 'out')), [])
  })
})

test('T23: the disk that -o names is full: the file is absent, and the next run is clean', {
  skip: NO_MOUNT,
}, async (t) => {
  const { small, key } = await place(t)
  const sealed = (await succeeds(['encrypt', ...key], { input: CONTENT })).stdout
  await mounted(small, 3, async (grow) => {
    const [a, b] = [join(small, 'sealed'), join(small, 'plain')]
    await full(a, ['encrypt', ...key, '-o', a], { input: CONTENT })
    await full(b, ['decrypt', ...key, '-o', b], { input: sealed })
    await full(small, ['decrypt', '--layout', 'seed', '-o', b], { input: await seed(), env: { TMPDIR: small } })
    assert.deepEqual(await readdir(small), [])
    grow(32)
    await succeeds(['encrypt', ...key, '-o', a], { input: CONTENT })
    await succeeds(['decrypt', ...key, '-o', b], { input: sealed })
    assert.deepEqual(await readFile(b), CONTENT)
  })
})

async function seed(): Promise<Buffer> {
  return (await succeeds(['encrypt', '--layout', 'seed'], { input: CONTENT })).stdout
}

test('T23: the disk of the state folder is full: backups, lists, verifications and prunes go on', {
  skip: NO_MOUNT,
}, async (t) => {
  const { folder, world, small, key } = await place(t)
  const url = `file://${folder}/store`
  await mounted(small, 1, async () => {
    await writeFile(join(small, 'filling'), Buffer.alloc(1 << 20)).catch(() => {})
    const env = { MILLRACE_STATE_DIR: join(small, 'state') }
    await succeeds(['backup', world, '--to', url, ...key], { env })
    await succeeds(['backup', world, '--to', url, ...key], { env })
    await succeeds(['list', '--from', url, '--long', ...key], { env })
    const verified = await succeeds(['verify', '--from', url, '--server', 'world', ...key], { env })
    assert.match(verified.stderr, /^Note: The result could not be noted .*(?:full|ENOSPC)/)
    await succeeds(['prune', '--from', url, '--server', 'world', '--keep-last', '1'], { env })
  })
})

/** What is in a store, without the folders of servers. */
async function leftIn(folder: string): Promise<string[]> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true })
  return found.filter((one) => !one.isDirectory()).map(({ name }) => name)
}
