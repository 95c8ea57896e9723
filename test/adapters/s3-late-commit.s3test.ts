import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { CompleteMultipartUploadCommand, CreateMultipartUploadCommand, UploadPartCommand } from '@aws-sdk/client-s3'
import { openS3 } from '../../adapters/s3.ts'
import { UploadNotes } from '../contract/taking-up.ts'
import { seededBytes } from '../support/random.ts'
import { openTestBucket } from '../support/test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
const KEY = 'world/object.mlr'

test('an upload whose commit was asked for by a run that died, and comes to its end only now, is not sent again', async (t) => {
  const { client, bucket: Bucket, endpoint, region, accessKeyId, secretAccessKey, remove } = await openTestBucket()
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey })
  const storage = await openS3({ bucket: Bucket, endpoint, region, profile: 'ceph', partBytes: PART_BYTES })
  t.after(async () => {
    await storage.close()
    await remove()
  })
  const bytes = seededBytes(2 * PART_BYTES + 1000, 1)
  const write = randomUUID()
  const Metadata = { 'millrace-write': write }
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key: KEY, Metadata }))
  const named = { Bucket, Key: KEY, UploadId }
  const Parts: { PartNumber: number; ETag: string | undefined }[] = []
  for (let PartNumber = 1; (PartNumber - 1) * PART_BYTES < bytes.length; PartNumber += 1) {
    const Body = bytes.subarray((PartNumber - 1) * PART_BYTES, PartNumber * PART_BYTES)
    const { ETag } = await client.send(new UploadPartCommand({ ...named, PartNumber, Body }))
    Parts.push({ PartNumber, ETag })
  }

  const notes = new UploadNotes()
  notes.earlier = JSON.stringify({ partBytes: PART_BYTES, name: JSON.stringify({ id: UploadId, write }) })
  const stream = storage.createWriteStream(KEY, { journal: notes })
  stream.write(bytes)
  while (notes.numbers(false).length < 2) await delay(5)
  await client.send(new CompleteMultipartUploadCommand({ ...named, MultipartUpload: { Parts } }))
  stream.end()
  await once(stream, 'close')
  assert.equal(stream.errored, null)
  assert.deepEqual([notes.numbers(false), notes.numbers(true), notes.upload], [[1, 2, 3], [], undefined])
  assert.ok((await buffer(storage.createReadStream(KEY))).equals(bytes))
})
