import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { zstdCompressSync } from 'node:zlib'
import {
  createDecrypt,
  createZstdCompress,
  createZstdDecompress,
  IndexBuilder,
  type IndexHead,
  openPlain,
  openSealed,
  openSeekable,
  type RangeSource,
  type ReadKeys,
  TransformError,
} from '../../transforms/index.ts'
import { through } from '../support/streams.ts'
import {
  bytesFor,
  type Container,
  dataPart,
  indexPart,
  join,
  type Part,
  seal,
  seekTable,
  skippable,
  stream,
  tar,
  zstdFrame,
} from '../vectors/build.ts'

// T34, at random: more than 100,000 changed inputs go through every reader. What must hold:
//
// - A container is accepted only when it is the one that was written, byte for byte.
// - A zstd stream is accepted AS THE SNAPSHOT when it is read whole without an error, its seek table leads to an index,
//   the head names the snapshot and says the length that was read. Then content, head and entries are what was written.
// - A zstd stream that is accepted otherwise is a foreign one, which under a snapshot's name is refused. Its content is
//   whole frames that were written, one after another: each carries a checksum, and nothing says which belong together.
// - Whatever happens, it happens within the time limit, is a TransformError or a success, and leaves memory as it was.
//
// MILLRACE_FUZZ_SEED repeats a run, MILLRACE_FUZZ_CASE=family:number a single case of it.

const SEED = Number(process.env.MILLRACE_FUZZ_SEED ?? randomInt(2 ** 31))
const [ONLY_FAMILY, ONLY_CASE] = (process.env.MILLRACE_FUZZ_CASE ?? '').split(':')
const CASE_LIMIT_MS = 10_000
/** 100 to 160 MiB is what malloc keeps, however long the run; a 4 KiB leak an input would be 400 MiB. */
const RSS_BUDGET_BYTES = 256 * 1024 * 1024
const AT_ONCE = 2
const F = 4096
const KEY = bytesFor('fuzz key', 32)
const PASSWORD = 'fuzz'
/** Nothing here is longer; what comes out beyond is counted and dropped. */
const KEPT_BYTES = 4 * 1024 * 1024

// ---- chance

class Chance {
  #state: number

  constructor(...seeds: number[]) {
    this.#state = 0x9e3779b9
    for (const seed of seeds) {
      this.#state = (this.#state ^ seed) >>> 0
      this.next()
    }
  }

  /** splitmix32. */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0
    let z = this.#state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return (z ^ (z >>> 15)) >>> 0
  }

  below(limit: number): number {
    return limit <= 0 ? 0 : this.next() % limit
  }

  one<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.next() & 0xff))
  }
}

// ---- changes

/** What is changed, the places in it where something begins, and what else there is to splice from. */
interface Target {
  bytes: Buffer
  borders: readonly number[]
  others: readonly Buffer[]
}

type Change = (target: Target, chance: Chance) => Buffer

const EXTREMES = [
  0,
  1,
  2,
  8,
  9,
  255,
  4096,
  65_535,
  65_536,
  2 ** 20,
  2 ** 27,
  2 ** 27 + 1,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 2,
]

/** A place anywhere, or close to where something begins. */
function place({ bytes, borders }: Target, chance: Chance): number {
  const near = chance.one(borders) + chance.below(24) - 12
  return chance.below(2) === 0 ? chance.below(bytes.length) : Math.max(0, Math.min(bytes.length, near))
}

function range(target: Target, chance: Chance): [number, number] {
  const [a, b] = [place(target, chance), place(target, chance)]
  const [from, to] = a < b ? [a, b] : [b, a]
  return chance.below(3) === 0 ? [from, Math.min(to, from + chance.below(16))] : [from, to]
}

/** From one border to another: whole frames, headers, entries. */
function pieceOf({ bytes, borders }: Target, chance: Chance): [number, number] {
  const [a, b] = [chance.one(borders), chance.one(borders)]
  return a < b ? [a, b] : a > b ? [b, a] : [a, bytes.length]
}

