import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { VERSION } from '../../lib/index.ts'

const LIB = join(import.meta.dirname, '../../lib')

test('the version is that of the package, and is known where no package is beside the module, as in a bundle', async () => {
  assert.equal(VERSION, JSON.parse(await readFile(join(LIB, '../package.json'), 'utf8')).version)
  const text = await readFile(join(LIB, 'version.ts'), 'utf8')
  const alone = await import(`data:text/javascript,${encodeURIComponent(text)}`)
  assert.equal(alone.VERSION, VERSION)
})
