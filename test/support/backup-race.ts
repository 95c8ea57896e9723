import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { openStorage, type StorageConfig } from '../../adapters/open.ts'
import { childPath } from './children.ts'
import { scratch } from './cli.ts'

export interface RaceSetup {
  /** The store; credentials come from the environment. */
  config: StorageConfig | string
  /** false: conditional writes are hidden from the lease. */
  conditional: boolean
  /** A file that stands while one is at work. */
  mark: string
}

export type RaceOutcome = 'done' | 'refused' | 'two at work' | `failed: ${string}`

/**
 * Has processes back one server up at once, again and again, and holds them to it that never two are at work and that
 * one always is.
 * @param setups one a process.
 */
export async function raceBackups(t: TestContext, setups: readonly RaceSetup[], rounds: number): Promise<void> {
  const children = setups.map((setup) => {
    const child = fork(childPath('backup'), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
    t.after(() => child.kill('SIGKILL'))
    child.send(setup)
    return child
  })
  await Promise.all(children.map((child) => once(child, 'message')))
  const counts: Record<string, number> = {}
  for (let round = 0; round < rounds; round += 1) {
    const outcomes = await Promise.all(
      children.map(async (child) => {
        const answer = once(child, 'message')
        child.send('go')
        return (await answer)[0] as RaceOutcome
      }),
    )
    for (const outcome of outcomes) {
      assert.ok(outcome === 'done' || outcome === 'refused', `round ${round}: ${outcome}`)
      counts[outcome] = (counts[outcome] ?? 0) + 1
    }
    assert.ok(outcomes.includes('done'), `round ${round}: nobody was let in`)
  }
  t.diagnostic(`${rounds} rounds of ${setups.length} processes: ${JSON.stringify(counts)}`)
  assert.ok(counts.refused, 'nobody was ever refused: they did not run at once')
}

/** Tests of several processes at the lease of one folder, with and without conditional writes. */
export function raceAll(rounds: number): void {
  // Most of a round is waiting for the disk.
  suite('races of processes', { concurrency: true }, () => {
    for (const [name, hidden] of [
      ['with conditional writes', [true, true]],
      ['without', [false, false]],
      ['of which one does not know of conditional writes', [true, false]],
    ] as const) {
      test(`T22: processes that back one server up at once, ${rounds} times: one runs (${name})`, async (t) => {
        const folder = await scratch(t)
        const config = { provider: 'filesystem', root: join(folder, 'store') } as const
        const mark = join(folder, 'mark')
        await raceBackups(
          t,
          hidden.map((conditional) => ({ config, conditional, mark })),
          rounds,
        )
        const storage = await openStorage(config)
        assert.deepEqual(await Array.fromAsync(storage.list('survival/.lease/')), [])
      })
    }
  })
}
