import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import fsPromises, { mkdir, open, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { namePolicy } from '../../lib/archive/portable-names.ts'
import { type Backups, openBackups, type RestoreOptions } from '../../lib/index.ts'
import { findPlace } from '../../lib/place.ts'
import { takeOver } from '../../lib/staging.ts'
import { millrace, scratch } from '../support/cli.ts'
import { sample } from '../support/streams.ts'
import { mounted, NO_MOUNT } from '../support/tmpfs.ts'
import { diffTrees, makeTree, snapshotTree } from '../support/tree.ts'

const KEY = Buffer.alloc(32, 4)
const MTIME = 1_600_000_000_000
interface Stage {
  folder: string
  world: string
  target: string
  backups: Backups
}

/** A world, its backup, and a target that does not exist. */
async function stage(t: TestContext): Promise<Stage> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await makeTree(world, [
    { path: 'region', type: 'dir', mode: 0o750, mtime: MTIME },
    { path: 'region/r.0.mca', type: 'file', content: sample(900_000), mode: 0o640, mtime: MTIME },
    { path: 'region/r.1.mca', type: 'file', content: sample(700_000, 2), mtime: MTIME },
    { path: 'level.dat', type: 'file', content: 'new', mode: 0o600, mtime: MTIME },
    { path: 'level.dat_old', type: 'link', target: 'level.dat' },
    { path: 'current', type: 'symlink', target: 'level.dat', mtime: MTIME },
    { path: 'empty', type: 'dir', mtime: MTIME },
  ])
  const backups = await openBackups({ storage: await openMemory(), server: 'world', key: KEY })
  await backups.create(world)
  await mkdir(join(folder, 'place'))
  return { folder, world, target: join(folder, 'place/target'), backups }
}

const hasCode = (code: string) => (error: unknown) => (error as { code: string }).code === code

test('T24: a merge replaces what the snapshot has, by renames, and leaves the rest', async (t) => {
  const { world, target, backups } = await stage(t)
  await makeTree(target, [
    { path: 'region', type: 'dir' },
    { path: 'region/r.0.mca', type: 'file', content: 'old and short' },
    { path: 'region/r.9.mca', type: 'file', content: 'mine' },
    { path: 'level.dat', type: 'file', content: 'old and longer than the new one' },
    { path: 'mods', type: 'dir' },
    { path: 'mods/a.jar', type: 'file', content: 'mine' },
  ])
  const old = fs.openSync(join(target, 'level.dat'), 'r')
  await backups.restore('latest', target, { merge: true })
  assert.equal(fs.readFileSync(old, 'utf8'), 'old and longer than the new one', 'whoever has it open reads the old one')
  fs.closeSync(old)
  assert.deepEqual((await readdir(target)).sort(), [...(await readdir(world)), 'mods'].sort())
  assert.equal(await readFile(join(target, 'region/r.9.mca'), 'utf8'), 'mine')
  assert.equal(await readFile(join(target, 'mods/a.jar'), 'utf8'), 'mine')
  fs.rmSync(join(target, 'region/r.9.mca'))
  fs.rmSync(join(target, 'mods'), { recursive: true })
  assert.deepEqual(diffTrees(world, target, ['mtime']), [])
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
})

test('times before 1970 and of any millisecond come back, of one file and of a folder that a merge finds', async (t) => {
  const { folder, world, target, backups } = await stage(t)
  const file = join(world, 'level.dat')
  for (const [at, mtime] of [-1500, 0, 1_600_000_000_123, 1_600_000_000_250].entries()) {
    fs.utimesSync(file, new Date(mtime), new Date(mtime))
    fs.utimesSync(join(world, 'region'), new Date(mtime), new Date(mtime))
    const whole = await backups.create(world)
    const raw = await backups.create(file)
    await makeTree(join(target, `${at}`), [{ path: 'region', type: 'dir' }])
    await backups.restore(whole.id, join(target, `${at}`), { merge: true })
    await backups.restore(raw.id, join(folder, `raw ${at}`))
    for (const restored of [join(target, `${at}/region`), join(target, `${at}/level.dat`), join(folder, `raw ${at}`)]) {
      assert.equal(Math.round(fs.statSync(restored).mtimeMs), mtime, restored)
    }
  }
})

