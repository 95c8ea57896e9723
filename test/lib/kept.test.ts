import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { withPrefix } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import { openStorage } from '../../adapters/open.ts'
import { type Backups, type BackupsOptions, type LeftOut, openBackups, planBackup } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { snapshotTree } from '../support/tree.ts'

const KEY = Buffer.alloc(32, 9)

/** A server's folder with a world, and a place for backups in it whose name has what a pattern gives a meaning to. */
async function serverFolder(t: TestContext): Promise<{ folder: string; store: string; url: string }> {
  const folder = join(await scratch(t), 'server')
  const store = join(folder, 'my [backups]#*!', 'all')
  await mkdir(join(folder, 'world'), { recursive: true })
  await writeFile(join(folder, 'world/level.dat'), 'level')
  return { folder, store, url: pathToFileURL(store).href }
}

async function open(t: TestContext, options: Omit<BackupsOptions, 'server' | 'key'>): Promise<Backups> {
  const backups = await openBackups({ server: 'survival', key: KEY, ...options })
  t.after(() => backups.close())
  return backups
}

async function pathsOf(backups: Backups): Promise<string[]> {
  const paths: string[] = []
  await backups.inspect('latest', { onEntry: ({ path }) => paths.push(path) })
  return paths.sort()
}

test('a store in the source is left out of its own backups, unless a pattern takes it in', async (t) => {
  const { folder, store, url } = await serverFolder(t)
  const backups = await open(t, { storage: await openMemory(), mirrors: [url] })
  const left: LeftOut[] = []
  for (let run = 0; run < 2; run++) {
    const made = await backups.create(folder, { onLeftOut: (one) => left.push(one) })
    assert.deepEqual([made.files, made.incomplete], [1, false])
    assert.deepEqual(await pathsOf(backups), ['my [backups]#*!', 'world', 'world/level.dat'])
  }
  // The lease of the first run has made it already.
  const all = ['my [backups]#*!/all', true, 'destination']
  assert.deepEqual(
    left.map(({ path, folder, origin }) => [path, folder, origin]),
    [all, all],
  )
  const plan = await planBackup(folder, { into: { stores: backups.storages, server: 'survival' } })
  assert.deepEqual([plan.files, plan.excluded], [1, 1])
  const link = `${folder}-link`
  await symlink(folder, link)
  assert.equal((await backups.create(link)).files, 1)
  const taken = await backups.create(folder, { exclude: ['!/my \\[backups\\]#\\*!/all/'] })
  assert.ok(taken.files > 3)
  const dry = await millrace(['backup', folder, '--to', url, '--dry-run'])
  assert.match(String(dry.stdout), /all\/ +a store of its backups/)
  assert.ok(store.startsWith(folder))
})

test('state in the source is left out', async (t) => {
  const { folder } = await serverFolder(t)
  const backups = await open(t, { storage: await openMemory(), stateFolder: join(folder, '.local/state/millrace') })
  for (let run = 0; run < 2; run++) {
    await backups.create(folder)
    // What the first run knows of its snapshot is there for the second.
    assert.deepEqual(await pathsOf(backups), [
      ...(run > 0 ? ['.local', '.local/state'] : []),
      'world',
      'world/level.dat',
    ])
  }
})

test('of a source in its store, or that is the store, the snapshots are left out', async (t) => {
  const { folder } = await serverFolder(t)
  for (const [storage, taken] of [
    [await openStorage(pathToFileURL(folder).href), ['world', 'world/level.dat']],
    [withPrefix(await openStorage(pathToFileURL(folder).href), 'kept/'), ['world', 'world/level.dat']],
  ] as const) {
    const backups = await open(t, { storage })
    for (let run = 0; run < 2; run++) await backups.create(folder)
    const paths = await pathsOf(backups)
    assert.deepEqual(
      paths.filter((path) => !path.startsWith('survival')),
      taken,
    )
    // To the second store those of the first are a folder like any other.
    if (!storage.location.endsWith('kept/')) assert.ok(!paths.some((path) => path.startsWith('survival/')))
  }
  const above = await open(t, { storage: pathToFileURL(join(folder, '..')).href })
  await above.create(folder)
  await assert.rejects(above.create(join(folder, '../survival')), { code: 'SOURCE', message: /into itself/ })
})

