import { constants } from 'node:os'
import { StorageError } from '../../adapters/errors.ts'
import { TransformError } from '../../transforms/index.ts'
import { BackupError, type BackupErrorCode } from '../errors.ts'
import { isFullDisk } from '../space.ts'

export const EXIT = {
  GOOD: 0,
  FAILED: 1,
  USAGE: 2,
  /** Done, and something is missing from it. */
  INCOMPLETE: 3,
  /** Damaged, or a wrong password. */
  DAMAGED: 4,
  REFUSED: 5,
  /** The newest snapshot is too old, or there is none. */
  TOO_OLD: 6,
  /** Deletes that a lock of the store refuses for now. */
  DEFERRED: 7,
} as const

/** What a shell gives for a process that a signal ended: 128 and its number. */
export function signalExitCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}

const BACKUP_CODES: Record<BackupErrorCode, number> = {
  USAGE: EXIT.USAGE,
  SOURCE: EXIT.FAILED,
  EMPTY_SOURCE: EXIT.REFUSED,
  TARGET: EXIT.REFUSED,
  NO_SNAPSHOT: EXIT.FAILED,
  MISPLACED: EXIT.DAMAGED,
  DAMAGED: EXIT.DAMAGED,
  NOT_ENCRYPTED: EXIT.REFUSED,
  UNFINISHED: EXIT.INCOMPLETE,
  IN_USE: EXIT.REFUSED,
  CLOCK: EXIT.REFUSED,
  UNSAFE_ARCHIVE: EXIT.DAMAGED,
  LEASE_HELD: EXIT.REFUSED,
  LEASE_LOST: EXIT.FAILED,
  DESTINATIONS: EXIT.FAILED,
  HOOK: EXIT.FAILED,
  QUIESCE: EXIT.FAILED,
  SERVER_STOPPED: EXIT.FAILED,
  SERVER_SILENT: EXIT.FAILED,
  OUTPUT: EXIT.FAILED,
  BUSY: EXIT.REFUSED,
  JOURNAL: EXIT.FAILED,
  DIFFERS: EXIT.REFUSED,
}

/** The exit code that an error is worth. */
export function exitCodeOf(error: unknown): number {
  // A disk that turned out to be full while it was written to: nothing refused it beforehand.
  if (isFullDisk(error)) return EXIT.FAILED
  if (error instanceof BackupError) return BACKUP_CODES[error.code]
  if (error instanceof TransformError) {
    // Of the machine, and not of what was read.
    if (error.code === 'SPOOL' || error.code === 'THREAD') return EXIT.FAILED
    return error.code === 'BAD_KEY' || error.code === 'BAD_OPTION' ? EXIT.USAGE : EXIT.DAMAGED
  }
  if (error instanceof StorageError) {
    if (error.code === 'CORRUPT') return EXIT.DAMAGED
    return error.code === 'INVALID' ? EXIT.USAGE : EXIT.FAILED
  }
  return EXIT.FAILED
}

/** The gravest last. */
const GRAVITY: readonly number[] = [
  EXIT.GOOD,
  EXIT.DEFERRED,
  EXIT.TOO_OLD,
  EXIT.INCOMPLETE,
  EXIT.REFUSED,
  EXIT.USAGE,
  EXIT.FAILED,
  EXIT.DAMAGED,
]

/** The exit code that several parts of a run are worth together. */
export function gravest(codes: Iterable<number>): number {
  let worst: number = EXIT.GOOD
  for (const code of codes) if (GRAVITY.indexOf(code) > GRAVITY.indexOf(worst)) worst = code
  return worst
}
