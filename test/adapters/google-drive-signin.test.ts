import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { inspect } from 'node:util'
import type { StorageError } from '../../adapters/errors.ts'
import { type GoogleDriveConfig, openGoogleDrive } from '../../adapters/google-drive.ts'
import { FILE_SCOPE, READONLY_SCOPE } from '../fakes/drive-state.ts'
import { keysIn, MiB, openTestDrive, type TestDrive } from '../support/drive.ts'

const KEY = 'survival/world.mlr'
const ROOT = join(import.meta.dirname, '../..')

describe('Google Drive: sign-in, rights and settings', () => {
  let drive: TestDrive

  beforeEach(async () => {
    drive = await openTestDrive()
  })
  afterEach(() => drive.close())

  /** What probe says is wrong: the steps that failed, and the first one's error. */
  async function probe(more: Partial<GoogleDriveConfig> = {}): Promise<{ failed: string[]; error: StorageError }> {
    const report = await (await drive.another(more)).probe()
    const bad = report.steps.filter((step) => !step.ok)
    assert.equal(report.ok, bad.length === 0)
    return { failed: bad.map(({ step }) => step), error: bad[0]?.error as StorageError }
  }

  describe('probe', () => {
    it('says that the sign-in was taken away, once, with advice', async () => {
      drive.fake.revokeSignIn()
      const { failed, error } = await probe()
      assert.deepEqual(failed, ['sign-in'])
      assert.equal(error.code, 'AUTH_EXPIRED')
      assert.equal(error.retryable, false)
      assert.match(error.message, /refresh token.*Testing.*7 days.*sign in again/)
      assert.equal(drive.fake.state.tokenRequests, 1, 'a refused sign-in was tried again')
    })

    it('says that the client is not known', async () => {
      const { failed, error } = await probe({ clientSecret: 'GOCSPX-another-secret' })
      assert.deepEqual(failed, ['sign-in'])
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.match(error.message, /check clientId and clientSecret/)
    })

    it('says that the client was deleted, and that the domain lets sign-ins end', async () => {
      const told = { status: 401, error: 'deleted_client', error_description: 'The OAuth client was deleted.' }
      drive.fake.state.tokenRefusal = told
      const deleted = (await probe()).error
      assert.equal(deleted.code, 'ACCESS_DENIED')
      assert.match(deleted.message, /client was deleted.*not used for 6 months; create another/)
      const description = 'reauth related error (invalid_rapt)'
      drive.fake.state.tokenRefusal = { status: 400, error: 'invalid_grant', error_description: description }
      const ended = (await probe()).error
      assert.equal(ended.code, 'AUTH_EXPIRED')
      assert.match(ended.message, /administrator.*session control.*exempted.*sign in again/)
      assert.doesNotMatch(ended.message, /7 days/)
    })

    it('says that the API is not enabled, and what to click', async () => {
      drive.fake.state.apiEnabled = false
      const { failed, error } = await probe()
      assert.deepEqual(failed, ['sign-in'])
      assert.match(error.message, /Google Drive API is not enabled.*Library.*Enable/)
    })

    it('names a scope that is missing', async () => {
      drive.fake.state.scopes = ['https://www.googleapis.com/auth/userinfo.email']
      const none = await probe()
      assert.deepEqual(none.failed, ['sign-in'])
      assert.match(none.error.message, /scope.*drive\.file/)
      drive.fake.state.scopes = [READONLY_SCOPE]
      const readOnly = await probe()
      assert.ok(readOnly.failed.includes('write') && !readOnly.failed.includes('list'), String(readOnly.failed))
      assert.match(readOnly.error.message, /scope.*drive\.file/)
      drive.fake.state.scopes = [FILE_SCOPE]
      const hidden = await probe({ appData: true })
      assert.equal(hidden.failed[0], 'list')
      assert.equal(hidden.error.code, 'ACCESS_DENIED')
      assert.match(hidden.error.message, /drive\.appdata/)
    })

    it('explains a folder that is not there, or that the app does not see', async () => {
      const { id } = drive.fake.addFolder('made in the browser', { ownedByApp: false })
      for (const folderId of ['nothing-of-this-id', id]) {
        const { failed, error } = await probe({ folderId })
        assert.deepEqual(failed, ['sign-in'])
        assert.equal(error.code, 'NOT_FOUND')
        assert.match(error.message, /an app sees only what it made itself.*pass folder, a path/)
      }
    })

    it('explains a folder that is a file, is in the trash, or is in a shared drive', async () => {
      const shared = drive.fake.addSharedDrive()
      const cases = [
        [drive.fake.addFile('file', Buffer.from('x')), /is a file, and no folder/],
        [drive.fake.addFolder('old', { trashed: true }), /is in the trash/],
        [drive.fake.addFolder('theirs', { parents: [shared.id], driveId: shared.id }), /Pass sharedDriveId/],
      ] as const
      for (const [{ id }, message] of cases) {
        const { failed, error } = await probe({ folderId: id })
        assert.deepEqual(failed, ['sign-in'])
        assert.match(error.message, message)
      }
    })

    it('names a full account, and files that may not be removed', async () => {
      drive.fake.state.storageLimit = 10
      const full = await probe()
      assert.equal(full.failed[0], 'write')
      assert.equal(full.error.code, 'QUOTA')
      assert.match(full.error.message, /storage of the account is full/)
      drive.fake.state.storageLimit = MiB
      drive.fake.refuse({
        match: ({ method, path }) => method === 'DELETE' && path.startsWith('/drive/'),
        status: 403,
        reason: 'insufficientFilePermissions',
        message: 'The user does not have sufficient permissions for this file.',
      })
      const kept = await probe()
      assert.deepEqual(kept.failed, ['delete'])
      assert.match(kept.error.message, /more rights to the folder/)
    })
  })

  it('a page in place of a token, as of a network that asks for a sign-in, is asked again, and told as that', async () => {
    const page = {
      kind: 'answer',
      status: 200,
      headers: { 'content-type': 'text/html' },
      body: '<html></html>',
    } as const
    drive.proxy.inject(page, ({ url }) => url === '/token')
    assert.deepEqual(await keysIn(drive.storage, ''), [])
    drive.proxy.inject(page, ({ url }) => url === '/token', 99)
    const other = await drive.another({})
    await assert.rejects(keysIn(other, ''), { code: 'UNAVAILABLE', message: /gave no token: .* asks for a sign-in\.$/ })
    await other.close()
  })

  it('no error, and nothing that hangs on one, holds a token, a secret, or the address of an upload', async () => {
    const caught: unknown[] = []
    const gather = async (work: () => Promise<unknown>) =>
      caught.push(
        await work().then(
          () => 'success',
          (error) => error,
        ),
      )
    const { fake } = drive
    const bytes = Buffer.alloc(3 * MiB)
    const isChunk = ({ query }: { query: URLSearchParams }) => query.has('upload_id')
    const leaky = { status: 400, reason: 'badRequest' }
    await gather(() => drive.put(KEY, bytes))
    drive.proxy.arrival(({ method }) => method === 'PUT').then(() => setTimeout(() => fake.loseSessions(410), 5))
    for (let index = 0; index < 3; index++) {
      fake.loseSessions(404)
      const stream = drive.storage.createWriteStream(KEY)
      let parts = 0
      // With the second one on its way, what was in the first is nowhere else any more.
      const underWay = drive.proxy.arrival(({ method }) => method === 'PUT' && ++parts === 2)
      const closed = new Promise((resolve) => stream.once('close', resolve))
      stream.on('error', (error) => caught.push(error)).write(bytes)
      await Promise.race([underWay, closed])
      fake.loseSessions(404)
      if (!stream.destroyed) stream.end(bytes)
      await closed
    }
    fake.refuse({
      match: isChunk,
      ...leaky,
      message: `No: ${[...fake.state.sessionNames.keys()].map((id) => `upload_id=${id}`)}`,
    })
    await gather(() => drive.put(KEY, bytes))
    fake.refuse({
      match: () => true,
      ...leaky,
      message: `No: Bearer ${fake.state.issuedTokens} ${fake.state.issuedTokens}`,
    })
    await gather(() => drive.storage.stat(KEY))
    drive.proxy.inject({ kind: 'drop-request', afterBytes: 10 }, ({ url }) => url.includes('upload_id'), 99)
    await gather(() => drive.put(KEY, bytes))
    drive.proxy.inject({ kind: 'answer', status: 502, body: '<html>' }, ({ url }) => url.startsWith('/drive'), 99)
    await gather(() => keysIn(drive.storage, ''))
    await gather(() => text(drive.storage.createReadStream(KEY)))
    fake.revokeSignIn()
    const other = await drive.another({ clientSecret: 'GOCSPX-another-secret' })
    for (const store of [drive.storage, other]) {
      await gather(() => store.stat(KEY))
      caught.push(await store.probe(), store.location)
    }
    for (const change of [{ folder: 'a', folderId: 'b' }, { endpoints: { api: 'https://user:GOCSPX-x@host' } }]) {
      await gather(() => drive.another(change))
    }
    assert.ok(caught.filter((error) => error instanceof Error).length >= 10, String(caught))
    const shown = caught
      .map((error) => `${inspect(error, { depth: 20, showHidden: true, getters: true })} ${JSON.stringify(error)}`)
      .join('\n')
    const { clientSecret, issuedTokens, sessionNames } = fake.state
    assert.ok(issuedTokens.length > 0 && sessionNames.size > 0)
    const secrets = [
      '1//fake-refresh-token',
      clientSecret,
      'GOCSPX-',
      'another-secret',
      ...issuedTokens,
      ...sessionNames.keys(),
    ]
    for (const secret of secrets) assert.ok(!shown.includes(secret), `${secret} is in:\n${shown}`)
  })

  describe('settings', () => {
    const { clientId, clientSecret, refreshToken } = { clientId: 'id', clientSecret: 'secret', refreshToken: 'token' }
    const good = { clientId, clientSecret, refreshToken }

    it('what is missing or contradicts itself is refused, without a request', async () => {
      const cases: [object, RegExp][] = [
        [{ ...good, clientId: '' }, /clientId/],
        [{ ...good, clientSecret: undefined }, /clientSecret/],
        [{ ...good, refreshToken: undefined }, /refreshToken/],
        [{ ...good, folderId: 'a', folder: 'b' }, /exclude/],
        [{ ...good, folder: 'a', appData: true }, /exclude/],
        [{ ...good, appData: true, sharedDriveId: 'x' }, /no appData/],
        [{ ...good, folderId: 'https://drive.google.com/x' }, /folderId is an id/],
        [{ ...good, folder: 'a/../b' }, /"\.\."/],
        [{ ...good, partBytes: 0 }, /partBytes/],
        [{ ...good, endpoints: { token: 'ftp://x' } }, /endpoint/],
      ]
      for (const [config, message] of cases) {
        await assert.rejects(openGoogleDrive(config as GoogleDriveConfig), { code: 'INVALID', message })
      }
    })

    it('parts are a multiple of 256 KiB, whatever is asked for', async () => {
      const store = await drive.another({ partBytes: 300_000 })
      const stream = store.createWriteStream(KEY)
      await new Promise((resolve) => stream.once('close', resolve).end(Buffer.alloc(MiB)))
      const [first] = drive.proxy.seen.filter(({ method }) => method === 'PUT')
      assert.equal(first?.bodyBytes, 512 * 1024)
    })

    it('makes no request before it is needed', async () => {
      const stream = drive.storage.createWriteStream(KEY)
      stream.write(Buffer.alloc(1000))
      drive.storage.createReadStream(KEY)
      assert.throws(() => drive.storage.createWriteStream('../x'), { code: 'INVALID' })
      await assert.rejects(drive.storage.stat('a//b'), { code: 'INVALID' })
      await new Promise((resolve) => setTimeout(resolve, 30))
      assert.equal(drive.proxy.arrived, 0)
      stream.destroy()
    })
  })

  it('of the SDK nothing but Drive itself is loaded, and only when a store is opened', () => {
    const program = `
      import { createRequire } from 'node:module'
      const loaded = () => Object.keys(createRequire(import.meta.url).cache)
      const { openGoogleDrive } = await import('./adapters/google-drive.ts')
      const before = loaded().length
      await openGoogleDrive({ clientId: 'a', clientSecret: 'b', refreshToken: 'c' })
      const apis = loaded().filter((path) => path.includes('/googleapis/build/'))
      console.log(JSON.stringify({ before, apis }))`
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', program], { cwd: ROOT, encoding: 'utf8' })
    assert.equal(run.status, 0, run.stderr)
    const { before, apis } = JSON.parse(run.stdout) as { before: number; apis: string[] }
    assert.equal(before, 0)
    assert.equal(apis.length, 1)
    assert.match(String(apis[0]), /apis\/drive\/v3\.js$/)
  })
})
