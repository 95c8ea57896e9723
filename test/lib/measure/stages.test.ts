import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Transform } from 'node:stream'
import { describe, it } from 'node:test'
import { openMeasured } from '../../../lib/measure/index.ts'
import { Noise, rounds, Sampler, syntheticSample } from '../../../lib/measure/sample.ts'
import { chooseFiles, openBenchSource } from '../../../lib/measure/source.ts'
import {
  measureChain,
  measureEncryption,
  measureHashing,
  measureLevel,
  measureRead,
} from '../../../lib/measure/stages.ts'
import { timed } from '../../../lib/measure/timed.ts'
import { tempFolder } from '../../support/tree.ts'

const MIB = 1024 * 1024
const SECONDS = 0.02

describe('a sample', () => {
  it('is spread evenly over all that passed, in bounded memory', () => {
    const sampler = new Sampler(1000)
    for (let i = 0; i < 1000; i += 1) sampler.offer(Buffer.alloc(10, i % 256))
    assert.ok(sampler.bytes <= 1000 && sampler.bytes >= 500, `${sampler.bytes}`)
    const firsts = sampler.chunks.map((chunk) => chunk[0] as number)
    const step = 1000 / firsts.length
    for (const [at, first] of firsts.entries()) assert.equal(first, Math.round(at * Math.ceil(step / 2) * 2) % 256)
  })

  it('gives its bytes over and over, in whole rounds', () => {
    const chunks = [Buffer.from('abc'), Buffer.from('de')]
    let asked = 0
    const pieces = [...rounds(chunks, 4, () => ++asked === 3)]
    assert.equal(Buffer.concat(pieces).toString(), 'abcdeabcdeab')
    assert.equal(asked, 3)
  })

  it('of synthetic data is the same every time, and compresses as a world does', async () => {
    const [one, other] = [syntheticSample(MIB), syntheticSample(MIB)]
    assert.deepEqual(one, other)
    const { bytes, storedBytes } = await measureLevel(one, 3, { seconds: SECONDS, threads: 1 })
    assert.ok(bytes / storedBytes > 1.3 && bytes / storedBytes < 1.7, `${bytes / storedBytes}`)
  })

  it('for a store has no block twice', () => {
    const noise = new Noise()
    const blocks = new Set<string>()
    let bytes = 0
    for (let i = 0; i < 2; i += 1) {
      for (const chunk of noise.chunks(9 * MIB + 5)) {
        bytes += chunk.length
        for (let at = 0; at + 4096 <= chunk.length; at += 4096) blocks.add(chunk.toString('latin1', at, at + 16))
      }
    }
    assert.equal(bytes, 18 * MIB + 10)
    assert.equal(blocks.size, (18 * MIB) / 4096)
  })
})

