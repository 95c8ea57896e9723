import { test } from 'node:test'
import { openKillFolder } from '../support/kill-folder.ts'
import { killAtRandom } from '../support/kill-rounds.ts'

const KILLS = 60
const SEED = process.env.MILLRACE_SEED ?? 'service'

test(`T8: after kill -9 at ${KILLS} moments over a folder, what is complete is restorable, and the next run clean`, async (t) => {
  await killAtRandom(await openKillFolder(t), KILLS, SEED, 2)
})
