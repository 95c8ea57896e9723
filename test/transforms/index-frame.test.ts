import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readIndex } from '../../transforms/index.ts'
import { indexPayload } from '../vectors/build.ts'

// What is checked of each line is in the vectors (`index-…`, `entry-…`). These are the keys that may be left out.

const HEAD = { v: 1, server: 's', id: 'i', created: 0, tool: 't', bytes: 1024, files: 1, consistency: 'live' }
const TAR = { ...HEAD, kind: 'tar', mode: 493, mtime: 0 }
const ENTRY = { path: 'a', type: 'file', size: 0, mode: 420, mtime: 0, uid: 0, gid: 0, at: 0, data: 512 }

async function read(...lines: object[]): Promise<number> {
  let count = 0
  for await (const _ of readIndex([indexPayload([lines])] as unknown as AsyncIterable<Buffer>)) count += 1
  return count
}

const isCorrupt = (error: unknown) => (error as { code?: string }).code === 'CORRUPT'

test('what an index may leave out has its type where it is there', async () => {
  assert.equal(await read({ ...HEAD, kind: 'raw' }), 1)
  assert.equal(await read({ ...HEAD, kind: 'raw', mode: 420, mtime: -0.5 }), 1)
  assert.equal(await read(TAR, ENTRY, { ...ENTRY, link: 'b', changed: 'later', superseded: true }), 3)
  for (const wrong of [{ mode: 'x' }, { mode: -1 }, { mode: null }, { mtime: 'x' }, { mtime: null }]) {
    await assert.rejects(read({ ...HEAD, kind: 'raw', ...wrong }), isCorrupt, JSON.stringify(wrong))
  }
  for (const type of ['file', 'dir', 'symlink', 'link']) {
    const entry = { ...ENTRY, type, link: 'b' }
    assert.equal(await read(TAR, entry), 2)
    for (const wrong of [{ link: 0.5 }, { link: null }, { link: ['b'] }, { changed: 1 }, { superseded: 'yes' }]) {
      await assert.rejects(read(TAR, { ...entry, ...wrong }), isCorrupt, JSON.stringify({ type, ...wrong }))
    }
  }
})
