import assert from 'node:assert/strict'
import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { openBackups } from '../../lib/index.ts'
import { mayLack } from '../../lib/source.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'
import { tempFolder } from '../support/tree.ts'

const FILES = 2000
/** More than all stages hold together. */
const LARGE_BYTES = 48 * 1024 * 1024

/**
 * Backs up a large file and then many small ones, and calls `change` while the large one is read: all are listed by then,
 * and the last ones are not read yet.
 */
async function backUpWhile(t: TestContext, change: (world: string) => void) {
  const world = join(tempFolder(t), 'world')
  await mkdir(join(world, 'files'), { recursive: true })
  await writeFile(join(world, 'files', 'a-large'), sample(LARGE_BYTES))
  for (let i = 0; i < FILES; i++) await writeFile(join(world, 'files', `f${String(i).padStart(4, '0')}`), 'x')
  const memory = await openMemory()
  const storage = overriding(memory, {
    createWriteStream(key, options) {
      const stream = memory.createWriteStream(key, options)
      const write = stream._write.bind(stream)
      let isFirst = key.endsWith('.zst')
      stream._write = (...chunk) => {
        if (isFirst) change(world)
        isFirst = false
        write(...chunk)
      }
      return stream
    },
  })
  const backups = await openBackups({ storage, server: 'survival', encryption: false })
  const kinds: string[] = []
  const { omissions, files, incomplete } = await backups.create(world, {
    onWarning: ({ kind }) => void kinds.push(kind),
  })
  const { removed, unreadable } = omissions
  return { files, incomplete, removed, unreadable, kinds: new Set(kinds), mayLack: mayLack(omissions, files) }
}

test('a file that is removed while others are read keeps no prune away, and is told', async (t) => {
  const made = await backUpWhile(t, (world) => rmSync(join(world, 'files', `f${FILES - 1}`)))
  assert.deepEqual(made, {
    ...{ files: FILES, incomplete: true, removed: 1, unreadable: 0 },
    ...{ kinds: new Set(['removed']), mayLack: false },
  })
})

test('as many files as one in a hundred, or two of a few, keep no prune away', () => {
  const none = { special: 0, names: 0, unreadable: 0, removed: 0, changed: 0, excluded: 0 }
  for (const [files, removed, lacks] of [
    [12, 2, false],
    [12, 3, true],
    [1000, 10, false],
    [1000, 11, true],
  ] as const) {
    assert.equal(mayLack({ ...none, removed }, files), lacks, `${removed} of ${files}`)
  }
  assert.ok(mayLack({ ...none, names: 1 }, 1000))
  assert.ok(mayLack({ ...none, unreadable: 1 }, 1000))
})

test('a folder that is renamed, or put in the place of another, does', async (t) => {
  const gone = await backUpWhile(t, (world) => renameSync(join(world, 'files'), join(world, 'elsewhere')))
  assert.ok(gone.unreadable > 0 && gone.removed === 0 && gone.mayLack, JSON.stringify(gone))
  const other = await backUpWhile(t, (world) => {
    renameSync(join(world, 'files'), join(world, 'elsewhere'))
    mkdirSync(join(world, 'files'))
  })
  assert.ok(other.removed > FILES / 10 && other.mayLack, JSON.stringify(other))
})
