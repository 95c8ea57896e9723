import { DOING, StorageError, type StorageErrorCode } from './errors.ts'
import { quoteKey } from './keys.ts'
import { isNetworkCode, isUntrusted, networkAdvice, retryAfter } from './network.ts'
import { isAbort } from './retry.ts'

export const ADAPTER = 's3'

export interface S3Names {
  bucket: string
  /** The endpoint given, or AWS's for the region. */
  endpoint: string
}

/** What a refused or failed request told us, whichever way the SDK wraps it. */
interface Facts {
  /** S3's own code, such as NoSuchKey, or Node's, such as ECONNREFUSED. */
  code: string
  status: number | undefined
  message: string
  retryAfter: string | undefined
  requestId: string | undefined
  /** The region that the bucket is in, where the answer is that it is in another. */
  region: string | undefined
  /** Of an object that is in an archive: its class, or its tier there. */
  archive: string | undefined
}

/** The parts of the SDK's errors that are read here. */
interface SdkError extends Error {
  code?: unknown
  Code?: unknown
  Region?: unknown
  StorageClass?: unknown
  AccessTier?: unknown
  $metadata?: { httpStatusCode?: number; requestId?: string }
  $response?: { statusCode?: number; headers?: Record<string, string> }
}

const BY_CODE: Record<string, StorageErrorCode> = {
  NoSuchKey: 'NOT_FOUND',
  NoSuchBucket: 'NOT_FOUND',
  NoSuchUpload: 'NOT_FOUND',
  NoSuchVersion: 'NOT_FOUND',
  NotFound: 'NOT_FOUND',
  AccessDenied: 'ACCESS_DENIED',
  AllAccessDisabled: 'ACCESS_DENIED',
  AccountProblem: 'ACCESS_DENIED',
  InvalidAccessKeyId: 'ACCESS_DENIED',
  SignatureDoesNotMatch: 'ACCESS_DENIED',
  RequestTimeTooSkewed: 'ACCESS_DENIED',
  CredentialsProviderError: 'ACCESS_DENIED',
  ExpiredToken: 'AUTH_EXPIRED',
  ExpiredTokenException: 'AUTH_EXPIRED',
  TokenRefreshRequired: 'AUTH_EXPIRED',
  InvalidToken: 'AUTH_EXPIRED',
  QuotaExceeded: 'QUOTA',
  XMinioStorageFull: 'QUOTA',
  XMinioAdminBucketQuotaExceeded: 'QUOTA',
  SlowDown: 'RATE_LIMITED',
  TooManyRequests: 'RATE_LIMITED',
  Throttling: 'RATE_LIMITED',
  ThrottlingException: 'RATE_LIMITED',
  RequestLimitExceeded: 'RATE_LIMITED',
  PreconditionFailed: 'CONFLICT',
  ConditionalRequestConflict: 'CONFLICT',
  ObjectLocked: 'LOCKED',
  // https://developers.cloudflare.com/r2/api/error-codes/
  ObjectLockedByBucketPolicy: 'LOCKED',
  SecondLevelDomainForbidden: 'INVALID',
  PathStyleDomainForbidden: 'INVALID',
  BadDigest: 'CORRUPT',
  InvalidDigest: 'CORRUPT',
  XAmzContentSHA256Mismatch: 'CORRUPT',
  // 400, although the fault is the connection's: the body came too slowly.
  RequestTimeout: 'UNAVAILABLE',
  OperationAborted: 'UNAVAILABLE',
  InternalError: 'UNAVAILABLE',
  ServiceUnavailable: 'UNAVAILABLE',
  // 403, although no right is missing.
  InvalidObjectState: 'UNAVAILABLE',
}

const BY_STATUS: Record<number, StorageErrorCode> = {
  401: 'ACCESS_DENIED',
  403: 'ACCESS_DENIED',
  404: 'NOT_FOUND',
  408: 'UNAVAILABLE',
  409: 'CONFLICT',
  412: 'CONFLICT',
  429: 'RATE_LIMITED',
  507: 'QUOTA',
}

/** Alibaba's and Tencent's words: github.com/peak/s5cmd/issues/518, github.com/gobackup/gobackup/issues/233. */
const VIRTUAL_HOST = "the store wants the bucket in the host's name; set forcePathStyle to false"

/** What stands for the code where no S3 store has answered. */
export const STRANGER = 'NotAnS3Answer'