test('T24: a merge of other types is refused before anything is fetched or changed, unless it may overwrite', async (t) => {
  const { world, target, backups } = await stage(t)
  for (const [path, type] of [
    ['region', 'file'],
    ['level.dat', 'dir'],
    ['current', 'file'],
    ['empty', 'symlink'],
  ] as const) {
    fs.rmSync(target, { recursive: true, force: true })
    await makeTree(target, [
      { path: 'mine', type: 'file', content: 'mine' },
      type === 'symlink' ? { path, type, target: '/tmp' } : { path, type },
    ])
    if (type === 'dir') await writeFile(join(target, path, 'inner'), 'mine')
    const before = snapshotTree(target)
    await assert.rejects(backups.restore('latest', target, { merge: true }), hasCode('TARGET'), path)
    assert.deepEqual(snapshotTree(target), before)
    await backups.restore('latest', target, { merge: true, overwrite: true })
    assert.equal(await readFile(join(target, 'mine'), 'utf8'), 'mine')
    fs.rmSync(join(target, 'mine'))
    assert.deepEqual(diffTrees(world, target, ['mtime']), [])
    assert.deepEqual(await readdir(join(target, '..')), ['target'])
  }
})

test('T33: a merge writes nothing through the symlinks that stand in the target', async (t) => {
  const { folder, target, backups } = await stage(t)
  const outside = join(folder, 'outside')
  await makeTree(outside, [
    { path: 'r.0.mca', type: 'file', content: 'theirs' },
    { path: 'level.dat', type: 'file', content: 'theirs' },
  ])
  await mkdir(target)
  await symlink(outside, join(target, 'region'))
  await symlink(join(outside, 'level.dat'), join(target, 'level.dat'))
  await assert.rejects(backups.restore('latest', target, { merge: true }), hasCode('TARGET'))
  for (const overwrite of [false, true]) {
    const include = overwrite ? undefined : ['region/r.1.mca']
    await backups.restore('latest', target, { merge: true, overwrite, include }).catch(() => {})
    assert.deepEqual((await readdir(outside)).sort(), ['level.dat', 'r.0.mca'])
    for (const name of await readdir(outside)) assert.equal(await readFile(join(outside, name), 'utf8'), 'theirs')
  }
  assert.ok(fs.lstatSync(join(target, 'region')).isDirectory())
  assert.equal(await readFile(join(target, 'level.dat'), 'utf8'), 'new')
})

test('T25: in place, a longer old file becomes as long as the new one', async (t) => {
  const { folder, world, target, backups } = await stage(t)
  await makeTree(target, [{ path: 'level.dat', type: 'file', content: 'x'.repeat(5_000_000) }])
  await backups.restore('latest', target, { merge: true, include: ['level.dat'] })
  assert.equal((await stat(join(target, 'level.dat'))).size, 3)
  await writeFile(join(target, 'level.dat'), 'x'.repeat(5_000_000))
  await backups.restore('latest', target, { overwrite: true })
  assert.deepEqual(diffTrees(world, target), [])
  const raw = await backups.create(join(world, 'level.dat'))
  const file = join(folder, 'place/file')
  await writeFile(file, 'x'.repeat(5_000_000))
  await assert.rejects(backups.restore(raw.id, file), hasCode('TARGET'))
  await backups.restore(raw.id, file, { overwrite: true })
  assert.equal(await readFile(file, 'utf8'), 'new')
  await assert.rejects(backups.restore(raw.id, file, { merge: true }), hasCode('USAGE'))
  assert.deepEqual((await readdir(join(folder, 'place'))).sort(), ['file', 'target'])
})

test('T24: an overwrite that died between its two renames is finished by the next run', async (t) => {
  const { folder, world, target, backups } = await stage(t)
  const built = join(folder, 'built')
  await backups.restore('latest', built)
  await makeTree(target, [{ path: 'mine', type: 'file', content: 'mine' }])
  await leave(target, 'placing', async (staging) => {
    await rename(built, join(staging, 'tree'))
    await rename(target, join(staging, 'old'))
  })
  // Whatever the next restore is of: first there is a world again.
  await assert.rejects(backups.restore('latest', target), hasCode('TARGET'))
  assert.deepEqual(diffTrees(world, target), [])
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
})

