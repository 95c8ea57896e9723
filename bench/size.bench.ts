// Is memory flat from 1 to 100 GiB? What is backed up is generated and not stored. The bar: 100 GiB within 10 % of 1 GiB,
// and at most 180 MiB. MILLRACE_BENCH_BYTES sets the least size (1 GiB; the others are 10 and 100 times as much),
// MILLRACE_BENCH_RUNS how often (3). At 100 GiB each run takes minutes.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { lineChart } from './chart.ts'
import { Child, medianOf, RUNS, runsText, type Work } from './child.ts'
import { build, publish, withFolder } from './support.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30
const SIZES = [1, 10, 100].map((times) => times * Number(process.env.MILLRACE_BENCH_BYTES ?? GiB))
const GROWTH_BAR = 1.1
const PEAK_BAR_MIB = 180
const POINTS_MAX = 300
const KINDS = {
  backup: 'backup, into nothing',
  'backup-compressible': 'backup of what zstd makes 12 times smaller, to a folder',
  verify: 'reading that back whole, as a restore does (verify)',
}
type Kind = keyof typeof KINDS
type Run = Work & { peakBytes: number; samples: [bytes: number, rss: number][] }

build()
await withFolder(bench)

async function bench(folder: string): Promise<void> {
  const child = new Child('size-child', folder)
  const store = join(folder, 'store')
  const kinds = Object.keys(KINDS) as Kind[]
  const runs = new Map<string, Run[]>()
  const of = (kind: Kind, size: number) => runs.get(`${kind} ${size}`) ?? []
  for (let run = 0; run < RUNS; run += 1) {
    for (const size of SIZES) {
      for (const kind of kinds) {
        const made = await child.run<Run>([kind, String(size), `file://${store}`])
        runs.set(`${kind} ${size}`, [...of(kind, size), made])
        console.error(
          `${KINDS[kind]}, ${formatBytes(size)}: ${formatBytes(made.peakBytes)}, ${made.seconds.toFixed(0)} s`,
        )
      }
      rmSync(store, { recursive: true })
    }
  }
  const peak = (kind: Kind, size: number) => medianOf(of(kind, size), 'peakBytes')
  const [least, most] = [SIZES[0] as number, SIZES.at(-1) as number]
  const growth = kinds.map((kind) => `${KINDS[kind]}: ${(peak(kind, most) / peak(kind, least)).toFixed(2)}`)
  const rows = kinds.flatMap((kind) =>
    SIZES.map((size) => {
      const all = of(kind, size)
      return [
        `${KINDS[kind]}, ${sizeText(size)}`,
        formatBytes(peak(kind, size)),
        all.map((one) => formatBytes(one.peakBytes)).join(', '),
        (peak(kind, size) / peak(kind, least)).toFixed(2),
        formatBytes(medianOf(all.map(settled), 'rss')),
        (size / MiB / medianOf(all, 'seconds')).toFixed(0),
      ]
    }),
  )
  publish(
    'size',
    `Peak RSS over the size of what is backed up, ${runsText(RUNS)}, in turn. ${sizeText(most)} against ${sizeText(least)}: ${growth.join('; ')} (bar ${GROWTH_BAR}). A backup to a local store has ${PEAK_BAR_MIB} MiB at most.`,
    ['what', 'peak', 'each', `of that at ${sizeText(least)}`, 'RSS, second half', 'MiB/s'],
    rows,
    Object.fromEntries(runs),
    [
      'Each in a process of its own, with the built package: `openBackups`, a password, all defaults, its heap held as the command holds its own (`holdHeap`; without it reading back 100 GiB took 1.13 of what 1 GiB took, as the young generation of V8 grew). It watches its own RSS four times a second; the peak is what the kernel counted.',
      'The source is a stream of one block of 4 MiB again and again, so that nothing has to be stored; as large as a zstd frame, so zstd does not see that it repeats. A stream has no size that could be said beforehand. Reading a folder is not in it: bench/memory has that.',
      'Into nothing: a store that keeps the size of the object alone. It is a third compressible, as a world is.',
      'What is read back has to be stored, so it is made of what zstd makes 12 times smaller; its store is a folder in memory (tmpfs). `verify` reads, decrypts, decompresses and hashes all of it by the same code as a restore, and writes nothing.',
      'What is stored in less than 64 MiB is read without a thread for decryption, which takes some 18 MiB: what is read here is more than that.',
    ],
    lineChart({
      title: 'Resident memory over what is done: 1, 10 and 100 times as much',
      xLabel: 'GiB done',
      yLabel: 'MiB',
      xLog: true,
      series: kinds
        .filter((kind) => kind !== 'backup-compressible')
        .flatMap((kind) =>
          SIZES.map((size) => ({
            name: `${kind === 'verify' ? 'reading back' : 'backup'}, ${sizeText(size)}`,
            points: thinned(middleRun(of(kind, size)).samples).map(([bytes, rss]) => [bytes / GiB, rss / MiB] as const),
          })),
        ),
      note: 'Of each size the run with the median peak. The runtime itself is in it.',
    }),
  )
}

function sizeText(bytes: number): string {
  return formatBytes(bytes).replace(/\.0+ /, ' ')
}

/** The median RSS of the second half of a run: what it has when it goes on for long. */
function settled({ samples }: Run): { rss: number } {
  const half = samples.slice(samples.length >> 1).map(([, rss]) => ({ rss }))
  return { rss: medianOf(half, 'rss') }
}

function middleRun(runs: readonly Run[]): Run {
  return runs.toSorted((a, b) => a.peakBytes - b.peakBytes)[runs.length >> 1] as Run
}

/** At most so many points; of those that become one, the highest. */
function thinned(samples: Run['samples']): Run['samples'] {
  const together = Math.ceil(samples.length / POINTS_MAX)
  const groups = Map.groupBy(samples.entries(), ([index]) => Math.floor(index / together))
  return [...groups.values()].map(
    (group) => group.map(([, one]) => one).sort(([, a], [, b]) => b - a)[0] as [number, number],
  )
}
