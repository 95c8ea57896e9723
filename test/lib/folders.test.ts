import assert from 'node:assert/strict'
import fs from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeFolders } from '../../lib/folders.ts'
import { millrace, scratch, startMillrace } from '../support/cli.ts'

test('folders are made as deep as need be, and what is there already is left as it is', async (t) => {
  const folder = await scratch(t)
  await makeFolders(join(folder, 'a/b/c'), 0o700)
  for (const made of ['a', 'a/b', 'a/b/c']) assert.equal(fs.statSync(join(folder, made)).mode & 0o777, 0o700)
  fs.chmodSync(join(folder, 'a'), 0o750)
  fs.symlinkSync('a', join(folder, 'link'))
  fs.symlinkSync('nowhere', join(folder, 'dangling'))
  fs.writeFileSync(join(folder, 'file'), '')
  await makeFolders(join(folder, 'link/b'))
  await Promise.all(Array.from({ length: 20 }, () => makeFolders(join(folder, 'link/d/e/f'))))
  assert.ok(fs.statSync(join(folder, 'a/d/e/f')).isDirectory())
  assert.equal(fs.statSync(join(folder, 'a')).mode & 0o777, 0o750)
  for (const [path, code] of [
    ['file', 'EEXIST'],
    ['file/x', 'ENOTDIR'],
    ['dangling', 'EEXIST'],
    ['dangling/x', 'EEXIST'],
  ] as const) {
    await assert.rejects(makeFolders(join(folder, path)), { code })
  }
})

test('where nothing can be made a restore says so, and does not try for ever', {
  skip: !fs.existsSync('/proc/self'),
  timeout: 60_000,
}, async (t) => {
  const folder = await scratch(t)
  const url = `file://${folder}/store`
  fs.writeFileSync(join(folder, 'world'), 'world')
  const key = ['--server', 'world', '--no-encryption']
  assert.equal((await millrace(['backup', join(folder, 'world'), '--to', url, ...key])).code, 0)
  const target = '/proc/millrace/world'
  const { child, result } = startMillrace(['restore', 'latest', '--from', url, ...key, '--target', target])
  t.after(() => child.kill('SIGKILL'))
  const { code, stderr } = await result
  assert.equal(code, 5)
  assert.match(stderr, /^millrace: The folder \/proc\/millrace cannot be made: /)
})
