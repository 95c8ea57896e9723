// What does one file out of a large backup cost, against restoring all of it? Bytes read from the store, and time.
// MILLRACE_BENCH_BYTES sets the size of the world (10 GiB), MILLRACE_BENCH_DIR where it is.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openStorage } from '../adapters/open.ts'
import type { Storage } from '../adapters/storage.ts'
import { formatBytes } from '../lib/cli/format.ts'
import { openBackups } from '../lib/index.ts'
import { openSealed, openSeekable } from '../transforms/index.ts'
import { parseSeekFooter, SEEK_FOOTER_BYTES, SeekTable } from '../transforms/seek-table.ts'
import { median, publish } from './support.ts'
import { seededBytes, writeWorld } from './world.ts'

const RUNS = 3
const FILE_BYTES = 8 * 2 ** 20
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 10 * 2 ** 30)

// On disk: a world and its object of this size are more than a machine's memory may hold.
const folder = mkdtempSync(join(process.env.MILLRACE_BENCH_DIR ?? tmpdir(), 'millrace-bench-'))
try {
  const world = join(folder, 'world')
  const { files } = writeWorld(world, { bytes: BYTES, smallFiles: 5000 })
  const wanted = 'region/r.5.middle.mca'
  mkdirSync(join(world, 'region'), { recursive: true })
  writeFileSync(join(world, wanted), seededBytes('the file')(FILE_BYTES))

  const url = `file://${folder}/store`
  const store = await openStorage(url)
  const writer = await openBackups({ storage: store, server: 'world', password: 'a bench' })
  const made = await writer.create(world)
  const { frames } = await writer.inspect('latest')

  const limit = await allowance(store, made.key, wanted)
  let bytesRead = 0
  const counted = counting(store, (bytes) => {
    bytesRead += bytes
  })
  const backups = await openBackups({ storage: counted, server: 'world', password: 'a bench' })
  const one: { bytes: number; seconds: number }[] = []
  const all: { bytes: number; seconds: number }[] = []
  for (let run = 0; run < RUNS; run += 1) {
    const time = async (include: string[] | undefined) => {
      const target = join(folder, 'out')
      bytesRead = 0
      const begun = performance.now()
      await backups.restore('latest', target, { include })
      const seconds = (performance.now() - begun) / 1000
      if (!readFileSync(join(target, wanted)).equals(readFileSync(join(world, wanted))))
        throw new Error('another file came back')
      rmSync(target, { recursive: true })
      return { bytes: bytesRead, seconds }
    }
    one.push(await time([wanted]))
    all.push(await time(undefined))
  }
  const row = (name: string, runs: typeof one) => [
    name,
    formatBytes(median(runs.map(({ bytes }) => bytes))),
    `${median(runs.map(({ seconds }) => seconds)).toFixed(2)} s`,
    runs.map(({ seconds }) => seconds.toFixed(2)).join(', '),
  ]
  publish(
    'partial',
    `One file of ${formatBytes(FILE_BYTES)} (of ${files + 1}) out of a snapshot of ${formatBytes(made.bytes)}, stored as ${formatBytes(made.storedBytes)} in ${frames} zstd frames, against all of it.`,
    ['restored', 'read from the store', 'median', 'runs'],
    [row('one file', one), row('everything', all)],
    { one, all, storedBytes: made.storedBytes, limit },
    [
      `The file's own compressed frames, the index, the seek table and 4 MiB are together ${formatBytes(limit)}.`,
      'A folder on the local disk is the store; the page cache holds what fits of it. Password with 600,000 iterations.',
      'What is read for one file: the container header, the frames of 1 MiB that hold the index, the seek table and the file.',
    ],
  )
  await store.close()
} finally {
  rmSync(folder, { recursive: true, force: true })
}

/** The compressed frames that hold one file, the index, the seek table, and 4 MiB. */
async function allowance(storage: Storage, key: string, path: string): Promise<number> {
  const { size } = await storage.stat(key)
  const source = await openSealed((at, length) => storage.readRange(key, at, length), size, { password: 'a bench' })
  const footer = parseSeekFooter(await source.read(source.size - SEEK_FOOTER_BYTES, SEEK_FOOTER_BYTES), source.size)
  if (!footer) throw new Error('there is no seek table')
  const table = new SeekTable(
    await source.read(source.size - footer.frameBytes, footer.frameBytes),
    footer,
    source.size,
  )
  const seekable = await openSeekable(source)
  let bytes = footer.frameBytes + table.compressedBytes(table.frames - 1) + 4 * 2 ** 20
  for await (const entry of seekable?.entries() ?? []) {
    if (entry.path !== path) continue
    const last = table.frameAt(entry.data + entry.size - 1)
    for (let frame = table.frameAt(entry.data); frame <= last; frame += 1) bytes += table.compressedBytes(frame)
  }
  return bytes
}

function counting(storage: Storage, count: (bytes: number) => void): Storage {
  return new Proxy(storage, {
    get(target, name) {
      const value = Reflect.get(target, name)
      if (name === 'readRange') {
        return (key: string, offset: number, length: number, options?: object) => {
          count(length)
          return target.readRange(key, offset, length, options)
        }
      }
      if (name === 'createReadStream') {
        return (key: string, options?: object) => {
          const stream = target.createReadStream(key, options)
          const push = stream.push.bind(stream)
          stream.push = (chunk: Buffer | null, encoding?: BufferEncoding) => {
            if (chunk) count(chunk.length)
            return push(chunk, encoding)
          }
          return stream
        }
      }
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
