import { openS3 } from '../../adapters/s3.ts'
import { KEY_MAX_BYTES } from '../../adapters/storage.ts'
import { storageContract } from '../contract/storage.ts'
import type { ServerName } from './servers.ts'
import { openTestBucket, type TestBucket } from './test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
const PREFIX = 'some/where/'
/** Swift keeps a part as an object of its own, whose name goes on with the upload's id and the part's number. */
const SWIFT_PART_NAME_BYTES = '/'.length + 48 + '/10000'.length
/** Over several of the largest pages that there are, and over one where each object takes the server 20 ms. */
const MANY_KEYS = { ceph: 3000, swift: 1100 }
/** Over several there as well, in `npm run test:s3:full`. */
const MANY_KEYS_FULL = 3000
/** Over http, and in `npm run test:s3`. */
const FILLS_PAGES = { ceph: 'millrace', swift: 'lib-storage' }

/**
 * Registers the contract of a Storage for one S3 server. Each of the eight combinations is a file of its own, so that
 * they run beside one another: they wait for the servers more than they compute. Four of them, which have each server
 * over both schemes and with both uploaders, are `npm run test:s3`, and their names put them first, for they take the
 * longest; `npm run test:s3:full` has the other four as well.
 */
export function s3Contract(server: ServerName, scheme: 'http' | 'https', uploader: 'millrace' | 'lib-storage'): void {
  // To fill pages of the server's own size takes long, so one run of each server does, and one more of Swift in the
  // full suite; the others have small pages.
  const isFirst = uploader === FILLS_PAGES[server]
  const fillsPages = scheme === 'http' && (isFirst || server === 'swift')
  let bucket: TestBucket
  storageContract(`s3 on ${server} over ${scheme} with ${uploader}`, {
    async open() {
      bucket = await openTestBucket({ server, tls: scheme === 'https' })
      const { endpoint, region, accessKeyId, secretAccessKey } = bucket
      return openS3({
        ...{ endpoint, region, accessKeyId, secretAccessKey, bucket: bucket.bucket },
        profile: server,
        uploader,
        ...(fillsPages ? {} : { pageSize: 10 }),
        prefix: PREFIX,
        partBytes: PART_BYTES,
      })
    },
    cleanup: () => bucket.remove(),
    pendingUploads: async () => (await bucket.pendingUploads()).length,
    partBytes: PART_BYTES,
    keyMaxBytes: KEY_MAX_BYTES - PREFIX.length,
    ...(server === 'swift' ? { keyMaxBytesInParts: KEY_MAX_BYTES - SWIFT_PART_NAME_BYTES - PREFIX.length } : {}),
    maxObjectBytes: 5 * 1024 ** 4,
    manyKeys: fillsPages ? (isFirst ? MANY_KEYS[server] : MANY_KEYS_FULL) : 35,
  })
}
