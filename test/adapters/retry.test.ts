import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CALL_RETRY, PART_RETRY, retry, systemClock } from '../../adapters/retry.ts'
import { failure, fakeClock } from '../support/scripted-store.ts'

const POLICY = { attempts: 6, baseMs: 100, capMs: 1000, deadlineMs: 100_000 }

function failing(times: number, error: unknown = failure('UNAVAILABLE', 'test')) {
  let calls = 0
  return async () => {
    calls++
    if (calls <= times) throw error
    return calls
  }
}

describe('retry', () => {
  it('doubles the bound of its waits up to the cap, with full jitter', async () => {
    for (const random of [0, 0.5, 1]) {
      const clock = fakeClock(random)
      assert.equal(await retry(failing(5), POLICY, { clock }), 6)
      assert.deepEqual(
        clock.waits,
        [100, 200, 400, 800, 1000].map((ms) => ms * random),
      )
    }
  })

  it('waits as long as the store asks, which no deadline counts, up to a bound', async () => {
    const clock = fakeClock()
    const asks = (ms: number) => failing(2, failure('RATE_LIMITED', 'test', true, ms))
    await retry(asks(5000), { ...POLICY, deadlineMs: 1 }, { clock })
    assert.deepEqual(clock.waits, [5000, 5000])
    // Nor of what comes after it.
    const errors = [failure('RATE_LIMITED', 'test', true, 5000), failure('UNAVAILABLE', 'test')]
    const turns = async () => {
      const error = errors.shift()
      if (error) throw error
    }
    await retry(turns, { ...POLICY, deadlineMs: 1000 }, { clock })
    assert.equal(clock.waits.splice(2).length, 2)
    await retry(asks(300_000), CALL_RETRY, { clock })
    assert.deepEqual(clock.waits.slice(2), [300_000, 300_000], 'Dropbox asks for so long, and takes the upload then')
    await assert.rejects(retry(asks(3_600_000), POLICY, { clock }), { code: 'RATE_LIMITED', retryAfterMs: 3_600_000 })
  })

  it('ends at the attempts, at the deadline, and at an error that will not pass', async () => {
    const clock = fakeClock(1)
    await assert.rejects(retry(failing(6), POLICY, { clock }), { code: 'UNAVAILABLE' })
    assert.equal(clock.waits.length, 5)
    const short = fakeClock(1)
    await assert.rejects(retry(failing(6), { ...POLICY, deadlineMs: 350 }, { clock: short }), { code: 'UNAVAILABLE' })
    assert.deepEqual(short.waits, [100, 200])
    for (const error of [failure('ACCESS_DENIED', 'test'), failure('UNAVAILABLE', 'test', false), new Error('bug')]) {
      const none = fakeClock()
      await assert.rejects(retry(failing(1, error), POLICY, { clock: none }), error)
      assert.deepEqual(none.waits, [])
    }
  })

  it('what nobody answers for longer than a small call has is asked again, and not for ever', async () => {
    const unanswered = (times: number, clock: ReturnType<typeof fakeClock>) => {
      let calls = 0
      return async () => {
        if (++calls > times) return calls
        await clock.sleep(60_000, undefined)
        throw failure('UNAVAILABLE', 'test')
      }
    }
    for (const random of [0.001, 0.5, 1]) {
      const clock = fakeClock(random)
      assert.equal(await retry(unanswered(1, clock), CALL_RETRY, { clock }), 2)
      const begun = clock.now()
      await assert.rejects(retry(unanswered(Number.POSITIVE_INFINITY, clock), CALL_RETRY, { clock }))
      assert.ok(clock.now() - begun < 2.1 * 60_000, 'a store that never answers is told of after two attempts')
      // A connection that does not come about is given up after 5 or 10 seconds.
      const slow = fakeClock(random)
      const unreached = async () => {
        await slow.sleep(10_000, undefined)
        throw failure('UNAVAILABLE', 'test')
      }
      await assert.rejects(retry(unreached, CALL_RETRY, { clock: slow }))
      assert.ok(slow.now() < 21_000)
    }
  })

  it('a part outlasts minutes in which each attempt is refused at once, as while a router starts anew', async () => {
    for (const random of [0.1, 0.5, 1]) {
      const clock = fakeClock(random)
      const begun = clock.now()
      const refusedFor = (ms: number) => async () => {
        if (clock.now() - begun < ms) throw failure('UNAVAILABLE', 'test')
        return clock.now() - begun
      }
      const minutes = random < 0.5 ? 2 : 9
      assert.ok((await retry(refusedFor(minutes * 60_000), PART_RETRY, { clock })) >= minutes * 60_000)
      const never = retry(refusedFor(Number.POSITIVE_INFINITY), PART_RETRY, { clock })
      await assert.rejects(never, { code: 'UNAVAILABLE' })
    }
  })

  it('an abort ends the wait, and no attempt follows it', async () => {
    const controller = new AbortController()
    let calls = 0
    const running = retry(
      async () => {
        calls++
        setImmediate(() => controller.abort(new Error('a reason of any kind')))
        throw failure('RATE_LIMITED', 'test', true, 60_000)
      },
      CALL_RETRY,
      { signal: controller.signal, clock: systemClock },
    )
    await assert.rejects(running, { name: 'AbortError' })
    await assert.rejects(retry(failing(0), POLICY, { signal: controller.signal }), { name: 'AbortError' })
    assert.equal(calls, 1)
  })
})
