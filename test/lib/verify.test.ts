import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openBackups } from '../../lib/index.ts'
import { pickSample } from '../../lib/sample.ts'
import { millrace, PASSWORD, scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'

const MIB = 1024 * 1024

test('a sample is what its seed says, and never more than there is', () => {
  assert.deepEqual(pickSample(1000, 0.05, 'a'), pickSample(1000, 0.05, 'a'))
  assert.notDeepEqual(pickSample(1000, 0.05, 'a'), pickSample(1000, 0.05, 'b'))
  assert.equal(new Set(pickSample(1000, 0.05, 'a')).size, 50)
  assert.deepEqual(pickSample(3, 1, 'a'), [0, 1, 2])
  assert.deepEqual(pickSample(0, 1, 'a'), [])
  assert.equal(pickSample(10, 0.001, 'a').length, 1)
})

test('T27: each way to verify says ok, unverified, or damaged with the first damaged place', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  for (let i = 0; i < 12; i += 1)
    await writeFile(join(world, `r.${String(i).padStart(2, '0')}`), seededBytes(MIB, i + 1))
  const storage = await openFilesystem({ root: join(folder, 'store') })
  const backups = await openBackups({ storage, server: 'world', password: PASSWORD })
  const made = await backups.create(world)
  const scratchFolder = join(folder, 'scratch')
  await mkdir(scratchFolder)
  const ways = [{ quick: true }, { sample: 0.5, seed: 'x' }, {}, { restoreTest: true, scratch: scratchFolder }]
  for (const way of ways) assert.equal((await backups.verify('latest', way)).status, 'ok', JSON.stringify(way))
  assert.equal((await backups.verify('latest', { restoreTest: true, scratch: scratchFolder })).compared, 13)
  const object = join(folder, 'store', made.key)
  const companion = await readFile(`${object}.sha256`)
  await writeFile(`${object}.sha256`, `${'0'.repeat(64)}  another-object\n`)
  for (const way of ways) assert.equal((await backups.verify(made.id, way)).status, 'unverified', JSON.stringify(way))
  await writeFile(`${object}.sha256`, companion)

  const bytes = await readFile(object)
  const at = 64 + 5 * (MIB + 28) + 1000
  bytes[at] = (bytes[at] as number) ^ 1
  await writeFile(object, bytes)
  for (const way of ways.slice(1)) {
    const found = await backups.verify(made.id, { ...way, ...(way.sample ? { sample: 1 } : {}) })
    assert.equal(found.status, 'damaged')
    assert.equal(found.damage?.layer, 'container')
    assert.equal(found.damage?.frame, 5)
    assert.equal(found.damage?.offset, 64 + 5 * (MIB + 28))
    assert.equal(found.damage?.bytes, MIB + 28)
    assert.ok(found.damage?.files?.includes('r.05'), JSON.stringify(found.damage))
  }
  assert.deepEqual(await readdir(scratchFolder), [])

  await backups.create(world)
  const from = ['--from', `file://${folder}/store`, '--server', 'world']
  const all = await millrace(['verify', '--all', ...from, '--json'])
  assert.equal(all.code, 4, all.stderr)
  const said = all.events().filter(({ event }) => event === 'verification')
  assert.deepEqual(
    said.map(({ status }) => status),
    ['damaged', 'ok'],
  )
  assert.deepEqual(all.events().at(-1), { event: 'summary', snapshots: 2, ok: 1, unverified: 0, damaged: 1, failed: 0 })
  const list = (await millrace(['list', ...from])).stdout.toString()
  assert.match(list, /VERIFIED/)
  assert.match(list, /damaged, (now|\d+ seconds? ago)/)
  assert.equal((await millrace(['verify', '--sample', '0%', ...from])).code, 2)
  assert.equal((await millrace(['verify', '--quick', '--restore-test', ...from])).code, 2)
})
