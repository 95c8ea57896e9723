import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { createDecrypt } from '../../transforms/index.ts'
import { prepareSealing, type Sealing } from '../../transforms/seal-thread.ts'
import { through as passed, sample } from '../support/streams.ts'

const KEYS = { password: 'a password' }
const OPTIONS = { ...KEYS, iterations: 100_000 }
const PLAIN = sample(3_000_000)

async function through(sealing: Sealing, onThread: boolean): Promise<Buffer> {
  const { transforms, totals } = sealing.stage(onThread)
  const chunks: Buffer[] = []
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      chunks.push(Buffer.from(chunk))
      callback()
    },
  })
  await pipeline([Readable.from([PLAIN], { objectMode: false }), ...transforms, sink])
  const stored = Buffer.concat(chunks)
  const digest = createHash('sha256').update(stored).digest('hex')
  assert.deepEqual([totals().digest, totals().bytes], [digest, stored.length])
  return stored
}

const opened = (stored: Buffer) => passed(stored, [createDecrypt(KEYS)])

for (const onThread of [false, true]) {
  test(`keys that were derived ahead seal ${onThread ? 'on a thread' : 'here'}, once`, async () => {
    const sealing = prepareSealing(OPTIONS, {})
    sealing.deriveAhead()
    sealing.deriveAhead()
    const one = await through(sealing, onThread)
    assert.ok((await opened(one)).equals(PLAIN))
    // Another object has another salt.
    const two = await through(sealing, onThread)
    assert.ok((await opened(two)).equals(PLAIN))
    assert.ok(!two.subarray(16, 32).equals(one.subarray(16, 32)))
  })
}

test('what was derived ahead can be let go of, before it is there and after', async () => {
  const sealing = prepareSealing(OPTIONS, {})
  sealing.discard()
  sealing.deriveAhead()
  sealing.discard()
  sealing.discard()
  assert.ok((await opened(await through(sealing, false))).equals(PLAIN))
})

test('without encryption there is nothing to derive, and what is stored is hashed', async () => {
  for (const onThread of [false, true]) {
    const sealing = prepareSealing(undefined, {})
    sealing.deriveAhead()
    sealing.discard()
    assert.ok((await through(sealing, onThread)).equals(PLAIN))
  }
})

test('bad options are refused before anything is derived', () => {
  assert.throws(() => prepareSealing({ ...KEYS, iterations: 1 }, {}), { code: 'BAD_OPTION' })
  assert.throws(() => prepareSealing({ password: '' }, {}), { code: 'BAD_KEY' })
})
