import assert from 'node:assert/strict'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openMemory } from '../../adapters/memory.ts'
import { openBackups } from '../../lib/index.ts'
import { scratch } from '../support/cli.ts'
import { makeTree } from '../support/tree.ts'

// What programs do, with types and without, beside what a backup is for.

async function world(t: TestContext): Promise<string> {
  const folder = join(await scratch(t), 'world')
  await makeTree(folder, [
    { path: 'region', type: 'dir' },
    { path: 'region/r.0.0.mca', type: 'file', content: 'chunks' },
    { path: 'empty', type: 'dir' },
    { path: 'level.dat', type: 'file', content: 'level' },
    { path: 'link', type: 'symlink', target: 'level.dat' },
  ])
  return folder
}

const open = async () => openBackups({ storage: await openMemory(), server: 'survival', key: Buffer.alloc(32, 9) })

test('a stream is destroyed also where the backup fails before it is read', async () => {
  const backups = await open()
  const failing = [
    { level: 99 },
    { hooks: { before: 'exit 1' } },
    { include: ['a'] },
    { signal: AbortSignal.abort() },
    { journal: { folder: '' } as never },
  ]
  for (const options of failing) {
    const source = new Readable({ read() {} })
    await assert.rejects(backups.create(source, options))
    assert.ok(source.destroyed, JSON.stringify(options))
  }
})

test('inspect reads on only when what it has given has been taken', async (t) => {
  const backups = await open()
  await backups.create(await world(t))
  let atWork = 0
  let most = 0
  let told = 0
  const onEntry = async () => {
    atWork += 1
    most = Math.max(most, atWork)
    await delay(1)
    told += 1
    atWork -= 1
  }
  await backups.inspect('latest', { onEntry })
  assert.deepEqual({ told, most }, { told: 5, most: 1 })
})

test('an abort while inspect gives entries is an AbortError at once', async (t) => {
  const backups = await open()
  await backups.create(await world(t))
  const controller = new AbortController()
  let told = 0
  const onEntry = () => {
    told += 1
    controller.abort()
  }
  await assert.rejects(backups.inspect('latest', { onEntry, signal: controller.signal }), { name: 'AbortError' })
  assert.equal(told, 1)
})

test('patterns that are no list, and a target that is no path, are refused as that', async (t) => {
  const folder = await world(t)
  const backups = await open()
  const { id } = await backups.create(folder)
  const target = join(await scratch(t), 'target')
  for (const include of ['level.dat', 5, [null], {}] as never[]) {
    const refused = { code: 'USAGE', message: /include has to be an array/ }
    await assert.rejects(backups.create(folder, { include }), refused)
    await assert.rejects(backups.restore(id, target, { include }), refused)
  }
  for (const exclude of ['level.dat', 5, [null], {}] as never[]) {
    await assert.rejects(backups.create(folder, { exclude }), { code: 'USAGE', message: /exclude has to be an array/ })
  }
  for (const none of [undefined, null, 5] as never[]) await assert.rejects(backups.restore(id, none), { code: 'USAGE' })
  assert.equal((await backups.list()).length, 1)
})
