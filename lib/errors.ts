/** What went wrong in the service, as a caller has to tell it apart. The command maps each code to one exit code. */
export type BackupErrorCode =
  /** An argument or option cannot be used. */
  | 'USAGE'
  /** The source is missing, unreadable or not what it was said to be, or it failed while it was read. */
  | 'SOURCE'
  | 'EMPTY_SOURCE'
  /** The target folder cannot be used: it is not empty, or cannot be written. */
  | 'TARGET'
  /** No such snapshot, or none that is complete. */
  | 'NO_SNAPSHOT'
  /** The object holds another server's or another snapshot's data. */
  | 'MISPLACED'
  /** The object fails its authentication, its format or its digest. */
  | 'DAMAGED'
  /** An unencrypted object where a key is configured. */
  | 'NOT_ENCRYPTED'
  /** The object is stored and could not be marked complete. */
  | 'UNFINISHED'
  /** The snapshot is being removed, or something else is at work on it. */
  | 'IN_USE'
  /** This machine's clock and the store's are far apart. */
  | 'CLOCK'
  /** An archive entry that would leave the target. */
  | 'UNSAFE_ARCHIVE'
  /** Another run is at work on the server. */
  | 'LEASE_HELD'
  /** The lease was lost while the run was at work. */
  | 'LEASE_LOST'
  /** No destination took the snapshot; none of several could give it. */
  | 'DESTINATIONS'
  /** The command that had to succeed before the backup failed. */
  | 'HOOK'
  /** The source could not be held still, or its server could not be told to go on. */
  | 'QUIESCE'
  /** Nothing listens where the source's server should. */
  | 'SERVER_STOPPED'
  /** The source's server takes connections and does not answer: it may be paused. */
  | 'SERVER_SILENT'
  /** A file that the command was told to write cannot be written. */
  | 'OUTPUT'
  /** Another backup holds the source's server still. */
  | 'BUSY'
  /** The journal of an upload cannot be read or written, or is none; the history of runs cannot be read. */
  | 'JOURNAL'
  /** What was to be taken up is not the same any more. */
  | 'DIFFERS'

/** The one error class of the service. Its message says what happened, to what, and what to do; never a secret. */
export class BackupError extends Error {
  override readonly name = 'BackupError'
  readonly code: BackupErrorCode
  /** Where there are several things to say: the message, a line each. */
  declare readonly lines?: readonly string[]

  constructor(code: BackupErrorCode, message: string | readonly string[], options?: { cause?: unknown }) {
    super(typeof message === 'string' ? message : message.join('\n'), options)
    this.code = code
    if (typeof message !== 'string') this.lines = message
  }
}
