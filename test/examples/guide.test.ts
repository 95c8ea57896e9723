import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import * as adapters from '../../adapters/index.ts'
import * as transforms from '../../transforms/index.ts'

const ROOT = join(import.meta.dirname, '../..')
const read = (...patterns: string[]) =>
  globSync(patterns, { cwd: ROOT }).map((path) => readFileSync(join(ROOT, path), 'utf8'))

const GUIDES = [
  {
    name: 'an adapter',
    page: 'docs/guides/write-an-adapter.md',
    sources: read('examples/custom-adapter*.ts', 'test/examples/custom-adapter.test.ts'),
    blocks: 7,
    exported: adapters,
    names: 9,
    options: 6,
  },
  {
    name: 'a transform',
    page: 'docs/guides/write-a-transform.md',
    sources: read('examples/{block-sums,custom-transform}.ts', 'test/examples/block-sums.test.ts'),
    blocks: 9,
    exported: transforms,
    names: 4,
    options: 0,
  },
] as const
const contract = read('test/contract/*.ts').join('\n')

for (const { name, page, sources, blocks: least, exported, names, options } of GUIDES) {
  const guide = readFileSync(join(ROOT, page), 'utf8')
  /** Whether a row is of the table of the contract's options, which stands last. */
  const isOption = (line: string) => options > 0 && guide.indexOf(line) > guide.indexOf('| option | meaning |')

  describe(`the guide to writing ${name}`, () => {
    it('shows no code but that of the example and its tests', () => {
      const blocks = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1] as string)
      assert.ok(blocks.length >= least)
      for (const block of blocks)
        assert.ok(
          sources.some((source) => source.includes(block)),
          `not in a file:\n${block}`,
        )
    })

    it('names only what is exported, and links only to what is there', () => {
      const table = guide.split('\n').filter((line) => /^\| `/.test(line))
      const [rows, meanings] = [table.filter((line) => !isOption(line)), table.filter(isOption)]
      assert.ok(rows.length >= names && meanings.length >= options)
      for (const line of rows) {
        for (const [, one] of (line.split('|')[1] as string).matchAll(/`(\w+)`/g)) {
          assert.ok((one as string) in exported, `${one} is not exported`)
        }
      }
      for (const line of meanings) {
        const option = /`(\w+)`/.exec(line)?.[1]
        assert.match(contract, new RegExp(`^  ${option}\\??[(:]`, 'm'))
      }
      for (const [, link] of guide.matchAll(/\]\(([^)]+)\)/g)) {
        assert.ok(globSync(join('docs/guides', link as string), { cwd: ROOT }).length > 0, `${link} is not there`)
      }
    })
  })
}