const ADVICE: Record<string, string> = {
  [STRANGER]:
    "what answers there is no S3 store; check the endpoint (MinIO's console has another port than its API), and " +
    'whether the network asks for a sign-in',
  NoSuchBucket: 'there is no such bucket; check its name, or create it',
  // MinIO: https://github.com/minio/docs/issues/1216
  NoSuchUpload:
    'the store has the upload no more; was it cancelled there, or by a rule for unfinished uploads (MinIO ends them ' +
    'after 24 hours, R2 after 7 days)? Let such a rule wait longer than an upload takes, and begin anew',
  InvalidAccessKeyId: 'the access key is not known there; check the credentials and the endpoint',
  SignatureDoesNotMatch: 'the secret key does not fit the access key; check the credentials',
  RequestTimeTooSkewed: "this machine's clock is wrong; set it",
  CredentialsProviderError:
    'no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, pass them, or check the profile that AWS_PROFILE names',
  PermanentRedirect: 'the bucket is in another region; pass its region',
  AuthorizationHeaderMalformed: 'the bucket is in another region; pass its region',
  NotImplemented:
    'the store does not offer what was asked for; leave out the setting that asks for it, such as tags or objectLock',
  SecondLevelDomainForbidden: VIRTUAL_HOST,
  PathStyleDomainForbidden: VIRTUAL_HOST,
}

const ADVICE_BY_KIND: Record<StorageErrorCode, string> = {
  NOT_FOUND: 'it is not there',
  ACCESS_DENIED: 'access is denied; check the rights of the credentials',
  AUTH_EXPIRED: 'the session token has expired or is not valid; get a new one',
  QUOTA: 'the quota of the store is used up; free some space, or get a larger quota',
  RATE_LIMITED: 'the store asks for fewer requests',
  CONFLICT: 'another object is there than was expected',
  LOCKED: 'the object is locked against being deleted or replaced',
  INVALID: 'the store refuses the request',
  UNAVAILABLE: 'the store could not answer; try again later',
  CORRUPT: 'the bytes were damaged on their way',
}

/** "Cannot upload files, storage cap exceeded": https://www.backblaze.com/docs/cloud-storage-data-caps-and-alerts */
const CAP = /\bcap exceeded\b/i
const CAP_ADVICE = 'a cap of the account is reached; raise it in the web console under Caps & Alerts'

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html */
const RIGHT = /not authorized to perform: ((?:s3|kms):\w+)\b/

/** As Backblaze ("Unsupported header 'x-amz-tagging' received") and R2 ("Header 'x-amz-tagging' … not implemented") say. */
const HEADER = /\bheader '(x-amz-[a-z-]{1,60})'/i

/** What stands for the code where a refusal's body makes no sense, most often as it is cut. */
const UNREADABLE = 'UnreadableAnswer'

/**
 * Maps what the SDK throws. The one place where S3's codes are read. The SDK's error itself is not kept as the cause:
 * it carries the request's headers, and with them a session token.
 */
export function toStorageError(error: unknown, operation: string, names: S3Names, key?: string): unknown {
  if (error instanceof StorageError || isAbort(error)) return error
  const facts = factsOf(error)
  if (facts === undefined) return error
  const code = kindOf(facts)
  const network = isNetworkCode(facts.code)
  const advice = network ? networkAdvice(facts.code, names.endpoint) : adviceOf(facts, code)
  const target = facts.code === 'NoSuchBucket' || key === undefined ? 'the bucket' : `${quoteKey(key)} in the bucket`
  const said = network ? facts.code : [facts.status, facts.code].filter(Boolean).join(' ')
  const doing = DOING[operation] ?? operation
  const message = `S3: ${doing} ${target} "${names.bucket}" failed: ${advice} (${said}).`
  return new StorageError(message, {
    code,
    adapter: ADAPTER,
    operation,
    retryable: isRetryable(code, facts),
    cause: causeOf(facts),
    ...(key === undefined ? {} : { key }),
    ...retryAfter(facts.retryAfter),
  })
}

/** The code that S3 gave, of an error made by `toStorageError`. */
export function s3CodeOf(error: unknown): string | undefined {
  const cause = error instanceof StorageError ? error.cause : undefined
  return cause instanceof Error ? cause.name : undefined
}

