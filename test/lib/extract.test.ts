import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { type ArchiveWarning, msToNs, nsToMs, nsToPax, nsToTimeArgument, paxToNs } from '../../lib/archive/entry.ts'
import { applyFolder, extractTar } from '../../lib/archive/extract.ts'
import { packFolder } from '../../lib/archive/pack.ts'
import { BackupError } from '../../lib/errors.ts'
import { diffTrees, makeTree, oddTree, type SnapshotEntry, type TreeItem, tempFolder } from '../support/tree.ts'

const isRoot = process.getuid?.() === 0
// Whoever is not root gets no setuid and sticky bits.
const unset: (keyof SnapshotEntry)[] = isRoot ? [] : ['mode']
const isDamaged = (error: unknown): boolean => error instanceof BackupError && error.code === 'DAMAGED'

async function world(t: TestContext, items: TreeItem[] = oddTree()): Promise<{ from: string; to: string }> {
  const dir = tempFolder(t)
  await makeTree(path.join(dir, 'world'), items)
  return { from: path.join(dir, 'world'), to: path.join(dir, 'out') }
}

async function packed(from: string): Promise<Buffer> {
  return buffer((await packFolder(from)).stream)
}

function inPieces(data: Buffer, bytes: number): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < data.length; at += bytes) yield data.subarray(at, at + bytes)
    })(),
    { objectMode: false },
  )
}

test('an odd tree comes back the same, and gives the same archive again', async (t) => {
  const items = oddTree()
  if (isRoot) items.push({ path: 'owned', type: 'file', owner: [3_000_000, 12], mode: 0o4711 })
  const { from, to } = await world(t, items)
  const { stream, result } = await packFolder(from)
  const warnings: ArchiveWarning[] = []
  const extracted = await extractTar(stream, to, { onWarning: (warning) => warnings.push(warning) })
  await applyFolder(to, result().folder)
  assert.deepEqual(diffTrees(from, to, unset), [])
  assert.deepEqual(warnings, [])
  assert.deepEqual([extracted.files, extracted.entries], [result().files, result().entries])
  assert.equal(extracted.archiveBytes, result().bytes)
  assert.equal(Math.floor(fs.statSync(to).mtimeMs), Math.floor(result().folder.mtime))
  assert.equal(fs.statSync(to).mode, fs.statSync(from).mode)
})

test('archives by GNU tar, in both of its formats, come back the same', async (t) => {
  const { from, to } = await world(t)
  for (const format of ['pax', 'gnu']) {
    const tar = spawn('tar', ['c', `--format=${format}`, '-C', from, '.'], { stdio: ['ignore', 'pipe', 'ignore'] })
    const result = await extractTar(tar.stdout, `${to}-${format}`)
    // The gnu format keeps whole seconds.
    const ignore: (keyof SnapshotEntry)[] = format === 'gnu' ? ['mtime', ...unset] : unset
    assert.deepEqual(diffTrees(from, `${to}-${format}`, ignore), [])
    assert.equal(result.folder?.mode, fs.statSync(from).mode & 0o7777)
  }
})

test('one byte at a time, and pieces at odd borders, give the same', async (t) => {
  const items = oddTree().filter(({ path: p }) => p !== 'large')
  const { from, to } = await world(t, items)
  const tar = await packed(from)
  for (const bytes of [1, 511, 513, 100_000]) {
    await extractTar(inPieces(tar, bytes), `${to}${bytes}`)
    assert.deepEqual(diffTrees(from, `${to}${bytes}`, unset), [])
  }
})

test('a cut archive is damaged, wherever it is cut', async (t) => {
  const { from, to } = await world(t, [
    { path: 'a', type: 'file', content: Buffer.alloc(1024) },
    { path: 'b', type: 'dir' },
    { path: 'c', type: 'file', content: Buffer.alloc(70_000) },
  ])
  const tar = await packed(from)
  for (let at = 0; at < tar.length; at += 256) {
    await assert.rejects(extractTar(Readable.from([tar.subarray(0, at)]), to), isDamaged, `cut at ${at}`)
    if (at > 8000 && at < tar.length - 4096) at += 4096 - 256
  }
  await extractTar(Readable.from([tar]), to)
})

test('what follows the end must be zeros', async (t) => {
  const { from, to } = await world(t, [{ path: 'a', type: 'file', content: 'a' }])
  const tar = await packed(from)
  await extractTar(Readable.from([tar, Buffer.alloc(9 * 1024)]), to)
  for (const bytes of [1, 512, 4096]) {
    const rest = Buffer.concat([Buffer.alloc(1024), Buffer.alloc(bytes, 7)])
    await assert.rejects(extractTar(Readable.from([tar, rest]), to), isDamaged)
  }
  await assert.rejects(extractTar(Readable.from([tar, tar]), to), isDamaged)
  await assert.rejects(extractTar(inPieces(Buffer.concat([tar, tar]), 100), to), isDamaged)
})

