import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import fsPromises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ArchiveEntry, ArchiveWarning } from '../../lib/archive/entry.ts'
import { HEADER_LIMIT_BYTES, writeHeader } from '../../lib/archive/header.ts'
import { type PackOptions, type PackResult, packFolder } from '../../lib/archive/pack.ts'
import { scanFolder } from '../../lib/archive/scan.ts'
import { BackupError } from '../../lib/errors.ts'
import { diffTrees, leftOutTree, makeTree, oddTree, tempFolder } from '../support/tree.ts'

const NOT_ROOT = process.getuid?.() === 0 ? false : 'only root can give files to others'

interface Packed {
  tar: Buffer
  entries: ArchiveEntry[]
  warnings: ArchiveWarning[]
  result: PackResult
}

async function pack(root: string, options: PackOptions = {}): Promise<Packed> {
  const entries: ArchiveEntry[] = []
  const warnings: ArchiveWarning[] = []
  const { stream, result } = await packFolder(root, {
    onEntry: (entry) => void entries.push(entry),
    onWarning: (warning) => warnings.push(warning),
    ...options,
  })
  const tar = await buffer(stream)
  return { tar, entries, warnings, result: result() }
}

async function gnuExtract(source: Readable, dir: string): Promise<void> {
  fs.mkdirSync(dir)
  const tar = spawn('tar', ['x', '--numeric-owner', '-p', '-C', dir], { stdio: ['pipe', 'inherit', 'ignore'] })
  const exit = new Promise<number | null>((resolve) => tar.on('exit', resolve))
  await pipeline(source, tar.stdin)
  assert.equal(await exit, 0)
}