test('T24: where something new stands after such a death, neither it nor what was kept is touched', async (t) => {
  const { folder, target, backups } = await stage(t)
  await backups.restore('latest', join(folder, 'built'))
  await makeTree(target, [{ path: 'mine', type: 'file', content: 'old' }])
  await leave(target, 'placing', async (staging) => {
    await rename(join(folder, 'built'), join(staging, 'tree'))
    await rename(target, join(staging, 'old'))
  })
  await makeTree(target, [{ path: 'level.dat', type: 'file', content: 'a server made it' }])
  await assert.rejects(backups.restore('latest', target, { overwrite: true }), /something new stands there/)
  assert.equal(await readFile(join(target, 'level.dat'), 'utf8'), 'a server made it')
  const left = (await readdir(join(target, '..'))).find((name) => name !== 'target') as string
  assert.equal(await readFile(join(target, '..', left, 'old/mine'), 'utf8'), 'old')
})

/** Makes the staging folder of a process that is gone. */
async function leave(target: string, phase: string, fill: (staging: string) => Promise<void>): Promise<void> {
  const { around, prefix } = await findPlace(target)
  const staging = join(around, `${prefix}0123456789ab`)
  await mkdir(staging)
  await fill(staging)
  // No process has this number: they end at 2^22.
  const record = {
    v: 1,
    host: (await import('node:os')).hostname(),
    pid: 2 ** 22 + 1,
    born: null,
    job: {},
    phase,
    mark: 0,
  }
  await writeFile(join(staging, 'restore.json'), JSON.stringify(record))
}

test('what a dead restore of another snapshot left is removed; a live one is not', async (t) => {
  const { target, backups } = await stage(t)
  await leave(target, 'building', (staging) => mkdir(join(staging, 'tree')))
  await backups.restore('latest', target)
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
  fs.rmSync(target, { recursive: true })
  await leave(target, 'building', async () => {})
  const held = await takeOver(await findPlace(target))
  assert.equal(held.length, 1)
  await assert.rejects(backups.restore('latest', target), /is at work/)
  await held[0]?.discard()
  await backups.restore('latest', target)
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
})

test('in a folder that all may write to, what another user has planted for a restore is not taken over', {
  skip: process.getuid?.() === 0 ? false : 'only root can give folders to others',
}, async (t) => {
  const { folder, world, target, backups } = await stage(t)
  const victim = join(folder, 'victim')
  fs.writeFileSync(victim, 'precious')
  fs.chmodSync(join(target, '..'), 0o1777)
  const planted = async (phase: string, uid: number) => {
    await leave(target, phase, async (staging) => {
      await makeTree(join(staging, 'tree'), [{ path: 'evil', type: 'file', content: 'evil' }])
      await symlink(victim, join(staging, 'restore.json.new'))
      fs.chownSync(staging, uid, uid)
    })
    const [name = ''] = await readdir(join(target, '..'))
    return name
  }
  for (const phase of ['building', 'placing']) {
    const name = await planted(phase, 1234)
    await backups.restore('latest', target)
    assert.deepEqual(diffTrees(world, target), [])
    assert.equal(fs.readFileSync(victim, 'utf8'), 'precious')
    assert.deepEqual(await readdir(join(target, '..')), [name, 'target'])
    fs.rmSync(target, { recursive: true })
    fs.rmSync(join(target, '..', name), { recursive: true })
  }
  // Nor is one behind a symlink, whoever made it.
  await leave(target, 'placing', (staging) => makeTree(join(staging, 'tree'), []))
  const [name = ''] = await readdir(join(target, '..'))
  await rename(join(target, '..', name), join(folder, 'elsewhere'))
  await symlink(join(folder, 'elsewhere'), join(target, '..', name))
  await backups.restore('latest', target)
  assert.deepEqual(diffTrees(world, target), [])
  assert.deepEqual((await readdir(join(folder, 'elsewhere'))).sort(), ['restore.json', 'tree'])
})

