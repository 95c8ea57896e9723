import assert from 'node:assert/strict'
import fs from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type BackupsOptions, openBackups } from '../../lib/index.ts'
import type { RestoreOptions } from '../../lib/restore.ts'
import { scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { counting, overriding } from '../support/storage.ts'
import { diffTrees, makeTree } from '../support/tree.ts'

const KEY = Buffer.alloc(32, 6)
const MIB = 1024 * 1024
const MTIME = 1_600_000_000_000

/** A store whose line breaks after so many bytes, until it is mended. */
function breaking(inner: Storage, afterBytes: number): { storage: Storage; mend: () => void } {
  let left = afterBytes
  const use = (bytes: number) => {
    left -= bytes
    if (left >= 0) return
    const what = { code: 'UNAVAILABLE', adapter: 'test', operation: 'read', retryable: true } as const
    throw new StorageError('The line is down.', what)
  }
  const storage = overriding(inner, {
    async readRange(key, offset, length, options) {
      use(length)
      return inner.readRange(key, offset, length, options)
    },
    createReadStream(key, options) {
      const stream = inner.createReadStream(key, options)
      const push = stream.push.bind(stream)
      stream.push = (chunk: Buffer | null) => {
        try {
          use(chunk?.length ?? 0)
        } catch (error) {
          stream.destroy(error as Error)
          return false
        }
        return push(chunk)
      }
      return stream
    },
  })
  return {
    storage,
    mend() {
      left = Number.POSITIVE_INFINITY
    },
  }
}

interface Stage {
  world: string
  target: string
  store: Storage
  open: (storage: Storage, options?: Partial<BackupsOptions>) => ReturnType<typeof openBackups>
}

/** 24 MiB in files of 1 MiB, with one of everything else, and a target that does not exist. */
async function stage(t: TestContext): Promise<Stage> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await makeTree(world, [
    { path: 'a', type: 'dir', mode: 0o555, mtime: MTIME },
    { path: 'a/first', type: 'file', content: 'first', mtime: MTIME },
    { path: 'a/link', type: 'symlink', target: 'first', mtime: MTIME },
    { path: 'a/twin', type: 'link', target: 'a/first' },
    { path: 'a/write-only', type: 'file', content: 'secret', mode: 0o200, mtime: MTIME },
    { path: 'region', type: 'dir', mode: 0o750, mtime: MTIME },
    ...Array.from({ length: 24 }, (_, i) => ({
      path: `region/r.${String(i).padStart(2, '0')}.mca`,
      type: 'file' as const,
      content: seededBytes(MIB, i + 1),
      mtime: MTIME + i,
    })),
    { path: 'zz-last', type: 'link', target: 'a/first' },
  ])
  const store = await openFilesystem({ root: join(folder, 'store') })
  const open = (storage: Storage, options: Partial<BackupsOptions> = {}) =>
    openBackups({ storage, server: 'world', key: KEY, ...options })
  await mkdir(join(folder, 'place'))
  return { world, store, open, target: join(folder, 'place/target') }
}

const OPTIONS: RestoreOptions = { checkpointBytes: MIB }

/** Restores over a line that breaks after so many bytes. @returns the staging folder that is left. */
async function interrupt({ store, open, target }: Stage, afterBytes: number, options: RestoreOptions): Promise<string> {
  let kept = ''
  const backups = await open(breaking(store, afterBytes).storage)
  const onKept = (folder: string) => {
    kept = folder
  }
  await assert.rejects(backups.restore('latest', target, { ...options, onKept }), /The line is down/)
  const left = await readdir(join(target, '..'))
  assert.deepEqual(
    left.map((name) => join(target, '..', name)),
    kept === '' ? [] : [kept],
  )
  return kept
}

test('an interrupted restore goes on, and fetches nothing again that is on the disk', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  const { storedBytes } = await (await open(store)).create(world)
  const kept = await interrupt(at, storedBytes - 100_000, OPTIONS)
  const { mark } = JSON.parse(await readFile(join(kept, 'restore.json'), 'utf8'))
  assert.ok(mark > 0)
  const counted = counting(store)
  const backups = await open(counted.storage)
  const restored = await backups.restore('latest', target, OPTIONS)
  assert.equal(restored.resumed, true)
  assert.equal(restored.verified, true)
  // Beside what is missing: the frames that it begins in, the header, the index and the last frame.
  const most = storedBytes - Math.floor(mark / (4 * MIB)) * 4 * MIB + 3 * MIB
  assert.ok(counted.bytes() <= most, `${counted.bytes()} of ${storedBytes} bytes`)
  assert.deepEqual(diffTrees(world, target), [])
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
  t.diagnostic(`${counted.bytes()} of ${storedBytes} bytes were fetched the second time`)
})

