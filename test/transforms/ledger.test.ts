import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Duplex, Readable } from 'node:stream'
import { test } from 'node:test'
import fc from 'fast-check'
import { createDecrypt, createEncrypt, HEADER_BYTES, TransformError } from '../../transforms/index.ts'
import { createSealThread } from '../../transforms/seal-thread.ts'
import { MemoryLedger } from '../support/frame-ledger.ts'
import { sample, through } from '../support/streams.ts'
import type { Manifest } from '../vectors/make.ts'

const VECTORS = join(import.meta.dirname, '../vectors')
const F = 4096
const FRAME = F + 28
const key = Buffer.alloc(32, 7)

type Seal = (options: Parameters<typeof createEncrypt>[0]) => Duplex

/** Where it is done, and how many rounds it is worth: each thread takes a while to begin. */
const PLACES: readonly [where: string, seal: Seal, numRuns: number][] = [
  ['', createEncrypt, 60],
  [', on a thread', createSealThread, 15],
]

function sealBy(create: Seal, plain: Buffer, ledger: MemoryLedger, writeBytes?: number): Promise<Buffer> {
  return through(plain, [create({ key, frameBytes: F, ledger })], writeBytes)
}

/** What leaves the stream, and what it fails with. */
async function leavingBy(create: Seal, plain: Buffer, options: Parameters<typeof createEncrypt>[0]) {
  const left: Buffer[] = []
  const encrypt = create(options)
  encrypt.on('data', (chunk: Buffer) => left.push(Buffer.from(chunk)))
  const error = await new Promise<unknown>((resolve) => {
    encrypt.once('error', resolve).once('end', () => resolve(undefined))
    Readable.from([plain], { objectMode: false }).pipe(encrypt)
  })
  return { left: Buffer.concat(left), error: error as TransformError | undefined }
}

function sealsOf(sealed: Buffer): Buffer[] {
  const seals: Buffer[] = []
  for (let at = HEADER_BYTES; at < sealed.length; at += FRAME) {
    const end = Math.min(at + FRAME, sealed.length)
    seals.push(Buffer.concat([sealed.subarray(at, at + 12), sealed.subarray(end - 16, end)]))
  }
  return seals
}