test('a target in which something is mounted is not overwritten, and a merge refuses to go in there', {
  skip: NO_MOUNT,
}, async (t) => {
  const { folder, world, target, backups } = await stage(t)
  const refused = async (options: RestoreOptions) => {
    const before = snapshotTree(target)
    await assert.rejects(backups.restore('latest', target, options), (error: Error) => {
      assert.match(error.message, /another file system|something is mounted in it/)
      return hasCode('TARGET')(error)
    })
    assert.deepEqual(snapshotTree(target), before)
    assert.deepEqual(await readdir(join(target, '..')), ['target'])
  }
  await makeTree(target, [{ path: 'mine', type: 'file', content: 'mine' }])
  await mounted(join(target, 'region'), 1, async () => {
    fs.writeFileSync(join(target, 'region/r.0.mca'), 'precious')
    await refused({ overwrite: true })
    await refused({ merge: true })
  })
  const elsewhere = join(folder, 'elsewhere')
  await mkdir(elsewhere)
  execFileSync('mount', ['--bind', elsewhere, join(target, 'region')])
  try {
    await refused({ overwrite: true })
    await refused({ merge: true })
  } finally {
    execFileSync('umount', [join(target, 'region')])
  }
  await backups.restore('latest', target, { overwrite: true })
  assert.deepEqual(diffTrees(world, target), [])
})

test('a mount point is restored inside, and keeps what is the file system’s own', { skip: NO_MOUNT }, async (t) => {
  const { world, target, backups } = await stage(t)
  await mounted(target, 16, async () => {
    await mkdir(join(target, 'lost+found'))
    await backups.restore('latest', target)
    assert.deepEqual((await readdir(target)).sort(), [...(await readdir(world)), 'lost+found'].sort())
    assert.equal((await stat(target)).mode, (await stat(world)).mode)
    await writeFile(join(target, 'mine'), 'mine')
    await assert.rejects(backups.restore('latest', target), hasCode('TARGET'))
    await backups.restore('latest', target, { overwrite: true })
    assert.deepEqual((await readdir(target)).sort(), [...(await readdir(world)), 'lost+found'].sort())
    // Died while the old was moved aside, and while the new was put in place.
    await backups.restore('latest', join(target, '../built'))
    await leave(target, 'placing', async (staging) => {
      await mkdir(join(staging, 'tree'))
      await rename(join(target, 'level.dat'), join(staging, 'tree/level.dat'))
      await mkdir(join(staging, 'old'))
      await writeFile(join(staging, 'old/mine'), 'old')
    })
    await assert.rejects(backups.restore('latest', target), hasCode('TARGET'))
    fs.rmdirSync(join(target, 'lost+found'))
    assert.deepEqual(diffTrees(world, target, ['mtime']), [])
  })
})

test('T23: a disk that fills up leaves the live world as it was, and nothing of the new one', {
  skip: NO_MOUNT,
}, async (t) => {
  const { folder, backups, world } = await stage(t)
  const disk = join(folder, 'disk')
  await mounted(disk, 1, async () => {
    const target = join(disk, 'world')
    await makeTree(target, [{ path: 'level.dat', type: 'file', content: 'live' }])
    const free = fs.statfsSync(disk).bfree
    const refused = await backups.restore('latest', target, { overwrite: true }).catch((error) => error)
    assert.equal(refused.code, 'TARGET')
    assert.match(refused.message, /not enough room .*: \d+ bytes .* are needed, and \d+ bytes.* are free/)
    for (const options of [{ overwrite: true }, { merge: true }]) {
      await assert.rejects(
        backups.restore('latest', target, { ...options, spaceCheck: false, checkpointBytes: 10_000 }),
        /the disk is full/,
      )
      assert.deepEqual(await readdir(disk), ['world'])
      assert.equal(await readFile(join(target, 'level.dat'), 'utf8'), 'live')
      assert.equal(fs.statfsSync(disk).bfree, free)
    }
    const raw = await backups.create(join(world, 'region/r.0.mca'))
    await writeFile(join(disk, 'fill'), Buffer.alloc(500_000))
    await assert.rejects(backups.restore(raw.id, join(disk, 'raw'), { spaceCheck: false }), /the disk is full/)
    assert.deepEqual((await readdir(disk)).sort(), ['fill', 'world'])
  })
})