test('on a file system that keeps times in steps of two seconds nothing is fetched again either', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  const { storedBytes } = await (await open(store)).create(world)
  const first = join(await interrupt(at, storedBytes - 100_000, OPTIONS), 'tree/region/r.00.mca')
  // Other bytes, which nobody looks at: so it shows whether the file was written again.
  fs.writeFileSync(first, 'x'.repeat(MIB))
  fs.utimesSync(first, (MTIME - 1990) / 1000, (MTIME - 1990) / 1000)
  await (await open(store)).restore('latest', target, OPTIONS)
  assert.equal(fs.readFileSync(join(target, 'region/r.00.mca'), 'utf8').slice(0, 3), 'xxx')
})

test('it goes on through several breaks, and ends as one without any', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  await (await open(store)).create(world)
  let breaks = 0
  for (;;) {
    const backups = await open(breaking(store, 20 * MIB).storage)
    const error = await backups.restore('latest', target, OPTIONS).then(
      () => undefined,
      (reason: Error) => reason,
    )
    if (!error) break
    assert.match(error.message, /The line is down/)
    breaks += 1
    assert.ok(breaks < 12)
  }
  assert.ok(breaks >= 1, `${breaks} breaks`)
  assert.deepEqual(diffTrees(world, target), [])
  assert.deepEqual(await readdir(join(target, '..')), ['target'])
})

test('what somebody did to the files that were restored is seen, and they are fetched again', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  await (await open(store)).create(world)
  const tree = join(await interrupt(at, 23 * MIB, OPTIONS), 'tree')
  fs.truncateSync(join(tree, 'region/r.00.mca'), 100)
  fs.utimesSync(join(tree, 'a/twin'), 1, 1)
  fs.rmSync(join(tree, 'a/twin'))
  fs.rmSync(join(tree, 'a'), { recursive: true })
  await (await open(store)).restore('latest', target, OPTIONS)
  assert.deepEqual(diffTrees(world, target, ['mtime']), [])
})

test('where the store fails in the middle, another one goes on with what came of it', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  const folder = join(target, '../..')
  const { key, storedBytes } = await (await open(store)).create(world)
  fs.cpSync(join(folder, 'store'), join(folder, 'mirror'), { recursive: true })
  const mirror = await openFilesystem({ root: join(folder, 'mirror') })
  const damaged = await openMemory()
  const bytes = fs.readFileSync(join(folder, 'store', key))
  // Long after the first checkpoints.
  const wrong = storedBytes - 3 * MIB
  bytes[wrong] = (bytes[wrong] as number) ^ 1
  for (const [name, data] of [
    [key, bytes],
    [`${key}.sha256`, fs.readFileSync(join(folder, 'store', `${key}.sha256`))],
  ] as const) {
    await new Promise((resolve) => damaged.createWriteStream(name).on('finish', resolve).end(data))
  }
  const cases: [string, Storage, RegExp][] = [
    ['is down', breaking(store, storedBytes - 100_000).storage, /The line is down/],
    ['is damaged', damaged, /frame/i],
  ]
  for (const [what, first, reason] of cases) {
    const reasons: string[] = []
    const backups = await open(first, { mirrors: [mirror], onFallback: (one) => reasons.push(one.reason) })
    const restored = await backups.restore('latest', target, OPTIONS)
    assert.match(reasons.join(' '), reason, what)
    assert.equal(restored.resumed, true, what)
    assert.deepEqual(diffTrees(world, target), [], what)
    assert.deepEqual(await readdir(join(target, '..')), ['target'], what)
    fs.chmodSync(join(target, 'a'), 0o755)
    fs.rmSync(target, { recursive: true })
  }
})

test('what was kept is still spoken of where the next attempt cannot even begin', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  await (await open(store)).create(world)
  const kept = await interrupt(at, 23 * MIB, OPTIONS)
  assert.ok(kept)
  // The same folder under a new name of this attempt's.
  assert.match(await interrupt(at, 0, OPTIONS), /\.target\.millrace-/)
  const restored = await (await open(store)).restore('latest', target, OPTIONS)
  assert.equal(restored.resumed, true)
  assert.deepEqual(diffTrees(world, target), [])
})

test('a selection goes on too', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  await (await open(store)).create(world)
  const options = { ...OPTIONS, include: ['a', 'region/r.1*.mca', 'region/r.0[0-6].mca', 'zz-last'] }
  assert.ok(await interrupt(at, 14 * MIB, options))
  const counted = counting(store)
  const { resumed } = await (await open(counted.storage)).restore('latest', target, options)
  assert.equal(resumed, true)
  assert.ok(counted.bytes() < 20 * MIB, `${counted.bytes()} bytes`)
  for (const name of fs.readdirSync(join(world, 'region'))) {
    if (!/r\.(1\d|0[0-6])/.test(name)) fs.rmSync(join(world, 'region', name))
  }
  fs.utimesSync(join(world, 'region'), MTIME / 1000, MTIME / 1000)
  assert.deepEqual(diffTrees(world, target, ['mtime']), [])
})

