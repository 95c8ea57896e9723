import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertFails, assertIsStorageError, assertReads, type ContractRun, keysOf, noise, write } from './support.ts'

/** Registers the tests of what is a key, and of `delete`. */
export function keyTests(run: ContractRun): void {
  describe('keys', () => {
    it('odd ones are kept as they are', async () => {
      const prefix = run.freshPrefix()
      const odd = [
        'a b/ c',
        'a+b',
        'a%20b',
        'a%2Fb',
        'what?',
        '#1',
        `it's "quoted"`,
        'back`tick&amp;<xml>',
        '~!@$^*()_=[]{}|;,',
        'grüße/世界/🌍',
        'e\u0301',
        'trailing.',
        'x'.repeat(250),
        '-dash',
        '.hidden/..x',
      ].map((key) => prefix + key)
      if (!run.contract.foldsUnicode) odd.push(`${prefix}\u00e9`)
      for (const [index, key] of odd.entries()) await write(run.storage, key, noise(20, index))
      assert.deepEqual(await keysOf(run.storage, prefix), [...odd].sort())
      for (const [index, key] of odd.entries()) {
        await assertReads(run.storage, key, noise(20, index))
        await run.storage.delete(key)
        await assertFails(run.storage.stat(key), 'NOT_FOUND')
      }
      assert.deepEqual(await keysOf(run.storage, prefix), [])
    })

    it('bad ones are INVALID, before any request', async () => {
      const bad = ['', '/', '/a', 'a/', 'a//b', '.', '..', 'a/../b', 'a/.', './a', '..', 'nul\0', 'line\n', 'del\u007f']
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

    it('the longest ones', async () => {
      const key = `${run.base}/${'long/'.repeat(250)}`.slice(0, 900).replace(/\/$/, '')
      await write(run.storage, key, noise(5, 1))
      await assertReads(run.storage, key, noise(5, 1))
      await run.storage.delete(key)
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
  })
}
