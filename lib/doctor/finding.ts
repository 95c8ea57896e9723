/** `warn`: backups work, and something should be seen to. `fail`: a backup, a prune or a restore would not work. */
export type FindingState = 'ok' | 'warn' | 'fail'

/** What `doctor` found in one place. Nothing of a secret is in it. */
export interface Finding {
  /** What was looked at: `node`, `clock`, `destination` … */
  check: string
  /** Whose: the destination, the server, the file. */
  subject?: string | undefined
  state: FindingState
  message: string
  /** What to do, where there is something. */
  advice?: string | undefined
}

export function ok(check: string, subject: string | undefined, message: string): Finding {
  return finding('ok', check, subject, message)
}

export function warn(check: string, subject: string | undefined, message: string, advice?: string): Finding {
  return finding('warn', check, subject, message, advice)
}

export function fail(check: string, subject: string | undefined, message: string, advice?: string): Finding {
  return finding('fail', check, subject, message, advice)
}

function finding(
  state: FindingState,
  check: string,
  subject: string | undefined,
  message: string,
  advice?: string,
): Finding {
  return {
    check,
    ...(subject === undefined ? {} : { subject }),
    state,
    message,
    ...(advice === undefined ? {} : { advice }),
  }
}
