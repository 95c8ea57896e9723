import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { describe, it } from 'node:test'
import type { StorageError } from '../../adapters/errors.ts'
import { assertAborts, type ContractRun, closed, feed, keysOf, noise, write } from './support.ts'

/** Registers the tests of the calls that are about the store as a whole. */
export function callTests(run: ContractRun): void {
  const { partBytes } = run

  describe('the rest', () => {
    it('T29: probe tries every right, and leaves nothing behind', async () => {
      const before = await keysOf(run.storage, '')
      const report = await run.storage.probe()
      assert.deepEqual(
        report.steps.filter(({ ok, error }) => !ok || error),
        [],
      )
      const everywhere = ['sign-in', 'list', 'write', 'stat', 'read', 'range', 'delete']
      const steps = report.steps.map(({ step }) => step as string)
      assert.deepEqual(
        steps.filter((step) => everywhere.includes(step)),
        everywhere,
      )
      assert.ok(report.steps.every(({ ms }) => ms >= 0))
      assert.equal(report.ok, true)
      assert.deepEqual(await keysOf(run.storage, ''), before)
      await run.assertNoUploads()
      await assertAborts(run.storage.probe({ signal: AbortSignal.abort() }))
    })

    it('purgeUnfinished leaves what is finished, and what is young', async () => {
      if (!run.storage.purgeUnfinished) return
      const key = run.freshKey()
      await write(run.storage, key, noise(10, 1))
      const stream = run.storage.createWriteStream(`${key}-open`)
      await feed(stream, noise(2 * partBytes, 1))
      assert.equal(await run.storage.purgeUnfinished(3_600_000, { prefix: `${run.base}/` }), 0)
      stream.end()
      await finished(stream)
      await run.assertHolds(key, noise(10, 1))
      await run.assertHolds(`${key}-open`, noise(2 * partBytes, 1))
    })

    it('purgeUnfinished cancels what was begun beneath its prefix and left', async () => {
      const { purgeUnfinished } = run.storage
      if (!purgeUnfinished || !run.contract.pendingUploads) return
      const prefix = run.freshPrefix()
      const stream = run.storage.createWriteStream(`${prefix}object.bin`)
      await feed(stream, noise(3 * partBytes, 1))
      // A store that sends nothing before the end has nothing to cancel.
      if ((await run.contract.pendingUploads()) > 0) {
        assert.equal(await run.storage.purgeUnfinished!(0, { prefix: `${prefix}other/` }), 0)
        // At once, although a store may tell the time of a beginning in whole seconds, by its own clock.
        assert.equal(await run.storage.purgeUnfinished!(0, { prefix }), 1)
      }
      stream.destroy()
      await closed(stream)
      await run.assertNothingLeft(`${prefix}object.bin`)
    })

    it('an abort is an AbortError in every call, whatever its reason is', async () => {
      const key = run.freshKey()
      await write(run.storage, key, noise(10, 1))
      const signal = AbortSignal.abort(new Error('a reason of our own'))
      await assertAborts(run.storage.stat(key, { signal }))
      await assertAborts(run.storage.readRange(key, 0, 5, { signal }))
      await assertAborts(run.storage.readRange(key, 0, 0, { signal }))
      await assertAborts(buffer(run.storage.createReadStream(key, { signal })))
      await assertAborts(keysOf({ list: (prefix) => run.storage.list(prefix, { signal }) }, key))
      await assertAborts(run.storage.delete(key, { signal }))
      await assertAborts(run.storage.probe({ signal }))
      if (run.storage.purgeUnfinished) await assertAborts(run.storage.purgeUnfinished(1e9, { signal }))
      await run.assertHolds(key, noise(10, 1))
    })

    it('an error says which adapter, which call and which key', async () => {
      const key = run.freshKey()
      const { adapter } = run.storage
      const seen: Error[] = []
      const keep = (error: Error) => void seen.push(error)
      await run.storage.stat(key).catch(keep)
      await run.storage.readRange(key, 0, 1).catch(keep)
      await buffer(run.storage.createReadStream(key)).catch(keep)
      await write(run.storage, key, noise(5, 1), { size: 6 }).catch(keep)
      assert.equal(seen.length, 4)
      for (const error of seen as StorageError[]) {
        const { operation } = error
        assert.equal(error.name, 'StorageError')
        assert.equal(error.adapter, adapter)
        // What lies beneath a prefix is named whole.
        assert.ok(error.key?.endsWith(key), `${error.key}`)
        assert.ok(typeof operation === 'string' && operation !== '')
        assert.ok(error.message.includes(key), error.message)
      }
    })

    it('says what and where it is, without a secret', () => {
      assert.ok(run.storage.adapter.length > 0)
      assert.ok(URL.canParse(run.storage.location))
      assert.doesNotMatch(run.storage.location, /@/)
    })
  })
}
