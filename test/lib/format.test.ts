import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatBytes, formatCount, formatDuration, formatTable } from '../../lib/cli/format.ts'
import { fitTable } from '../../lib/cli/table.ts'

test('bytes have the largest unit of which they are one, also once they are rounded, and three digits', () => {
  for (const [bytes, text] of [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [10_234, '9.99 KiB'],
    [10_235, '10.0 KiB'],
    [10_240, '10.0 KiB'],
    [102_348, '99.9 KiB'],
    [102_349, '100 KiB'],
    [1_048_063, '1023 KiB'],
    [1_048_064, '1.00 MiB'],
    [2 ** 20, '1.00 MiB'],
    [2 ** 40 - 1, '1.00 TiB'],
    [2 ** 61, '2048 PiB'],
  ] as const) {
    assert.equal(formatBytes(bytes), text, `${bytes}`)
  }
})

test('times have the largest unit of which they are one, also once they are rounded', () => {
  for (const [ms, text] of [
    [0, '0 ms'],
    [999.4, '999 ms'],
    [999.5, '1.0 s'],
    [59_499, '59.5 s'],
    [59_500, '1m 0s'],
    [3_599_499, '59m 59s'],
    [3_599_500, '1h 0m'],
    [90_061_000, '25h 1m'],
  ] as const) {
    assert.equal(formatDuration(ms), text, `${ms}`)
  }
})

test('counts are grouped as Intl groups them', () => {
  for (const count of [0, 1, 2, 12, 999, 1000, 9999, 10_000, 123_456, 1_234_567, 1_000_000_000, 2 ** 53 - 1]) {
    assert.equal(formatCount(count, 'file'), `${count.toLocaleString('en')} ${count === 1 ? 'file' : 'files'}`)
  }
  assert.equal(formatCount(1, 'entry', 'entries'), '1 entry')
  assert.equal(formatCount(2000, 'entry', 'entries'), '2,000 entries')
})

test('a table has as many rows as there are, and not only what a call takes as arguments', () => {
  const rows = Array.from({ length: 200_000 }, (_, at) => [String(at), 'x'])
  const lines = formatTable(['N', 'WHAT'], rows).split('\n')
  assert.equal(lines.length, 200_001)
  assert.equal(lines[1], '0       x')
  const columns = [
    { head: 'N', cell: ([number]: string[]) => number as string },
    { head: 'WHAT', cell: ([, what]: string[]) => what as string },
  ]
  assert.deepEqual(fitTable(columns, rows, undefined).split('\n'), lines)
})
