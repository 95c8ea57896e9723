import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { KEY_MAX_BYTES } from '../../adapters/storage.ts'
import {
  assertFails,
  assertIsStorageError,
  assertReads,
  type ContractRun,
  closedCleanly,
  feed,
  inBatches,
  keysOf,
  noise,
  ODD_NAMES,
  write,
} from './support.ts'

/** Registers the tests of what is a key, and of `delete`. */
export function keyTests(run: ContractRun): void {
  const { partBytes } = run

  describe('keys', () => {
    it('odd ones are kept as they are', async () => {
      const { foldsUnicode, foldsCase, refusedNames = [] } = run.contract
      const prefix = run.freshPrefix()
      const names = ODD_NAMES.filter((name) => !refusedNames.includes(name) && !(foldsUnicode && name === '\u00e9'))
      // Inside of the key as well as at its end.
      const odd = names.flatMap((name, index) => (index % 2 ? [prefix + name] : [`${prefix}${name}/${name}`]))
      odd.push(`${prefix}${'x'.repeat(250)}`, `${prefix}${'ü'.repeat(125)}`)
      odd.push(...['case', foldsCase ? 'other' : 'Case', 'CASE2'].map((name) => prefix + name))
      await inBatches([...odd.entries()], ([index, key]) => write(run.storage, key, noise(20, index)), 4)
      assert.deepEqual(await keysOf(run.storage, prefix), [...odd].sort())
      await inBatches(
        [...odd.entries()],
        async ([index, key]) => {
          await assertReads(run.storage, key, noise(20, index))
          assert.equal((await run.storage.readRange(key, 5, 7)).compare(noise(20, index).subarray(5, 12)), 0)
          assert.deepEqual(
            await keysOf(run.storage, key),
            odd.filter((other) => other.startsWith(key)),
          )
          assert.equal((await run.storage.stat(key)).key, key)
        },
        4,
      )
      await inBatches(
        odd,
        async (key) => {
          await run.storage.delete(key)
          await assertFails(run.storage.stat(key), 'NOT_FOUND')
        },
        4,
      )
      assert.deepEqual(await keysOf(run.storage, prefix), [])
    })

    it('odd ones are kept as they are when they come in parts', async () => {
      const { refusedNames = [] } = run.contract
      const name = ODD_NAMES.filter((one) => /[ &<?#%+"🌍]/u.test(one) && !refusedNames.includes(one))
        .join('')
        .slice(0, 120)
      const key = run.freshPrefix() + name
      const bytes = noise(2 * partBytes + 5, 1)
      await write(run.storage, key, bytes)
      await run.assertHolds(key, bytes)
      const stream = run.storage.createWriteStream(`${key}2`)
      await feed(stream, bytes)
      stream.destroy()
      await closedCleanly(stream)
      await run.storage.delete(key)
      await run.assertNothingLeft(key)
    })

    it('bad ones are INVALID, before any request', async () => {
      const bad = ['', '/', '/a', 'a/', 'a//b', '.', '..', 'a/../b', 'a/.', './a', '..', 'nul\0', 'line\n', 'del\u007f']
      bad.push('tab\tbed', 'next\u0085line', 'bell\u0007', '\u001f')
      bad.push('x'.repeat(251), `${'x'.repeat(205)}/`.repeat(5).slice(0, -1), '\u{d800}', 'ü'.repeat(126))
      for (const key of bad) {
        const isInvalid = (error: unknown) => assertIsStorageError(error, 'INVALID')
        assert.throws(() => run.storage.createWriteStream(key), isInvalid)
        assert.throws(() => run.storage.createReadStream(key), isInvalid)
        await assertFails(run.storage.stat(key), 'INVALID')
        await assertFails(run.storage.delete(key), 'INVALID')
        await assertFails(run.storage.readRange(key, 0, 1), 'INVALID')
      }
    })

    it('what this store cannot keep is INVALID', async () => {
      const { keyMaxBytes = KEY_MAX_BYTES, refusedNames = [] } = run.contract
      const prefix = run.freshPrefix()
      for (const key of [run.keyOf(keyMaxBytes + 1), ...refusedNames.map((name) => prefix + name)]) {
        await assertFails(write(run.storage, key, noise(5, 1)), 'INVALID')
        // A layer need not know before its stream is read what the one beneath refuses.
        const read = async () => buffer(run.storage.createReadStream(key))
        await assertFails(read(), 'INVALID')
        await assertFails(run.storage.stat(key), 'INVALID')
        await assertFails(run.storage.delete(key), 'INVALID')
        await assertFails(run.storage.readRange(key, 0, 1), 'INVALID')
      }
      assert.deepEqual(await keysOf(run.storage, prefix), [])
    })

    it('the longest ones', async () => {
      const { keyMaxBytes = KEY_MAX_BYTES } = run.contract
      const inParts = Math.min(run.contract.keyMaxBytesInParts ?? keyMaxBytes, keyMaxBytes)
      for (const [bytes, size] of [
        [keyMaxBytes, 5],
        [Math.min(1000, keyMaxBytes - 1), 5],
        [inParts, 2 * partBytes + 5],
      ] as const) {
        const key = run.keyOf(bytes)
        assert.equal(Buffer.byteLength(key), bytes)
        await write(run.storage, key, noise(size, 1))
        await run.assertHolds(key, noise(size, 1))
        assert.deepEqual(await keysOf(run.storage, key.slice(0, 600)), [key])
        await run.storage.delete(key)
        await run.assertNothingLeft(key)
      }
    })
  })

  describe('deleting', () => {
    it('removes one object and no other, and an absent one is success', async () => {
      const prefix = run.freshPrefix()
      for (const name of ['a', 'ab', 'b/c']) await write(run.storage, prefix + name, noise(10, 1))
      await run.storage.delete(`${prefix}a`)
      await run.storage.delete(`${prefix}a`)
      await run.storage.delete(`${prefix}never`)
      await run.storage.delete(`${prefix}b`)
      assert.deepEqual(await keysOf(run.storage, prefix), [`${prefix}ab`, `${prefix}b/c`])
      await run.storage.delete(`${prefix}b/c`)
      await run.storage.delete(`${prefix}ab`)
      assert.deepEqual(await keysOf(run.storage, prefix), [])
    })

    it('T19: of one server is not of another', async () => {
      const prefix = run.freshPrefix()
      const names = ['world/a', 'world2/a', 'a/x', 'a/b/x', '1/x', '10/x']
      if (!run.contract.keysAreFiles) names.push('a', 'a/b')
      for (const name of names) await write(run.storage, prefix + name, noise(10, 1))
      const rest = new Set(names.map((name) => prefix + name))
      for (const name of ['world/a', '1/x', ...(run.contract.keysAreFiles ? [] : ['a', 'a/b']), 'a/x']) {
        await run.storage.delete(prefix + name)
        rest.delete(prefix + name)
        assert.deepEqual(await keysOf(run.storage, prefix), [...rest].sort(), name)
      }
    })

    it('what was deleted can be written again, and many deletes at once are success', async () => {
      const key = run.freshKey()
      for (const seed of [1, 2]) {
        await write(run.storage, key, noise(50, seed), run.storage.conditionalWrites ? { ifAbsent: true } : {})
        await run.assertHolds(key, noise(50, seed))
        await Promise.all(Array.from({ length: 6 }, () => run.storage.delete(key)))
        await run.assertNothingLeft(key)
      }
    })
  })
}
