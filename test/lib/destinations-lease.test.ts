import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { openMemory } from '../../adapters/memory.ts'
import { openBackups } from '../../lib/index.ts'
import { HeldClock } from '../support/lease-clock.ts'
import { keysIn } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'
import { feed } from '../support/streams.ts'

const key = Buffer.alloc(32, 9)

test('a lease that is had only when its destination was given up is given back', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const [first, second] = [await openMemory(), await openMemory()]
  const hangs = Promise.withResolvers<void>()
  const answers = Promise.withResolvers<void>()
  // The last question before the lease is had.
  const slow = overriding(second, {
    createReadStream(name, options) {
      if (!name.endsWith('.claim')) return second.createReadStream(name, options)
      return Readable.from(
        (async function* () {
          hangs.resolve()
          await answers.promise
          yield* second.createReadStream(name, options)
        })(),
        { objectMode: false },
      )
    },
  })
  const backups = await openBackups({ storage: first, mirrors: [slow], server: 'survival', key })
  const lease = { ttlMs: 1000, clock: new HeldClock() }
  const creating = backups.create(feed(Buffer.from('a world')), { lease, stallMs: 1000 })
  await hangs.promise
  t.mock.timers.tick(3600_000)
  const made = await creating
  assert.deepEqual(
    made.destinations.map(({ ok }) => ok),
    [true, false],
  )
  assert.ok((await keysIn(second)).some((name) => name.endsWith('.claim')))
  answers.resolve()
  for (let turns = 0; turns < 200; turns += 1) await turn()
  assert.deepEqual(await keysIn(second), [])
  assert.deepEqual((await keysIn(first)).length, 2)
})

/** A backup whose source goes on when the test lets it, under a lease whose time does too. */
async function underWay() {
  const [storage, clock] = [await openMemory(), new HeldClock()]
  const backups = await openBackups({ storage, server: 'survival', key })
  const source = new Readable({ read: () => {} })
  source.push('a world')
  const running = backups.create(source, { lease: { ttlMs: 60_000, clock } })
  running.catch(() => {})
  while (!(await keysIn(storage)).some((name) => name.endsWith('/holder'))) await turn()
  for (let turns = 0; turns < 200; turns += 1) await turn()
  for (const name of await keysIn(storage)) await storage.delete(name)
  return { storage, clock, source, running }
}

test('a lease that was taken away is asked for before the commit, also where no sign of life was due', async () => {
  const { storage, source, running } = await underWay()
  source.push(null)
  await assert.rejects(running, { code: 'LEASE_LOST' })
  assert.deepEqual(await keysIn(storage), [])
})

test('a lease that is found lost ends the backup, also while its source brings nothing', async () => {
  const { storage, clock, running } = await underWay()
  await clock.pass(60_000)
  await assert.rejects(running, { code: 'LEASE_LOST' })
  assert.deepEqual(await keysIn(storage), [])
})
