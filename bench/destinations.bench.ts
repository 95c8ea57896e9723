// What do several destinations cost in one pass, against one? The bar is 1.25 of the CPU time of one.
// MILLRACE_BENCH_BYTES sets the size of the world (2 GiB).
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CreateBucketCommand, DeleteObjectsCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3'
import { formatBytes } from '../lib/cli/format.ts'
import { BIN, build, measure, median, publish, startS3, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const RUNS = 3
const BAR = 1.25
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)
const BUCKETS = ['millrace-bench-one', 'millrace-bench-two']
const SERVER_FREES_MS = 6000
/** Of each, how many folders and how many buckets. */
const VARIANTS = {
  'a folder': [1, 0],
  'a bucket': [0, 1],
  'a folder and two buckets': [1, 2],
  'three folders': [3, 0],
} as const
type Variant = keyof typeof VARIANTS

/** Runs the command in a process that writes the CPU seconds it took, user and system, into a file. */
const TIMED = `
  process.on('exit', () => {
    const { user, system } = process.cpuUsage()
    require('node:fs').writeFileSync(process.env.MILLRACE_BENCH_CPU, String((user + system) / 1e6))
  })`

build()
const server = startS3()
try {
  await withFolder(bench)
} finally {
  server.stop()
}

async function bench(folder: string): Promise<void> {
  const endpoint = process.env.MILLRACE_S3_ENDPOINT as string
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
  for (const Bucket of BUCKETS) {
    await client.send(new CreateBucketCommand({ Bucket })).catch((error) => {
      if (error.name !== 'BucketAlreadyOwnedByYou') throw error
    })
  }
  const empty = async (Bucket: string) => {
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }))
    const Objects = Contents.map(({ Key }) => ({ Key }))
    if (Objects.length > 0) await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }))
  }
  const world = join(folder, 'world')
  writeWorld(world, { bytes: BYTES, smallFiles: 1000 })
  const cpuFile = join(folder, 'cpu')
  const hook = `data:text/javascript,${encodeURIComponent(`import { createRequire } from 'node:module'; const require = createRequire('/'); ${TIMED}`)}`
  const results: { variant: Variant; cpu: number; seconds: number; peakBytes: number }[] = []
  for (let run = 0; run < RUNS; run += 1) {
    for (const [variant, [folders, buckets]] of Object.entries(VARIANTS) as [Variant, readonly [number, number]][]) {
      const stores = Array.from({ length: folders }, (_, index) => join(folder, `store-${run}-${index}`))
      const used = BUCKETS.slice(0, buckets)
      const urls = [
        ...stores.map((store) => `file://${store}`),
        ...used.map((bucket) => `s3://${bucket}?endpoint=${endpoint}&region=us-east-1&profile=ceph`),
      ]
      const { seconds, peakBytes } = await measure(
        process.execPath,
        ['--import', hook, BIN, 'backup', world, ...urls.flatMap((url) => ['--to', url]), '--server', 'world'],
        { MILLRACE_PASSWORD: 'a bench', MILLRACE_BENCH_CPU: cpuFile },
      )
      results.push({ variant, cpu: Number(readFileSync(cpuFile, 'utf8')), seconds, peakBytes })
      if (stores.length > 0) await measure('rm', ['-r', ...stores])
      for (const bucket of used) await empty(bucket)
      if (used.length > 0) await new Promise((resolve) => setTimeout(resolve, SERVER_FREES_MS))
    }
  }
  client.destroy()
  const of = (variant: Variant) => results.filter((one) => one.variant === variant)
  const cpu = (variant: Variant) => median(of(variant).map((one) => one.cpu))
  const ratios = {
    'a folder and two buckets, of a bucket': cpu('a folder and two buckets') / cpu('a bucket'),
    'a folder and two buckets, of a folder': cpu('a folder and two buckets') / cpu('a folder'),
    'three folders, of a folder': cpu('three folders') / cpu('a folder'),
  }
  const said = Object.entries(ratios).map(([what, ratio]) => `${what}: ${ratio.toFixed(2)}`)
  publish(
    'destinations',
    `CPU time of a backup of ${formatBytes(BYTES)} to one destination, and to several in one pass. ${said.join('; ')}. The bar is ${BAR}.`,
    ['destinations', 'CPU, median', 'CPU, runs', 'time, median', 'largest memory'],
    (Object.keys(VARIANTS) as Variant[]).map((variant) => [
      variant,
      `${cpu(variant).toFixed(2)} s`,
      of(variant)
        .map((one) => one.cpu.toFixed(2))
        .join(', '),
      `${median(of(variant).map((one) => one.seconds)).toFixed(2)} s`,
      formatBytes(Math.max(...of(variant).map((one) => one.peakBytes))),
    ]),
    { results, ratios, bar: BAR },
    [
      'Folders lie beside the world, in memory where there is room; the buckets are of one Ceph radosgw on the same machine, over http. CPU is user and system time of the process.',
      'Each bucket costs what its requests cost: a copy of each byte, a SHA-256 of each body, and the socket.',
    ],
  )
}
