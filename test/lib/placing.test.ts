import assert from 'node:assert/strict'
import fs from 'node:fs'
import { mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { openBackups } from '../../lib/index.ts'
import { findPlace, isThere, type Place } from '../../lib/place.ts'
import { finishPlacing, putInPlace } from '../../lib/placing.ts'
import { newStaging, type Staging, type StagingRecord, takeOver } from '../../lib/staging.ts'
import { scratch } from '../support/cli.ts'

/** A target that stands, and a restored tree that waits for its place. */
async function begin(t: TestContext, { inside = false }: { inside?: boolean } = {}) {
  const target = join(await scratch(t), 'target')
  await mkdir(target)
  await writeFile(join(target, 'level.dat'), 'old')
  const found = await findPlace(target)
  const place: Place = inside ? { ...found, around: target, inside, prefix: '.millrace-' } : found
  const staging = await newStaging(place, {})
  t.after(() => staging.release())
  await mkdir(staging.tree)
  await writeFile(join(staging.tree, 'level.dat'), 'new')
  const level = () => readFile(join(target, 'level.dat'), 'utf8')
  return { place, staging, level }
}

/** As another process would have left it. */
async function rewrite({ path }: Staging, change: Partial<StagingRecord>): Promise<void> {
  const file = join(path, 'restore.json')
  await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), ...change }))
}

test('where the new cannot take the place of the old, the old is put back', async (t) => {
  const { place, staging, level } = await begin(t)
  await rm(staging.tree, { recursive: true })
  const placing = putInPlace(staging, place, 'overwrite')
  await assert.rejects(placing, { code: 'TARGET', message: /cannot be put in place/ })
  assert.equal(await level(), 'old')
  assert.equal(await isThere(staging.old), false)
})

test('a restore that died before it had touched the target is as one that is being built', async (t) => {
  for (const [phase, inside] of [
    ['placing', false],
    ['aside', true],
    ['merging', false],
    ['merging', true],
  ] as const) {
    const { place, staging, level } = await begin(t, { inside })
    await staging.note({ phase, names: ['level.dat'] })
    assert.equal(await finishPlacing(staging, place), false, `${phase}, ${inside}`)
    assert.equal(staging.record.phase, phase === 'merging' ? 'merging' : 'building')
    assert.equal(await level(), 'old')
    assert.equal(await readFile(join(staging.tree, 'level.dat'), 'utf8'), 'new')
  }
})

test('inside a target, what has come there since a restore died is not replaced', async (t) => {
  const { place, staging, level } = await begin(t, { inside: true })
  await staging.note({ phase: 'placing' })
  await assert.rejects(finishPlacing(staging, place), { code: 'TARGET', message: /Something new stands at/ })
  assert.equal(await level(), 'old')
  assert.equal(await readFile(join(staging.tree, 'level.dat'), 'utf8'), 'new')
})

test('a folder whose name only begins as a staging folder’s does stays', async (t) => {
  const { place, staging } = await begin(t)
  await staging.discard()
  const names = ['notes', '0123456789ab-copy', '0123456789abcdef', 'ABCDEF012345'].map((one) => place.prefix + one)
  for (const name of names) await mkdir(join(place.around, name))
  assert.deepEqual(await takeOver(place), [])
  assert.deepEqual((await readdir(place.around)).sort(), [...names, 'target'].sort())
})

test('where the old cannot be put back either, both are kept, and told where', async (t) => {
  const { place, staging, level } = await begin(t)
  await staging.discard()
  const world = join(await scratch(t), 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), 'new')
  const backups = await openBackups({ storage: await openMemory(), server: 'world', key: Buffer.alloc(32, 6) })
  await backups.create(world)
  const { renameSync } = fs
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  t.mock.method(fs, 'renameSync', (from: string, to: string) => {
    if (to === place.path) throw Object.assign(new Error('EIO: i/o error, rename'), { code: 'EIO' })
    renameSync(from, to)
  })
  syncBuiltinESMExports()
  let kept = ''
  const onKept = (folder: string) => {
    kept = folder
  }
  const restoring = backups.restore('latest', place.path, { overwrite: true, onKept })
  await assert.rejects(restoring, { code: 'TARGET', message: /cannot be put in place/ })
  assert.equal(await readFile(join(kept, 'old', 'level.dat'), 'utf8'), 'old')
  assert.equal(await readFile(join(kept, 'tree', 'level.dat'), 'utf8'), 'new')
  t.mock.restoreAll()
  syncBuiltinESMExports()
  // The next one finishes it.
  await backups.restore('latest', place.path, { overwrite: true })
  assert.equal(await level(), 'new')
})

test('a staging folder is taken over from a process that is gone, and from another machine when it has been silent', {
  skip: process.platform === 'linux' ? false : 'only there it can be told when a process began',
}, async (t) => {
  for (const [change, isHeld] of [
    [{ pid: process.ppid, born: null }, true],
    [{ pid: process.ppid, born: 'another boot/1' }, false],
    [{ host: 'elsewhere', pid: 2 ** 30 }, true],
  ] as const) {
    const { place, staging, level } = await begin(t)
    staging.release()
    await rewrite(staging, change)
    if (isHeld) {
      await assert.rejects(takeOver(place), { code: 'TARGET', message: /Another restore to .* is at work/ })
      assert.ok(await isThere(staging.tree))
    }
    const record = join(staging.path, 'restore.json')
    const old = new Date(Date.now() - 20 * 60_000)
    await utimes(record, old, old)
    if (!isHeld || 'host' in change) {
      const [taken] = await takeOver(place)
      assert.equal(await readFile(join(taken?.tree as string, 'level.dat'), 'utf8'), 'new')
      taken?.release()
    }
    assert.equal(await level(), 'old')
  }
})
