import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import {
  assertAborts,
  type ContractRun,
  chunksOf,
  closed,
  closedCleanly,
  feed,
  keysOf,
  noise,
  transfer,
  write,
} from './support.ts'

/** Registers the tests of writes that end before their end. */
export function abortingTests(run: ContractRun): void {
  const { partBytes } = run

  describe('aborting', () => {
    it('destroy before the first byte', async () => {
      const key = run.freshKey()
      const stream = run.storage.createWriteStream(key)
      stream.destroy()
      await closedCleanly(stream)
      await run.assertNothingLeft(key)
    })

    for (const size of [10, partBytes, 2 * partBytes + 10]) {
      it(`destroy after ${size} bytes, the source stalled`, async () => {
        const key = run.freshKey()
        const stream = run.storage.createWriteStream(key)
        await feed(stream, noise(size, 1))
        stream.destroy()
        await closedCleanly(stream)
        assert.equal(stream.writableFinished, false)
        await run.assertNothingLeft(key)
      })

      it(`destroy just after end() of ${size} bytes leaves nothing, or had finished`, async () => {
        const key = run.freshKey()
        const stream = run.storage.createWriteStream(key)
        stream.end(noise(size, 1))
        stream.destroy()
        await closedCleanly(stream)
        await run.assertNothingLeft(key)
      })

      it(`destroy at any moment of the commit of ${size} bytes leaves nothing, or had finished`, async () => {
        for (const ms of await run.momentsOfCommit(size)) {
          const key = run.freshKey()
          const stream = run.storage.createWriteStream(key)
          const close = closedCleanly(stream)
          stream.end(noise(size, 1))
          await delay(ms)
          const had = stream.writableFinished
          stream.destroy()
          await close
          assert.equal(stream.writableFinished, had)
          if (had) await run.assertHolds(key, noise(size, 1))
          else await run.assertNothingLeft(key)
        }
      })
    }

    for (const size of [10, 2 * partBytes + 10]) {
      it(`destroy at any moment of replacing by ${size} bytes leaves the old object or none, or had finished`, async () => {
        for (const ms of await run.momentsOfCommit(size)) {
          const key = run.freshKey()
          await write(run.storage, key, noise(300, 2))
          const stream = run.storage.createWriteStream(key)
          const close = closedCleanly(stream)
          stream.end(noise(size, 1))
          await delay(ms)
          stream.destroy()
          await close
          if (stream.writableFinished) await run.assertHolds(key, noise(size, 1))
          // The new one had replaced the old one, and was taken back.
          else if ((await keysOf(run.storage, key)).length === 0) await run.assertNothingLeft(key)
          else await run.assertHolds(key, noise(300, 2))
        }
      })

      it(`a signal at any moment of the commit of ${size} bytes is an AbortError, or it had finished`, async () => {
        for (const ms of await run.momentsOfCommit(size)) {
          const key = run.freshKey()
          const controller = new AbortController()
          const stream = run.storage.createWriteStream(key, { signal: controller.signal })
          const close = closed(stream)
          stream.end(noise(size, 1))
          await delay(ms)
          controller.abort()
          await close
          if (stream.writableFinished) await run.assertHolds(key, noise(size, 1))
          else {
            assert.equal(stream.errored?.name, 'AbortError')
            await run.assertNothingLeft(key)
          }
        }
      })

      it(`destroy of an ifAbsent write of ${size} bytes never removes what was there`, async () => {
        if (!run.storage.conditionalWrites) return
        for (const ms of await run.momentsOfCommit(size)) {
          const key = run.freshKey()
          await write(run.storage, key, noise(300, 2))
          const stream = run.storage.createWriteStream(key, { ifAbsent: true })
          const close = closed(stream)
          stream.end(noise(size, 1))
          await delay(ms)
          stream.destroy()
          await close
          assert.equal(stream.writableFinished, false)
          await run.assertHolds(key, noise(300, 2))
        }
      })
    }

    it('destroy with an error gives that error, then close', async () => {
      const key = run.freshKey()
      const stream = run.storage.createWriteStream(key)
      await feed(stream, noise(2 * partBytes, 1))
      const failure = new Error('of our own making')
      const seen = once(stream, 'error')
      const close = closed(stream)
      stream.destroy(failure)
      assert.equal((await seen)[0], failure)
      await close
      await run.assertNothingLeft(key)
    })

    it('destroy leaves the object that was there before', async () => {
      const key = run.freshKey()
      await write(run.storage, key, noise(300, 1))
      for (const size of [10, 300, 2 * partBytes]) {
        const stream = run.storage.createWriteStream(key)
        await feed(stream, noise(size, 1))
        stream.destroy()
        await closedCleanly(stream)
        await run.assertHolds(key, noise(300, 1))
      }
    })

    it('destroy after finish does nothing', async () => {
      for (const size of [10, partBytes + 10]) {
        const key = run.freshKey()
        const stream = run.storage.createWriteStream(key)
        stream.once('finish', () => stream.destroy())
        stream.end(noise(size, 1))
        await closedCleanly(stream)
        stream.destroy()
        await run.assertHolds(key, noise(size, 1))
      }
    })

    it('T4: a source that fails leaves nothing', async () => {
      for (const size of [0, 10, partBytes + 10, 3 * partBytes]) {
        const key = run.freshKey()
        const failure = new Error('the source died')
        async function* source() {
          yield* chunksOf(noise(size, 1), 100_000)
          throw failure
        }
        await assert.rejects(transfer(source(), run.storage.createWriteStream(key)), failure)
        await run.assertNothingLeft(key)
      }
    })

    it('a signal aborts with AbortError: before, at the start, in the middle', async () => {
      const key = run.freshKey()
      const fired = run.storage.createWriteStream(key, { signal: AbortSignal.abort() })
      await assertAborts(finished(fired))
      await closed(fired)
      for (const size of [0, 10, 2 * partBytes]) {
        const controller = new AbortController()
        const stream = run.storage.createWriteStream(key, { signal: controller.signal })
        const ended = assertAborts(finished(stream))
        const close = closed(stream)
        await feed(stream, noise(size, 1))
        controller.abort()
        await ended
        await close
      }
      await run.assertNothingLeft(key)
    })

    it("a pipeline's own signal settles it, with nothing left", async () => {
      const key = run.freshKey()
      const controller = new AbortController()
      const chunks = chunksOf(noise(2 * partBytes, 1), 200_000)
      const source = new Readable({
        read() {
          const { value, done } = chunks.next()
          if (done) controller.abort()
          else this.push(value)
        },
      })
      const stream = run.storage.createWriteStream(key)
      const close = closed(stream)
      await assertAborts(pipeline(source, stream, { signal: controller.signal }))
      await close
      await run.assertNothingLeft(key)
    })
  })
}