test('garbage is damaged; the error of the source comes through as it is', async (t) => {
  const { from, to } = await world(t)
  await assert.rejects(extractTar(Readable.from([Buffer.alloc(4096, 'garbage')]), to), isDamaged)
  const tar = await packed(from)
  tar[tar.indexOf('ustar', 2000)]! ^= 1
  await assert.rejects(extractTar(Readable.from([tar]), to), isDamaged)
  const failing = Readable.from(
    (async function* () {
      yield tar.subarray(0, 1500)
      throw new BackupError('DAMAGED', 'frame 7 fails')
    })(),
  )
  await assert.rejects(extractTar(failing, to), /frame 7 fails/)
  const callback = (): never => {
    throw new Error('from onEntry')
  }
  const source = Readable.from([await packed(from)])
  await assert.rejects(extractTar(source, to, { onEntry: callback }), /^Error: from onEntry/)
  assert.ok(source.destroyed)
})

test('T25: an older, longer file is replaced, not written into; its other names keep their content', async (t) => {
  const { from, to } = await world(t, [
    { path: 'f', type: 'file', content: 'short' },
    { path: 'd', type: 'dir' },
    { path: 'e', type: 'file', content: 'was a folder' },
    { path: 's', type: 'file', content: 'was a symlink' },
    { path: 'l', type: 'symlink', target: 'f' },
  ])
  await makeTree(to, [
    { path: 'f', type: 'file', content: 'a much longer content' },
    { path: 'other name', type: 'link', target: 'f' },
    { path: 'd', type: 'file', content: 'was a file' },
    { path: 'e', type: 'dir' },
    { path: 'victim', type: 'file', content: 'untouched' },
    { path: 's', type: 'symlink', target: 'victim' },
    { path: 'l', type: 'file', content: 'was a file' },
  ])
  await extractTar(Readable.from([await packed(from)]), to)
  assert.equal(fs.readFileSync(path.join(to, 'other name'), 'utf8'), 'a much longer content')
  assert.equal(fs.readFileSync(path.join(to, 'victim'), 'utf8'), 'untouched')
  fs.rmSync(path.join(to, 'other name'))
  fs.rmSync(path.join(to, 'victim'))
  assert.deepEqual(diffTrees(from, to), [])
})

test('a source that fails before it is read ends the extraction, and not the process', async (t) => {
  const source = new Readable({ read() {} })
  const failed = new Error('gone before it began')
  const extracting = extractTar(source, path.join(tempFolder(t), 'to'), {
    before: async () => {
      source.destroy(failed)
      await new Promise((resolve) => source.once('close', resolve))
    },
  })
  await assert.rejects(extracting, failed)
})

test('T23: a disk that is full is a clear error, and no half-written file is left', async (t) => {
  const { from, to } = await world(t, [
    { path: 'a', type: 'file', content: 'a' },
    { path: 'big', type: 'file', content: Buffer.alloc(3_000_000, 'x') },
  ])
  const tar = path.join(path.dirname(from), 'w.tar')
  fs.writeFileSync(tar, await packed(from))
  const url = JSON.stringify(new URL('../../lib/archive/extract.ts', import.meta.url).href)
  const script = `
    import fs from 'node:fs'
    const { extractTar } = await import(${url})
    const source = fs.createReadStream(${JSON.stringify(tar)})
    const error = await extractTar(source, ${JSON.stringify(to)}).catch((error) => error)
    console.log(error.code + ' ' + error.message)`
  // A limit on the size of a file stands in for a disk that ends (EFBIG for ENOSPC), 512 bytes a unit.
  const shell = `trap '' XFSZ; ulimit -f 2000; exec "$0" --no-warnings --input-type=module -e "$1"`
  const { stdout } = await promisify(execFile)('sh', ['-c', shell, process.execPath, script])
  assert.match(stdout, /^TARGET Cannot write big: the file is larger than/)
  assert.deepEqual(fs.readdirSync(to), ['a'])
})

test('a target that cannot be written is a TARGET error', async (t) => {
  const { from, to } = await world(t)
  fs.writeFileSync(to, 'a file')
  const isTarget = (error: unknown): boolean => error instanceof BackupError && error.code === 'TARGET'
  const source = Readable.from([await packed(from)])
  await assert.rejects(extractTar(source, to), isTarget)
  assert.ok(source.destroyed)
})

