// Does the memory of compressing and decompressing grow with the length of the stream? And what does an index of a
// million entries cost beside it? Peak RSS of a process that does nothing else, medians of three.
import { formatBytes } from '../lib/cli/format.ts'
import { build, measure, median, publish, ROOT } from './support.ts'

const RUNS = 3
const SIZES = [2 ** 30, 8 * 2 ** 30]

const PROGRAM = `
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdCompress, createZstdDecompress, IndexBuilder } from '${ROOT}/dist/transforms/index.js'
const [what, bytes] = [process.argv[1], Number(process.argv[2])]
const BLOCK = 4 << 20
let state = 1
const block = Buffer.alloc(BLOCK)
for (let i = 0; i < BLOCK; i += 4) { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; block.writeUInt32LE((i >>> 12) % 3 ? state : 0, i) }
function* repeat(piece, times) { for (let i = 0; i < times; i += 1) yield piece }
const from = (piece, times) => Readable.from(repeat(piece, times), { objectMode: false })
const nowhere = () => new Writable({ write: (chunk, encoding, done) => done() })
if (what === 'decompress') {
  const packed = []
  await pipeline(from(block, 1), createZstdCompress(), new Writable({ write(chunk, encoding, done) { packed.push(Buffer.from(chunk)); done() } }))
  await pipeline(from(Buffer.concat(packed), bytes / BLOCK), createZstdDecompress(), nowhere())
} else {
  const index = what === 'compress with a million entries' ? new IndexBuilder() : undefined
  let entries = 0
  const source = function* () {
    for (let i = 0; i < bytes / BLOCK; i += 1) {
      for (let n = 0; index && n < 1e6 / (bytes / BLOCK); n += 1, entries += 1) {
        index.add({ path: 'world/playerdata/' + (entries % 500) + '/' + (Math.imul(entries, 2654435761) >>> 0).toString(16) + '.dat', type: 'file', size: 1000 + (entries % 9000), mode: 420, mtime: 1.7e12 + entries * 17.123, uid: 1000, gid: 1000, at: entries * 3072, data: entries * 3072 + 1024 })
      }
      yield block
    }
  }
  await pipeline(Readable.from(source(), { objectMode: false }), createZstdCompress({ index: () => index?.finish({ v: 1, kind: 'tar', server: 's', id: 'i', created: 0, tool: 't', bytes: 0, files: entries, consistency: 'live' }) ?? [] }), nowhere())
}
`

build()
const peaks: Record<string, number[]> = {}
for (const what of ['compress', 'decompress', 'compress with a million entries']) {
  for (const size of what.includes('entries') ? SIZES.slice(0, 1) : SIZES) {
    const name = `${what}, ${formatBytes(size)}`
    peaks[name] = []
    for (let run = 0; run < RUNS; run += 1) {
      const { peakBytes } = await measure(process.execPath, ['--input-type=module', '-e', PROGRAM, what, String(size)])
      peaks[name].push(peakBytes)
    }
  }
}
publish(
  'stage-memory',
  'Peak RSS of compressing and of decompressing, each alone, over the length of the stream; defaults, medians of three.',
  ['what', 'median', 'run 1', 'run 2', 'run 3'],
  Object.entries(peaks).map(([name, values]) => [name, ...[median(values), ...values].map(formatBytes)]),
  peaks,
  ['The same block of 4 MiB over and over, a third of it zeros. Peak RSS counts the runtime itself, about 45 MiB.'],
)
