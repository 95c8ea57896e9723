import assert from 'node:assert/strict'
import { PassThrough, Transform } from 'node:stream'
import { finished } from 'node:stream/promises'
import { test } from 'node:test'
import {
  composeBytes,
  createHashTee,
  createZstdCompress,
  openPlain,
  openSealed,
  openSeekable,
  type Seekable,
  seal,
  TransformError,
  unseal,
} from '../../transforms/index.ts'
import { MemoryLedger } from '../support/frame-ledger.ts'
import { feed, sample, through } from '../support/streams.ts'

const key = Buffer.alloc(32, 8)

test('seal and unseal are inverse, and what is sealed is seekable', async () => {
  for (const length of [0, 1, 65_536, 5_000_000]) {
    const data = sample(length)
    const sealed = await through(data, [seal({ key, zstdFrameBytes: 65_536, frameBytes: 4096 })], 100_000)
    assert.deepEqual(await through(sealed, [unseal({ key })], 33_333), data)
    const source = await openSealed(async (at, count) => sealed.subarray(at, at + count), sealed.length, { key })
    const seekable = await openSeekable(source)
    assert.deepEqual(
      await seekable?.read(Math.floor(length / 2), Math.floor(length / 3)),
      data.subarray(Math.floor(length / 2), Math.floor(length / 2) + Math.floor(length / 3)),
    )
  }
})

test('what is sealed goes into the ledger, and is sealed again as it was', async () => {
  const options = { key, zstdFrameBytes: 65_536, frameBytes: 4096 }
  const first = new MemoryLedger()
  const sealed = await through(sample(100_000), [seal({ ...options, ledger: first })])
  assert.ok(first.begun[0]?.equals(sealed.subarray(0, 64)))
  assert.ok(first.seals.length > 1)
  const again = await through(sample(100_000), [seal({ ...options, ledger: new MemoryLedger(first, 1) })])
  assert.ok(again.subarray(0, 64 + 4096 + 28).equals(sealed.subarray(0, 64 + 4096 + 28)))
  const other = seal({ ...options, ledger: new MemoryLedger(first) })
  await assert.rejects(through(sample(100_000, 2), [other]), { code: 'DIFFERS' })
})

test('seal tells of the chunks that it was given, not of those between its halves', async () => {
  const chunks = [sample(70_000), sample(10)]
  const told: Buffer[] = []
  const whole = seal({ key, zstdFrameBytes: 65_536, onConsumed: (chunk) => told.push(chunk) })
  whole.resume()
  for (const chunk of chunks) whole.write(chunk)
  await finished(whole.end())
  assert.equal(told.length, chunks.length)
  for (const [i, chunk] of chunks.entries()) assert.ok(told[i]?.equals(chunk))
})

test('what is closed is told as closed, not as damaged, and what is being read is read to its end', async () => {
  const data = sample(1_000_000)
  const object = await through(data, [seal({ key, zstdFrameBytes: 65_536 })])
  const read = async (at: number, count: number) => object.subarray(at, at + count)
  const sealed = await openSealed(read, object.length, { key })
  const zst = await through(data, [createZstdCompress({ frameBytes: 65_536 })])
  for (const source of [sealed, openPlain(async (at, count) => zst.subarray(at, at + count), zst.length)]) {
    const seekable = (await openSeekable(source)) as Seekable
    assert.deepEqual(await seekable.read(0, 10), data.subarray(0, 10))
    seekable.close()
    assert.deepEqual(await seekable.read(0, 10), data.subarray(0, 10))
    const pieces: Buffer[] = []
    for await (const piece of seekable.createReadStream()) {
      pieces.push(piece)
      seekable.close()
    }
    assert.ok(Buffer.concat(pieces).equals(data))
    for (const frame of [-1, 0.5, seekable.frames]) assert.throws(() => seekable.frame(frame), RangeError)
    assert.equal(seekable.frame(seekable.frames - 1).contentAt, Math.floor(data.length / 65_536) * 65_536)
  }
  sealed.close()
  await assert.rejects(sealed.read(0, 10), { name: 'Error', message: /was closed/ })
})

test('seal and unseal refuse bad options at once, and fail with the error of the half that failed', async () => {
  assert.throws(() => seal({ password: '' }), { code: 'BAD_KEY' })
  assert.throws(() => seal({ key, level: 99 }), { code: 'BAD_OPTION' })
  assert.throws(() => unseal({}), { code: 'BAD_KEY' })
  const sealed = await through(sample(1000), [seal({ key })])
  const isCode = (code: string) => (error: unknown) => error instanceof TransformError && error.code === code
  await assert.rejects(through(sealed, [unseal({ key: Buffer.alloc(32) })]), isCode('WRONG_KEY'))
  await assert.rejects(through(sealed.subarray(0, -1), [unseal({ key })]), isCode('AUTH_FAILED'))
})

test('a chain fails and closes as one, whichever of its streams fails or is closed, without pipeline too', async () => {
  for (const which of [0, 1, 2]) {
    for (const error of [new Error('inner'), undefined]) {
      const streams = [createHashTee(), createZstdCompress(), createHashTee()]
      const whole = composeBytes(streams)
      whole.resume()
      feed(sample(100_000), 1000).pipe(whole, { end: false })
      setImmediate(() => streams[which]?.destroy(error))
      await assert.rejects(finished(whole), error ?? /closed before its end/)
      assert.ok(streams.every((stream) => stream.destroyed))
    }
  }
})

test('a chain fails with what a handler throws while bytes are written to it', async () => {
  for (const which of [0, 1]) {
    const streams = [new PassThrough(), new PassThrough(), createHashTee()]
    streams[which] = new Transform({
      transform() {
        throw new Error('thrown')
      },
    })
    const whole = composeBytes(streams)
    whole.resume()
    const failed = finished(whole)
    whole.write(sample(1000))
    await assert.rejects(failed, { message: 'thrown' })
    assert.ok(streams.every((stream) => stream.destroyed))
  }
})

test('a range that is shorter or longer than was asked for is told, sealed or plain', async () => {
  const data = sample(3_000_000)
  const object = await through(data, [seal({ key })])
  const source = await openSealed(async (at, count) => object.subarray(at, at + count), object.length, { key })
  const plain = await source.read(0, source.size)
  source.close()
  for (const bytes of [-1, 1]) {
    let late = false
    const of = (whole: Buffer) => async (at: number, count: number) =>
      Buffer.concat([whole, Buffer.alloc(1)]).subarray(at, at + count + (late ? bytes : 0))
    const sources = [await openSealed(of(object), object.length, { key }), openPlain(of(plain), plain.length)]
    late = true
    for (const one of sources) {
      await assert.rejects(one.read(0, one.size), { code: 'TRUNCATED' })
      await assert.rejects(one.createReadStream().toArray(), { code: 'TRUNCATED' })
    }
  }
})