const CHANGES: readonly Change[] = [
  function flip({ bytes }, chance) {
    const changed = Buffer.from(bytes)
    for (let n = 1 + chance.below(3); n > 0 && changed.length > 0; n -= 1) {
      const at = chance.below(changed.length)
      changed[at] = (changed[at] as number) ^ (1 << chance.below(8))
    }
    return changed
  },
  function flipNearBorder(target, chance) {
    const changed = Buffer.from(target.bytes)
    const at = Math.min(place(target, chance), changed.length - 1)
    if (at >= 0) changed[at] = (changed[at] as number) ^ (1 << chance.below(8))
    return changed
  },
  function setByte(target, chance) {
    const changed = Buffer.from(target.bytes)
    const at = Math.min(place(target, chance), changed.length - 1)
    if (at >= 0) changed[at] = chance.one([0, 1, 0x7f, 0x80, 0xff, chance.below(256)])
    return changed
  },
  function setInteger(target, chance) {
    const changed = Buffer.from(target.bytes)
    const size = chance.one([1, 2, 3, 4, 4, 4, 6])
    const at = Math.min(place(target, chance), changed.length - size)
    if (at < 0) return changed
    const value = chance.one([...EXTREMES, 2 ** 32 - 1, changed.length, changed.length - at]) % 2 ** (8 * size)
    if (chance.below(2) === 0) changed.writeUIntLE(value, at, size)
    else changed.writeUIntBE(value, at, size)
    return changed
  },
  function addToInteger(target, chance) {
    const changed = Buffer.from(target.bytes)
    const at = Math.min(place(target, chance), changed.length - 4)
    if (at < 0) return changed
    const delta = chance.one([1, -1, 2, -2, 8, -8, 256, -256])
    changed.writeUInt32LE((changed.readUInt32LE(at) + delta + 2 ** 32) % 2 ** 32, at)
    return changed
  },
  function cut(target, chance) {
    return target.bytes.subarray(0, place(target, chance))
  },
  function cutStart(target, chance) {
    return target.bytes.subarray(place(target, chance))
  },
  function append(target, chance) {
    const [from, to] = chance.below(2) === 0 ? range(target, chance) : pieceOf(target, chance)
    const more = [
      chance.bytes(1 + chance.below(40)),
      Buffer.alloc(1 + chance.below(80)),
      target.bytes.subarray(from, to),
      chance.one(target.others),
    ]
    return Buffer.concat([target.bytes, chance.one(more)])
  },
  function remove(target, chance) {
    const [from, to] = range(target, chance)
    return Buffer.concat([target.bytes.subarray(0, from), target.bytes.subarray(to)])
  },
  function removePiece(target, chance) {
    const [from, to] = pieceOf(target, chance)
    return Buffer.concat([target.bytes.subarray(0, from), target.bytes.subarray(to)])
  },
  function repeatPiece(target, chance) {
    const [from, to] = pieceOf(target, chance)
    const at = chance.one(target.borders)
    const { bytes } = target
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(from, to), bytes.subarray(at)])
  },
  function swapPieces({ bytes, borders }, chance) {
    const marks = Array.from({ length: 4 }, () => chance.one(borders)).sort((a, b) => a - b)
    const [a, b, c, d] = marks as [number, number, number, number]
    const [one, two, three] = [bytes.subarray(a, b), bytes.subarray(b, c), bytes.subarray(c, d)]
    return Buffer.concat([bytes.subarray(0, a), three, two, one, bytes.subarray(d)])
  },
  function insert(target, chance) {
    const at = place(target, chance)
    const more = chance.bytes(1 + chance.below(12))
    return Buffer.concat([target.bytes.subarray(0, at), more, target.bytes.subarray(at)])
  },
  function overwrite(target, chance) {
    const [from, to] = range(target, chance)
    const changed = Buffer.from(target.bytes)
    const other = chance.one([target.bytes, ...target.others])
    const start = chance.below(other.length)
    other.copy(changed, from, start, start + to - from)
    return changed
  },
  function splice(target, chance) {
    const other = chance.one(target.others)
    const at = place(target, chance)
    return Buffer.concat([target.bytes.subarray(0, at), other.subarray(Math.min(at, other.length))])
  },
]

function changed(target: Target, chance: Chance): Buffer {
  const first = chance.one(CHANGES)(target, chance)
  if (chance.below(4) > 0 || first.length === 0) return first
  const borders = target.borders.filter((border) => border <= first.length)
  return chance.one(CHANGES)({ ...target, bytes: first, borders: borders.length > 0 ? borders : [0] }, chance)
}

// ---- readers

type Outcome<T> = { ok: T } | { code: string }

