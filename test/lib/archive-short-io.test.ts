import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { seededBytes } from '../../bench/world.ts'
import { ChunkLedger } from '../../lib/archive/chunks.ts'
import { extractTar } from '../../lib/archive/extract.ts'
import { packFolder } from '../../lib/archive/pack.ts'
import { diffTrees, tempFolder } from '../support/tree.ts'

/*
 * read(2) and write(2) may do a part of what they are asked for: at a limit, on a network share, through FUSE. What is
 * left has to follow where it belongs.
 */

type Done = (error: Error | null, bytes: number, data: Buffer) => void

/** Has every call of this process do no more than `most` bytes. */
function shorten(t: TestContext, call: 'read' | 'write', most: number): void {
  const real = fs[call] as (fd: number, data: Buffer, at: number, bytes: number, position: unknown, done: Done) => void
  t.mock.method(fs, call, (fd: number, data: Buffer, at: number, bytes: number, position: unknown, done: Done) =>
    real(fd, data, at, Math.min(bytes, most), position, done),
  )
}

function writeWorld(t: TestContext): { world: string; out: string } {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  const random = seededBytes('short reads and writes')
  fs.mkdirSync(world)
  for (const [name, bytes] of Object.entries({ large: 3_500_000, small: 30_000, last: 5 })) {
    fs.writeFileSync(path.join(world, name), random(bytes))
    fs.utimesSync(path.join(world, name), 1e9, 1e9)
  }
  return { world, out: path.join(dir, 'out') }
}

test('writes that take a part of what they are given leave no gap and nothing twice', async (t) => {
  const { world, out } = writeWorld(t)
  const { stream } = await packFolder(world)
  const tar = await buffer(stream)
  shorten(t, 'write', 7001)
  await extractTar(Readable.from([tar]), out)
  t.mock.restoreAll()
  assert.deepEqual(diffTrees(world, out), [])
})

test('reads that give a part of what they are asked for leave no gap, and the file did not change', async (t) => {
  const { world } = writeWorld(t)
  const whole = await buffer((await packFolder(world)).stream)
  for (const most of [300_000, 7001]) {
    shorten(t, 'read', most)
    const { stream, result } = await packFolder(world)
    const tar = await buffer(stream)
    t.mock.restoreAll()
    assert.ok(tar.equals(whole), `${most} bytes a read`)
    assert.equal(result().consistency, 'still')
  }
})

test('T32: a file whose bytes end before its size does, and whose stat says nothing of it, is read again', async (t) => {
  for (const [name, position] of [
    ['large', 1_000_000],
    ['small', 10_000],
  ] as const) {
    const { world } = writeWorld(t)
    const file = path.join(world, name)
    for (const other of fs.readdirSync(world)) if (other !== name) fs.rmSync(path.join(world, other))
    let hasEnded = false
    const real = fs.read as unknown as (...args: unknown[]) => void
    t.mock.method(fs, 'read', (fd: number, data: Buffer, at: number, bytes: number, from: number, done: Done) => {
      const most = hasEnded || from > position ? bytes : Math.min(bytes, position - from)
      hasEnded ||= from === position
      if (most > 0) real(fd, data, at, most, from, done)
      else done(null, 0, data)
    })
    const { stream, result } = await packFolder(world)
    const out = path.join(world, '..', 'out')
    await extractTar(stream, out)
    t.mock.restoreAll()
    assert.equal(result().consistency, 'reread', name)
    assert.ok(fs.readFileSync(path.join(out, name)).equals(fs.readFileSync(file)), name)
  }
})

test('a chunk is given back when the last piece of it that is looked at is let go of, in whatever order they are', () => {
  const back: string[] = []
  const ledger = new ChunkLedger((chunk) => back.push(chunk.toString()))
  for (const chunk of ['one', 'two', 'six']) ledger.feed(Buffer.from(chunk))
  const first = ledger.use(1)
  ledger.consumed(4)
  const second = ledger.use(4)
  ledger.consumed(9)
  assert.deepEqual(back, [])
  second()
  assert.deepEqual(back, [])
  first()
  assert.deepEqual(back, ['one', 'two', 'six'])
})
