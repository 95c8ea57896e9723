import type { MultipartRules } from './multipart-plan.ts'

const MiB = 1024 * 1024
const TiB = 1024 * 1024 * MiB

/** The stores whose differences from AWS are known. */
export type S3ProfileName =
  | 'aws'
  | 'minio'
  | 'ceph'
  | 'r2'
  | 'backblaze-b2'
  | 'wasabi'
  | 'digitalocean'
  | 'scaleway'
  | 'swift'
  | 'gcs'
  | 'other'

/** Content-MD5; x-amz-checksum-crc32; or the SHA-256 in the signature, which every server has to check. */
export type S3Integrity = 'md5' | 'crc32' | 'sha256'

/**
 * In what a store that speaks S3 differs from AWS. What its documents do not promise is taken for absent here, and
 * `probe` finds out what the server at hand really does.
 */
export interface S3Profile {
  name: S3ProfileName
  /** Bucket in the path instead of the host's name. */
  pathStyle: boolean
  /** To sign for when none is given; undefined: the SDK's own search, which ends in an error. */
  region: string | undefined
  /** What the bytes of each body are checked by on arrival: see S3Config. */
  integrity: S3Integrity
  /** Whether an ETag is the MD5 of a body. */
  md5Etags: boolean
  /**
   * Whether that of an object in parts is the MD5 of its parts' MD5s, which many stores make otherwise, by rclone's list:
   * https://github.com/rclone/rclone/tree/master/backend/s3/provider (use_multipart_etag)
   */
  partsEtags: boolean
  /** Whether PutObject honours `If-None-Match: *`. */
  conditionalPut: boolean
  /** Whether CompleteMultipartUpload does. */
  conditionalComplete: boolean
  /** Whether the SDK's own `x-id` may stand in a query. */
  sdkQuery: boolean
  /** What the store adds to a key for the name of a part, within the most that a key may have. */
  partNameBytes: number
  rules: MultipartRules
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
const AWS_RULES: MultipartRules = {
  minPartBytes: 5 * MiB,
  maxPartBytes: 5 * 1024 * MiB,
  alignBytes: MiB,
  maxParts: 10_000,
  maxObjectBytes: 10_000 * 5 * 1024 * MiB,
  concurrency: 4,
}

const OTHER: S3Profile = {
  name: 'other',
  pathStyle: true,
  region: 'us-east-1',
  integrity: 'sha256',
  md5Etags: true,
  partsEtags: false,
  conditionalPut: false,
  conditionalComplete: false,
  sdkQuery: true,
  partNameBytes: 0,
  rules: { ...AWS_RULES, maxObjectBytes: 5 * TiB },
}

export const S3_PROFILES: Record<S3ProfileName, S3Profile> = {
  aws: {
    ...OTHER,
    name: 'aws',
    pathStyle: false,
    region: undefined,
    integrity: 'crc32',
    md5Etags: false,
    conditionalPut: true,
    conditionalComplete: true,
    rules: AWS_RULES,
  },
  minio: { ...OTHER, name: 'minio', partsEtags: true, conditionalPut: true, conditionalComplete: true },
  // Measured on 16.2: a put is atomic, and Complete takes no notice of the condition.
  ceph: { ...OTHER, name: 'ceph', partsEtags: true, conditionalPut: true },
  // https://developers.cloudflare.com/r2/api/s3/conditional-operations/; and
  // https://developers.cloudflare.com/r2/platform/limits/: of a part 5 MiB less, of an object 5 GiB less than elsewhere.
  r2: {
    ...OTHER,
    name: 'r2',
    region: 'auto',
    partsEtags: true,
    conditionalPut: true,
    conditionalComplete: true,
    rules: { ...OTHER.rules, maxPartBytes: 5 * 1024 * MiB - 5 * MiB, maxObjectBytes: 5 * TiB - 5 * 1024 * MiB },
  },
  'backblaze-b2': { ...OTHER, name: 'backblaze-b2', rules: { ...OTHER.rules, maxObjectBytes: 10_000_000_000_000 } },
  wasabi: { ...OTHER, name: 'wasabi', partsEtags: true },
  digitalocean: { ...OTHER, name: 'digitalocean', partsEtags: true },
  // A tenth of the parts: https://www.scaleway.com/en/docs/storage/object/api-cli/multipart-uploads/
  scaleway: { ...OTHER, name: 'scaleway', partsEtags: true, rules: { ...OTHER.rules, maxParts: 1000 } },
  // Measured on 2.30: a condition on Put is 501, on Complete it is honoured.
  // A part is an object of its own there, named by the upload's id and the part's number.
  swift: {
    ...OTHER,
    name: 'swift',
    partsEtags: true,
    conditionalComplete: true,
    partNameBytes: '/'.length + 48 + '/10000'.length,
  },
  // The ETag of an object in parts is no MD5, and a query with x-id is refused: the XML API of
  // https://cloud.google.com/storage/docs/interoperability has preconditions under other names only.
  gcs: { ...OTHER, name: 'gcs', region: 'auto', md5Etags: false, sdkQuery: false },
  other: OTHER,
}

const BY_HOST: [RegExp, S3ProfileName][] = [
  [/(^|\.)amazonaws\.com(\.cn)?$/, 'aws'],
  [/(^|\.)r2\.cloudflarestorage\.com$/, 'r2'],
  [/^s3\.([a-z0-9-]+)\.backblazeb2\.com$/, 'backblaze-b2'],
  [/^s3(?:\.([a-z0-9-]+))?\.wasabisys\.com$/, 'wasabi'],
  [/(?:^|\.)([a-z0-9]+)\.digitaloceanspaces\.com$/, 'digitalocean'],
  [/(?:^|\.)s3\.([a-z0-9-]+)\.scw\.cloud$/, 'scaleway'],
  [/(^|\.)storage\.googleapis\.com$/, 'gcs'],
  [/^play\.min\.io$/, 'minio'],
]

/**
 * Hosts that take the bucket as a part of their name alone: Alibaba's, and Tencent's for buckets of 2024 and later.
 * https://github.com/seaweedfs/seaweedfs/pull/6466, https://cloud.tencent.com/document/product/436/96243
 */
const VIRTUAL_HOSTS = /\.(aliyuncs\.com|myqcloud\.com)$/

/**
 * The profile of an endpoint, by its host; `other` for a host of no known provider. Where the host names the region,
 * it is the profile's.
 * @param endpoint undefined for AWS itself.
 */
export function profileOf(endpoint: URL | undefined, name?: S3ProfileName): S3Profile {
  const host = endpoint?.hostname ?? ''
  const found = endpoint && BY_HOST.find(([pattern]) => pattern.test(host))
  const named = S3_PROFILES[name ?? (endpoint ? (found?.[1] ?? 'other') : 'aws')]
  const profile = VIRTUAL_HOSTS.test(host) ? { ...named, pathStyle: false } : named
  const region = found?.[0].exec(host)?.[1]
  const isRegion = region !== undefined && profile.name === found?.[1] && !['aws', 'r2', 'gcs'].includes(profile.name)
  return isRegion ? { ...profile, region } : profile
}
