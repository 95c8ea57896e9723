import { ADAPTER } from './dropbox-paths.ts'
import { DOING, StorageError, type StorageErrorCode } from './errors.ts'
import { quoteKey } from './keys.ts'
import { isNetworkCode, isUntrusted, networkAdvice, retryAfter } from './network.ts'
import { DROPBOX_OAUTH } from './oauth.ts'
import { isAbort } from './retry.ts'

/** What a refused or failed request told us. */
interface Facts {
  /** Dropbox's tags from the outermost in, such as `path`, `conflict`, `file`; or Node's code of a network error. */
  tags: string[]
  status: number | undefined
  retryAfter: string | undefined
  requestId: string | undefined
  /** Of `missing_scope`. */
  scope: string | undefined
  /** Of `incorrect_offset`. */
  correctOffset: number | undefined
  /** Of `invalid_root`. */
  rootNamespace: string | undefined
}

/** A StorageError's cause, as `toStorageError` makes it: what of Dropbox's answer may be told. */
export class DropboxCause extends Error {
  readonly tags: readonly string[]
  readonly status: number | undefined
  readonly requestId: string | undefined
  readonly correctOffset: number | undefined

  constructor({ tags, status, requestId, correctOffset }: Facts) {
    super(['Dropbox answered', status ?? '', tags.join('/')].filter(Boolean).join(' '))
    this.name = tags.at(-1) ?? 'DropboxError'
    this.tags = tags
    this.status = status
    this.requestId = requestId
    this.correctOffset = correctOffset
  }
}

/** https://www.dropbox.com/developers/documentation/http/documentation, and the unions of its routes in files.stone. */
const BY_TAG: Record<string, StorageErrorCode> = {
  not_found: 'NOT_FOUND',
  not_file: 'NOT_FOUND',
  not_folder: 'NOT_FOUND',
  conflict: 'CONFLICT',
  locked: 'LOCKED',
  malformed_path: 'INVALID',
  disallowed_name: 'INVALID',
  payload_too_large: 'INVALID',
  too_large: 'INVALID',
  unsupported_file: 'INVALID',
  unsupported_content_type: 'INVALID',
  encryption_not_supported: 'INVALID',
  invalid_root: 'INVALID',
  restricted_content: 'ACCESS_DENIED',
  no_write_permission: 'ACCESS_DENIED',
  access_restricted: 'ACCESS_DENIED',
  operation_suppressed: 'ACCESS_DENIED',
  team_folder: 'ACCESS_DENIED',
  no_permission: 'ACCESS_DENIED',
  missing_scope: 'ACCESS_DENIED',
  user_suspended: 'ACCESS_DENIED',
  route_access_denied: 'ACCESS_DENIED',
  invalid_access_token: 'AUTH_EXPIRED',
  expired_access_token: 'AUTH_EXPIRED',
  insufficient_space: 'QUOTA',
  team_folder_insufficient_space: 'QUOTA',
  member_folder_insufficient_space: 'QUOTA',
  upload_traffic_limit_reached: 'QUOTA',
  // Of `invalid_account_type`: https://www.dropbox.com/developers/reference/data-transport-limit
  feature: 'QUOTA',
  too_many_write_operations: 'RATE_LIMITED',
  too_many_requests: 'RATE_LIMITED',
  content_hash_mismatch: 'CORRUPT',
  internal_error: 'UNAVAILABLE',
  other: 'UNAVAILABLE',
}

const BY_STATUS: Record<number, StorageErrorCode> = {
  400: 'INVALID',
  401: 'AUTH_EXPIRED',
  403: 'ACCESS_DENIED',
  404: 'NOT_FOUND',
  408: 'UNAVAILABLE',
  // A route's own error, with a tag that is not known here.
  409: 'INVALID',
  416: 'INVALID',
  422: 'INVALID',
  429: 'RATE_LIMITED',
}

/** Said in a text, with status 400. */
const MALFORMED_TOKEN = /access token is malformed|invalid authorization value/i

const SIGN_IN = `sign in again: ${DROPBOX_OAUTH.signIn}`

