import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { removeTree } from '../../lib/remove-tree.ts'
import { scratch } from '../support/cli.ts'

test('a tree goes with its closed folders, names that are no UTF-8 and paths beyond PATH_MAX; what links lead to stays', async (t) => {
  const folder = await scratch(t)
  const tree = join(folder, 'tree')
  mkdirSync(join(tree, 'closed/within'), { recursive: true })
  writeFileSync(join(tree, 'closed/within/file'), '')
  chmodSync(join(tree, 'closed'), 0o500)
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0x2e])]), '')
  mkdirSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xfe])]))
  mkdirSync(join(folder, 'other'))
  writeFileSync(join(folder, 'other/file'), '')
  symlinkSync('../other', join(tree, 'link'))
  symlinkSync('nowhere', join(tree, 'dangling'))
  // No path leads there, so it is made from within.
  const deep = 'for i in $(seq 1 40); do mkdir "$1" && cd -P "$1" || exit 1; done; echo > file'
  execFileSync('/bin/sh', ['-c', deep, 'sh', 'd'.repeat(200)], { cwd: tree })
  await removeTree(tree)
  assert.deepEqual(readdirSync(folder), ['other'])
  assert.deepEqual(readdirSync(join(folder, 'other')), ['file'])
  await removeTree(tree)
  await removeTree(join(folder, 'other/file'))
  assert.deepEqual(readdirSync(join(folder, 'other')), [])
})

test('two that remove the same at once are both content', async (t) => {
  const folder = await scratch(t)
  for (let i = 0; i < 40; i++) {
    mkdirSync(join(folder, 'tree', String(i), 'within'), { recursive: true })
    for (let j = 0; j < 10; j++) writeFileSync(join(folder, 'tree', String(i), 'within', String(j)), '')
  }
  await Promise.all([1, 2, 3].map(() => removeTree(join(folder, 'tree'))))
  assert.deepEqual(readdirSync(folder), [])
})
