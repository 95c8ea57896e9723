import { StorageError } from './errors.ts'
import { checkKey, normalizePrefix } from './keys.ts'
import type { RetryPolicy } from './retry.ts'
import { ADAPTER } from './s3-errors.ts'
import { S3_PROFILES, type S3Integrity, type S3ProfileName } from './s3-profiles.ts'

const TAGS_MAX = 10
const TAG_KEY_MAX = 128
const TAG_VALUE_MAX = 256

/** Settings of an S3 bucket, at AWS or at what speaks its protocol; see docs/providers/s3.md. */
export interface S3Config {
  bucket: string
  /** All keys live beneath it, and are given without it. A slash at its end is implied. */
  prefix?: string
  /**
   * Absent: what the endpoint's host names; else the environment's AWS_REGION; else, where an endpoint is given, what
   * its profile signs for (`us-east-1` most often).
   */
  region?: string
  /** The URL of a store other than AWS. Path style is then the default. */
  endpoint?: string
  /**
   * Which store it is, for what differs between them. Default: by the endpoint's host, `aws` without one, and `other`
   * where the host tells nothing, as with a MinIO or Ceph of one's own: name those.
   */
  profile?: S3ProfileName
  /** Both keys or neither. Neither: the SDK's own chain, which begins at the environment. */
  accessKeyId?: string
  secretAccessKey?: string
  sessionToken?: string
  forcePathStyle?: boolean
  /**
   * Whether `ifAbsent` is offered. Default: whether the profile says, or `probe` has found, that the store honours
   * `If-None-Match: *` on PutObject. True on a store that does not: the adapter looks before it writes, which leaves a
   * moment open. The same goes for objects in parts where only PutObject honours it, as on Ceph.
   */
  conditionalWrites?: boolean
  /**
   * What the bytes of a body are checked by on arrival: `crc32` (the default on AWS, over TLS the cheapest), `sha256`
   * (in the signature, the default elsewhere: a third of what MD5 costs), or `md5` (Content-MD5, and each ETag is
   * compared as well).
   */
  integrity?: S3Integrity
  /** Whether ETags are MD5 digests, those of objects in parts too, and compared where integrity is md5. Default: by the profile. */
  md5Etags?: boolean
  /** Whether a SHA-256 of each body is in its signature. Default: over http, and where integrity is sha256. */
  signBodies?: boolean
  /** What cuts objects into parts and sends them. Default `millrace`; docs/decisions/0008 has the figures. */
  uploader?: 'millrace' | 'lib-storage'
  /** Of objects as they are written, such as `STANDARD_IA`. Default: the bucket's. See {@link objectLock} for keys. */
  storageClass?: string
  /** How the store encrypts what it keeps, beside millrace's own encryption. Default: as the bucket is set. */
  encryption?: { algorithm: 'AES256' } | { algorithm: 'aws:kms'; keyId?: string; bucketKey?: boolean }
  /**
   * Locks each object for so many days from its writing; the bucket must have Object Lock. `delete` then removes the
   * version itself, and is LOCKED until the days are over. This and `storageClass` leave out keys with a segment that
   * begins with a dot: canaries and leases, which have to go again.
   */
  objectLock?: { mode: 'GOVERNANCE' | 'COMPLIANCE'; days: number }
  /** At most 10, put on every object. */
  tags?: Record<string, string>
  /** Bytes of a part at least, from 5 MiB. Default 8 MiB. */
  partBytes?: number
  /** Keys in one page of a listing, up to 1,000. */
  pageSize?: number
  /** Time without a byte in either direction after which a request is given up. Default 30,000. */
  idleMs?: number
  /** Bounds the attempts at one call. */
  callRetry?: RetryPolicy
  /** Bounds the attempts at one part, at a commit, and at going on with a read. */
  partRetry?: RetryPolicy
}

/** @throws StorageError INVALID when a setting cannot be meant so. Repeats no secret. */
export function checkConfig(config: S3Config): void {
  const { bucket, accessKeyId, secretAccessKey, sessionToken } = config
  if (typeof bucket !== 'string' || bucket === '') throw invalid('openS3 needs the name of a bucket.')
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) {
    throw invalid('accessKeyId and secretAccessKey go together: pass both, or neither.')
  }
  if (sessionToken !== undefined && accessKeyId === undefined) {
    throw invalid('sessionToken needs accessKeyId and secretAccessKey beside it.')
  }
  if (config.endpoint !== undefined) parseEndpoint(config.endpoint)
  const prefix = normalizePrefix(config.prefix)
  if (prefix !== '') checkKey(prefix.slice(0, -1), ADAPTER, 'open')
  checkChoice('profile', config.profile, Object.keys(S3_PROFILES))
  checkChoice('uploader', config.uploader, ['millrace', 'lib-storage'])
  checkChoice('integrity', config.integrity, ['md5', 'crc32', 'sha256'])
  if (config.integrity === 'sha256' && config.signBodies === false) {
    throw invalid('integrity sha256 is the SHA-256 in the signature, which signBodies: false leaves out.')
  }
  checkChoice('encryption.algorithm', config.encryption?.algorithm, ['AES256', 'aws:kms'])
  checkObjectLock(config.objectLock)
  checkTags(config.tags ?? {})
}

/** @throws StorageError INVALID */
export function parseEndpoint(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw invalid('The endpoint must be a URL that begins with https:// or http://.')
  }
  if (url.username !== '' || url.password !== '') {
    throw invalid('The endpoint has credentials in it; pass accessKeyId and secretAccessKey instead.')
  }
  return url
}

function checkChoice(name: string, value: string | undefined, choices: string[]): void {
  if (value === undefined || choices.includes(value)) return
  throw invalid(`${name} is one of ${choices.join(', ')}.`)
}

function checkObjectLock(lock: S3Config['objectLock']): void {
  if (lock === undefined) return
  checkChoice('objectLock.mode', lock.mode, ['GOVERNANCE', 'COMPLIANCE'])
  if (!Number.isSafeInteger(lock.days) || lock.days < 1 || lock.days > 36_500) {
    throw invalid('objectLock.days is a whole number of days, from 1 to 36,500.')
  }
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html */
function checkTags(tags: Record<string, string>): void {
  const pairs = Object.entries(tags)
  if (pairs.length > TAGS_MAX) throw invalid(`An object has at most ${TAGS_MAX} tags.`)
  for (const [key, value] of pairs) {
    if (key.length < 1 || key.length > TAG_KEY_MAX || value.length > TAG_VALUE_MAX || /^aws:/i.test(key)) {
      throw invalid(
        `A tag's key has 1 to ${TAG_KEY_MAX} characters and does not begin with aws:, and its value at most ${TAG_VALUE_MAX}.`,
      )
    }
  }
}

function invalid(message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
}
