import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { createDecrypt, HEADER_BYTES, sealedSize, TransformError } from '../../transforms/index.ts'
import { giveBack, lend, lendMovable } from '../../transforms/lending.ts'
import { createHashThread, createOpenThread, createSealThread } from '../../transforms/seal-thread.ts'
import { sample, through } from '../support/streams.ts'
import { threadsOf } from '../support/threads.ts'

const F = 4096
const key = Buffer.alloc(32, 7)
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const out: Buffer[] = []
  for await (const chunk of source) out.push(Buffer.from(chunk))
  return Buffer.concat(out)
}

test('what is sealed on a thread is opened by the other reader, and on a thread, however it is cut', async () => {
  const lengths = [0, 1, F - 1, F, F + 1, 3 * F, 5 * F + 17, 300_000]
  const writes = fc.integer({ min: 1, max: 3 * F })
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...lengths), writes, writes, async (length, one, two) => {
      const plain = sample(length)
      const seal = createSealThread({ key, frameBytes: F })
      const sealed = await through(plain, [seal], one)
      assert.equal(sealed.length, sealedSize(length, F))
      assert.deepEqual([seal.bytes, seal.digest], [sealed.length, sha256(sealed)])
      assert.ok((await through(sealed, [createDecrypt({ key })], two)).equals(plain))
      const open = createOpenThread({ key })
      assert.ok((await through(sealed, [open], two)).equals(plain))
      assert.deepEqual([open.bytes, open.digest], [sealed.length, sha256(sealed)])
    }),
    { numRuns: 25 },
  )
})

test('a password seals and opens on a thread, and another one does not open', async () => {
  const sealed = await through(sample(10_000), [createSealThread({ password: 'a', iterations: 100_000 })])
  assert.ok((await through(sealed, [createOpenThread({ password: ['b', 'a'] })])).equals(sample(10_000)))
  const wrong = createOpenThread({ password: 'b' })
  await assert.rejects(through(sealed, [wrong]), { name: 'TransformError', code: 'WRONG_KEY' })
  assert.throws(() => wrong.digest, /when the stream has ended/)
})

test('a frame that does not authenticate is named, what was before it has left, and nothing of it', async () => {
  const plain = sample(5 * F + 10)
  const sealed = await through(plain, [createSealThread({ key, frameBytes: F })])
  for (const frame of [0, 2, 5]) {
    const changed = Buffer.from(sealed)
    const at = HEADER_BYTES + frame * (F + 28) + 20
    changed[at] = (changed[at] as number) ^ 1
    const open = createOpenThread({ key })
    const out: Buffer[] = []
    open.on('data', (chunk: Buffer) => out.push(Buffer.from(chunk)))
    const error = await pipeline(Readable.from([changed.subarray(0, 6000), changed.subarray(6000)]), open).catch(
      (failure: unknown) => failure,
    )
    assert.ok(error instanceof TransformError && error.code === 'AUTH_FAILED' && error.frame === frame, `${error}`)
    const left = Buffer.concat(out)
    assert.ok(left.length <= frame * F && left.equals(plain.subarray(0, left.length)))
  }
})

test('memory goes to the thread and back, and what was not given is copied', async () => {
  const plain = sample(40 * 100_000)
  let returned = 0
  function* chunks(): Generator<Buffer> {
    for (let i = 0; i < 40; i++) {
      const memory = Buffer.allocUnsafeSlow(150_000)
      const chunk = memory.subarray(0, plain.copy(memory, 0, i * 100_000, (i + 1) * 100_000))
      if (i % 3 === 0) {
        lendMovable(chunk, (back) => {
          assert.equal(back.byteLength, 150_000)
          assert.equal(memory.byteLength, 0, 'it was moved')
          returned++
        })
      } else if (i % 3 === 1) {
        lend(chunk, () => returned++)
      }
      yield chunk
    }
  }
  let consumed = 0
  const seal = createSealThread({
    key,
    frameBytes: 65536,
    onConsumed: (chunk) => {
      consumed++
      giveBack(chunk)
    },
  })
  const out: Buffer[] = []
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      out.push(Buffer.from(chunk))
      giveBack(chunk)
      callback()
    },
  })
  await pipeline(Readable.from(chunks(), { objectMode: false }), seal, sink)
  assert.ok((await through(Buffer.concat(out), [createDecrypt({ key })])).equals(plain))
  assert.deepEqual([returned, consumed], [27, 26])
})