test('a snapshot of one file goes on where its bytes on the disk end', async (t) => {
  const at = await stage(t)
  const { target, store, open } = at
  const data = seededBytes(24 * MIB, 9)
  const file = join(target, '../../save.zip')
  await writeFile(file, data)
  const { storedBytes } = await (await open(store)).create(file)
  await interrupt(at, 23 * MIB, OPTIONS)
  const counted = counting(store)
  assert.equal((await (await open(counted.storage)).restore('latest', target, OPTIONS)).resumed, true)
  assert.ok(counted.bytes() < storedBytes - 3 * MIB, `${counted.bytes()} of ${storedBytes} bytes`)
  assert.deepEqual(await readFile(target), data)
})

test('nothing is gone on with that is of another object, of another selection, or not wanted', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  const backups = await open(store)
  const made = await backups.create(world)
  for (const change of ['snapshot', 'selection', 'option', 'object'] as const) {
    assert.ok(await interrupt(at, 23 * MIB, OPTIONS))
    const options: RestoreOptions = { ...OPTIONS, overwrite: true }
    let id = made.id
    if (change === 'selection') options.include = ['**']
    if (change === 'option') options.resume = false
    if (change === 'snapshot') id = (await backups.create(world)).id
    const counted = counting(store)
    // One of its name and content, sealed anew.
    if (change === 'object') {
      const other = await backups.create(world)
      fs.renameSync(join(target, '../../store', other.key), join(target, '../../store', made.key))
      Object.assign(options, { allowRenamed: true, allowUnverified: true })
    }
    const restored = await (await open(counted.storage)).restore(id, target, options)
    assert.equal(restored.resumed, false, change)
    assert.ok(counted.bytes() > 24 * MIB, change)
    assert.deepEqual(diffTrees(world, target, ['mtime']), [])
    assert.deepEqual(await readdir(join(target, '..')), ['target'])
    fs.rmSync(target, { recursive: true })
    if (change === 'snapshot') {
      await store.delete(`world/${id}.tar.zst.mlr`)
      await store.delete(`world/${id}.tar.zst.mlr.sha256`)
    }
  }
})

test('what is not encrypted is begun anew: only all of its bytes can be checked', async (t) => {
  const at = await stage(t)
  const { world, target, store, open } = at
  const plain = { key: undefined, encryption: false }
  await (await open(store, plain)).create(world)
  const backups = await open(breaking(store, 16 * MIB).storage, plain)
  await assert.rejects(backups.restore('latest', target, OPTIONS), /The line is down/)
  assert.deepEqual(await readdir(join(target, '..')), [])
})

test('what is damaged is not kept, and an abort keeps what is good', async (t) => {
  const { world, target, open } = await stage(t)
  const store = await openMemory()
  const backups = await open(store)
  const { key } = await backups.create(world)
  const stop = new AbortController()
  let kept = ''
  const onProgress = ({ bytes }: { bytes: number }) => {
    if (bytes > 16 * MIB) stop.abort()
  }
  const onKept = (folder: string) => {
    kept = folder
  }
  await assert.rejects(backups.restore('latest', target, { ...OPTIONS, onProgress, onKept, signal: stop.signal }), {
    name: 'AbortError',
  })
  // Whether it had come to a mark yet is a matter of timing; what is left is what it says.
  assert.deepEqual((await readdir(join(target, '..'))).length, kept === '' ? 0 : 1)
  await backups.restore('latest', target, OPTIONS)
  assert.deepEqual(diffTrees(world, target), [])
  fs.rmSync(target, { recursive: true })
  const bytes = Buffer.concat(await Array.fromAsync(store.createReadStream(key)))
  bytes[20 * MIB] = (bytes[20 * MIB] as number) ^ 1
  await new Promise((resolve) => store.createWriteStream(key).on('finish', resolve).end(bytes))
  await assert.rejects(backups.restore('latest', target, OPTIONS), { code: 'AUTH_FAILED' })
  assert.deepEqual(await readdir(join(target, '..')), [])
})

test('a store whose reads are the reader’s own may have each chunk overwritten once it is read', async (t) => {
  const { store } = await stage(t)
  assert.equal(store.ownedReads, true)
  const data = seededBytes(5 * MIB + 3, 2)
  await new Promise((resolve) => store.createWriteStream('object').on('finish', resolve).end(data))
  for (let time = 0; time < 2; time += 1) {
    const read: Buffer[] = []
    for await (const chunk of store.createReadStream('object') as AsyncIterable<Buffer>) {
      read.push(Buffer.from(chunk))
      if (chunk.length === chunk.buffer.byteLength) chunk.fill(0xee)
    }
    assert.ok(Buffer.concat(read).equals(data))
  }
})
