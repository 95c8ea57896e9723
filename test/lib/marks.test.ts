import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { holdMark, isLiveMark, MARK_TTL_MS, parseMark } from '../../lib/marks.ts'
import { keysIn } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'

/** Timers and the clock that measures, moved together by the test. */
function clock(t: TestContext) {
  let now = 1000
  t.mock.timers.enable({ apis: ['setInterval'] })
  t.mock.method(performance, 'now', () => now)
  return async (ms: number) => {
    now += ms
    t.mock.timers.tick(ms)
    for (let turns = 0; turns < 20; turns += 1) await turn()
  }
}

const hold = (storage: Storage) => holdMark(storage, 'survival', 'read-2025-11-24T10-29-00.000Z-bbbb', { any: 1 })

test('a mark is written again well before others take it for dead, until it is released', async (t) => {
  const pass = clock(t)
  const storage = await openMemory()
  const mark = await hold(storage)
  assert.deepEqual(await keysIn(storage), [mark.key])
  const versions = new Set<string | undefined>()
  for (let beats = 0; beats < 12; beats += 1) {
    versions.add((await storage.stat(mark.key)).version)
    await pass(MARK_TTL_MS / 4)
    assert.ok(mark.isLive())
  }
  assert.equal(versions.size, 12)
  await mark.release()
  await pass(MARK_TTL_MS)
  assert.deepEqual(await keysIn(storage), [])
})

test('a machine that slept for longer than a mark lives knows that others take it for dead', async (t) => {
  const pass = clock(t)
  const storage = await openMemory()
  const mark = await hold(storage)
  assert.ok(mark.isLive())
  // Asleep: only the clock that can be set has gone on, and no timer has.
  const woken = Date.now() + MARK_TTL_MS
  t.mock.method(Date, 'now', () => woken)
  assert.ok(!mark.isLive())
  await pass(MARK_TTL_MS / 4)
  assert.ok(mark.isLive())
  await mark.release()
})

test('a mark that cannot be written again knows that it is dead when the others think so', async (t) => {
  const pass = clock(t)
  const storage = await openMemory()
  let broken = false
  const breaking = overriding(storage, {
    createWriteStream(key, options) {
      if (broken) throw new StorageError('Gone.', { code: 'UNAVAILABLE', adapter: 'memory', operation: 'write', key })
      return storage.createWriteStream(key, options)
    },
  })
  const mark = await hold(breaking)
  broken = true
  await pass(MARK_TTL_MS / 2)
  assert.ok(mark.isLive())
  await pass(MARK_TTL_MS / 2)
  assert.ok(!mark.isLive())
  broken = false
  await pass(MARK_TTL_MS / 4)
  assert.ok(mark.isLive())
  await mark.release()
})

/** Marks are written, as long as nothing holds their writes up. */
function held(storage: Storage) {
  const waiting: (() => void)[] = []
  let isHeld = false
  const slow = overriding(storage, {
    createWriteStream(key, options) {
      if (!isHeld) return storage.createWriteStream(key, options)
      return new Writable({ write: (_chunk, _encoding, done) => waiting.push(() => done()) })
    },
  })
  const hold = () => {
    isHeld = true
  }
  return { slow, hold, letOne: () => waiting.shift()?.() }
}

test('a mark that took long to be written is as old as its writing was when it began', async (t) => {
  const pass = clock(t)
  const { slow, hold: holdWrites, letOne } = held(await openMemory())
  const mark = await hold(slow)
  holdWrites()
  await pass(MARK_TTL_MS / 4)
  await pass(MARK_TTL_MS / 2)
  letOne()
  await pass(MARK_TTL_MS / 4 - 1)
  assert.ok(mark.isLive())
  await pass(MARK_TTL_MS / 4 + 1)
  assert.ok(!mark.isLive())
  await mark.release()
})

test('a mark whose writing hangs is given back all the same', async (t) => {
  const pass = clock(t)
  const storage = await openMemory()
  const { slow, hold: holdWrites } = held(storage)
  const mark = await hold(slow)
  holdWrites()
  await pass(MARK_TTL_MS / 4)
  let isReleased = false
  void mark.release().then(() => {
    isReleased = true
  })
  await pass(1)
  assert.ok(isReleased)
  assert.deepEqual(await keysIn(storage), [])
})

test('a mark that cannot be looked at after it was written is taken back', async () => {
  const storage = await openMemory()
  const blind = overriding(storage, {
    async stat(key) {
      throw new StorageError('Blind.', { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'stat', key })
    },
  })
  await assert.rejects(hold(blind), { code: 'ACCESS_DENIED' })
  assert.deepEqual(await keysIn(storage), [])
})

test('marks are told from what else lies among the leases, and the live from the dead by the time of the store', () => {
  const id = '2025-11-24T10-29-00.000Z-bbbb'
  assert.deepEqual(parseMark(`a/.lease/read-${id}-0123456789ab`), { kind: 'read', id })
  assert.deepEqual(parseMark('a/.lease/prune-0123456789ab'), { kind: 'prune' })
  for (const other of ['a/.lease/1763980000000-0123456789ab', 'a/.lease/prune-x', 'a/.lease/read-', 'a/.lease/held']) {
    assert.equal(parseMark(other), null)
  }
  const at = (ms: number) => ({ key: 'a', size: 1, modified: new Date(ms) })
  const now = new Date(10 * MARK_TTL_MS)
  assert.ok(isLiveMark(at(now.getTime()), now))
  assert.ok(isLiveMark(at(now.getTime() - MARK_TTL_MS + 1), now))
  assert.ok(!isLiveMark(at(now.getTime() - MARK_TTL_MS), now))
  assert.ok(isLiveMark(at(now.getTime() + 3_600_000), now), 'the clock was set back a little')
  assert.ok(!isLiveMark(at(now.getTime() + 30 * 86_400_000), now), 'the clock was wrong')
})
