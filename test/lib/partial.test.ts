import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type ArchiveWarning, openBackups } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { overriding } from '../support/storage.ts'
import { feed, sample } from '../support/streams.ts'
import { makeTree, snapshotTree } from '../support/tree.ts'

const key = Buffer.alloc(32, 5)

async function world(t: TestContext): Promise<string> {
  const folder = join(await scratch(t), 'world')
  await makeTree(folder, [
    { path: 'region', type: 'dir', mode: 0o750, mtime: 1_600_000_000_000 },
    { path: 'region/deep', type: 'dir', mode: 0o700, mtime: 1_600_000_001_000 },
    ...Array.from({ length: 12 }, (_, i) => ({
      path: `region/r.${i}.0.mca`,
      type: 'file' as const,
      content: sample(700_000 + i, i + 1),
      mtime: 1_600_000_100_123 + i,
    })),
    { path: 'region/deep/x.mca', type: 'file', content: sample(10) },
    { path: 'level.dat', type: 'file', content: 'level', mode: 0o600 },
    { path: 'level.dat_old', type: 'link', target: 'level.dat' },
    { path: 'current', type: 'symlink', target: 'level.dat' },
    { path: 'odd[1]*.txt', type: 'file', content: 'odd' },
    { path: '.hidden', type: 'file', content: 'hidden' },
  ])
  return folder
}

/** A store that counts the bytes that are read from it. */
function counting(storage: Storage): { storage: Storage; bytes: () => number } {
  let bytes = 0
  return {
    bytes: () => bytes,
    storage: overriding(storage, {
      readRange(name, offset, length, options) {
        bytes += length
        return storage.readRange(name, offset, length, options)
      },
      createReadStream(name, options) {
        if (name.endsWith('.mlr')) throw new Error('the whole object was read')
        return storage.createReadStream(name, options)
      },
    }),
  }
}

async function open(storage: Storage, source?: string) {
  const backups = await openBackups({ storage, server: 'survival', key })
  if (source) await backups.create(source)
  return backups
}

test('a folder is restored with all in it, whatever its names hold', async (t) => {
  const folder = await scratch(t)
  const source = join(folder, 'world')
  const names = ['in/plain', 'in/two\nlines', 'in/b\\c', 'in/[x]', 'in/*', 'in/...']
  await makeTree(source, [
    { path: 'in', type: 'dir' },
    ...names.map((path) => ({ path, type: 'file' as const, content: path })),
    { path: 'in/deep\n', type: 'dir' },
    { path: 'in/deep\n/x', type: 'file', content: 'x' },
    { path: 'out', type: 'file' },
  ])
  const backups = await open(await openMemory(), source)
  for (const [at, include] of [['in'], ['in/'], ['i*'], ['in/**'], ['**/*', 'in/']].entries()) {
    const target = join(folder, `restored ${at}`)
    await backups.restore('latest', target, { include })
    const all = snapshotTree(source)
    if (!include.includes('**/*')) all.delete('out')
    assert.deepEqual([...snapshotTree(target).keys()], [...all.keys()], JSON.stringify(include))
  }
})

test('some files are restored as they were, with the folders they are in', async (t) => {
  const folder = await world(t)
  const whole = snapshotTree(folder)
  const storage = await openMemory()
  await open(storage, folder)
  const backups = await open(counting(storage).storage)
  const cases: [string[], string[]][] = [
    [['level.dat'], ['level.dat']],
    [['region/r.3.0.mca'], ['region', 'region/r.3.0.mca']],
    [['region/r.1*.mca'], ['region', 'region/r.1.0.mca', 'region/r.10.0.mca', 'region/r.11.0.mca']],
    [['region/deep/'], ['region', 'region/deep', 'region/deep/x.mca']],
    [
      ['**/*.dat', './.hidden'],
      ['.hidden', 'level.dat'],
    ],
    [['odd[1]*.txt'], ['odd[1]*.txt']],
    [['current'], ['current']],
    [['level.dat*'], ['level.dat', 'level.dat_old']],
    [['**'], [...whole.keys()].filter((path) => path !== '' && path !== '.')],
  ]
  for (const [include, wanted] of cases) {
    const target = join(await scratch(t), 'out')
    await backups.restore('latest', target, { include })
    const restored = snapshotTree(target)
    const paths = [...restored.keys()].filter((path) => path !== '' && path !== '.')
    assert.deepEqual(paths.sort(), [...wanted].sort(), include.join())
    for (const path of paths) {
      const { group: _, ...before } = whole.get(path) as object & { group?: string }
      const { group: __, ...after } = restored.get(path) as object & { group?: string }
      // Times come from the index, which holds them to a quarter of a microsecond: a whole ms may be the next one.
      assert.ok(Math.abs((after as { mtime: number }).mtime - (before as { mtime: number }).mtime) <= 1, path)
      assert.deepEqual({ ...after, mtime: 0 }, { ...before, mtime: 0 }, path)
    }
  }
})

