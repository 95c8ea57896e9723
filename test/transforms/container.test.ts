import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  createDecrypt,
  createEncrypt,
  createSeedDecrypt,
  createSeedEncrypt,
  frameCount,
  HEADER_BYTES,
  openSealed,
  plainSize,
  sealedSize,
  TransformError,
} from '../../transforms/index.ts'
import { prepareOpenerOf } from '../../transforms/open-sealed.ts'
import { openingStage } from '../../transforms/seal-thread.ts'
import { sample, through } from '../support/streams.ts'

const F = 4096
const key = Buffer.alloc(32, 7)

function seal(plain: Buffer, writeBytes?: number): Promise<Buffer> {
  return through(plain, [createEncrypt({ key, frameBytes: F })], writeBytes)
}

function open(sealed: Buffer, writeBytes?: number): Promise<Buffer> {
  return through(sealed, [createDecrypt({ key })], writeBytes)
}

function hasCode(...codes: string[]) {
  return (error: unknown) => error instanceof TransformError && codes.includes(error.code)
}

test('every boundary length and write size makes the round trip, in a container of exactly sealedSize', async () => {
  for (const length of [0, 1, F - 1, F, F + 1, 2 * F - 1, 2 * F, 2 * F + 1, 5 * F + 17]) {
    const plain = sample(length)
    for (const writeBytes of [1, 7, 4096, 65536, undefined]) {
      const sealed = await seal(plain, writeBytes)
      assert.equal(sealed.length, sealedSize(length, F))
      assert.equal(plainSize(sealed.length, F), length)
      assert.deepEqual(await open(sealed, writeBytes), plain)
    }
  }
})

test('any split of the bytes makes the round trip', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 3 * F }), fc.integer({ min: 1, max: 2 * F }), async (bytes, split) => {
      const plain = Buffer.from(bytes)
      assert.deepEqual(await open(await seal(plain, split), (split % 977) + 1), plain)
    }),
    { numRuns: 60 },
  )
})

test('plainSize is the inverse of sealedSize and rejects every other length', () => {
  const valid = new Map<number, number>()
  for (let plain = 0; plain <= 3 * F; plain += 1) valid.set(sealedSize(plain, F), plain)
  for (let size = 0; size <= sealedSize(3 * F, F); size += 1) {
    if (valid.has(size)) assert.equal(plainSize(size, F), valid.get(size))
    else assert.throws(() => plainSize(size, F), hasCode('TRUNCATED'))
  }
  assert.equal(frameCount(F, F), 2)
})

test('a password opens what it sealed, in any Unicode form, among several; another does not', async () => {
  const plain = sample(100)
  const sealed = await through(plain, [createEncrypt({ password: 'pâte', iterations: 100_000 })])
  assert.deepEqual(await through(sealed, [createDecrypt({ password: 'pa\u0302te' })]), plain)
  assert.deepEqual(await through(sealed, [createDecrypt({ password: ['old', 'pâte'] })]), plain)
  await assert.rejects(through(sealed, [createDecrypt({ password: 'pate' })]), hasCode('WRONG_KEY'))
  await assert.rejects(through(sealed, [createDecrypt({ key })]), hasCode('WRONG_KEY'))
})

test('T26: an empty password, a NUL, a 31-byte key, both or neither are refused at once', () => {
  for (const material of [{ password: '' }, { password: 'a\0b' }, { key: Buffer.alloc(31) }, {}]) {
    assert.throws(() => createEncrypt(material), hasCode('BAD_KEY'))
    assert.throws(() => createDecrypt(material), hasCode('BAD_KEY'))
  }
  assert.throws(() => createEncrypt({ password: 'x', key }), hasCode('BAD_KEY'))
  assert.throws(() => createEncrypt({ password: 'x', iterations: 99_999 }), hasCode('BAD_OPTION'))
  assert.throws(() => createEncrypt({ key, frameBytes: 5000 }), hasCode('BAD_OPTION'))
})

