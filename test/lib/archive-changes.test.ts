import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ArchiveEntry, ArchiveWarning } from '../../lib/archive/entry.ts'
import { extractTar } from '../../lib/archive/extract.ts'
import { type PackResult, packFolder } from '../../lib/archive/pack.ts'
import { tempFolder } from '../support/tree.ts'

const MIB = 2 ** 20
const SIZE = 8 * MIB

interface Run {
  tar: Buffer
  entries: ArchiveEntry[]
  warnings: ArchiveWarning[]
  result: PackResult
  /** The entries of the file that changes. */
  copies: ArchiveEntry[]
  /** Its content as it is restored. */
  restored: Buffer
}

/**
 * Archives `a-first`, `big` (8 MiB) and `last`, and calls `change` in the middle of each of the first `times` copies of
 * `big` (the reader takes small steps, so the archive is at most 1 MiB ahead of it).
 */
async function packWhile(t: TestContext, times: number, change: (big: string, round: number) => void): Promise<Run> {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  const big = path.join(world, 'big')
  fs.mkdirSync(world)
  fs.writeFileSync(path.join(world, 'a-first'), 'first')
  fs.writeFileSync(path.join(world, 'last'), 'last')
  fs.writeFileSync(big, Buffer.alloc(SIZE, 'old '))
  const old = new Date(1_600_000_000_000)
  fs.utimesSync(big, old, old)
  const entries: ArchiveEntry[] = []
  const warnings: ArchiveWarning[] = []
  let begun = 0
  const { stream, result } = await packFolder(world, {
    onEntry: (entry) => {
      entries.push(entry)
      if (entry.path === 'big' && entry.type === 'file') begun = entry.data + entry.size
    },
    onWarning: (warning) => warnings.push(warning),
  })
  const chunks: Buffer[] = []
  let taken = 0
  let round = 0
  for await (const chunk of stream) {
    chunks.push(chunk)
    taken += (chunk as Buffer).length
    if (round < times && taken > begun + 2 * MIB) {
      change(big, round++)
      begun = Number.POSITIVE_INFINITY
    }
  }
  const tar = Buffer.concat(chunks)
  const out = path.join(dir, 'out')
  await extractTar(Readable.from([tar]), out)
  for (const name of ['a-first', 'last'])
    assert.equal(fs.readFileSync(path.join(out, name), 'utf8'), name.slice(-5).replace('-', ''))
  const copies = entries.filter((entry) => entry.path === 'big')
  for (const { data, size } of copies) assert.ok(data + size <= tar.length)
  assert.equal(result().bytes, tar.length)
  return { tar, entries, warnings, result: result(), copies, restored: fs.readFileSync(path.join(out, 'big')) }
}

const flags = ({ changed, superseded }: ArchiveEntry): unknown[] => [changed, superseded]

test('T32: a file that grows is cut at its header, appended again, and the last copy counts', async (t) => {
  const { copies, entries, warnings, result, restored } = await packWhile(t, 1, (big) => fs.appendFileSync(big, 'new'))
  assert.deepEqual(copies.map(flags), [
    ['grew', true],
    [undefined, undefined],
  ])
  assert.deepEqual(
    copies.map(({ size }) => size),
    [SIZE, SIZE + 3],
  )
  assert.equal(entries.at(-1)!.path, 'big')
  assert.deepEqual(warnings, [])
  assert.deepEqual([result.consistency, result.files, result.entries, result.reread], ['reread', 3, 4, 1])
  assert.ok(restored.equals(Buffer.concat([Buffer.alloc(SIZE, 'old '), Buffer.from('new')])))
})

test('T32: a file that shrinks is filled up with zeros and appended again', async (t) => {
  const { copies, tar, restored, result } = await packWhile(t, 1, (big) => fs.truncateSync(big, 100))
  assert.deepEqual(copies.map(flags), [
    ['shrank', true],
    [undefined, undefined],
  ])
  const [first] = copies
  assert.ok(tar.subarray(first!.data + 5 * MIB, first!.data + SIZE).equals(Buffer.alloc(3 * MIB)))
  assert.ok(restored.equals(Buffer.alloc(100, 'old ')))
  assert.equal(result.consistency, 'reread')
})

