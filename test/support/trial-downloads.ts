import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import type { Random } from './random.ts'
import type { TrialContext, TrialResult } from './storage-trials.ts'

/** An object that was stored past the proxy, to be read through it. */
export interface ReadableObject {
  key: string
  data: Buffer
  version: string | undefined
}

type Way = 'whole' | 'range' | 'from' | 'readRange' | 'pinned' | 'stale' | 'replaced' | 'destroyed' | 'list'

export interface DownloadPlan {
  name: string
  way: Way
  object: ReadableObject
  /** Of the first byte. */
  start: number
  /** Inclusive; it may lie past the object's end. */
  end: number
  /** For an object of the plan's own. */
  key: string
  other: Buffer
  afterMs: number
}

/** Stores the objects that downloads are tried on, of sizes around those that matter. */
export async function storeObjects(
  direct: Storage,
  prefix: string,
  bytes: Buffer,
  partBytes: number,
): Promise<ReadableObject[]> {
  const sizes = [0, 1, 777, 50_000, 64 * 1024, 300_000, 300_001, partBytes - 1, partBytes + 1, 2 * partBytes + 5]
  const objects: ReadableObject[] = []
  for (const [index, size] of sizes.entries()) {
    const key = `${prefix}${index}`
    const data = bytes.subarray(index, index + size)
    await store(direct, key, data)
    objects.push({ key, data, version: (await direct.stat(key)).version })
  }
  return objects
}

export function planDownload(
  random: Random,
  given: { key: string; objects: readonly ReadableObject[]; bytes: Buffer },
): DownloadPlan {
  const { key, objects, bytes } = given
  const way: Way = random.weighted({
    whole: 6,
    range: 5,
    from: 2,
    readRange: 4,
    pinned: 2,
    stale: 1,
    replaced: 1,
    destroyed: 1,
    list: 1,
  })
  const object = random.pick(objects)
  const size = object.data.length
  const start = random.int(size + 1)
  const end = start + random.int(random.chance(0.5) ? size - start + 1 : 2000)
  const from = random.int(1000)
  const other = bytes.subarray(from, from + 400_000)
  const afterMs = random.pick([0, 2, 5, 20])
  const name = `${key} (${way} of ${size} bytes, from ${start} to ${end})`
  return { name, way, object, start, end, key, other, afterMs }
}

/** Runs one download through the proxy: it gives the right bytes, or a proper error. */
export async function tryDownload(
  context: TrialContext,
  plan: DownloadPlan,
  objects: readonly ReadableObject[],
): Promise<TrialResult> {
  try {
    return { outcome: await download(context, plan, objects) }
  } catch (error) {
    if (!(error instanceof StorageError)) throw error
    const { code, message, cause } = error
    const isPlanned = code === 'CONFLICT' && (plan.way === 'stale' || plan.way === 'replaced')
    const mayPass = code === 'UNAVAILABLE' || code === 'RATE_LIMITED' || code === 'CORRUPT'
    assert.ok(isPlanned || mayPass, `it failed with ${code}, which nothing there calls for: ${message} ${cause}`)
    return { outcome: `failed ${code}` }
  }
}

async function download(
  { storage, direct }: TrialContext,
  plan: DownloadPlan,
  objects: readonly ReadableObject[],
): Promise<string> {
  const { way, object, start, end, key, other, afterMs } = plan
  const { data, version } = object
  const read = (options: object) => buffer(storage.createReadStream(object.key, options))
  switch (way) {
    case 'whole':
      assertSame(await read({}), data)
      return 'read'
    case 'range':
      assertSame(await read({ start, end }), data.subarray(start, end + 1))
      return 'read'
    case 'from':
      assertSame(await read({ start }), data.subarray(start))
      return 'read'
    case 'pinned':
      assertSame(await read({ start, ...(version === undefined ? {} : { version }) }), data.subarray(start))
      return 'read'
    case 'readRange': {
      const length = Math.min(end, data.length) - start
      assertSame(await storage.readRange(object.key, start, length), data.subarray(start, start + length))
      return 'read'
    }
    case 'stale': {
      await store(direct, key, data)
      const { version: old } = await direct.stat(key)
      await store(direct, key, other)
      const { version: current } = await direct.stat(key)
      if (old === undefined || old === current) return 'unversioned'
      const bytes = await buffer(storage.createReadStream(key, { version: old }))
      // A store that keeps old versions may give it: nothing else.
      assertSame(bytes, data)
      return 'read'
    }
    case 'replaced': {
      await store(direct, key, data)
      const reading = buffer(storage.createReadStream(key))
      reading.catch(() => {})
      await delay(afterMs)
      await store(direct, key, other)
      const bytes = await reading
      assert.ok(bytes.equals(data) || bytes.equals(other), 'bytes of neither version, or of both, were read')
      return 'read'
    }
    case 'destroyed': {
      const stream = storage.createReadStream(object.key)
      const closed = new Promise((resolve) => stream.once('close', resolve))
      stream.on('error', () => {}).resume()
      await delay(afterMs)
      stream.destroy()
      await closed
      return 'destroyed'
    }
    case 'list': {
      const prefix = object.key.slice(0, object.key.lastIndexOf('/') + 1)
      const found: Record<string, number> = {}
      for await (const { key: listed, size } of storage.list(prefix)) found[listed] = size
      const stored = Object.fromEntries(objects.map((item) => [item.key, item.data.length]))
      assert.deepEqual(found, stored, 'a listing is not what is there')
      return 'listed'
    }
  }
}

function assertSame(bytes: Buffer, expected: Buffer): void {
  assert.equal(bytes.length, expected.length, 'the read ended, without an error, with another number of bytes')
  assert.ok(bytes.equals(expected), 'other bytes were read')
}

async function store(storage: Storage, key: string, data: Buffer): Promise<void> {
  await pipeline(Readable.from([data]), storage.createWriteStream(key))
}
