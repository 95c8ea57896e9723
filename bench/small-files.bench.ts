// What do many small files cost, against the same bytes in few large ones, and against tar? Packing alone, packing and
// compressing, a backup into a folder, and a restore, all in the same run, in turn. MILLRACE_BENCH_FILES sets how many
// files of 4 KiB there are (100,000), MILLRACE_BENCH_RUNS the rounds (3).
import { mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as breathe } from 'node:timers/promises'
import { formatBytes } from '../lib/cli/format.ts'
import { barChart } from './chart.ts'
import { install, LEVEL, peerEnv, versions } from './peers/peers.ts'
import { bytesBeneath, emptyFolder, type Spent, timed, turns } from './peers/race.ts'
import { tidily } from './peers/tidy.ts'
import { verdict } from './peers/verdict.ts'
import { build, median, publish, ROOT } from './support.ts'
import { seededBytes, smallFile } from './world.ts'

const RUNS = Number(process.env.MILLRACE_BENCH_RUNS ?? 3)
const FILES = Number(process.env.MILLRACE_BENCH_FILES ?? 100_000)
const SMALL_BYTES = 4096
const IN_A_FOLDER = 250
const LARGE_BYTES = 4 * 2 ** 20
/** The most that a way through many small files may take, of tar's. */
const BAR = 1.5

const CHILD = `
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdCompress } from '${ROOT}/dist/transforms/index.js'
const nowhere = new Writable({ write(chunk, encoding, done) { done() } })
`
/** Compresses its input and throws it away. */
const COMPRESS = `${CHILD}
await pipeline(process.stdin, createZstdCompress(), nowhere)
`
/** Packs a folder as a backup does, compresses it and throws it away. */
const PACK = `${CHILD}
import { packFolder } from '${ROOT}/dist/lib/archive/pack.js'
import { freeChunk } from '${ROOT}/dist/lib/pipe.js'
const { stream } = await packFolder(process.env.WORLD)
await pipeline(stream, createZstdCompress({ onConsumed: freeChunk }), nowhere)
`

type Way =
  | 'tar | zstd'
  | 'tar | the same zstd'
  | 'packing alone'
  | 'millrace backup'
  | 'zstd -d | tar x'
  | 'millrace restore'

/** The line of each way, what it is compared with, and with which of these it is held to the bar. */
const WAYS: Record<Way, { line: string; against?: readonly Way[]; held?: readonly Way[] }> = {
  'tar | zstd': { line: `tar -C "$WORLD" -cf - . | zstd -q -${LEVEL} -T0 > /dev/null` },
  'tar | the same zstd': { line: 'tar -C "$WORLD" -cf - . | "$NODE" --input-type=module -e "$COMPRESS"' },
  'packing alone': {
    line: '"$NODE" --input-type=module -e "$PACK"',
    against: ['tar | zstd', 'tar | the same zstd'],
    held: ['tar | zstd', 'tar | the same zstd'],
  },
  'millrace backup': {
    line: '"$NODE" "$BIN" backup "$WORLD" --to "file://$STORE" --server world',
    against: ['tar | zstd', 'tar | the same zstd'],
    held: ['tar | zstd'],
  },
  'zstd -d | tar x': { line: 'zstd -q -d < "$STATE/world.tar.zst" | tar -C "$OUT" -xf -' },
  'millrace restore': {
    line: '"$NODE" "$BIN" restore latest --from "file://$STORE" --server world --target "$OUT"',
    against: ['zstd -d | tar x'],
  },
}
const NAMES = Object.keys(WAYS) as Way[]
const RESTORES: readonly Way[] = ['zstd -d | tar x', 'millrace restore']
const SHAPES = ['many', 'few'] as const
type Shape = (typeof SHAPES)[number]
type Runs = Record<Shape, Record<Way, Spent[]>>

install(['tar', 'zstd', 'diff'])
build()
await tidily(bench)

async function bench(folder: string): Promise<void> {
  const bytes = FILES * SMALL_BYTES
  await writeShapes(folder)
  const start: Spent[] = []
  const none = () => Object.fromEntries(NAMES.map((way) => [way, [] as Spent[]])) as Record<Way, Spent[]>
  const runs: Runs = { many: none(), few: none() }
  const stored: Partial<Record<Shape, number>> = {}
  for (let round = 0; round < RUNS; round += 1) {
    for (const shape of turns(SHAPES, round, RUNS)) {
      const measured = await measureShape(folder, shape, round)
      for (const [way, spent] of measured.spent) runs[shape][way].push(spent)
      stored[shape] = measured.storedBytes
    }
    start.push(await measureStart(folder))
  }
  report(runs, start, bytes, stored)
}

