import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { withBandwidth, withRetry } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { openBackups } from '../../lib/index.ts'
import { scratch } from '../support/cli.ts'
import { failure } from '../support/scripted-store.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'
import { type Habits, wireOver } from '../support/wire.ts'

const key = Buffer.alloc(32, 3)
const MIB = 2 ** 20

/** A snapshot that is larger than the ring of a restore, in a store whose adapter advises parallel reads. */
async function fixture(t: TestContext, habits: Habits = {}, parallelReads: number | null = 4) {
  const folder = join(await scratch(t), 'world')
  await mkdir(join(folder, 'region'), { recursive: true })
  for (let index = 0; index < 5; index++) await writeFile(join(folder, `region/${index}`), randomBytes(5 * MIB))
  await writeFile(join(folder, 'level.dat'), sample(1000))
  const memory = await openMemory()
  await (await openBackups({ storage: memory, server: 'a', key })).create(folder)
  const wire = wireOver(memory, { chunkBytes: 256 * 1024, latencyMs: () => 2, ...habits })
  // So slow that the reader waits for it, on a busy machine too.
  const line = withBandwidth(wire.storage, { readBytesPerSecond: 16 * MIB })
  const open = (storage: Storage) => openBackups({ storage, server: 'a', key })
  const storage = overriding(line, { parallelReads: parallelReads ?? undefined })
  return { folder, memory, wire, storage, open, target: join(await scratch(t), 'out') }
}

test('a whole restore and a full verify read by several requests at once where the store advises it', async (t) => {
  const { folder, wire, storage, open, target } = await fixture(t)
  const backups = await open(storage)
  assert.equal((await backups.verify('latest')).status, 'ok')
  assert.ok(wire.maxOpen > 1 && wire.maxOpen <= 4, `${wire.maxOpen} at once`)
  // All of it by one request at first, which is ended early.
  assert.ok(wire.requests.every(({ start = 0, end = 0 }) => start === 0 || end - start < 4 * MIB))
  wire.maxOpen = 0
  const { verified } = await backups.restore('latest', target)
  assert.equal(verified, true)
  assert.ok(wire.maxOpen > 1 && wire.maxOpen <= 4, `${wire.maxOpen} at once`)
  for (let index = 0; index < 5; index++) {
    assert.ok((await readFile(join(target, `region/${index}`))).equals(await readFile(join(folder, `region/${index}`))))
  }
})

test('a store that advises nothing is read by one stream', async (t) => {
  const { wire, storage, open } = await fixture(t, {}, null)
  assert.equal((await (await open(storage)).verify('latest')).status, 'ok')
  assert.equal(wire.maxOpen, 1)
})

test('one file reads the same bytes, and as few, whatever the store advises', async (t) => {
  const { memory, open } = await fixture(t)
  const asked: string[][] = []
  for (const parallelReads of [undefined, 4]) {
    const ranges: string[] = []
    const storage = overriding(memory, {
      parallelReads,
      createReadStream: (name, options) => {
        if (!name.endsWith('.sha256')) ranges.push('a stream')
        return memory.createReadStream(name, options)
      },
      readRange: (name, offset, length, options) => {
        ranges.push(`${offset}+${length}`)
        return memory.readRange(name, offset, length, options)
      },
    })
    const backups = await open(storage)
    await backups.restore('latest', join(await scratch(t), 'one'), { include: ['level.dat'] })
    asked.push(ranges.sort())
  }
  assert.deepEqual(asked[0], asked[1])
  assert.ok(!asked[0]!.includes('a stream'))
})

test('T13: a restore by several requests goes on when some of them drop', async (t) => {
  let drops = 0
  const fail = (start: number) => (start > 0 && drops++ % 3 === 0 ? failure('UNAVAILABLE', 'read') : undefined)
  const { storage, open, target } = await fixture(t, { fail })
  const retrying = withRetry(storage, { attempts: 5, baseMs: 1, capMs: 1, deadlineMs: 60_000 })
  assert.equal((await (await open(retrying)).restore('latest', target)).verified, true)
  assert.ok(drops > 4, `${drops} requests`)
})

test('T14: an object that is replaced during a restore by several requests is CONFLICT', async (t) => {
  let replace = () => {}
  const fail = (start: number) => {
    if (start > 0) replace()
    return undefined
  }
  const { memory, storage, open, target } = await fixture(t, { fail })
  const [object] = (await Array.fromAsync(memory.list('a/'))).filter(({ key: name }) => name.endsWith('.mlr'))
  replace = () => memory.createWriteStream(object!.key).end(randomBytes(object!.size))
  await assert.rejects((await open(storage)).restore('latest', target), { code: 'CONFLICT' })
  await assert.rejects(readFile(target), { code: 'ENOENT' })
})
