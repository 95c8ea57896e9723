import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createDecrypt, createEncrypt, HEADER_BYTES, TransformError } from '../../transforms/index.ts'
import { rounds } from '../support/rounds.ts'
import { sample, through } from '../support/streams.ts'

const F = 4096
const key = Buffer.alloc(32, 7)
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Bytes around each border of which every one is tried, also where not all are. */
const NEAR_BYTES = 40

const seal = (plain: Buffer) => through(plain, [createEncrypt({ key, frameBytes: F })])

/** @returns every place of a container; in `npm test` those near a border of its parts, and each eleventh of the others. */
function placesIn(sealed: Buffer): number[] {
  const borders = [0, HEADER_BYTES, sealed.length]
  for (let at = HEADER_BYTES; at < sealed.length; at += NONCE_BYTES + F + TAG_BYTES) borders.push(at)
  const isNear = (at: number) => borders.some((border) => Math.abs(at - border) <= NEAR_BYTES)
  return [...sealed.keys()].filter((at) => isNear(at) || at % rounds(11, 1) === 0)
}

async function eachIsRejected(t: TestContext, sealed: Buffer, change: (at: number) => Buffer, ...codes: string[]) {
  const places = placesIn(sealed)
  for (const at of places) {
    await assert.rejects(
      through(change(at), [createDecrypt({ key })]),
      (error: unknown) => error instanceof TransformError && codes.includes(error.code),
      `at ${at}`,
    )
  }
  t.diagnostic(`${places.length} of ${sealed.length} places`)
}

test('T1: a container cut at any byte is rejected', async (t) => {
  const sealed = await seal(sample(2 * F + 100))
  await eachIsRejected(t, sealed, (at) => sealed.subarray(0, at), 'TRUNCATED', 'NOT_SEALED', 'AUTH_FAILED')
  const longer = Buffer.concat([sealed, Buffer.alloc(1)])
  await assert.rejects(through(longer, [createDecrypt({ key })]), { code: 'AUTH_FAILED' })
})

test('T34: a container with any one byte flipped is rejected', async (t) => {
  const sealed = await seal(sample(F + 100))
  const flipped = (at: number) => {
    const changed = Buffer.from(sealed)
    changed[at] = (changed[at] as number) ^ (1 << (at % 8))
    return changed
  }
  await eachIsRejected(t, sealed, flipped, 'NOT_SEALED', 'UNSUPPORTED', 'BAD_HEADER', 'WRONG_KEY', 'AUTH_FAILED')
})
