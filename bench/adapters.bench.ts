// What does an upload cost through each provider's adapter, and is its memory flat from 1 to 10 GiB?
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { CreateBucketCommand, DeleteObjectCommand, S3Client } from '@aws-sdk/client-s3'
import type { StorageConfig } from '../adapters/open.ts'
import { formatBytes } from '../lib/cli/format.ts'
import { measure, median, publish, startS3 } from './support.ts'

const GiB = 2 ** 30
const RUNS = 3
const SIZES = [1, 10].map((count) => count * Number(process.env.MILLRACE_BENCH_BYTES ?? GiB))
const S3_SIZES = [1, 4].map((count) => count * Number(process.env.MILLRACE_BENCH_BYTES ?? GiB))
const BUCKET = 'millrace-bench-adapters'
const SERVER_FREES_MS = 6000

interface Fake {
  config: StorageConfig
  child: ChildProcess
}

/** Starts a fake provider that checks and hashes what it gets, and keeps nothing, in a process of its own. */
async function startFake(name: string, configOf: (said: Record<string, string>) => StorageConfig): Promise<Fake> {
  const script = join(import.meta.dirname, `../test/fakes/${name}.main.ts`)
  const child = spawn(process.execPath, [script, '--discard'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout!.setEncoding('utf8'), 'data')) as [string]
  const said = Object.fromEntries([...line.matchAll(/(\w+)=(\S+)/g)].map((match) => [match[1], match[2]]))
  return { config: configOf(said), child }
}

const FAKES: Record<string, () => Promise<Fake>> = {
  'google-drive': () =>
    startFake('drive', ({ ORIGIN, CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN }) => ({
      provider: 'google-drive',
      clientId: CLIENT_ID!,
      clientSecret: CLIENT_SECRET!,
      refreshToken: REFRESH_TOKEN!,
      endpoints: { api: ORIGIN!, token: ORIGIN! },
    })),
  dropbox: () =>
    startFake('dropbox', ({ ORIGIN, CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN }) => ({
      provider: 'dropbox',
      clientId: CLIENT_ID!,
      clientSecret: CLIENT_SECRET!,
      refreshToken: REFRESH_TOKEN!,
      endpoint: ORIGIN!,
    })),
  'backblaze-b2': () =>
    startFake('b2', ({ ORIGIN, BUCKET: bucket, KEY_ID, APPLICATION_KEY }) => ({
      provider: 'backblaze-b2',
      bucket: bucket!,
      keyId: KEY_ID!,
      applicationKey: APPLICATION_KEY!,
      endpoint: ORIGIN!,
    })),
}

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
  const runs: Record<string, Run[]> = {}
  const upload = async (name: string, config: StorageConfig, bytes: number) => {
    const args = [join(import.meta.dirname, 'upload-child.ts'), 'store', String(bytes), 'large', 'object']
    const env = { MILLRACE_BENCH_STORE: JSON.stringify(config) }
    const { peakBytes, stdout } = await measure(process.execPath, args, env)
    const { cpuSeconds, seconds } = JSON.parse(stdout) as { cpuSeconds: number; seconds: number }
    const run = { cpuSecondsPerGiB: cpuSeconds / (bytes / GiB), mibPerSecond: bytes / 2 ** 20 / seconds, peakBytes }
    const title = `${name}, ${formatBytes(bytes)}`
    runs[title] = [...(runs[title] ?? []), run]
  }
  for (let run = 0; run < RUNS; run++) {
    for (const [name, start] of Object.entries(FAKES)) {
      for (const bytes of SIZES) {
        const { config, child } = await start()
        try {
          await upload(name, config, bytes)
        } finally {
          child.kill()
          await once(child, 'close')
        }
      }
    }
    const s3: StorageConfig = { provider: 's3', bucket: BUCKET, endpoint, region: 'us-east-1', profile: 'ceph' }
    for (const bytes of S3_SIZES) {
      await upload('s3', s3, bytes)
      await client.send(new DeleteObjectCommand({ Bucket: BUCKET, Key: 'object' }))
      await new Promise((resolve) => setTimeout(resolve, SERVER_FREES_MS))
    }
  }
  client.destroy()
  const rows = Object.entries(runs).map(([title, all]) => [
    title,
    median(all.map((run) => run.cpuSecondsPerGiB)).toFixed(2),
    median(all.map((run) => run.mibPerSecond)).toFixed(0),
    formatBytes(median(all.map((run) => run.peakBytes))),
    all.map((run) => formatBytes(run.peakBytes)).join(', '),
  ])
  publish(
    'adapters',
    'What an upload costs through each adapter: CPU of the process a GiB, MiB a second, peak RSS, medians of three.',
    ['adapter', 'CPU s/GiB', 'MiB/s', 'peak RSS', 'each'],
    rows,
    runs,
    [
      'Drive, Dropbox and B2 are the fakes of the tests on the same machine, over http, in a process of their own that checks and hashes each body and keeps none; the rates are theirs as much as ours.',
      'S3 is Ceph radosgw on the same machine, over http. It keeps everything in memory, so it gets 4 GiB at most.',
      'Each adapter computes the digests that its provider compares: SHA-1 (B2), SHA-256 of 4 MiB blocks (Dropbox), of the whole (Drive), of each part in its signature (S3).',
    ],
  )
}
