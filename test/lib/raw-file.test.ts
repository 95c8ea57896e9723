import assert from 'node:assert/strict'
import fs from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { seededBytes } from '../../bench/world.ts'
import { writeRawFile } from '../../lib/archive/raw-file.ts'
import { tempFolder } from '../support/tree.ts'

type Write = (this: FileHandle, data: Buffer, at: number, length: number, position: number) => Promise<unknown>

/** What the file handles of this process have in common. */
async function handles(t: TestContext): Promise<FileHandle> {
  const handle = await open(path.join(tempFolder(t), 'any'), 'w')
  await handle.close()
  return Object.getPrototypeOf(handle) as FileHandle
}

async function* piecesOf(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 10_000) yield bytes.subarray(at, at + 10_000)
}

test('a file that is gone on with keeps what is before, and nothing of what was behind', async (t) => {
  const file = path.join(tempFolder(t), 'file')
  fs.writeFileSync(file, 'kept, and much that is not kept')
  const options = { from: 6, everyBytes: 1e9, onMark: async () => {} }
  assert.equal(await writeRawFile(piecesOf(Buffer.from('new')), file, options), 9)
  assert.equal(fs.readFileSync(file, 'utf8'), 'kept, new')
})

test('writes that take a part of what they are given leave no gap, and a mark comes when its bytes are on the disk', async (t) => {
  const file = path.join(tempFolder(t), 'file')
  const bytes = seededBytes('raw file')(95_000)
  const handle = await handles(t)
  const real = handle.write as unknown as Write
  let onDisk = 0
  const write: Write = function (data, at, length, position) {
    return real.call(this, data, at, Math.min(length, 777), position)
  }
  const sync = handle.sync
  t.mock.method(handle, 'write', write as never)
  t.mock.method(handle, 'sync', async function (this: FileHandle) {
    await sync.call(this)
    onDisk = (await this.stat()).size
  })
  const marks: [number, number][] = []
  const onMark = async (marked: number) => void marks.push([marked, onDisk])
  assert.equal(await writeRawFile(piecesOf(bytes), file, { from: 0, everyBytes: 30_000, onMark }), bytes.length)
  t.mock.restoreAll()
  assert.deepEqual(marks, [
    [30_000, 30_000],
    [60_000, 60_000],
    [90_000, 90_000],
  ])
  assert.equal(onDisk, bytes.length)
  assert.ok(fs.readFileSync(file).equals(bytes))
})
