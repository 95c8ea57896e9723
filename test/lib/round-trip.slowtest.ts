import assert from 'node:assert/strict'
import fs from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openMemory } from '../../adapters/memory.ts'
import { BackupError, type Backups, type CreateOptions, openBackups } from '../../lib/index.ts'
import { TransformError } from '../../transforms/index.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { randomShape, randomWorld } from '../support/random-world.ts'
import { diffTrees, makeTree, type SnapshotEntry, snapshotTree, type TreeItem, tempFolder } from '../support/tree.ts'

const KiB = 1024
/** Of each test; `MILLRACE_FAULT_SEED=40,41,42` for others. */
const SEEDS = faultSeeds(...Array.from({ length: 12 }, (_, at) => at))
const DAMAGED_BYTES = 12
const INTERRUPTIONS = 3

function optionsOf(random: Random): CreateOptions {
  return {
    level: random.pick([undefined, 1, 3, 9]),
    zstdFrameBytes: random.pick([undefined, 64 * KiB, 100_003, 1024 * KiB]),
    threads: random.pick([undefined, 1, 3]),
    iterations: 100_000,
  }
}

async function someFiles(backups: Backups, random: Random, items: TreeItem[]): Promise<void> {
  const files = items.filter((item) => item.type === 'file')
  for (let at = 0; at < 4; at++) {
    const { path, content = '' } = random.pick(files)
    const read = await buffer(await backups.read('latest', String(path)))
    assert.ok(read.equals(Buffer.from(content)), `${JSON.stringify(path)} is read as other bytes`)
  }
}

/** A folder with all in it, what hard links in it share, and else nothing but the folders on the way to them. */
async function oneFolder(backups: Backups, random: Random, items: TreeItem[], world: string, target: string) {
  const folder = Buffer.from(random.pick(items.filter(({ type }) => type === 'dir')).path)
  await backups.restore('latest', target, { include: [escapeGlob(folder.toString())] })
  const [all, got] = [snapshotTree(world), snapshotTree(target)]
  const within = folder.toString('latin1')
  const chosen = [...all].filter(([path]) => path === within || path.startsWith(`${within}/`))
  const groups = new Set(chosen.flatMap(([, { group }]) => group ?? []))
  const wanted = [...all].filter(([, { group = '' }]) => groups.has(group)).concat(chosen)
  for (const [path] of chosen) assert.ok(got.has(path), `${JSON.stringify(path)} is missing`)
  for (const [path, { hash, target: link }] of got) {
    const isWanted = wanted.some(([one]) => one === path || one.startsWith(`${path}/`) || path === '.')
    assert.ok(isWanted, `${JSON.stringify(path)} was not asked for`)
    assert.deepEqual([hash, link], [all.get(path)?.hash, all.get(path)?.target], path)
  }
}

function escapeGlob(path: string): string {
  return path.replace(/[\\*?[\]{}()!+@|]/g, '\\$&')
}

/** Broken off several times, it is gone on with, and what comes out is the same. */
async function interrupted(backups: Backups, random: Random, target: string): Promise<void> {
  for (let at = 0; at < INTERRUPTIONS; at++) {
    const stopper = new AbortController()
    const share = random.next()
    const onProgress = ({ bytes, expectedBytes = 1 }: { bytes: number; expectedBytes?: number | undefined }) => {
      if (bytes >= share * expectedBytes) stopper.abort()
    }
    try {
      await backups.restore('latest', target, { checkpointBytes: 256 * KiB, signal: stopper.signal, onProgress })
      return
    } catch (error) {
      assert.equal((error as Error).name, 'AbortError')
      assert.equal(fs.existsSync(target), false)
    }
  }
  await backups.restore('latest', target, { checkpointBytes: 256 * KiB })
}

/** With one bit of the object changed, nothing is restored. */
async function damaged(backups: Backups, random: Random, object: string, target: string): Promise<void> {
  const handle = fs.openSync(object, 'r+')
  try {
    const { size } = fs.fstatSync(handle)
    const byte = Buffer.alloc(1)
    for (let at = 0; at < DAMAGED_BYTES; at++) {
      const place = random.int(size)
      fs.readSync(handle, byte, 0, 1, place)
      const was = byte[0] as number
      fs.writeSync(handle, Buffer.of(was ^ (1 << random.int(8))), 0, 1, place)
      await assert.rejects(
        backups.restore('latest', target, { resume: false }),
        (error) => error instanceof BackupError || error instanceof TransformError,
        `byte ${place} of ${size}`,
      )
      assert.equal(fs.existsSync(target), false, `byte ${place} of ${size}`)
      const { status } = await backups.verify('latest').catch(() => ({ status: 'damaged' }))
      assert.notEqual(status, 'ok', `byte ${place} of ${size}`)
      fs.writeSync(handle, Buffer.of(was), 0, 1, place)
    }
  } finally {
    fs.closeSync(handle)
  }
  assert.equal((await backups.verify('latest')).status, 'ok')
}

