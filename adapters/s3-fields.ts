import type { CreateMultipartUploadCommandInput, StorageClass } from '@aws-sdk/client-s3'
import type { S3Config } from './s3-config.ts'

const DAY_MS = 86_400_000

/** What an object is given beside its bytes, whole or in parts. */
export type ObjectFields = Omit<CreateMultipartUploadCommandInput, 'Bucket' | 'Key'>

/** Of a canary or a lease: see `objectLock` in S3Config. */
export function isPassing(key: string): boolean {
  return /(^|\/)\./.test(key)
}

/** What the settings ask for of an object of this key. */
export function objectFields({ storageClass, encryption, objectLock, tags }: S3Config, key: string): ObjectFields {
  const kmsKey = encryption?.algorithm === 'aws:kms' ? encryption : undefined
  return {
    ...(encryption ? { ServerSideEncryption: encryption.algorithm } : {}),
    ...(kmsKey?.keyId === undefined ? {} : { SSEKMSKeyId: kmsKey.keyId }),
    ...(kmsKey?.bucketKey === undefined ? {} : { BucketKeyEnabled: kmsKey.bucketKey }),
    ...(tags ? { Tagging: new URLSearchParams(tags).toString().replaceAll('+', '%20') } : {}),
    ...(isPassing(key) ? {} : keepingFields(storageClass, objectLock)),
  }
}

function keepingFields(storageClass: string | undefined, lock: S3Config['objectLock']): ObjectFields {
  return {
    ...(storageClass === undefined ? {} : { StorageClass: storageClass as StorageClass }),
    ...(lock ? lockFields(lock) : {}),
  }
}

/** How long an object that is written now is locked. */
export function lockFields({ mode, days }: NonNullable<S3Config['objectLock']>) {
  return { ObjectLockMode: mode, ObjectLockRetainUntilDate: new Date(Date.now() + days * DAY_MS) }
}