test('the filter restores a part; a hard link to what was left out is warned of', async (t) => {
  const { from, to } = await world(t)
  const warnings: ArchiveWarning[] = []
  const options = {
    filter: ({ path: p }: { path: string }) => p.startsWith('a') && p !== 'a/hard2',
    onWarning: (warning: ArchiveWarning) => warnings.push(warning),
  }
  const tar = await packed(from)
  await extractTar(Readable.from([tar]), to, options)
  assert.deepEqual(fs.readdirSync(to).sort(), ['a', 'a-b', 'a0'])
  assert.deepEqual(fs.readdirSync(path.join(to, 'a')).sort(), ['b', 'z'])
  assert.deepEqual(warnings, [])
  const result = await extractTar(Readable.from([tar]), to, { ...options, filter: ({ path: p }) => p !== 'a/hard2' })
  assert.equal(result.skipped, 2)
  assert.deepEqual(
    warnings.map(({ kind }) => kind),
    ['link', 'link'],
  )
})

test('abort stops a restore, destroys the source and leaves no file open', async (t) => {
  const { from, to } = await world(t)
  const tar = await packed(from)
  for (const after of [0, 30_000, 1_000_000]) {
    const abort = new AbortController()
    const source = Readable.from(
      (async function* () {
        yield tar.subarray(0, after)
        setTimeout(() => abort.abort(), 5)
        await new Promise(() => {})
      })(),
    )
    // A generator that never wakes up never lets its stream close; a real source does.
    source._destroy = (error, done) => done(error)
    await assert.rejects(extractTar(source, to, { signal: abort.signal }), { name: 'AbortError' })
    assert.ok(source.destroyed)
  }
  const open = fs.readdirSync('/proc/self/fd').map((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  assert.deepEqual(
    open.filter((name) => name.startsWith(to)),
    [],
  )
  for (const reason of [undefined, new Error('enough'), 'SIGINT']) {
    const signal = AbortSignal.abort(reason)
    await assert.rejects(extractTar(Readable.from([tar]), to, { signal }), { name: 'AbortError' })
  }
})

test('names that are not UTF-8 in an archive of another tool are left out with a warning', async (t) => {
  const { from, to } = await world(t, [
    { path: Buffer.from('w\xf6rld', 'latin1'), type: 'file', content: 'x' },
    { path: 'good', type: 'file', content: 'x' },
  ])
  const tar = execFileSync('tar', ['c', '--format=gnu', '-C', from, '.'])
  const warnings: ArchiveWarning[] = []
  const result = await extractTar(Readable.from([tar]), to, { onWarning: (warning) => warnings.push(warning) })
  assert.deepEqual(fs.readdirSync(to), ['good'])
  assert.deepEqual([result.skipped, warnings[0]?.kind, warnings[0]?.path], [1, 'name', './w\\xf6rld'])
})

test('times keep their millisecond on the way through pax, the index and fs.utimes', (t) => {
  assert.equal(nsToPax(1_600_000_000_120_000_000n), '1600000000.12')
  assert.equal(nsToPax(-1_500_000_000n), '-1.5')
  assert.equal(nsToPax(7n), '0.000000007')
  assert.equal(paxToNs('-0.000000001'), -1n)
  assert.equal(paxToNs('12'), 12_000_000_000n)
  for (const bad of ['', '-', '1e9', ' 1', '1.2.3', 'x']) assert.equal(paxToNs(bad), undefined)
  const file = path.join(tempFolder(t), 'f')
  fs.writeFileSync(file, '')
  for (let i = 0; i < 2000; i++) {
    const ns = BigInt(i % 2 ? 1_700_000_000 : 4_000_000_000) * 1_000_000_000n + BigInt(i) * 1_000_000n + BigInt(i % 7)
    assert.equal(paxToNs(nsToPax(ns)), ns)
    assert.ok(msToNs(nsToMs(ns)) / 1_000_000n === ns / 1_000_000n)
    const time = nsToTimeArgument(ns)
    fs.utimesSync(file, time, time)
    assert.equal(fs.statSync(file, { bigint: true }).mtimeNs / 1_000_000n, ns / 1_000_000n)
  }
})

test('a time before 1970 is the same after any number of backups and restores', (t) => {
  const file = path.join(tempFolder(t), 'f')
  fs.writeFileSync(file, '')
  for (let i = 1; i < 500; i++) {
    const ns = -BigInt(i) * 2_180_398_001_000_000n
    let found = ns
    for (let restores = 0; restores < 3; restores++) {
      const time = nsToTimeArgument(found)
      fs.utimesSync(file, time, time)
      found = fs.statSync(file, { bigint: true }).mtimeNs
    }
    // What fs.utimes cuts off is nanoseconds, on Node 22 a microsecond.
    assert.ok(found - ns <= 1000n && ns - found <= 1000n, `${ns} became ${found}`)
  }
})
