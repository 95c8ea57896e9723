import { DOING, StorageError, type StorageErrorCode } from './errors.ts'
import { quoteKey } from './keys.ts'
import { isNetworkCode, isUntrusted, networkAdvice, retryAfter } from './network.ts'
import { isAbort } from './retry.ts'

export const ADAPTER = 'backblaze-b2'

export interface B2Names {
  bucket: string
  endpoint: string
  /** What the key may do, once that is known. */
  capabilities?: string[] | undefined
}

/** An answer of B2 that is not a success. Its message holds no token: see `cleaned`. */
export class B2Refusal extends Error {
  override readonly name = 'B2Refusal'
  readonly status: number
  /** B2's own code, such as `bad_auth_token`; empty where the answer had none. */
  readonly code: string
  readonly retryAfter: string | undefined

  constructor(status: number, code: string, message: string, retryAfterHeader: string | undefined) {
    super(message)
    this.status = status
    this.code = code
    this.retryAfter = retryAfterHeader
  }

  /** Whether the token of the request is of no use any more, and another may be had. */
  get isStaleToken(): boolean {
    // Without a code the answer was cut: it is most likely this one.
    return this.status === 401 && ['expired_auth_token', 'bad_auth_token', ''].includes(this.code)
  }
}

/**
 * Reads an answer that is not a success.
 * @param text its body, `{"status":400,"code":"bad_request","message":"…"}`, or what something in between sent.
 * @param secrets what must not be in the message: B2 repeats an upload token in its error `auth_token_limit`.
 */
export function refusalOf(
  status: number,
  text: string,
  headers: Record<string, string>,
  secrets: readonly string[],
): B2Refusal {
  let code = ''
  let message = ''
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body === 'object' && body !== null) {
      if ('code' in body && typeof body.code === 'string') code = body.code
      if ('message' in body && typeof body.message === 'string') message = body.message
    }
  } catch {
    // A proxy's page: its status says enough.
  }
  return new B2Refusal(status, cleaned(code, secrets), cleaned(message, secrets), headers['retry-after'])
}

/** https://www.backblaze.com/docs/cloud-storage-native-api-error-handling-and-status-codes */
const BY_CODE: Record<string, StorageErrorCode> = {
  storage_cap_exceeded: 'QUOTA',
  transaction_cap_exceeded: 'QUOTA',
  download_cap_exceeded: 'QUOTA',
  cap_exceeded: 'QUOTA',
  no_such_file: 'NOT_FOUND',
  file_not_present: 'NOT_FOUND',
  bad_bucket_id: 'NOT_FOUND',
  invalid_bucket_id: 'NOT_FOUND',
  part_sha1_mismatch: 'CORRUPT',
  missing_part: 'CORRUPT',
  // A token that two requests used at once; the next attempt has one of its own.
  auth_token_limit: 'UNAVAILABLE',
}

const BY_STATUS: Record<number, StorageErrorCode> = {
  401: 'ACCESS_DENIED',
  403: 'ACCESS_DENIED',
  404: 'NOT_FOUND',
  408: 'UNAVAILABLE',
  409: 'CONFLICT',
  429: 'RATE_LIMITED',
}

const RESETS = 'caps reset at 00:00 GMT; wait until then, or raise it in the web console under Caps & Alerts'

const ADVICE: Record<string, string> = {
  storage_cap_exceeded: 'the storage cap of the account is reached; raise it in the web console under Caps & Alerts',
  cap_exceeded: 'a cap of the account is reached; raise it in the web console under Caps & Alerts',
  transaction_cap_exceeded: `the daily cap on transactions is reached; ${RESETS}`,
  download_cap_exceeded: `the daily cap on downloads is reached; ${RESETS}`,
  unsupported:
    'this key cannot be used with version 2 of the API, as is so of a key for several chosen buckets; ' +
    'make a key for this one bucket, or for all',
  bad_bucket_id: 'the bucket is not there any more',
  invalid_bucket_id: 'the bucket is not there any more',
  email_not_verified: "the account's e-mail address is not verified; verify it in the web console",
  no_payment_history: 'the account has no payment history yet; see Billing in the web console',
  part_sha1_mismatch: 'the parts that B2 holds are not the ones that were sent; begin the upload anew',
  missing_part: 'B2 has lost a part that it had acknowledged; begin the upload anew',
}

const ADVICE_BY_KIND: Record<StorageErrorCode, string> = {
  NOT_FOUND: 'it is not there',
  ACCESS_DENIED: 'access is denied; check the capabilities and restrictions of the application key',
  AUTH_EXPIRED: 'B2 refuses the token that it has just given; check whether the application key was deleted',
  QUOTA: 'a cap of the account is reached',
  RATE_LIMITED: 'B2 asks for fewer requests',
  CONFLICT: 'another object is there than was expected',
  LOCKED: 'the file is under Object Lock: it cannot be deleted before its retention ends, or its legal hold is lifted',
  INVALID: 'B2 refuses the request',
  UNAVAILABLE: 'B2 could not answer; try again later',
  CORRUPT: 'the bytes were damaged on their way',
}

const WRONG_KEY =
  'the key ID or the application key is wrong, or the key was deleted or has expired; make a new key under ' +
  'Application Keys'

