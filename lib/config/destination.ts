import { z } from 'zod'
import { S3_PROFILES, type S3ProfileName } from '../../adapters/s3-profiles.ts'
import { bytes, rate, secret, whole } from './values.ts'

const prefix = z.string().meta({ description: 'All objects live beneath it; a slash at its end is implied.' })
const partBytes = bytes.meta({ description: 'Bytes of a part at least: 16MiB. The default suits most.' })
const endpoint = z.url().meta({ description: 'The URL of a server other than the provider itself.' })

const namespace = z.string().regex(/^\d+$/, { error: 'must be a number, in quotes' })

/** What every destination can have beside its provider's own settings. */
const common = {
  bandwidth: rate.meta({ description: 'What backups to it may send, in bytes a second: 20MiB/s.' }).optional(),
  readBandwidth: rate.meta({ description: 'What restores may fetch from it, in bytes a second.' }).optional(),
}

export const s3Schema = z
  .strictObject({
    provider: z.literal('s3').meta({ description: 'Amazon S3 and what speaks its protocol.' }),
    bucket: z.string().min(1).meta({ description: "The bucket's name." }),
    prefix: prefix.optional(),
    region: z
      .string()
      .min(1)
      .meta({ description: 'Such as eu-central-1. Default: AWS_REGION, or what the endpoint signs for.' })
      .optional(),
    endpoint: endpoint.optional(),
    profile: z
      .enum(Object.keys(S3_PROFILES) as [S3ProfileName, ...S3ProfileName[]])
      .meta({ description: 'What speaks S3 there; found by the endpoint where its host says so.' })
      .optional(),
    accessKeyId: secret
      .meta({
        description: 'Where the access key is. Absent with the next: where the AWS SDK looks, as in AWS_ACCESS_KEY_ID.',
      })
      .optional(),
    secretAccessKey: secret.meta({ description: 'Where the secret key is.' }).optional(),
    sessionToken: secret.meta({ description: 'Where the token of temporary keys is.' }).optional(),
    forcePathStyle: z
      .boolean()
      .meta({ description: "The bucket in the URL's path, not its host. Default: true with an endpoint." })
      .optional(),
    conditionalWrites: z
      .boolean()
      .meta({ description: 'Whether the store honours If-None-Match. Default: as the profile says.' })
      .optional(),
    integrity: z
      .enum(['md5', 'crc32', 'sha256'])
      .meta({ description: 'What bodies are checked by on arrival. Default: crc32 on AWS, else sha256.' })
      .optional(),
    uploader: z
      .enum(['millrace', 'lib-storage'])
      .meta({ description: 'What cuts objects into parts and sends them. Default: millrace.' })
      .optional(),
    storageClass: z.string().min(1).meta({ description: "Such as STANDARD_IA. Default: the bucket's." }).optional(),
    encryption: z
      .discriminatedUnion('algorithm', [
        z.strictObject({ algorithm: z.literal('AES256').meta({ description: "The store's own key." }) }),
        z.strictObject({
          algorithm: z.literal('aws:kms').meta({ description: 'A key of AWS KMS.' }),
          keyId: z.string().min(1).meta({ description: "The key's id or ARN, which is no secret." }).optional(),
          bucketKey: z.boolean().meta({ description: 'One key for the bucket: fewer requests to KMS.' }).optional(),
        }),
      ])
      .meta({ description: 'How the store encrypts what it keeps, beside millrace.' })
      .optional(),
    objectLock: z
      .strictObject({
        mode: z.enum(['GOVERNANCE', 'COMPLIANCE']).meta({ description: 'Who may still delete: some, or nobody.' }),
        days: whole(1, 36_500).meta({ description: 'From the writing of each object.' }),
      })
      .meta({ description: 'Locks each object; the bucket must have Object Lock.' })
      .optional(),
    tags: z
      .record(z.string(), z.string())
      .meta({ description: 'At most 10, put on every object: a name and text for each.' })
      .optional(),
    partBytes: partBytes.optional(),
    ...common,
  })
  .meta({ title: 'S3, or what speaks its protocol' })

export const googleDriveSchema = z
  .strictObject({
    provider: z.literal('google-drive').meta({ description: 'Google Drive.' }),
    clientId: secret
      .meta({
        description: "Where the app's id is. Absent with the next two: what `millrace login google-drive` keeps.",
      })
      .optional(),
    clientSecret: secret.meta({ description: "Where the app's secret is." }).optional(),
    refreshToken: secret.meta({ description: 'Where the refresh token is.' }).optional(),
    folder: z.string().min(1).meta({ description: 'A path from the root, made when it is missing.' }).optional(),
    folderId: z.string().min(1).meta({ description: 'The folder by its id, as the browser shows it.' }).optional(),
    appData: z.boolean().meta({ description: 'The hidden folder of the app instead.' }).optional(),
    sharedDriveId: z.string().min(1).meta({ description: 'The shared drive that the folder is in.' }).optional(),
    partBytes: partBytes.optional(),
    endpoint: endpoint.optional(),
    ...common,
  })
  .meta({ title: 'Google Drive' })

export const dropboxSchema = z
  .strictObject({
    provider: z.literal('dropbox').meta({ description: 'Dropbox.' }),
    clientId: secret
      .meta({ description: "Where the app's id is. Absent with the next two: what `millrace login dropbox` keeps." })
      .optional(),
    clientSecret: secret.meta({ description: "Where the app's secret is; an app of PKCE has none." }).optional(),
    refreshToken: secret.meta({ description: 'Where the refresh token is.' }).optional(),
    root: z.string().startsWith('/').meta({ description: 'A folder: /backups.' }).optional(),
    namespace: namespace
      .meta({ description: 'The id of a team folder or space that paths are relative to, in quotes.' })
      .optional(),
    rootNamespace: namespace.meta({ description: 'The same, where it has to be the root of the account.' }).optional(),
    session: z
      .enum(['concurrent', 'sequential'])
      .meta({ description: 'How parts are sent: several at a time (the default), or one behind the other.' })
      .optional(),
    partBytes: partBytes.optional(),
    endpoint: endpoint.optional(),
    ...common,
  })
  .meta({ title: 'Dropbox' })

export const b2Schema = z
  .strictObject({
    provider: z.literal('backblaze-b2').meta({ description: 'Backblaze B2, by its native API.' }),
    keyId: secret.meta({ description: "Where the application key's id is." }),
    applicationKey: secret.meta({ description: 'Where the application key is.' }),
    bucket: z.string().min(1).meta({ description: "The bucket's name." }),
    prefix: prefix.optional(),
    partBytes: partBytes.optional(),
    endpoint: endpoint.optional(),
    ...common,
  })
  .meta({ title: 'Backblaze B2' })

export const filesystemSchema = z
  .strictObject({
    provider: z.literal('filesystem').meta({ description: 'A folder of this machine, or a mount.' }),
    root: z.string().min(1).meta({ description: 'A folder; relative to the config file.' }),
    mountPoint: z.string().min(1).optional().meta({
      description: 'The root or a folder above it that must be a mount point: without the disk nothing is written.',
    }),
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

/** A destination's entry: sizes and rates as numbers, secrets as where they are. */
export type DestinationConfig = z.output<typeof destinationSchema>
