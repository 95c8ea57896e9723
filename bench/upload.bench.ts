// What does an upload to S3 cost: CPU a GiB and memory, of our uploader and of lib-storage's Upload?
import { join } from 'node:path'
import { CreateBucketCommand, DeleteObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { formatBytes } from '../lib/cli/format.ts'
import { measure, median, publish, startS3 } from './support.ts'

const GiB = 2 ** 30
const RUNS = 3
const BUCKET = 'millrace-bench-upload'
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * GiB)
const VARIANTS = [
  'millrace',
  'lib-storage alone',
  'lib-storage, wrapped',
  'millrace, md5',
  'millrace, bare',
  'lib-storage alone, bare',
  'lib-storage, wrapped, bare',
]
const SERVER_FREES_MS = 6000

interface Run {
  cpuSecondsPerGiB: number
  mibPerSecond: number
  peakBytes: number
}

const server = startS3()
try {
  await bench()
} finally {
  server.stop()
}

async function bench(): Promise<void> {
  const endpoint = process.env.MILLRACE_S3_ENDPOINT as string
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
  await client.send(new CreateBucketCommand({ Bucket: BUCKET })).catch((error) => {
    if (error.name !== 'BucketAlreadyOwnedByYou') throw error
  })
  const upload = async (variant: string, bytes: number, writes = 'large'): Promise<Run> => {
    const args = [join(import.meta.dirname, 'upload-child.ts'), variant, String(bytes), writes, 'object']
    const { peakBytes, stdout } = await measure(process.execPath, args, { MILLRACE_BENCH_BUCKET: BUCKET })
    const { cpuSeconds, seconds } = JSON.parse(stdout) as { cpuSeconds: number; seconds: number }
    if (bytes > 0) {
      await client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: 'object' }))
      await new Promise((resolve) => setTimeout(resolve, SERVER_FREES_MS))
    }
    return { cpuSecondsPerGiB: cpuSeconds / (bytes / GiB), mibPerSecond: bytes / 2 ** 20 / seconds, peakBytes }
  }

  const idle: number[] = []
  /** What small writes cost where they go nowhere: the collector's, and the source's own. */
  const discarded: number[] = []
  const runs: Record<string, Run[]> = Object.fromEntries(VARIANTS.map((variant) => [variant, []]))
  const WRITES = {
    large: 'writes of 1 MiB',
    small: 'writes of 1 to 1,024 bytes',
    fresh: 'writes of 1 to 1,024 bytes, each a new Buffer',
  }
  const large: Record<string, number[]> = Object.fromEntries(Object.values(WRITES).map((title) => [title, []]))
  for (let run = 0; run < RUNS; run++) {
    idle.push((await upload('millrace', 0)).peakBytes)
    discarded.push((await upload('discard', 2 * BYTES, 'fresh')).peakBytes)
    for (const variant of VARIANTS) runs[variant]?.push(await upload(variant, BYTES))
    for (const [writes, title] of Object.entries(WRITES)) {
      large[title]?.push((await upload('millrace', 2 * BYTES, writes)).peakBytes)
    }
  }
  client.destroy()

  const base = median(idle)
  const ofDefault = median((runs['lib-storage alone'] ?? []).map((run) => run.cpuSecondsPerGiB))
  const rows = Object.entries(runs).map(([variant, all]) => {
    const cpu = median(all.map((run) => run.cpuSecondsPerGiB))
    const spread = all.map((run) => run.cpuSecondsPerGiB.toFixed(2)).join(' ')
    const peak = median(all.map((run) => run.peakBytes))
    return [
      `${variant}, ${formatBytes(BYTES)}`,
      `${cpu.toFixed(2)} (${spread})`,
      (cpu / ofDefault).toFixed(2),
      median(all.map((run) => run.mibPerSecond)).toFixed(0),
      formatBytes(peak),
      formatBytes(peak - base),
    ]
  })
  for (const [writes, peaks] of Object.entries(large)) {
    const peak = median(peaks)
    rows.push([
      `millrace, ${formatBytes(2 * BYTES)}, ${writes}`,
      '',
      '',
      '',
      formatBytes(peak),
      formatBytes(peak - base),
    ])
  }
  const nowhere = median(discarded)
  const title = `the same ${formatBytes(2 * BYTES)} in writes of 1 to 1,024 bytes, each a new Buffer, thrown away`
  rows.push([title, '', '', '', formatBytes(nowhere), formatBytes(nowhere - base)])
  rows.push(['idle: the store opened, one listing', '', '', '', formatBytes(base), formatBytes(0)])
  publish(
    'upload',
    'What an upload costs: CPU of the process a GiB, MiB a second, and peak RSS, medians of three, in turn.',
    ['uploader', 'CPU s/GiB', "of lib-storage's default", 'MiB/s', 'peak RSS', 'above idle'],
    rows,
    { idle, discarded, runs, large },
    [
      'Ceph radosgw on the same machine, over http, in memory; the source is one block again and again.',
      'millrace: 8 MiB parts, 4 in flight, SHA-256 of each body in its signature. lib-storage alone: as it comes, 5 MiB parts, 4 in flight, CRC32 and SHA-256.',
      'bare: no digest and no hash of the body (8 MiB parts for both): for comparison; over http nothing would guard the bytes.',
      "Small writes: slices made beforehand show what the uploader itself needs. Where each of 8 million writes is a new Buffer, the caller makes some 900 MiB of garbage, and V8's young generation grows, on Node 24 to two halves of 32 MiB; `--max-semi-space-size=8` keeps it small.",
      'wrapped: `uploader: "lib-storage"`, which keeps the contract and copies each chunk once, as its caller may use it again.',
    ],
  )
}