/** Every way once: the first ones in turn, then the restores of what they made. */
async function measureShape(folder: string, shape: Shape, round: number) {
  const [store, out, state] = [join(folder, 'store'), join(folder, 'out'), join(folder, 'state')]
  const env = { ...peerEnv({ world: join(folder, shape), store, out, state, file: '' }), COMPRESS, PACK }
  const run = (line: string) => timed(line, env, state)
  for (const one of [store, out, state]) emptyFolder(one)
  mkdirSync(join(state, 'tmp'))
  const spent: [Way, Spent][] = []
  const ways = NAMES.filter((way) => !RESTORES.includes(way))
  for (const way of turns(ways, round, RUNS)) spent.push([way, await run(WAYS[way].line)])
  await run(`tar -C "$WORLD" -cf - . | zstd -q -${LEVEL} -T0 > "$STATE/world.tar.zst"`)
  for (const way of turns(RESTORES, round, RUNS)) {
    spent.push([way, await run(WAYS[way].line)])
    if (round === 0) await run('diff -r --no-dereference "$WORLD" "$OUT"')
    emptyFolder(out)
  }
  const storedBytes = bytesBeneath(store)
  console.error(
    `round ${round + 1} of ${RUNS}, ${shape}: ${spent.map(([way, { seconds }]) => `${way} ${seconds.toFixed(1)} s`).join(', ')}`,
  )
  return { spent, storedBytes }
}

/** What a backup of one small file takes: the start of the program, the key, the lease. */
async function measureStart(folder: string): Promise<Spent> {
  const [world, store, state] = [join(folder, 'one'), join(folder, 'store'), join(folder, 'state')]
  emptyFolder(store)
  return timed(WAYS['millrace backup'].line, peerEnv({ world, store, out: '', state, file: '' }), state)
}

/** The same bytes as many files, and as few; and one file, to see what a start costs. */
async function writeShapes(folder: string): Promise<void> {
  const random = seededBytes('small files')
  const write = (path: string, data: Buffer, number: number) => {
    writeFileSync(path, data)
    const seconds = 1_700_000_000 + number + 0.125
    utimesSync(path, seconds, seconds)
  }
  for (const shape of ['few', 'one']) mkdirSync(join(folder, shape))
  let large: Buffer[] = []
  for (let i = 0; i < FILES; i += 1) {
    const inner = join(folder, 'many', `part_${Math.floor(i / IN_A_FOLDER)}`)
    if (i % IN_A_FOLDER === 0) {
      mkdirSync(inner, { recursive: true })
      await breathe()
    }
    const data = contentOf(random, i)
    write(join(inner, `player_${i}.json`), data, i)
    if (i === 0) write(join(folder, 'one', 'player_0.json'), data, i)
    large.push(data)
    if (large.length === LARGE_BYTES / SMALL_BYTES || i === FILES - 1) {
      write(join(folder, 'few', `players_${i}.json`), Buffer.concat(large), i)
      large = []
    }
  }
}

/** As many players' statistics as fill a file, cut where it ends. */
function contentOf(random: (bytes: number) => Buffer, i: number): Buffer {
  const parts: Buffer[] = []
  for (let bytes = 0; bytes < SMALL_BYTES; bytes += parts.at(-1)?.length ?? 0) parts.push(smallFile(random, i))
  return Buffer.concat(parts, SMALL_BYTES)
}

