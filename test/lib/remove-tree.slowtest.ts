import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { scratch } from '../support/cli.ts'

test('removing many files takes no more memory than removing few', async (t) => {
  const folder = await scratch(t)
  for (let i = 0; i < 20; i++) {
    mkdirSync(join(folder, 'tree', String(i)), { recursive: true })
    for (let j = 0; j < 1000; j++) writeFileSync(join(folder, 'tree', String(i), String(j)), '')
  }
  const program = `
    const { removeTree } = await import(${JSON.stringify(new URL('../../lib/remove-tree.ts', import.meta.url).href)})
    const before = process.resourceUsage().maxRSS
    await removeTree(process.argv[1])
    console.log(process.resourceUsage().maxRSS - before)`
  const flags = ['--max-semi-space-size=1', '--input-type=module', '-e', program]
  const grown = Number(execFileSync(process.execPath, [...flags, join(folder, 'tree')], { encoding: 'utf8' })) / 1024
  assert.deepEqual(readdirSync(folder), [])
  assert.ok(grown < 25, `${grown} MiB more for 20,000 files`)
})
