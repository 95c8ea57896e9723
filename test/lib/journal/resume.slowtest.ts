import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '../../support/random.ts'
import { ResumeRounds } from '../../support/resume-rounds.ts'

const KILLS = 30
const SEED = process.env.MILLRACE_SEED ?? 'resume'
/** Of a whole run, which takes about a second. */
const RUN_MS = 1500

test(`after kill -9 at ${KILLS} moments every upload goes on or is begun anew, is whole, and no nonce has two ciphertexts`, async (t) => {
  t.diagnostic(`seed ${SEED}`)
  const random = seededRandom(SEED, 'resume slow')
  const counts = { kills: 0, 'taken up': 0, 'begun anew': 0, 'ended before they were killed': 0 }
  for (let round = 0; counts.kills < KILLS; round += 1) {
    const rounds = new ResumeRounds(t, `${SEED} ${round}`)
    let last: Awaited<ReturnType<ResumeRounds['run']>> = null
    for (let kills = 1 + random.int(5); kills > 0; kills -= 1) {
      last = await rounds.run(random.chance(0.6) ? rounds.pickMoment(20) : random.int(RUN_MS))
      counts[last ? 'ended before they were killed' : 'kills'] += 1
      assert.equal(last?.error, undefined)
      if (random.chance(0.15)) rounds.writeFile('region/r.2.0.mca', 1_000_000 + random.int(500_000), `${kills}`)
    }
    const done = await rounds.run()
    assert.ok(done && !done.error, JSON.stringify(done))
    counts[done.takenUp ? 'taken up' : 'begun anew'] += 1
    await rounds.assertWhole(done.id)
  }
  t.diagnostic(JSON.stringify(counts))
  assert.ok(counts['taken up'] > 0)
})
