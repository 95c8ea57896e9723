import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { memoryPicture } from '../../bench/picture.ts'
import { ROOT } from './markdown.ts'

it('the picture of memory shows the results that it names, and nothing else', () => {
  const picture = readFileSync(join(ROOT, 'docs/memory.svg'), 'utf8')
  const source = /memory-\d{4}-\d{2}-\d{2}\.json/.exec(picture)?.[0] as string
  const results = JSON.parse(readFileSync(join(ROOT, 'bench/results', source), 'utf8'))
  assert.equal(picture, memoryPicture(results, source))
})
