import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertAborts, type ContractRun, keysOf, listOf, noise, seconds, write } from './support.ts'

/** Registers the tests of `list`. */
export function listingTests(run: ContractRun): void {
  describe('listing', () => {
    it('T19: a prefix is a plain string prefix', async () => {
      const prefix = run.freshPrefix()
      const keys = ['world/a', 'world/b/c', 'world2/a', 'world', 'worl', '1/x', '10/x'].map((key) =>
        // An object and a folder of one name cannot be side by side in a file system.
        key === 'world' ? `${prefix}world-` : prefix + key,
      )
      for (const key of keys) await write(run.storage, key, noise(10, 1))
      const starting = (text: string) => keys.filter((key) => key.startsWith(prefix + text)).sort()
      for (const text of ['', 'w', 'world', 'world/', 'world/b', 'world/b/', 'world2', 'world2/', '1', '1/', 'x']) {
        assert.deepEqual(await keysOf(run.storage, prefix + text), starting(text), `prefix ${text}`)
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
      for (let index = 0; index < keys.length; index += 20) {
        await Promise.all(keys.slice(index, index + 20).map((key) => write(run.storage, key, Buffer.from(key))))
      }
      assert.deepEqual(await keysOf(run.storage, prefix), [...keys].sort())
      for await (const object of run.storage.list(prefix)) {
        assert.ok(object.key.startsWith(prefix))
        break
      }
    })

    it('nothing there is an empty listing, and a signal aborts one', async () => {
      assert.deepEqual(await keysOf(run.storage, run.freshPrefix()), [])
      await write(run.storage, run.freshKey(), noise(1, 1))
      const aborted = async () => {
        for await (const _ of run.storage.list(`${run.base}/`, { signal: AbortSignal.abort() })) assert.fail('went on')
      }
      await assertAborts(aborted())
    })
  })
}
