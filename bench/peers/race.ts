import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Cost, endLines, measureShell, touchMemory } from '../support.ts'
import { type Peer, type Places, peerEnv } from './peers.ts'

/** Whatever takes longer than this hangs. */
const LIMIT_MS = 15 * 60_000

/** What a program takes beside what it writes, by and large. */
const OWN_BYTES = 512 * 1024 * 1024

/** What a line of bash cost, without what it wrote. */
export type Spent = Omit<Cost, 'stdout'>

/** A peer's part of a round. */
export interface Lap {
  backup: Spent
  restore: Spent
  one?: Spent
  storedBytes: number
}

/** All laps of each peer, by its name; millrace is the first. */
export type Laps = Map<string, Lap[]>

/** A store that is made anew for each lap. */
export interface Store {
  /** Added to the variables of the peer's lines. */
  env(peer: Peer): NodeJS.ProcessEnv
  /** Makes it where it is not, and empties it. */
  empty(peer: Peer): Promise<void>
  storedBytes(peer: Peer): Promise<number>
}

/** Everyone once, beginning with another one in each round. */
export function turns<T>(all: readonly T[], round: number, rounds: number): T[] {
  const first = (round * Math.max(1, Math.round(all.length / rounds))) % all.length
  return [...all.slice(first), ...all.slice(0, first)]
}

/** Runs a line of bash, though not for ever. @returns what it cost. */
export async function timed(line: string, env: NodeJS.ProcessEnv, cwd: string): Promise<Spent> {
  const limit = setTimeout(endLines, LIMIT_MS)
  try {
    const { stdout: _, ...spent } = await measureShell(line, { env, cwd })
    return spent
  } finally {
    clearTimeout(limit)
  }
}

/** An empty folder where there may be one with something in it. */
export function emptyFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
}

/** Of all files in a folder. */
export function bytesBeneath(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => lstatSync(join(folder, name)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0)
}

/** The file in the middle of a folder's listing, relative to the world. */
export function middleFile(world: string, folder: string): string {
  const names = readdirSync(join(world, folder)).sort()
  return `${folder}/${names[names.length >> 1]}`
}

/**
 * Lets every peer back the world up into an empty store and restore it, round by round, so that what else the machine
 * does befalls all alike. What comes back is compared with the world: the file in every lap, the folder in the first.
 * @throws Error when a line fails, or when something else comes back.
 */
export async function race(
  peers: readonly Peer[],
  { world, file, folder, rounds, store }: { world: string; file: string; folder: string; rounds: number; store: Store },
): Promise<Laps> {
  const places: Places = {
    world,
    file,
    store: join(folder, 'store'),
    out: join(folder, 'out'),
    state: join(folder, 'state'),
  }
  const writtenBytes = bytesBeneath(world)
  const laps: Laps = new Map(peers.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round += 1) {
    for (const peer of turns(peers, round, rounds)) {
      const lap = await runLap(peer, places, store, { writtenBytes, compare: round === 0 })
      laps.get(peer.name)?.push(lap)
      const said = `backup ${lap.backup.seconds.toFixed(1)} s, restore ${lap.restore.seconds.toFixed(1)} s`
      console.error(`round ${round + 1} of ${rounds}, ${peer.name}: ${said}`)
    }
  }
  return laps
}

async function runLap(
  peer: Peer,
  places: Places,
  store: Store,
  { writtenBytes, compare }: { writtenBytes: number; compare: boolean },
): Promise<Lap> {
  const { out, state } = places
  const env = { ...peerEnv(places), ...store.env(peer) }
  const run = (line: string) => timed(line, env, state)
  const runWarm = (line: string) => {
    touchMemory(state, writtenBytes + OWN_BYTES)
    return run(line)
  }
  emptyFolder(state)
  mkdirSync(join(state, 'tmp'))
  emptyFolder(out)
  await store.empty(peer)
  try {
    await run(peer.prepare)
    const backup = await runWarm(peer.backup)
    const lap: Lap = { backup, storedBytes: await store.storedBytes(peer), restore: await runWarm(peer.restore) }
    if (compare) await run('diff -r --no-dereference "$WORLD" "$OUT"')
    if (peer.one) {
      lap.one = await run(`{ ${peer.one}\n} > "$STATE/one"`)
      await run('cmp "$STATE/one" "$WORLD/$FILE"')
    }
    emptyFolder(out)
    await store.empty(peer)
    return lap
  } catch (error) {
    await store.empty(peer).catch(() => {})
    throw new Error(`${peer.name}: ${(error as Error).message}`, { cause: error })
  }
}
