import assert from 'node:assert/strict'
import { execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openFilesystem } from '../../adapters/filesystem.ts'
import type { Storage } from '../../adapters/storage.ts'
import { openBackups } from '../../lib/index.ts'
import type { RestoreOptions } from '../../lib/restore.ts'
import { childPath } from '../support/children.ts'
import { scratch } from '../support/cli.ts'
import { seededBytes, seededRandom } from '../support/random.ts'
import type { ChildRestore } from '../support/restore-child.ts'
import { counting } from '../support/storage.ts'
import { diffTrees } from '../support/tree.ts'

const KEY = Buffer.alloc(32, 3)
const ROUNDS = 12
const SEED = process.env.MILLRACE_SEED ?? 'kill'
const FILES = 100
const AT_ONCE = 3

/** @returns how long it took, or null when it was killed after `killMs`. */
async function restoreInChild(restore: ChildRestore, killMs?: number): Promise<number | null> {
  const child = fork(childPath('restore'), { stdio: 'inherit' })
  const exit = once(child, 'exit')
  child.send(restore)
  await once(child, 'message')
  const begun = performance.now()
  const ended = once(child, 'message').then(() => performance.now() - begun)
  child.send('go')
  if (killMs === undefined) {
    const took = await ended
    assert.deepEqual(await exit, [0, null])
    return took
  }
  ended.catch(() => {})
  await Promise.race([delay(killMs), exit])
  child.kill('SIGKILL')
  const [, signal] = await exit
  return signal === 'SIGKILL' ? null : 0
}

test(`T23: a restore that is killed leaves the target as it was or whole, and the next one goes on (seed ${SEED})`, async (t) => {
  const folder = await scratch(t)
  const [world, other] = [join(folder, 'world'), join(folder, 'other')]
  for (const [path, seed] of [
    [world, 1],
    [other, 1000],
  ] as const) {
    await mkdir(join(path, 'region'), { recursive: true })
    for (let i = 0; i < FILES; i += 1) {
      await writeFile(join(path, 'region', `r.${i}.mca`), seededBytes(i % 4 === 0 ? 400_000 : 3000 + i, seed + i))
    }
  }
  const url = `file://${folder}/store`
  const store = await openFilesystem({ root: join(folder, 'store') })
  const open = (storage: Storage) => openBackups({ storage, server: 'world', key: KEY })
  const { storedBytes } = await (await open(store)).create(world)
  const options: RestoreOptions = { checkpointBytes: 500_000 }
  const whole = await restoreInChild({ storage: url, key: KEY.toString('hex'), target: join(folder, 'first'), options })
  const random = seededRandom(SEED)
  const counts = { killed: 0, absent: 0, kept: 0, whole: 0, resumed: 0, savedBytes: 0 }
  const killed = async (round: number, share: number) => {
    const counted = counting(store)
    const backups = await open(counted.storage)
    const place = join(folder, `round-${round}`)
    const target = join(place, 'target')
    await mkdir(place)
    const overwrite = round % 2 === 1
    if (overwrite) execFileSync('cp', ['-a', other, target])
    const told = { ...options, overwrite }
    const killMs = share * (whole as number)
    const took = await restoreInChild({ storage: url, key: KEY.toString('hex'), target, options: told }, killMs)
    if (took === null) counts.killed += 1
    const names = await readdir(place)
    if (!names.includes('target')) counts.absent += 1
    else if (overwrite && diffTrees(target, other).length === 0) counts.kept += 1
    else {
      assert.deepEqual(diffTrees(target, world).slice(0, 5), [], `round ${round}: neither the old nor the new`)
      counts.whole += 1
    }
    // What is whole is not empty, so only an overwrite may go over it again.
    const next = await backups.restore('latest', target, { ...told, overwrite: overwrite || names.includes('target') })
    if (next.resumed) {
      counts.resumed += 1
      counts.savedBytes += Math.max(0, storedBytes - counted.bytes())
    }
    assert.deepEqual(diffTrees(target, world), [], `round ${round}`)
    assert.deepEqual(await readdir(place), ['target'], `round ${round}`)
  }
  const shares = Array.from({ length: ROUNDS }, () => 0.9 * random.next())
  const work = async (first: number) => {
    for (let round = first; round < ROUNDS; round += AT_ONCE) await killed(round, shares[round] as number)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, (_, first) => work(first)))
  t.diagnostic(JSON.stringify(counts))
  assert.ok(counts.killed >= ROUNDS / 3, 'many were killed before their end')
  // How far each had come, and so what was saved, hangs on the machine: restore-resume.test.ts holds that to bytes.
})