test('where folders cannot be synced, as on some shares, restores are done all the same', async (t) => {
  const { world, target, backups } = await stage(t)
  for (const code of ['EINVAL', 'ENOTSUP', 'EIO']) {
    const refusal = Object.assign(new Error(`${code}: refused, fsync`), { code })
    const handle = await open(world)
    const prototype = Object.getPrototypeOf(handle)
    await handle.close()
    const { sync } = prototype
    t.mock.method(prototype, 'sync', async function (this: typeof handle) {
      if ((await this.stat()).isDirectory()) throw refusal
      await sync.call(this)
    })
    const { fsync } = fs
    t.mock.method(fs, 'fsync', (fd: number, done: (error: Error | null) => void) => {
      if (fs.fstatSync(fd).isDirectory()) done(refusal)
      else fsync(fd, done)
    })
    const restored = backups.restore('latest', target, { overwrite: true })
    if (code === 'EIO') await assert.rejects(restored, { code: 'TARGET', message: /EIO/ })
    else await restored
    t.mock.restoreAll()
    assert.deepEqual(diffTrees(world, target), [])
    await backups.restore('latest', target, { merge: true, overwrite: true })
  }
})

test('of a disk that fails when all is in place, that is told, and each path with its failure', async (t) => {
  const { world, target, backups } = await stage(t)
  const around = join(target, '..')
  const { open, rmdir } = fsPromises
  const failsOf = async (call: 'fsync' | 'rmdir', isIt: (path: string) => boolean, message: RegExp): Promise<void> => {
    t.mock.method(fsPromises, 'open', async (...args: Parameters<typeof open>) => {
      const handle = await open(...args)
      const fails = () => Promise.reject(Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO' }))
      return call === 'fsync' && args[1] === 'r' && isIt(String(args[0]))
        ? Object.assign(handle, { sync: fails })
        : handle
    })
    t.mock.method(fsPromises, 'rmdir', async (path: Buffer) => {
      if (call === 'rmdir' && isIt(`${path}`)) throw Object.assign(new Error('EIO: i/o error, rmdir'), { code: 'EIO' })
      await rmdir(path)
    })
    syncBuiltinESMExports()
    try {
      const onKept = (folder: string) => assert.fail(`${folder} is said to hold what was restored`)
      await assert.rejects(backups.restore('latest', target, { overwrite: true, onKept }), { code: 'TARGET', message })
    } finally {
      t.mock.restoreAll()
      syncBuiltinESMExports()
    }
  }
  await failsOf(
    'fsync',
    (path) => path.endsWith('/tree'),
    /^Cannot write .*\/tree: the disk reports a read or write error/,
  )
  assert.deepEqual(await readdir(around), [])
  await failsOf(
    'fsync',
    (path) => path === around,
    /^What was restored is in place at .*, but the disk does not confirm it: /,
  )
  assert.deepEqual(diffTrees(world, target), [])
  await failsOf(
    'rmdir',
    (path) => path.startsWith(join(around, '.')),
    /is in place at .*, but .* cannot be removed: EIO/,
  )
  assert.deepEqual(diffTrees(world, target), [])
  await backups.restore('latest', target, { overwrite: true })
  assert.deepEqual([diffTrees(world, target), await readdir(around)], [[], ['target']])
})

test('owners and modes as told', { skip: process.getuid?.() === 0 ? false : 'only root sets owners' }, async (t) => {
  const { world, target, backups } = await stage(t)
  fs.chmodSync(join(world, 'region/r.1.mca'), 0o4755)
  fs.lchownSync(join(world, 'region/r.1.mca'), 1234, 1235)
  fs.chmodSync(join(world, 'region/r.1.mca'), 0o4755)
  await backups.create(world)
  const of = (path: string) => {
    const { uid, gid, mode } = fs.lstatSync(join(target, path))
    return `${uid}:${gid} ${(mode & 0o7777).toString(8)}`
  }
  await backups.restore('latest', target)
  assert.equal(of('region/r.1.mca'), '1234:1235 4755')
  await backups.restore('latest', target, { overwrite: true, owners: { uid: 77, gid: 78 } })
  assert.deepEqual([of('region/r.1.mca'), of('region'), of('')], ['77:78 755', '77:78 750', '77:78 755'])
  assert.match(of('current'), /^77:78 /)
  await backups.restore('latest', target, { overwrite: true, owners: false, modes: false })
  assert.deepEqual([of('region/r.1.mca'), of('region')], ['0:0 644', '0:0 755'])
  await backups.restore('latest', target, { merge: true, include: ['region'], owners: { uid: 5, gid: 6 } })
  assert.deepEqual([of('region/r.0.mca'), of('region'), of('level.dat')], ['5:6 640', '5:6 750', '0:0 644'])
})

test('names that Windows cannot hold are kept, refused, or mapped so that no two become one', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  const names = ['CON', 'con.txt', 'a:b', 'dot.', 'space ', 'a%3Ab', 'ok', '100%', 'back\\slash', 'LPT1', 'COM¹.x']
  await makeTree(world, [
    { path: 'aux', type: 'dir' },
    ...names.map((name) => ({ path: `aux/${name}`, type: 'file' as const, content: name })),
    { path: 'aux/zlink', type: 'link', target: 'aux/CON' },
  ])
  const backups = await openBackups({ storage: await openMemory(), server: 'world', key: KEY })
  await backups.create(world)
  const target = join(folder, 'place/target')
  await assert.rejects(backups.restore('latest', target, { portableNames: 'refuse' }), /cannot be written on Windows/)
  assert.deepEqual(await readdir(join(folder, 'place')), [])
  await backups.restore('latest', target, { portableNames: 'map' })
  const written = await readdir(join(target, '%61ux'))
  assert.deepEqual(
    written.sort(),
    [
      '%43ON',
      '%63on.txt',
      'a%3Ab',
      'dot%2E',
      'space%20',
      'a%253Ab',
      'ok',
      '100%',
      'back%5Cslash',
      '%4CPT1',
      '%43OM¹.x',
      'zlink',
    ].sort(),
  )
  assert.equal(await readFile(join(target, '%61ux/a%253Ab'), 'utf8'), 'a%3Ab')
  const same = namePolicy('map')
  for (const name of written) assert.doesNotThrow(() => namePolicy('refuse')(name))
  assert.equal(same('region/r.0.0.mca'), 'region/r.0.0.mca')
})

