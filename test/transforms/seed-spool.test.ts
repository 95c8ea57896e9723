import assert from 'node:assert/strict'
import { type FileHandle, open } from 'node:fs/promises'
import { devNull } from 'node:os'
import { test } from 'node:test'
import { createSeedDecrypt, createSeedEncrypt } from '../../transforms/index.ts'
import { sample, through } from '../support/streams.ts'

type Call = (this: FileHandle, data: Buffer, at: number, length: number, position: number) => Promise<unknown>

test('seed: reads and writes of the temporary file that do a part of what they are asked for lose nothing', async (t) => {
  const plain = sample(150_000)
  const sealed = await through(plain, [createSeedEncrypt({ password: 'a password' })])
  const any = await open(devNull)
  await any.close()
  const handle = Object.getPrototypeOf(any) as FileHandle
  for (const call of ['read', 'write'] as const) {
    const real = handle[call] as unknown as Call
    const part: Call = function (data, at, length, position) {
      return real.call(this, data, at, Math.min(length, 7001), position)
    }
    t.mock.method(handle, call, part as never)
  }
  assert.ok((await through(sealed, [createSeedDecrypt({ password: ['another', 'a password'] })])).equals(plain))
})
