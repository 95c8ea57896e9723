import assert from 'node:assert/strict'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { openStorage } from '../../lib/index.ts'
import { raceBackups } from '../support/backup-race.ts'
import { scratch } from '../support/cli.ts'

const ROUNDS = 50

// Most of a round is waiting for the disk.
suite('races of processes', { concurrency: true }, () => {
  for (const [name, hidden] of [
    ['with conditional writes', [true, true]],
    ['without', [false, false]],
    ['of which one does not know of conditional writes', [true, false]],
  ] as const) {
    test(`T22: processes that back one server up at once, ${ROUNDS} times: one runs (${name})`, async (t) => {
      const folder = await scratch(t)
      const config = { provider: 'filesystem', root: join(folder, 'store') } as const
      const mark = join(folder, 'mark')
      await raceBackups(
        t,
        hidden.map((conditional) => ({ config, conditional, mark })),
        ROUNDS,
      )
      const storage = await openStorage(config)
      assert.deepEqual(await Array.fromAsync(storage.list('survival/.lease/')), [])
    })
  }
})