test('T32: a file that is written in place, at the same size, is appended again', async (t) => {
  const { copies, restored, result } = await packWhile(t, 1, (big) => {
    const fd = fs.openSync(big, 'r+')
    fs.writeSync(fd, 'NEW!', 0)
    fs.closeSync(fd)
  })
  assert.deepEqual(copies.map(flags), [
    ['modified', true],
    [undefined, undefined],
  ])
  assert.equal(restored.toString('latin1', 0, 8), 'NEW!old ')
  assert.equal(result.consistency, 'reread')
})

test('T32: a write that puts the old mtime back is still seen', async (t) => {
  const { copies } = await packWhile(t, 1, (big) => {
    const { mtime } = fs.statSync(big)
    const fd = fs.openSync(big, 'r+')
    fs.writeSync(fd, 'NEW!', 0)
    fs.futimesSync(fd, mtime, mtime)
    fs.closeSync(fd)
  })
  assert.deepEqual(copies.map(flags), [
    ['modified', true],
    [undefined, undefined],
  ])
})

test('T32: a file that vanishes keeps its copy, and its last line says so', async (t) => {
  const { copies, warnings, restored, result } = await packWhile(t, 1, (big) => fs.rmSync(big))
  assert.deepEqual(copies.map(flags), [
    ['modified', true],
    ['vanished', undefined],
  ])
  assert.deepEqual([copies[1]!.at, copies[1]!.data], [copies[0]!.at, copies[0]!.data])
  assert.deepEqual(
    warnings.map(({ kind, path: p }) => [kind, p]),
    [['changed', 'big']],
  )
  assert.deepEqual([result.consistency, result.files, result.entries, result.changed], ['changed', 3, 3, 1])
  assert.ok(restored.equals(Buffer.alloc(SIZE, 'old ')))
})

test('T32: a file that never holds still is appended twice, and the last copy is marked', async (t) => {
  const { copies, warnings, result, restored } = await packWhile(t, 9, (big, round) =>
    fs.appendFileSync(big, `${round}`),
  )
  assert.deepEqual(copies.map(flags), [
    ['grew', true],
    ['grew', true],
    ['grew', undefined],
  ])
  assert.deepEqual(
    copies.map(({ size }) => size),
    [SIZE, SIZE + 1, SIZE + 2],
  )
  assert.deepEqual(
    warnings.map(({ kind }) => kind),
    ['changed'],
  )
  assert.deepEqual([result.consistency, result.files, result.reread], ['changed', 3, 2])
  assert.equal(restored.length, SIZE + 2)
})

test('T32: a file that is saved by renaming a new one over it ends as the new one', async (t) => {
  const { restored, result } = await packWhile(t, 1, (big) => {
    fs.writeFileSync(`${big}~`, 'replaced')
    fs.renameSync(`${big}~`, big)
  })
  assert.equal(String(restored), 'replaced')
  assert.equal(result.consistency, 'reread')
})

test('T32: the hard links of a file that changed follow its last copy', async (t) => {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  fs.mkdirSync(world)
  const big = path.join(world, 'big')
  fs.writeFileSync(big, Buffer.alloc(SIZE, 'old '))
  for (const name of ['link1', 'link2']) fs.linkSync(big, path.join(world, name))
  const entries: ArchiveEntry[] = []
  const { stream, result } = await packFolder(world, { onEntry: (entry) => void entries.push(entry) })
  const chunks: Buffer[] = []
  for await (const chunk of stream) {
    chunks.push(chunk)
    if (chunks.length !== 4) continue
    fs.appendFileSync(big, 'new')
    // No longer a name of the same file: it must not come back as one.
    fs.rmSync(path.join(world, 'link2'))
    fs.writeFileSync(path.join(world, 'link2'), 'alone')
  }
  assert.equal(result().consistency, 'reread')
  const counting = entries.filter(({ superseded }) => !superseded)
  assert.deepEqual(counting.map(({ path: p, type }) => [p, type]).sort(), [
    ['big', 'file'],
    ['link1', 'link'],
    ['link2', 'file'],
  ])
  const out = path.join(dir, 'out')
  await extractTar(Readable.from(chunks), out)
  const stat = (name: string): fs.Stats => fs.statSync(path.join(out, name))
  assert.equal(stat('big').size, SIZE + 3)
  assert.equal(stat('link1').ino, stat('big').ino)
  assert.equal(fs.readFileSync(path.join(out, 'link2'), 'utf8'), 'alone')
})

