// Are the defaults good ones? Each of them is changed alone, the others left as they are.
// MILLRACE_BENCH_BYTES sets the size of the world (512 MiB), MILLRACE_BENCH_SWEEPS which sweeps are made, by their names
// in SWEEPS (all).
import { copyFileSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { CreateBucketCommand, DeleteObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { formatBytes } from '../lib/cli/format.ts'
import { defaultThreads } from '../transforms/zstd-compress.ts'
import { barChart } from './chart.ts'
import { Child, medianOf, RUNS, runsText, type Work, withRuns } from './child.ts'
import type { StageOptions } from './stage-child.ts'
import { build, median, publish, ROOT, startS3, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const KiB = 1024
const MiB = 1024 * KiB
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 512 * MiB)
const BUCKET = 'millrace-bench-sweep'
const KEY = 'object'
const SERVER_FREES_MS = 6000
/** The runtimes among what npm has installed are larger: a few binaries would be most of it. */
const FILE_MAX_BYTES = 8 * MiB

interface Sweep {
  title: string
  values: readonly number[]
  /** The value that the product has, for this machine. */
  standard: number
  say(value: number): string
  options(value: number): StageOptions
  env?(value: number): NodeJS.ProcessEnv
  /** Whether it is written to the S3 server, and not into nothing. */
  stored?: boolean
  /** Whether it is made with program files as well, which compress better than a world. */
  files?: boolean
}

const threads = defaultThreads()
const SWEEPS: Record<string, Sweep> = {
  'zstd-frame': {
    title: 'zstd frame',
    values: [1, 2, 4, 8, 16].map((count) => count * MiB),
    standard: 4 * MiB,
    say: sizeText,
    options: (zstdFrameBytes) => ({ zstdFrameBytes }),
    files: true,
  },
  'container-frame': {
    title: 'container frame',
    values: [64 * KiB, 256 * KiB, MiB, 4 * MiB, 16 * MiB],
    standard: MiB,
    say: sizeText,
    options: (frameBytes) => ({ frameBytes }),
  },
  chunk: {
    title: 'chunks of the archive',
    values: [64 * KiB, 256 * KiB, 512 * KiB, MiB, 4 * MiB],
    standard: 512 * KiB,
    say: sizeText,
    options: (chunkBytes) => ({ chunkBytes }),
  },
  threads: {
    title: 'threads',
    values: [1, 2, 3, 4],
    standard: threads,
    say: String,
    options: (count) => ({ threads: count }),
    env: (count) => ({ UV_THREADPOOL_SIZE: String(count) }),
  },
  level: {
    title: 'zstd level',
    values: [1, 3, 6, 9],
    standard: 3,
    say: String,
    options: (level) => ({ level }),
    files: true,
  },
  part: {
    title: 'part size to S3',
    values: [8, 16, 24].map((count) => count * MiB),
    standard: 8 * MiB,
    say: sizeText,
    options: (partBytes) => ({
      key: KEY,
      store: {
        provider: 's3',
        bucket: BUCKET,
        endpoint: process.env.MILLRACE_S3_ENDPOINT as string,
        region: 'us-east-1',
        profile: 'ceph',
        partBytes,
      },
    }),
    stored: true,
  },
}
type Run = Work & { peakBytes: number }

const wanted = process.env.MILLRACE_BENCH_SWEEPS?.split(',') ?? Object.keys(SWEEPS)
for (const name of wanted) if (!SWEEPS[name]) throw new Error(`No sweep is called ${name}.`)
const chosen = Object.entries(SWEEPS)
  .filter(([name]) => wanted.includes(name))
  .flatMap(([name, sweep]) => {
    const files = { name: `${name}, files`, title: `${sweep.title}, program files`, source: 'files' as const }
    return [{ name, ...sweep, source: 'world' as const }, ...(sweep.files ? [{ ...sweep, ...files }] : [])]
  })

build()
const server = chosen.some(({ stored }) => stored) ? startS3() : undefined
try {
  await withFolder(bench)
} finally {
  server?.stop()
}

async function bench(folder: string): Promise<void> {
  const world = join(folder, 'world')
  writeWorld(world, { bytes: BYTES })
  const sources = { world, files: join(folder, 'files') }
  const fileBytes = copyFiles(sources.files, BYTES)
  const child = new Child('stage-child', folder)
  const client = server && (await openBucket())
  const found: Record<string, Run[][]> = {}
  for (const sweep of chosen) {
    const runs: Run[][] = sweep.values.map(() => [])
    for (let run = 0; run < RUNS; run += 1) {
      for (const [index, value] of sweep.values.entries()) {
        const env = sweep.env?.(value) ?? {}
        const args = ['chain', sources[sweep.source], JSON.stringify(sweep.options(value))]
        runs[index]?.push(await child.run<Run>(args, { env }))
        if (sweep.stored) await remove(client as S3Client)
      }
    }
    found[sweep.name] = runs
  }
  client?.destroy()
  const of = (name: string, index: number) => found[name]?.[index] ?? []
  const rate = ({ bytesIn, seconds }: Run) => bytesIn / MiB / seconds
  const rows = chosen.flatMap(({ name, title, values, standard, say }) =>
    values.map((value, index) => {
      const runs = of(name, index)
      return [
        title,
        `${say(value)}${value === standard ? ' (default)' : ''}`,
        (medianOf(runs, 'bytesIn') / medianOf(runs, 'bytesOut')).toFixed(3),
        withRuns(runs.map(rate), 0),
        medianOf(runs, 'cpuSeconds').toFixed(2),
        // Where the archive was made first, it is in memory whole.
        name.startsWith('chunk') ? '' : formatBytes(medianOf(runs, 'peakBytes')),
      ]
    }),
  )
  publish(
    'sweep',
    `Each default changed alone: a world of ${formatBytes(BYTES)} through archive, zstd, AES-256-GCM and SHA-256; ${runsText(RUNS)}, in turn.`,
    ['what', 'value', 'ratio', 'MiB/s', 'CPU s', 'peak RSS'],
    rows,
    Object.fromEntries(
      chosen.map(({ name, values, standard }) => [name, { values, standard, runs: found[name] as Run[][] }]),
    ),
    [
      'Synthetic world (bench/world.ts) in memory (tmpfs), each run in a process of its own, whose start is not counted; the key is a raw one. What comes out is thrown away, except for the parts.',
      `ratio: how many times smaller. A world is mostly compressed already; program files are not: the ${formatBytes(fileBytes)} that npm has installed for this project, of files up to ${formatBytes(FILE_MAX_BYTES)}.`,
      'threads: with UV_THREADPOOL_SIZE as large, so files are read by as many.',
      'chunks of the archive: the archive is made and cut anew before, and is not counted; the peak says nothing then. 512 KiB is what the archive comes in.',
      'part size: Ceph radosgw on the same machine, over http, in memory. MiB a second and CPU are with the upload.',
    ],
    barChart({
      title: `Each default changed alone: MiB a second into the chain, a world of ${formatBytes(BYTES)}`,
      unit: 'MiB/s',
      groups: chosen.map(({ name, title, values, standard, say }) => ({
        label: title,
        bars: values.map((value, index) => {
          const rates = of(name, index).map(rate)
          return {
            label: `${say(value)}${value === standard ? ' (default)' : ''}`,
            value: median(rates),
            runs: rates,
          }
        }),
      })),
      note: 'Peak memory and ratios are in the table.',
    }),
  )
}

async function openBucket(): Promise<S3Client> {
  const endpoint = process.env.MILLRACE_S3_ENDPOINT as string
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
  await client.send(new CreateBucketCommand({ Bucket: BUCKET })).catch((error) => {
    if (error.name !== 'BucketAlreadyOwnedByYou') throw error
  })
  return client
}

async function remove(client: S3Client): Promise<void> {
  await client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: KEY }))
  // The server frees what was deleted a few seconds later, and its store is memory too.
  await new Promise((resolve) => setTimeout(resolve, SERVER_FREES_MS))
}

/** Copies what npm has installed, in the order of the paths, up to about so many bytes. @returns how many it is. */
function copyFiles(target: string, most: number): number {
  const from = join(ROOT, 'node_modules')
  let bytes = 0
  const files = readdirSync(from, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
  for (const file of files) {
    const { size } = statSync(file)
    if (size > FILE_MAX_BYTES) continue
    const copy = join(target, relative(from, file))
    mkdirSync(dirname(copy), { recursive: true })
    copyFileSync(file, copy)
    bytes += size
    if (bytes >= most) break
  }
  return bytes
}

function sizeText(bytes: number): string {
  return formatBytes(bytes).replace('.00', '').replace('.0 ', ' ')
}
