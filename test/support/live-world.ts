import { fork } from 'node:child_process'
import { once } from 'node:events'
import { childPath } from './children.ts'

export const SECTOR_BYTES = 4096

/** A game server that runs, and the world that it saves again and again. */
export interface LiveWorld {
  world: string
  /** Of its RCON. */
  port: number
  /** What it does now. */
  ask(): Promise<{ saving: boolean; generation: number; asked: string[] }>
  /** Kills it. */
  stop(): Promise<void>
}

/** Starts one in an empty folder; it must be stopped. The world is there when this resolves. */
export async function startLiveWorld(world: string, seed: number, regions: number): Promise<LiveWorld> {
  const child = fork(childPath('live-world'), [world, String(seed), String(regions)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const exit = once(child, 'exit')
  const message = async <T>(): Promise<T> => {
    const ended = exit.then(([code]) => {
      throw new Error(`the game server ended with ${code}`)
    })
    const [said] = (await Promise.race([once(child, 'message'), ended])) as [T]
    return said
  }
  const { port } = await message<{ port: number }>()
  return {
    world,
    port,
    ask() {
      child.send('how are you')
      return message()
    },
    async stop() {
      child.kill('SIGKILL')
      await exit
    },
  }
}

/** A sector of a region: which generation, which sector, of how many; and bytes that follow from them. */
export function sectorOf(generation: number, at: number, sectors: number): Buffer {
  const sector = Buffer.alloc(SECTOR_BYTES, (generation * 31 + at * 7) & 0xff)
  sector.writeUInt32LE(generation, 0)
  sector.writeUInt32LE(at, 4)
  sector.writeUInt32LE(sectors, 8)
  return sector
}

export function levelData(generation: number): Buffer {
  return Buffer.from(`${generation} `.repeat(2000))
}

/**
 * Whether bytes are what a region was at some moment: it is written from its first sector to its last over the
 * generation before, then cut. So it is the beginning of one generation and the rest of an earlier one.
 * @returns the generations in it, or what is wrong with it.
 */
export function judgeRegion(bytes: Buffer): number[] | string {
  const found: { generation: number; sectors: number; count: number }[] = []
  if (bytes.length % SECTOR_BYTES !== 0) return `${bytes.length} bytes are no whole sectors`
  for (let at = 0; at * SECTOR_BYTES < bytes.length; at++) {
    const sector = bytes.subarray(at * SECTOR_BYTES, (at + 1) * SECTOR_BYTES)
    const [generation, sectors] = [sector.readUInt32LE(0), sector.readUInt32LE(8)]
    if (!sector.equals(sectorOf(generation, at, sectors))) return `sector ${at} is none`
    const last = found.at(-1)
    if (last?.generation === generation) {
      if (last.sectors !== sectors) return `generation ${generation} has two lengths`
      last.count += 1
    } else {
      if (last && last.generation < generation) return `generation ${generation} stands behind ${last.generation}`
      found.push({ generation, sectors, count: 1 })
    }
  }
  const [fresh, old, ...more] = found
  if (!fresh || more.length > 0) return `${found.length} generations in one file`
  const total = bytes.length / SECTOR_BYTES
  // The old one reaches to its own end until it is cut.
  if (old && total !== old.sectors) return `${total} sectors, and the older generation had ${old.sectors}`
  if (fresh.count > fresh.sectors) return `generation ${fresh.generation} is longer than it was`
  return found.map(({ generation }) => generation)
}

/** The same of level.dat and the players' files, which are written once. @returns the generation, or what is wrong. */
export function judgeLevel(bytes: Buffer): number[] | string {
  const generation = Number.parseInt(bytes.toString('latin1'), 10)
  return bytes.equals(levelData(generation)) ? [generation] : `it is not that of generation ${generation}`
}
