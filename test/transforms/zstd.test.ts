import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { constants, createZstdCompress as createNativeCompress, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import {
  createZstdCompress,
  createZstdDecompress,
  IndexBuilder,
  type IndexEntry,
  type IndexHead,
  openPlain,
  openSeekable,
  TransformError,
} from '../../transforms/index.ts'
import { SeekTableBuilder } from '../../transforms/seek-table.ts'
import { sample, through } from '../support/streams.ts'
import { NO_ZSTD } from '../support/tools.ts'

const C = 64 * 1024

function hasCode(...codes: string[]) {
  return (error: unknown) => error instanceof TransformError && codes.includes(error.code)
}

const compress = (data: Buffer, writeBytes?: number) =>
  through(data, [createZstdCompress({ frameBytes: C })], writeBytes)
const decompress = (data: Buffer, writeBytes?: number) => through(data, [createZstdDecompress()], writeBytes)

function indexOf(entries: number): (totals: { bytes: number }) => Buffer[] {
  const builder = new IndexBuilder()
  for (let i = 0; i < entries; i += 1) {
    const entry: IndexEntry = {
      path: `region/r.${i}.mca`,
      type: 'file',
      size: 10,
      mode: 0o644,
      mtime: 1.5,
      uid: 0,
      gid: 0,
      at: i,
      data: i + 10,
    }
    builder.add(entry)
  }
  return ({ bytes }) => builder.finish(headOf(bytes, entries))
}

function headOf(bytes: number, files: number): IndexHead {
  return {
    v: 1,
    kind: 'tar',
    server: 's',
    id: 'i',
    created: 1,
    tool: 't',
    bytes,
    files,
    consistency: 'unknown',
    mode: 0o755,
    mtime: 1.5,
  }
}

test('every boundary length and write size makes the round trip', async () => {
  for (const length of [0, 1, C - 1, C, C + 1, 2 * C, 7 * C + 3]) {
    const data = sample(length)
    for (const writeBytes of [1, 7, 4096, 65536, undefined]) {
      if (writeBytes !== undefined && length / writeBytes > 150_000) continue
      const packed = await compress(data, writeBytes)
      assert.deepEqual(await decompress(packed, writeBytes), data, `${length} in writes of ${writeBytes}`)
    }
  }
})

test('any length and any splits of the bytes make the round trip', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(4 * C),
      fc.integer({ min: 1, max: 3 * C }),
      fc.integer({ min: 1, max: C }),
      async (length, write, read) => {
        const data = sample(length, length + 1)
        assert.deepEqual(await decompress(await compress(data, write), read), data)
      },
    ),
    { numRuns: 60 },
  )
})

test('the zstd command reads what is written, frames, index and seek table', { skip: NO_ZSTD }, async () => {
  const data = sample(5 * C + 99)
  const packed = await through(data, [createZstdCompress({ frameBytes: C, index: indexOf(3) })])
  assert.deepEqual(execFileSync('zstd', ['-dc'], { input: packed, maxBuffer: 1 << 28 }), data)
})

test('any zstd stream is read: one frame or many, skippable frames, no sizes, large windows', {
  skip: NO_ZSTD,
}, async () => {
  const data = sample(3_000_000)
  const half = data.subarray(0, 1_500_000)
  const rest = data.subarray(1_500_000)
  const zstd = (input: Buffer, ...args: string[]) =>
    execFileSync('zstd', ['-c', ...args], { input, maxBuffer: 1 << 28 })
  const skippable = Buffer.concat([Buffer.from([0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0]), Buffer.from('hello')])
  const streams = [
    zstd(data),
    zstd(data, '--no-check'),
    zstd(data, '--long=27', '-19'),
    zstd(data, `--stream-size=${data.length}`),
    Buffer.concat([zstd(half), zstd(rest)]),
    Buffer.concat([skippable, zstd(half), skippable, zstdCompressSync(rest), skippable]),
    Buffer.concat([await compress(half), await compress(rest)]),
  ]
  for (const [i, stream] of streams.entries()) {
    for (const writeBytes of [undefined, 1000])
      assert.deepEqual(await decompress(stream, writeBytes), data, `stream ${i}`)
  }
})

