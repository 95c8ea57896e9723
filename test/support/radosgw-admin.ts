import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import type { TestBucket } from './test-bucket.ts'

/** A user of the test's own on the Ceph server of the tests. */
export interface TestUser {
  uid: string
  /** What a bucket's policy calls them. */
  arn: string
  accessKeyId: string
  secretAccessKey: string
  /** Makes a bucket that belongs to them. */
  createBucket(): Promise<string>
  /** Removes the user with their buckets and all that is in them. */
  remove(): Promise<void>
}

/**
 * Makes a user on the server that test/servers/ceph-up.sh started.
 * @param bucketQuota what each of the user's buckets may hold, if there is to be a limit.
 */
export async function createTestUser(
  { endpoint, region }: Pick<TestBucket, 'endpoint' | 'region'>,
  bucketQuota?: { maxBytes: number },
): Promise<TestUser> {
  const uid = `test-${randomBytes(6).toString('hex')}`
  const accessKeyId = randomBytes(10).toString('hex').toUpperCase()
  const secretAccessKey = randomBytes(20).toString('hex')
  const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`]
  await radosgwAdmin('user', 'create', `--uid=${uid}`, `--display-name=${uid}`, ...keys)
  // Before the user's first request: the gateway keeps what it knows of them.
  if (bucketQuota) {
    const scope = [`--uid=${uid}`, '--quota-scope=bucket']
    await radosgwAdmin('quota', 'set', ...scope, `--max-size=${bucketQuota.maxBytes}B`)
    await radosgwAdmin('quota', 'enable', ...scope)
  }
  return {
    uid,
    arn: `arn:aws:iam:::user/${uid}`,
    accessKeyId,
    secretAccessKey,
    async createBucket() {
      const bucket = `millrace-${randomBytes(8).toString('hex')}`
      const client = new S3Client({
        endpoint,
        region,
        credentials: { accessKeyId, secretAccessKey },
        forcePathStyle: true,
      })
      await client.send(new CreateBucketCommand({ Bucket: bucket }))
      client.destroy()
      return bucket
    },
    remove: () => radosgwAdmin('user', 'rm', `--uid=${uid}`, '--purge-data'),
  }
}

async function radosgwAdmin(...args: string[]): Promise<void> {
  const state = process.env.MILLRACE_CEPH_DIR ?? join(import.meta.dirname, '../../.ceph')
  const env = { ...process.env, CEPH_CONF: join(state, 'ceph.conf') }
  await promisify(execFile)('radosgw-admin', args, { env })
}
