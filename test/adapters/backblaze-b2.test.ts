import { openB2 } from '../../adapters/backblaze-b2.ts'
import { storageContract } from '../contract/storage.ts'
import { FakeB2 } from '../fakes/b2.ts'

const PART_BYTES = 256 * 1024

let fake: FakeB2

storageContract('backblaze-b2 on a fake B2', {
  async open() {
    fake = await new FakeB2({ minPartBytes: PART_BYTES }).start()
    const { bucketName: bucket } = fake.store.addBucket('worlds')
    const { keyId, applicationKey } = fake.store.addKey()
    const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES, pageSize: 25 }
    return openB2({ keyId, applicationKey, bucket, endpoint: fake.origin, prefix: 'some/where', ...sizes })
  },
  cleanup: () => fake.close(),
  pendingUploads: async () => fake.unfinished.length,
  partBytes: PART_BYTES,
  maxObjectBytes: 10_000_000_000_000,
  keyMaxBytes: 1024 - 'some/where/'.length,
  manyKeys: 110,
})
