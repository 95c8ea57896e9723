/** What is wrong with a stream or an argument, as a caller has to tell it apart. */
export type TransformErrorCode =
  /** An option is out of its range. */
  | 'BAD_OPTION'
  /** The key material cannot be used: an empty password, a key that is not 32 bytes. */
  | 'BAD_KEY'
  /** The bytes do not begin with the container's magic. */
  | 'NOT_SEALED'
  /** A version, suite or key derivation, or a zstd feature, that this reader does not know. */
  | 'UNSUPPORTED'
  /** A header field is out of its range. */
  | 'BAD_HEADER'
  /** The header's MAC does not fit: another password or key, or a damaged header. */
  | 'WRONG_KEY'
  /** A frame fails its authentication: changed, moved, repeated, or of another object. */
  | 'AUTH_FAILED'
  /** What is sealed again is not what was sealed before; nothing of the frame at which it shows has left. */
  | 'DIFFERS'
  /** The stream ends where it cannot end. */
  | 'TRUNCATED'
  /** The zstd layer, the index or the seek table is broken. */
  | 'CORRUPT'
  /** A size beyond what this reader allows; refused before anything is allocated for it. */
  | 'LIMIT'
  /** The temporary file cannot be made, written or read, a full disk for one; `cause` is the file system's own error. */
  | 'SPOOL'
  /** A thread that was at work ended, and `cause` says why, where it is known; or none can be begun. */
  | 'THREAD'
  /** Fewer destinations of a fan-out are left than there must be; `cause` is the last one's error. */
  | 'FAN_OUT'

/** The one error class of the transforms. */
export class TransformError extends Error {
  override readonly name = 'TransformError'
  readonly code: TransformErrorCode
  /** Of AUTH_FAILED in a version 1 container, and of DIFFERS: the number of the frame, from 0. */
  readonly frame: number | undefined

  constructor(code: TransformErrorCode, message: string, options?: { cause?: unknown; frame?: number }) {
    super(message, options)
    this.code = code
    this.frame = options?.frame
  }
}
