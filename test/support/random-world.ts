import { type Random, seededBytes, seededRandom } from './random.ts'
import type { TreeItem } from './tree.ts'

const KiB = 1024
const MiB = 1024 * KiB
/** Where the archive, its chunks, its batches and its frames have their borders. */
const BORDERS = [0, 1, 512, 4 * KiB, 32 * KiB, 64 * KiB, 512 * KiB, MiB, 2 * MiB, 4 * MiB]
const STEMS = [
  'a',
  'A',
  'a-b',
  'a.b',
  'a0',
  ' ',
  '-',
  '~',
  '#',
  'ä',
  'é',
  '世界',
  '🌋',
  '%41',
  "it's",
  'new\nline',
  'b\\c',
  'x'.repeat(200),
]
/** Before and after 1970, with and without fractions, and past 2038; eighths of a second are exact in every clock. */
const TIMES_MS = [0, 125, 875, -1500, 1_600_000_000_125, 1_700_000_000_000, 5_000_000_000_500]
const FILE_MODES = [0o644, 0o600, 0o755, 0o444, 0o4755, 0o666]
const FOLDER_MODES = [0o755, 0o700, 0o1777, 0o555]

/** How many there are of what, in one tree. */
export interface WorldShape {
  folders: number
  files: number
  /** The share of files that are larger than a few KiB. */
  large: number
}

/** A few large files, a handful of all sorts, or enough small ones for the threads that read and write batches. */
export function randomShape(random: Random): WorldShape {
  return random.pick([
    { folders: 2, files: 1 + random.int(4), large: 0.9 },
    { folders: 6, files: 40, large: 0.2 },
    { folders: 30, files: 500, large: 0.01 },
    { folders: 3, files: 1200, large: 0 },
  ])
}

/** A folder's content from a seed: odd names, modes and times, sizes about every border, links of both kinds. */
export function randomWorld(seed: string, shape: WorldShape): TreeItem[] {
  const random = seededRandom(seed, 'tree')
  const bytes = seededBytes(8 * MiB, random.int(2 ** 31))
  const folders = ['']
  const files: string[] = []
  const items: TreeItem[] = []
  const taken = new Set<string>()
  const newPath = () => {
    for (;;) {
      const path = `${random.pick(folders)}${random.pick(STEMS)}${random.chance(0.5) ? random.int(1000) : ''}`
      if (path.length > 900 || taken.has(path)) continue
      taken.add(path)
      return path
    }
  }
  const facts = (modes: readonly number[]) => ({
    mode: random.pick(modes),
    mtime: random.pick(TIMES_MS) + 125 * random.int(5),
  })
  for (let at = 0; at < shape.folders; at++) {
    const path = newPath()
    items.push({ path, type: 'dir', ...facts(FOLDER_MODES) })
    folders.push(`${path}/`)
  }
  for (let at = 0; at < shape.files; at++) {
    const path = newPath()
    const kind = files.length === 0 ? 'file' : random.weighted({ file: 12, link: 1, symlink: 1 })
    if (kind === 'link') items.push({ path, type: 'link', target: random.pick(files) })
    else if (kind === 'symlink')
      items.push({ path, type: 'symlink', target: random.pick(STEMS), mtime: random.pick(TIMES_MS) })
    else {
      items.push({
        path,
        type: 'file',
        content: content(random, bytes, random.chance(shape.large)),
        ...facts(FILE_MODES),
      })
      files.push(path)
    }
  }
  return items
}

function content(random: Random, bytes: Buffer, isLarge: boolean): Buffer {
  const border = isLarge ? random.pick(BORDERS.slice(5)) : random.pick(BORDERS.slice(0, 5))
  const size = random.chance(0.6) ? Math.max(0, border + random.int(5) - 2) : random.int(2 * border + 1)
  const start = random.int(bytes.length - Math.min(size, bytes.length) + 1)
  const made = Buffer.alloc(size)
  bytes.copy(made, 0, start, start + size)
  // Stretches that compress, as the padding and the tables of a world do.
  for (let at = 0; at < size && random.chance(0.7); at += 1 + random.int(size)) {
    made.fill(random.pick([0, 0x41]), at, Math.min(size, at + random.int(64 * KiB)))
  }
  return made
}
