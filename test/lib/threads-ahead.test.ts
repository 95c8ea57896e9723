import assert from 'node:assert/strict'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import { scanFolder } from '../../lib/archive/scan.ts'
import { openBackups } from '../../lib/index.ts'
import { seededBytes } from '../support/random.ts'
import { overriding } from '../support/storage.ts'
import { threadsOf } from '../support/threads.ts'
import { tempFolder } from '../support/tree.ts'

const KEY = Buffer.alloc(32, 7)
/** What a thread is begun for. */
const LARGE_BYTES = 64 * 1024 * 1024

/** A world that is large by what its files say, and takes no room; with enough files to be told of on the way. */
function world(t: TestContext): string {
  const folder = join(tempFolder(t), 'world')
  mkdirSync(folder)
  for (let i = 0; i < 40; i += 1) {
    const file = join(folder, `r.${i}.mca`)
    writeFileSync(file, '')
    truncateSync(file, LARGE_BYTES / 16)
  }
  return folder
}

async function assertNoneLeft(threads: readonly { threadId: number }[], atLeast: number): Promise<void> {
  assert.ok(threads.length >= atLeast, `${threads.length} threads were begun`)
  for (let waits = 0; threads.some(({ threadId }) => threadId !== -1) && waits < 100; waits += 1) await delay(20)
  assert.deepEqual(
    threads.map(({ threadId }) => threadId),
    threads.map(() => -1),
  )
}

test('a scan tells how much there is at least, before it has seen all', async (t) => {
  const folder = world(t)
  const told: number[] = []
  const { bytes } = await scanFolder(folder, { onSeen: (seen) => told.push(seen) })
  assert.ok(told.length > 0 && told.every((seen) => seen <= bytes))
  assert.ok((told[0] as number) >= LARGE_BYTES)
})

test('the thread that a large backup has begun ahead ends with it, also where no stream was made for it', async (t) => {
  const folder = world(t)
  const threads = threadsOf(t)
  const storage = await openMemory()
  const backups = await openBackups({ storage, server: 'survival', key: KEY })
  const made = await backups.create(folder)
  await assertNoneLeft(threads, 1)
  assert.equal((await backups.verify(made.id)).status, 'ok')

  threads.length = 0
  const quiesce = { hold: () => Promise.reject(new Error('It will not hold still.')) }
  await assert.rejects(backups.create(folder, { quiesce: quiesce as never }))
  await assertNoneLeft(threads, 1)

  threads.length = 0
  const refusing = overriding(storage, {
    createWriteStream(key: string, options) {
      if (!key.endsWith('.mlr')) return storage.createWriteStream(key, options)
      throw new StorageError('No.', { code: 'INVALID', adapter: 'memory', operation: 'createWriteStream' })
    },
  })
  const refused = await openBackups({ storage: refusing, server: 'survival', key: KEY })
  await assert.rejects(refused.create(folder), { code: 'INVALID' })
  await assertNoneLeft(threads, 1)
})

test('a restore begins its thread while the keys are derived, and it ends with a wrong password too', async (t) => {
  const out = tempFolder(t)
  const file = join(out, 'noise')
  // Not to be compressed: the object has to be large as well.
  writeFileSync(file, seededBytes(LARGE_BYTES + 1, 1))
  const storage = await openMemory()
  const right = await openBackups({ storage, server: 'survival', password: 'right' })
  const { id } = await right.create(file)
  const threads = threadsOf(t)
  const wrong = await openBackups({ storage, server: 'survival', password: 'wrong' })
  await assert.rejects(wrong.restore(id, join(out, 'never')), { code: 'WRONG_KEY' })
  await assertNoneLeft(threads, 1)
  threads.length = 0
  const { verified } = await right.restore(id, join(out, 'again'))
  assert.equal(verified, true)
  // The one that was begun ahead is the one that was used.
  await assertNoneLeft(threads, 1)
  assert.equal(threads.length, 1)
})
