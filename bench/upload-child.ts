// One upload in a process of its own, for upload.bench.ts and adapters.bench.ts: `upload-child.ts VARIANT BYTES WRITES KEY`.
import { createCipheriv } from 'node:crypto'
import { once } from 'node:events'
import { Readable, Writable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { openStorage } from '../adapters/open.ts'
import { openS3, type S3Config } from '../adapters/s3.ts'
import type { Storage } from '../adapters/storage.ts'

const MiB = 2 ** 20
/** About 320 MiB a second. */
const PAUSE_BYTES = 8 * MiB
const PAUSE_MS = 25
const [variant = '', bytesText = '', writes = '', key = ''] = process.argv.slice(2)
const bytes = Number(bytesText)
const endpoint = process.env.MILLRACE_S3_ENDPOINT as string
const bucket = process.env.MILLRACE_BENCH_BUCKET as string
const region = 'us-east-1'
/** Neither a digest nor a hash of the body: what is left is the sending. */
const BARE: Partial<S3Config> = { integrity: 'crc32', signBodies: false }

const block = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16)).update(Buffer.alloc(MiB))

/**
 * Slices of one block, of a MiB or of 1 to 1,024 bytes, the same Buffers again and again: what is collected is the
 * uploader's own. With `fresh` each small one is a new Buffer, and it is the source that fills the young generation.
 */
function* source(): Generator<Buffer> {
  const kept = Array.from({ length: 1024 }, (_, index) => block.subarray(0, index + 1))
  let state = 1
  for (let left = bytes; left > 0; ) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    const wanted = Math.min(left, writes === 'large' ? MiB : 1 + ((state >> 8) % 1024))
    const slice = (writes === 'small' && kept[wanted - 1]) || block.subarray(0, wanted)
    left -= slice.length
    yield slice
  }
}

async function upload(config: Partial<S3Config>): Promise<void> {
  await uploadTo(await openS3({ bucket, endpoint, region, ...config }))
}

async function uploadTo(storage: Storage): Promise<void> {
  if (bytes === 0) for await (const _ of storage.list('')) break
  else if (writes !== 'large') await writeAll(storage.createWriteStream(key))
  else await pipeline(Readable.from(source(), { objectMode: false }), storage.createWriteStream(key))
  await storage.close()
}

/** Without a Readable before it, whose own cost for chunks of a few bytes is far above that of the sink. */
async function writeAll(sink: Writable): Promise<void> {
  const done = finished(sink)
  done.catch(() => {})
  for (const chunk of source()) {
    if (!sink.write(chunk)) await Promise.race([once(sink, 'drain'), done])
  }
  sink.end()
  await done
}

async function uploadRaw(isBare: boolean): Promise<void> {
  const { S3Client } = await import('@aws-sdk/client-s3')
  const { Upload } = await import('@aws-sdk/lib-storage')
  const client = new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    ...(isBare ? { requestChecksumCalculation: 'WHEN_REQUIRED' as const } : {}),
  })
  if (isBare) {
    client.middlewareStack.add(
      (next) => (args) => {
        const { request } = args as { request: { headers: Record<string, string> } }
        request.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD'
        return next(args)
      },
      { step: 'build' },
    )
  }
  const body = Readable.from(source(), { objectMode: false })
  const params = { Bucket: bucket, Key: key, Body: body }
  await new Upload({ client, params, ...(isBare ? { partSize: 8 * MiB, queueSize: 4 } : {}) }).done()
  client.destroy()
}

/** The source alone, with the SDK loaded: what small writes cost before anything is uploaded. */
async function discard(): Promise<void> {
  const storage = await openS3({ bucket, endpoint, region })
  for await (const _ of storage.list('')) break
  // At the pace of an upload: what the collector holds on to hangs on how long things live.
  let left = PAUSE_BYTES
  const take = (bytes: number, callback: () => void) => {
    left -= bytes
    if (left > 0) callback()
    else {
      left = PAUSE_BYTES
      setTimeout(callback, PAUSE_MS)
    }
  }
  await writeAll(
    new Writable({
      highWaterMark: 256 * 1024,
      write: (chunk: Buffer, _encoding, callback) => take(chunk.length, callback),
      writev: (chunks, callback) => {
        take(
          chunks.reduce((sum, { chunk }) => sum + (chunk as Buffer).length, 0),
          callback,
        )
      },
    }),
  )
  await storage.close()
}

const VARIANTS: Record<string, () => Promise<void>> = {
  discard,
  // As MILLRACE_BENCH_STORE says, for adapters.bench.ts.
  store: async () => uploadTo(await openStorage(JSON.parse(process.env.MILLRACE_BENCH_STORE as string))),
  millrace: () => upload({}),
  'millrace, bare': () => upload(BARE),
  'millrace, md5': () => upload({ integrity: 'md5' }),
  'lib-storage, wrapped': () => upload({ uploader: 'lib-storage' }),
  'lib-storage, wrapped, bare': () => upload({ uploader: 'lib-storage', ...BARE }),
  'lib-storage alone': () => uploadRaw(false),
  'lib-storage alone, bare': () => uploadRaw(true),
}
const run = VARIANTS[variant]
if (!run) throw new Error(`No variant is called ${variant}.`)
const begun = performance.now()
await run()
const { user, system } = process.cpuUsage()
console.log(JSON.stringify({ cpuSeconds: (user + system) / 1e6, seconds: (performance.now() - begun) / 1000 }))
