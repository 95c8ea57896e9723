import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, before, describe, it } from 'node:test'
import { planParts } from '../../adapters/multipart-plan.ts'
import { openS3, type S3Config } from '../../adapters/s3.ts'
import { profileOf } from '../../adapters/s3-profiles.ts'
import { type FakeServer, readBody, serveFake } from '../fakes/http.ts'

describe('S3 profiles', () => {
  it('are known by the host of an endpoint, and its region with it', () => {
    const cases: [string | undefined, string, string | undefined][] = [
      [undefined, 'aws', undefined],
      ['https://s3.eu-central-1.amazonaws.com', 'aws', undefined],
      ['https://0123abc.r2.cloudflarestorage.com', 'r2', 'auto'],
      ['https://0123abc.eu.r2.cloudflarestorage.com', 'r2', 'auto'],
      ['https://s3.us-west-004.backblazeb2.com', 'backblaze-b2', 'us-west-004'],
      ['https://s3.wasabisys.com', 'wasabi', 'us-east-1'],
      ['https://s3.eu-central-2.wasabisys.com', 'wasabi', 'eu-central-2'],
      ['https://fra1.digitaloceanspaces.com', 'digitalocean', 'fra1'],
      ['https://s3.fr-par.scw.cloud', 'scaleway', 'fr-par'],
      ['https://storage.googleapis.com', 'gcs', 'auto'],
      ['https://minio.example.org:9000', 'other', 'us-east-1'],
      ['https://amazonaws.com.example.org', 'other', 'us-east-1'],
    ]
    for (const [endpoint, name, region] of cases) {
      const profile = profileOf(endpoint === undefined ? undefined : new URL(endpoint))
      assert.deepEqual([profile.name, profile.region], [name, region], endpoint)
    }
    const byHand = profileOf(new URL('https://s3.eu-central-2.wasabisys.com'), 'minio')
    assert.deepEqual([byHand.name, byHand.region], ['minio', 'us-east-1'])
  })

  it('have the bucket in the host’s name where the store takes no other', () => {
    const pathStyle = (endpoint: string) => profileOf(new URL(endpoint)).pathStyle
    assert.equal(pathStyle('https://oss-eu-central-1.aliyuncs.com'), false)
    assert.equal(pathStyle('https://cos.ap-guangzhou.myqcloud.com'), false)
    assert.equal(pathStyle('https://aliyuncs.com.example.org'), true)
  })

  it('plan no more parts, and nothing larger, than the store takes', () => {
    const [GiB, TiB] = [1024 ** 3, 1024 ** 4]
    const planned = (endpoint: string, partBytes = 5 * GiB) =>
      planParts(profileOf(new URL(endpoint)).rules, { size: 4 * TiB, partBytes })
    const scaleway = planned('https://s3.fr-par.scw.cloud', 8 * 1024 ** 2)
    assert.ok(Math.ceil((4 * TiB) / scaleway.partBytes) <= 1000)
    const r2 = planned('https://0123abc.r2.cloudflarestorage.com')
    assert.ok(r2.partBytes < 5 * GiB)
    assert.equal(r2.maxBytes, 5 * TiB - 5 * GiB)
    assert.equal(planned('https://s3.eu-central-1.amazonaws.com').maxBytes, 10_000 * 5 * GiB)
  })

  describe('on the wire', () => {
    let server: FakeServer
    let seen: { method: string; url: URL; headers: IncomingHttpHeaders; body: Buffer }[] = []

    // As much of S3 as one small write needs.
    before(async () => {
      let stored: { id: string; bytes: Buffer } | undefined
      server = await serveFake(async (request, reply, url) => {
        const body = await readBody(request)
        seen.push({ method: request.method ?? '', url, headers: request.headers, body })
        if (request.method === 'PUT') stored = { id: String(request.headers['x-amz-meta-millrace-write']), bytes: body }
        const etag = `"${createHash('md5')
          .update(stored?.bytes ?? '')
          .digest('hex')}"`
        reply.writeHead(200, {
          etag,
          'content-length': request.method === 'HEAD' ? (stored?.bytes.length ?? 0) : 0,
          'x-amz-meta-millrace-write': stored?.id ?? '',
        })
        reply.end()
      })
    })
    after(() => server.close())

    async function put(config: Partial<S3Config>, key = 'some/object') {
      seen = []
      const keys = { accessKeyId: 'key', secretAccessKey: 'secret' }
      const storage = await openS3({ bucket: 'bucket', endpoint: server.origin, ...keys, ...config })
      const stream = storage.createWriteStream(key)
      stream.end('hello')
      await new Promise<void>((resolve, reject) => stream.on('finish', resolve).on('error', reject))
      await storage.close()
      const sent = seen.find(({ method }) => method === 'PUT')
      assert.ok(sent)
      return sent
    }

    it('each signs for its region, in the path, with the digest that it takes', async () => {
      for (const profile of [
        'minio',
        'ceph',
        'r2',
        'backblaze-b2',
        'wasabi',
        'digitalocean',
        'swift',
        'gcs',
      ] as const) {
        const { url, headers, body } = await put({ profile })
        const region = ['r2', 'gcs'].includes(profile) ? 'auto' : 'us-east-1'
        assert.match(String(headers.authorization), new RegExp(`/${region}/s3/aws4_request`), profile)
        assert.equal(url.pathname, '/bucket/some/object')
        assert.equal(headers['x-amz-content-sha256'], createHash('sha256').update('hello').digest('hex'))
        assert.equal(headers['content-md5'], undefined)
        assert.equal(body.toString(), 'hello')
        assert.equal(url.searchParams.has('x-id'), profile !== 'gcs', profile)
        assert.ok(!Object.keys(headers).some((name) => name.startsWith('x-amz-checksum')), profile)
        assert.doesNotMatch(String(headers.authorization), /accept-encoding/)
      }
      const byMd5 = await put({ profile: 'wasabi', integrity: 'md5' })
      assert.equal(byMd5.headers['content-md5'], createHash('md5').update('hello').digest('base64'))
      const aws = await put({ profile: 'aws', region: 'eu-west-1', forcePathStyle: true })
      assert.match(String(aws.headers.authorization), /\/eu-west-1\/s3/)
      assert.equal(aws.headers['x-amz-checksum-crc32'], 'NhCmhg==')
      assert.equal(aws.headers['content-md5'], undefined)
    })

    it('bodies are hashed for the signature over http, and not where that is switched off', async () => {
      const hashed = await put({ profile: 'minio' })
      assert.equal(hashed.headers['x-amz-content-sha256'], createHash('sha256').update('hello').digest('hex'))
      const unhashed = await put({ profile: 'minio', signBodies: false })
      assert.equal(unhashed.headers['x-amz-content-sha256'], 'UNSIGNED-PAYLOAD')
      assert.ok(unhashed.headers['content-md5'], 'something has to guard the bytes')
    })

    it('class, encryption, lock and tags stand in the headers; canaries and leases have neither class nor lock', async () => {
      const config: Partial<S3Config> = {
        profile: 'minio',
        storageClass: 'STANDARD_IA',
        encryption: { algorithm: 'aws:kms', keyId: 'alias/backups', bucketKey: true },
        objectLock: { mode: 'COMPLIANCE', days: 7 },
        tags: { 'a b': 'c&d' },
        md5Etags: false,
      }
      const { headers } = await put(config).catch((error) => assert.fail(error))
      assert.equal(headers['x-amz-storage-class'], 'STANDARD_IA')
      assert.equal(headers['x-amz-server-side-encryption'], 'aws:kms')
      assert.equal(headers['x-amz-server-side-encryption-aws-kms-key-id'], 'alias/backups')
      assert.equal(headers['x-amz-server-side-encryption-bucket-key-enabled'], 'true')
      assert.equal(headers['x-amz-object-lock-mode'], 'COMPLIANCE')
      const days = (Date.parse(String(headers['x-amz-object-lock-retain-until-date'])) - Date.now()) / 86_400_000
      assert.ok(days > 6.9 && days < 7.1)
      assert.ok(headers['content-md5'], 'a lock demands a digest')
      assert.equal(headers['x-amz-tagging'], 'a%20b=c%26d')
      for (const key of ['server/.lease/one', '.millrace-canary-1']) {
        const passing = (await put(config, key)).headers
        assert.equal(passing['x-amz-storage-class'], undefined)
        assert.equal(passing['x-amz-object-lock-mode'], undefined)
        assert.equal(passing['x-amz-server-side-encryption'], 'aws:kms')
      }
    })

    // https://www.backblaze.com/docs/cloud-storage-s3-compatible-api#unsupported-features
    it('a lock and tags that are put on afterwards come without a checksum that Backblaze refuses', async () => {
      await put({ profile: 'backblaze-b2', objectLock: { mode: 'GOVERNANCE', days: 1 }, tags: { a: 'b' } })
      for (const query of ['retention', 'tagging']) {
        const sent = seen.find(({ method, url }) => method === 'PUT' && url.searchParams.has(query))
        assert.ok(sent, query)
        assert.equal(sent.headers['content-md5'], createHash('md5').update(sent.body).digest('base64'))
        assert.deepEqual(
          Object.keys(sent.headers).filter((name) => /checksum/.test(name)),
          [],
        )
      }
    })

    it('settings that cannot be meant are INVALID', async () => {
      const cases: object[] = [
        { profile: 'azure' },
        { uploader: 'rsync' },
        { integrity: 'sha1' },
        { integrity: 'sha256', signBodies: false },
        { encryption: { algorithm: 'rot13' } },
        { objectLock: { mode: 'SOFT', days: 1 } },
        { objectLock: { mode: 'GOVERNANCE', days: 0 } },
        { objectLock: { mode: 'GOVERNANCE', days: 1.5 } },
        { tags: Object.fromEntries(Array.from({ length: 11 }, (_, index) => [`t${index}`, ''])) },
        { tags: { '': 'x' } },
        { tags: { 'aws:x': 'x' } },
      ]
      for (const config of cases) {
        await assert.rejects(
          openS3({ bucket: 'b', ...config } as S3Config),
          { code: 'INVALID' },
          JSON.stringify(config),
        )
      }
    })
  })

  // As Alibaba, Tencent and others make it: https://github.com/rclone/rclone/tree/master/backend/s3/provider
  it('of objects in parts: an ETag is compared only where it is known to be of MD5s, and R2 takes a condition', async () => {
    let id = ''
    let bytes = 0
    let condition: string | undefined
    const server = await serveFake(async (request, reply, url) => {
      const body = await readBody(request)
      id = String(request.headers['x-amz-meta-millrace-write'] ?? id)
      if (request.method === 'HEAD') {
        const etag = `"${'0'.repeat(32)}-2"`
        return void reply.writeHead(200, { etag, 'content-length': bytes, 'x-amz-meta-millrace-write': id }).end()
      }
      if (request.method === 'DELETE') return void reply.writeHead(204).end()
      if (request.method === 'GET') return void reply.writeHead(404).end('<Error><Code>NoSuchUpload</Code></Error>')
      if (request.method === 'PUT') bytes += body.length
      else bytes = url.searchParams.has('uploads') ? 0 : bytes
      if (url.searchParams.has('uploadId') && request.method === 'POST') condition = request.headers['if-none-match']
      const etag = createHash('md5').update(body).digest('hex')
      const name = url.searchParams.has('uploads') ? 'InitiateMultipartUploadResult' : 'CompleteMultipartUploadResult'
      reply.writeHead(200, request.method === 'PUT' ? { etag: `"${etag}"` } : {})
      reply.end(request.method === 'PUT' ? '' : `<${name}><UploadId>one</UploadId><ETag>x</ETag></${name}>`)
    })
    const put = async (profile: 'other' | 'minio' | 'r2', ifAbsent = false) => {
      const keys = { accessKeyId: 'key', secretAccessKey: 'secret' }
      const where = { bucket: 'bucket', endpoint: server.origin, partBytes: 5 * 1024 ** 2 }
      const storage = await openS3({ ...where, ...keys, profile, integrity: 'md5' })
      const stream = storage.createWriteStream('some/object', { ifAbsent })
      await pipeline(Readable.from([Buffer.alloc(5 * 1024 ** 2 + 1)]), stream).finally(() => storage.close())
    }
    try {
      await put('other')
      await put('r2', true).catch(() => {})
      assert.equal(condition, '*', 'R2 honours a condition on objects in parts')
      await assert.rejects(put('minio'), { code: 'CORRUPT', message: /its bytes give/ })
    } finally {
      await server.close()
    }
  })

  // https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: naming a version takes s3:GetObjectVersion.
  describe('in a bucket that keeps versions, with a key that may not name them', () => {
    let server: FakeServer
    let visible: { id: string; bytes: Buffer } | undefined
    let truncates = false
    const asked: string[] = []

    before(async () => {
      server = await serveFake(async (request, reply, url) => {
        const body = await readBody(request)
        const version = url.searchParams.has('versionId')
        asked.push(`${request.method}${version ? ' version' : ''}`)
        if (version) return void reply.writeHead(403).end()
        if (request.method === 'PUT')
          visible = { id: String(request.headers['x-amz-meta-millrace-write']), bytes: body }
        if (request.method === 'DELETE') visible = undefined
        if (request.method === 'HEAD' && !visible) return void reply.writeHead(404).end()
        reply.writeHead(request.method === 'DELETE' ? 204 : 200, {
          'x-amz-version-id': 'v1',
          'content-length': request.method === 'HEAD' ? (visible?.bytes.length ?? 0) - Number(truncates) : 0,
          'x-amz-meta-millrace-write': visible?.id ?? '',
        })
        reply.end()
      })
    })
    after(() => server.close())

    async function put() {
      asked.length = 0
      const keys = { accessKeyId: 'key', secretAccessKey: 'secret' }
      const storage = await openS3({ bucket: 'bucket', endpoint: server.origin, ...keys })
      const stream = storage.createWriteStream('some/object')
      stream.end('hello')
      await new Promise((resolve, reject) => stream.on('finish', resolve).on('error', reject)).finally(
        () => stream.closed || new Promise((resolve) => stream.once('close', resolve)),
      )
      await storage.close()
    }

    it('a write is checked by what readers see', async () => {
      await put()
      assert.equal(visible?.bytes.toString(), 'hello')
      assert.deepEqual(asked, ['PUT', 'HEAD version', 'HEAD'])
    })

    it('what was stored wrongly is hidden', async () => {
      truncates = true
      const told = (error: { code?: string; cleanupError?: unknown }) => error.code === 'CORRUPT' && !error.cleanupError
      await assert.rejects(put(), told)
      assert.equal(visible, undefined)
      assert.deepEqual(asked.slice(-3), ['DELETE version', 'HEAD', 'DELETE'])
    })
  })
})
