import { FakeB2 } from '../fakes/b2.ts'
import { startDriveFake } from '../fakes/drive.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import { openTestBucket } from './test-bucket.ts'

const MiB = 1024 * 1024

/** A store whose uploads can be taken up, as the command is told of it. */
export interface CrashPlace {
  /** Where it listens. */
  origin: string
  /** The store's URL, where something else stands before it. */
  url(origin: string): string
  /** The credentials. */
  env: Record<string, string>
  /** Of an object of a few GiB. */
  partBytes: number
  /** Uploads that were begun and neither finished nor cancelled; undefined where nobody but the provider can tell. */
  pending(): Promise<number | undefined>
  close(): Promise<void>
}

export const CRASH_PLACES = {
  async 'S3 on Ceph'() {
    const { endpoint, region, accessKeyId, secretAccessKey, bucket, ...more } = await openTestBucket()
    return {
      origin: endpoint,
      url: (origin) => `s3://${bucket}?endpoint=${encodeURIComponent(origin)}&region=${region}&profile=ceph`,
      env: { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey },
      partBytes: 8 * MiB,
      pending: async () => (await more.pendingUploads()).length,
      close: more.remove,
    }
  },
  async 'Backblaze B2'() {
    const fake = await new FakeB2().start()
    const { bucketName } = fake.store.addBucket('worlds')
    const { keyId, applicationKey } = fake.store.addKey()
    return {
      origin: fake.origin,
      url: (origin) => `b2://${bucketName}?endpoint=${origin}`,
      env: { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey },
      partBytes: 8 * MiB,
      pending: async () => fake.unfinished.length,
      async close() {
        fake.store.files.clear()
        await fake.close()
      },
    }
  },
  async Dropbox() {
    const fake = await FakeDropbox.open()
    // What it keeps keeps its bytes, which are GiB.
    fake.sessions.keepFinished = false
    fake.tree.keepsDeleted = false
    const { clientId, clientSecret, refreshToken } = fake.credentials
    return {
      origin: fake.origin,
      url: (origin) => `dropbox:///backups?endpoint=${origin}`,
      env: {
        MILLRACE_DROPBOX_CLIENT_ID: clientId,
        MILLRACE_DROPBOX_CLIENT_SECRET: clientSecret,
        MILLRACE_DROPBOX_REFRESH_TOKEN: refreshToken,
      },
      partBytes: 8 * MiB,
      // Dropbox has no call that cancels a session: it forgets one after a week.
      pending: async () => undefined,
      async close() {
        fake.sessions.loseAll()
        await fake.close()
      },
    }
  },
  async 'Google Drive'() {
    const fake = await startDriveFake()
    const { clientId, clientSecret, refreshToken = '' } = fake.state
    return {
      origin: fake.origin,
      url: (origin) => `drive:///backups?endpoint=${origin}`,
      env: {
        MILLRACE_GOOGLE_CLIENT_ID: clientId,
        MILLRACE_GOOGLE_CLIENT_SECRET: clientSecret,
        MILLRACE_GOOGLE_REFRESH_TOKEN: refreshToken,
      },
      partBytes: 16 * MiB,
      pending: async () => fake.pendingSessions,
      async close() {
        fake.state.files.clear()
        fake.state.sessions.clear()
        await fake.close()
      },
    }
  },
} satisfies Record<string, () => Promise<CrashPlace>>