test('options of a wrong type, as programs without types give them, are told as that', () => {
  const wrong = [null, 5, {}, new ArrayBuffer(32), Buffer.alloc(31), new Uint16Array(16)]
  for (const value of wrong as never[]) {
    for (const make of [createEncrypt, createDecrypt, createSeedEncrypt, createSeedDecrypt]) {
      assert.throws(() => make({ password: value }), hasCode('BAD_KEY'))
    }
    for (const make of [createEncrypt, createDecrypt]) {
      assert.throws(() => make({ key: value }), hasCode('BAD_KEY'))
    }
    assert.throws(() => createDecrypt({ password: ['a', value] }), hasCode('BAD_KEY'))
  }
  assert.throws(() => createEncrypt({ key, frameBytes: '4096' as never }), hasCode('BAD_OPTION'))
  assert.throws(() => sealedSize(1, '4096' as never), hasCode('BAD_OPTION'))
})

test('T2: frames swapped, repeated, dropped or taken from another container are rejected', async () => {
  const S = F + 28
  const sealed = await seal(sample(3 * F + 5))
  const other = await seal(sample(3 * F + 5))
  const header = sealed.subarray(0, HEADER_BYTES)
  const frame = (of: Buffer, i: number) => of.subarray(HEADER_BYTES + i * S, HEADER_BYTES + (i + 1) * S)
  const frames = [0, 1, 2, 3].map((i) => frame(sealed, i))
  const [a, b, c, d] = frames as [Buffer, Buffer, Buffer, Buffer]
  const arrangements = [
    [b, a, c, d],
    [a, a, b, c, d],
    [a, c, d],
    [a, b, d],
    [b, c, d],
    [a, frame(other, 1), c, d],
    [a, b, c, frame(other, 3)],
    [a, b, c],
    [d],
    [],
  ]
  for (const arrangement of arrangements) {
    await assert.rejects(open(Buffer.concat([header, ...arrangement])), hasCode('AUTH_FAILED', 'TRUNCATED'))
  }
  await assert.rejects(open(Buffer.concat([other.subarray(0, HEADER_BYTES), ...frames])), hasCode('AUTH_FAILED'))
})

test('the header is checked field by field, before anything is derived', async () => {
  const sealed = await seal(sample(10))
  const withByte = (at: number, value: number) => {
    const changed = Buffer.from(sealed)
    changed[at] = value
    return changed
  }
  const cases: [number, number, string][] = [
    [0, 0, 'NOT_SEALED'],
    [8, 2, 'UNSUPPORTED'],
    [9, 2, 'UNSUPPORTED'],
    [10, 2, 'UNSUPPORTED'],
    [11, 11, 'BAD_HEADER'],
    [11, 25, 'BAD_HEADER'],
    [15, 1, 'BAD_HEADER'],
    [16, (sealed[16] as number) ^ 1, 'WRONG_KEY'],
    [40, (sealed[40] as number) ^ 1, 'WRONG_KEY'],
  ]
  for (const [at, value, code] of cases) await assert.rejects(open(withByte(at, value)), hasCode(code), `byte ${at}`)
  const slow = withByte(10, 1)
  slow.writeUInt32BE(4_000_000_000, 12)
  await assert.rejects(through(slow, [createDecrypt({ password: 'x' })]), hasCode('BAD_HEADER'))
})