async function outcomeOf<T>(work: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { ok: await work() }
  } catch (error) {
    if (error instanceof TransformError) return { code: error.code }
    throw new Error(`not a TransformError: ${(error as Error)?.stack ?? error}`)
  }
}

class Collector extends Writable {
  bytes = 0
  #pieces: Buffer[] = []

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    if (this.bytes <= KEPT_BYTES) this.#pieces.push(chunk)
    this.bytes += chunk.length
    callback()
  }

  content(): Buffer {
    assert.ok(this.bytes <= KEPT_BYTES, `${this.bytes} bytes came out`)
    return Buffer.concat(this.#pieces)
  }
}

function* pieces(bytes: Buffer, chance: Chance): Generator<Buffer> {
  const most = chance.one([bytes.length + 1, 4096, 700, 40])
  for (let at = 0, take = 0; at < bytes.length; at += take) {
    take = Math.max(1, Math.min(most === 40 ? 1 + chance.below(400) : most, bytes.length - at))
    yield Buffer.from(bytes.subarray(at, at + take))
  }
}

function readWhole(
  bytes: Buffer,
  keys: ReadKeys | undefined,
  unpack: boolean,
  chance: Chance,
): Promise<Outcome<Buffer>> {
  return outcomeOf(async () => {
    const source = Readable.from(pieces(bytes, chance), { objectMode: false })
    const sink = new Collector()
    const stages = [
      ...(keys ? [createDecrypt(keys)] : []),
      ...(unpack ? [createZstdDecompress({ threads: 1 + chance.below(3) })] : []),
    ]
    await pipeline([source, ...stages, sink])
    return sink.content()
  })
}

function rangesOf(bytes: Buffer) {
  return async (offset: number, length: number) => {
    assert.ok(offset >= 0 && length >= 0 && offset + length <= bytes.length, `a read of ${length} from ${offset}`)
    return Buffer.from(bytes.subarray(offset, offset + length))
  }
}

async function drain(source: RangeSource): Promise<Buffer> {
  const sink = new Collector()
  await pipeline(source.createReadStream(), sink)
  return sink.content()
}

interface Ranged {
  content: Buffer
  /** null: no index. */
  lines: string[] | null
}

/** null: it has no seek table. */
function readRanged(bytes: Buffer, keys: ReadKeys | undefined): Promise<Outcome<Ranged | null>> {
  return outcomeOf(async () => {
    const sealed = keys ? await openSealed(rangesOf(bytes), bytes.length, keys) : undefined
    try {
      return await readSeekable(sealed ?? openPlain(rangesOf(bytes), bytes.length))
    } finally {
      sealed?.close()
    }
  })
}

async function readSeekable(source: RangeSource): Promise<Ranged | null> {
  const seekable = await openSeekable(source)
  if (!seekable) return null
  try {
    let lines: string[] | null = null
    if (seekable.hasIndex) {
      lines = [JSON.stringify(await seekable.head())]
      for await (const entry of seekable.entries()) lines.push(JSON.stringify(entry))
    }
    // A table may say terabytes; whoever streams them meets the first frame that is not there.
    return { content: await drain(seekable), lines }
  } finally {
    seekable.close()
  }
}

// ---- the run

class Family {
  readonly name: string
  readonly counts = new Map<string, number>()
  readonly failures: string[] = []

