import { StorageError, type StorageErrorCode } from './errors.ts'
import { quoteKey } from './keys.ts'
import { certificateFault, isNetworkCode, isUntrusted, retryAfter } from './network.ts'
import { isAbort } from './retry.ts'

export const ADAPTER = 'google-drive'

/** What a refused or failed request told us. */
export interface DriveFacts {
  /** Drive's or OAuth's own reason, such as `storageQuotaExceeded`, or Node's code of a network fault. */
  reason: string
  status: number | undefined
  message: string
  retryAfter: string | undefined
}

/** An answer that is no success. It never leaves the adapter: `toStorageError` turns it into a StorageError. */
export class DriveRefusal extends Error {
  readonly facts: DriveFacts

  constructor(facts: DriveFacts) {
    super(facts.message)
    this.facts = facts
  }
}

/** https://developers.google.com/workspace/drive/api/guides/handle-errors; OAuth's codes are those of RFC 6749, 5.2. */
const BY_REASON: Record<string, StorageErrorCode> = {
  notFound: 'NOT_FOUND',
  insufficientFilePermissions: 'ACCESS_DENIED',
  insufficientParentPermissions: 'ACCESS_DENIED',
  insufficientPermissions: 'ACCESS_DENIED',
  insufficientScopes: 'ACCESS_DENIED',
  ACCESS_TOKEN_SCOPE_INSUFFICIENT: 'ACCESS_DENIED',
  appNotAuthorizedToFile: 'ACCESS_DENIED',
  accessNotConfigured: 'ACCESS_DENIED',
  SERVICE_DISABLED: 'ACCESS_DENIED',
  cannotDownloadAbusiveFile: 'ACCESS_DENIED',
  domainPolicy: 'ACCESS_DENIED',
  invalid_client: 'ACCESS_DENIED',
  deleted_client: 'ACCESS_DENIED',
  unauthorized_client: 'ACCESS_DENIED',
  invalid_grant: 'AUTH_EXPIRED',
  authError: 'AUTH_EXPIRED',
  storageQuotaExceeded: 'QUOTA',
  quotaExceeded: 'QUOTA',
  downloadQuotaExceeded: 'QUOTA',
  teamDriveFileLimitExceeded: 'QUOTA',
  numChildrenInNonRootLimitExceeded: 'QUOTA',
  activeItemCreationLimitExceeded: 'QUOTA',
  dailyLimitExceeded: 'QUOTA',
  userRateLimitExceeded: 'RATE_LIMITED',
  rateLimitExceeded: 'RATE_LIMITED',
  RATE_LIMIT_EXCEEDED: 'RATE_LIMITED',
  sharingRateLimitExceeded: 'RATE_LIMITED',
  fileIdInUse: 'CONFLICT',
  backendError: 'UNAVAILABLE',
  internalError: 'UNAVAILABLE',
}

const BY_STATUS: Record<number, StorageErrorCode> = {
  401: 'AUTH_EXPIRED',
  403: 'ACCESS_DENIED',
  404: 'NOT_FOUND',
  408: 'UNAVAILABLE',
  409: 'CONFLICT',
  410: 'NOT_FOUND',
  429: 'RATE_LIMITED',
}

const SCOPE_ADVICE =
  'the sign-in was given without a scope that this needs (drive.file or drive; drive.appdata for appData); ' +
  'sign in again and tick every box'
const ENABLE_ADVICE =
  'the Google Drive API is not enabled in the project of this client; in the Google Cloud console open ' +
  'APIs & Services, Library, Google Drive API, click Enable, and wait a few minutes'
const SIGN_IN_ADVICE =
  'Google no longer accepts the refresh token: access was taken away, or it has expired (an app whose publishing ' +
  'status is Testing has its tokens for 7 days; any dies after 6 months unused); publish the app, and sign in again'
/** https://support.google.com/a/answer/9368756: then `invalid_grant` is described as "reauth related error (invalid_rapt)". */
const REAUTH_ADVICE =
  "the administrator of the account's domain lets sign-ins end after some hours (Google Cloud session control); have " +
  'this app exempted there as a trusted one, and sign in again'

