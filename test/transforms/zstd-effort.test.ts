import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { seededBytes } from '../../bench/world.ts'
import { FAST_LEVEL, FrameCompressor, hasRepeats } from '../../transforms/zstd-codec.ts'

const FRAME_BYTES = 4 * 1024 * 1024
const SECTOR_BYTES = 4096

/** Sectors of compressed chunks, each filled up with zeros: as a game's region files are. */
function sectors(seed: string): Buffer {
  const random = seededBytes(seed)
  const frame = Buffer.alloc(FRAME_BYTES)
  for (let at = 0; at < FRAME_BYTES; at += SECTOR_BYTES) random(2700).copy(frame, at)
  return frame
}

/** Program text, for which a level above 1 is worth its time. */
function program(): Buffer {
  return readFileSync(createRequire(import.meta.url).resolve('typescript6')).subarray(0, FRAME_BYTES)
}

/** Random bytes, each stretch of 700 KiB twice, at steps of whole blocks of 512. */
function twice(): Buffer {
  const random = seededBytes('twice')
  const stretches = [1, 2].map(() => random(700 * 1024)).flatMap((stretch) => [stretch, stretch])
  return Buffer.concat([...stretches, random(FRAME_BYTES - 4 * 700 * 1024)])
}

async function sizes(frame: Buffer): Promise<{ adaptive: Buffer; full: Buffer; fast: Buffer }> {
  const compressors = [
    new FrameCompressor(3, FRAME_BYTES),
    new FrameCompressor(3, FRAME_BYTES, false),
    new FrameCompressor(FAST_LEVEL, FRAME_BYTES),
  ]
  const [adaptive, full, fast] = await Promise.all(
    compressors.map(async (one) => Buffer.from(await one.compress(frame))),
  )
  // A context that has had other frames before gives the same.
  assert.deepEqual(Buffer.from(await (compressors[0] as FrameCompressor).compress(frame)), adaptive)
  for (const one of compressors) one.close()
  for (const sealed of [adaptive, full, fast]) assert.ok(zstdDecompressSync(sealed as Buffer).equals(frame))
  return { adaptive: adaptive as Buffer, full: full as Buffer, fast: fast as Buffer }
}

test('a frame in which the level finds nothing is compressed fast', async () => {
  const { adaptive, full, fast } = await sizes(sectors('a'))
  assert.deepEqual(adaptive, fast)
  assert.ok(adaptive.length < full.length * 1.005)
  const random = await sizes(seededBytes('random')(FRAME_BYTES))
  assert.deepEqual(random.adaptive, random.fast)
})

/** Numbers that repeat nothing, and of whose bytes some are more frequent than others: only Huffman codes make them smaller. */
function numbers(): Buffer {
  const noise = seededBytes('noise')(FRAME_BYTES)
  const values = new Float32Array(FRAME_BYTES / 4)
  for (let at = 0; at < values.length; at += 1) {
    values[at] = Math.sin(at / 1000) * 100 + noise.readUInt32LE(at * 4) / 2 ** 39
  }
  return Buffer.from(values.buffer)
}

test('numbers that only codes make smaller are compressed at the level, as the fast one uses none', async () => {
  const { adaptive, full, fast } = await sizes(numbers())
  assert.deepEqual(adaptive, full)
  assert.ok(full.length < fast.length * 0.95)
})

test('a frame in which it finds something is compressed at the level', async () => {
  const frame = program()
  assert.equal(frame.length, FRAME_BYTES)
  const { adaptive, full, fast } = await sizes(frame)
  assert.deepEqual(adaptive, full)
  assert.ok(full.length < fast.length)
})

test('a copy that no sample can see is looked for', async () => {
  const frame = twice()
  assert.equal(hasRepeats(frame), true)
  assert.equal(hasRepeats(sectors('b')), false)
  const { adaptive, full, fast } = await sizes(frame)
  assert.deepEqual(adaptive, full)
  assert.ok(full.length < fast.length * 0.8)
})

test('frames too small for a sample are compressed at the level', async () => {
  const small = program().subarray(0, 300_000)
  const { adaptive, full } = await sizes(small)
  assert.deepEqual(adaptive, full)
})