const ADVICE: Record<string, string> = {
  conflict: 'something else is there already',
  folder: 'a folder of that name is there',
  file_ancestor: 'a file is where a folder of the path has to be',
  malformed_path: 'Dropbox does not take that path',
  disallowed_name: 'Dropbox does not keep files of that name',
  no_write_permission: 'the account may not write there; get the right to edit the folder, or choose another root',
  access_restricted: "the team's administrator does not allow it",
  operation_suppressed: 'Dropbox does not allow it at that path; choose another root',
  team_folder: 'a team folder itself cannot be changed; choose a root beneath it',
  no_permission: 'the account may not use that namespace; check namespace and the membership of the team',
  restricted_content: 'Dropbox has restricted the file',
  user_suspended: 'the account is suspended; ask the team’s administrator',
  invalid_access_token: `the access was revoked, or the token is wrong; ${SIGN_IN}`,
  expired_access_token: `the access token has expired; pass a refreshToken, or ${SIGN_IN}`,
  insufficient_space: 'the Dropbox is full; free some space, or get a larger plan',
  team_folder_insufficient_space: "the team folder's quota is used up; free some space, or have it raised",
  member_folder_insufficient_space: "the member's quota is used up; free some space, or have it raised",
  upload_traffic_limit_reached: "the plan's monthly limit of uploads is used up; wait for the next month, or raise it",
  feature:
    "the team's data transport calls of this month are used up; wait for the 1st, or change the plan (larger parts need fewer)",
  too_many_write_operations: 'others are writing to the same Dropbox at this moment',
  invalid_root: 'the root namespace is not that of the account any more',
}

const ADVICE_BY_KIND: Record<StorageErrorCode, string> = {
  NOT_FOUND: 'it is not there',
  ACCESS_DENIED: 'access is denied; check the rights of the account and the permissions of the app',
  AUTH_EXPIRED: `the access token is not valid; ${SIGN_IN}`,
  QUOTA: 'the quota is used up',
  RATE_LIMITED: 'Dropbox asks for fewer requests',
  CONFLICT: 'another object is there than was expected',
  LOCKED: 'the file is locked; unlock it in Dropbox',
  INVALID: 'Dropbox refuses the request',
  UNAVAILABLE: 'Dropbox could not answer; try again later',
  CORRUPT: 'the bytes were damaged on their way',
}

/**
 * Maps what the SDK throws. The one place where Dropbox's errors are read. The SDK's error itself is not kept as the
 * cause, nor the text of a 400: they may carry the token.
 * @param endpoint for messages about the network: a URL without credentials.
 */
export function toStorageError(error: unknown, operation: string, endpoint: string, key?: string): unknown {
  if (error instanceof StorageError || isAbort(error)) return error
  const facts = factsOf(error)
  if (facts === undefined) return error
  const network = facts.status === undefined && isNetworkCode(facts.tags[0] ?? '')
  const code = network ? 'UNAVAILABLE' : kindOf(facts)
  const advice = network ? networkAdvice(facts.tags[0]!, endpoint) : adviceOf(facts, code)
  const told = [facts.status, facts.tags.join('/')].filter(Boolean).join(' ')
  const target = key === undefined ? 'the folder' : quoteKey(key)
  return new StorageError(`Dropbox: ${DOING[operation] ?? operation} ${target} failed: ${advice} (${told}).`, {
    code,
    adapter: ADAPTER,
    operation,
    retryable: isRetryable(code, facts),
    cause: new DropboxCause(facts),
    ...(key === undefined ? {} : { key }),
    ...retryAfter(facts.retryAfter),
  })
}

/** Dropbox's tags, from the outermost in, of an error made by `toStorageError`; empty for any other. */
export function tagsOf(error: unknown): readonly string[] {
  return causeOf(error)?.tags ?? []
}

/** What Dropbox told of an error made by `toStorageError`. */
export function causeOf(error: unknown): DropboxCause | undefined {
  const cause = error instanceof StorageError ? error.cause : undefined
  return cause instanceof DropboxCause ? cause : undefined
}

/** Whether another access token may help. */
export function isTokenRefused(error: unknown): error is StorageError {
  return error instanceof StorageError && error.code === 'AUTH_EXPIRED' && causeOf(error)?.status === 401
}