describe('a folder that is measured', () => {
  it('is read in stretches all over it, others at the second turn, and the rest where they are small', () => {
    const chosen = (turn: 0 | 1, which: number) => {
      const isChosen = chooseFiles(1600, 0.1, turn)[which] as () => boolean
      return Array.from({ length: 1600 }, (_, at) => at).filter(() => isChosen())
    }
    const [first, second] = [chosen(0, 0), chosen(1, 0)]
    assert.deepEqual(first.slice(0, 12), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101])
    assert.deepEqual(second.slice(0, 12), [50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 150, 151])
    assert.equal(first.length, 160)
    assert.ok(second.every((at) => !first.includes(at)))
    assert.deepEqual(
      [...first, ...chosen(0, 1)].sort((a, b) => a - b),
      [...Array(1600).keys()],
    )
    // Few large files: all of them in their order.
    const few = chooseFiles(3, 0.01, 1)[0] as () => boolean
    assert.deepEqual([few(), few(), few()], [true, true, true])
  })

  it('gives what a backup would take of it, up to what is wanted, and is not changed', async (t) => {
    const folder = tempFolder(t)
    await mkdir(join(folder, 'region'))
    for (let i = 0; i < 40; i += 1) await writeFile(join(folder, 'region', `r.${i}.mca`), randomBytes(100_000))
    await writeFile(join(folder, 'left-out.log'), 'a line that nobody wants')
    const before = await stat(join(folder, 'region'))
    const source = await openBenchSource(folder, { exclude: ['*.log'] }, { wantedBytes: 500_000 })
    assert.deepEqual([source.kind, source.files], ['folder', 40])
    const names: string[][] = []
    for (const turn of [0, 1] as const) {
      const chunks = await Array.fromAsync(source.read(turn, undefined))
      const all = Buffer.concat(chunks).toString('latin1')
      assert.doesNotMatch(all, /left-out|nobody wants/)
      names.push([...all.matchAll(/region\/r\.(\d+)\.mca\0/g)].map(([, name]) => name as string))
    }
    assert.deepEqual([...names[0]!].sort(), [...names[1]!].sort())
    assert.notDeepEqual(names[0], names[1])
    const sampler = new Sampler()
    const read = await measureRead(source, sampler, { bytes: 500_000, seconds: 60 })
    assert.ok(read.bytes >= 500_000 && read.bytes < 2_000_000, `${read.bytes}`)
    assert.equal(sampler.bytes, read.bytes)
    assert.ok(read.diskShare === null || (read.diskShare >= 0 && read.diskShare <= 1))
    assert.equal((await stat(join(folder, 'region'))).mtimeMs, before.mtimeMs)
    assert.equal((await readdir(folder, { recursive: true })).length, 42)
  })

  it('or a file; synthetic data stands in for what is too small', async (t) => {
    const folder = tempFolder(t)
    await writeFile(join(folder, 'world.zip'), randomBytes(2 * MIB))
    const file = await openMeasured(join(folder, 'world.zip'), {}, { bytes: MIB })
    assert.deepEqual([file?.kind, file?.bytes, file?.files], ['file', 2 * MIB, 1])
    assert.equal(
      (await Array.fromAsync(file!.read(0, undefined))).reduce((sum, { length }) => sum + length, 0),
      2 * MIB,
    )
    await writeFile(join(folder, 'small'), 'x')
    assert.equal(await openMeasured(join(folder, 'small'), {}, { bytes: MIB }), undefined)
    assert.equal(await openMeasured(undefined, {}, { bytes: MIB }), undefined)
    await assert.rejects(openMeasured(join(folder, 'gone'), {}, { bytes: MIB }), { code: 'SOURCE' })
  })
})

describe('a stage that is measured', () => {
  const sample = syntheticSample(2 * MIB)

  it('gets whole rounds of frames, in which no byte of a small sample comes twice', async () => {
    const fact = await measureLevel([randomBytes(300_000)], 1, { seconds: 0, threads: 2 })
    assert.equal(fact.bytes, 600_000)
    // Had a frame held the sample twice, it would compress.
    assert.ok(fact.storedBytes > 600_000)
    assert.equal(fact.level, 1)
  })

  it('gives its bytes, its time and its CPU', async () => {
    const seen: number[] = []
    const options = { seconds: SECONDS, onBytes: (bytes: number) => seen.push(bytes) }
    for (const measure of [measureEncryption, measureHashing]) {
      const { bytes, seconds, cpuSeconds } = await measure(sample, options)
      assert.ok(bytes > 0 && bytes % MIB === 0 && seconds > 0 && cpuSeconds > 0)
      assert.ok(seen.includes(bytes))
    }
    const chain = await measureChain(undefined, sample, { ...options, level: 3, threads: 2, bytes: MIB })
    assert.ok(chain.storedBytes > 0 && chain.storedBytes < chain.bytes)
    // The sample is as it was, though stages give memory back.
    assert.deepEqual(sample, syntheticSample(2 * MIB))
  })

  it('ends at once when it is interrupted, and when it fails, and closes its source', async () => {
    let closed = 0
    async function* source() {
      try {
        for (;;) yield Buffer.alloc(1000)
      } finally {
        closed += 1
      }
    }
    const stop = new AbortController()
    const aborted = timed(source(), [], { signal: stop.signal, onBytes: () => stop.abort() })
    await assert.rejects(aborted, { name: 'AbortError' })
    const failing = new Transform({ transform: (_chunk, _encoding, callback) => callback(new Error('no')) })
    await assert.rejects(timed(source(), [failing]), /^Error: no$/)
    await timed(source(), [], { isDone: (bytes) => bytes >= 5000 })
    assert.equal(closed, 3)
  })
})