test('what is shared with a hard link that was not asked for is restored without that one, and a merge leaves it alone', async (t) => {
  const folder = await scratch(t)
  const source = join(folder, 'world')
  await makeTree(source, [
    { path: 'a', type: 'dir' },
    { path: 'a/first', type: 'file', content: 'shared', mode: 0o640, mtime: 1_600_000_000_000 },
    { path: 'a/other', type: 'file', content: 'other' },
    { path: 'b', type: 'dir', mode: 0o700 },
    { path: 'b/second', type: 'link', target: 'a/first' },
    { path: 'b/third', type: 'link', target: 'a/first' },
  ])
  const backups = await open(await openMemory(), source)
  const target = join(folder, 'restored')
  await backups.restore('latest', target, { include: ['b'] })
  const [whole, restored] = [snapshotTree(source), snapshotTree(target)]
  for (const path of [...whole.keys()]) if (path === 'a' || path.startsWith('a/')) whole.delete(path)
  assert.deepEqual([...restored.keys()], [...whole.keys()])
  assert.equal(await readFile(join(target, 'b/third'), 'utf8'), 'shared')
  const [second, third] = await Promise.all(['second', 'third'].map((name) => stat(join(target, 'b', name))))
  assert.equal(second?.ino, third?.ino)
  assert.deepEqual([second?.mode, second?.mtimeMs], [0o100640, 1_600_000_000_000])

  await mkdir(join(target, 'a'))
  await writeFile(join(target, 'a/first'), 'written since')
  await writeFile(join(target, 'b/second'), 'broken')
  const { files } = await backups.restore('latest', target, { include: ['b/second'], merge: true })
  assert.equal(files, 1)
  assert.equal(await readFile(join(target, 'a/first'), 'utf8'), 'written since')
  assert.equal(await readFile(join(target, 'b/second'), 'utf8'), 'shared')
})

test('one file is restored by ranges: little more is read than the frames that hold it', async (t) => {
  const folder = join(await scratch(t), 'world')
  await mkdir(folder)
  for (let i = 0; i < 40; i += 1) await writeFile(join(folder, `r.${i}.mca`), sample(2_000_000, i + 1))
  const storage = await openMemory()
  const made = await (await open(storage)).create(folder)
  const counted = counting(storage)
  const backups = await open(counted.storage)
  const target = join(await scratch(t), 'out')
  await backups.restore('latest', target, { include: ['r.20.mca'] })
  assert.deepEqual(await readFile(join(target, 'r.20.mca')), sample(2_000_000, 21))
  // Two zstd frames of 4 MiB at most, sealed frames of 1 MiB around them, and the tail with table and index.
  assert.ok(counted.bytes() < 12_000_000, `${counted.bytes()} bytes of ${made.storedBytes}`)
})

test('of several patterns those that match nothing are warned of, and a `!` in front takes nothing out', async (t) => {
  const backups = await open(await openMemory(), await world(t))
  const target = join(await scratch(t), 'out')
  const warned: ArchiveWarning[] = []
  const include = ['level.dat', 'playerdta/*', '!region', 'region/deep']
  await backups.restore('latest', target, { include, onWarning: (warning) => warned.push(warning) })
  assert.deepEqual([...snapshotTree(target).keys()].sort(), ['level.dat', 'region', 'region/deep', 'region/deep/x.mca'])
  assert.deepEqual(
    warned.map(({ kind, path }) => [kind, path]),
    [
      ['pattern', 'playerdta/*'],
      ['pattern', '!region'],
    ],
  )
})