function openFiles(below: string): string[] {
  const names = fs.readdirSync('/proc/self/fd').map((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return names.filter((name) => name.startsWith(below))
}

async function odd(t: TestContext, more = oddTree()): Promise<{ dir: string; world: string }> {
  const dir = tempFolder(t)
  const world = path.join(dir, 'world')
  await makeTree(world, more)
  return { dir, world }
}

test('GNU tar restores an odd tree from the stream, byte for byte', async (t) => {
  const { dir, world } = await odd(t)
  const { stream, result } = await packFolder(world)
  await gnuExtract(stream, path.join(dir, 'gnu'))
  assert.deepEqual(diffTrees(world, path.join(dir, 'gnu')), [])
  assert.equal(result().consistency, 'still')
  assert.equal(result().files, oddTree().filter(({ type }) => type === 'file' || type === 'link').length)
})

test('numeric owners above every plain field survive', { skip: NOT_ROOT }, async (t) => {
  const { dir, world } = await odd(t, [
    { path: 'f', type: 'file', owner: [262_144, 3_000_000] },
    { path: 'g', type: 'file', owner: [2_000_000_000, 7] },
    { path: 's', type: 'symlink', target: 'f', owner: [300_000, 300_001] },
  ])
  const { stream } = await packFolder(world)
  await gnuExtract(stream, path.join(dir, 'gnu'))
  assert.deepEqual(diffTrees(world, path.join(dir, 'gnu')), [])
})

test('entries stand in the bytewise order of their full names, and two runs give equal bytes', async (t) => {
  const { world } = await odd(t)
  await makeTree(path.join(world, 'order'), [
    { path: 'a', type: 'dir' },
    { path: 'a/x', type: 'file' },
    { path: 'a!', type: 'dir' },
    { path: 'a!/x', type: 'file' },
    { path: 'a!!', type: 'dir' },
    { path: 'a-', type: 'dir' },
    { path: 'a-/y', type: 'file' },
    { path: 'a0', type: 'file' },
    { path: '\u{10000}', type: 'file' },
    { path: '\uffff', type: 'file' },
  ])
  const one = await pack(world)
  const two = await pack(world)
  assert.ok(one.tar.equals(two.tar))
  const paths = one.entries.map(({ path: name, type }) => (type === 'dir' ? `${name}/` : name))
  assert.deepEqual(
    paths,
    [...paths].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
  )
  assert.equal(new Set(paths).size, paths.length)
  const below = paths.filter((name) => name.startsWith('order/a'))
  const names = ['a!!/', 'a!/', 'a!/x', 'a-/', 'a-/y', 'a/', 'a/x', 'a0']
  assert.deepEqual(
    below,
    names.map((name) => `order/${name}`),
  )
})

test('at, data and size of every entry lead to its header and its bytes', async (t) => {
  const { world } = await odd(t)
  const { tar, entries, result } = await pack(world)
  let end = 0
  for (const entry of entries) {
    assert.equal(entry.at, end, entry.path)
    assert.equal(String.fromCharCode(tar[entry.at + 156]!), 'x')
    assert.equal(tar.toString('latin1', entry.data - 512 + 257, entry.data - 512 + 262), 'ustar')
    const flags = { file: '0', link: '1', symlink: '2', dir: '5' }
    assert.equal(String.fromCharCode(tar[entry.data - 512 + 156]!), flags[entry.type])
    const stat = fs.lstatSync(path.join(world, entry.path))
    assert.equal(Math.floor(entry.mtime), Math.floor(stat.mtimeMs))
    assert.equal(entry.mode, stat.mode & 0o7777)
    if (entry.type === 'file') {
      const bytes = tar.subarray(entry.data, entry.data + entry.size)
      assert.ok(bytes.equals(fs.readFileSync(path.join(world, entry.path))), entry.path)
    } else {
      assert.equal(entry.size, 0)
    }
    if (entry.type === 'link') assert.ok(entries.some(({ path: p, type }) => p === entry.link && type === 'file'))
    if (entry.type === 'symlink') assert.equal(entry.link, fs.readlinkSync(path.join(world, entry.path)))
    end = entry.data + Math.ceil(entry.size / 512) * 512
  }
  assert.equal(tar.length, end + 1024)
  assert.equal(result.bytes, tar.length)
  assert.equal(result.entries, entries.length)
  assert.equal(result.folder.mode, fs.statSync(world).mode & 0o7777)
  assert.equal(Math.floor(result.folder.mtime), Math.floor(fs.statSync(world).mtimeMs))
})

test('the pre-scan is an upper bound, and close to it', async (t) => {
  const { world } = await odd(t)
  const { result } = await pack(world)
  const scan = await scanFolder(world)
  assert.equal(scan.files, result.files)
  assert.equal(scan.entries, result.entries)
  assert.ok(scan.bytes >= result.bytes, `${scan.bytes} < ${result.bytes}`)
  assert.ok(scan.bytes < result.bytes + 512 * result.entries)
})

test('sockets, fifos and names that are not UTF-8 are left out with a warning each', async (t) => {
  const { world } = await odd(t, [...leftOutTree(), { path: 'kept', type: 'file', content: 'kept' }])
  const { entries, warnings, result } = await pack(world)
  assert.deepEqual(
    entries.map((entry) => entry.path),
    ['kept'],
  )
  const seen = warnings.map(({ kind, path: p }) => `${kind} ${p}`).sort()
  assert.deepEqual(seen, ['name badlink', 'name d\\xff', 'name w\\xf6rld.dat', 'special pipe', 'special socket'])
  assert.deepEqual(result.skipped, { special: 2, name: 3, unreadable: 0, vanished: 0, removed: 0 })
})

test('an empty folder gives an archive of two zero blocks', async (t) => {
  const { tar, result } = await pack(tempFolder(t))
  assert.ok(tar.equals(Buffer.alloc(1024)))
  assert.equal(result.entries, 0)
})

test('a stream that is destroyed before its last bytes have left fails with the error that it is given', async (t) => {
  const { world } = await odd(t, [{ path: 'f', type: 'file', content: Buffer.alloc(1_200_000, 1) }])
  const { stream } = await packFolder(world)
  await once(stream, 'readable')
  // Room for the last bytes, and none for its end: it waits with them.
  stream.read(100)
  await sleep(100)
  const failed = new Error('enough')
  stream.destroy(failed)
  const [error] = await once(stream, 'error')
  assert.equal(error, failed)
})

test('a filter is asked once for each name, and for nothing in a folder that it leaves out', async (t) => {
  const folders = ['a', 'b', 'b/c', 'b/d', 'b/e', 'b/e/f', 'g', 'h']
  const files = ['a/1', 'b/1', 'b/c/1', 'b/d/1', 'b/e/f/1', 'g/1', 'h/1', 'z'].flatMap((name) => [name, `${name}.x`])
  const { world } = await odd(t, [
    ...folders.map((name) => ({ path: name, type: 'dir' }) as const),
    ...files.map((name) => ({ path: name, type: 'file', content: name }) as const),
  ])
  const left = ['a', 'b/d', 'b/e/f', 'g']
  const asked: string[] = []
  const { entries } = await pack(world, {
    filter(name, isFolder) {
      asked.push(name)
      assert.equal(isFolder, folders.includes(name), name)
      return !left.includes(name) && !name.endsWith('.x')
    },
  })
  const isWithin = (name: string) => left.some((folder) => name.startsWith(`${folder}/`))
  assert.deepEqual(asked.sort(), [...folders, ...files].filter((name) => !isWithin(name)).sort())
  const paths = entries.map((entry) => entry.path)
  assert.deepEqual(paths, ['b', 'b/1', 'b/c', 'b/c/1', 'b/e', 'h', 'h/1', 'z'])
})

test('a root that is missing or no folder fails before any byte; one that is a symlink is followed', async (t) => {
  const { dir, world } = await odd(t, [{ path: 'f', type: 'file', content: 'f' }])
  const isSource = (error: unknown): boolean => error instanceof BackupError && error.code === 'SOURCE'
  for (const call of [packFolder, scanFolder]) {
    await assert.rejects(call(path.join(dir, 'missing')), isSource)
    await assert.rejects(call(path.join(world, 'f')), isSource)
  }
  fs.symlinkSync('world', path.join(dir, 'sym'))
  const { entries } = await pack(path.join(dir, 'sym'))
  assert.deepEqual(
    entries.map((entry) => entry.path),
    ['f'],
  )
})

test('what may not be read is left out with a warning, and the rest is whole', async (t) => {
  const { dir, world } = await odd(t, [
    { path: 'closed', type: 'file', content: 'secret', mode: 0 },
    { path: 'folder', type: 'dir', mode: 0o311 },
    { path: 'open', type: 'file', content: 'open', mode: 0o644 },
  ])
  fs.chmodSync(dir, 0o755)
  fs.chmodSync(world, 0o755)
  const url = (file: string): string => JSON.stringify(new URL(`../../lib/archive/${file}`, import.meta.url).href)
  const script = `
    const { packFolder } = await import(${url('pack.ts')})
    if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534) }
    const out = []
    const options = { onEntry: (e) => out.push(e.path), onWarning: (w) => out.push(w.kind + ' ' + w.path) }
    const { stream } = await packFolder(${JSON.stringify(world)}, options)
    for await (const _ of stream);
    const failed = await packFolder(${JSON.stringify(path.join(world, 'folder'))}).catch((e) => e.code)
    console.log(JSON.stringify({ out: out.sort(), failed }))`
  const args = ['--no-warnings', '--input-type=module', '-e', script]
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: '/' })
  const { out, failed } = JSON.parse(stdout) as { out: string[]; failed: string }
  assert.deepEqual(out, ['folder', 'open', 'unreadable closed', 'unreadable folder'])
  assert.equal(failed, 'SOURCE')
})

