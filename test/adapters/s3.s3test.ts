import { openS3 } from '../../adapters/s3.ts'
import { storageContract } from '../contract/storage.ts'
import { openTestBucket, type TestBucket } from '../support/ceph.ts'

const PART_BYTES = 5 * 1024 * 1024

let bucket: TestBucket

storageContract('s3 on Ceph', {
  async open() {
    bucket = await openTestBucket()
    const { endpoint, region, accessKeyId, secretAccessKey } = bucket
    const settings = { endpoint, region, accessKeyId, secretAccessKey, bucket: bucket.bucket }
    return openS3({ ...settings, profile: 'ceph', prefix: 'some/where', partBytes: PART_BYTES })
  },
  cleanup: () => bucket.remove(),
  pendingUploads: async () => (await bucket.pendingUploads()).length,
  partBytes: PART_BYTES,
  manyKeys: 1100,
})
