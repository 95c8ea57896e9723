// What do several ranged reads at once bring, and what do they cost in memory? One object, read whole, by 1, 2, 4 and 8
// connections: straight from the server, and over a line where each request takes 50 ms and each connection brings at
// most 40 MiB/s. MILLRACE_BENCH_BYTES sets the size of the object (512 MiB), MILLRACE_BENCH_RUNS the runs of each.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { openStorage } from '../adapters/open.ts'
import { formatBytes } from '../lib/cli/format.ts'
import { build, measure, median, publish, ROOT, startS3 } from './support.ts'
import { seededBytes } from './world.ts'

const RUNS = Number(process.env.MILLRACE_BENCH_RUNS ?? 3)
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 512 * 2 ** 20)
const BLOCK_BYTES = 4 * 2 ** 20
/** As a whole restore shares it among its connections. */
const RING_BYTES = 16 * 2 ** 20
const CONNECTIONS = [1, 2, 4, 8]
const LATENCY_MS = 50
const LINE_BYTES_PER_SECOND = 40 * 2 ** 20
const BUCKET = 'millrace-bench'
const KEY = 'parallel-read/object.bin'

const PROGRAM = `
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { openStorage, readParallel } from '${ROOT}/dist/adapters/index.js'
const [url, key, connections, rangeBytes] = process.argv.slice(1)
const storage = await openStorage(url)
let bytes = 0
const begun = performance.now()
await pipeline(readParallel(storage, key, { connections: Number(connections), rangeBytes: Number(rangeBytes) }),
  new Writable({ write(chunk, encoding, done) { bytes += chunk.length; done() } }))
console.log(JSON.stringify({ bytes, seconds: (performance.now() - begun) / 1000 }))
await storage.close()
`

interface Run {
  seconds: number
  peakBytes: number
}

build()
const server = startS3()
try {
  await bench(process.env.MILLRACE_S3_ENDPOINT as string)
} finally {
  server.stop()
}

async function bench(endpoint: string): Promise<void> {
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
  await client.send(new CreateBucketCommand({ Bucket: BUCKET })).catch((error) => {
    if (error.name !== 'BucketAlreadyOwnedByYou') throw error
  })
  client.destroy()
  const urlAt = (origin: string) => `s3://${BUCKET}?endpoint=${encodeURIComponent(origin)}&region=us-east-1`
  const storage = await openStorage(urlAt(endpoint))
  const random = seededBytes('parallel-read')
  const blocks = function* () {
    for (let at = 0; at < BYTES; at += BLOCK_BYTES) yield random(Math.min(BLOCK_BYTES, BYTES - at))
  }
  await pipeline(Readable.from(blocks()), storage.createWriteStream(KEY, { size: BYTES }))
  const line = await openLine(new URL(endpoint).port)
  try {
    const places = { 'straight from the server': endpoint, 'over the slow line': line.endpoint }
    const runs: Record<string, Run[]> = {}
    // Round by round, so that what else the machine does befalls all alike.
    for (let round = 0; round < RUNS; round += 1) {
      for (const [place, origin] of Object.entries(places)) {
        for (const connections of CONNECTIONS) {
          const name = `${place}, ${connections} ${connections === 1 ? 'connection' : 'connections'}`
          runs[name] = [...(runs[name] ?? []), await readOnce(urlAt(origin), connections)]
        }
      }
    }
    report(runs)
  } finally {
    line.close()
    await storage.delete(KEY)
    await storage.close()
  }
}

async function readOnce(url: string, connections: number): Promise<Run> {
  const args = ['--input-type=module', '-e', PROGRAM, url, KEY, String(connections), String(RING_BYTES / connections)]
  const { stdout, peakBytes } = await measure(process.execPath, args)
  const { bytes, seconds } = JSON.parse(stdout)
  if (bytes !== BYTES) throw new Error(`${bytes} bytes were read, and ${BYTES} are there`)
  return { seconds, peakBytes }
}

/** Starts a slow line to a port. */
async function openLine(port: string): Promise<{ endpoint: string; close: () => void }> {
  const args = [join(import.meta.dirname, 'slow-line.ts'), port, String(LATENCY_MS), String(LINE_BYTES_PER_SECOND)]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const [said] = await once(child.stdout, 'data')
  return { endpoint: `http://127.0.0.1:${String(said).trim()}`, close: () => child.kill() }
}

function report(runs: Record<string, Run[]>): void {
  const rate = ({ seconds }: Run) => BYTES / seconds / 2 ** 20
  const rows = Object.entries(runs).map(([name, all]) => [
    name,
    `${median(all.map(rate)).toFixed(0)} MiB/s`,
    all.map((run) => rate(run).toFixed(0)).join(', '),
    formatBytes(median(all.map(({ peakBytes }) => peakBytes))),
  ])
  publish(
    'parallel-read',
    `An object of ${formatBytes(BYTES)} on S3 read whole by several ranged requests at once, in a ring of ${formatBytes(RING_BYTES)}; medians of ${RUNS}.`,
    ['how', 'median', 'runs', 'peak RSS'],
    rows,
    { bytes: BYTES, latencyMs: LATENCY_MS, lineBytesPerSecond: LINE_BYTES_PER_SECOND, runs },
    [
      `The slow line is a proxy on the same machine: each request comes ${LATENCY_MS} ms late, and a connection brings at most ${formatBytes(LINE_BYTES_PER_SECOND)} a second.`,
      'S3 is Ceph radosgw on the same machine, over http, its store in memory: straight from it, the machine is the limit.',
      'One connection is one plain stream and no ring. Nothing is decrypted or written: a restore has other limits as well.',
    ],
  )
}
