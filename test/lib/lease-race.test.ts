import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { raceBackups } from '../support/backup-race.ts'
import { scratch } from '../support/cli.ts'

const ROUNDS = 50

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
    assert.ok(!(await readdir(join(folder, 'store/survival'))).includes('.lease'))
  })
}
