import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'

/** A fresh bucket on the S3 server of the tests. */
export interface TestBucket {
  endpoint: string
  region: string
  accessKeyId: string
  secretAccessKey: string
  bucket: string
  /** A client of its own, to look at the bucket past our adapter. */
  client: S3Client
  /** Uploads begun and neither completed nor aborted. */
  pendingUploads(): Promise<{ key: string; uploadId: string }[]>
  /** Removes the bucket with all that is in it. */
  remove(): Promise<void>
}

/**
 * Makes a bucket on the server that the environment names (MILLRACE_S3_ENDPOINT, AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY, AWS_REGION), and starts the server when it names none. An endpoint that is not on loopback is
 * refused: tests delete.
 */
export async function openTestBucket(): Promise<TestBucket> {
  if (!process.env.MILLRACE_S3_ENDPOINT) await startCeph()
  const endpoint = needed('MILLRACE_S3_ENDPOINT')
  assertLoopback(endpoint)
  const region = process.env.AWS_REGION ?? 'us-east-1'
  const credentials = { accessKeyId: needed('AWS_ACCESS_KEY_ID'), secretAccessKey: needed('AWS_SECRET_ACCESS_KEY') }
  const client = new S3Client({ endpoint, region, credentials, forcePathStyle: true })
  const bucket = `millrace-${randomBytes(8).toString('hex')}`
  await client.send(new CreateBucketCommand({ Bucket: bucket }))

  async function pendingUploads() {
    const page = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))
    assert.ok(!page.IsTruncated, 'more uploads are pending than one page holds')
    return (page.Uploads ?? []).map(({ Key, UploadId }) => ({ key: Key!, uploadId: UploadId! }))
  }

  async function remove() {
    for (const { key: Key, uploadId: UploadId } of await pendingUploads()) {
      await client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }))
    }
    for await (const page of paginateListObjectsV2({ client }, { Bucket: bucket })) {
      for (const { Key } of page.Contents ?? []) {
        await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }))
      }
    }
    await client.send(new DeleteBucketCommand({ Bucket: bucket }))
    client.destroy()
  }

  return { endpoint, region, ...credentials, bucket, client, pendingUploads, remove }
}

async function startCeph(): Promise<void> {
  const script = fileURLToPath(new URL('../servers/ceph-up.sh', import.meta.url))
  const { stdout } = await promisify(execFile)(script)
  for (const pair of stdout.trim().split('\n').at(-1)?.split(' ') ?? []) {
    const [name, value] = pair.split('=', 2)
    if (name && value) process.env[name] = value
  }
}

/** Holds an endpoint to loopback. */
export function assertLoopback(endpoint: string): void {
  const { hostname } = new URL(endpoint)
  const isLoopback = /^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(hostname)
  assert.ok(isLoopback, `The tests delete, so they run against loopback only, and ${hostname} is not.`)
}

function needed(name: string): string {
  const value = process.env[name]
  assert.ok(value, `The S3 tests need ${name}: run them with npm run test:s3.`)
  return value
}
