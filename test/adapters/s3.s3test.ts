import { openS3 } from '../../adapters/s3.ts'
import { KEY_MAX_BYTES } from '../../adapters/storage.ts'
import { storageContract } from '../contract/storage.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'

const PART_BYTES = 5 * 1024 * 1024
const PREFIX = 'some/where/'

const UPLOADERS = ['millrace', 'lib-storage'] as const

for (const server of ['ceph', 'swift'] as const) {
  for (const scheme of ['http', 'https'] as const) {
    for (const uploader of UPLOADERS) {
      // A page of a server's own size takes so many requests to fill that one run of each server has it.
      const isFirst = scheme === 'http' && uploader === UPLOADERS[0]
      let bucket: TestBucket
      storageContract(`s3 on ${server} over ${scheme} with ${uploader}`, {
        async open() {
          bucket = await openTestBucket({ server, tls: scheme === 'https' })
          const { endpoint, region, accessKeyId, secretAccessKey } = bucket
          return openS3({
            ...{ endpoint, region, accessKeyId, secretAccessKey, bucket: bucket.bucket },
            profile: server,
            uploader,
            ...(isFirst ? {} : { pageSize: 10 }),
            prefix: PREFIX,
            partBytes: PART_BYTES,
          })
        },
        cleanup: () => bucket.remove(),
        pendingUploads: async () => (await bucket.pendingUploads()).length,
        partBytes: PART_BYTES,
        keyMaxBytes: KEY_MAX_BYTES - PREFIX.length,
        maxObjectBytes: 5 * 1024 ** 4,
        manyKeys: isFirst ? 3000 : 35,
      })
    }
  }
}
