import { z } from 'zod'
import { S3_PROFILES, type S3ProfileName } from '../../adapters/s3-profiles.ts'
import { bytes, rate, secret, whole } from './values.ts'

const prefix = z.string().meta({ description: 'All objects live beneath it; a slash at its end is implied.' })
const partBytes = bytes.meta({ description: 'Bytes of a part at least: 16MiB. The default suits most.' })
const endpoint = z.url().meta({ description: 'The URL of a server other than the provider itself.' })

/** What every destination can have beside its provider's own settings. */
const common = {
  bandwidth: rate.meta({ description: 'What backups to it may send, in bytes a second: 20MiB/s.' }).optional(),
  readBandwidth: rate.meta({ description: 'What restores may fetch from it, in bytes a second.' }).optional(),
}

export const s3Schema = z
  .strictObject({
    provider: z.literal('s3'),
    bucket: z.string().min(1),
    prefix: prefix.optional(),
    region: z.string().min(1).optional(),
    endpoint: endpoint.optional(),
    profile: z
      .enum(Object.keys(S3_PROFILES) as [S3ProfileName, ...S3ProfileName[]])
      .meta({ description: 'What speaks S3 there; found by the endpoint where its host says so.' })
      .optional(),
    accessKeyId: secret.optional(),
    secretAccessKey: secret.optional(),
    sessionToken: secret.optional(),
    forcePathStyle: z.boolean().optional(),
    conditionalWrites: z.boolean().optional(),
    integrity: z.enum(['md5', 'crc32', 'sha256']).optional(),
    uploader: z.enum(['millrace', 'lib-storage']).optional(),
    storageClass: z.string().min(1).optional(),
    encryption: z
      .discriminatedUnion('algorithm', [
        z.strictObject({ algorithm: z.literal('AES256') }),
        z.strictObject({
          algorithm: z.literal('aws:kms'),
          keyId: z.string().min(1).optional(),
          bucketKey: z.boolean().optional(),
        }),
      ])
      .meta({ description: 'How the store encrypts what it keeps, beside millrace.' })
      .optional(),
    objectLock: z.strictObject({ mode: z.enum(['GOVERNANCE', 'COMPLIANCE']), days: whole(1, 36_500) }).optional(),
    tags: z.record(z.string(), z.string()).optional(),
    partBytes: partBytes.optional(),
    ...common,
  })
  .meta({ title: 'S3, or what speaks its protocol' })

export const googleDriveSchema = z
  .strictObject({
    provider: z.literal('google-drive'),
    clientId: secret
      .meta({ description: 'Absent with all three: what `millrace login google-drive` keeps.' })
      .optional(),
    clientSecret: secret.optional(),
    refreshToken: secret.optional(),
    folder: z.string().min(1).meta({ description: 'A path from the root, made when it is missing.' }).optional(),
    folderId: z.string().min(1).optional(),
    appData: z.boolean().meta({ description: 'The hidden folder of the app instead.' }).optional(),
    sharedDriveId: z.string().min(1).optional(),
    partBytes: partBytes.optional(),
    endpoint: endpoint.optional(),
    ...common,
  })
  .meta({ title: 'Google Drive' })

export const dropboxSchema = z
  .strictObject({
    provider: z.literal('dropbox'),
    clientId: secret.meta({ description: 'Absent with all three: what `millrace login dropbox` keeps.' }).optional(),
    clientSecret: secret.optional(),
    refreshToken: secret.optional(),
    root: z.string().startsWith('/').meta({ description: 'A folder: /backups.' }).optional(),
    namespace: z.string().min(1).optional(),
    rootNamespace: z.string().min(1).optional(),
    session: z.enum(['concurrent', 'sequential']).optional(),
    partBytes: partBytes.optional(),
    endpoint: endpoint.optional(),
    ...common,
  })
  .meta({ title: 'Dropbox' })

export const b2Schema = z
  .strictObject({
    provider: z.literal('backblaze-b2'),
    keyId: secret,
    applicationKey: secret,
    bucket: z.string().min(1),
    prefix: prefix.optional(),
    partBytes: partBytes.optional(),
    endpoint: endpoint.optional(),
    ...common,
  })
  .meta({ title: 'Backblaze B2' })

export const filesystemSchema = z
  .strictObject({
    provider: z.literal('filesystem'),
    root: z.string().min(1).meta({ description: 'A folder; relative to the config file.' }),
    ...common,
  })
  .meta({ title: 'A folder' })

/** Where backups can go: told apart by `provider`. */
export const destinationSchema = z.discriminatedUnion('provider', [
  s3Schema,
  googleDriveSchema,
  dropboxSchema,
  b2Schema,
  filesystemSchema,
])

export type DestinationConfig = z.output<typeof destinationSchema>