test('a selection that matches nothing, or cannot be made, is refused and leaves nothing', async (t) => {
  const storage = await openMemory()
  const backups = await open(storage, await world(t))
  const folder = await scratch(t)
  const refused = (include: string[]) =>
    assert.rejects(backups.restore('latest', join(folder, 'out'), { include }), { name: 'BackupError', code: 'USAGE' })
  await refused(['nothing/like/it'])
  await refused([''])
  await refused(['/level.dat'])
  const raw = await backups.create(feed(sample(1000)))
  await assert.rejects(backups.restore(raw.id, join(folder, 'out'), { include: ['x'] }), { code: 'USAGE' })
  assert.deepEqual(await readdir(folder), [])
})

test('damage in what is read is found, and damage elsewhere is not met', async (t) => {
  const folder = join(await scratch(t), 'world')
  await mkdir(folder)
  for (let i = 0; i < 10; i += 1) await writeFile(join(folder, `r.${i}.mca`), sample(4_000_000, i + 1))
  const storage = await openMemory()
  const made = await (await open(storage)).create(folder)
  const bytes = Buffer.concat(await Array.fromAsync(storage.createReadStream(made.key)))
  const middle = Math.floor(bytes.length / 2)
  bytes[middle] = (bytes[middle] as number) ^ 1
  await new Promise((resolve) => storage.createWriteStream(made.key).on('finish', resolve).end(bytes))
  const backups = await open(storage)
  await backups.restore('latest', join(await scratch(t), 'out'), { include: ['r.0.mca'] })
  await backups.restore('latest', join(await scratch(t), 'out'), { include: ['r.9.mca'] })
  const bad = await Promise.allSettled(
    ['r.4.mca', 'r.5.mca'].map(async (name) =>
      backups.restore('latest', join(await scratch(t), 'out'), { include: [name] }),
    ),
  )
  assert.ok(bad.some((one) => one.status === 'rejected' && one.reason.code === 'AUTH_FAILED'))
})

test('cat writes one file, by the library and by the command', async (t) => {
  const source = await world(t)
  const folder = await scratch(t)
  const url = `file://${folder}/store`
  assert.equal((await millrace(['backup', source, '--to', url])).code, 0)
  const from = ['--from', url, '--server', 'world']
  const one = await millrace(['cat', 'latest', 'region/r.7.0.mca', ...from])
  assert.equal(one.code, 0, one.stderr)
  assert.deepEqual(one.stdout, sample(700_007, 8))
  assert.equal((await millrace(['cat', 'latest', 'level.dat_old', ...from])).stdout.toString(), 'level')
  for (const [path, says] of [
    ['region', /a folder/],
    ['current', /a symlink to "level.dat"/],
    ['absent', /There is no "absent"/],
  ] as const) {
    const refused = await millrace(['cat', 'latest', path, ...from])
    assert.equal(refused.code, 2)
    assert.match(refused.stderr, says)
  }
  const target = join(folder, 'out')
  const some = await millrace([
    'restore',
    'latest',
    ...from,
    '--target',
    target,
    '--include',
    'level.dat',
    'region/deep',
  ])
  assert.equal(some.code, 0, some.stderr)
  assert.deepEqual((await readdir(target)).sort(), ['level.dat', 'region'])
  assert.equal((await stat(join(target, 'region'))).mode & 0o777, 0o750)
  const typo = await millrace([
    'restore',
    'latest',
    ...from,
    '--target',
    `${target}2`,
    '--include',
    'level.dat',
    'levl.dat',
  ])
  assert.equal(typo.code, 3, typo.stderr)
  assert.match(typo.stderr, /Warning: Nothing in the snapshot matches the pattern "levl\.dat"/)
  assert.deepEqual(await readdir(`${target}2`), ['level.dat'])

  const backups = await open(await openMemory())
  const raw = await backups.create(feed(sample(6_000_000)))
  assert.deepEqual(Buffer.concat(await Array.fromAsync(await backups.read(raw.id, undefined))), sample(6_000_000))
})
