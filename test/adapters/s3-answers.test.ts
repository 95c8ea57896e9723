import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { openS3 } from '../../adapters/s3.ts'
import { serveFake } from '../fakes/http.ts'

const MIB = 1024 * 1024
/** Far more than a page of a listing, or an error, can have. */
const SENT_MIB = 64

test('an answer without end is not held, whatever its status', async () => {
  let status = 200
  let most = 0
  const server = await serveFake(async (_, reply) => {
    reply.writeHead(status, { 'content-type': 'application/xml' })
    let sent = 0
    function* page() {
      yield Buffer.from('<?xml version="1.0"?><ListBucketResult>')
      for (; sent < SENT_MIB; sent++) yield Buffer.alloc(MIB, ' ')
    }
    await pipeline(Readable.from(page(), { objectMode: false }), reply).catch(() => {})
    most = Math.max(most, sent)
  })
  try {
    const keys = { accessKeyId: 'a', secretAccessKey: 'b' }
    const storage = await openS3({ bucket: 'bucket', region: 'x', endpoint: server.origin, ...keys })
    for (status of [200, 403]) {
      await assert.rejects(Array.fromAsync(storage.list('')), { name: 'StorageError' })
      await assert.rejects(storage.readRange('some/object', 0, 10), { name: 'StorageError' })
      assert.ok(most < SENT_MIB, `${most} MiB were taken`)
    }
    await storage.close()
  } finally {
    await server.close()
  }
})

test('an object of any length is read, whatever the profile', async () => {
  const object = Buffer.alloc(17 * MIB, 7)
  const server = await serveFake(async (_, reply) => {
    const about = { etag: '"0123456789abcdef0123456789abcdef"', 'last-modified': new Date(0).toUTCString() }
    reply.writeHead(200, { 'content-length': object.length, ...about })
    reply.end(object)
  })
  try {
    for (const profile of ['other', 'gcs'] as const) {
      const keys = { accessKeyId: 'a', secretAccessKey: 'b' }
      const storage = await openS3({ bucket: 'bucket', region: 'x', endpoint: server.origin, profile, ...keys })
      assert.ok((await buffer(storage.createReadStream('some/object'))).equals(object), profile)
      await storage.close()
    }
  } finally {
    await server.close()
  }
})

test('a page in place of an object, as of a proxy that asks for a sign-in, is asked again, and is no damage', async () => {
  let pages = 1
  const server = await serveFake(async (_, reply) => {
    if (pages-- > 0) reply.writeHead(200, { 'content-type': 'text/html' }).end('<html>Please sign in</html>')
    else reply.writeHead(206, { etag: '"a"', 'content-range': 'bytes 0-9/10' }).end('0123456789')
  })
  const callRetry = { attempts: 2, baseMs: 1, capMs: 1, deadlineMs: 20_000 }
  const keys = { accessKeyId: 'a', secretAccessKey: 'b' }
  const storage = await openS3({ bucket: 'bucket', region: 'x', endpoint: server.origin, callRetry, ...keys })
  try {
    assert.equal(String(await buffer(storage.createReadStream('some/object'))), '0123456789')
    pages = 2
    await assert.rejects(buffer(storage.createReadStream('some/object')), { code: 'UNAVAILABLE' })
  } finally {
    await storage.close()
    await server.close()
  }
})
