import assert from 'node:assert/strict'
import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { inspect } from 'node:util'
import { type DropboxConfig, openDropbox } from '../../adapters/dropbox.ts'
import { StorageError } from '../../adapters/errors.ts'
import type { ProbeReport, Storage } from '../../adapters/storage.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import { authError, routeError, uploadError } from '../fakes/dropbox-errors.ts'
import { FakeTree } from '../fakes/dropbox-tree.ts'
import { Refusal } from '../fakes/http.ts'
import { APPEND, BLOCK_BYTES, BYTES, FINISH, put, quickSettings, UPLOAD } from '../support/dropbox.ts'

describe('Dropbox: what probe and errors say', () => {
  let fake: FakeDropbox
  let storage: Storage

  beforeEach(async () => {
    fake = await FakeDropbox.open({ blockBytes: BLOCK_BYTES })
    storage = await openDropbox(quickSettings(fake))
  })
  afterEach(async () => {
    await storage.close()
    await fake.close()
  })

  async function reopen(more: Partial<DropboxConfig>): Promise<void> {
    await storage.close()
    storage = await openDropbox(quickSettings(fake, more))
  }

  function assertFailed(report: ProbeReport, step: string, code: string, message: RegExp): void {
    const found = report.steps.find((item) => item.step === step)
    assert.ok(found?.error instanceof StorageError, inspect(report))
    assert.equal(found.error.code, code)
    assert.match(found.error.message, message)
    assert.equal(report.ok, false)
  }

  describe('T29: probe', () => {
    it('names access that was revoked, and tries nothing more', async () => {
      fake.tokens.revoke()
      const report = await storage.probe()
      assertFailed(report, 'sign-in', 'AUTH_EXPIRED', /revoked, or has expired; sign in again: millrace login dropbox/)
      assert.equal(report.steps.length, 1)
    })

    it('names a wrong secret of the app', async () => {
      await reopen({ clientSecret: 'not-the-secret' })
      assertFailed(await storage.probe(), 'sign-in', 'ACCESS_DENIED', /check clientId and clientSecret/)
    })

    it('names an access token that has expired, or that is none', async () => {
      const { endpoint } = fake.credentials
      const only = { clientId: undefined, clientSecret: undefined, refreshToken: undefined } as object
      for (const [accessToken, message] of [
        [fake.tokens.issue(), /the access token has expired; pass a refreshToken/],
        ['sl.unknown', /the access was revoked, or the token is wrong; sign in again/],
        ['no-token-at-all', /the access was revoked, or the token is wrong; sign in again/],
      ] as const) {
        await reopen({ ...only, endpoint, accessToken })
        fake.tokens.expire()
        assertFailed(await storage.probe(), 'sign-in', 'AUTH_EXPIRED', message)
      }
    })

    for (const [scope, step] of [
      ['files.metadata.read', 'list'],
      ['files.content.write', 'write'],
      ['files.content.read', 'read'],
    ] as const) {
      it(`names the missing permission ${scope}, and leaves nothing behind`, async () => {
        fake.tokens.scopes = fake.tokens.scopes.filter((one) => one !== scope)
        const report = await storage.probe()
        const advice = new RegExp(
          `lacks the permission ${scope}; tick it in the App Console under Permissions, then sign in`,
        )
        assertFailed(report, step, 'ACCESS_DENIED', advice)
        assert.equal(report.steps[0]?.ok, true)
        assert.deepEqual(fake.tree.files, [])
      })
    }

    it('names a root that is a file', async () => {
      await put(storage, 'not-a-folder', BYTES.subarray(0, 5))
      await reopen({ root: '/backups/not-a-folder' })
      assertFailed(await storage.probe(), 'list', 'INVALID', /is a file, and cannot be the root/)
    })

    it('a root that is not there yet is good, and comes to be', async () => {
      await reopen({ root: '/not/yet' })
      assert.equal((await storage.probe()).ok, true)
      assert.equal(fake.tree.find('/not/yet')?.kind, 'folder')
    })

    it('names a Dropbox that is full, a folder that is read-only, and what a team forbids', async () => {
      fake.tree.quotaBytes = 10
      assertFailed(
        await storage.probe(),
        'write',
        'QUOTA',
        /the Dropbox is full; free some space, or get a larger plan/,
      )
      fake.tree.quotaBytes = Infinity
      fake.refuse(UPLOAD, uploadError(['no_write_permission']))
      assertFailed(
        await storage.probe(),
        'write',
        'ACCESS_DENIED',
        /may not write there; get the right to edit the folder/,
      )
      fake.refuse(UPLOAD, uploadError(['access_restricted']))
      assertFailed(await storage.probe(), 'write', 'ACCESS_DENIED', /administrator does not allow it/)
    })

    it('names a namespace that is not to be used, and a root namespace that has changed', async () => {
      fake.namespaces.set('8', new FakeTree())
      fake.namespaces.set('9', new FakeTree())
      fake.forbidden.add('8')
      await reopen({ namespace: '8' })
      assertFailed(await storage.probe(), 'sign-in', 'ACCESS_DENIED', /may not use that namespace/)
      await reopen({ rootNamespace: '8' })
      assertFailed(await storage.probe(), 'sign-in', 'INVALID', /is not that of the account any more; it is 9 now/)
    })

    it('names a suspended account, and a server that is not there', async () => {
      fake.refuse('files/list_folder', authError('user_suspended'), 3)
      assertFailed(await storage.probe(), 'sign-in', 'ACCESS_DENIED', /the account is suspended/)
      await reopen({ endpoint: 'http://127.0.0.1:9' })
      assertFailed(await storage.probe(), 'sign-in', 'UNAVAILABLE', /nothing answers at http:\/\/127\.0\.0\.1:9/)
    })
  })

  describe('errors', () => {
    it('each tag of Dropbox has its code', async () => {
      const cases: [Refusal, string][] = [
        [routeError(['path', 'malformed_path'], {}), 'INVALID'],
        [routeError(['path', 'restricted_content']), 'ACCESS_DENIED'],
        [routeError(['path', 'locked']), 'LOCKED'],
        [routeError(['path', 'something_new']), 'INVALID'],
        [routeError(['other']), 'UNAVAILABLE'],
        [new Refusal(400, 'Error in call to API function "files/get_metadata": bad'), 'INVALID'],
        [new Refusal(403, { error_summary: 'x/..', error: { '.tag': 'team_access_denied' } }), 'ACCESS_DENIED'],
        [new Refusal(409, 'not JSON'), 'INVALID'],
        [new Refusal(429, 'too_many_requests'), 'RATE_LIMITED'],
        [new Refusal(500, '{"error":"cut'), 'UNAVAILABLE'],
        [new Refusal(502, '<html>'), 'UNAVAILABLE'],
      ]
      for (const [refusal, code] of cases) {
        fake.refuse('files/get_metadata', refusal, 4)
        await assert.rejects(storage.stat('key'), { name: 'StorageError', code })
        fake.disarm()
      }
    })

    it('names that Dropbox does not keep are INVALID', async () => {
      fake.refuse(UPLOAD, uploadError(['disallowed_name']))
      await assert.rejects(put(storage, 'x', BYTES.subarray(0, 5)), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'INVALID')
        assert.match(error.message, /Dropbox does not keep files of that name \(409 path\/disallowed_name\)/)
        return true
      })
    })

    it('an answer that makes no sense is UNAVAILABLE, and tried again', async () => {
      await put(storage, 'sense', BYTES.subarray(0, 5))
      fake.refuse('files/get_metadata', new Refusal(200, 'not JSON'))
      assert.equal((await storage.stat('sense')).size, 5)
      fake.refuse('files/get_metadata', new Refusal(200, { '.tag': 'file', path_display: '/backups/sense' }), 4)
      await assert.rejects(storage.stat('sense'), { code: 'UNAVAILABLE' })
      for (const body of ['{}', '[]', 'null']) {
        fake.refuse('files/get_metadata', new Refusal(200, body), 8)
        await assert.rejects(storage.stat('sense'), { code: 'UNAVAILABLE' }, body)
        await assert.rejects(storage.delete('sense'), { code: 'UNAVAILABLE' }, body)
      }
      for (const entries of [[{}], [null], ['sense']]) {
        fake.refuse('files/list_folder', new Refusal(200, { entries, cursor: 'c', has_more: false }))
        await assert.rejects(Array.fromAsync(storage.list('')), { code: 'UNAVAILABLE' })
      }
      assert.equal((await storage.stat('sense')).size, 5)
      for (const body of ['{}', 'null']) {
        fake.refuse('files/get_metadata', new Refusal(200, body))
        await put(storage, 'sense', BYTES.subarray(0, 6))
        assert.equal((await storage.stat('sense')).size, 6)
      }
    })

    it('no error tells a token, a secret, or the id of a session', async () => {
      const errors: unknown[] = []
      const note = (work: Promise<unknown>) => work.catch((error) => errors.push(error))
      await put(storage, 'there', BYTES)
      const routes = [UPLOAD, APPEND, FINISH, 'files/upload_session/start', 'files/get_metadata', 'files/download']
      for (const refusal of [
        new Refusal(500, 'oops'),
        new Refusal(400, 'Invalid authorization value in HTTP header "Authorization": "Bearer sl.fake-leak".'),
        routeError(['path', 'locked']),
        authError('user_suspended'),
        routeError(['not_found']),
      ]) {
        for (const route of routes) fake.refuse(route, refusal, 12)
        await note(put(storage, 'a', BYTES))
        await note(put(storage, 'b', BYTES.subarray(0, 10)))
        await note(storage.stat('there'))
        await note(buffer(storage.createReadStream('there')))
        fake.disarm()
      }
      const bare = await openDropbox({ accessToken: 'secret-of-my-own', endpoint: fake.origin })
      await note(bare.stat('x'))
      await bare.close()
      const stream = storage.createWriteStream('gone')
      stream.on('error', (error) => errors.push(error))
      stream.write(BYTES)
      stream.write(BYTES)
      while (fake.callsOf(APPEND).length < 3) await new Promise((resolve) => setTimeout(resolve, 5))
      fake.sessions.loseAll()
      stream.end(BYTES)
      await once(stream, 'close').catch(() => {})
      const { clientSecret, refreshToken } = fake.credentials
      fake.tokens.revoke()
      fake.tokens.expire()
      await note(storage.stat('there'))
      errors.push(await storage.probe())
      const ids = fake.callsOf(APPEND).map(({ arg }) => (arg.cursor as { session_id: string }).session_id)
      const secrets = [
        ...new Set([clientSecret, refreshToken, 'secret-of-my-own', 'sl.fake', ...fake.tokens.issued, ...ids]),
      ]
      assert.ok(errors.length > 10 && ids.length > 0)
      for (const error of [...errors, storage.location]) {
        const told = inspect(error, { depth: 12, showHidden: true, maxStringLength: Infinity })
        for (const secret of secrets) {
          for (const form of [secret, encodeURIComponent(secret)]) assert.ok(!told.includes(form), told)
        }
      }
    })
  })
})