const ADVICE: Record<string, string> = {
  invalid_grant: SIGN_IN_ADVICE,
  invalid_client: 'Google does not know this client; check clientId and clientSecret',
  deleted_client:
    'the client was deleted, as Google does with one that was not used for 6 months; create another one in the Google ' +
    'Cloud console, and sign in again with it',
  unauthorized_client: 'this client may not use refresh tokens; create one of the type Desktop app',
  authError: 'Google refuses a token that it has just given; sign in again',
  insufficientPermissions: SCOPE_ADVICE,
  insufficientScopes: SCOPE_ADVICE,
  ACCESS_TOKEN_SCOPE_INSUFFICIENT: SCOPE_ADVICE,
  accessNotConfigured: ENABLE_ADVICE,
  SERVICE_DISABLED: ENABLE_ADVICE,
  insufficientFilePermissions: 'the account may see it and not change it; give the account more rights to the folder',
  insufficientParentPermissions: 'the account may not add files to the folder; make it an editor of the folder',
  appNotAuthorizedToFile: 'the app may use only files that it made (scope drive.file), and another made this one',
  cannotDownloadAbusiveFile:
    'Google has marked the file as abusive, and gives it to its owner alone, in a shared drive to its managers',
  downloadQuotaExceeded: 'Google gives no more of this file for now, as it was read too often; go on in 24 hours',
  domainPolicy: "the administrator of the account's domain does not allow it",
  storageQuotaExceeded: 'the storage of the account is full; free some of it (the trash counts too), or buy more',
  quotaExceeded: 'the storage of the account is full; free some of it (the trash counts too), or buy more',
  teamDriveFileLimitExceeded: 'the shared drive holds as many files as it can; delete some, or use another one',
  numChildrenInNonRootLimitExceeded: 'the folder holds as many files as it can; delete some, or use another one',
  activeItemCreationLimitExceeded: 'the account has created as many files as it can; delete some for good',
  dailyLimitExceeded: "the project's requests of the day are used up; go on tomorrow, or raise them in the console",
}

const ADVICE_BY_KIND: Record<StorageErrorCode, string> = {
  NOT_FOUND: 'it is not there',
  ACCESS_DENIED: 'access is denied; check the rights of the account and the scopes of the sign-in',
  AUTH_EXPIRED: 'the access token is not accepted; sign in again',
  QUOTA: 'a quota of the account is used up',
  RATE_LIMITED: 'Google asks for fewer requests',
  CONFLICT: 'another file is there than was expected',
  LOCKED: 'the file is locked',
  INVALID: 'Google refuses the request',
  UNAVAILABLE: 'Google could not answer; try again later',
  CORRUPT: 'the bytes were damaged on their way',
}

/** What a request was for, in words. */
const DOING: Record<string, string> = {
  token: 'signing in',
  about: 'signing in',
  folder: 'looking for the folder',
  createFolder: 'creating the folder',
  generateIds: 'preparing to upload',
  begin: 'beginning to upload',
  putPart: 'uploading a part of',
  putWhole: 'uploading',
  commit: 'completing',
  abort: 'cancelling the upload of',
  removeOld: 'removing what was replaced of',
  stat: 'asking for',
  verify: 'checking',
  list: 'listing',
  delete: 'deleting',
  read: 'reading',
}

