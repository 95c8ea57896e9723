import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { surveyStore } from '../../lib/catalog.ts'
import { acquireLease, LEASE_TTL_MS, type Lease, type LeaseOptions, type Snapshot } from '../../lib/index.ts'
import { holdMark, parseMark } from '../../lib/marks.ts'
import { markRemoval, withReadLease } from '../../lib/read-lease.ts'
import { clockedStore, HeldClock, withoutConditions } from '../support/lease-clock.ts'
import { overriding } from '../support/storage.ts'

const TTL_MS = 60_000
const HOUR_MS = 3_600_000

interface Place {
  clock: HeldClock
  storage: Storage
  take(options?: LeaseOptions, storage?: Storage): Promise<Lease>
}

async function place(conditional: boolean): Promise<Place> {
  const clock = new HeldClock()
  const memory = clockedStore(await openMemory(), clock)
  const storage = conditional ? memory : withoutConditions(memory)
  const take = (options: LeaseOptions = {}, at = storage) =>
    clock.until(acquireLease(at, 'survival', { ttlMs: TTL_MS, clock, ...options }), HOUR_MS)
  return { clock, storage, take }
}

const hasCode = (code: string) => (error: unknown) => (error as { code: string }).code === code

async function keysOf(storage: Storage): Promise<string[]> {
  return (await Array.fromAsync(storage.list(''))).map(({ key }) => key).sort()
}

/** Whatever its process would do from now on does not come about. */
function killable(storage: Storage): { storage: Storage; kill(): void } {
  let dead = false
  const broken = () => {
    if (dead) throw new StorageError('Nobody answers.', { code: 'UNAVAILABLE', adapter: 'memory', operation: 'any' })
  }
  return {
    kill: () => {
      dead = true
    },
    storage: overriding(storage, {
      createWriteStream(key, options) {
        broken()
        return storage.createWriteStream(key, options)
      },
      async stat(key, options) {
        broken()
        return storage.stat(key, options)
      },
      async delete(key, options) {
        broken()
        return storage.delete(key, options)
      },
    }),
  }
}

