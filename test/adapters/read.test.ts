import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { type OpenedRange, promisedLength, type RangeRequest, ResumingReadable } from '../../adapters/read.ts'
import { failure, fakeClock } from '../support/scripted-store.ts'

const BYTES = randomBytes(1000)
const quick = { attempts: 3, baseMs: 1, capMs: 1, deadlineMs: 1000 }

/** Opens a range of BYTES; `spoil` may make another body of it. */
function reader(spoil: (body: Buffer, count: number) => Partial<OpenedRange> | undefined, options = {}) {
  const requests: RangeRequest[] = []
  const stream = new ResumingReadable({
    adapter: 'scripted',
    key: 'a/key',
    clock: fakeClock(),
    callRetry: quick,
    resumeRetry: quick,
    open: async (request) => {
      requests.push(request)
      const part = BYTES.subarray(request.start, (request.end ?? BYTES.length) + 1)
      return { body: Readable.from([part]), length: part.length, version: 'v1', ...spoil(part, requests.length) }
    },
    ...options,
  })
  return { stream, requests }
}

function thatBreaks(bytes: Buffer, error: Error | undefined): Readable {
  const body = new PassThrough()
  body.write(bytes)
  if (error) setImmediate(() => body.destroy(error))
  return body
}

describe('ResumingReadable', () => {
  it('T13: a body that drops, ends early, or closes silently is gone on with, at the byte it came to', async () => {
    const breaks = [
      (part: Buffer) => thatBreaks(part.subarray(0, 300), new Error('ECONNRESET')),
      (part: Buffer) => Readable.from([part.subarray(0, 300)]),
      (part: Buffer) => {
        const body = thatBreaks(part.subarray(0, 300), undefined)
        body.once('data', () => setImmediate(() => body.destroy()))
        return body
      },
    ]
    for (const breakOff of breaks) {
      const { stream, requests } = reader((part, count) => (count <= 2 ? { body: breakOff(part) } : undefined))
      assert.ok((await buffer(stream)).equals(BYTES))
      assert.deepEqual(
        requests.map(({ start, version }) => [start, version]),
        [
          [0, undefined],
          [300, 'v1'],
          [600, 'v1'],
        ],
      )
    }
  })

  it('leaves no timer behind when it is destroyed by who is being given a chunk', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    const before = timers()
    const { stream } = reader(() => undefined)
    stream.once('data', () => stream.destroy())
    await new Promise((resolve) => stream.once('close', resolve))
    assert.equal(timers(), before)
  })

  it('T13: a body that stalls is dropped and gone on with', async () => {
    const { stream, requests } = reader(
      (part, count) => (count === 1 ? { body: thatBreaks(part.subarray(0, 100), undefined) } : undefined),
      { idleMs: 20, start: 50, end: 899 },
    )
    assert.ok((await buffer(stream)).equals(BYTES.subarray(50, 900)))
    assert.deepEqual(
      requests.map(({ start, end }) => [start, end]),
      [
        [50, 899],
        [150, 899],
      ],
    )
  })

  it('T13: a slow consumer is not a stall', async () => {
    const { stream, requests } = reader(() => undefined, { idleMs: 10 })
    await new Promise((resolve) => stream.once('readable', resolve))
    await new Promise((resolve) => setTimeout(resolve, 60))
    assert.ok((await buffer(stream)).equals(BYTES))
    assert.equal(requests.length, 1)
  })

  it('T13: bodies that bring nothing again and again are an error', async () => {
    const { stream } = reader((part, count) => ({ body: Readable.from(count === 1 ? [part.subarray(0, 10)] : []) }))
    await assert.rejects(buffer(stream), { code: 'UNAVAILABLE', message: /after 10 of 1000 bytes/ })
  })

  it('T14: another version, or another length, is an error', async () => {
    const cut = (part: Buffer) => ({ body: Readable.from([part.subarray(0, 10)]) })
    const replaced = reader((part, count) => (count === 1 ? cut(part) : { version: 'v2' }))
    await assert.rejects(buffer(replaced.stream), { code: 'CONFLICT' })
    const shorter = reader((part, count) => (count === 1 ? cut(part) : { length: part.length - 1 }))
    await assert.rejects(buffer(shorter.stream), { code: 'CORRUPT', message: /offers 999 bytes where/ })
    // An object that is said to end earlier, and does, would else be a shorter one without an error.
    const ending = (part: Buffer) => ({ body: Readable.from([part.subarray(0, 500)]), length: 500 })
    const cutOff = reader((part, count) => (count === 1 ? cut(part) : ending(part)))
    await assert.rejects(buffer(cutOff.stream), { code: 'CORRUPT' })
    const pinned = reader(() => undefined, { version: 'v0' })
    await assert.rejects(buffer(pinned.stream), { code: 'CONFLICT' })
  })

  it('more bytes than were promised are an error', async () => {
    const { stream } = reader(() => ({ length: 999 }))
    await assert.rejects(buffer(stream), { code: 'CORRUPT', message: /brings more than the 999 bytes/ })
  })

  it('T13: one that breaks off any number of times is read to its end, as long as each body brings something', async () => {
    const { stream, requests } = reader((part) => ({ body: Readable.from([part.subarray(0, 50)]) }))
    assert.ok((await buffer(stream)).equals(BYTES))
    assert.equal(requests.length, 20)
  })

  it('an answer promises the bytes that were asked for, or nothing', () => {
    const ranged = (start: number, end: number | undefined, contentRange: string) =>
      promisedLength(start, end, { contentRange, contentLength: 50 })
    assert.equal(ranged(50, 99, 'bytes 50-99/1000'), 50)
    assert.equal(ranged(950, undefined, 'bytes 950-999/1000'), 50)
    assert.equal(ranged(950, 2000, 'bytes 950-999/1000'), 50)
    assert.equal(ranged(50, 199, 'bytes 50-99/1000'), undefined)
    assert.equal(ranged(50, undefined, 'bytes 50-99/1000'), undefined)
    assert.equal(ranged(0, 49, 'bytes 50-99/1000'), undefined)
    const whole = (start: number, end: number | undefined) =>
      promisedLength(start, end, { contentRange: undefined, contentLength: 50 })
    assert.deepEqual([whole(0, undefined), whole(0, 49), whole(0, 99)], [50, 50, 50])
    assert.deepEqual([whole(0, 48), whole(1, undefined)], [undefined, undefined])
  })

  it('open is retried while its error may pass, and its last error is passed on', async () => {
    let calls = 0
    const { stream } = reader(() => {
      if (++calls < 3) throw failure('UNAVAILABLE', 'read')
      return undefined
    })
    assert.ok((await buffer(stream)).equals(BYTES))
    const gone = reader(() => {
      throw failure('NOT_FOUND', 'read')
    })
    await assert.rejects(buffer(gone.stream), { code: 'NOT_FOUND' })
    assert.equal(gone.requests.length, 1)
  })

  it('closes only when the request beneath is over: while it is read, and while one is awaited', async () => {
    for (const late of [false, true]) {
      const settled = Promise.withResolvers<void>()
      let over = false
      const body = new Readable({
        read() {},
        destroy(error, callback) {
          setTimeout(() => {
            over = true
            callback(error)
          }, 20)
        },
      })
      body.push(BYTES.subarray(0, 10))
      const answer = async () => {
        if (late) await settled.promise
        return { body, length: 1000, version: 'v1' }
      }
      const { stream } = reader(() => undefined, { open: answer })
      const closed = new Promise((resolve) => stream.once('close', resolve))
      if (late) {
        stream.resume()
        await new Promise((resolve) => setImmediate(resolve))
      } else await new Promise((resolve) => stream.once('readable', resolve))
      stream.destroy()
      settled.resolve()
      await closed
      assert.ok(over)
    }
  })

  it('asks for nothing before it is read, and lets go of a body that comes too late', async () => {
    const late = Promise.withResolvers<OpenedRange>()
    const body = thatBreaks(BYTES, undefined)
    const { stream } = reader(() => undefined, { open: () => late.promise })
    const closed = new Promise((resolve) => stream.once('close', resolve))
    stream.resume()
    await new Promise((resolve) => setImmediate(resolve))
    stream.destroy()
    late.resolve({ body, length: 1000, version: 'v1' })
    await closed
    assert.ok(body.destroyed)
    const untouched = reader(() => undefined)
    untouched.stream.destroy()
    assert.equal(untouched.requests.length, 0)
  })
})
