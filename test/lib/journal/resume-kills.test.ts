import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { PARTS_STORE_PART_BYTES } from '../../support/parts-store.ts'
import { ResumeRounds } from '../../support/resume-rounds.ts'
import { rounds as roundsOf } from '../../support/rounds.ts'

const MOMENTS = [
  ['putPart', 0, 'within', 0],
  ['putPart', 12, 'within', 10],
  ['commit', 0, 'before', 15],
  ['putPart', 4, 'after', 2],
  ['begin', 0, 'after', 0],
  ['commit', 0, 'after', 0],
] as const

test('a backup that is killed at a named moment goes on where it was, under the same id, and no nonce is used twice', async (t) => {
  for (const [step, nth, when, held] of MOMENTS.slice(0, roundsOf(3, MOMENTS.length))) {
    await t.test(`${when} ${step} ${nth}`, async (inner) => {
      const rounds = new ResumeRounds(inner, 'named')
      assert.equal(await rounds.run({ step, nth, when }), null)
      const done = await rounds.run()
      assert.ok(done && !done.error, JSON.stringify(done))
      if (step !== 'begin') assert.ok(done.takenUp, 'nothing was taken up')
      assert.ok((done.takenUp?.heldBytes ?? 0) >= held * PARTS_STORE_PART_BYTES, JSON.stringify(done.takenUp))
      await rounds.assertWhole(done.id)
    })
  }
})

test('it can be killed again and again, and each run goes on where the one before it was', async (t) => {
  const rounds = new ResumeRounds(t, 'again')
  let held = 0
  for (const nth of [3, 5, 0, 6]) assert.equal(await rounds.run({ step: 'putPart', nth, when: 'after' }), null)
  const done = await rounds.run()
  held = done?.takenUp?.heldBytes ?? 0
  assert.ok(held >= 12 * PARTS_STORE_PART_BYTES, `${held} bytes were held`)
  await rounds.assertWhole(done?.id as string)
})

test('the lease of a run that was killed while it took it is known to be a dead one', async (t) => {
  for (const nth of roundsOf([0, 3], [0, 1, 2, 3])) {
    const rounds = new ResumeRounds(t, 'lease')
    assert.equal(await rounds.run({ step: 'lease', nth, when: 'before' }), null)
    const done = await rounds.run()
    assert.ok(done && !done.error, `${nth}: ${JSON.stringify(done)}`)
    assert.ok(!done.warnings.some((warning) => warning.includes('Waiting for')), done.warnings.join())
    await rounds.assertWhole(done.id)
    assert.deepEqual(readdirSync(join(rounds.journals, 'survival')), [])
  }
})