for (const conditional of [true, false]) {
  const where = conditional ? 'with conditional writes' : 'without conditional writes'

  test(`a lease whose removal nobody answers is given back all the same (${where})`, async (t) => {
    const { storage, take } = await place(conditional)
    const timeout = AbortSignal.timeout
    t.mock.method(AbortSignal, 'timeout', () => timeout(50))
    // Such a timer holds no process, as the connections of a real store do.
    const held = setInterval(() => {}, 1000)
    t.after(() => clearInterval(held))
    let hung = 0
    const silent = overriding(storage, {
      delete: (_key, { signal } = {}) =>
        new Promise((_, reject) => {
          hung += 1
          signal?.addEventListener('abort', () => reject(signal.reason))
        }),
    })
    const lease = await take({}, silent)
    await lease.release()
    assert.equal(hung, 1)
    await (await take()).release()
    assert.deepEqual(await keysOf(storage), [])
  })

  test(`T22: a lease refuses everybody else until it is given back, and leaves nothing (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const lease = await take({ owner: 'the first' })
    for (let hour = 0; hour < 3; hour += 1) {
      await assert.rejects(take(), (error: Error) => {
        assert.ok(hasCode('LEASE_HELD')(error))
        assert.match(error.message, /survival: the first, since 2026-11-24T.*--wait.*--steal/)
        return true
      })
      await clock.pass(HOUR_MS)
      assert.equal(lease.lost.aborted, false)
    }
    await lease.confirm()
    await lease.release()
    assert.deepEqual(await keysOf(storage), [])
    await (await take()).release()
    assert.deepEqual(await keysOf(storage), [])
  })

  test(`T22: of several at once exactly one gets the lease, fifty times (${where})`, async () => {
    for (let round = 0; round < 50; round += 1) {
      const { clock, take } = await place(conditional)
      const results = await Promise.allSettled(
        Array.from({ length: 2 + (round % 4) }, (_, index) =>
          // Clocks that are hours apart: nothing but who is preferred hangs on them.
          take({ clock: clock.skewed((index % 3) * HOUR_MS), settleMs: 0 }),
        ),
      )
      const won = results.filter(({ status }) => status === 'fulfilled')
      assert.equal(won.length, 1, `round ${round}`)
      for (const one of results) {
        if (one.status === 'rejected') assert.ok(hasCode('LEASE_HELD')(one.reason), String(one.reason))
      }
    }
  })

  test(`T22: the lease of a holder that died is taken over after its time to live, not before (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const victim = killable(storage)
    const dead = await take({}, victim.storage)
    victim.kill()
    const begun = clock.now()
    await assert.rejects(take(), hasCode('LEASE_HELD'))
    const lease = await take({ waitMs: HOUR_MS })
    const took = clock.now() - begun
    assert.ok(took > TTL_MS && took < TTL_MS * 1.6, `after ${took} ms`)
    assert.equal(dead.lost.aborted, true)
    assert.ok(hasCode('LEASE_LOST')(dead.lost.reason))
    await assert.rejects(dead.confirm(), hasCode('LEASE_LOST'))
    assert.equal(lease.lost.aborted, false)
    await lease.release()
    assert.deepEqual(await keysOf(storage), [])
  })

  test(`T22: a holder that died long ago is in nobody's way, also without waiting (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const victim = killable(storage)
    await take({ owner: 'the dead one' }, victim.storage)
    victim.kill()
    await clock.pass(HOUR_MS)
    const waited: string[] = []
    const lease = await take({ onWait: ({ owner }) => waited.push(owner) })
    assert.deepEqual(waited, ['the dead one'])
    await lease.release()
  })

  test(`a living holder is never taken over, whatever the clocks show (${where})`, async () => {
    const { clock, take } = await place(conditional)
    for (const skewMs of [-24 * HOUR_MS, -HOUR_MS, HOUR_MS, 10 * 365 * 24 * HOUR_MS]) {
      const lease = await take({ clock: clock.skewed(skewMs) })
      await assert.rejects(take({ clock: clock.skewed(-skewMs) }), hasCode('LEASE_HELD'))
      await assert.rejects(take({ waitMs: 5 * TTL_MS }), hasCode('LEASE_HELD'))
      assert.equal(lease.lost.aborted, false)
      await lease.release()
    }
  })

  test(`one that waits gets the lease when it is given back (${where})`, async () => {
    const { clock, take } = await place(conditional)
    const first = await take()
    const second = take({ waitMs: HOUR_MS })
    await clock.pass(5 * TTL_MS)
    await first.release()
    const lease = await second
    assert.equal(lease.lost.aborted, false)
    await lease.release()
  })

  test(`a stolen lease is lost to its holder at its next sign of life (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const first = await take()
    const thief = await take({ steal: true })
    await clock.pass(TTL_MS / 2)
    assert.equal(first.lost.aborted, true)
    assert.equal(thief.lost.aborted, false)
    await first.release()
    await thief.confirm()
    await thief.release()
    assert.deepEqual(await keysOf(storage), [])
  })

  test(`a restore that reads and a prune that removes do not keep a backup from starting (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const id = '2025-11-24T10-29-00.000Z-bbbb'
    const marks = [
      await holdMark(storage, 'survival', `read-${id}`, { reads: id }),
      ...(await markRemoval(storage, 'survival', [id])),
    ]
    assert.equal(marks.length, 2)
    const begun = clock.now()
    const lease = await take()
    assert.ok(clock.now() - begun < 5_000)
    // The other way round too: nothing of the election is a mark, or something that prune does not know.
    const { leases, foreign } = await surveyStore(storage, 'survival')
    assert.deepEqual(foreign, [])
    const kinds = leases.map(({ key }) => parseMark(key)?.kind ?? null)
    assert.deepEqual(kinds.filter((kind) => kind !== null).sort(), ['prune', 'read'])
    assert.equal(kinds.length, conditional ? 5 : 4)
    await lease.release()
    assert.equal((await keysOf(storage)).length, 2)
    for (const mark of marks) await mark.release()
    assert.deepEqual(await keysOf(storage), [])
  })

  test(`a claimant that died while it claimed holds the others up for a minute only (${where})`, async () => {
    const { storage, take } = await place(conditional)
    const id = '2026-11-24T00-00-00.000Z-0123456789abcdef'
    const text = `${JSON.stringify({ v: 1, owner: 'x', since: '2026-11-24T00:00:00.000Z', ttlMs: HOUR_MS })}\n`
    storage.createWriteStream(`survival/.lease/${id}.claim`).end(text)
    const lease = await take()
    await lease.release()
    assert.deepEqual(await keysOf(storage), [])
  })
}

test('without conditional writes a listing that lags lets nobody in beside another', async () => {
  for (let round = 0; round < 20; round += 1) {
    const { clock, storage, take } = await place(false)
    const written = new Map<string, number>()
    const lagging = overriding(storage, {
      createWriteStream(key, options) {
        const stream = storage.createWriteStream(key, options)
        stream.once('finish', () => written.has(key) || written.set(key, clock.now()))
        return stream
      },
      async *list(prefix) {
        for await (const found of storage.list(prefix)) {
          if (clock.now() - (written.get(found.key) as number) >= 1900) yield found
        }
      },
    })
    const later = async (ms: number) => {
      await clock.until(clock.sleep(ms, undefined), HOUR_MS)
      return take({}, lagging)
    }
    const results = await Promise.allSettled([take({}, lagging), later(round * 150), later(round * 250)])
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
  }
})

test('with conditional writes the holder’s mark decides where the listing shows nothing at all', async () => {
  const { storage, take } = await place(true)
  const blind = overriding(storage, { async *list() {} })
  await take()
  const stop = new AbortController()
  let waits = 0
  const counted = overriding(blind, {
    list(prefix) {
      waits += 1
      if (waits > 20) stop.abort()
      return blind.list(prefix)
    },
  })
  await assert.rejects(take({ signal: stop.signal }, counted), { name: 'AbortError' })
  assert.ok(waits > 20)
})

test('a holder whose store cannot be reached keeps its lease for the time to live, and then gives up', async () => {
  const { clock, storage, take } = await place(true)
  let down = false
  const flaky = overriding(storage, {
    createWriteStream(key, options) {
      if (down) throw new StorageError('down', { code: 'UNAVAILABLE', adapter: 'memory', operation: 'write' })
      return storage.createWriteStream(key, options)
    },
  })
  const lease = await take({}, flaky)
  down = true
  await clock.pass(TTL_MS * 0.6)
  down = false
  await clock.pass(HOUR_MS)
  assert.equal(lease.lost.aborted, false)
  down = true
  await clock.pass(TTL_MS * 1.01)
  assert.ok(hasCode('LEASE_LOST')(lease.lost.reason))
})

test('a sign of life that hangs does not keep the lease from being lost', async () => {
  const { clock, storage, take } = await place(true)
  let hangs = false
  const lease = await take(
    {},
    overriding(storage, {
      createReadStream: (key, options) =>
        hangs ? new Readable({ read() {} }) : storage.createReadStream(key, options),
    }),
  )
  hangs = true
  await clock.pass(TTL_MS * 1.01)
  assert.ok(hasCode('LEASE_LOST')(lease.lost.reason))
})

test('where deleting is refused, a lease that was given back is in nobody’s way', async () => {
  const { clock, storage, take } = await place(true)
  const noDelete = overriding(storage, {
    async delete(key) {
      throw new StorageError('no', { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'delete', key })
    },
  })
  const first = await take({}, noDelete)
  await first.release()
  const begun = clock.now()
  const second = await take()
  assert.ok(clock.now() - begun < 1000)
  await second.release()
})

/** Two accounts that write to one bucket: what one has written the other can list, replace and delete, and not read. */
function accounts(storage: Storage): [Storage, Storage] {
  const writers = new Map<string, number>()
  const denied = (operation: string, key: string) =>
    new StorageError('not yours', { code: 'ACCESS_DENIED', adapter: 'memory', operation, key })
  const view = (account: number) => {
    const isOthers = (key: string) => writers.has(key) && writers.get(key) !== account
    return overriding(storage, {
      createWriteStream(key, options) {
        return storage.createWriteStream(key, options).once('finish', () => writers.set(key, account))
      },
      createReadStream(key, options) {
        if (!isOthers(key)) return storage.createReadStream(key, options)
        return new Readable({ read() {} }).destroy(denied('read', key))
      },
      async stat(key, options) {
        if (isOthers(key)) throw denied('stat', key)
        return storage.stat(key, options)
      },
      async delete(key, options) {
        await storage.delete(key, options)
        writers.delete(key)
      },
    })
  }
  return [view(1), view(2)]
}

for (const conditional of [true, false]) {
  const where = conditional ? 'with conditional writes' : 'without conditional writes'

  test(`T22: a claim that may not be read here, of another account, counts like any other (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const [ours, theirs] = accounts(storage)
    const victim = killable(theirs)
    const first = await take({ ttlMs: LEASE_TTL_MS }, victim.storage)
    await clock.pass(HOUR_MS)
    await assert.rejects(take({}, ours), (error: Error) => {
      assert.ok(hasCode('LEASE_HELD')(error))
      assert.match(error.message, /another account/)
      return true
    })
    victim.kill()
    const begun = clock.now()
    const second = await take({ waitMs: HOUR_MS }, ours)
    const took = clock.now() - begun
    assert.ok(took > LEASE_TTL_MS && took < LEASE_TTL_MS * 1.6, `after ${took} ms`)
    assert.equal(first.lost.aborted, true)
    await second.release()
    assert.deepEqual(await keysOf(storage), [])
  })

  test(`T22: one that may not delete says by a name that it has left, for those who may not read (${where})`, async () => {
    const { clock, storage, take } = await place(conditional)
    const [ours, theirs] = accounts(storage)
    const noDelete = overriding(theirs, {
      async delete(key) {
        throw new StorageError('no', { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'delete', key })
      },
    })
    await (await take({}, noDelete)).release()
    const begun = clock.now()
    const second = await take({}, ours)
    // Without conditional writes a listing may lag, which is waited for.
    assert.ok(clock.now() - begun < 10_000)
    await second.release()
    assert.deepEqual(await keysOf(storage), [])
  })
}

