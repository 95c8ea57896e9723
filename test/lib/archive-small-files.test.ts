import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import type { Worker } from 'node:worker_threads'
import { seededBytes } from '../../bench/world.ts'
import type { ArchiveEntry, ArchiveWarning } from '../../lib/archive/entry.ts'
import { extractTar } from '../../lib/archive/extract.ts'
import { packFolder } from '../../lib/archive/pack.ts'
import { scanFolder } from '../../lib/archive/scan.ts'
import { SmallFiles } from '../../lib/archive/small-files.ts'
import { selectionOf } from '../../lib/exclude.ts'
import { diffTrees, tempFolder } from '../support/tree.ts'

const FILES = 1500
/** Long enough ago for whoever asks whether a file may be being written. */
const SETTLE_MS = 40

function hasEnded(thread: Worker): boolean {
  return thread.threadId === -1
}

/** Sizes about every border: empty, one byte, a block, what is small and what is not; links and folders between. */
function writeMany(root: string): void {
  const random = seededBytes('small files')
  const sizes = [0, 1, 511, 512, 513, 4096, 32 * 1024, 32 * 1024 + 1, 90_000]
  for (let i = 0; i < FILES; i++) {
    const folder = path.join(root, `d${i % 7}`, i % 3 === 0 ? 'deeper' : '.')
    fs.mkdirSync(folder, { recursive: true })
    const file = path.join(folder, `file ${i} ü`)
    fs.writeFileSync(file, random(i % 5 === 0 ? (sizes[(i / 5) % sizes.length] as number) : i % 3000))
    if (i % 50 === 0) fs.linkSync(file, `${file} again`)
    if (i % 70 === 0) fs.symlinkSync('nowhere', `${file} link`)
  }
}

test('many small files are archived as they are, with links, folders and large ones between them', async (t) => {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  writeMany(world)
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const entries: ArchiveEntry[] = []
  const warnings: ArchiveWarning[] = []
  const { stream, result } = await packFolder(world, {
    threadAfter: 100,
    onEntry: (entry) => void entries.push(entry),
    onWarning: (warning) => warnings.push(warning),
  })
  const tar = await buffer(stream)
  assert.deepEqual(warnings, [])
  assert.equal(result().consistency, 'still')
  assert.equal(entries.filter(({ type }) => type === 'file').length, FILES)
  assert.equal(entries.filter(({ type }) => type === 'link').length, FILES / 50)
  const names = entries.map(({ path: name, type }) => (type === 'dir' ? `${name}/` : name))
  const sorted = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  assert.deepEqual(names, sorted)
  const out = path.join(dir, 'out')
  await extractTar(Readable.from([tar]), out)
  assert.deepEqual(await diffTrees(world, out), [])
  const second = await packFolder(world, { threadAfter: Infinity })
  const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
  assert.equal(digest(await buffer(second.stream)), digest(tar))
})

test('times that 64 bits of nanoseconds do not hold stay what they are', async (t) => {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  fs.mkdirSync(world)
  for (let i = 0; i < 400; i++) {
    const file = path.join(world, `f${i}`)
    fs.writeFileSync(file, 'x')
    if (i % 100 === 99) fs.utimesSync(file, 1, 10_000_000_000 + i)
  }
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const { stream } = await packFolder(world, { threadAfter: 100 })
  const out = path.join(dir, 'out')
  await extractTar(stream, out)
  assert.deepEqual(diffTrees(world, out), [])
})

test('files that are being written are read when they have settled', async (t) => {
  const world = tempFolder(t)
  for (let i = 0; i < 400; i++) fs.writeFileSync(path.join(world, `a${i}`), 'old')
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const { stream, result } = await packFolder(world, { threadAfter: 10 })
  // Those that come last, just before anything is read.
  for (let i = 390; i < 400; i++) fs.writeFileSync(path.join(world, `a${i}`), 'new')
  const text = (await buffer(stream)).toString('latin1')
  assert.equal(text.match(/new\0/g)?.length, 10)
  assert.equal(text.match(/old\0/g)?.length, 390)
  assert.equal(result().files, 400)
})

test('what was written just now is not taken for one that has held still', async (t) => {
  const world = tempFolder(t)
  const file = path.join(world, 'a')
  const files = new SmallFiles(world)
  t.after(() => files.close())
  // On a busy machine the thread may come to it only when it has settled: then once more.
  let found: ReturnType<ReturnType<SmallFiles['add']>['file']>
  for (let i = 0; i < 200; i++) {
    fs.writeFileSync(file, `content ${i}`)
    const reading = files.add('a')
    files.flush()
    await reading.done()
    found = reading.file()
    reading.release()
    if (!found) break
  }
  assert.equal(found, undefined)
})

test('a file that holds less than it says is not taken for one that was read whole', {
  skip: fs.existsSync('/sys/kernel/fscaps') ? false : 'needs the /sys of Linux, whose files all say a page',
}, async (t) => {
  const files = new SmallFiles('/sys/kernel')
  t.after(() => files.close())
  assert.equal(fs.statSync('/sys/kernel/fscaps').size, 4096)
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const reading = files.add('fscaps')
  files.flush()
  await reading.done()
  assert.equal(reading.file(), undefined)
})

