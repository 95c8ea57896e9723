import assert from 'node:assert/strict'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { createHashTee, createMeter } from '../../transforms/index.ts'
import { feed, sample, through } from '../support/streams.ts'

test('a meter passes bytes on, and its last report is of all of them', async () => {
  const data = sample(10_000)
  const reports: number[] = []
  const meter = createMeter({ total: data.length, intervalMs: 0, onProgress: ({ bytes }) => reports.push(bytes) })
  assert.deepEqual(await through(data, [meter], 1000), data)
  assert.deepEqual(reports, [...Array.from({ length: 10 }, (_, i) => (i + 1) * 1000), 10_000])
})

test('what onProgress throws, in the middle or at the end, its pipeline fails with', async () => {
  for (const [intervalMs, thrown] of [
    [0, new Error('no terminal')],
    [0, undefined],
    [1e6, new Error('no terminal')],
  ] as const) {
    const onProgress = () => {
      throw thrown
    }
    const failed = pipeline(
      feed(sample(10_000), 1000),
      createMeter({ intervalMs, onProgress }),
      createHashTee().resume(),
    )
    await assert.rejects(failed, thrown ?? /onProgress failed: undefined/)
  }
})