test('T32: a file with two names that was written to, and has its old time and size again, is not a link to itself', async (t) => {
  const dir = tempFolder(t)
  const [world, out] = [path.join(dir, 'world'), path.join(dir, 'out')]
  fs.mkdirSync(world)
  const big = path.join(world, 'big')
  fs.writeFileSync(big, Buffer.alloc(SIZE, 'old '))
  fs.linkSync(big, path.join(world, 'link'))
  fs.utimesSync(big, 1e9, 1e9)
  const chunks: Buffer[] = []
  for await (const chunk of (await packFolder(world)).stream) {
    chunks.push(chunk)
    if (chunks.length !== 4) continue
    const fd = fs.openSync(big, 'r+')
    fs.writeSync(fd, 'NEW!', 0)
    fs.futimesSync(fd, 1e9, 1e9)
    fs.closeSync(fd)
  }
  await extractTar(Readable.from(chunks), out)
  for (const name of ['big', 'link']) {
    assert.equal(fs.readFileSync(path.join(out, name)).toString('latin1', 0, 8), 'NEW!old ')
  }
})

test('T32: a name whose file is no longer what was stored under another name is stored by itself', async (t) => {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  fs.mkdirSync(world)
  fs.writeFileSync(path.join(world, 'a'), Buffer.alloc(MIB, 'old '))
  fs.writeFileSync(path.join(world, 'm'), Buffer.alloc(SIZE, 'm'))
  for (const name of ['z', 'zz']) fs.linkSync(path.join(world, 'a'), path.join(world, name))
  const entries: ArchiveEntry[] = []
  const { stream } = await packFolder(world, { onEntry: (entry) => void entries.push(entry) })
  const chunks: Buffer[] = []
  for await (const chunk of stream) {
    chunks.push(chunk)
    if (chunks.length !== 4) continue
    fs.writeFileSync(path.join(world, 'z'), Buffer.alloc(MIB, 'new '))
    // What was opened ahead is looked at again after a while.
    await sleep(600)
  }
  assert.deepEqual(
    entries.map(({ path: p, type, link, changed }) => [p, type, link, changed]),
    [
      ['a', 'file', undefined, undefined],
      ['m', 'file', undefined, undefined],
      ['z', 'file', undefined, undefined],
      ['zz', 'link', 'z', undefined],
    ],
  )
  const out = path.join(dir, 'out')
  await extractTar(Readable.from(chunks), out)
  for (const [name, text] of [
    ['a', 'old '],
    ['z', 'new '],
    ['zz', 'new '],
  ] as const) {
    assert.deepEqual(fs.readFileSync(path.join(out, name)), Buffer.alloc(MIB, text), name)
  }
})

test('T32: files and folders that are gone before their turn are warned of', async (t) => {
  const world = tempFolder(t)
  // While `b` is read, `bb` is listed.
  for (const name of ['b', 'bb', 'c', 'd']) fs.mkdirSync(path.join(world, name))
  fs.writeFileSync(path.join(world, 'a'), Buffer.alloc(SIZE))
  for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(world, 'b', `f${i}`), 'x')
  fs.writeFileSync(path.join(world, 'c', 'inside'), 'x')
  const warnings: ArchiveWarning[] = []
  const paths: string[] = []
  const { promise: isListed, resolve: listed } = Promise.withResolvers<void>()
  const { stream, result } = await packFolder(world, {
    filter: (name) => {
      if (name === 'b/f0') listed()
      return true
    },
    onEntry: (entry) => void paths.push(entry.path),
    onWarning: (warning) => warnings.push(warning),
  })
  let first = true
  for await (const _ of stream) {
    if (!first) continue
    first = false
    // Far behind what is read ahead.
    await isListed
    fs.rmSync(path.join(world, 'b', 'f99'))
    fs.rmSync(path.join(world, 'c'), { recursive: true })
    fs.rmSync(path.join(world, 'd'), { recursive: true })
    fs.symlinkSync('/etc', path.join(world, 'd'))
  }
  assert.deepEqual(warnings.map(({ kind, path: p }) => `${kind} ${p}`).sort(), [
    'removed b/f99',
    'vanished c',
    'vanished d',
  ])
  const { removed, vanished } = result().skipped
  assert.deepEqual([removed, vanished], [1, 2])
  assert.ok(!paths.some((name) => name.startsWith('d')))
})
