// A game server in a process of its own: it saves its world again and again, and obeys save-off, save-all and save-on.
import { mkdirSync } from 'node:fs'
import { type FileHandle, open, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { serveMinecraft } from '../fakes/minecraft.ts'
import { levelData, SECTOR_BYTES, sectorOf } from './live-world.ts'
import { seededRandom } from './random.ts'

/** Files that are written at the same time. */
const LANES = 3

const [world, seed, regions] = process.argv.slice(2) as [string, string, string]
const random = seededRandom(seed)
const names = Array.from({ length: Number(regions) }, (_, at) => `r.${at}.0.mca`)
const guests: string[] = []
let generation = 0
let saving = true
let parked: Promise<void> = Promise.resolve()
/** The flush under way. Who asked for it may be gone: a server does one command after another, for whoever it is. */
let flushing: Promise<void> = Promise.resolve()
let allRest = () => {}
const wakes: (() => void)[] = []

mkdirSync(join(world, 'region'), { recursive: true })
mkdirSync(join(world, 'playerdata'))

/** Writes a region in place from its first sector to its last, then cuts it, as its next generation. */
async function saveRegion(name: string, patient: boolean): Promise<void> {
  const mine = generation
  const sectors = 20 + random.int(600)
  let file: FileHandle
  try {
    file = await open(join(world, 'region', name), 'r+')
  } catch {
    file = await open(join(world, 'region', name), 'w+')
  }
  try {
    for (let at = 0; at < sectors; at++) {
      await file.write(sectorOf(mine, at, sectors), 0, SECTOR_BYTES, at * SECTOR_BYTES)
      if (patient && random.chance(0.1)) await turn()
    }
    await file.truncate(sectors * SECTOR_BYTES)
  } finally {
    await file.close()
  }
}

/** As Minecraft saves it: a new file takes the place of the old one. */
async function saveLevel(): Promise<void> {
  await writeFile(join(world, 'level.dat_new'), levelData(generation))
  await rename(join(world, 'level.dat_new'), join(world, 'level.dat'))
}

/** Files come and go. */
async function savePlayers(): Promise<void> {
  const name = join(world, 'playerdata', `${generation}-${random.int(1e6)}.dat`)
  await writeFile(name, levelData(generation))
  guests.push(name)
  while (guests.length > 5) await rm(guests.splice(random.int(guests.length), 1)[0] as string)
}

async function saveAll(): Promise<void> {
  generation += 1
  for (const name of names) await saveRegion(name, false)
  await saveLevel()
  await savePlayers()
}

/** Saves its share of the regions for ever, and rests between two files while saving is off. */
async function live(lane: number): Promise<never> {
  const share = names.filter((_, at) => at % LANES === lane)
  for (;;) {
    if (!saving) {
      await new Promise<void>((resolve) => {
        wakes.push(resolve)
        if (wakes.length === LANES) allRest()
      })
      continue
    }
    generation += 1
    await saveRegion(random.pick(share), true)
    if (lane > 0) continue
    if (saving && random.chance(0.5)) await saveLevel()
    if (saving && random.chance(0.5)) await savePlayers()
  }
}

const server = await serveMinecraft({
  onSaving(to) {
    saving = to
    if (to) {
      void flushing.then(() => {
        if (saving) for (const wake of wakes.splice(0)) wake()
      })
      return
    }
    parked =
      wakes.length === LANES
        ? Promise.resolve()
        : new Promise((resolve) => {
            // A flush that somebody asked for who was killed since may still wait for the one before.
            const before = allRest
            allRest = () => {
              before()
              resolve()
            }
          })
  },
  flush() {
    flushing = flushing.then(async () => {
      await parked
      await saveAll()
    })
    return flushing
  },
})
await saveAll()
process.on('message', () => process.send?.({ saving, generation, asked: server.asked }))
process.on('disconnect', () => process.exit())
process.send?.({ port: server.port })
await Promise.all(Array.from({ length: LANES }, (_, lane) => live(lane)))
