import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import {
  type ArchiveWarning,
  type Backups,
  type CreatedSnapshot,
  createMinecraftQuiescer,
  type IndexEntry,
  openBackups,
  type Quiescer,
  type ServiceWarning,
} from '../../lib/index.ts'
import { openObject } from '../../lib/open-object.ts'
import { run } from '../../lib/pipe.ts'
import { RCON_PASSWORD } from '../fakes/minecraft.ts'
import { judgeLevel, judgeRegion, type LiveWorld, startLiveWorld } from './live-world.ts'
import { diffTrees } from './tree.ts'

const key = Buffer.alloc(32, 7)

export interface LivePlace {
  folder: string
  live: LiveWorld
  backups: Backups
  quiescer(): Quiescer
}

/** A world that is written to all the while, and a place for its backups. */
export async function livePlace(t: TestContext, seed: number, regions: number): Promise<LivePlace> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  let live: LiveWorld | undefined
  t.after(async () => {
    // Whoever still writes into the folder would keep it.
    await live?.stop()
    await rm(folder, { recursive: true })
  })
  const world = join(folder, 'world')
  await mkdir(world)
  live = await startLiveWorld(world, seed, regions)
  const { port } = live
  return {
    folder,
    live,
    backups: await openBackups({ storage: await openMemory(), server: 'survival', key }),
    quiescer: () =>
      createMinecraftQuiescer({
        host: '127.0.0.1',
        port,
        password: RCON_PASSWORD,
        server: 'survival',
        stateFolder: join(folder, 'state'),
      }),
  }
}

export interface LiveBackup {
  made: CreatedSnapshot
  /** The files whose stored copy is of no one moment, as the snapshot says. */
  changed: string[]
  /** The generation of each other file. */
  generations: Map<string, number[]>
  /** Copies that were superseded. */
  reread: number
}

/**
 * Makes one backup and asserts what has to hold of each: our restore and GNU tar get the same from it, the index leads
 * to the same bytes, each file is as it was at some moment or said to have changed, and the counts fit.
 */
export async function backUpAndCheck(place: LivePlace, quiesce?: Quiescer): Promise<LiveBackup> {
  const { backups, folder, live } = place
  const warnings: (ArchiveWarning | ServiceWarning)[] = []
  const made = await backups.create(live.world, { quiesce, onWarning: (warning) => warnings.push(warning) })
  const entries: IndexEntry[] = []
  const { head } = await backups.inspect(made.id, { onEntry: (entry) => entries.push(entry) })
  const out = join(folder, made.id)
  assert.equal((await backups.restore(made.id, out)).verified, true)
  await compareWithTar(place, made, out)

  const counting = new Map(entries.map((entry) => [entry.path, entry]))
  const files = [...counting.values()].filter(({ type }) => type === 'file')
  const found = (await readdir(out, { recursive: true, withFileTypes: true })).filter((one) => one.isFile())
  assert.equal(files.length, found.length)
  assert.equal(files.length, head?.files)
  const changed: string[] = []
  const generations = new Map<string, number[]>()
  for (const entry of files) {
    assert.ok(!entry.superseded, `${entry.path} counts and is superseded`)
    const bytes = await readFile(join(out, entry.path))
    const ranged = Buffer.concat(await Array.fromAsync(await backups.read(made.id, entry.path)))
    assert.ok(bytes.equals(ranged), `${entry.path} is another one by its index`)
    if (entry.changed) {
      changed.push(entry.path)
      continue
    }
    const judged = entry.path.startsWith('region/') ? judgeRegion(bytes) : judgeLevel(bytes)
    assert.ok(Array.isArray(judged), `${entry.path} was never so: ${judged}`)
    generations.set(entry.path, judged)
  }
  assert.equal(made.omissions.changed, changed.length)
  assert.deepEqual(
    warnings
      .filter(({ kind }) => kind === 'changed')
      .map(({ path }) => path)
      .sort(),
    [...changed].sort(),
  )
  if (changed.length > 0) assert.equal(head?.consistency, `live-changed ${changed.length}`)
  assert.equal(head?.consistency, made.consistency)
  const copies = entries.filter(({ superseded }) => superseded)
  const most = Math.max(0, ...Array.from(Map.groupBy(copies, ({ path }) => path).values(), (all) => all.length))
  assert.ok(most <= 2, `a file was appended again ${most} times`)
  await rm(out, { recursive: true })
  return { made, changed, generations, reread: copies.length }
}

async function compareWithTar({ backups, folder }: LivePlace, made: CreatedSnapshot, out: string): Promise<void> {
  const object = await openObject(backups.storage, made, { keys: { key } })
  const tar = `${out}.tar`
  try {
    await run(object.createReadStream(), object.reading().transforms, createWriteStream(tar))
  } finally {
    object.close()
  }
  const other = join(folder, 'tar')
  await mkdir(other)
  execFileSync('tar', ['xpf', tar, '-C', other], { stdio: 'pipe' })
  // The folder itself and the ones in it get their times from another moment: what is in them counts.
  assert.deepEqual(
    diffTrees(out, other).filter((line) => !/^"": |mtime/.test(line)),
    [],
  )
  await rm(tar)
  await rm(other, { recursive: true })
}