function report(runs: Runs, start: Spent[], bytes: number, stored: Partial<Record<Shape, number>>): void {
  const of = (shape: Shape, way: Way, value: (one: Spent) => number) => median(runs[shape][way].map(value))
  const seconds = (shape: Shape, way: Way) => of(shape, way, (one) => one.seconds)
  const holds = (shape: Shape, way: Way) => (shape === 'many' ? (WAYS[way].held ?? []) : [])
  const titles = {
    many: `${FILES.toLocaleString('en')} files of ${formatBytes(SMALL_BYTES)}`,
    few: `the same in files of ${formatBytes(LARGE_BYTES)}`,
  }
  const row = (shape: Shape, way: Way) => {
    const ratio = (other: Way) => seconds(shape, way) / seconds(shape, other)
    return [
      titles[shape],
      way,
      `${seconds(shape, way).toFixed(2)} s`,
      runs[shape][way].map((one) => one.seconds.toFixed(2)).join(', '),
      `${of(shape, way, (one) => one.cpuSeconds).toFixed(2)} s`,
      formatBytes(of(shape, way, (one) => one.peakBytes)),
      (WAYS[way].against ?? []).map((other) => `${ratio(other).toFixed(2)} of ${other}`).join('; '),
      holds(shape, way)
        .map((other) => verdict(ratio(other), BAR))
        .join('; '),
      shape === 'many' ? (seconds('many', way) / seconds('few', way)).toFixed(2) : '',
    ]
  }
  const bar = (shape: Shape, way: Way) => {
    const limits = holds(shape, way).map((other) => BAR * seconds(shape, other))
    const all = runs[shape][way].map((one) => one.seconds)
    return { label: way, value: seconds(shape, way), runs: all, ...(limits.length > 0 && { bar: Math.min(...limits) }) }
  }
  const worse = SHAPES.flatMap((shape) => {
    const found = NAMES.flatMap((way) =>
      (WAYS[way].against ?? []).map((other) => {
        const text = comparedTo(
          (value) => of(shape, way, value),
          (value) => of(shape, other, value),
        )
        return text && `${way} ${text} than ${other}`
      }),
    )
    return found.some(Boolean) ? [`Worse, ${titles[shape]}: ${found.filter(Boolean).join('; ')}.`] : []
  })
  publish(
    'small-files',
    `Many small files: ${titles.many} (${formatBytes(bytes)}) against tar, and against the same bytes in few large files; medians of ${RUNS}, in turn. The bar is ${BAR} of tar's wall time.`,
    ['files', 'way', 'wall', 'runs', 'CPU', 'peak memory', 'wall against tar', 'bar', 'of its wall with few'],
    SHAPES.flatMap((shape) => NAMES.map((way) => row(shape, way))),
    { files: FILES, fileBytes: SMALL_BYTES, runs, start, stored, bar: BAR },
    [
      ...worse,
      `The start: a backup of one such file takes ${median(start.map((one) => one.seconds)).toFixed(2)} s, which is in every backup's time (Node, 600,000 iterations of PBKDF2 for the key, the lease).`,
      `The files are JSON of bench/world.ts, in ${Math.ceil(FILES / IN_A_FOLDER)} folders of up to ${IN_A_FOLDER}; millrace stores them as ${formatBytes(stored.many ?? 0)}, the few large ones as ${formatBytes(stored.few ?? 0)}.`,
      `Sources, stores and targets are on tmpfs where there is one, so that opening a file costs little and fsync nothing. ${versions(['tar', 'zstd'])}; zstd at level ${LEVEL} with -T0, millrace with its defaults.`,
      'tar | zstd and packing alone throw away what they make; the backup encrypts it (AES-256-GCM), hashes it and writes it. "The same zstd" is createZstdCompress in a process of its own. What both restores brought was compared with the source once.',
      'CPU is user and system time of all processes of the line. Peak memory is the largest sum of their resident sets, looked at every 50 ms; pages that they share are counted for each.',
    ],
    barChart({
      title: `${titles.many}, and the same bytes in few`,
      unit: 's',
      groups: SHAPES.map((shape) => ({ label: titles[shape], bars: NAMES.map((way) => bar(shape, way)) })),
      note: `Each is ${BAR} of tar's time, of the faster where there are two. Wall time, medians of ${RUNS}; thin lines are the runs.`,
    }),
  )
}

/** In what one way is worse than another, as in `takes more memory (90 MiB against 40 MiB)`; empty when in nothing. */
function comparedTo(one: (value: (spent: Spent) => number) => number, other: typeof one): string {
  const kinds: [string, (spent: Spent) => number, (value: number) => string][] = [
    ['time', (spent) => spent.seconds, (value) => `${value.toFixed(2)} s`],
    ['CPU', (spent) => spent.cpuSeconds, (value) => `${value.toFixed(2)} s`],
    ['memory', (spent) => spent.peakBytes, formatBytes],
  ]
  const worse = kinds
    .filter(([, value]) => one(value) > other(value))
    .map(([what, value, format]) => `${what} (${format(one(value))} against ${format(other(value))})`)
  return worse.length === 0 ? '' : `takes more ${worse.join(', ')}`
}
