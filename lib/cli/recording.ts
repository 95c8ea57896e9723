import { StorageError } from '../../adapters/errors.ts'
import { TransformError } from '../../transforms/index.ts'
import { BackupError } from '../errors.ts'
import { type RunCommand, type RunOutcome, type RunRecord, recordRun } from '../history.ts'
import { defaultStateFolder } from '../state.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import type { Invocation } from './run.ts'

/** What a command knows of its run and nobody else does. */
export type RunFacts = Partial<Omit<RunRecord, 'at' | 'command' | 'server' | 'outcome' | 'exitCode'>>

/** An invocation whose run goes into the history. */
export interface RecordedInvocation extends Invocation {
  /** Adds to what the history says of this run; what is given again replaces. */
  note(facts: RunFacts): void
}

const OUTCOMES: Record<number, RunOutcome> = {
  [EXIT.GOOD]: 'ok',
  [EXIT.INCOMPLETE]: 'incomplete',
  // All that could be done was.
  [EXIT.DEFERRED]: 'ok',
}
const SECRET_NAMES = /PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|_KEY$/i
const INTERRUPTED = { code: 'INTERRUPTED', message: 'Interrupted.' }
const SECRET_MIN_CHARACTERS = 4

/**
 * Does the work of a command for one server and records what came of it, whether it ends, fails or is interrupted.
 * That the history cannot be written is a warning.
 * @param run.stateFolder the default one when left out.
 * @param work returns the exit code.
 * @returns what `work` does. @throws what `work` does.
 */
export async function recorded(
  { command, server, stateFolder }: { command: RunCommand; server: string; stateFolder?: string | undefined },
  invocation: Invocation,
  work: (invocation: RecordedInvocation) => Promise<number>,
): Promise<number> {
  const begun = performance.now()
  const facts: RunFacts = {}
  const end = async (outcome: RunOutcome, exitCode: number, error?: RunRecord['error']) => {
    const elapsedMs = performance.now() - begun
    const said = error ?? facts.error
    const at = new Date().toISOString()
    try {
      await recordRun(stateFolder ?? defaultStateFolder(), {
        ...{ elapsedMs, ...facts, at, command, server, outcome, exitCode },
        ...(said && { error: { code: said.code, message: withoutSecrets(said.message) } }),
      })
    } catch (cause) {
      const message = `The run could not be noted for \`millrace history\`: ${(cause as Error).message}`
      invocation.output.warning({ kind: 'history', path: '', message, cause })
    }
  }
  try {
    const code = await work({ ...invocation, note: (more) => Object.assign(facts, more) })
    await end(OUTCOMES[code] ?? 'failed', code)
    return code
  } catch (error) {
    const interrupted = invocation.signal.aborted
    await end(
      interrupted ? 'interrupted' : 'failed',
      exitCodeOf(error),
      interrupted ? INTERRUPTED : errorOf(error as Error),
    )
    throw error
  }
}

/**
 * Of an error, what may be kept. Our own messages hold no secrets, but may quote what somebody's program printed; of
 * other errors only those of the system are known well enough.
 */
export function errorOf(error: Error): { code: string; message: string } {
  const { code, syscall } = error as NodeJS.ErrnoException
  const ours = error instanceof BackupError || error instanceof StorageError || error instanceof TransformError
  return {
    code: typeof code === 'string' ? code : error.name,
    message: ours || syscall !== undefined ? error.message : 'An error that was not expected.',
  }
}

/** What the environment holds as a secret is not kept, whoever said it. */
function withoutSecrets(message: string): string {
  let text = message
  for (const [name, value] of Object.entries(process.env)) {
    if (value && value.length >= SECRET_MIN_CHARACTERS && SECRET_NAMES.test(name)) text = text.replaceAll(value, '***')
  }
  return text
}
