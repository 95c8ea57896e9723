import assert from 'node:assert/strict'
import fs from 'node:fs'
import fsPromises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import path from 'node:path'
import { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { pack } from 'tar-stream'
import { openMemory } from '../../adapters/memory.ts'
import type { ArchiveWarning } from '../../lib/archive/entry.ts'
import type { ExtractOptions } from '../../lib/archive/extract.ts'
import { extractTar } from '../../lib/archive/extract.ts'
import { packFolder } from '../../lib/archive/pack.ts'
import { openBackups } from '../../lib/index.ts'
import { checkSpace } from '../../lib/space.ts'
import { makeTree, type TreeItem, tempFolder } from '../support/tree.ts'

/** Stands for a file system that has no such thing, in this process's calls. */
function refuse(t: TestContext, codes: Partial<Record<'fchown' | 'fchmod' | 'symlink' | 'link', string>>): void {
  for (const [call, code] of Object.entries(codes)) {
    const error = Object.assign(new Error(`${code}: refused`), { code })
    const answer = code === '' ? undefined : error
    if (call === 'fchown' || call === 'fchmod') {
      t.mock.method(fs, call, (...args: unknown[]) => (args.at(-1) as (error?: Error) => void)(answer))
    } else {
      t.mock.method(fsPromises, call as 'link', async () => {
        throw error
      })
    }
  }
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
}

async function restored(t: TestContext, items: TreeItem[], options: ExtractOptions = {}) {
  const dir = tempFolder(t)
  const [from, to] = [path.join(dir, 'from'), path.join(dir, 'out')]
  await makeTree(from, items)
  const warnings: ArchiveWarning[] = []
  const { stream } = await packFolder(from)
  const refused = async () => extractTar(stream, to, { ...options, onWarning: (warning) => warnings.push(warning) })
  return { from, to, warnings, run: refused }
}

const LARGE = Buffer.alloc(300_000, 'large')

const WORLD: TreeItem[] = [
  { path: 'folder', type: 'dir', mode: 0o750 },
  { path: 'folder/small', type: 'file', content: Buffer.from('small'), mode: 0o640 },
  { path: 'large', type: 'file', content: LARGE, mode: 0o640 },
  { path: 'link', type: 'symlink', target: 'large' },
  { path: 'twin', type: 'link', target: 'large' },
]

test('what the file system of a target refuses is a warning each, and all else is restored', async (t) => {
  const { from, to, warnings, run } = await restored(t, WORLD, { owners: { uid: 1, gid: 1 } })
  refuse(t, { fchown: 'EPERM', fchmod: 'ENOSYS', symlink: 'EPERM', link: 'EPERM' })
  await run()
  assert.deepEqual(fs.readdirSync(to).sort(), ['folder', 'large', 'twin'])
  assert.deepEqual(fs.readFileSync(path.join(to, 'twin')), LARGE)
  const mtimeOf = (folder: string) => fs.statSync(path.join(folder, 'large')).mtimeMs
  // Times come back to a quarter of a microsecond.
  assert.ok(Math.abs(mtimeOf(to) - mtimeOf(from)) < 0.001)
  assert.deepEqual(
    // Which one is told of is the one that was done first.
    warnings.map(({ kind, message }) => `${kind}: ${message.replace(/(?<=were: )[\w/]+/, 'one')}`),
    [
      'unsupported: twin is a copy of large and no hard link to it: not permitted',
      'unsupported: The symlink link cannot be made here, and is left out: not permitted',
      'unsupported: The file system of the target does not keep owners as they were: one and 3 more (--no-owner asks for none)',
      'unsupported: The file system of the target does not keep modes as they were: one and 3 more (--no-mode asks for none)',
    ],
  )
})

test('a file system that says nothing and keeps neither owners nor modes is found out', async (t) => {
  const { warnings, run } = await restored(t, WORLD, { owners: { uid: 1, gid: 1 } })
  refuse(t, { fchown: '', fchmod: '' })
  await run()
  assert.deepEqual(
    warnings.map(({ message }) => /keep (\w+)/.exec(message)?.[1]),
    ['owners', 'modes'],
  )
})

test('a program whose owner is not kept loses its setuid and setgid bits, alone or on the thread', async (t) => {
  for (const [kind, options] of [
    ['alone', { owners: true }],
    ['on the thread', { owners: true, threadAfter: 0 }],
  ] as const) {
    const to = path.join(tempFolder(t), 'out')
    const tar = pack()
    // Another owner than any that runs this; root may not give it either, where the file system refuses.
    tar.entry({ name: 'tool', mode: 0o6755, uid: 54_321, gid: 54_321 }, 'tool')
    tar.finalize()
    const warnings: ArchiveWarning[] = []
    await t.test(kind, async (t) => {
      if (kind === 'alone') refuse(t, { fchown: '' })
      // The thread has an fs of its own, in which root may give files away.
      await extractTar(Readable.from(tar), to, { ...options, onWarning: (warning) => warnings.push(warning) })
      const { mode, uid } = fs.statSync(path.join(to, 'tool'))
      assert.equal((mode & 0o6000) !== 0, uid === 54_321)
      if (kind === 'alone') assert.match(warnings.map(({ message }) => message).join(), /keep owners .*keep modes /)
    })
  }
})

test('what was not asked for is not missed', async (t) => {
  const { warnings, run } = await restored(t, WORLD, { owners: false, modes: false })
  refuse(t, { fchmod: 'EPERM' })
  await run()
  assert.deepEqual(warnings, [])
})

test('a target that fails otherwise is no file system without modes', async (t) => {
  const { run } = await restored(t, WORLD)
  refuse(t, { fchmod: 'EIO' })
  await assert.rejects(run, /Cannot write (large|folder\/small): the disk reports a read or write error/)
})

/** Stands for a file system that takes names in upper and lower case for the same, of a folder and beneath it. */
function foldCase(t: TestContext, target: string): void {
  const fold = (file: unknown) => {
    const [name, around] = [String(file), path.dirname(target)]
    const folded = around + name.slice(around.length).toLowerCase()
    return name.startsWith(around) && folded.startsWith(target) ? folded : name
  }
  const replace = (of: object, call: string) => {
    const real = (of as Record<string, (...args: unknown[]) => unknown>)[call]!.bind(of)
    t.mock.method(of as Record<string, () => unknown>, call, (file: unknown, ...rest: unknown[]) =>
      real(fold(file), ...rest),
    )
  }
  for (const call of ['open', 'lstat']) replace(fs, call)
  for (const call of ['mkdir', 'lstat', 'unlink', 'realpath', 'readdir']) replace(fsPromises, call)
  const { symlink } = fsPromises
  t.mock.method(fsPromises, 'symlink', (target: string, file: string) => symlink(target, fold(file)))
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
}

test('two names that are one for the file system are an error, and neither takes the place of the other', async (t) => {
  const worlds: TreeItem[][] = [
    [
      { path: 'Level.dat', type: 'file', content: 'upper' },
      { path: 'level.dat', type: 'file', content: 'lower' },
    ],
    [
      { path: 'Data', type: 'dir' },
      { path: 'data', type: 'dir' },
    ],
    [
      { path: 'Link', type: 'file' },
      { path: 'link', type: 'symlink', target: 'x' },
    ],
  ]
  for (const items of worlds) {
    await t.test(items.map(({ path: name }) => name).join(' and '), async (t) => {
      const { to, run } = await restored(t, items)
      foldCase(t, to)
      await assert.rejects(run, /^BackupError: Cannot write \w+(\.dat)?: .* upper and lower case .*--include/)
    })
  }
})

test('where names are folded, what comes twice by one name, or is of an earlier run, is replaced', async (t) => {
  const items: TreeItem[] = ['first', 'second'].map((name) => ({ path: name, type: 'file', content: name }))
  const twice = await restored(t, items, { mapPath: () => 'level.dat' })
  foldCase(t, twice.to)
  await twice.run()
  assert.equal(fs.readFileSync(path.join(twice.to, 'level.dat'), 'utf8'), 'second')
  const folder: TreeItem = { path: 'a-folder', type: 'dir' }
  const instead = await restored(t, [folder, ...items], { mapPath: () => 'level.dat' })
  foldCase(t, instead.to)
  await instead.run()
  assert.equal(fs.readFileSync(path.join(instead.to, 'level.dat'), 'utf8'), 'second')
  const again = await restored(t, items.slice(0, 1), { continued: true })
  foldCase(t, again.to)
  fs.mkdirSync(again.to)
  fs.writeFileSync(path.join(again.to, 'first'), 'of the run before')
  await again.run()
  assert.equal(fs.readFileSync(path.join(again.to, 'first'), 'utf8'), 'first')
})

test('a mount that counts no inodes has room, and a disk without free ones has none', async (t) => {
  let type = 0x65735546
  t.mock.method(fsPromises, 'statfs', async () => ({ bavail: 10, bsize: 4096, files: 1e9, ffree: 0, type }))
  syncBuiltinESMExports()
  try {
    await checkSpace('/', { bytes: 1, files: 1 })
    type = 0xef53
    await assert.rejects(checkSpace('/', { bytes: 1, files: 1 }), /not enough inodes/)
  } finally {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  }
})

test('of a target that goes away in the middle the first failure is told, not that nothing can be cleaned up', async (t) => {
  const dir = tempFolder(t)
  await makeTree(path.join(dir, 'world'), [{ path: 'level.dat', type: 'file', content: 'level' }])
  const backups = await openBackups({ storage: await openMemory(), server: 'world', encryption: false })
  await backups.create(path.join(dir, 'world'))
  const gone = Object.assign(new Error('ENOTCONN: socket is not connected'), { code: 'ENOTCONN' })
  const { lstat } = fsPromises
  const calls = {
    rm: async () => {
      throw gone
    },
    // Of what an overwrite moves aside, which is looked for when it has failed.
    lstat: async (file: string) => {
      if (path.basename(file) === 'old') throw gone
      return lstat(file)
    },
  }
  for (const [call, fake] of Object.entries(calls)) {
    t.mock.method(fsPromises, call as 'lstat', fake as never)
    refuse(t, { fchmod: 'EIO' })
    await assert.rejects(backups.restore('latest', path.join(dir, call)), /Cannot write level\.dat: the disk reports/)
    t.mock.restoreAll()
    syncBuiltinESMExports()
  }
})

test('of a name that the file system refuses, what writes it otherwise is told', async (t) => {
  const { run } = await restored(t, [{ path: 'a:b', type: 'file', content: 'x' }])
  const { open } = fs
  t.mock.method(fs, 'open', (file: string, ...rest: unknown[]) => {
    if (!file.endsWith('out/a:b')) return (open as (...args: unknown[]) => void)(file, ...rest)
    return (rest.at(-1) as (error: Error) => void)(Object.assign(new Error('EINVAL: refused'), { code: 'EINVAL' }))
  })
  await assert.rejects(run, /Cannot write a:b: EINVAL: refused\. .*--portable-names map/)
})
