import { createCipheriv, createHash } from 'node:crypto'
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

// Worlds that are the same every time, shaped like a Minecraft save: region files of compressed chunks in 4 KiB
// sectors, and many small files. zstd -3 makes them about 1.5 times smaller, as it does with real ones.

const SECTOR_BYTES = 4096
const REGION_BYTES = 4 * 1024 * 1024
/** How much of a chunk's sectors is compressed data; the rest is padding. */
const FILL = 0.66

/** Bytes that look random and depend on the seed alone; AES in counter mode makes them at gigabytes a second. */
export function seededBytes(seed: string): (bytes: number) => Buffer {
  const key = createHash('sha256').update(seed).digest()
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16))
  return (bytes) => cipher.update(Buffer.alloc(bytes))
}

function region(random: (bytes: number) => Buffer, bytes: number): Buffer {
  const file = Buffer.alloc(Math.max(2, Math.floor(bytes / SECTOR_BYTES)) * SECTOR_BYTES)
  let sector = 2
  for (let chunk = 0; chunk < 1024; chunk += 1) {
    const sectors = 1 + ((random(1)[0] as number) % 8)
    if ((sector + sectors) * SECTOR_BYTES > file.length) break
    const used = Math.floor(sectors * SECTOR_BYTES * FILL)
    file.writeUInt32BE((sector << 8) | sectors, chunk * 4)
    file.writeUInt32BE(used, sector * SECTOR_BYTES)
    file[sector * SECTOR_BYTES + 4] = 2
    random(used).copy(file, sector * SECTOR_BYTES + 5)
    sector += sectors
  }
  // What chunks did not reach: a sector of old data in every three.
  for (; (sector + 1) * SECTOR_BYTES <= file.length; sector += 1) {
    random(Math.floor(SECTOR_BYTES * FILL)).copy(file, sector * SECTOR_BYTES)
  }
  return file
}

/** A player's statistics as JSON, some 700 bytes. */
export function smallFile(random: (bytes: number) => Buffer, i: number): Buffer {
  const id = random(16).toString('hex')
  const stats = Array.from(random(24), (value, stat) => `"minecraft:stat_${stat}":${value * 7}`)
  return Buffer.from(`{"uuid":"${id}","player":"player_${i}","stats":{${stats.join(',')}},"DataVersion":3955}\n`)
}

export interface WorldOptions {
  /** About how much in all. */
  bytes: number
  /** Small files besides the region files; one for each MiB when left out. */
  smallFiles?: number
  seed?: string
}

/** Writes a synthetic world into a new folder. @returns the files and bytes that were written. */
export function writeWorld(folder: string, options: WorldOptions): { files: number; bytes: number } {
  const { seed = 'world', bytes: total } = options
  const smallFiles = options.smallFiles ?? Math.ceil(total / 2 ** 20)
  const random = seededBytes(seed)
  const written = { files: 0, bytes: 0 }
  const write = (path: string, data: Buffer) => {
    const file = join(folder, path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, data)
    const seconds = 1_700_000_000 + written.files + 0.125
    utimesSync(file, seconds, seconds)
    written.files += 1
    written.bytes += data.length
  }
  mkdirSync(folder, { recursive: true })
  write('level.dat', random(2048))
  for (let i = 0; i < smallFiles; i += 1) write(`playerdata/${i % 64}/player_${i}.json`, smallFile(random, i))
  mkdirSync(join(folder, 'datapacks'), { recursive: true })
  for (let i = 0; written.bytes < total; i += 1) {
    const folders = ['region', 'entities', 'poi', 'DIM-1/region']
    write(
      `${folders[i % 4]}/r.${i >> 3}.${i % 8}.mca`,
      region(random, Math.min(REGION_BYTES, total - written.bytes + SECTOR_BYTES)),
    )
  }
  return written
}

// `node bench/world.ts FOLDER BYTES` writes one, and says what it wrote.
if (process.argv[1] === import.meta.filename) {
  const [folder, bytes] = process.argv.slice(2)
  if (!folder || !(Number(bytes) > 0)) throw new Error('usage: node bench/world.ts FOLDER BYTES')
  console.log(JSON.stringify(writeWorld(folder, { bytes: Number(bytes) })))
}
