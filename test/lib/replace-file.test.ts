import assert from 'node:assert/strict'
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { replaceFile } from '../../lib/replace-file.ts'
import { scratch } from '../support/cli.ts'

test('a file system that refuses modes takes the files all the same, and one that fails is told', async (t) => {
  const folder = await scratch(t)
  const file = join(folder, 'metrics.prom')
  const handle = await open(folder)
  let code = 'EPERM'
  t.mock.method(Object.getPrototypeOf(handle), 'chmod', async () => {
    throw Object.assign(new Error(`${code}: fchmod`), { code })
  })
  await handle.close()
  const options = { mode: 0o600, what: 'The metrics file' }
  await replaceFile(file, 'one\n', options)
  assert.equal(await readFile(file, 'utf8'), 'one\n')
  code = 'EIO'
  await assert.rejects(replaceFile(file, 'two\n', options), /The metrics file .* cannot be written: EIO/)
  assert.equal(await readFile(file, 'utf8'), 'one\n')
  assert.deepEqual(await readdir(folder), ['metrics.prom'])
})