test('abort and destroy close every file', async (t) => {
  const files = Array.from({ length: 40 }, (_, i) => `f${i}`)
  const content = Buffer.alloc(300_000, 'x')
  const { world } = await odd(
    t,
    files.map((name) => ({ path: name, type: 'file', content })),
  )
  for (const way of ['abort', 'destroy', 'error', 'never read'] as const) {
    const abort = new AbortController()
    const { stream, result } = await packFolder(world, { signal: abort.signal })
    let failure: Error | undefined
    stream.on('error', (error) => {
      failure = error
    })
    if (way !== 'never read') {
      await new Promise((resolve) => stream.once('readable', resolve))
      assert.notDeepEqual(openFiles(world), [])
    }
    const closed = new Promise((resolve) => stream.once('close', resolve))
    if (way === 'abort') abort.abort()
    else stream.destroy(way === 'error' ? new Error('sink') : undefined)
    await closed
    assert.deepEqual(openFiles(world), [], way)
    assert.equal(failure?.name, way === 'abort' ? 'AbortError' : way === 'error' ? 'Error' : undefined)
    assert.throws(() => result())
  }
  await assert.rejects(packFolder(world, { signal: AbortSignal.abort() }), { name: 'AbortError' })
})

test('a failing onEntry destroys the stream with its error', async (t) => {
  const { world } = await odd(t, [{ path: 'f', type: 'file' }])
  const { stream } = await packFolder(world, {
    onEntry: () => {
      throw new Error('index is full')
    },
  })
  await assert.rejects(buffer(stream), /index is full/)
})

