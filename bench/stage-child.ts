// One stage of a backup or of a restore in a process of its own, run by Child of child.ts: `DIST STAGE FOLDER [OPTIONS]`. What the
// stages before it make of the folder is made first and kept in memory, chunk by chunk as it comes; only the stage itself
// is measured.
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { StorageConfig } from '../adapters/open.ts'

/** What a sweep changes; the product's own defaults where it is left out. */
export interface StageOptions {
  level?: number
  threads?: number
  zstdFrameBytes?: number
  /** Of the container. */
  frameBytes?: number
  /** The archive is made first, and enters the chain in chunks of this size. */
  chunkBytes?: number
  /** Where the chain writes; nowhere when left out. */
  store?: StorageConfig
  /** The key of the object that is written. */
  key?: string
  /** A folder in memory: that for what is written is touched there first. */
  touch?: string
  /** Where an archive is extracted. */
  target?: string
}

const [dist = '', stage = '', folder = '', optionsText = '{}'] = process.argv.slice(2)
const options = JSON.parse(optionsText) as StageOptions
const load = <T>(path: string): Promise<T> => import(join(dist, path))
const {
  createDecrypt,
  createEncrypt,
  createHashTee,
  createMeter,
  createZstdCompress,
  createZstdDecompress,
  IndexBuilder,
  PBKDF2_ITERATIONS,
} = await load<typeof import('../transforms/index.ts')>('transforms/index.js')
const { deriveRoot } = await load<typeof import('../transforms/keys.ts')>('transforms/keys.js')
const { packFolder } = await load<typeof import('../lib/archive/pack.ts')>('lib/archive/pack.js')
const { extractTar } = await load<typeof import('../lib/archive/extract.ts')>('lib/archive/extract.js')
const { freeChunk, run } = await load<typeof import('../lib/pipe.ts')>('lib/pipe.js')
const { openStorage } = await load<typeof import('../adapters/open.ts')>('adapters/open.js')

interface Counts {
  bytesIn: number
  bytesOut: number
}

const { level, threads, zstdFrameBytes } = options
const compress = () => createZstdCompress({ level, threads, frameBytes: zstdFrameBytes })
// With a raw key: what a password costs is a stage of its own.
const key = randomBytes(32)
const encrypt = (onConsumed?: (chunk: Buffer) => void) =>
  createEncrypt({ key, frameBytes: options.frameBytes, onConsumed })

/** Throws away what comes. Each stage's own output is freed, as the next one would do it. */
function nowhere(counts: Counts, free = true): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, callback) {
      counts.bytesOut += chunk.length
      if (free) freeChunk(chunk)
      callback()
    },
  })
}

function fromChunks(chunks: readonly Buffer[]): Readable {
  let next = 0
  return new Readable({
    // More than one chunk at hand, and an async iterator would get them as one, copied.
    highWaterMark: 0,
    read() {
      this.push(chunks[next] ?? null)
      next += 1
    },
  })
}

/** All that comes out of the archive after these stages. */
async function collect(...transforms: Duplex[]): Promise<Buffer[]> {
  const chunks: Buffer[] = []
  const { stream } = await packFolder(folder)
  const keep = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      chunks.push(chunk)
      callback()
    },
  })
  await pipeline([stream, ...transforms, keep])
  return chunks
}

function sizeOf(chunks: readonly Buffer[]): number {
  return chunks.reduce((sum, { length }) => sum + length, 0)
}

function* recut(chunks: readonly Buffer[], bytes: number): Generator<Buffer> {
  let chunk = Buffer.allocUnsafeSlow(bytes)
  let held = 0
  for (const from of chunks) {
    for (let at = 0; at < from.length; ) {
      const copied = from.copy(chunk, held, at)
      at += copied
      held += copied
      if (held < bytes) continue
      yield chunk
      chunk = Buffer.allocUnsafeSlow(bytes)
      held = 0
    }
  }
  if (held > 0) yield chunk.subarray(0, held)
}

const TOUCH_BYTES = 16 * 1024 * 1024

/** As touchMemory of support.ts, at the last moment: what the chunks are made in has used up what was touched before. */
function touch(bytes: number): void {
  if (!options.touch) return
  const file = join(options.touch, 'touched')
  const zeros = Buffer.alloc(TOUCH_BYTES)
  const fd = openSync(file, 'w')
  for (let left = bytes; left > 0; left -= TOUCH_BYTES) writeSync(fd, zeros)
  closeSync(fd)
  rmSync(file)
}

