import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import * as adapters from '../../adapters/index.ts'

const ROOT = join(import.meta.dirname, '../..')
const guide = readFileSync(join(ROOT, 'docs/guides/write-an-adapter.md'), 'utf8')
const sources = globSync(['examples/custom-adapter*.ts', 'test/examples/custom-adapter.test.ts'], { cwd: ROOT }).map(
  (path) => readFileSync(join(ROOT, path), 'utf8'),
)
const contract = globSync('test/contract/*.ts', { cwd: ROOT })
  .map((path) => readFileSync(join(ROOT, path), 'utf8'))
  .join('\n')

describe('the guide to writing an adapter', () => {
  it('shows no code but that of the example and its tests', () => {
    const blocks = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] as string)
    assert.ok(blocks.length >= 7)
    for (const block of blocks)
      assert.ok(
        sources.some((source) => source.includes(block)),
        `not in a file:\n${block}`,
      )
  })

  it('names only what is exported, and links only to what is there', () => {
    const table = guide.split('\n').filter((line) => /^\| `/.test(line))
    const [exported, options] = [table.filter((line) => !isOption(line)), table.filter(isOption)]
    assert.ok(exported.length >= 9 && options.length >= 6)
    for (const line of exported) {
      const names = [...(line.split('|')[1] as string).matchAll(/`(\w+)`/g)].map((match) => match[1] as string)
      for (const name of names) assert.ok(name in adapters, `${name} is not exported`)
    }
    for (const line of options) {
      const name = /`(\w+)`/.exec(line)?.[1]
      assert.match(contract, new RegExp(`^  ${name}\\??[(:]`, 'm'))
    }
    for (const [, link] of guide.matchAll(/\]\(([^)]+)\)/g)) {
      assert.ok(globSync(join('docs/guides', link as string), { cwd: ROOT }).length > 0, `${link} is not there`)
    }
  })
})

/** The rows of the table of the contract's options, which stands last. */
function isOption(line: string): boolean {
  return guide.indexOf(line) > guide.indexOf('| option | meaning |')
}