/** The same error, of which another attempt may still come to good. */
export function asRetryable(error: StorageError): StorageError {
  const { code, adapter, operation, key, retryAfterMs, cause } = error
  return new StorageError(error.message, {
    code,
    adapter,
    operation,
    cause,
    retryable: true,
    ...(key === undefined ? {} : { key }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  })
}

/** An answer that Dropbox does not give: cut, or from something in between. */
export function senseless(operation: string, key: string | undefined): StorageError {
  const target = key === undefined ? 'the folder' : quoteKey(key)
  const message = `Dropbox: ${DOING[operation] ?? operation} ${target} failed: the answer makes no sense.`
  return new StorageError(message, {
    code: 'UNAVAILABLE',
    adapter: ADAPTER,
    operation,
    ...(key === undefined ? {} : { key }),
  })
}

function kindOf({ tags, status }: Facts): StorageErrorCode {
  // `lookup_failed/not_found` of a session is about the upload; the write reads that from the tags.
  for (const tag of tags) {
    const known = BY_TAG[tag]
    if (known) return known
  }
  if (status === undefined || status < 300) return 'UNAVAILABLE'
  return BY_STATUS[status] ?? (status >= 500 ? 'UNAVAILABLE' : 'INVALID')
}

function adviceOf({ tags, scope, rootNamespace }: Facts, code: StorageErrorCode): string {
  if (tags.includes('missing_scope')) {
    const which = scope === undefined ? 'a permission' : `the permission ${scope}`
    return `the app lacks ${which}; tick it in the App Console under Permissions, then ${SIGN_IN}`
  }
  if (rootNamespace !== undefined) return `${ADVICE.invalid_root}; it is ${rootNamespace} now`
  for (const tag of tags.toReversed()) {
    const known = ADVICE[tag]
    if (known) return known
  }
  return ADVICE_BY_KIND[code]
}

function isRetryable(code: StorageErrorCode, { tags, status }: Facts): boolean {
  if (code === 'CORRUPT' || code === 'RATE_LIMITED') return true
  return code === 'UNAVAILABLE' && !(status === undefined && isUntrusted(tags[0] ?? ''))
}

function factsOf(error: unknown): Facts | undefined {
  if (!(error instanceof Error)) return undefined
  const raw = error as Error & { code?: unknown; status?: unknown; headers?: unknown; error?: unknown }
  const nothing = {
    retryAfter: undefined,
    requestId: undefined,
    scope: undefined,
    correctOffset: undefined,
    rootNamespace: undefined,
  }
  if (raw.name !== 'DropboxResponseError' || typeof raw.status !== 'number') {
    const code = typeof raw.code === 'string' ? raw.code : raw.name
    return isNetworkCode(code) ? { ...nothing, tags: [code], status: undefined } : undefined
  }
  const headers = raw.headers instanceof Headers ? raw.headers : new Headers()
  const body = asObject(raw.error)
  const inner = asObject(body?.error)
  const tags = inner ? tagsIn(inner) : []
  const innermost = find(inner, 'correct_offset')
  const seconds = find(inner, 'retry_after')
  const scope = find(inner, 'required_scope')
  const namespace = find(inner, 'root_namespace_id')
  return {
    tags: raw.status === 400 && MALFORMED_TOKEN.test(String(raw.error)) ? ['invalid_access_token'] : tags,
    status: raw.status,
    retryAfter: headers.get('retry-after') ?? (typeof seconds === 'number' ? String(seconds) : undefined),
    requestId: headers.get('x-dropbox-request-id') ?? undefined,
    scope: typeof scope === 'string' && /^[\w.]+$/.test(scope) ? scope : undefined,
    correctOffset: typeof innermost === 'number' ? innermost : undefined,
    rootNamespace: typeof namespace === 'string' && /^\d+$/.test(namespace) ? namespace : undefined,
  }
}

/** The tags of a tagged union, and of what lies in it, which stands under the tag's name, or under `reason`. */
function tagsIn(value: Record<string, unknown>): string[] {
  const tag = value['.tag']
  // A rate limit's error has no tag of its own.
  const next = asObject(typeof tag === 'string' ? (value[tag] ?? value.reason) : value.reason)
  const own = typeof tag === 'string' && /^\w+$/.test(tag) ? [tag] : []
  return next ? [...own, ...tagsIn(next)] : own
}

function find(value: Record<string, unknown> | undefined, name: string): unknown {
  if (value === undefined) return undefined
  if (name in value) return value[name]
  for (const inner of Object.values(value)) {
    const found = find(asObject(inner), name)
    if (found !== undefined) return found
  }
  return undefined
}

function asObject(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
}
