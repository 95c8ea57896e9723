import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'
import { type ServerName, startServer } from './servers.ts'

const DELETES_AT_ONCE = 16

/** What the environment calls each server's settings. Ceph is the one of old, and has the plain names. */
const VARIABLES = {
  ceph: {
    plain: 'MILLRACE_S3_ENDPOINT',
    tls: 'MILLRACE_S3_TLS_ENDPOINT',
    ca: 'MILLRACE_S3_CA',
    accessKeyId: 'AWS_ACCESS_KEY_ID',
    secretAccessKey: 'AWS_SECRET_ACCESS_KEY',
    region: 'AWS_REGION',
  },
  swift: {
    plain: 'MILLRACE_SWIFT_ENDPOINT',
    tls: 'MILLRACE_SWIFT_TLS_ENDPOINT',
    ca: 'MILLRACE_SWIFT_CA',
    accessKeyId: 'MILLRACE_SWIFT_ACCESS_KEY_ID',
    secretAccessKey: 'MILLRACE_SWIFT_SECRET_ACCESS_KEY',
    region: 'MILLRACE_SWIFT_REGION',
  },
}

/** A fresh bucket on an S3 server of the tests. */
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

export interface TestBucketOptions {
  /** Default ceph. */
  server?: ServerName
  /** Whether over https, with the server's own certificate trusted. Default false. */
  tls?: boolean
}

/**
 * Makes a bucket on a server that the environment names, as test/run.ts sets it, and starts the server when it names
 * none. An endpoint that is not on loopback is refused: tests delete.
 */
export async function openTestBucket({ server = 'ceph', tls = false }: TestBucketOptions = {}): Promise<TestBucket> {
  const names = VARIABLES[server]
  if (!process.env[names.plain]) Object.assign(process.env, await startServer(server))
  const endpoint = needed(tls ? names.tls : names.plain)
  assertLoopback(endpoint)
  if (tls) trust(needed(names.ca))
  const region = process.env[names.region] ?? 'us-east-1'
  const credentials = { accessKeyId: needed(names.accessKeyId), secretAccessKey: needed(names.secretAccessKey) }
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
      const objects = page.Contents ?? []
      for (let at = 0; at < objects.length; at += DELETES_AT_ONCE) {
        const batch = objects.slice(at, at + DELETES_AT_ONCE)
        await Promise.all(batch.map(({ Key }) => client.send(new DeleteObjectCommand({ Bucket: bucket, Key }))))
      }
    }
    await client.send(new DeleteBucketCommand({ Bucket: bucket }))
    client.destroy()
  }

  return { endpoint, region, ...credentials, bucket, client, pendingUploads, remove }
}

/**
 * For a test file that is run by itself: test/run.ts has NODE_EXTRA_CA_CERTS name the certificate, as users would.
 * @param path of the certificate, PEM.
 */
function trust(path: string): void {
  const certificate = readFileSync(path, 'utf8')
  const trusted = getCACertificates('default')
  if (trusted.some((one) => one.trim() === certificate.trim())) return
  setDefaultCACertificates([...trusted, certificate])
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
