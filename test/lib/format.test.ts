import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatCount } from '../../lib/cli/format.ts'

test('counts are grouped as Intl groups them', () => {
  for (const count of [0, 1, 2, 12, 999, 1000, 9999, 10_000, 123_456, 1_234_567, 1_000_000_000, 2 ** 53 - 1]) {
    assert.equal(formatCount(count, 'file'), `${count.toLocaleString('en')} ${count === 1 ? 'file' : 'files'}`)
  }
  assert.equal(formatCount(1, 'entry', 'entries'), '1 entry')
  assert.equal(formatCount(2000, 'entry', 'entries'), '2,000 entries')
})
