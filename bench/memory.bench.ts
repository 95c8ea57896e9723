// How much memory does a backup or restore take, and does it grow with the size? Peak RSS of the command, medians of three.
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { CreateBucketCommand, DeleteObjectCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3'
import { formatBytes } from '../lib/cli/format.ts'
import { BIN, build, measure, median, publish, startS3, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const RUNS = 3
const SIZES = [2 * 2 ** 30, 4 * 2 ** 30]
const BUCKET = 'millrace-bench'
const PASSWORD = { MILLRACE_PASSWORD: 'a bench' }

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
  await client.send(new CreateBucketCommand({ Bucket: BUCKET })).catch((error) => {
    if (error.name !== 'BucketAlreadyOwnedByYou') throw error
  })
  const stores = { folder: `file://${folder}/store`, S3: `s3://${BUCKET}/memory?endpoint=${endpoint}&region=us-east-1` }
  const peaks: Record<string, number[]> = {}
  const note = (name: string, peak: number) => {
    peaks[name] = [...(peaks[name] ?? []), peak]
  }
  for (const size of SIZES) {
    const world = join(folder, 'world')
    rmSync(world, { recursive: true, force: true })
    mkdirSync(world)
    writeWorld(world, { bytes: size })
    for (let run = 0; run < RUNS; run += 1) {
      for (const [store, url] of Object.entries(stores)) {
        const made = await measure(process.execPath, [BIN, 'backup', world, '--to', url, '--server', 'world'], PASSWORD)
        note(`backup to ${store}, ${formatBytes(size)}`, made.peakBytes)
        const target = join(folder, 'out')
        const from = ['--from', url, '--server', 'world', '--target', target]
        const restored = await measure(process.execPath, [BIN, 'restore', 'latest', ...from], PASSWORD)
        note(`restore from ${store}, ${formatBytes(size)}`, restored.peakBytes)
        rmSync(target, { recursive: true })
        rmSync(join(folder, 'store'), { recursive: true, force: true })
        await empty(client)
      }
    }
  }
  client.destroy()
  const rows = Object.entries(peaks).map(([name, values]) => [name, ...[median(values), ...values].map(formatBytes)])
  publish(
    'memory',
    'Peak RSS of the command over the size of the folder, defaults, medians of three.',
    ['what', 'median', 'run 1', 'run 2', 'run 3'],
    rows,
    peaks,
    [
      'Synthetic world (bench/world.ts) and folder store on tmpfs; S3 is Ceph radosgw on the same machine, over http.',
      'Peak RSS counts the runtime itself, about 45 MiB, and its code pages.',
    ],
  )
}

async function empty(client: S3Client): Promise<void> {
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: BUCKET }))
  for (const { Key } of Contents) await client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key }))
  // The server frees what was deleted a few seconds later, and its store is memory too.
  await new Promise((resolve) => setTimeout(resolve, 6000))
}
