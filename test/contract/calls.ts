import assert from 'node:assert/strict'
import { finished } from 'node:stream/promises'
import { describe, it } from 'node:test'
import { assertAborts, type ContractRun, feed, keysOf, noise, write } from './support.ts'

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

    it('says what and where it is, without a secret', () => {
      assert.ok(run.storage.adapter.length > 0)
      assert.ok(URL.canParse(run.storage.location))
      assert.doesNotMatch(run.storage.location, /@/)
    })
  })
}