test('servers have leases of their own, and bad options are refused', async () => {
  const { clock, storage, take } = await place(true)
  const lease = await take()
  const other = await clock.until(acquireLease(storage, 'survival2', { clock }), HOUR_MS)
  await other.release()
  await lease.release()
  for (const options of [
    { ttlMs: 0 },
    { ttlMs: Number.NaN },
    { waitMs: -1 },
    { ttlMs: 10 ** 12 },
    { settleMs: Number.NaN },
  ]) {
    await assert.rejects(acquireLease(storage, 'survival', options), hasCode('USAGE'))
  }
  await assert.rejects(acquireLease(storage, 'No!'), hasCode('USAGE'))
})

test('a claim of another account that may not be read is refused to, and can be stolen; a mark keeps nobody from reading', async () => {
  const { storage, take } = await place(true)
  const theirs = new Set<string>()
  const others = overriding(storage, {
    createWriteStream(key, options) {
      theirs.add(key)
      return storage.createWriteStream(key, options)
    },
  })
  const owner = overriding(storage, {
    createWriteStream(key, options) {
      theirs.delete(key)
      return storage.createWriteStream(key, options)
    },
    createReadStream(key, options) {
      if (!theirs.has(key)) return storage.createReadStream(key, options)
      const denied = { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'read', key } as const
      return new Readable({ read: () => {} }).destroy(new StorageError('It may not be read.', denied))
    },
  })
  const held = await take({}, others)
  for (const waitMs of [0, 3 * TTL_MS]) {
    await assert.rejects(take({ waitMs }, owner), (error: Error) => /--steal\.$/.test(error.message))
  }
  const stolen = await take({ steal: true }, owner)
  await stolen.confirm()
  await assert.rejects(held.confirm(), hasCode('LEASE_LOST'))
  await stolen.release()
  await held.release()
  assert.deepEqual(await keysOf(storage), [])

  const id = '2026-11-24T00-00-00.000Z-aaaa'
  const marks = await markRemoval(others, 'survival', [id])
  const notices: string[] = []
  const snapshot = { server: 'survival', id } as Snapshot
  const onNotice = (message: string) => notices.push(message)
  assert.equal(await withReadLease(owner, snapshot, { onNotice }, async () => 'read'), 'read')
  assert.match(notices.join(), /A prune of another account/)
  for (const mark of marks) await mark.release()
})

for (const conditional of [true, false]) {
  test(`a claim whose process is known to be gone is not waited for, and any other is${conditional ? '' : ', without conditional writes'}`, async () => {
    const { storage, take } = await place(conditional)
    const { storage: theirs, kill } = killable(storage)
    const dead = await take({}, theirs)
    kill()
    await assert.rejects(take({ dead: ['2026-11-24T00-00-00.000Z-0123456789abcdef'] }), hasCode('LEASE_HELD'))
    const next = await take({ dead: [dead.id] })
    await next.confirm()
    await assert.rejects(take({ dead: [dead.id] }), hasCode('LEASE_HELD'))
    await next.release()
    assert.deepEqual(await keysOf(storage), [])
  })
}
