import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { acquireLease } from '../../lib/index.ts'
import { writeSmall } from '../../lib/small-object.ts'
import { scratch } from '../support/cli.ts'

// What somebody puts into a store who may write to it and has no key.

const hasCode = (code: string) => (error: unknown) => (error as { code: string }).code === code

async function keysOf(storage: Storage): Promise<string[]> {
  return (await Array.fromAsync(storage.list(''))).map(({ key }) => key).sort()
}

test('a holder’s mark that no claimant has written holds no lease up', async (t) => {
  const memory = await openMemory()
  for (const content of ['x'.repeat(5000), 'not an id', '']) {
    await writeSmall(memory, 'survival/.lease/holder', content)
    const lease = await acquireLease(memory, 'survival')
    await lease.release()
    assert.deepEqual(await keysOf(memory), [])
  }
  const root = await scratch(t)
  const folder = await openFilesystem({ root })
  const mark = join(root, 'survival/.lease/holder')
  for (const plant of [() => mkdirSync(mark), () => execFileSync('mkfifo', [mark])]) {
    mkdirSync(join(mark, '..'), { recursive: true })
    plant()
    await assert.rejects(acquireLease(folder, 'survival'), hasCode('CONFLICT'))
    assert.deepEqual(await keysOf(folder), [])
    rmSync(mark, { recursive: true })
  }
})
