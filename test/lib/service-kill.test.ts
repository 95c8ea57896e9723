import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openKillFolder } from '../support/kill-folder.ts'
import { KillRounds, killAtRandom } from '../support/kill-rounds.ts'
import { rounds } from '../support/rounds.ts'

// Of four, by this seed, one falls before, one within and one after what it is to interrupt.
const KILLS = rounds(4, 60)
const SEED = process.env.MILLRACE_SEED ?? 'service'

test('T8: a backup, a prune or a restore that is killed at a named moment leaves what that moment says', async (t) => {
  const rounds = await KillRounds.open(await openKillFolder(t), 'named', SEED)
  for (const [kind, when, at, nth, found, overwrite] of [
    ['backup', 'before', 'lease open', 0, /^absent$/],
    ['backup', 'after', 'object open', 0, /^absent$/],
    ['backup', 'within', 'object writev', 0, /^absent$/],
    ['backup', 'after', 'object writev', 1, /^absent$/],
    ['backup', 'before', 'object rename', 0, /^absent$/],
    ['backup', 'after', 'object rename', 0, /^unfinished$/],
    ['backup', 'before', 'companion open', 0, /^unfinished$/],
    ['backup', 'before', 'companion rename', 0, /^unfinished$/],
    ['backup', 'after', 'companion rename', 0, /^complete$/],
    ['backup', 'before', 'object unlink', 0, /^complete$/],
    ['backup', 'after', 'object unlink', 0, /^complete, and pruned after it$/],
    ['prune', 'before', 'object unlink', 0, /^0 removed$/],
    ['prune', 'after', 'object unlink', 0, /^[12] removed$/],
    ['prune', 'before', 'companion unlink', 0, /^[12] removed$/],
    ['restore', 'before', 'target renameSync', 0, /^absent, staged$/, false],
    ['restore', 'before', 'old renameSync', 0, /^as it was, staged$/, true],
    ['restore', 'before', 'target renameSync', 0, /^absent, staged$/, true],
    ['restore', 'after', 'target renameSync', 0, /^whole, staged$/, true],
  ] as const) {
    assert.match(await rounds.kill(kind, { at, nth, when, share: 0.5 }, overwrite), found, `${kind} ${when} ${at}`)
  }
  await rounds.end()
})

test(`T8: after kill -9 at ${KILLS} moments over a folder, what is complete is restorable, and the next run clean`, async (t) => {
  await killAtRandom(await openKillFolder(t), KILLS, SEED, 2)
})