test('a reader that stalls keeps at most 2 MiB ahead', async (t) => {
  const dir = tempFolder(t)
  fs.writeFileSync(path.join(dir, 'big'), '')
  fs.truncateSync(path.join(dir, 'big'), 64 * 2 ** 20)
  let produced = 0
  const { stream } = await packFolder(dir, {
    onProgress: ({ bytes }) => {
      produced = bytes
    },
  })
  let taken = 0
  for await (const chunk of stream) {
    taken += (chunk as Buffer).length
    if (taken > 8 * 2 ** 20 && taken < 10 * 2 ** 20) await sleep(30)
    assert.ok(produced - taken <= 2 * 2 ** 20, `${produced - taken} bytes ahead`)
  }
})

test('chunks are never written to again', async (t) => {
  const { world } = await odd(t)
  const { stream } = await packFolder(world)
  const kept: { chunk: Buffer; hash: string }[] = []
  const hash = (data: Buffer): string => createHash('sha1').update(data).digest('hex')
  for await (const chunk of stream) kept.push({ chunk, hash: hash(chunk) })
  for (const { chunk, hash: first } of kept) assert.equal(hash(chunk), first)
})

test('headers of files above 8 GiB, and of extreme times and owners, are read by GNU tar', () => {
  const out = Buffer.alloc(HEADER_LIMIT_BYTES, 0xff)
  for (const size of [0, 1, 2 ** 33 - 1, 2 ** 33, 10 * 2 ** 40]) {
    const path = `${'ä'.repeat(2000)}/${size}`
    const used = writeHeader(out, 0, {
      path,
      type: 'file',
      size,
      mode: 0o644,
      mtimeNs: 5_000_000_000_123_456_789n,
      uid: 4_294_967_294,
      gid: 0,
    })
    assert.equal(used % 512, 0)
    const args = ['tv', '--numeric-owner', '--full-time', '--quoting-style=literal']
    // It lists the entry, then misses the content.
    const run = execFileSync('sh', ['-c', `TZ=UTC tar ${args.join(' ')} 2>/dev/null || true`], {
      input: out.subarray(0, used),
    })
    assert.match(
      run.toString(),
      new RegExp(`^-rw-r--r-- 4294967294/0 +${size} 2128-06-11 08:53:20.123456789 ${path}\n`),
    )
  }
})

test('20,000 small files', async (t) => {
  const dir = tempFolder(t)
  for (let i = 0; i < 20_000; i++) {
    const folder = path.join(dir, `d${i % 20}`)
    if (i < 20) fs.mkdirSync(folder)
    fs.writeFileSync(path.join(folder, `f${i}`), `content ${i}`)
  }
  const { stream, result } = await packFolder(dir)
  let bytes = 0
  for await (const chunk of stream) bytes += (chunk as Buffer).length
  assert.equal(result().files, 20_000)
  assert.equal(bytes, result().bytes)
})

test('a file system whose listings tell no types is measured and archived like others', async (t) => {
  const { world } = await odd(t)
  const measured = await scanFolder(world)
  const { opendir } = fsPromises
  // Node stats each name then, and those that are not ASCII it does not find.
  t.mock.method(fsPromises, 'opendir', async (folder: string, options: object) => {
    const listing = await opendir(folder, options)
    return (async function* () {
      for await (const entry of listing) {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: what is not ASCII
        if (/[^\x00-\x7f]/.test(entry.name)) throw Object.assign(new Error('lstat'), { code: 'ENOENT' })
        yield entry
      }
    })()
  })
  syncBuiltinESMExports()
  try {
    assert.deepEqual(await scanFolder(world), measured)
  } finally {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  }
})
