import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backUpAndCheck, livePlace } from '../support/live-backups.ts'
import { judgeLevel, judgeRegion, levelData, sectorOf } from '../support/live-world.ts'

// The longer runs are in live-world.slowtest.ts.

test('T32: a world that is written to all the while is backed up as what it was, and what changed is told', async (t) => {
  const place = await livePlace(t, 1, 6)
  for (let i = 0; i < 3; i++) await backUpAndCheck(place)
})

test('T32: a world whose server is held still is of one moment in every file, and its server goes on', async (t) => {
  const place = await livePlace(t, 2, 6)
  for (let i = 0; i < 3; i++) {
    const before = await place.live.ask()
    const { made, changed, reread, generations } = await backUpAndCheck(place, place.quiescer())
    assert.deepEqual([made.consistency, changed, reread], ['quiesced', [], 0])
    const regions = [...generations].filter(([path]) => path.startsWith('region/') || path === 'level.dat')
    assert.equal(regions.length, 7)
    assert.equal(new Set(regions.flatMap(([, all]) => all)).size, 1)
    const after = await place.live.ask()
    assert.equal(after.saving, true)
    assert.ok(after.generation > before.generation)
  }
})

test('a region that was never so is recognised', () => {
  const region = (...parts: [generation: number, from: number, to: number, sectors: number][]) =>
    Buffer.concat(
      parts.flatMap(([generation, from, to, sectors]) =>
        Array.from({ length: to - from }, (_, at) => sectorOf(generation, from + at, sectors)),
      ),
    )
  assert.deepEqual(judgeRegion(region([5, 0, 9, 9])), [5])
  assert.deepEqual(judgeRegion(region([5, 0, 4, 6], [3, 4, 9, 9])), [5, 3])
  assert.deepEqual(judgeRegion(region([5, 0, 9, 12])), [5])
  for (const [wrong, name] of [
    [region([4, 0, 4, 9], [5, 4, 9, 9]), 'the beginning is older'],
    [region([5, 0, 2, 9], [4, 2, 5, 9], [3, 5, 9, 9]), 'three generations'],
    [region([5, 0, 2, 9], [4, 2, 5, 9], [5, 5, 9, 9]), 'twice the same'],
    [region([5, 0, 4, 9], [4, 4, 8, 9]), 'cut in the older one'],
    [region([5, 0, 4, 9], [4, 5, 9, 9]), 'a sector left out'],
    [region([5, 0, 9, 9]).subarray(0, -1), 'half a sector'],
    [Buffer.concat([region([5, 0, 8, 9]), Buffer.alloc(4096)]), 'zeros at the end'],
  ] as const) {
    assert.equal(typeof judgeRegion(wrong), 'string', name)
  }
  assert.deepEqual(judgeLevel(levelData(7)), [7])
  assert.equal(typeof judgeLevel(Buffer.concat([levelData(7), levelData(8)])), 'string')
})