  constructor(name: string) {
    this.name = name
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  get summary(): string {
    return [...this.counts]
      .sort()
      .map(([what, count]) => `${what} ${count}`)
      .join(', ')
  }
}

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

let startRss = 0
let peakRss = 0

/** Runs `one` for each case, a few at a time, each with its own chance and its time limit. */
async function run(
  t: TestContext,
  name: string,
  cases: number,
  one: (chance: Chance, family: Family, keep: (input: Buffer) => void) => Promise<void>,
): Promise<void> {
  if (ONLY_FAMILY && ONLY_FAMILY !== name) return
  const family = new Family(name)
  const salt = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7)
  let next = ONLY_CASE ? Number(ONLY_CASE) : 0
  const end = ONLY_CASE ? next + 1 : cases
  const worker = async () => {
    while (next < end && family.failures.length < 5) {
      const number = next
      next += 1
      let input = Buffer.alloc(0)
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${CASE_LIMIT_MS} ms`)), CASE_LIMIT_MS)
      })
      try {
        const work = one(new Chance(SEED, salt, number), family, (bytes) => {
          input = Buffer.from(bytes)
        })
        await Promise.race([work, late])
      } catch (error) {
        const text = input.length <= 6000 ? ` input (base64): ${input.toString('base64')}` : ''
        family.failures.push(`${name}:${number}: ${(error as Error).message}${text}`)
      } finally {
        clearTimeout(timer)
      }
      if (number % 100 === 0) {
        peakRss = Math.max(peakRss, process.memoryUsage.rss())
        // Without it the figure is the collector's patience, and not what the readers hold. What node:zlib holds of a
        // stream that was destroyed in the middle of a write takes a second round.
        collect()
        await new Promise((resolve) => setTimeout(resolve, 10))
        collect()
      }
    }
  }
  if (startRss === 0) {
    collect()
    startRss = process.memoryUsage.rss()
  }
  const unhandled: unknown[] = []
  const onUnhandled = (error: unknown) => unhandled.push(error)
  process.on('unhandledRejection', onUnhandled)
  const begun = performance.now()
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  await new Promise((resolve) => setTimeout(resolve, 50))
  process.off('unhandledRejection', onUnhandled)
  t.diagnostic(
    `${end - (ONLY_CASE ? Number(ONLY_CASE) : 0)} inputs in ${Math.round(performance.now() - begun)} ms, seed ${SEED}`,
  )
  t.diagnostic(family.summary)
  assert.deepEqual(family.failures, [])
  assert.deepEqual(unhandled, [])
  const grown = peakRss - startRss
  t.diagnostic(
    `memory: ${Math.round(startRss / 2 ** 20)} MiB at the start, ${Math.round(grown / 2 ** 20)} MiB more at most`,
  )
  assert.ok(grown < RSS_BUDGET_BYTES, `memory grew by ${grown} bytes`)
}

const show = (outcome: Outcome<unknown>) => ('code' in outcome ? outcome.code : 'accepted')

// ---- what is written

function bordersOf({ header, frames }: Container): number[] {
  const borders = [0, 8, 9, 10, 11, 12, 16, 32]
  let at = header.length
  for (const frame of frames) {
    borders.push(at, at + 12, at + frame.length - 16)
    at += frame.length
  }
  return [...borders, at]
}

const plain = bytesFor('fuzz plain', 2 * F + 100)
const container = seal('fuzz', plain, { key: KEY })
const emptyEnd = seal('fuzz empty end', plain.subarray(0, F), { key: KEY })
const others = [
  join(seal('fuzz other', bytesFor('fuzz other', 2 * F + 100), { key: KEY })),
  join(seal('fuzz short', bytesFor('fuzz short', 50), { key: KEY })),
  join(emptyEnd),
]

interface Snapshot {
  layer2: Buffer
  borders: number[]
  content: Buffer
  /** null: no index, so that it is a foreign stream to begin with. */
  lines: string[] | null
  /** What each of its zstd frames holds. */
  frames: Buffer[]
}

/** Frames, skippable headers, index blocks, entries and footer of a stream with a seek table. */
function bordersOfStream(layer2: Buffer): number[] {
  const rows = layer2.readUInt32LE(layer2.length - 9)
  const table = layer2.length - 9 - rows * 8 - 8
  const borders = [0]
  let at = 0
  for (let row = 0; row < rows; row += 1) {
    borders.push(at, at + 4, at + 6, table + 8 + row * 8, table + 8 + row * 8 + 4)
    const size = layer2.readUInt32LE(table + 8 + row * 8)
    // The blocks of an index lie open: each begins with zstd's magic.
    for (let block = layer2.indexOf('28b52ffd', at + 8, 'hex'); block >= 0 && block < at + size; ) {
      borders.push(block, block + 5)
      block = layer2.indexOf('28b52ffd', block + 4, 'hex')
    }
    at += size
  }
  return [...borders, at, table, table + 4, layer2.length - 9, layer2.length - 5, layer2.length - 4, layer2.length]
}

const head = (bytes: number, files: number): IndexHead => ({
  v: 1,
  kind: 'tar',
  server: 'survival',
  id: '2026-11-22T10-00-00.000Z-k3f9',
  created: 1,
  tool: 't',
  bytes,
  files,
  consistency: 'live',
  mode: 0o755,
  mtime: 1.5,
})

const meta = { type: 'file', mode: 0o644, mtime: '1.5', uid: 1, gid: 2 } as const

/** Raw and repeated blocks, frames of several short lengths, an unknown skippable frame, blocks of a line each. */
function byHand(): Snapshot {
  const { bytes, lines } = tar([
    { ...meta, path: 'a', content: bytesFor('a', 300) },
    { ...meta, path: 'b', content: Buffer.alloc(900, 0x62) },
  ])
  const cuts = [0, 200, 1100, 1101, 2100, bytes.length]
  const data: Part[] = cuts.slice(1).map((to, i) => dataPart(bytes.subarray(cuts[i], to)))
  data.splice(2, 0, { bytes: skippable(0x184d2a53, Buffer.from('unknown')), content: 0 })
  const all = [head(bytes.length, 2), ...lines]
  const layer2 = stream([...data, indexPart(all.map((line) => [line]))])
  const texts = all.map((line) => JSON.stringify(line))
  const frames = [
    ...cuts.slice(1).map((to, i) => bytes.subarray(cuts[i], to)),
    ...texts.map((text) => Buffer.from(`${text}\n`)),
  ]
  return { layer2, borders: bordersOfStream(layer2), content: bytes, lines: texts, frames }
}

/** As the product writes it: compressed blocks, full frames. */
async function byProduct(): Promise<Snapshot> {
  const entries = Array.from({ length: 60 }, (_, i) => ({
    ...meta,
    path: `region/r.${i}.mca`,
    content: Buffer.alloc(1500 + i, `line ${i % 7} `),
  }))
  const { bytes, lines } = tar(entries)
  const builder = new IndexBuilder()
  for (const line of lines) builder.add(line as never)
  const index = () => builder.finish(head(bytes.length, entries.length))
  const layer2 = await through(bytes, [createZstdCompress({ frameBytes: 65_536, index })])
  const all = [head(bytes.length, entries.length), ...lines].map((line) => JSON.stringify(line))
  const frames: Buffer[] = []
  for (let at = 0; at < bytes.length; at += 65_536) frames.push(bytes.subarray(at, at + 65_536))
  // One block holds all entries.
  frames.push(
    Buffer.from(`${all[0]}\n`),
    Buffer.from(
      all
        .slice(1)
        .map((line) => `${line}\n`)
        .join(''),
    ),
  )
  return { layer2, borders: bordersOfStream(layer2), content: bytes, lines: all, frames }
}

/** Frames without their content size, and a seek table. */
function byOthers(): Snapshot {
  const contents = [700, 1500, 90].map((length, i) =>
    Buffer.concat([bytesFor(`other ${i}`, length / 2), Buffer.alloc(length / 2, i)]),
  )
  const parts = contents.map((content, i) => ({
    bytes: zstdFrame(content, i === 1 ? {} : { noSize: true }),
    content: content.length,
  }))
  const layer2 = stream(parts)
  return { layer2, borders: bordersOfStream(layer2), content: Buffer.concat(contents), lines: null, frames: contents }
}

const snapshots = [byHand(), await byProduct(), byOthers()]

/** The content of every zstd frame that was written, those of the indexes too. */
const written: Buffer[] = snapshots.flatMap(({ frames }) => frames)

/** Whether `content` is whole frames that were written, one after another. */
function madeOfFrames(content: Buffer): boolean {
  const reached = new Set([0])
  const open = [0]
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (at === content.length) return true
    for (const frame of written) {
      const end = at + frame.length
      if (frame.length > 0 && !reached.has(end) && frame.equals(content.subarray(at, end))) {
        reached.add(end)
        open.push(end)
      }
    }
  }
  return false
}

/** Judges one changed stream by what both readers say of it. */
async function judge(
  original: Snapshot,
  layer2: Buffer,
  object: Buffer,
  keys: ReadKeys | undefined,
  chance: Chance,
  family: Family,
): Promise<void> {
  const whole = await readWhole(object, keys, true, chance)
  const ranged = await readRanged(object, keys)
  const content = 'ok' in whole ? whole.ok : undefined
  const found = 'ok' in ranged ? ranged.ok : undefined
  if (content) assert.ok(madeOfFrames(content), 'content that nobody wrote')
  if (found) assert.ok(found.lines || madeOfFrames(found.content), 'content that nobody wrote, by ranges')
  if (found?.lines) {
    const { bytes, server, id } = JSON.parse(found.lines[0] as string)
    const known = snapshots.find(({ lines }) => lines?.[0] === found.lines?.[0])
    assert.ok(known && server && id, 'a head that nobody wrote')
    if (bytes === found.content.length) {
      assert.ok(found.content.equals(known.content), 'other content under a true head, by ranges')
      assert.deepEqual(found.lines, known.lines, 'other entries under a true head')
      if (content && content.length === bytes) {
        assert.ok(content.equals(known.content), 'other content under a true head')
        family.count(known === original ? 'accepted as the snapshot' : 'accepted as another that was spliced in')
      } else family.count(`by ranges accepted, whole ${content ? 'of another length' : show(whole)}`)
      return
    }
    family.count('a head of another length')
    return
  }
  if (layer2.equals(original.layer2) && original.lines) assert.fail('unchanged, and refused')
  family.count(
    `${content ? 'accepted as foreign' : show(whole)}/${found === null ? 'no table' : found ? 'foreign' : show(ranged)}`,
  )
}

// ---- the families

test('T34: containers with a changed header are refused', async (t) => {
  const original = join(emptyEnd)
  const { header, frames } = emptyEnd
  const target = {
    bytes: header,
    borders: [0, 8, 9, 10, 11, 12, 16, 32],
    others: others.map((one) => one.subarray(0, 64)),
  }
  await run(t, 'header', 25_000, async (chance, family, keep) => {
    const bytes = Buffer.concat([changed(target, chance), ...frames])
    keep(bytes)
    await refuse(bytes, [original, ...others], { key: KEY }, chance, family)
  })
})

async function refuse(
  bytes: Buffer,
  originals: readonly Buffer[],
  keys: ReadKeys,
  chance: Chance,
  family: Family,
): Promise<void> {
  const whole = await readWhole(bytes, keys, false, chance)
  const ranged = await outcomeOf(async () => {
    const sealed = await openSealed(rangesOf(bytes), bytes.length, keys)
    try {
      return await drain(sealed)
    } finally {
      sealed.close()
    }
  })
  family.count(`${show(whole)}/${show(ranged)}`)
  // A change may put things back as they were, or another container in the place of this one.
  const same = originals.some((one) => one.equals(bytes))
  assert.equal('ok' in whole, same, 'whole')
  assert.equal('ok' in ranged, same, 'by ranges')
  if ('ok' in whole && 'ok' in ranged) assert.ok(whole.ok.equals(ranged.ok))
}

test('T34: containers with changed frames are refused', async (t) => {
  const original = join(container)
  const target = { bytes: original, borders: bordersOf(container), others }
  await run(t, 'frames', 25_000, async (chance, family, keep) => {
    const bytes = changed(target, chance)
    keep(bytes)
    await refuse(bytes, [original, ...others], { key: KEY }, chance, family)
  })
})

test('T34: containers of a password with a changed header are refused', async (t) => {
  const sealed = seal('fuzz password', plain.subarray(0, 50), { password: PASSWORD })
  const original = join(sealed)
  const target = { bytes: original, borders: bordersOf(sealed), others }
  await run(t, 'password', 600, async (chance, family, keep) => {
    const bytes = Buffer.from(changed(target, chance))
    // What a reader may be asked to derive: seconds of work, which is the limit's business and not this test's.
    if (bytes.length > 16 && bytes.readUInt32BE(12) > 200_000)
      bytes.writeUInt32BE(chance.one([0, 99_999, 100_000, 2 ** 32 - 1]), 12)
    keep(bytes)
    await refuse(bytes, [original], { password: PASSWORD }, chance, family)
  })
})

function changedStream(chance: Chance): { original: Snapshot; layer2: Buffer } {
  const original = chance.one(snapshots)
  const rest = snapshots.filter((one) => one !== original).map((one) => one.layer2)
  return { original, layer2: changed({ bytes: original.layer2, borders: original.borders, others: rest }, chance) }
}

test('T34: changed zstd streams in valid containers never become other content', async (t) => {
  await run(t, 'resealed', 44_000, async (chance, family, keep) => {
    const { original, layer2 } = changedStream(chance)
    keep(layer2)
    await judge(original, layer2, join(seal('fuzz resealed', layer2, { key: KEY })), { key: KEY }, chance, family)
  })
})

test('T34: changed zstd streams that are not encrypted never become other content', async (t) => {
  await run(t, 'bare', 8000, async (chance, family, keep) => {
    const { original, layer2 } = changedStream(chance)
    keep(layer2)
    await judge(original, layer2, layer2, undefined, chance, family)
  })
})

/** Frames with their own checksums, put together anew: only tables and lines can be wrong. */
test('T34: seek tables of any numbers are refused, or fit', async (t) => {
  const { content } = snapshots[0] as Snapshot
  const cuts = [0, 700, 701, 1600, 2048, content.length]
  const data = cuts.slice(1).map((to, i) => dataPart(content.subarray(cuts[i], to)))
  const index = indexPart([[head(content.length, 2)]])
  const parts = [...data, index]
  const rows = parts.map(({ bytes, content: decompressed }) => ({ compressed: bytes.length, decompressed }))
  const body = Buffer.concat(parts.map(({ bytes }) => bytes))
  await run(t, 'table', 6000, async (chance, family, keep) => {
    const list = rows.map((row) => ({ ...row }))
    for (let n = chance.below(4); n > 0; n -= 1) {
      const row = chance.one(list)
      const field = chance.one(['compressed', 'decompressed'] as const)
      const delta = chance.one([1, -1, 8, -8, 2 ** 31])
      row[field] = chance.below(2) === 0 ? chance.one(EXTREMES) : (row[field] + delta + 2 ** 32) % 2 ** 32
      if (chance.below(2) === 0) chance.one(list)[field] = (chance.one(list)[field] - delta + 2 ** 32) % 2 ** 32
    }
    if (chance.below(6) === 0) list.splice(chance.below(list.length), 1)
    if (chance.below(6) === 0) list.splice(chance.below(list.length), 0, { compressed: 0, decompressed: 0 })
    const faults = chance.below(3) === 0 ? { count: chance.one([...EXTREMES, list.length + 1]) } : {}
    const flags = chance.below(6) === 0 ? { descriptor: chance.one([0x80, 0x7c, 3, 4]) } : {}
    const layer2 = Buffer.concat([body, seekTable(list, { ...faults, ...flags })])
    keep(layer2)
    const whole = await readWhole(layer2, undefined, true, chance)
    const ranged = await readRanged(layer2, undefined)
    if ('ok' in whole) assert.ok(whole.ok.equals(content), 'whole')
    if ('ok' in ranged && ranged.ok?.content.length === content.length) assert.ok(ranged.ok.content.equals(content))
    const unchanged = layer2.equals(Buffer.concat([body, seekTable(rows)]))
    if (unchanged) assert.ok('ok' in whole && 'ok' in ranged)
    family.count(`${show(whole)}/${show(ranged)}`)
  })
})

test('T34: index lines of any text are read or refused', async (t) => {
  const { content, lines } = snapshots[0] as Snapshot
  const data = dataPart(content)
  const text = Buffer.from(`${(lines as string[]).join('\n')}\n`)
  const borders = [...text.keys()].filter((at) => '{}":,[]'.includes(String.fromCharCode(text[at] as number)))
  const values = [
    'null',
    '{}',
    '[]',
    '-1',
    '1e999',
    '1.5',
    '9007199254740993',
    '"\\ud800"',
    'true',
    '"__proto__"',
    '['.repeat(5000),
  ]
  const more = values.map((value) => Buffer.from(value))
  await run(t, 'lines', 6000, async (chance, family, keep) => {
    const lines2 = changed({ bytes: text, borders, others: more }, chance)
    keep(lines2)
    const cut = chance.below(3) === 0 ? chance.below(lines2.length) : lines2.length
    const blocks = [lines2.subarray(0, cut), lines2.subarray(cut)].filter((one) => one.length > 0)
    const frames = blocks.map((one) => zstdCompressSync(one))
    const payload = Buffer.concat([Buffer.from('MLRINDEX'), ...frames])
    const layer2 = stream([data, { bytes: skippable(0x184d2a5b, payload), content: 0 }])
    const whole = await readWhole(layer2, undefined, true, chance)
    const ranged = await readRanged(layer2, undefined)
    assert.ok('ok' in whole && whole.ok.equals(content), 'the index is no part of the content')
    if ('ok' in ranged) assert.ok(ranged.ok?.content.equals(content))
    family.count(show(ranged))
  })
})