test('an archive that is given up in the middle leaves no file open and no thread', async (t) => {
  const world = tempFolder(t)
  writeMany(world)
  const threads: Worker[] = []
  process.once('worker', (thread) => threads.push(thread))
  const { stream } = await packFolder(world, { threadAfter: 100 })
  let chunks = 0
  stream.on('error', () => {})
  for await (const _ of stream) if (++chunks === 3) break
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
  const isOpen = fs.readdirSync('/proc/self/fd').some((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith(world)
    } catch {
      return false
    }
  })
  assert.equal(isOpen, false)
  assert.deepEqual(threads.map(hasEnded), [true])
})

test('an archive whose thread dies has every file all the same', async (t) => {
  const world = tempFolder(t)
  const files = 2500
  for (let i = 0; i < files; i++) fs.writeFileSync(path.join(world, `a${i}`), 'content')
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  let threads = 0
  const onThread = (thread: Worker) => {
    threads++
    void thread.terminate()
  }
  process.on('worker', onThread)
  t.after(() => process.off('worker', onThread))
  const { stream, result } = await packFolder(world, { threadAfter: 10 })
  const text = (await buffer(stream)).toString('latin1')
  assert.equal(threads, 1)
  assert.equal(result().files, files)
  assert.equal(text.match(/content\0/g)?.length, files)
})

test('a reader that is closed says of what it has not read that it has not', { timeout: 20_000 }, async (t) => {
  const world = tempFolder(t)
  for (const name of ['a', 'b', 'c']) fs.writeFileSync(path.join(world, name), name)
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const files = new SmallFiles(world)
  t.after(() => files.close())
  const a = files.add('a')
  files.flush()
  await a.done()
  assert.equal(a.isDone, true)
  const first = a.file()
  assert.equal(first?.data.toString(), 'a')
  assert.equal(first?.stat.size, 1n)
  const b = files.add('b')
  const missing = files.add('missing')
  files.flush()
  await b.done()
  assert.equal(b.file()?.data.toString(), 'b')
  assert.equal(missing.file(), undefined)
  const more = [files.add('a'), files.add('b')]
  files.flush()
  const last = files.add('c')
  files.flush()
  assert.equal(files.hasRoom, false)
  await last.done()
  assert.equal(files.hasRoom, false)
  for (const one of more) one.release()
  assert.equal(files.hasRoom, true)
  const c = files.add('c')
  await files.close()
  await c.done()
  assert.equal(c.file(), undefined)
  assert.equal(files.hasRoom, false)
  assert.equal(files.isOfNoUse, true)
})

test('a large folder measures the same on a thread of its own', async (t) => {
  const world = tempFolder(t)
  writeMany(world)
  const alone = await scanFolder(world, { filter: () => true })
  assert.deepEqual(await scanFolder(world, { threadAfter: 100 }), alone)
  assert.equal(alone.files, FILES + FILES / 50)
  const controller = new AbortController()
  const threads: Worker[] = []
  process.once('worker', (thread) => {
    threads.push(thread)
    controller.abort()
  })
  await assert.rejects(scanFolder(world, { threadAfter: 100, signal: controller.signal }), { name: 'AbortError' })
  assert.deepEqual(threads.map(hasEnded), [true])
})

test('what a large folder leaves out, its thread leaves out too', async (t) => {
  const world = tempFolder(t)
  writeMany(world)
  const of = (pattern: string) => ({ pattern, origin: 'exclude' })
  const rules = { game: null, patterns: [of('/d3/'), of('*7 ü'), of('!*27 ü')], include: ['d[0-5]'] }
  const selection = selectionOf(rules)
  const filter = (name: string, isFolder: boolean) => selection.judge(name, isFolder) === undefined
  const alone = await scanFolder(world, { filter })
  const threads: Worker[] = []
  const onThread = (thread: Worker) => threads.push(thread)
  process.on('worker', onThread)
  t.after(() => process.off('worker', onThread))
  assert.deepEqual(await scanFolder(world, { filter, threadAfter: 100 }), alone)
  assert.equal(threads.length, 0)
  assert.deepEqual(await scanFolder(world, { selection, threadAfter: 100 }), alone)
  assert.equal(threads.length, 1)
  const { files } = await scanFolder(world)
  assert.ok(alone.files > FILES / 2 && alone.files < files - FILES / 10, `${alone.files} of ${files}`)
})

test('listing a small folder takes no room for a large one, and of neither is an entry left out', async (t) => {
  const world = tempFolder(t)
  for (let i = 0; i < 3000; i++) fs.mkdirSync(path.join(world, `${i}`))
  const sizes = [31, 32, 33, 1500]
  for (const [i, files] of sizes.entries()) {
    for (let j = 0; j < files; j++) fs.symlinkSync('nowhere', path.join(world, `${i}`, `${j}`))
  }
  const program = `
    const { Walker } = await import(${JSON.stringify(new URL('../../lib/archive/walk.ts', import.meta.url).href)})
    const before = process.resourceUsage().maxRSS
    const walker = await Walker.open(process.argv[1], () => {})
    let count = 0
    while (await walker.next()) count++
    console.log(JSON.stringify({ count, grown: process.resourceUsage().maxRSS - before }))`
  const flags = ['--max-semi-space-size=1', '--input-type=module', '-e', program]
  const { count, grown } = JSON.parse(execFileSync(process.execPath, [...flags, world], { encoding: 'utf8' }))
  const entries = sizes.reduce((sum, files) => sum + files, 3000)
  assert.equal(count, entries)
  assert.equal((await scanFolder(world)).entries, entries)
  assert.ok(grown < 30 * 1024, `${grown / 1024} MiB more for 3,000 folders`)
})