test('the command: overwrite, merge, owners, and what it refuses', async (t) => {
  const { folder, world, target } = await stage(t)
  const url = `file://${folder}/store`
  assert.equal((await millrace(['backup', world, '--to', url])).code, 0)
  const restore = (...more: string[]) =>
    millrace(['restore', 'latest', '--from', url, '--server', 'world', '--target', target, ...more])
  assert.equal((await restore()).code, 0)
  assert.equal((await restore()).code, 5)
  assert.equal((await restore('--owner', 'root')).code, 2)
  assert.equal((await restore('--portable-names', 'some')).code, 2)
  await writeFile(join(target, 'mine'), 'mine')
  const merged = await restore('--merge', '--no-owner', '--no-mode', '--no-resume', '--no-space-check', '--json')
  assert.equal(merged.code, 0, merged.stderr)
  assert.equal(merged.events().at(-1)?.resumed, false)
  assert.ok(fs.existsSync(join(target, 'mine')))
  assert.equal((await restore('--overwrite')).code, 0)
  assert.deepEqual(diffTrees(world, target), [])
})

test('no name at all is no target, and what stands in the current folder stays', async (t) => {
  const { backups } = await stage(t)
  const before = process.cwd()
  const folder = await scratch(t)
  await writeFile(join(folder, 'mine'), 'x')
  process.chdir(folder)
  t.after(() => process.chdir(before))
  for (const how of [{}, { overwrite: true }, { merge: true }, { merge: true, overwrite: true }]) {
    await assert.rejects(backups.restore('latest', '', how), hasCode('USAGE'))
  }
  assert.deepEqual(await readdir(folder), ['mine'])
})