for (const seed of SEEDS) {
  test(`a random world comes back as it was, and nothing comes back of what is damaged (seed ${seed})`, async (t) => {
    const dir = tempFolder(t)
    const random = seededRandom(seed, 'round trip')
    const items = randomWorld(`${seed}`, randomShape(random))
    const world = join(dir, 'world')
    await makeTree(world, items)
    const storage = await openFilesystem({ root: join(dir, 'store') })
    const key = random.pick([{ password: 'correct horse' }, { key: Buffer.alloc(32, seed) }, { encryption: false }])
    const backups = await openBackups({ storage, server: 'world', ...key })
    const options = optionsOf(random)
    const made = await backups.create(world, options)
    t.diagnostic(`${items.length} entries, ${made.bytes} bytes, ${Object.keys(key)}, ${JSON.stringify(options)}`)
    assert.equal((await backups.verify('latest')).status, 'ok')
    assert.equal((await backups.verify('latest', { sample: 0.3, seed: `${seed}` })).status, 'ok')
    await backups.restore('latest', join(dir, 'whole'))
    assert.deepEqual(diffTrees(world, join(dir, 'whole')), [])
    await someFiles(backups, random, items)
    await oneFolder(backups, random, items, world, join(dir, 'some'))
    await interrupted(backups, random, join(dir, 'resumed'))
    assert.deepEqual(diffTrees(world, join(dir, 'resumed')), [])
    const [object] = fs.globSync(join(dir, 'store/world/*.{zst,mlr}'))
    await damaged(backups, random, object as string, join(dir, 'damaged'))
  })
}

/** What a target holds when a snapshot's tree was merged into another's. */
function merged(into: Map<string, SnapshotEntry>, snapshot: Map<string, SnapshotEntry>): Map<string, SnapshotEntry> {
  const isReplaced = (path: string) =>
    [...path.matchAll(/\//g)].some(({ index }) => (snapshot.get(path.slice(0, index))?.type ?? 'dir') !== 'dir')
  return new Map([...[...into].filter(([path]) => !isReplaced(path)), ...snapshot])
}

/** All but owners, and which names are one file: what is merged has hard links of two trees. */
function facts(tree: Map<string, SnapshotEntry>) {
  return [...tree]
    .map(([path, { type, mode, mtime, hash, target }]) => ({ path, type, mode, mtime, hash, target }))
    .sort((a, b) => (a.path < b.path ? -1 : 1))
}

for (const seed of SEEDS) {
  test(`a merge into another world gives what both have, or changes nothing (seed ${seed})`, async (t) => {
    const dir = tempFolder(t)
    const random = seededRandom(seed, 'merge')
    const [world, target] = [join(dir, 'world'), join(dir, 'target')]
    const shape = () => ({ folders: 1 + random.int(8), files: 5 + random.int(80), large: 0.02 })
    await makeTree(world, randomWorld(`${seed} world`, shape()))
    await makeTree(target, randomWorld(`${seed} target`, shape()))
    const [ours, theirs] = [snapshotTree(world), snapshotTree(target)]
    const isOfAnotherType = [...ours].some(([path, { type }]) => (theirs.get(path)?.type ?? type) !== type)
    const backups = await openBackups({ storage: await openMemory(), server: 'world', key: Buffer.alloc(32, 1) })
    await backups.create(world)
    const merging = backups.restore('latest', target, { merge: true })
    if (isOfAnotherType) {
      await assert.rejects(merging, (error) => error instanceof BackupError && error.code === 'TARGET')
      assert.deepEqual(facts(snapshotTree(target)), facts(theirs))
      await backups.restore('latest', target, { merge: true, overwrite: true })
    } else await merging
    assert.deepEqual(facts(snapshotTree(target)), facts(merged(theirs, ours)))
    assert.deepEqual(fs.readdirSync(dir).sort(), ['target', 'world'])
  })
}

function openBeneath(dir: string): string[] {
  return fs.readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = fs.readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(dir) ? [path] : []
    } catch {
      // It was the folder's own.
      return []
    }
  })
}

/** Runs what may be aborted at any time, and aborts it at one. */
async function aborting(random: Random, maxMs: number, work: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
  const signal = AbortSignal.timeout(random.int(maxMs + 1))
  // The timeout's own error is the reason; what is thrown is an AbortError.
  await work(signal).catch((error: Error) => assert.equal(error.name, 'AbortError', error.stack))
}

for (const seed of SEEDS) {
  test(`whatever is aborted ends with an AbortError, and leaves nothing open (seed ${seed})`, async (t) => {
    const dir = tempFolder(t)
    const random = seededRandom(seed, 'abort')
    const world = join(dir, 'world')
    await makeTree(world, randomWorld(`${seed}`, randomShape(random)))
    const storage = await openFilesystem({ root: join(dir, 'store') })
    const backups = await openBackups({ storage, server: 'world', password: 'correct horse' })
    await aborting(random, 400, (signal) => backups.create(world, { signal, iterations: 100_000 }))
    const made = await backups.list()
    const objects = fs.globSync(join(dir, 'store/**/*'), { withFileTypes: true }).filter((entry) => entry.isFile())
    assert.equal(objects.length, 2 * made.length)
    if (made.length === 0) await backups.create(world, { iterations: 100_000 })
    const [out, some] = [join(dir, 'out'), join(dir, 'some')]
    await aborting(random, 200, (signal) => backups.verify('latest', { signal }))
    await aborting(random, 100, (signal) => backups.verify('latest', { signal, sample: 0.5 }))
    await aborting(random, 400, (signal) => backups.verify('latest', { signal, restoreTest: true, scratch: dir }))
    await aborting(random, 400, (signal) => backups.restore('latest', out, { signal, checkpointBytes: 100 * KiB }))
    await aborting(random, 400, (signal) => backups.restore('latest', some, { signal, include: ['*'] }))
    await backups.restore('latest', out, { overwrite: true })
    assert.deepEqual(diffTrees(world, out), [])
    assert.deepEqual(openBeneath(dir), [])
  })
}