test('T3: cut streams, trailing bytes and several frames in one write never end short', async (t) => {
  const one = zstdCompressSync(sample(5000), { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
  let cuts = 0
  for (let length = 0; length < one.length; length += 1) {
    await assert.rejects(decompress(one.subarray(0, length)), hasCode('TRUNCATED', 'CORRUPT'), `cut at ${length}`)
    cuts += 1
  }
  for (const tail of ['x', 'trailing garbage', '\0\0\0\0']) {
    await assert.rejects(decompress(Buffer.concat([one, Buffer.from(tail)])), hasCode('CORRUPT', 'TRUNCATED'))
  }
  const three = Buffer.concat([one, one, one])
  assert.equal((await decompress(three)).length, 15_000)
  const streamed = await through(sample(300_000), [createNativeCompress()])
  for (let length = streamed.length - 200; length < streamed.length; length += 1) {
    await assert.rejects(decompress(streamed.subarray(0, length)), hasCode('TRUNCATED', 'CORRUPT'))
    cuts += 1
  }
  t.diagnostic(`${cuts} cuts rejected`)
})

test('T34: a byte flipped in a stream with checksums is never accepted as other content', async (t) => {
  const data = sample(3000)
  const packed = await through(data, [createZstdCompress({ frameBytes: C, index: indexOf(2) })])
  let rejected = 0
  for (let at = 0; at < packed.length; at += 1) {
    const changed = Buffer.from(packed)
    changed[at] = (changed[at] as number) ^ (1 << (at % 8))
    try {
      // Some bits mean nothing to the content (the index, which is another reader's; a frame header's unused bit).
      assert.deepEqual(await decompress(changed), data, `flip at ${at}`)
    } catch (error) {
      assert.ok(hasCode('CORRUPT', 'TRUNCATED', 'UNSUPPORTED', 'LIMIT')(error), `flip at ${at}: ${error}`)
      rejected += 1
    }
  }
  t.diagnostic(`${rejected} of ${packed.length} flips rejected, the others left the content as it was`)
})

test('a seek table that disagrees with the frames fails a whole read', async () => {
  const packed = await compress(sample(3 * C))
  for (const back of [9 + 4, 9 + 8, 9 + 24]) {
    const changed = Buffer.from(packed)
    changed.writeUInt32LE(changed.readUInt32LE(packed.length - back) ^ 1, packed.length - back)
    await assert.rejects(decompress(changed), hasCode('CORRUPT'))
  }
  const fewer = Buffer.from(packed)
  fewer.writeUInt32LE(2, packed.length - 9)
  await assert.rejects(decompress(fewer), hasCode('CORRUPT'))
})

test('hostile sizes are refused before anything is allocated for them', async () => {
  const frame = zstdCompressSync(Buffer.alloc(1000))
  const table = Buffer.concat([frame, Buffer.alloc(64)])
  table.writeUInt32LE(2 ** 31, table.length - 9)
  table[table.length - 5] = 0
  table.writeUInt32LE(0x8f92eab1, table.length - 4)
  const source = openPlain(async (offset, length) => table.subarray(offset, offset + length), table.length)
  await assert.rejects(openSeekable(source), hasCode('LIMIT'))
  table.writeUInt32LE(2 ** 20, table.length - 9)
  await assert.rejects(openSeekable(source), hasCode('CORRUPT'))

  // A frame that claims 1 TiB in a single segment, and one with a window of 2^41.
  const claim = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe4, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0])
  await assert.rejects(decompress(claim), hasCode('LIMIT'))
  const window = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x04, 0xff, 1, 0, 0])
  await assert.rejects(decompress(window), hasCode('LIMIT'))
  // One that claims 16 MiB and has a block for 1 byte.
  const small = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 1, 9, 0, 0, 65])
  await assert.rejects(decompress(small), hasCode('CORRUPT'))
})

