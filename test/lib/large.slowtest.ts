import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { packFolder } from '../../lib/archive/pack.ts'
import { millrace, scratch } from '../support/cli.ts'

const BYTES = 9 * 2 ** 30 + 1

test('a sparse file of 9 GiB, past what a plain tar header can say, makes the round trip', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'sparse'), '')
  await truncate(join(world, 'sparse'), BYTES)
  const url = `file://${folder}/store`
  const made = await millrace(['backup', world, '--to', url])
  assert.equal(made.code, 0, made.stderr)
  const restored = await millrace([
    'restore',
    'latest',
    '--from',
    url,
    '--server',
    'world',
    '--target',
    join(folder, 'out'),
  ])
  assert.equal(restored.code, 0, restored.stderr)
  assert.equal((await stat(join(folder, 'out/sparse'))).size, BYTES)
})

test('GNU tar reads its size', async (t) => {
  const world = await scratch(t)
  await writeFile(join(world, 'sparse'), '')
  await truncate(join(world, 'sparse'), BYTES)
  const { stream } = await packFolder(world)
  const tar = spawn('tar', ['tv'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const listed = buffer(tar.stdout)
  await pipeline(stream, tar.stdin)
  assert.match(String(await listed), new RegExp(String(BYTES)))
})
