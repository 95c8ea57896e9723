import { openGoogleDrive } from '../../adapters/google-drive.ts'
import { storageContract } from '../contract/storage.ts'
import { type DriveFake, startDriveFake } from '../fakes/drive.ts'

const PART_BYTES = 256 * 1024

let fake: DriveFake
storageContract('google-drive, a folder by its path', {
  partBytes: PART_BYTES,
  async open() {
    fake = await startDriveFake()
    const { clientId, clientSecret, refreshToken = '' } = fake.state
    const endpoints = { api: fake.origin, token: fake.origin }
    const credentials = { clientId, clientSecret, refreshToken }
    return openGoogleDrive({ ...credentials, folder: 'backups', partBytes: PART_BYTES, pageSize: 10, endpoints })
  },
  pendingUploads: async () => fake.pendingSessions,
  cleanup: () => fake.close(),
})
