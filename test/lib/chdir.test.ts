import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { openBackups } from '../../lib/index.ts'
import { scratch } from '../support/cli.ts'

test('relative paths are those of when they were given: the program goes to another folder meanwhile', async (t) => {
  const folder = await scratch(t)
  const [here, there] = [join(folder, 'here'), join(folder, 'there')]
  const before = process.cwd()
  t.after(() => process.chdir(before))
  for (const name of [here, there]) {
    await mkdir(join(name, 'world'), { recursive: true })
    await writeFile(join(name, 'world/level.dat'), name)
  }
  process.chdir(here)
  const backups = await openBackups({
    storage: await openMemory(),
    server: 'survival',
    key: Buffer.alloc(32, 9),
    stateFolder: 's',
  })
  const creating = backups.create('world')
  process.chdir(there)
  const { id } = await creating
  process.chdir(here)
  const restoring = backups.restore(id, 'out')
  process.chdir(there)
  await restoring
  await backups.close()
  assert.deepEqual(await readdir(there), ['world'])
  assert.deepEqual((await readdir(here)).sort(), ['out', 's', 'world'])
  assert.equal(await readFile(join(here, 'out/level.dat'), 'utf8'), here)
})

test('an empty path is none, and not the current folder', async () => {
  const backups = await openBackups({ storage: await openMemory(), server: 'survival', encryption: false })
  await assert.rejects(backups.create(''), { code: 'SOURCE' })
  const { id } = await backups.create(import.meta.filename)
  await assert.rejects(backups.restore(id, ''), { code: 'USAGE' })
})
