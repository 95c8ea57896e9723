/** What went wrong, as a caller has to tell it apart. */
export type StorageErrorCode =
  | 'NOT_FOUND'
  | 'ACCESS_DENIED'
  | 'AUTH_EXPIRED'
  | 'QUOTA'
  | 'RATE_LIMITED'
  | 'CONFLICT'
  | 'LOCKED'
  | 'INVALID'
  | 'UNAVAILABLE'
  | 'CORRUPT'

/** What a StorageError says beside its message. */
export interface StorageErrorDetails {
  code: StorageErrorCode
  adapter: string
  /** The Storage method, or the request behind it: `stat`, `putPart` … */
  operation: string
  key?: string
  /** Whether the same call may succeed later without anything being changed. */
  retryable?: boolean
  /** What the store asked us to wait, from Retry-After. */
  retryAfterMs?: number
  cause?: unknown
}

/** The one error class of the adapters. Its message says what happened, to what, and what to do; never a secret. */
export class StorageError extends Error {
  override readonly name = 'StorageError'
  readonly code: StorageErrorCode
  readonly adapter: string
  readonly operation: string
  readonly key: string | undefined
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined

  constructor(message: string, details: StorageErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = details.code
    this.adapter = details.adapter
    this.operation = details.operation
    this.key = details.key
    this.retryable = details.retryable ?? (details.code === 'UNAVAILABLE' || details.code === 'RATE_LIMITED')
    this.retryAfterMs = details.retryAfterMs
  }
}

/** What an operation does to an object, in words for a message. */
export const DOING: Record<string, string> = {
  begin: 'beginning to upload',
  putPart: 'uploading a part of',
  putWhole: 'uploading',
  commit: 'completing',
  abort: 'cancelling the upload of',
  secure: 'putting lock or tags on',
  stat: 'asking for',
  list: 'listing',
  delete: 'deleting',
  read: 'reading',
  readRange: 'reading',
  createReadStream: 'reading',
}

/**
 * Notes on `error` that cleaning up after it failed as well, in the property `cleanupError`, and leaves the rest of it
 * as it is: what went wrong first is what a caller has to see.
 */
export function withCleanupError(error: Error, cleanupError: unknown): Error {
  if (error !== cleanupError && Object.isExtensible(error)) Object.assign(error, { cleanupError })
  return error
}