test('a frame that holds more than it says is refused, however much more', async () => {
  const whole = zstdCompressSync(Buffer.alloc(6_000_000, 'a world'), {
    pledgedSrcSize: 6_000_000,
    params: { [constants.ZSTD_c_checksumFlag]: 1 },
  })
  assert.equal(whole.readUInt32LE(6), 6_000_000)
  for (const says of [0, 1, 131_072, 500_000, 1_999_999]) {
    const frame = Buffer.from(whole)
    frame.writeUInt32LE(says, 6)
    await assert.rejects(decompress(frame), hasCode('CORRUPT'), `says ${says}`)
    const table = new SeekTableBuilder()
    table.add(frame.length, says)
    const stream = Buffer.concat([frame, ...table.finish()])
    const seekable = await openSeekable(
      openPlain(async (at, length) => stream.subarray(at, at + length), stream.length),
    )
    if (says > 0) await assert.rejects(seekable?.read(0, 1) as Promise<Buffer>, hasCode('CORRUPT'), `says ${says}`)
  }
})

test('a frame without a size that holds more than the seek table says is refused', async () => {
  const frame = await through(Buffer.alloc(300_000, 'a world'), [createNativeCompress()])
  const table = new SeekTableBuilder()
  table.add(frame.length, 700)
  const stream = Buffer.concat([frame, ...table.finish()])
  const seekable = await openSeekable(openPlain(async (at, length) => stream.subarray(at, at + length), stream.length))
  await assert.rejects(seekable?.read(0, 700) as Promise<Buffer>, hasCode('CORRUPT'))
  await assert.rejects(decompress(stream), hasCode('CORRUPT'))
})

test('a reader that stalls stops the source after a fixed number of frames', async () => {
  for (const make of [
    { stream: createZstdCompress({ frameBytes: C, threads: 2 }), data: randomBytes(100 * C) },
    { stream: createZstdDecompress({ threads: 2 }), data: await compress(sample(100 * C)) },
  ]) {
    let taken = 0
    const source = Readable.from(
      (function* () {
        for (let at = 0; at < make.data.length; at += 8192) {
          taken += 8192
          yield make.data.subarray(at, at + 8192)
        }
      })(),
      { objectMode: false },
    )
    source.pipe(make.stream)
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.ok(taken < 8 * C, `took ${taken / C} frames`)
    let out = 0
    for await (const chunk of make.stream) out += chunk.length
    assert.ok(out > 0 && taken >= make.data.length)
  }
})

test('the seekable reader agrees with the whole reader, and reads the index', async () => {
  const data = sample(9 * C + 1234)
  const packed = await through(data, [createZstdCompress({ frameBytes: C, index: indexOf(40_000) })])
  const source = openPlain(async (offset, length) => packed.subarray(offset, offset + length), packed.length)
  const seekable = await openSeekable(source)
  assert.ok(seekable?.hasIndex)
  assert.equal(seekable.size, data.length)
  assert.equal(seekable.frames, 11)
  await fc.assert(
    fc.asyncProperty(fc.nat(data.length), fc.nat(data.length), async (a, b) => {
      const [start, end] = [Math.min(a, b), Math.max(a, b)]
      assert.deepEqual(await seekable.read(start, end - start), data.subarray(start, end))
    }),
    { numRuns: 60 },
  )
  assert.deepEqual(await seekable.head(), headOf(data.length, 40_000))
  let entries = 0
  for await (const entry of seekable.entries()) {
    assert.equal(entry.path, `region/r.${entries}.mca`)
    entries += 1
  }
  assert.equal(entries, 40_000)
  seekable.close()
})

test('the work ends with the stream: nothing is left that keeps the process', async () => {
  const script = `
    import { createZstdCompress } from './transforms/index.ts'
    const stream = createZstdCompress()
    stream.on('error', () => {})
    stream.write(Buffer.alloc(20 << 20))
    stream.destroy(new Error('stop'))
  `
  execFileSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 10_000 })
})

test('options out of range are refused', () => {
  for (const options of [{ level: 0 }, { level: 23 }, { frameBytes: 1000 }, { threads: 0 }, { level: 1.5 }]) {
    assert.throws(() => createZstdCompress(options), hasCode('BAD_OPTION'))
  }
})
