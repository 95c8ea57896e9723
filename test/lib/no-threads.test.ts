import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { scratch } from '../support/cli.ts'

const ROOT = join(import.meta.dirname, '../..')
const SMALL_FILES = 300

test('where no thread is to be had, by permissions or in a bundle, the work is done on this one', async (t) => {
  const world = join(await scratch(t), 'world')
  await mkdir(world)
  for (let i = 0; i < SMALL_FILES; i++) await writeFile(join(world, `${i}.json`), `{"player":${i}}`)
  const permissions = ['--permission', '--allow-fs-read=*', '--allow-fs-write=*']
  const child = join(ROOT, 'test/support/no-threads-child.ts')
  const { status, stdout, stderr } = spawnSync(process.execPath, [...permissions, child, world], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  const { files, refused } = JSON.parse(stdout)
  assert.equal(files, SMALL_FILES + 1)
  assert.equal(refused.length, 3)
  for (const message of refused) assert.match(message, /^THREAD No thread can be begun/)
})