test('a restore neither removes a store nor writes among its snapshots', async (t) => {
  const { folder, store, url } = await serverFolder(t)
  const backups = await open(t, { storage: await openMemory(), mirrors: [url] })
  await backups.create(folder)
  const before = snapshotTree(folder)
  const refused = async (target: string, options = {}) => {
    await assert.rejects(backups.restore('latest', target, options), (error: { code?: string; message: string }) => {
      assert.match(error.message, /holds the store|is in the store/)
      return error.code === 'TARGET'
    })
    assert.deepEqual(snapshotTree(folder), before, target)
  }
  await symlink(folder, `${folder}-link`)
  for (const target of [folder, `${folder}-link`, join(store, '..'), store, join(store, 'survival')]) {
    await refused(target, { overwrite: true })
    await refused(target, { overwrite: true, merge: true })
  }
  for (const target of [store, join(store, 'survival')]) await refused(target, { merge: true })
  await refused(join(store, 'survival/new'))
  await backups.restore('latest', join(folder, 'world'), { overwrite: true, include: ['world/level.dat'] })
  await backups.restore('latest', folder, { merge: true })
  await backups.restore('latest', join(store, 'restored'))
  assert.equal((await backups.verify('latest')).status, 'ok')
})

test('a target around several stores, or within one of them, is not overwritten; one beside them is', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), 'level')
  const [disk, mirror] = [join(folder, 'disk'), join(folder, 'other/mirror')]
  const backups = await open(t, { storage: `file://${disk}/store`, mirrors: [`file://${mirror}`] })
  await backups.create(world)
  await mkdir(join(folder, 'link'))
  await symlink(disk, join(folder, 'link/disk'))
  const before = [snapshotTree(disk), snapshotTree(mirror)]
  for (const target of ['disk', 'disk/store', 'disk/store/survival', 'link/disk', 'link/disk/store', 'other', '.']) {
    const restoring = backups.restore('latest', resolve(folder, target), { overwrite: true })
    await assert.rejects(restoring, { code: 'TARGET' }, target)
  }
  assert.deepEqual([snapshotTree(disk), snapshotTree(mirror)], before)
  // With a name that begins with the store's, or with two dots.
  for (const target of ['disk/store2', 'disk/..store']) {
    await mkdir(join(folder, target))
    await writeFile(join(folder, target, 'old'), 'x')
    await backups.restore('latest', join(folder, target), { overwrite: true })
    assert.deepEqual(await readdir(join(folder, target)), ['level.dat'])
  }
})

test('a target with the key in it is not overwritten', async (t) => {
  const { folder } = await serverFolder(t)
  const [key, url] = [join(folder, 'backup.key'), `file://${folder}-store`]
  await writeFile(key, KEY)
  const backups = await open(t, { storage: url })
  await backups.create(folder, { exclude: ['*.key'] })
  const args = ['restore', 'latest', '--from', url, '--server', 'survival', '--target', folder]
  const before = snapshotTree(folder)
  const given = await millrace([...args, '--key-file', key, '--overwrite'])
  assert.equal(given.code, 5, given.stderr)
  assert.match(given.stderr, /backup\.key, which has to be kept/)
  const config = join(folder, 'millrace.yaml')
  await writeFile(
    config,
    `version: 1\nservers: { survival: { source: ., destinations: [disk] } }\ndestinations: { disk: { provider: filesystem, root: ../server-store } }\nencryption: { key: "file:backup.key" }\n`,
  )
  const configured = await millrace(['restore', 'latest', '--config', config, '--target', folder, '--overwrite'])
  assert.equal(configured.code, 5, configured.stderr)
  assert.match(configured.stderr, /backup\.key, which has to be kept/)
  // A store of the config that it is not restored from.
  const within = (await readFile(config, 'utf8'))
    .replace('../server-store', 'near')
    .replace('file:backup.key', 'file:../backup.key')
  await rename(key, join(folder, '../backup.key'))
  await writeFile(config, within)
  const other = await millrace([
    ...['restore', 'latest', '--config', config, '--from', url],
    '--target',
    folder,
    '--overwrite',
  ])
  assert.equal(other.code, 5, other.stderr)
  assert.match(other.stderr, /near, which has to be kept/)
  await rename(join(folder, '../backup.key'), key)
  const merged = await millrace([...args, '--key-file', key, '--merge'])
  assert.equal(merged.code, 0, merged.stderr)
  assert.ok([...before.keys()].every((path) => snapshotTree(folder).has(path)))
})

test('doctor says that the backups are in the source', async (t) => {
  const { folder } = await serverFolder(t)
  const config = join(await scratch(t), 'millrace.yaml')
  await writeFile(
    config,
    `version: 1\nservers: { survival: { source: ${folder}, destinations: [disk] } }\ndestinations: { disk: { provider: filesystem, root: "${folder}/backups" } }\nencryption: false\n`,
  )
  await mkdir(join(folder, 'backups'))
  const { stdout } = await millrace(['doctor', '--config', config])
  assert.match(String(stdout), /its backups are stored in backups, in the source itself/)
})
