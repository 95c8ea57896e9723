import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertAborts, type ContractRun, inBatches, keysOf, listOf, noise, seconds, write } from './support.ts'

/** Registers the tests of `list`. */
export function listingTests(run: ContractRun): void {
  describe('listing', () => {
    it('T19: a prefix is a plain string prefix', async () => {
      const prefix = run.freshPrefix()
      const names = ['world/a', 'world/b/c', 'world2/a', 'worl', 'a/x', 'a/b/x', 'ab/x', '1/x', '10/x']
      // The objects that other keys lie beneath, where that can be.
      names.push(...(run.contract.keysAreFiles ? ['world-', 'a-'] : ['world', 'a', 'a/b']))
      const keys = names.map((name) => prefix + name)
      for (const key of keys) await write(run.storage, key, noise(10, 1))
      const starting = (text: string) => keys.filter((key) => key.startsWith(prefix + text)).sort()
      for (const text of [
        '',
        'w',
        'world',
        'world/',
        'world/b',
        'world/b/',
        'world2',
        'world2/',
        'world/a',
        'world/a/',
      ]) {
        assert.deepEqual(await keysOf(run.storage, prefix + text), starting(text), `prefix ${text}`)
      }
      for (const text of ['a', 'a/', 'a/b', 'a/b/', 'ab/', '1', '1/', '10', '10/', 'x', 'A/', 'worlds/']) {
        assert.deepEqual(await keysOf(run.storage, prefix + text), starting(text), `prefix ${text}`)
      }
    })

    it('a prefix may have any character, and be part of a name', async () => {
      const prefix = run.freshPrefix()
      const keys = ['50% off+more/a', '50% off+more/b', '50%25 off/a', 'ü&<b>/🌍 1', 'ü&<b>/🌍 2', 'ü&amp;/x'].map(
        (name) => prefix + name,
      )
      for (const key of keys) await write(run.storage, key, noise(10, 1))
      for (const text of ['50% off+', '50% off+more/', '50%', '50%25', 'ü&', 'ü&<b>/🌍', 'ü&amp;', 'ü&lt;', '50%20']) {
        const starting = keys.filter((key) => key.startsWith(prefix + text)).sort()
        assert.deepEqual(await keysOf(run.storage, prefix + text), starting, `prefix ${text}`)
      }
    })

    it('gives what stat gives, but perhaps the checksum', async () => {
      const key = run.freshKey()
      await write(run.storage, key, noise(1234, 1))
      const [listed] = await listOf(run.storage, key)
      const stat = await run.storage.stat(key)
      assert.equal(listed?.key, stat.key)
      assert.equal(listed?.size, stat.size)
      assert.equal(listed?.version, stat.version)
      // A header tells whole seconds, a listing tells more.
      assert.equal(seconds(listed?.modified), seconds(stat.modified))
    })

    it('many objects, over the pages of a listing', async () => {
      const prefix = run.freshPrefix()
      const keys = Array.from({ length: run.contract.manyKeys ?? 25 }, (_, index) => `${prefix}${index % 7}/${index}`)
      await inBatches(keys, (key) => write(run.storage, key, Buffer.from(key)))
      assert.deepEqual(await keysOf(run.storage, prefix), [...keys].sort())
      const third = keys.filter((key) => key.startsWith(`${prefix}3/`))
      assert.deepEqual(await keysOf(run.storage, `${prefix}3/`), third.sort())
    })

    it('one that is left early leaves nothing hanging, and several at once keep apart', async () => {
      const prefix = run.freshPrefix()
      const keys = Array.from({ length: 23 }, (_, index) => `${prefix}${index % 2}/${index}`)
      await inBatches(keys, (key) => write(run.storage, key, Buffer.from(key)))
      // More than the connections that an adapter keeps.
      await inBatches(
        Array.from({ length: 96 }, (_, index) => index),
        async (index) => {
          let left = index % 13
          for await (const object of run.storage.list(prefix)) {
            assert.ok(object.key.startsWith(prefix))
            if (left-- === 0) break
          }
        },
      )
      // Never iterated at all.
      run.storage.list(prefix)
      const [even, odd] = ['0/', '1/'].map((name) => run.storage.list(prefix + name)[Symbol.asyncIterator]())
      const seen: string[] = []
      for (let step = 0; step < 12; step++) {
        for (const listing of [even, odd]) {
          const next = await listing!.next()
          if (!next.done) seen.push(next.value.key)
        }
      }
      assert.deepEqual(seen.sort(), [...keys].sort())
      // One of them has not been told its end, and holds what it reads from until it is left.
      for (const listing of [even, odd]) await listing!.return?.()
    })

    it('an object that is there the whole time is listed, while others come and go', async () => {
      const prefix = run.freshPrefix()
      const staying = Array.from({ length: 24 }, (_, index) => `${prefix}${index % 3}/stays-${index}`)
      await inBatches(staying, (key) => write(run.storage, key, Buffer.from(key)))
      let listing = true
      const churn = async (own: number) => {
        for (let round = 0; listing; round++) {
          // Around those that stay in any order of names, and in folders that come and go with them.
          const keys = ['0/', '1/t', '2/zz', `${own}-${round}/`, `3/${own}/`].map(
            (name) => `${prefix}${name}${own}-${round}`,
          )
          for (const key of keys) await write(run.storage, key, noise(10, own))
          for (const key of keys) await run.storage.delete(key)
          // A store in memory would else leave the listings no turn.
          await new Promise(setImmediate)
        }
      }
      const churning = Promise.all([churn(1), churn(2)])
      try {
        for (let round = 0; round < 12; round++) {
          const keys = await keysOf(run.storage, prefix)
          const stayed = keys.filter((key) => key.includes('/stays-'))
          assert.deepEqual(stayed, [...staying].sort())
          // And them none.
          await new Promise(setImmediate)
        }
      } finally {
        listing = false
        await churning
      }
      assert.deepEqual(await keysOf(run.storage, prefix), [...staying].sort())
    })

    it('nothing there is an empty listing, and a signal aborts one', async () => {
      assert.deepEqual(await keysOf(run.storage, run.freshPrefix()), [])
      await write(run.storage, run.freshKey(), noise(1, 1))
      const aborted = async () => {
        for await (const _ of run.storage.list(`${run.base}/`, { signal: AbortSignal.abort() })) assert.fail('went on')
      }
      await assertAborts(aborted())
      const controller = new AbortController()
      const later = async () => {
        for await (const _ of run.storage.list('', { signal: controller.signal })) controller.abort()
      }
      // What was fetched already may still be given out.
      await later().catch((error) => assert.equal(error.name, 'AbortError'))
    })
  })
}
