import assert from 'node:assert/strict'
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type BackupsOptions, openBackups } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'

interface Place {
  world: string
  state: string
  storage: Storage
  open: (options?: Partial<BackupsOptions>) => ReturnType<typeof openBackups>
  /** Reads of objects so far. */
  reads: () => number
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const inner = await openMemory()
  let reads = 0
  const storage = overriding(inner, {
    readRange(...args) {
      reads += 1
      return inner.readRange(...args)
    },
  })
  const state = join(folder, 'state')
  return {
    world,
    state,
    storage,
    open: (options = {}) =>
      openBackups({ storage, server: 'survival', key: Buffer.alloc(32, 7), stateFolder: state, ...options }),
    reads: () => reads,
  }
}

const KNOWN = { consistency: 'live', files: 1, bytes: 7680, excluded: 0 }

async function cacheFile({ state }: Place): Promise<string> {
  const [store] = await readdir(join(state, 'snapshots'))
  return join(state, 'snapshots', store as string, 'survival.json')
}

test('what a snapshot says is known after it was made or inspected, without opening it', async (t) => {
  const at = await place(t)
  const backups = await at.open()
  await backups.create(at.world)
  assert.deepEqual((await backups.describe())[0]?.known, KNOWN)
  assert.equal(at.reads(), 0)
  await rm(at.state, { recursive: true })
  assert.equal((await backups.describe())[0]?.known, null)
  assert.equal(at.reads(), 0)
  await backups.inspect('latest')
  assert.deepEqual((await backups.describe())[0]?.known, KNOWN)
})

test('what is not known is fetched when it is asked for, once', async (t) => {
  const at = await place(t)
  const writer = await at.open({ stateFolder: undefined })
  for (let i = 0; i < 6; i++) await writer.create(at.world)
  const backups = await at.open()
  assert.deepEqual(
    (await backups.describe({ fetch: true })).map(({ known }) => known),
    Array(6).fill(KNOWN),
  )
  const reads = at.reads()
  assert.ok(reads > 0)
  assert.deepEqual(
    (await backups.describe({ fetch: true })).map(({ known }) => known),
    Array(6).fill(KNOWN),
  )
  assert.equal(at.reads(), reads)
})

test('of an object that was replaced nothing is known, and one that cannot be opened says why', async (t) => {
  const at = await place(t)
  const backups = await at.open()
  const made = await backups.create(at.world)
  await backups.create(at.world)
  const write = at.storage.createWriteStream(made.key)
  await new Promise((resolve) => write.on('finish', resolve).end(Buffer.alloc(made.storedBytes, 1)))
  const [replaced, other] = await backups.describe({ fetch: true })
  assert.equal(replaced?.known, null)
  assert.match(replaced?.problem ?? '', /MILLRACE|millrace/)
  assert.deepEqual(other?.known, KNOWN)
})

test('a cache that is damaged, of another store, or cannot be written is none', async (t) => {
  const at = await place(t)
  const backups = await at.open()
  await backups.create(at.world)
  const file = await cacheFile(at)
  const good = await readFile(file, 'utf8')
  for (const bad of [
    '',
    '{',
    'null',
    good.replace('"v":1', '"v":2'),
    good.replace('memory:', 'elsewhere:'),
    good.replace('"live"', '7'),
  ]) {
    assert.notEqual(bad, good)
    await writeFile(file, bad)
    assert.equal((await backups.describe())[0]?.known, null, bad)
  }
  await writeFile(file, good)
  assert.deepEqual((await backups.describe())[0]?.known, KNOWN)
  await rm(at.state, { recursive: true })
  await writeFile(at.state, 'a file')
  assert.equal((await backups.create(at.world)).incomplete, false)
  await rm(at.state)
  await mkdir(at.state)
  await chmod(at.state, 0o500)
  assert.equal((await backups.create(at.world)).incomplete, false)
})

test('list shows the level without a password, - where it is not known, and --long fetches it', async (t) => {
  const { world, state } = await place(t)
  const url = `file://${world}-store`
  const env = { MILLRACE_STATE_DIR: state }
  await millrace(['backup', world, '--to', url], { env })
  const bare = { env: { ...env, MILLRACE_PASSWORD: '' } }
  const list = ['list', '--from', url]
  assert.match((await millrace(list, bare)).stdout.toString(), / folder +live +complete/)
  await rm(state, { recursive: true })
  assert.match((await millrace(list, bare)).stdout.toString(), / folder +- +complete/)
  assert.equal((await millrace([...list, '--long'], bare)).code, 2)
  assert.match(
    (await millrace([...list, '--long'], { env })).stdout.toString(),
    / 7\.50 KiB +\d\.\d\d +1 +0 +folder +live +complete/,
  )
  assert.match((await millrace(list, bare)).stdout.toString(), / folder +live +complete/)
  const wrong = await millrace([...list, '--password-file', '/dev/null'], bare)
  assert.equal(wrong.code, 2)
  // What is gone from the store is forgotten.
  const [store] = await readdir(join(state, 'snapshots'))
  await rm(`${world}-store/world`, { recursive: true })
  await millrace(['backup', world, '--to', url], { env })
  await millrace(list, bare)
  const cached = JSON.parse(await readFile(join(state, 'snapshots', store as string, 'world.json'), 'utf8'))
  assert.equal(Object.keys(cached.snapshots).length, 1)
})