/** The capability that a request needs: B2 does not say it. */
const NEEDED: Record<string, string> = {
  bucket: 'listBuckets',
  list: 'listFiles',
  stat: 'listFiles',
  versions: 'listFiles',
  unfinished: 'listFiles',
  putWhole: 'writeFiles',
  begin: 'writeFiles',
  putPart: 'writeFiles',
  commit: 'writeFiles',
  abort: 'writeFiles',
  info: 'readFiles',
  read: 'readFiles',
  delete: 'deleteFiles',
}

const OUR_DOING: Record<string, string> = {
  ...DOING,
  authorize: 'signing in for',
  bucket: 'looking for',
  versions: 'listing the versions of',
  unfinished: 'listing unfinished uploads of',
}

/** The words for a key that lacks a capability. */
export function missingCapability(capability: string): string {
  return `the application key lacks the capability ${capability}; make a key that has it`
}

/** Maps what a request failed with. The one place where B2's codes are read. */
export function toStorageError(error: unknown, operation: string, names: B2Names, key?: string): unknown {
  if (error instanceof StorageError || isAbort(error) || !(error instanceof Error)) return error
  const isRefusal = error instanceof B2Refusal
  const nodeCode = (error as NodeJS.ErrnoException).code ?? error.name
  if (!isRefusal && !isNetworkCode(nodeCode)) return error
  const code = isRefusal ? kindOf(error, operation) : 'UNAVAILABLE'
  const advice = isRefusal ? adviceFor(error, code, operation, names) : networkAdvice(nodeCode, names.endpoint)
  const said = isRefusal ? [error.status, error.code].filter(Boolean).join(' ') : nodeCode
  const target = key === undefined ? 'the bucket' : `${quoteKey(key)} in the bucket`
  const message = `B2: ${OUR_DOING[operation] ?? operation} ${target} "${names.bucket}" failed: ${advice} (${said}).`
  return new StorageError(message, {
    code,
    adapter: ADAPTER,
    operation,
    retryable: isRefusal ? isRetryable(error, code) : !isUntrusted(nodeCode),
    cause: causeOf(error, said),
    ...(key === undefined ? {} : { key }),
    ...(isRefusal ? retryAfter(error.retryAfter) : {}),
  })
}

/** B2's status and code of an error made by `toStorageError`. */
export function b2CauseOf(error: unknown): { status?: number; code?: string; message?: string } {
  return error instanceof StorageError && error.cause instanceof Error ? error.cause : {}
}

/** Whether the large file of an error is neither there to send parts to, nor to be cancelled. */
export function isUploadGone(error: unknown): boolean {
  const { status, code, message = '' } = b2CauseOf(error)
  // B2 has no code of its own for it: 400 bad_request, "No active upload for: …".
  return (status === 400 && /no active upload/i.test(message)) || (status === 404 && code === 'not_found')
}

function kindOf(refusal: B2Refusal, operation: string): StorageErrorCode {
  const { status, code, message } = refusal
  // The token of an upload URL says nothing of the account: the next attempt asks for another URL.
  const isUpload = operation === 'putPart' || operation === 'putWhole'
  if (operation !== 'authorize' && refusal.isStaleToken) return isUpload ? 'UNAVAILABLE' : 'AUTH_EXPIRED'
  // A key without the right gets 401: only a lock is left.
  if (operation === 'delete' && status === 403 && code === 'access_denied') return 'LOCKED'
  if (status === 400 && /no active upload/i.test(message)) return 'NOT_FOUND'
  if (status === 400 && /checksum|sha1 did not match/i.test(message) && code === 'bad_request') return 'CORRUPT'
  return BY_CODE[code] ?? BY_STATUS[status] ?? (status >= 500 ? 'UNAVAILABLE' : 'INVALID')
}

function isRetryable({ code: said }: B2Refusal, code: StorageErrorCode): boolean {
  if (said === 'part_sha1_mismatch' || said === 'missing_part') return false
  // A key that is no good any more fails to sign in, which is ACCESS_DENIED: here the next attempt gets a new token.
  return code === 'AUTH_EXPIRED' || code === 'UNAVAILABLE' || code === 'RATE_LIMITED' || code === 'CORRUPT'
}

function adviceFor(
  { status, code: said }: B2Refusal,
  code: StorageErrorCode,
  operation: string,
  { capabilities }: B2Names,
): string {
  const known = ADVICE[said]
  if (known !== undefined) return known
  if (operation === 'authorize' && status === 401) return WRONG_KEY
  const needed = NEEDED[operation]
  if (status === 401 && said === 'unauthorized' && needed !== undefined) {
    if (!capabilities?.includes(needed)) return missingCapability(needed)
    return 'the application key is restricted to other names or another bucket'
  }
  return ADVICE_BY_KIND[code]
}

function causeOf(error: Error, said: string): Error {
  const isRefusal = error instanceof B2Refusal
  const cause = new Error(error.message)
  cause.name = said
  return Object.assign(cause, isRefusal ? { status: error.status, code: error.code } : { code: said })
}

function cleaned(text: string, secrets: readonly string[]): string {
  let clean = text
  for (const secret of secrets) if (secret !== '') clean = clean.replaceAll(secret, '…')
  return clean
}