test('the ranged reader agrees with the whole reader and refuses a lying length', async () => {
  const plain = sample(40 * F + 123)
  const sealed = await seal(plain)
  const reads: number[] = []
  const readRange = async (offset: number, length: number) => {
    reads.push(length)
    return Buffer.from(sealed.subarray(offset, offset + length))
  }
  const ranged = await openSealed(readRange, sealed.length, { key })
  assert.equal(ranged.size, plain.length)
  assert.deepEqual(reads, [HEADER_BYTES, 123 + 28])
  await fc.assert(
    fc.asyncProperty(fc.nat(plain.length), fc.nat(plain.length), async (a, b) => {
      const [start, end] = [Math.min(a, b), Math.max(a, b)]
      assert.deepEqual(await ranged.read(start, end - start), plain.subarray(start, end))
    }),
    { numRuns: 100 },
  )
  await assert.rejects(ranged.read(plain.length, 1), RangeError)
  for (const cut of [1, 151, 152, 4096, F + 28]) {
    const size = sealed.length - cut
    await assert.rejects(openSealed(readRange, size, { key }), hasCode('AUTH_FAILED', 'TRUNCATED'))
  }
})

test('a whole read takes the keys of the ranged one, for the same header alone and until it is closed', async () => {
  const plain = sample(3 * F)
  const [sealed, other] = [await seal(plain), await seal(plain)]
  const ranged = await openSealed(async (at, bytes) => sealed.subarray(at, at + bytes), sealed.length, { key })
  // Which opens nothing by itself.
  const wrong = { key: Buffer.alloc(32, 99) }
  for (const onThread of [false, true]) {
    const read = (bytes: Buffer) =>
      through(bytes, [...openingStage(prepareOpenerOf(ranged, wrong), { onThread }).transforms])
    assert.deepEqual(await read(sealed), plain)
    await assert.rejects(read(other), hasCode('WRONG_KEY'))
    const flipped = Buffer.from(sealed)
    flipped[HEADER_BYTES - 1]! ^= 1
    await assert.rejects(read(flipped), hasCode('WRONG_KEY'))
  }
  ranged.close()
  const late = openingStage(prepareOpenerOf(ranged, wrong), { onThread: false })
  await assert.rejects(through(sealed, [...late.transforms]), hasCode('WRONG_KEY'))
})

test('two containers of the same plaintext share no frame', async () => {
  const plain = randomBytes(100)
  const [one, two] = [await seal(plain), await seal(plain)]
  assert.notDeepEqual(one.subarray(HEADER_BYTES), two.subarray(HEADER_BYTES))
})

test('no nonce is used twice in a container, however many frames it has', async () => {
  const frames = 600
  const sealed = await seal(Buffer.alloc((frames - 1) * F))
  const nonces = new Set<string>()
  for (let at = HEADER_BYTES; at < sealed.length; at += F + 28) nonces.add(sealed.toString('hex', at, at + 12))
  assert.equal(nonces.size, frames)
})

test('key material is wiped when a stream ends, fails or is destroyed', async (t) => {
  const original = Buffer.prototype.fill
  let wiped = 0
  t.mock.method(Buffer.prototype, 'fill', function (this: Buffer, ...args: Parameters<Buffer['fill']>) {
    if (args[0] === 0 && this.length === 32) wiped += 1
    return original.apply(this, args)
  })
  const count = () => {
    const calls = wiped
    wiped = 0
    return calls
  }
  const sealed = await seal(sample(10_000))
  // The copy of the raw key, and the two keys that are derived from it.
  assert.ok(count() >= 3)
  await open(sealed)
  assert.ok(count() >= 3)
  sealed[5000] = (sealed[5000] as number) ^ 1
  await assert.rejects(open(sealed))
  assert.ok(count() >= 3)
  const stream = createEncrypt({ key })
  stream.write('x', () => stream.destroy())
  await new Promise((resolve) => stream.on('close', resolve))
  assert.ok(count() >= 3)
})

test('derivation leaves the main thread free', async () => {
  const stream = createEncrypt({ password: 'slow', iterations: 3_000_000 })
  let turns = 0
  const timer = setInterval(() => {
    turns += 1
  }, 1)
  stream.end('x')
  for await (const _ of stream);
  clearInterval(timer)
  assert.ok(turns > 50, `${turns} turns of the event loop in about a second`)
})
