import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
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