test('chunks that are the stream’s own are moved, and those that share their memory are not', async () => {
  const plain = sample(1_000_000)
  const own: Buffer[] = []
  const shared: Buffer[] = []
  for (let at = 0; at < plain.length; at += 100_000) {
    const chunk = Buffer.allocUnsafeSlow(100_000)
    plain.copy(chunk, 0, at)
    own.push(chunk)
    shared.push(plain.subarray(at, at + 100_000))
  }
  const two = createHashThread({ ownsChunks: true })
  assert.ok((await collect(Readable.from(own, { objectMode: false }).pipe(two))).equals(plain))
  assert.ok(own.every((chunk) => chunk.byteLength === 0))
  const one = createHashThread({ ownsChunks: true })
  assert.ok((await collect(Readable.from(shared, { objectMode: false }).pipe(one))).equals(sample(1_000_000)))
  assert.deepEqual([one.digest, one.bytes], [sha256(plain), plain.length])
  assert.equal(two.digest, one.digest)
})

test('a hash thread passes on what is lent, and takes it back', async () => {
  let back = 0
  function* chunks(): Generator<Buffer> {
    for (let i = 0; i < 20; i++) {
      const chunk = Buffer.alloc(70_000, i)
      lendMovable(chunk, (memory) => {
        assert.equal(memory.byteLength, 70_000)
        back++
      })
      yield chunk
    }
  }
  const hash = createHashThread()
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      assert.equal(chunk.length, 70_000)
      assert.equal(giveBack(chunk), true)
      callback()
    },
  })
  await pipeline(Readable.from(chunks(), { objectMode: false }), hash, sink)
  assert.equal(back, 20)
  assert.equal(hash.digest, sha256(Buffer.concat(Array.from({ length: 20 }, (_, i) => Buffer.alloc(70_000, i)))))
})

test('while nobody reads, a thread takes only what it can hold', async () => {
  let given = 0
  function* chunks(): Generator<Buffer> {
    for (; given < 400; given++) yield Buffer.alloc(256 * 1024, given)
  }
  const seal = createSealThread({ key, frameBytes: 65536 })
  const source = Readable.from(chunks(), { objectMode: false, highWaterMark: 1 })
  source.pipe(seal)
  await new Promise((resolve) => setTimeout(resolve, 500))
  assert.ok(given < 24, `${given} chunks of 256 KiB were taken`)
  const sealed = await collect(seal)
  assert.equal(given, 400)
  assert.equal(sealed.length, sealedSize(400 * 256 * 1024, 65536))
})

test('a thread that is destroyed, early or in the middle, is gone when it has closed', async (t) => {
  const threads = threadsOf(t)
  for (const wait of [0, 5, 50, 200]) {
    const seal = createSealThread({ password: 'x', iterations: 100_000 })
    seal.on('error', () => {})
    seal.write(sample(200_000))
    await new Promise((resolve) => setTimeout(resolve, wait))
    seal.destroy(new Error('enough'))
    await new Promise((resolve) => seal.once('close', resolve))
    assert.throws(() => seal.digest)
  }
  assert.deepEqual(
    threads.map(({ threadId }) => threadId),
    [-1, -1, -1, -1],
  )
})

test('memory that cannot be moved fails the stream, and a thread that dies says so', async (t) => {
  const shared = Buffer.from(new SharedArrayBuffer(100_000))
  const refusing = createHashThread({ ownsChunks: true })
  const failed = new Promise((resolve) => refusing.once('error', resolve))
  // Not out of write: a pipe would take it for its own.
  assert.doesNotThrow(() => refusing.write(shared))
  assert.match(String(await failed), /DataCloneError/)
  const threads = threadsOf(t)
  const dying = createSealThread({ key })
  dying.write(sample(1000))
  await new Promise((resolve) => setTimeout(resolve, 50))
  void threads[0]?.terminate()
  await assert.rejects(collect(dying), {
    name: 'TransformError',
    code: 'THREAD',
    message: /thread .* has ended\. Run it again\./,
  })
})

test('a bad key or frame size is refused before there is a thread', (t) => {
  const threads = threadsOf(t)
  assert.throws(() => createSealThread({ password: '' }), { code: 'BAD_KEY' })
  assert.throws(() => createSealThread({ key, frameBytes: 5000 }), { code: 'BAD_OPTION' })
  assert.throws(() => createOpenThread({}), { code: 'BAD_KEY' })
  assert.deepEqual(threads, [])
})

test('a stream on a thread that nobody goes on with lets the process end, and one that is at work does not', () => {
  const from = JSON.stringify(new URL('../../transforms/index.ts', import.meta.url).href)
  for (const [then, said] of [
    ['', ''],
    ['stream.end(Buffer.alloc(3_000_000))', ''],
    ['stream.resume().end(Buffer.alloc(3_000_000)); stream.on("close", () => console.log(stream.bytes))', '3000000'],
    [
      'stream.write(Buffer.alloc(3_000_000)); stream.destroy(); stream.on("close", () => console.log("closed"))',
      'closed',
    ],
    ['stream.destroy(); stream.on("close", () => console.log("closed"))', 'closed'],
  ]) {
    const script = `import { createHashThread } from ${from}; const stream = createHashThread(); ${then}`
    const ran = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
      timeout: 20_000,
    })
    assert.deepEqual([ran.status, ran.stdout.trim()], [0, said], then)
  }
})