function kindOf({ code, status, message }: Facts): StorageErrorCode {
  // B2 has no code of its own for its caps, nor AWS and MinIO for a lock.
  if (CAP.test(message) && status !== undefined && status >= 400 && status < 500) return 'QUOTA'
  if (/object[ -]?lock|\bWORM\b/i.test(message) && (status === 403 || status === 400)) return 'LOCKED'
  const known = BY_CODE[code]
  if (known) return known
  // A 400 or a 416 says too little without its code.
  if (code === UNREADABLE && status !== undefined && status >= 400 && status < 500) {
    return BY_STATUS[status] ?? 'UNAVAILABLE'
  }
  // 2xx: an answer that makes no sense, most often cut by something in between.
  if (status === undefined || status < 300) return 'UNAVAILABLE'
  return BY_STATUS[status] ?? (status >= 500 && status !== 501 ? 'UNAVAILABLE' : 'INVALID')
}

function isRetryable(code: StorageErrorCode, facts: Facts): boolean {
  // The SDK has learnt the server's clock from this answer, and signs the next request by it.
  if (facts.code === 'RequestTimeTooSkewed') return true
  if (code === 'CORRUPT' || code === 'RATE_LIMITED') return true
  // It takes hours, and somebody who asks for it.
  if (facts.code === 'InvalidObjectState') return false
  return code === 'UNAVAILABLE' && !isUntrusted(facts.code)
}

function adviceOf({ code, region, archive, message }: Facts, kind: StorageErrorCode): string {
  if (kind === 'QUOTA' && CAP.test(message)) return CAP_ADVICE
  const right = kind === 'ACCESS_DENIED' ? RIGHT.exec(message)?.[1] : undefined
  const header = kind === 'INVALID' ? HEADER.exec(message)?.[1] : undefined
  if (header !== undefined) return `the store does not take ${header}; leave out the setting that asks for it`
  if (right !== undefined) return `the credentials lack the right ${right}; grant it, and see that nothing denies it`
  if (code === 'InvalidObjectState') return thawAdvice(archive)
  if (region !== undefined) return `the bucket is in another region; pass the region "${region}"`
  return ADVICE[code] ?? ADVICE_BY_KIND[kind]
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html */
function thawAdvice(archive: string | undefined): string {
  const where = archive === undefined ? 'an archive' : `the archive ${archive}`
  return (
    `it lies in ${where}, and has to be brought back before it can be read: ask the store for that ` +
    '("Initiate restore" in its console, or `aws s3api restore-object`), wait for the hours it takes, and try again'
  )
}

function factsOf(error: unknown): Facts | undefined {
  if (!(error instanceof Error)) return undefined
  const raw: SdkError = error
  const status = raw.$metadata?.httpStatusCode ?? raw.$response?.statusCode
  const nodeCode = typeof raw.code === 'string' ? raw.code : undefined
  const isUnreadable = typeof raw.Code !== 'string' && /^(Error|SyntaxError|TypeError)$/.test(raw.name)
  const s3Code = isUnreadable ? UNREADABLE : typeof raw.Code === 'string' ? raw.Code : raw.name
  // An answer may begin and then break off: what a refusal's cut body would have said is not known, whatever its status.
  const isNetwork = nodeCode === undefined ? (status ?? 200) < 300 && isNetworkCode(raw.name) : isNetworkCode(nodeCode)
  const isSdk = status !== undefined || raw.name === 'CredentialsProviderError'
  if (!isNetwork && !isSdk) return undefined
  return {
    code: isNetwork ? (nodeCode ?? raw.name) : s3Code,
    status: isNetwork ? undefined : status,
    message: raw.message,
    retryAfter: raw.$response?.headers?.['retry-after'],
    requestId: raw.$metadata?.requestId,
    region: isNetwork || !isElsewhere(status, s3Code) ? undefined : regionOf(raw),
    archive: [raw.AccessTier, raw.StorageClass].find(
      (name) => typeof name === 'string' && /^[A-Z_]{1,40}$/.test(name),
    ) as string | undefined,
  }
}

/** Whether a refusal may mean that the bucket is in another region. To a HEAD there is no body, and so no code. */
function isElsewhere(status: number | undefined, code: string): boolean {
  if (status === 301 || status === 307) return true
  return status === 400 && /^(AuthorizationHeaderMalformed|Unknown|UnknownError|BadRequest|400)$/.test(code)
}

/** AuthorizationHeaderMalformed names it in its body; to a HEAD, and in a PermanentRedirect, only a header can. */
function regionOf({ Region, $response }: SdkError): string | undefined {
  const region = typeof Region === 'string' ? Region : $response?.headers?.['x-amz-bucket-region']
  return region !== undefined && /^[a-z0-9-]{1,40}$/.test(region) ? region : undefined
}

function causeOf({ code, message, status, requestId }: Facts): Error {
  const cause = new Error(message)
  cause.name = code
  return Object.assign(cause, { status, requestId })
}
