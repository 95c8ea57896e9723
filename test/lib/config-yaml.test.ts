import assert from 'node:assert/strict'
import { test } from 'node:test'
import { problems } from '../support/wrong-config.ts'

test('the line of an error is that of the file, also behind one that YAML gives up at', () => {
  const told = problems('a:\n  quiesce:\n  ]    by: rcon\n      address: x\n      b: y\nc: @\n')
  const rows = new Set(told.map((line) => Number(line.split(':')[0])))
  assert.deepEqual([...rows].sort(), [3, 4, 5, 6])
  for (const line of told) assert.match(line, /^\d+:\d{1,2} /)
  assert.ok(
    told.some((line) => line.startsWith('6:4 ')),
    told.join('\n'),
  )
})

test('what is asked of the writer of a file ends in one question mark', () => {
  assert.deepEqual(problems('a: 1\n]\n'), [
    '2:1 something stands here that does not belong. Is a quote, a dash or a line end missing?',
  ])
})
