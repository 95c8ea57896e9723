import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { openS3 } from '../../adapters/s3.ts'
import { type Fault, type FaultProxy, openFaultProxy } from './fault-proxy.ts'
import { type KillPlace, makeWorlds } from './kill-place.ts'
import { type Moment, type ServiceDone, type ServiceTask, startService } from './kill-schedule.ts'
import type { TestBucket } from './test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
/** What was sent before a cut takes as long to come to the server. */
const ON_ITS_WAY_MS = 50
const POLL_MS = 5

type Asked = Parameters<Parameters<FaultProxy['follow']>[0] & object>[0]

/**
 * A store in a bucket. Processes are killed at one of their requests, by a proxy that stands before the server and
 * knows what has come to it; a restore also at one of its calls of the file system.
 */
export async function openKillBucket(bucket: TestBucket, folder: string): Promise<KillPlace> {
  const { region, accessKeyId, secretAccessKey } = bucket
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey })
  const config = { region, bucket: bucket.bucket, profile: 'ceph', partBytes: PART_BYTES } as const
  return {
    name: 's3 on Ceph',
    storage: await openS3({ ...config, endpoint: bucket.endpoint }),
    folder,
    // Two parts.
    worlds: await makeWorlds(folder, 8, 3_000_000),
    create: { zstdFrameBytes: 1024 * 1024 },
    async run({ place, ...task }) {
      const proxy = await openFaultProxy(bucket.endpoint, { hashBodies: false })
      try {
        const over = { provider: 's3', ...config, endpoint: proxy.endpoint } as const
        return await runThrough(proxy, { ...task, config: over, folders: { store: undefined, place } }, folder)
      } finally {
        await proxy.idle()
        await proxy.close()
      }
    },
    async pending(server) {
      return (await bucket.pendingUploads()).filter(({ key }) => key.startsWith(`${server}/`)).length
    },
  }
}

async function runThrough(proxy: FaultProxy, task: ServiceTask, folder: string): Promise<ServiceDone | null> {
  const { moment } = task
  const requests: Record<string, number> = {}
  let reached: (() => void) | undefined
  const arrival = new Promise<void>((resolve) => {
    reached = resolve
  })
  proxy.follow((asked) => {
    const name = nameOf(asked)
    const nth = requests[name] ?? 0
    requests[name] = nth + 1
    if (moment?.at !== name || moment.nth !== nth) return undefined
    reached?.()
    return faultOf(moment, asked)
  })
  const service = startService(task, join(folder, 'compiled'))
  let isOver = false
  const kill = async () => {
    await arrival
    if (moment?.when === 'after') while (!isOver && !isAnswered(proxy)) await delay(POLL_MS)
    else if (moment?.when === 'within') await delay(ON_ITS_WAY_MS)
    service.kill()
  }
  void kill()
  try {
    const done = await service.ended
    return done && { calls: { ...done.calls, ...requests } }
  } finally {
    isOver = true
  }
}

/** What keeps a request at the moment at which its process is killed. */
function faultOf({ when, share }: Moment, { method, headers }: Asked): Fault | undefined {
  if (when === 'before') return { kind: 'swallow' }
  if (when === 'after') return { kind: 'stall-reply', afterBytes: 0 }
  const bytes = Number(headers['content-length'] ?? 0)
  if (bytes > 0) return { kind: 'stall-request', afterBytes: Math.floor(bytes * share) }
  return method === 'GET' ? { kind: 'stall-reply', afterBytes: Math.floor(share * 100_000) } : undefined
}

/** Whether the server has answered the request whose answer is held back. */
function isAnswered({ seen }: FaultProxy): boolean {
  return seen.some(({ fault, serverStatus }) => fault === 'stall-reply' && serverStatus !== undefined)
}

/** https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html, in path style. */
function nameOf({ method, url }: Asked): string {
  const { pathname, searchParams: query } = new URL(url, 'http://s3')
  if (query.has('list-type')) return 'list get'
  if (query.has('uploads') && method === 'GET') return 'uploads get'
  const key = decodeURIComponent(pathname)
  const what = key.includes('/.lease/') ? 'lease' : key.endsWith('.sha256') ? 'companion' : 'object'
  if (query.has('uploads')) return `${what} begin`
  if (!query.has('uploadId')) return `${what} ${method.toLowerCase()}`
  return `${what} ${{ PUT: 'part', POST: 'complete', GET: 'parts' }[method] ?? 'abort'}`
}