async function alone(chunks: readonly Buffer[], transform: Duplex, free = true): Promise<() => Promise<Counts>> {
  const counts: Counts = { bytesIn: sizeOf(chunks), bytesOut: 0 }
  return async () => {
    await run(fromChunks(chunks), [transform], nowhere(counts, free))
    return counts
  }
}

/** As lib/create.ts composes it. */
async function chain(): Promise<() => Promise<Counts>> {
  const counts: Counts = { bytesIn: 0, bytesOut: 0 }
  const { chunkBytes, store } = options
  const cut = chunkBytes === undefined ? undefined : [...recut(await collect(), chunkBytes)]
  const storage = store && (await openStorage(store))
  const index = new IndexBuilder()
  return async () => {
    const pack = cut ? undefined : await packFolder(folder, { onEntry: (entry) => index.add(entry) })
    const compressed = createZstdCompress({
      level,
      threads,
      frameBytes: zstdFrameBytes,
      onConsumed: freeChunk,
      index({ bytes }) {
        counts.bytesIn = bytes
        const files = pack?.result().files ?? 0
        const about = { server: 'bench', id: 'bench', created: Date.now(), tool: 'bench', consistency: 'still' }
        return index.finish({ v: 1, kind: 'tar', ...about, bytes, files })
      },
    })
    const tee = createHashTee()
    const sink = storage
      ? storage.createWriteStream(options.key ?? 'object', { onConsumed: freeChunk })
      : nowhere({ bytesIn: 0, bytesOut: 0 })
    const meter = createMeter({ onProgress: () => {} })
    await run(pack?.stream ?? fromChunks(cut as Buffer[]), [meter, compressed, encrypt(freeChunk), tee], sink)
    await storage?.close()
    counts.bytesOut = tee.bytes
    return counts
  }
}

/** Each prepares what it needs, and gives the work that is measured. */
const STAGES: Record<string, () => Promise<() => Promise<Counts>>> = {
  idle: async () => async () => ({ bytesIn: 0, bytesOut: 0 }),
  pbkdf2: async () => async () => {
    await deriveRoot('a bench', randomBytes(16), PBKDF2_ITERATIONS)
    return { bytesIn: 0, bytesOut: 0 }
  },
  read: async () => async () => {
    const counts: Counts = { bytesIn: 0, bytesOut: 0 }
    const { stream } = await packFolder(folder)
    await pipeline(stream, nowhere(counts))
    return { ...counts, bytesIn: counts.bytesOut }
  },
  zstd: async () => alone(await collect(), compress()),
  aes: async () => alone(await collect(compress()), encrypt()),
  sha256: async () => alone(await collect(compress(), encrypt()), createHashTee(), false),
  write: async () => {
    const chunks = await collect(compress(), encrypt())
    const storage = await openStorage(options.store as StorageConfig)
    touch(sizeOf(chunks))
    return async () => {
      await pipeline(fromChunks(chunks), storage.createWriteStream(options.key ?? 'object'))
      await storage.close()
      return { bytesIn: sizeOf(chunks), bytesOut: sizeOf(chunks) }
    }
  },
  get: async () => {
    const storage = await openStorage(options.store as StorageConfig)
    const name = options.key ?? 'object'
    await pipeline(fromChunks(await collect(compress(), encrypt())), storage.createWriteStream(name))
    const counts: Counts = { bytesIn: 0, bytesOut: 0 }
    return async () => {
      await pipeline(storage.createReadStream(name), nowhere(counts))
      await storage.close()
      return { ...counts, bytesIn: counts.bytesOut }
    }
  },
  open: async () => alone(await collect(compress(), encrypt()), createDecrypt({ key })),
  unzstd: async () => alone(await collect(compress()), createZstdDecompress({ threads })),
  extract: async () => {
    const chunks = await collect(compress(), createZstdDecompress())
    touch(sizeOf(chunks))
    return async () => {
      // On the disk at the end, as a restore is before it takes its place.
      const checkpoints = { everyBytes: Number.POSITIVE_INFINITY, onMark: async () => {} }
      const { archiveBytes } = await extractTar(fromChunks(chunks), options.target as string, { checkpoints })
      return { bytesIn: archiveBytes, bytesOut: archiveBytes }
    }
  },
  chain,
}

const prepare = STAGES[stage]
if (!prepare) throw new Error(`No stage is called ${stage}. There are: ${Object.keys(STAGES).join(', ')}.`)
const work = await prepare()
const before = process.cpuUsage()
const begun = performance.now()
const counts = await work()
const seconds = (performance.now() - begun) / 1000
const { user, system } = process.cpuUsage(before)
const { node, zstd } = process.versions
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, ...counts, node, zstd }))
