import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { type DropboxConfig, openDropbox } from '../../adapters/dropbox.ts'
import type { Storage } from '../../adapters/storage.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import { authError, rateLimit, routeError, transportLimit, uploadError } from '../fakes/dropbox-errors.ts'
import { ContentHasher } from '../fakes/dropbox-hash.ts'
import { Refusal } from '../fakes/http.ts'
import {
  APPEND,
  assertHolds,
  assertNoFile,
  BLOCK_BYTES,
  BYTES,
  bytesOf,
  FINISH,
  put,
  quickSettings,
  UPLOAD,
} from '../support/dropbox.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'

const SESSIONS = ['concurrent', 'sequential'] as const

describe('uploads to a Dropbox that fails', () => {
  let fake: FakeDropbox
  let storage: Storage
  let proxy: FaultProxy | undefined

  beforeEach(async () => {
    fake = await FakeDropbox.open({ blockBytes: BLOCK_BYTES })
    storage = await openDropbox(quickSettings(fake))
  })
  afterEach(async () => {
    await storage.close()
    await proxy?.close()
    proxy = undefined
    await fake.close()
  })

  async function reopen(more: Partial<DropboxConfig>): Promise<void> {
    await storage.close()
    storage = await openDropbox(quickSettings(fake, more))
  }

  async function behindProxy(): Promise<FaultProxy> {
    proxy = await openFaultProxy(fake.origin)
    await reopen({ endpoint: proxy.endpoint, idleMs: 1000 })
    return proxy
  }

  describe('tokens', () => {
    it('T15: the token expires between two parts: it is renewed once, for all parts in flight', async () => {
      await put(storage, 'first', BYTES)
      fake.tokens.slowDown(50)
      fake.tokens.expire()
      await Promise.all(['a', 'b', 'c'].map((key) => put(storage, key, BYTES)))
      assert.equal(fake.tokens.requests, 2)
      for (const key of ['a', 'b', 'c']) await assertHolds(storage, fake, key, BYTES)
    })

    for (const session of SESSIONS) {
      it(`T15: the token expires in the middle of a part: that part alone is sent again (${session})`, async () => {
        await reopen({ session })
        const stream = storage.createWriteStream('mid')
        for (let at = 0; at < BYTES.length; at += BLOCK_BYTES) {
          if (at === 2 * BLOCK_BYTES) fake.expireDuring(APPEND)
          const ready = stream.write(BYTES.subarray(at, at + BLOCK_BYTES))
          if (!ready) await once(stream, 'drain')
          await new Promise((resolve) => setTimeout(resolve, 20))
        }
        stream.end()
        await once(stream, 'finish')
        assert.equal(fake.tokens.requests, 2)
        const sent = bytesOf(fake, APPEND)
        assert.ok(sent > BYTES.length && sent <= BYTES.length + BLOCK_BYTES, `${sent} bytes were sent`)
        await assertHolds(storage, fake, 'mid', BYTES)
      })
    }

    it('T15: the token expires during the commit', async () => {
      fake.expireDuring(FINISH)
      await put(storage, 'finish', BYTES)
      fake.expireDuring(UPLOAD)
      await put(storage, 'whole', BYTES.subarray(0, 100))
      await assertHolds(storage, fake, 'finish', BYTES)
      await assertHolds(storage, fake, 'whole', BYTES.subarray(0, 100))
    })

    it('a new token that is not known everywhere yet is no end', async () => {
      fake.refuse(UPLOAD, authError('expired_access_token'), 2)
      await put(storage, 'twice', BYTES.subarray(0, 10))
      await assertHolds(storage, fake, 'twice', BYTES.subarray(0, 10))
    })

    it('access that was revoked in the middle ends the upload at once, and says how to get it again', async () => {
      const stream = storage.createWriteStream('revoked')
      stream.write(BYTES.subarray(0, 2 * BLOCK_BYTES))
      while (fake.callsOf(APPEND).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
      fake.tokens.revoke()
      const requests = fake.tokens.requests
      await assert.rejects(pipeline(Readable.from([BYTES.subarray(2 * BLOCK_BYTES)]), stream), (error: Error) => {
        assert.equal((error as Error & { code: string }).code, 'AUTH_EXPIRED')
        assert.match(error.message, /revoked.*millrace login dropbox/)
        return true
      })
      assert.ok(fake.tokens.requests - requests <= 2, 'it was retried')
    })
  })

  describe('sessions', () => {
    it('T15: incorrect_offset after an append whose answer was lost: no more than that part is sent again', async () => {
      await reopen({ session: 'sequential' })
      fake.applyAndFail(APPEND)
      await put(storage, 'lost', BYTES)
      await assertHolds(storage, fake, 'lost', BYTES)
      assert.equal(bytesOf(fake, APPEND), BYTES.length + BLOCK_BYTES)
    })

    it('T15: incorrect_offset in the middle of a part: the rest of it is sent', async () => {
      await reopen({ session: 'sequential' })
      fake.keepHalf()
      await put(storage, 'half', BYTES)
      await assertHolds(storage, fake, 'half', BYTES)
      assert.equal(bytesOf(fake, APPEND), BYTES.length + 1.5 * BLOCK_BYTES)
    })

    it('a session that has fewer bytes than were sent, or more, is lost', async () => {
      await reopen({ session: 'sequential' })
      for (const correct of [0, BLOCK_BYTES, 4 * BLOCK_BYTES]) {
        const before = fake.callsOf(APPEND).length
        fake.onCall = ({ route }) => {
          if (route !== APPEND || fake.callsOf(APPEND).length !== before + 2) return
          fake.refuse(APPEND, routeError(['incorrect_offset'], { correct_offset: correct }))
        }
        await assert.rejects(put(storage, 'behind', BYTES), { code: 'UNAVAILABLE', retryable: false })
        assert.equal(fake.callsOf(APPEND).length, before + 2)
      }
      assertNoFile(fake)
    })

    for (const session of SESSIONS) {
      it(`an append whose answer was lost is sent again, also the one that closes (${session})`, async () => {
        await reopen({ session })
        fake.applyAndFail(APPEND, 2)
        await put(storage, 'first', BYTES)
        await assertHolds(storage, fake, 'first', BYTES)
        const parts = Math.ceil(BYTES.length / BLOCK_BYTES)
        const stream = storage.createWriteStream('last')
        stream.write(BYTES)
        const before = fake.callsOf(APPEND).length
        while (fake.callsOf(APPEND).length < before + parts - 1) await new Promise((resolve) => setTimeout(resolve, 5))
        fake.applyAndFail(APPEND)
        stream.end()
        await once(stream, 'finish')
        await assertHolds(storage, fake, 'last', BYTES)
      })

      it(`T15: a session that is gone before any part was kept is begun anew, once, and the caller told (${session})`, async () => {
        await reopen({ session })
        const notices: string[] = []
        fake.refuse(APPEND, routeError(['not_found']))
        await put(storage, 'gone', BYTES, { onNotice: (message) => notices.push(message) })
        assert.equal(fake.callsOf('files/upload_session/start').length, 2)
        assert.deepEqual(notices, ['Dropbox lost the upload session of "gone"; another was begun.'])
        await assertHolds(storage, fake, 'gone', BYTES)
        fake.refuse(APPEND, routeError(['not_found']), 20)
        await assert.rejects(put(storage, 'twice', BYTES), { code: 'UNAVAILABLE', retryable: false })
        assert.equal(fake.callsOf('files/upload_session/start').length, 4)
        assert.equal(fake.tree.files.length, 1)
      })

      it(`T15: a session that is gone with earlier parts fails at once, and says so (${session})`, async () => {
        await reopen({ session })
        const stream = storage.createWriteStream('lost')
        const failed = new Promise<Error & { code?: string; retryable?: boolean }>((resolve) =>
          stream.once('error', resolve),
        )
        const closed = new Promise((resolve) => stream.once('close', resolve))
        stream.write(BYTES.subarray(0, BLOCK_BYTES + 1))
        while (fake.callsOf(APPEND).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
        await new Promise((resolve) => setTimeout(resolve, 20))
        fake.sessions.loseAll()
        stream.end(BYTES.subarray(BLOCK_BYTES + 1))
        const error = await failed
        assert.equal(error.code, 'UNAVAILABLE')
        assert.equal(error.retryable, false)
        assert.match(error.message, /lost the upload session of "lost"; the upload must be begun anew/)
        await closed
        assert.equal(fake.callsOf('files/upload_session/start').length, 1)
        assertNoFile(fake)
      })

      it(`a session that is gone at the commit fails, and says so (${session})`, async () => {
        await reopen({ session })
        fake.refuse(FINISH, routeError(['lookup_failed', 'not_found']))
        await assert.rejects(put(storage, 'late', BYTES), /the upload must be begun anew/)
        assertNoFile(fake)
      })
    }

    it('parts that were damaged on their way are sent again', async () => {
      fake.refuse(APPEND, routeError(['content_hash_mismatch']))
      fake.refuse(UPLOAD, routeError(['content_hash_mismatch']))
      await put(storage, 'parts', BYTES)
      await put(storage, 'whole', BYTES.subarray(0, 77))
      await assertHolds(storage, fake, 'parts', BYTES)
    })

    it('an upload that is destroyed sends no more, and its session never becomes a file', async () => {
      const stream = storage.createWriteStream('never')
      stream.write(BYTES)
      while (fake.callsOf(APPEND).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
      stream.destroy()
      await once(stream, 'close')
      // What was on its way when it was destroyed may still arrive.
      for (let calls = -1; calls !== fake.calls.length; ) {
        calls = fake.calls.length
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
      assert.equal(fake.callsOf(FINISH).length, 0)
      // There is no request for cancelling it.
      assert.equal(fake.sessions.open, 1)
      assertNoFile(fake)
    })
  })

  describe('commits', () => {
    for (const keepFinished of [true, false]) {
      it(`T10: a commit whose answer was lost is found to be done (session ${keepFinished ? 'kept' : 'gone'})`, async () => {
        fake.sessions.keepFinished = keepFinished
        await put(storage, 'over', BYTES.subarray(0, 10))
        for (const [key, options] of [
          ['new', {}],
          ['over', {}],
          ['absent', { ifAbsent: true }],
        ] as const) {
          fake.applyAndFail(FINISH)
          await put(storage, key, BYTES, options)
          await assertHolds(storage, fake, key, BYTES)
          fake.applyAndFail(UPLOAD)
          await put(storage, `${key}-small`, BYTES.subarray(0, 99), options)
          await assertHolds(storage, fake, `${key}-small`, BYTES.subarray(0, 99))
        }
      })
    }

    it('a commit that Dropbox is at work on for longer than its answer is waited for is found in the end', async () => {
      fake.refuse(FINISH, new Refusal(504, ''))
      fake.refuse(FINISH, routeError(['lookup_failed', 'closed']), 2)
      const content = { size: BYTES.length, hash: new ContentHasher(BLOCK_BYTES).update(BYTES).digest(), bytes: BYTES }
      fake.onCall = ({ route, arg }) => {
        if (route !== FINISH || fake.callsOf(FINISH).length < 3) return
        const { path, client_modified: clientModified } = arg.commit as { path: string; client_modified: string }
        fake.tree.write({ path, mode: { '.tag': 'add' }, strict: false, clientModified }, content)
      }
      await put(storage, 'slow', BYTES)
      assert.equal(fake.callsOf(FINISH).length, 3)
      await assertHolds(storage, fake, 'slow', BYTES)
    })

    it("ifAbsent: another's object with the same bytes is CONFLICT, also where an answer was lost", async () => {
      await put(storage, 'lease', BYTES.subarray(0, 50))
      const [file] = fake.tree.files
      // As another writer's is: of another second.
      if (file) file.clientModified = '2020-01-01T00:00:00Z'
      await assert.rejects(put(storage, 'lease', BYTES.subarray(0, 50), { ifAbsent: true }), { code: 'CONFLICT' })
      fake.refuse(UPLOAD, new Refusal(500, ''))
      await assert.rejects(put(storage, 'lease', BYTES.subarray(0, 50), { ifAbsent: true }), { code: 'CONFLICT' })
      await assertHolds(storage, fake, 'lease', BYTES.subarray(0, 50))
    })

    it('the same bytes over the same bytes: Dropbox writes nothing, and undoing that removes nothing', async () => {
      for (const size of [50, BYTES.length]) {
        const key = `same-${size}`
        const bytes = BYTES.subarray(0, size)
        await put(storage, key, bytes)
        const { version } = await storage.stat(key)
        await put(storage, key, bytes)
        assert.equal((await storage.stat(key)).version, version)
        const route = size === 50 ? UPLOAD : FINISH
        const calls = fake.callsOf(route).length
        const stream = storage.createWriteStream(key)
        stream.end(bytes)
        while (fake.callsOf(route).length === calls) await new Promise((resolve) => setImmediate(resolve))
        stream.destroy()
        await once(stream, 'close')
        assert.equal(stream.writableFinished, false)
        await assertHolds(storage, fake, key, bytes)
      }
    })

    it('each request says the sum of its bytes, and which revision it replaces or removes, and no other', async () => {
      const bytes = BYTES.subarray(0, 77)
      await put(storage, 'one', bytes)
      const { version: first } = await storage.stat('one')
      await put(storage, 'one', BYTES)
      const { version: second } = await storage.stat('one')
      await put(storage, 'one', bytes)
      const { version: third } = await storage.stat('one')
      await storage.delete('one')
      const replaces = (rev: string | undefined) => ({ '.tag': 'update', update: rev })
      const modes = fake.callsOf(UPLOAD).map(({ arg }) => arg.mode)
      assert.deepEqual(modes, [{ '.tag': 'add' }, replaces(second)])
      const finished = fake.callsOf(FINISH).map(({ arg }) => (arg.commit as { mode: unknown }).mode)
      assert.deepEqual(finished, [replaces(first)])
      for (const { arg } of [...fake.callsOf(UPLOAD), ...fake.callsOf(APPEND)]) {
        assert.match(String(arg.content_hash), /^[0-9a-f]{64}$/)
      }
      assert.deepEqual(
        fake.callsOf('files/delete_v2').map(({ arg }) => arg.parent_rev),
        [third],
      )
    })

    it('a writer that was overtaken looks again, and replaces what is there then', async () => {
      await put(storage, 'race', BYTES.subarray(0, 10))
      fake.refuse(UPLOAD, uploadError(['conflict', 'file']))
      await put(storage, 'race', BYTES.subarray(0, 20))
      fake.refuse(FINISH, routeError(['path', 'conflict', 'file']))
      await put(storage, 'race', BYTES)
      await assertHolds(storage, fake, 'race', BYTES)
    })

    it('T31: an upload that is reported as good, and of which there is nothing', async () => {
      const through = await behindProxy()
      const told = { name: 'ghost', path_display: '/backups/ghost', rev: '5e0000000000ff', size: 5 }
      const body = JSON.stringify({ ...told, client_modified: '2026-01-01T00:00:00Z' })
      for (const [route, bytes] of [
        [UPLOAD, BYTES.subarray(0, 5)],
        [FINISH, BYTES],
      ] as const) {
        through.inject({ kind: 'answer', status: 200, body }, ({ url }) => url === `/2/${route}`)
        await assert.rejects(put(storage, 'ghost', bytes), { code: 'CORRUPT', operation: 'verify' })
      }
      assertNoFile(fake)
    })

    it('T31: an object that Dropbox says to be of other bytes is CORRUPT, and removed', async (t) => {
      const write = fake.tree.write.bind(fake.tree)
      t.mock.method(fake.tree, 'write', (...args: Parameters<typeof write>) =>
        Object.assign(write(...args), { hash: '0'.repeat(64) }),
      )
      for (const bytes of [BYTES.subarray(0, 5), BYTES]) {
        await assert.rejects(put(storage, 'other', bytes), { code: 'CORRUPT', message: /content_hash 0000/ })
        assertNoFile(fake)
      }
    })

    it('T6: a part that is refused for good ends the pipeline while the source stalls', async () => {
      fake.refuse(APPEND, routeError(['too_large']), 9)
      const source = new Readable({ read() {} })
      source.push(BYTES)
      await assert.rejects(pipeline(source, storage.createWriteStream('t6')), { code: 'INVALID', operation: 'putPart' })
      assertNoFile(fake)
    })
  })

  describe('limits', () => {
    it('T16: a Dropbox that is full is QUOTA, told once, and the old object stays', async () => {
      await put(storage, 'full', BYTES.subarray(0, 100))
      fake.tree.quotaBytes = 1000
      for (const [route, bytes] of [
        [UPLOAD, BYTES.subarray(0, BLOCK_BYTES)],
        [FINISH, BYTES],
      ] as const) {
        const calls = fake.callsOf(route).length
        await assert.rejects(put(storage, 'full', bytes), (error: Error & { code?: string }) => {
          assert.equal(error.code, 'QUOTA')
          assert.match(error.message, /the Dropbox is full; free some space/)
          return true
        })
        assert.equal(fake.callsOf(route).length, calls + 1)
      }
      await assertHolds(storage, fake, 'full', BYTES.subarray(0, 100))
    })

    it('T16: a monthly limit of uploads, and the quotas of teams, are QUOTA as well', async () => {
      for (const tag of [
        'upload_traffic_limit_reached',
        'team_folder_insufficient_space',
        'member_folder_insufficient_space',
      ]) {
        fake.refuse(UPLOAD, uploadError([tag]))
        await assert.rejects(put(storage, 'limited', BYTES.subarray(0, 9)), { code: 'QUOTA', retryable: false })
      }
      assertNoFile(fake)
    })

    it("T16: a team's monthly limit of calls is QUOTA, told once, in the middle of an upload", async () => {
      fake.refuse(APPEND, transportLimit(), 99)
      await assert.rejects(put(storage, 'limited', BYTES), (error: Error & { code?: string; retryable?: boolean }) => {
        assert.equal(error.code, 'QUOTA')
        assert.equal(error.retryable, false)
        assert.match(error.message, /data transport calls of this month are used up; wait for the 1st/)
        return true
      })
      // Those that were in flight at once, and none of them twice.
      assert.ok(fake.callsOf(APPEND).length <= 4)
      assertNoFile(fake)
    })

    it('429 is waited for as long as Dropbox asks; too many writes are tried again', async () => {
      const start = performance.now()
      fake.limitRate(APPEND, 1)
      await put(storage, 'waits', BYTES)
      assert.ok(performance.now() - start >= 990, 'Retry-After was not obeyed')
      fake.refuse(UPLOAD, uploadError(['too_many_write_operations']))
      fake.refuse(UPLOAD, rateLimit('too_many_write_operations', 0))
      await put(storage, 'busy', BYTES.subarray(0, 10))
      fake.refuse(FINISH, routeError(['too_many_write_operations']))
      await put(storage, 'busy', BYTES)
      await assertHolds(storage, fake, 'busy', BYTES)
    })

    it('what asks for too long a wait is RATE_LIMITED at once', async () => {
      fake.limitRate(UPLOAD, 3600)
      await assert.rejects(put(storage, 'later', BYTES.subarray(0, 5)), {
        code: 'RATE_LIMITED',
        retryAfterMs: 3_600_000,
      })
    })
  })
})
