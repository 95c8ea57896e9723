import assert from 'node:assert/strict'
import fs from 'node:fs'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { BackupError, type Backups, type CreateOptions, openBackups } from '../../lib/index.ts'
import { TransformError } from '../../transforms/index.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { randomShape, randomWorld } from '../support/random-world.ts'
import { diffTrees, makeTree, snapshotTree, type TreeItem, tempFolder } from '../support/tree.ts'

const KiB = 1024
const SEEDS = faultSeeds(...Array.from({ length: 40 }, (_, at) => at))
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