for (const [where, create, numRuns] of PLACES) {
  const seal = (plain: Buffer, ledger: MemoryLedger, writeBytes?: number) => sealBy(create, plain, ledger, writeBytes)
  const leaving = (plain: Buffer, options: Parameters<typeof createEncrypt>[0]) => leavingBy(create, plain, options)

  test(`what is sealed with a ledger is a container like any other, and the ledger has its header, nonces and tags${where}`, async () => {
    for (const length of [0, 1, F - 1, F, F + 1, 3 * F, 5 * F + 17]) {
      for (const writeBytes of [7, 4096, undefined]) {
        const ledger = new MemoryLedger()
        const sealed = await seal(sample(length), ledger, writeBytes)
        assert.deepEqual(await through(sealed, [createDecrypt({ key })]), sample(length))
        assert.deepEqual(ledger.begun, [sealed.subarray(0, HEADER_BYTES)])
        assert.deepEqual(ledger.seals, sealsOf(sealed))
      }
    }
  })

  test(`every good vector of the container is sealed again to the same bytes${where}`, async () => {
    const { vectors, frameBytes }: Manifest = JSON.parse(readFileSync(join(VECTORS, 'manifest.json'), 'utf8'))
    const good = vectors.filter(
      (one) => one.layer === 'container' && 'ok' in one.expected && one.name.match(/^(key|password)-\d/),
    )
    assert.ok(good.length >= 10)
    for (const { name, file, key, password } of good) {
      const sealed = readFileSync(join(VECTORS, file))
      const material = key === undefined ? { password } : { key: Buffer.from(key, 'hex') }
      const plain = await through(sealed, [createDecrypt(material)])
      const before = new MemoryLedger()
      before.header = sealed.subarray(0, HEADER_BYTES)
      before.seals.push(...sealsOf(sealed))
      const iterations = sealed.readUInt32BE(12) || undefined
      const again = create({ ...material, frameBytes, iterations, ledger: new MemoryLedger(before) })
      assert.deepEqual(await through(plain, [again]), sealed, name)
    }
  })

  test(`a run that is taken up gives the same bytes as far as the ledger goes, and fresh nonces after it${where}`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 6 * F }),
        fc.nat({ max: 7 }),
        fc.integer({ min: 1, max: 2 * F }),
        async (length, kept, writeBytes) => {
          const first = new MemoryLedger()
          const sealed = await seal(sample(length), first)
          const ledger = new MemoryLedger(first, kept)
          const again = await seal(sample(length), ledger, writeBytes)
          const same = Math.min(HEADER_BYTES + kept * FRAME, sealed.length)
          assert.deepEqual(again.subarray(0, same), sealed.subarray(0, same))
          assert.deepEqual(await through(again, [createDecrypt({ key })]), sample(length))
          assert.deepEqual(ledger.seals, sealsOf(again))
          const nonces = [...first.seals, ...ledger.seals.slice(kept)].map((one) => one.toString('hex', 0, 12))
          assert.equal(new Set(nonces).size, nonces.length, 'a nonce was used for another frame')
        },
      ),
      { numRuns },
    )
  })

  test(`no byte of a frame leaves whose plaintext is another than the one it was sealed from${where}`, async () => {
    const length = 4 * F + 100
    const first = new MemoryLedger()
    const sealed = await seal(sample(length), first)
    for (const kept of [1, 3, 5]) {
      for (const at of [0, 1, F - 1, F, 2 * F + 5, 4 * F, length - 1]) {
        const plain = sample(length)
        plain[at] = (plain[at] as number) ^ 1
        const ledger = new MemoryLedger(first, kept)
        const { left, error } = await leaving(plain, { key, frameBytes: F, ledger })
        const frame = Math.floor(at / F)
        if (frame >= kept) {
          assert.equal(error, undefined)
          continue
        }
        assert.ok(error instanceof TransformError && error.code === 'DIFFERS' && error.frame === frame, `${error}`)
        assert.deepEqual(left, sealed.subarray(0, HEADER_BYTES + frame * FRAME), 'what left is what had left before')
        assert.equal(ledger.seals.length, kept)
      }
    }
  })

  test(`bytes that end earlier, or go on, differ where they do${where}`, async () => {
    const first = new MemoryLedger()
    await seal(sample(3 * F + 10), first)
    for (const [length, frame] of [
      [0, 0],
      [F, 1],
      [3 * F, 3],
      [3 * F + 9, 3],
      [3 * F + 11, 3],
      [5 * F, 3],
    ] as const) {
      const { error } = await leaving(sample(length), { key, frameBytes: F, ledger: new MemoryLedger(first) })
      assert.deepEqual([error?.code, error?.frame], ['DIFFERS', frame], `${length} bytes`)
    }
    // The last frame is the same, but it was not the last: what followed it would be missing.
    const ledger = new MemoryLedger(first, 1)
    assert.equal((await leaving(sample(0), { key, frameBytes: F, ledger })).error?.code, 'DIFFERS')
  })

  test(`another key, another kind of key or other options are found out before anything leaves${where}`, async () => {
    const first = new MemoryLedger()
    await seal(sample(100), first)
    for (const [options, code] of [
      [{ key: Buffer.alloc(32, 8), frameBytes: F }, 'WRONG_KEY'],
      [{ key }, 'DIFFERS'],
      [{ password: 'x', iterations: 100_000, frameBytes: F }, 'DIFFERS'],
    ] as const) {
      const { left, error } = await leaving(sample(100), { ...options, ledger: new MemoryLedger(first) })
      assert.deepEqual([error?.code, left.length], [code, 0])
    }
  })

  test(`a seal that was changed in the ledger lets nothing of its frame leave${where}`, async () => {
    const first = new MemoryLedger()
    await seal(sample(2 * F), first)
    for (let at = 0; at < 28; at += 1) {
      const ledger = new MemoryLedger(first)
      const changed = Buffer.from(ledger.seals[1] as Buffer)
      changed[at] = (changed[at] as number) ^ 0x10
      ledger.seals[1] = changed
      const { left, error } = await leaving(sample(2 * F), { key, frameBytes: F, ledger })
      assert.equal(error?.code, 'DIFFERS', `byte ${at}`)
      assert.equal(left.length, HEADER_BYTES + FRAME)
    }
  })

  test(`a frame is in the ledger before its first byte leaves${where}`, async () => {
    const ledger = new MemoryLedger()
    const encrypt = create({ key, frameBytes: F, ledger })
    let bytes = 0
    encrypt.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      assert.ok(ledger.begun.length === 1 && HEADER_BYTES + ledger.seals.length * FRAME >= bytes)
    })
    for (let at = 0; at < 4 * F; at += 100) encrypt.write(sample(100))
    encrypt.end()
    await new Promise((resolve) => encrypt.once('end', resolve))
    assert.ok(bytes > 4 * F)
  })
}
