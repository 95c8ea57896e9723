// A backup of a generated stream, or the reading back of one, in a process of its own that watches its memory, for
// size.bench.ts: `DIST WHAT BYTES STORE`.
import { createCipheriv } from 'node:crypto'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import type { ObjectStat, Storage, WriteOptions } from '../adapters/storage.ts'

const MiB = 2 ** 20
const SLAB_BYTES = 512 * 1024
/** One zstd frame, each of which is compressed by itself: that it comes again is seen by none. */
const BLOCK_BYTES = 4 * MiB
/** In every frame the same bytes again and again: zstd makes them about 12 times smaller. */
const PATTERN_BYTES = 320 * 1024
const PIECE_BYTES = 8 * 1024
const SAMPLE_MS = 250
const PASSWORD = 'a bench'

const [dist = '', what = '', bytesText = '', url = ''] = process.argv.slice(2)
const bytes = Number(bytesText)
const load = <T>(path: string): Promise<T> => import(join(dist, path))
const { openBackups } = await load<typeof import('../lib/backups.ts')>('lib/backups.js')
const { holdHeap } = await load<typeof import('../lib/heap.ts')>('lib/heap.js')
const { openMemory } = await load<typeof import('../adapters/memory.ts')>('adapters/memory.js')

holdHeap()
let doneBytes = 0

/** Bytes that look random, made a few at a time: what their making takes must not be in the peak. */
function fillRandom(block: Buffer): Buffer {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16))
  const zeros = Buffer.alloc(PIECE_BYTES)
  for (let at = 0; at < block.length; at += PIECE_BYTES) cipher.update(zeros).copy(block, at)
  return block
}

/** Two thirds random, one third zeros in every 6 KiB: as a world's sectors are. */
function worldlike(): Buffer {
  const block = fillRandom(Buffer.allocUnsafeSlow(BLOCK_BYTES))
  for (let at = 4096; at < BLOCK_BYTES; at += 6144) block.fill(0, at, at + 2048)
  return block
}

function compressible(): Buffer {
  return Buffer.allocUnsafeSlow(BLOCK_BYTES).fill(fillRandom(Buffer.allocUnsafeSlow(PATTERN_BYTES)))
}

/** The same memory over and over: nothing of what is measured is the source's, but the block itself. */
function source(block: Buffer): Readable {
  async function* slabs(): AsyncGenerator<Buffer> {
    while (doneBytes < bytes) {
      const at = doneBytes % BLOCK_BYTES
      const slab = block.subarray(at, at + Math.min(SLAB_BYTES, bytes - doneBytes))
      doneBytes += slab.length
      yield slab
    }
  }
  // Asynchronous, as what comes from a disk or a line is: of a stream that gives at once, whoever iterates over it is
  // given two chunks in one, which is a copy.
  return Readable.from(slabs(), { objectMode: false, highWaterMark: SLAB_BYTES })
}

/** A store that keeps small objects, and of a large one its size alone. */
async function nullStore(): Promise<Storage> {
  const small = await openMemory()
  const large = new Map<string, ObjectStat>()
  const all = async function* (prefix: string): AsyncGenerator<ObjectStat> {
    yield* small.list(prefix)
    for (const [key, stat] of large) if (key.startsWith(prefix)) yield stat
  }
  return {
    adapter: 'null',
    location: 'null:',
    conditionalWrites: small.conditionalWrites,
    createWriteStream(key: string, options: WriteOptions = {}): Writable {
      // The service says the size of whatever is small.
      if (options.size !== undefined) return small.createWriteStream(key, options)
      let size = 0
      return new Writable({
        write(chunk: Buffer, _encoding, callback) {
          size += chunk.length
          options.onConsumed?.(chunk)
          callback()
        },
        final(callback) {
          large.set(key, { key, size, modified: new Date() })
          callback()
        },
      })
    },
    createReadStream: (key, options) => small.createReadStream(key, options),
    readRange: (key, offset, length, options) => small.readRange(key, offset, length, options),
    stat: async (key, options) => large.get(key) ?? small.stat(key, options),
    list: all,
    async delete(key, options) {
      large.delete(key)
      await small.delete(key, options)
    },
    probe: (options) => small.probe(options),
    close: () => small.close(),
  }
}

async function create(storage: Storage | string, block: Buffer): Promise<void> {
  const backups = await openBackups({ storage, server: 'world', password: PASSWORD })
  const made = await backups.create(source(block))
  if (made.bytes !== bytes || made.incomplete) throw new Error(`Of ${bytes} bytes ${made.bytes} were backed up.`)
  await backups.close()
}

async function verify(): Promise<void> {
  const backups = await openBackups({ storage: url, server: 'world', password: PASSWORD })
  const found = await backups.verify('latest', {
    onProgress: ({ bytes: stored, totalBytes = 1 }) => {
      doneBytes = (stored / totalBytes) * bytes
    },
  })
  if (found.status !== 'ok' || found.bytes !== bytes) throw new Error(`It is ${found.status}: ${found.reason}`)
  await backups.close()
}

const WORK: Record<string, () => Promise<void>> = {
  /** Into nothing. */
  backup: async () => create(await nullStore(), worldlike()),
  /** What is small when it is stored, so that it can be read back. */
  'backup-compressible': () => create(url, compressible()),
  verify,
}
const work = WORK[what]
if (!work) throw new Error(`There is no ${what}.`)

const samples: [bytes: number, rss: number][] = []
const sample = () => samples.push([doneBytes, process.memoryUsage.rss()])
const timer = setInterval(sample, SAMPLE_MS)
const begun = performance.now()
await work()
const seconds = (performance.now() - begun) / 1000
clearInterval(timer)
sample()
const { user, system } = process.cpuUsage()
const counted = { bytesIn: bytes, bytesOut: bytes }
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, ...counted, samples }))