/** Beside what any connection can fail with: what the SDK makes of it. */
const SDK_NETWORK = /^(E[A-Z_]+|ERR_STREAM_\w+|UND_ERR\w*)$/
/** Drive's message for the 750 GB of a day; a rate that is too high has a longer one. */
const DAILY_LIMIT_MESSAGE = 'User rate limit exceeded.'
/** Tokens as Google makes them, and what a session's URI is known by. */
const SECRETS = /\bya29\.[\w.-]+|\b1\/\/[\w.-]+|\bGOCSPX-[\w-]+|upload_id=[^&\s"'<>]+|Bearer\s+\S+/g

/**
 * Maps what a request failed with. The one place where Drive's reasons are read. Neither the SDK's error nor an
 * answer's text is kept: they carry tokens, and a page that says "not found" repeats the URI of the upload session.
 */
export function toStorageError(error: unknown, operation: string, key?: string): unknown {
  if (error instanceof StorageError || isAbort(error)) return error
  const facts = factsOf(error)
  if (facts === undefined) return error
  const code = kindOf(facts)
  const network = isNetwork(facts)
  const advice = network ? networkAdvice(facts.reason) : adviceOf(facts, code)
  const said = network ? facts.reason : [facts.status, facts.reason].filter(Boolean).join(' ')
  const target = key === undefined ? '' : ` ${quoteKey(key)}`
  const message = `Google Drive: ${DOING[operation] ?? operation}${target} failed: ${advice} (${said}).`
  return new StorageError(message, {
    code,
    adapter: ADAPTER,
    operation,
    retryable: mayPass(code, facts.reason),
    cause: causeOf(facts),
    ...(key === undefined ? {} : { key }),
    ...retryAfter(facts.retryAfter),
  })
}

/** Drive's reason, of an error made by `toStorageError`. */
export function reasonOf(error: unknown): string | undefined {
  const cause = error instanceof StorageError ? error.cause : undefined
  return cause instanceof Error ? cause.name : undefined
}

/** The status of the answer behind an error made by `toStorageError`. */
export function statusOf(error: unknown): number | undefined {
  const cause = error instanceof StorageError ? (error.cause as { status?: number } | undefined) : undefined
  return cause?.status
}

/** Whether a refusal is the one that Drive gives when the uploads of the day are used up. */
export function isDailyLimit(error: unknown): boolean {
  if (!(error instanceof StorageError) || reasonOf(error) !== 'userRateLimitExceeded') return false
  return (error.cause as Error).message === DAILY_LIMIT_MESSAGE
}

/** What is thrown when that refusal has been met again and again. */
export function dailyLimitError(error: StorageError, key: string): StorageError {
  const advice = 'Google takes no more from this account; its uploads of the day (750 GB) are probably used up'
  const message = `Google Drive: uploading ${quoteKey(key)} failed: ${advice}. Go on in 24 hours.`
  const { operation, cause } = error
  return new StorageError(message, { code: 'QUOTA', adapter: ADAPTER, operation, key, cause })
}

export function driveError(
  code: StorageErrorCode,
  operation: string,
  message: string,
  more: { key?: string; retryable?: boolean; cause?: unknown } = {},
): StorageError {
  return new StorageError(message, { code, adapter: ADAPTER, operation, ...more })
}

/** Reads an answer that is no success. `body` is its text, or what its JSON says. */
export function refusalOf(status: number, body: unknown, retryAfter: string | undefined): DriveRefusal {
  const parsed = typeof body === 'string' ? parseJson(body) : body
  const { error, error_description: description } = (parsed ?? {}) as { error?: unknown; error_description?: unknown }
  if (typeof error === 'string') {
    return new DriveRefusal({ status, reason: error, message: String(description ?? error), retryAfter })
  }
  const { errors, message, details } = (error ?? {}) as {
    errors?: { reason?: string }[]
    message?: string
    details?: { reason?: string }[]
  }
  const reason = errors?.[0]?.reason ?? details?.find((detail) => detail.reason)?.reason ?? ''
  return new DriveRefusal({ status, reason, message: message ?? `status ${status}`, retryAfter })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function kindOf(facts: DriveFacts): StorageErrorCode {
  const { reason, status } = facts
  if (isNetwork(facts)) return 'UNAVAILABLE'
  // Whatever its words, such an answer is the server's own trouble.
  if (status !== undefined && status >= 500) return 'UNAVAILABLE'
  // A success that makes no sense was most often cut by something in between.
  if (status === undefined || status < 400) return 'UNAVAILABLE'
  return BY_REASON[reason] ?? BY_STATUS[status] ?? 'INVALID'
}

function adviceOf({ reason, message }: DriveFacts, code: StorageErrorCode): string {
  if (reason === 'invalid_grant' && message.includes('invalid_rapt')) return REAUTH_ADVICE
  return ADVICE[reason] ?? ADVICE_BY_KIND[code]
}

function mayPass(code: StorageErrorCode, reason: string): boolean {
  // The next attempt has another token, and where the sign-in itself is over, it is told so.
  if (code === 'RATE_LIMITED' || reason === 'authError') return true
  return code === 'UNAVAILABLE' && !isUntrusted(reason)
}

function isNetwork({ status, reason }: DriveFacts): boolean {
  return status === undefined && isConnection(reason)
}

function isConnection(code: string): boolean {
  return isNetworkCode(code) || SDK_NETWORK.test(code)
}

function networkAdvice(code: string): string {
  if (isUntrusted(code)) return `the server's certificate ${certificateFault(code)}`
  if (code === 'ECONNREFUSED') return 'nothing answers there; check the network and the endpoint'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return "Google's address is not to be found; check the network"
  return 'the connection failed'
}

function factsOf(error: unknown): DriveFacts | undefined {
  if (error instanceof DriveRefusal) return error.facts
  if (!(error instanceof Error)) return undefined
  // The SDK gives the code of a connection's fault to its own error, or leaves it in the cause.
  for (const raw of [error, error.cause]) {
    const { code, message } = (raw ?? {}) as { code?: unknown; message?: string }
    if (typeof code === 'string' && isConnection(code)) {
      return { reason: code, status: undefined, message: message ?? code, retryAfter: undefined }
    }
  }
  return undefined
}

function causeOf({ reason, status, message }: DriveFacts): Error {
  const cause = new Error(message.replace(SECRETS, '…'))
  cause.name = reason
  return Object.assign(cause, { status })
}
