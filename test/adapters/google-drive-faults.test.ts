import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { KiB, MiB, openTestDrive, type TestDrive } from '../support/drive.ts'
import type { SeenRequest } from '../support/fault-proxy.ts'

const BYTES = createCipheriv('aes-128-ctr', Buffer.alloc(16, 3), Buffer.alloc(16)).update(Buffer.alloc(3 * MiB + 1234))
const KEY = 'survival/world.mlr'

type Asked = Pick<SeenRequest, 'method' | 'url'> & Partial<SeenRequest>
const isSession = ({ method, url }: Asked) => method === 'PUT' && url.includes('upload_id=')
const isBegin = ({ method, url }: Asked) => method === 'POST' && url.includes('uploadType=resumable')
const isWhole = ({ method, url }: Asked) => method === 'POST' && url.includes('uploadType=multipart')
const isCancel = ({ method, url }: Asked) => method === 'DELETE' && url.includes('upload_id=')
const isToken = ({ url }: Asked) => url === '/token'
const rangeOf = (seen: Asked) => String(seen.headers?.['content-range'])

describe('Google Drive: uploads that meet trouble', () => {
  let drive: TestDrive

  beforeEach(async () => {
    drive = await openTestDrive()
  })
  afterEach(() => drive.close())

  /** The requests of sessions, in order; those that ask for what Drive has are `bytes * /…`. */
  const chunks = () => drive.proxy.seen.filter(isSession).sort((a, b) => a.index - b.index)
  const sentBytes = () => chunks().reduce((sum, seen) => sum + seen.bodyBytes, 0)
  /** Matches the chunk that begins at `start`. */
  const isChunkAt = (start: number) => (seen: Asked) => isSession(seen) && rangeOf(seen).startsWith(`bytes ${start}-`)

  async function fails(bytes: Buffer): Promise<Error & { code?: string; retryable?: boolean; operation?: string }> {
    return drive.put(KEY, bytes).then(
      () => assert.fail('it did not fail'),
      (error) => error,
    )
  }

  describe('parts', () => {
    it('go in order, in multiples of 256 KiB, and only the last request says how many bytes there are', async () => {
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      assert.deepEqual(chunks().map(rangeOf), [
        `bytes 0-${MiB - 1}/*`,
        `bytes ${MiB}-${2 * MiB - 1}/*`,
        `bytes ${2 * MiB}-${3 * MiB - 1}/*`,
        `bytes ${3 * MiB}-${BYTES.length - 1}/${BYTES.length}`,
      ])
    })

    it('T11: an object that ends with a part keeps bytes back for its last request', async () => {
      const bytes = BYTES.subarray(0, 2 * MiB)
      await drive.put(KEY, bytes)
      await drive.assertHolds(KEY, bytes)
      assert.equal(rangeOf(chunks().at(-1)!), `bytes ${2 * MiB - 256 * KiB}-${2 * MiB - 1}/${2 * MiB}`)
    })

    it('T15: the token expires between two parts', async () => {
      const stream = drive.storage.createWriteStream(KEY)
      const second = drive.proxy.arrival(isSession)
      stream.write(BYTES.subarray(0, MiB + 1))
      await second
      drive.fake.expireTokens()
      await pipeline(Readable.from([BYTES.subarray(MiB + 1)]), stream)
      await drive.assertHolds(KEY, BYTES)
      assert.ok(sentBytes() <= BYTES.length + MiB, `${sentBytes()} bytes were sent`)
      assert.equal(drive.fake.state.tokenRequests, 2)
    })

    it('T15: the token expires in the middle of a part: Drive is asked what it has, and gets the rest', async () => {
      const authError = { error: { code: 401, errors: [{ reason: 'authError' }] } }
      drive.proxy.inject({ kind: 'answer', status: 401, body: JSON.stringify(authError) }, isChunkAt(MiB))
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      assert.equal(sentBytes(), BYTES.length + MiB)
      assert.ok(chunks().some((seen) => rangeOf(seen) === 'bytes */*'))
    })

    it('Drive keeps less than was sent: the rest is sent from there', async () => {
      drive.fake.state.persistNext = 512 * KiB + 77
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      assert.deepEqual(chunks().slice(0, 2).map(rangeOf), [`bytes 0-${MiB - 1}/*`, `bytes ${512 * KiB}-${MiB - 1}/*`])
      assert.equal(sentBytes(), BYTES.length + 512 * KiB)
    })

    it('Drive keeps nothing of a part at first, and then does', async () => {
      drive.fake.state.persistNext = 0
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
    })

    it('Drive has less than what it said it had, whose bytes are gone here: the upload fails, and says so', async () => {
      drive.proxy.inject({ kind: 'answer', status: 308, headers: { range: 'bytes=0-99' } }, isChunkAt(MiB))
      await assert.rejects(drive.put(KEY, BYTES), { code: 'UNAVAILABLE', message: /upload session .* was lost/ })
      await drive.assertNothing(KEY)
    })

    it('T7: a part that is refused half-way, one that is cut off, an answer that is lost', async () => {
      const isPart = (part: number) => isChunkAt(part * MiB)
      drive.proxy.inject({ kind: 'refuse-halfway', status: 503, headers: { 'retry-after': '0' } }, isPart(0))
      drive.proxy.inject({ kind: 'drop-request', afterBytes: 700 * KiB }, isPart(1))
      drive.proxy.inject({ kind: 'lose-reply' }, isPart(2))
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      // What was lost is asked for, not sent again.
      assert.equal(chunks().filter(isPart(2)).length, 1)
    })

    it('T6: a part that is refused for good ends the pipeline while the source stalls', async () => {
      drive.fake.refuse({
        match: ({ method, query }) => method === 'PUT' && query.has('upload_id'),
        status: 403,
        reason: 'insufficientFilePermissions',
        message: 'The user does not have sufficient permissions for this file.',
      })
      const source = new Readable({ read() {} })
      source.push(BYTES)
      const stream = drive.storage.createWriteStream(KEY)
      const close = new Promise((resolve) => stream.once('close', resolve))
      await assert.rejects(pipeline(source, stream), { code: 'ACCESS_DENIED', operation: 'putPart' })
      await close
      await drive.assertNothing(KEY)
    })

    it('T9: abort in the middle of a part, and while begin is on its way: the session is cancelled', async () => {
      for (const match of [isChunkAt(MiB), isBegin]) {
        if (match !== isBegin) drive.proxy.inject({ kind: 'swallow' }, match)
        const arrived = drive.proxy.arrival(match)
        const stream = drive.storage.createWriteStream(KEY)
        const close = new Promise((resolve) => stream.once('close', resolve))
        stream.write(BYTES)
        await arrived
        stream.destroy()
        await close
        assert.equal(stream.errored, null)
        await drive.assertNothing(KEY)
      }
      assert.equal(drive.proxy.seen.filter(isCancel).length, 2)
    })
  })

  describe('a session that is gone', () => {
    for (const status of [404, 410] as const) {
      it(`T15: ${status} in the first part: another is begun, the part sent again, and the caller told`, async () => {
        const notices: string[] = []
        drive.proxy.inject({ kind: 'lose-reply' }, isChunkAt(0))
        const lost = drive.proxy.arrival(isChunkAt(0)).then(() => drive.proxy.idle())
        const writing = drive.put(KEY, BYTES, { onNotice: (message) => notices.push(message) })
        await lost
        drive.fake.loseSessions(status)
        await writing
        await drive.assertHolds(KEY, BYTES)
        assert.equal(drive.proxy.seen.filter(isBegin).length, 2)
        assert.equal(sentBytes(), BYTES.length + MiB)
        assert.deepEqual(notices, [
          `Google Drive lost the upload session of ${JSON.stringify(KEY)}; another was begun.`,
        ])
      })

      it(`T15: ${status} later fails at once, and says that the upload must be begun anew`, async () => {
        const isThird = isChunkAt(2 * MiB)
        drive.proxy.arrival(isChunkAt(MiB)).then(() => drive.fake.loseSessions(status))
        const error = await fails(BYTES)
        assert.equal(error.code, 'UNAVAILABLE')
        assert.equal(error.retryable, false)
        assert.match(error.message, /upload session .* was lost.*must be begun anew/)
        assert.equal(drive.proxy.seen.filter(isBegin).length, 1)
        assert.equal(chunks().filter(isThird).length, 0)
        await drive.assertNothing(KEY)
      })
    }

    it('a session that is lost twice is not begun a third time', async () => {
      drive.fake.refuse({
        match: ({ query }) => query.has('upload_id'),
        times: 99,
        status: 404,
        reason: '',
        message: '',
      })
      const error = await fails(BYTES)
      assert.match(error.message, /lost, again, after it had been begun anew once/)
      assert.equal(drive.proxy.seen.filter(isBegin).length, 2)
    })
  })

  describe('the commit', () => {
    const isCommit = (seen: Asked) => isSession(seen) && !rangeOf(seen).endsWith('/*')

    it('T10: its answer is lost: Drive is asked, and one file is there', async () => {
      drive.proxy.inject({ kind: 'lose-reply' }, isCommit)
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      drive.proxy.inject({ kind: 'lose-reply' }, isWhole)
      await drive.put(KEY, BYTES.subarray(0, 100))
      await drive.assertHolds(KEY, BYTES.subarray(0, 100))
    })

    it('T10: its answer is lost, and the session is over when Drive is asked: the file is found by its id', async () => {
      drive.proxy.inject({ kind: 'lose-reply' }, isCommit)
      drive.proxy.arrival(isCommit).then(async () => {
        await drive.proxy.idle()
        drive.fake.loseSessions(404)
      })
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
    })

    it('Drive keeps a part of it only: the rest is sent from there', async () => {
      drive.proxy.arrival(isCommit).then(() => {
        drive.fake.state.persistNext = 0
      })
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
    })

    it('T31: it is reported as good, and there is no file', async () => {
      for (const size of [100, BYTES.length]) {
        drive.fake.state.loseNextCommit = true
        const error = await fails(BYTES.subarray(0, size))
        assert.equal(error.code, 'CORRUPT')
        assert.equal(error.operation, 'verify')
        await drive.assertNothing(KEY)
      }
    })

    it('bytes that are damaged at Drive are found by its checksum, and the old object stays', async () => {
      await drive.put(KEY, BYTES.subarray(0, 10))
      for (const [withSha256, size] of [
        [true, 200],
        [true, BYTES.length],
        [false, 300],
      ] as const) {
        drive.fake.state.withSha256 = withSha256
        const store = await drive.another()
        const stream = store.createWriteStream(KEY)
        const close = new Promise((resolve) => stream.once('close', resolve))
        const damage = () => {
          const file = drive.fake.named('world.mlr').find((found) => found.size === size)
          if (file) Object.assign(file, { md5: '0'.repeat(32), sha256: '0'.repeat(64) })
        }
        drive.proxy.arrival(({ method, url }) => {
          if (method === 'GET' && /files\/[^/?]+\?/.test(url)) damage()
          return false
        })
        await assert.rejects(pipeline(Readable.from([BYTES.subarray(0, size)]), stream), { code: 'CORRUPT' })
        await close
        await drive.assertHolds(KEY, BYTES.subarray(0, 10))
      }
    })

    it('destroy() after it leaves the old object to be read', async () => {
      const old = BYTES.subarray(0, 500)
      await drive.put(KEY, old)
      for (const [match, size] of [
        [isWhole, 1000],
        [isCommit, BYTES.length],
      ] as const) {
        const stream = drive.storage.createWriteStream(KEY)
        const close = new Promise((resolve) => stream.once('close', resolve))
        const arrived = drive.proxy.arrival(match)
        stream.end(BYTES.subarray(0, size))
        await arrived
        stream.destroy()
        await close
        await drive.assertHolds(KEY, old)
      }
    })

    it('an object of more than 1 MiB and at most a part goes in a session of one request', async () => {
      const store = await drive.another({ partBytes: 4 * MiB })
      const stream = store.createWriteStream(KEY)
      await pipeline(Readable.from([BYTES]), stream)
      await drive.assertHolds(KEY, BYTES)
      assert.deepEqual(chunks().map(rangeOf), [`bytes 0-${BYTES.length - 1}/${BYTES.length}`])
      drive.fake.refuse({
        match: ({ query }) => query.has('upload_id'),
        status: 403,
        reason: 'storageQuotaExceeded',
        message: "The user's Drive storage quota has been exceeded.",
      })
      const full = store.createWriteStream(KEY)
      const close = new Promise((resolve) => full.once('close', resolve))
      await assert.rejects(pipeline(Readable.from([BYTES]), full), { code: 'QUOTA' })
      await close
      await drive.assertHolds(KEY, BYTES)
    })
  })

  describe('limits', () => {
    it('T16: the uploads of the day are used up: a distinct error, after a few tries', async () => {
      drive.fake.state.dailyLimitReached = true
      for (const size of [100, BYTES.length]) {
        const before = drive.proxy.seen.length
        const error = await fails(BYTES.subarray(0, size))
        assert.equal(error.code, 'QUOTA')
        assert.equal(error.retryable, false)
        assert.match(error.message, /750 GB.*Go on in 24 hours/)
        assert.equal(drive.proxy.seen.slice(before).filter((seen) => isBegin(seen) || isWhole(seen)).length, 4)
        await drive.assertNothing(KEY)
      }
    })

    it('T16: an upload that is under way when the limit is met goes on to its end', async () => {
      drive.proxy.arrival(isSession).then(() => {
        drive.fake.state.dailyLimitReached = true
      })
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
    })

    it('a rate that is too high is waited for', async () => {
      const message = 'User Rate Limit Exceeded. Rate of requests for user exceed configured project quota.'
      const limited = { status: 403, reason: 'userRateLimitExceeded', message }
      drive.fake.refuse({ match: ({ path }) => path.startsWith('/upload/'), times: 2, ...limited })
      drive.fake.refuse({ match: ({ query }) => query.has('upload_id'), times: 2, ...limited, status: 429 })
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      drive.fake.refuse({ match: () => true, times: 99, ...limited })
      await assert.rejects(drive.storage.stat(KEY), { code: 'RATE_LIMITED', retryable: true })
    })

    it('a full account is QUOTA, and nothing is left', async () => {
      drive.fake.state.storageLimit = 2 * MiB
      assert.equal((await fails(BYTES)).code, 'QUOTA')
      await drive.assertNothing(KEY)
      drive.fake.state.storageLimit = 10
      const error = await fails(BYTES.subarray(0, 100))
      assert.equal(error.code, 'QUOTA')
      assert.match(error.message, /storage of the account is full.*trash counts/)
    })

    it('an object above 5 TB is refused before the first byte', () => {
      const tooLarge = () => drive.storage.createWriteStream(KEY, { size: 5e12 + 1 })
      assert.throws(tooLarge, { code: 'INVALID' })
    })
  })

  describe('tokens', () => {
    it('one is fetched for many requests at once, early, and on a refusal', async () => {
      await drive.put(KEY, BYTES.subarray(0, 10))
      assert.equal(drive.fake.state.tokenRequests, 1)
      drive.fake.expireTokens()
      await Promise.all(Array.from({ length: 8 }, () => drive.storage.stat(KEY)))
      assert.equal(drive.fake.state.tokenRequests, 2)
      // What lives for less than five minutes is renewed before every request.
      drive.fake.state.tokenLifetimeS = 200
      drive.fake.expireTokens()
      await drive.storage.stat(KEY)
      const before = drive.fake.state.tokenRequests
      await drive.storage.stat(KEY)
      assert.ok(drive.fake.state.tokenRequests > before)
    })

    it('a token that does not come holds nobody up who has been told to stop', async () => {
      const patient = await drive.another({ idleMs: 60_000 })
      drive.proxy.inject({ kind: 'swallow' }, isToken)
      const stopper = new AbortController()
      const asking = patient.stat(KEY, { signal: stopper.signal })
      const reading = patient.readRange(KEY, 0, 1, { signal: stopper.signal })
      await drive.proxy.arrival(isToken)
      stopper.abort()
      await assert.rejects(asking, { name: 'AbortError' })
      await assert.rejects(reading, { name: 'AbortError' })
    })

    it('a token request that fails is made again by our own retry, and no other', async () => {
      drive.proxy.inject({ kind: 'answer', status: 503, body: '' }, isToken, 3)
      await drive.put(KEY, BYTES.subarray(0, 10))
      assert.equal(drive.proxy.seen.filter(isToken).length, 4)
      drive.fake.expireTokens()
      drive.proxy.inject({ kind: 'answer', status: 503, body: '' }, isToken, 99)
      await assert.rejects(drive.storage.stat(KEY), { code: 'UNAVAILABLE' })
      assert.equal(drive.proxy.seen.filter(isToken).length, 8)
    })
  })
})
