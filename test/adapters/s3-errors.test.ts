import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inspect } from 'node:util'
import { StorageError } from '../../adapters/errors.ts'
import { openS3 } from '../../adapters/s3.ts'
import { toStorageError } from '../../adapters/s3-errors.ts'
import { serveFake } from '../fakes/http.ts'

const names = { bucket: 'worlds', endpoint: 'https://s3.example' }
const SECRET = 'session-token-of-the-caller'

/** An error as the SDK throws it. */
function refusal(status: number, code: string, message = code, headers: Record<string, string> = {}) {
  const error = Object.assign(new Error(message), { name: code, Code: code, $metadata: { httpStatusCode: status } })
  return Object.assign(error, { $response: { statusCode: status, headers, body: { req: { token: SECRET } } } })
}

function mapped(error: unknown): StorageError {
  const result = toStorageError(error, 'putPart', names, 'a/key')
  assert.ok(result instanceof StorageError)
  return result
}

describe('S3 errors', () => {
  it('each is told apart, and only what may pass is retried', () => {
    const cases: [number, string, string, boolean][] = [
      [404, 'NoSuchKey', 'NOT_FOUND', false],
      [404, 'NoSuchBucket', 'NOT_FOUND', false],
      [403, 'AccessDenied', 'ACCESS_DENIED', false],
      [403, 'SignatureDoesNotMatch', 'ACCESS_DENIED', false],
      [403, 'RequestTimeTooSkewed', 'ACCESS_DENIED', true],
      [400, 'ExpiredToken', 'AUTH_EXPIRED', false],
      [403, 'QuotaExceeded', 'QUOTA', false],
      [403, 'ObjectLockedByBucketPolicy', 'LOCKED', false],
      [507, 'XMinioStorageFull', 'QUOTA', false],
      [503, 'SlowDown', 'RATE_LIMITED', true],
      [429, 'Unknown', 'RATE_LIMITED', true],
      [412, 'PreconditionFailed', 'CONFLICT', false],
      [409, 'ConditionalRequestConflict', 'CONFLICT', false],
      [400, 'BadDigest', 'CORRUPT', true],
      [400, 'RequestTimeout', 'UNAVAILABLE', true],
      [400, 'EntityTooSmall', 'INVALID', false],
      [301, 'PermanentRedirect', 'INVALID', false],
      [500, 'InternalError', 'UNAVAILABLE', true],
      [502, 'Unknown', 'UNAVAILABLE', true],
      [501, 'NotImplemented', 'INVALID', false],
    ]
    for (const [status, code, expected, retryable] of cases) {
      const error = mapped(refusal(status, code))
      assert.equal(error.code, expected, code)
      assert.equal(error.retryable, retryable, code)
      assert.match(error.message, /"worlds"/)
    }
    assert.equal(
      mapped(refusal(403, 'AccessDenied', 'Access Denied because object protected by object lock.')).code,
      'LOCKED',
    )
  })

  it('a connection that fails is UNAVAILABLE, and names the endpoint', () => {
    for (const code of ['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'EPIPE', 'ETIMEDOUT']) {
      const error = mapped(Object.assign(new Error(code), { code }))
      assert.equal(error.code, 'UNAVAILABLE')
      assert.equal(error.retryable, true)
      assert.match(error.message, /https:\/\/s3\.example/)
    }
    const untrusted = mapped(Object.assign(new Error(), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }))
    assert.equal(untrusted.retryable, false)
  })

  it('a refusal that breaks off may have been any, so it is asked for again', () => {
    for (const status of [400, 403, 404, 416, 500]) {
      const aborted = Object.assign(new Error('aborted'), { code: 'ECONNRESET', $metadata: { httpStatusCode: status } })
      const error = mapped(Object.assign(aborted, { $response: { statusCode: status, headers: {} } }))
      assert.equal(error.code, 'UNAVAILABLE')
      assert.equal(error.retryable, true)
    }
  })

  it('a refusal that makes no sense is judged by its status, and asked for again where that says too little', () => {
    const cases = { 400: 'UNAVAILABLE', 403: 'ACCESS_DENIED', 404: 'NOT_FOUND', 416: 'UNAVAILABLE', 302: 'INVALID' }
    for (const [status, expected] of Object.entries(cases)) {
      const unreadable = Object.assign(new Error('XML parse error'), { $metadata: { httpStatusCode: Number(status) } })
      assert.equal(mapped(unreadable).code, expected, status)
    }
  })

  it('the right region is named where the store names it, and nothing else is taken for one', () => {
    const elsewhere = { 'x-amz-bucket-region': 'eu-west-3' }
    assert.match(mapped(refusal(301, 'PermanentRedirect', '', elsewhere)).message, /pass the region "eu-west-3"/)
    assert.match(mapped(refusal(400, 'Unknown', '', elsewhere)).message, /pass the region "eu-west-3"/)
    assert.doesNotMatch(mapped(refusal(400, 'EntityTooSmall', '', elsewhere)).message, /region/)
    const odd = mapped(refusal(301, 'PermanentRedirect', '', { 'x-amz-bucket-region': 'Bearer abc' }))
    assert.match(odd.message, /another region; pass its region/)
  })

  it('what a store says in its own words, under a code of rights, is told for what it is', () => {
    for (const what of [
      'Cannot upload files, storage',
      'Cannot download file, download bandwidth or transaction (Class B)',
    ]) {
      const cap = mapped(
        refusal(403, 'AccessDenied', `${what} cap exceeded. See the Caps & Alerts page to increase your cap.`),
      )
      assert.equal(cap.code, 'QUOTA')
      assert.match(cap.message, /a cap of the account is reached; raise it .* Caps & Alerts/)
    }
    for (const code of ['SecondLevelDomainForbidden', 'PathStyleDomainForbidden']) {
      const style = mapped(refusal(403, code))
      assert.equal(style.code, 'INVALID')
      assert.match(style.message, /set forcePathStyle to false/)
    }
  })

  it('a right that is missing is told by its name, where the store names it', () => {
    const who = 'User: arn:aws:iam::123456789012:user/backups is not authorized to perform'
    for (const right of ['s3:PutObject', 'kms:GenerateDataKey']) {
      const error = mapped(
        refusal(403, 'AccessDenied', `${who}: ${right} on resource: "arn:…" because no policy allows it`),
      )
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.match(error.message, new RegExp(`lack the right ${right};`))
      assert.doesNotMatch(error.message, /123456789012/)
    }
  })

  it('what a store does not offer is told by its header, where the store names it', () => {
    for (const [status, code, said] of [
      [400, 'InvalidArgument', "Unsupported header 'x-amz-tagging' received for this API call."],
      [501, 'NotImplemented', "Header 'x-amz-tagging' with value 'a=b' not implemented"],
    ] as const) {
      const error = mapped(refusal(status, code, said))
      assert.equal(error.code, 'INVALID')
      assert.match(error.message, /does not take x-amz-tagging; leave out the setting/)
    }
    assert.match(mapped(refusal(501, 'NotImplemented')).message, /does not offer .*; leave out the setting/)
  })

  it('an upload that the store has ended is told as that, and what ends it', () => {
    const { code, message } = mapped(refusal(404, 'NoSuchUpload'))
    assert.equal(code, 'NOT_FOUND')
    assert.match(message, /has the upload no more.*rule for unfinished uploads \(MinIO .* 24 hours.*begin anew/)
  })

  it('what lies in an archive is told as that, with its class, and is no matter of rights', () => {
    const asIn = (fields: object) => mapped(Object.assign(refusal(403, 'InvalidObjectState'), fields))
    const glacier = asIn({ StorageClass: 'GLACIER' })
    assert.deepEqual([glacier.code, glacier.retryable], ['UNAVAILABLE', false])
    assert.match(glacier.message, /in the archive GLACIER, and has to be brought back .*aws s3api restore-object/)
    const tiered = asIn({ StorageClass: 'INTELLIGENT_TIERING', AccessTier: 'DEEP_ARCHIVE_ACCESS' })
    assert.match(tiered.message, /the archive DEEP_ARCHIVE_ACCESS,/)
    assert.match(asIn({}).message, /lies in an archive,/)
  })

  it('Retry-After is kept, in seconds or as a date', () => {
    assert.equal(mapped(refusal(503, 'SlowDown', '', { 'retry-after': '3' })).retryAfterMs, 3000)
    const date = new Date(Date.now() + 3_600_000).toUTCString()
    assert.ok(mapped(refusal(503, 'SlowDown', '', { 'retry-after': date })).retryAfterMs! > 3_500_000)
    assert.equal(mapped(refusal(503, 'SlowDown', '', { 'retry-after': 'soon' })).retryAfterMs, undefined)
  })

  it('nothing of the request is kept, nor is another error changed', () => {
    const error = mapped(refusal(403, 'AccessDenied'))
    assert.ok(!inspect(error, { depth: Number.POSITIVE_INFINITY, showHidden: true }).includes(SECRET))
    const bug = new TypeError('a bug')
    assert.equal(toStorageError(bug, 'stat', names), bug)
    assert.equal(toStorageError(error, 'stat', names), error)
  })

  it('what no S3 store answers is neither an empty listing nor an object', async () => {
    const page = '<!DOCTYPE html><html><head><title>MinIO Console</title></head><body></body></html>'
    const none = '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
    let body = ''
    const server = await serveFake(async (request, reply) => {
      reply.writeHead(200, { 'content-type': 'text/html', 'content-length': body.length })
      reply.end(request.method === 'HEAD' ? undefined : body)
    })
    const callRetry = { attempts: 2, baseMs: 1, capMs: 2, deadlineMs: 20_000 }
    const keys = { accessKeyId: 'key', secretAccessKey: 'secret' }
    const storage = await openS3({ bucket: 'worlds', endpoint: server.origin, ...keys, callRetry })
    try {
      const refused = {
        code: 'UNAVAILABLE',
        message: /no S3 store; check the endpoint .*sign-in \(200 NotAnS3Answer\)/,
      }
      for (body of [page, '', '<?xml version="1.0"?><ListAllMyBucketsResult></ListAllMyBucketsResult>']) {
        await assert.rejects(Array.fromAsync(storage.list('')), refused, body)
        await assert.rejects(storage.purgeUnfinished?.(0) ?? Promise.resolve(), refused, body)
        await assert.rejects(storage.stat('a/key'), refused, body)
      }
      body = none
      assert.deepEqual(await Array.fromAsync(storage.list('')), [])
    } finally {
      await storage.close()
      await server.close()
    }
  })
})
