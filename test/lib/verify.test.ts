import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openBackups } from '../../lib/index.ts'
import { pickSample } from '../../lib/sample.ts'
import { VerifyNotes } from '../../lib/verify-notes.ts'
import { millrace, PASSWORD, scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { listedAt } from '../support/report-facts.ts'
import { overriding } from '../support/storage.ts'

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

test('the store is listed once for all verifications, and of many several are noted by one write', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'world'), 'a world')
  const storage = await openFilesystem({ root: join(folder, 'store') })
  const lists: string[] = []
  const watched = overriding(storage, {
    list: (prefix, options) => {
      lists.push(prefix)
      return storage.list(prefix, options)
    },
  })
  const backups = await openBackups({ storage: watched, server: 'world', password: PASSWORD })
  const made = [await backups.create(join(folder, 'world')), await backups.create(join(folder, 'world'))]
  lists.length = 0
  const copies: string[] = []
  const onCopy = (_: unknown, { id }: { id: string }) => void copies.push(id)
  await Array.fromAsync(backups.verifyAll({ quick: true, onCopy }))
  assert.deepEqual(
    copies,
    made.map(({ id }) => id),
  )
  assert.deepEqual(lists, ['world/'])
  for (const none of [{ sample: 'x' as never }, { sample: 2 }, { sample: 0.5, quick: true }]) {
    await assert.rejects(Array.fromAsync(backups.verifyAll(none)), { code: 'USAGE' })
  }

  const notes = new VerifyNotes(join(folder, 'state'), storage.location)
  const snapshots = Array.from({ length: 200 }, (_, at) => listedAt('world', 1_700_000_000_000 + at * 1000))
  const written = new Set<bigint>()
  for (const snapshot of snapshots) {
    await notes.add(snapshot, { id: snapshot.id, status: 'ok', mode: 'quick', storedBytes: 0, elapsedMs: 1 })
    const [file] = await readdir(join(folder, 'state'))
    written.add((await stat(join(folder, 'state', file as string), { bigint: true })).mtimeNs)
  }
  assert.ok(written.size < 100, `${written.size} writes of the whole file for 200 notes`)
  await notes.flush()
  assert.equal((await new VerifyNotes(join(folder, 'state'), storage.location).verified(snapshots)).size, 200)
})

test('a state of verifications that somebody else has written is as none, and stands in the way of nothing', async (t) => {
  const state = join(await scratch(t), 'state')
  const snapshot = listedAt('world', 1_700_000_000_000)
  const one = { id: snapshot.id, status: 'ok', mode: 'full', storedBytes: 0, elapsedMs: 1 } as const
  const store = 'file:///mnt/backups'
  await new VerifyNotes(state, store).remember(snapshot, one, 5)
  const [name] = await readdir(state)
  const file = join(state, name as string)
  const written = JSON.parse(await readFile(file, 'utf8'))
  const whole = written.verified[snapshot.key]
  const entries = [
    ...[null, 'x', 7, [], { ...whole, size: '0' }, { ...whole, version: {} }, { ...whole, status: 'x' }],
    ...[
      { ...whole, mode: null },
      { ...whole, at: 'x' },
      { ...whole, at: 1e300 },
      { ...whole, reason: [] },
    ],
  ]
  for (const verified of [null, 'x', 7, true, ...entries.map((entry) => ({ [snapshot.key]: entry }))]) {
    await writeFile(file, JSON.stringify({ ...written, verified }))
    const notes = new VerifyNotes(state, store)
    assert.equal((await notes.verified([snapshot])).size, 0, JSON.stringify(verified))
    await notes.remember(snapshot, one, 6)
    assert.equal((await notes.verified([snapshot])).get(snapshot.key)?.at, 6, JSON.stringify(verified))
  }
})
