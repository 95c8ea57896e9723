import { spawn } from 'node:child_process'
import { throwIfAborted } from '../adapters/retry.ts'
import { startLimit } from './duration.ts'
import { BackupError } from './errors.ts'
import { lastWords } from './last-words.ts'

/** A command that runs longer is ended. */
export const HOOK_TIMEOUT_MS = 5 * 60_000
const KILL_AFTER_MS = 5_000
/** How long the last of what a failed one said is waited for: something that it started may hold the pipe open. */
const LATE_OUTPUT_MS = 1_000
const STDERR_KEPT_BYTES = 2048

/** What a hook finds in its environment of ours: the list is closed, so that no secret is in it. */
const ENVIRONMENT = ['PATH', 'HOME', 'USER', 'LOGNAME', 'SHELL', 'LANG', 'TZ', 'TMPDIR', 'XDG_RUNTIME_DIR']

/** A program and its arguments, run without a shell; or a line for `/bin/sh -c`, as in a crontab. */
export type HookCommand = readonly [string, ...string[]] | string

/** Commands around a backup. */
export interface HookOptions {
  /** Run under the lease, before the source is opened. When it fails, nothing is backed up. */
  before?: HookCommand | undefined
  /** Run when a snapshot was made, and its lease given back. */
  after?: HookCommand | undefined
  /** Run when none was made, whatever the reason. */
  failure?: HookCommand | undefined
  /** What each may take; 5 minutes when left out. */
  timeoutMs?: number | undefined
  /** Environment variables for them, beside PATH, HOME and the like. */
  env?: Record<string, string> | undefined
}

export interface HookPayload {
  event: 'before' | 'after' | 'failure'
  server: string
  /** Before a backup that may go on with an upload: the id of its snapshot. */
  resumes?: string
}

/**
 * Runs a hook with `payload` as one line of JSON on its standard input. What it prints is dropped, but for the last
 * line of its standard error, which is in the message when it fails. Its whole process group is ended after the time.
 * @throws BackupError HOOK unless it ends with exit code 0 in time; AbortError when the signal fires.
 */
export async function runHook(
  command: HookCommand,
  payload: HookPayload,
  options: {
    timeoutMs?: number | undefined
    env?: Record<string, string> | undefined
    signal?: AbortSignal | undefined
  },
): Promise<void> {
  const { timeoutMs = HOOK_TIMEOUT_MS, signal } = options
  throwIfAborted(signal)
  const [program, ...args] = typeof command === 'string' ? ['/bin/sh', '-c', command] : command
  const child = spawn(program as string, args, {
    env: { ...environment(), ...options.env, MILLRACE_EVENT: payload.event, MILLRACE_SERVER: payload.server },
    stdio: ['pipe', 'ignore', 'pipe'],
    detached: true,
  })
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-STDERR_KEPT_BYTES)
  })
  // A hook need not read.
  child.stdin.on('error', () => {})
  child.stdin.end(`${JSON.stringify(payload)}\n`)

  let ended: string | undefined
  const kills: NodeJS.Timeout[] = []
  const end = (why: string) => {
    ended ??= why
    killGroup(child.pid, 'SIGTERM')
    kills.push(setTimeout(() => killGroup(child.pid, 'SIGKILL'), KILL_AFTER_MS))
  }
  const stopLimit = startLimit(timeoutMs, () => end(`did not end within ${timeoutMs / 1000} seconds`))
  const onAbort = () => end('was ended')
  signal?.addEventListener('abort', onAbort)
  let what: string | undefined
  try {
    // Not `close`: a daemon that it leaves behind may keep standard error open.
    what = await new Promise<string | undefined>((resolve) => {
      child.once('error', (error) => resolve(`cannot be run: ${error.message}`))
      child.once('exit', (code, killedBy) => {
        if (code === 0) resolve(undefined)
        else resolve(code === null ? `was ended by ${killedBy}` : `ended with exit code ${code}`)
      })
    })
    if (what !== undefined && ended === undefined) await lastWords([child.stderr], LATE_OUTPUT_MS)
  } finally {
    stopLimit()
    for (const kill of kills) clearTimeout(kill)
    signal?.removeEventListener('abort', onAbort)
    // What it left behind of its group: it has had its time.
    if (ended !== undefined) killGroup(child.pid, 'SIGKILL')
    child.stderr.destroy()
  }
  throwIfAborted(signal)
  if (what === undefined && ended === undefined) return
  const last = errors.trim().split('\n').at(-1)
  throw new BackupError('HOOK', `The ${payload.event} hook ${ended ?? what}${last ? `: ${last}` : '.'}`)
}

function environment(): Record<string, string> {
  const names = [...ENVIRONMENT, ...Object.keys(process.env).filter((name) => name.startsWith('LC_'))]
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  )
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // It has ended.
  }
}

/** The hooks of one run. */
export class Hooks {
  readonly #options: HookOptions
  readonly #server: string
  readonly #onFailure: (message: string) => void

  /** @param onFailure told of a hook that failed without failing the run. */
  constructor(options: HookOptions, server: string, onFailure: (message: string) => void) {
    this.#options = options
    this.#server = server
    this.#onFailure = onFailure
  }

  /**
   * @param resumes the id of the snapshot whose upload may be gone on with: then the source had better be as it was.
   * @throws BackupError HOOK; AbortError.
   */
  async before(signal: AbortSignal | undefined, resumes?: string): Promise<void> {
    const { before, timeoutMs, env } = this.#options
    if (!before) return
    const more: Record<string, string> = resumes === undefined ? {} : { MILLRACE_RESUMES: resumes }
    const payload = { event: 'before' as const, server: this.#server, ...(resumes === undefined ? {} : { resumes }) }
    await runHook(before, payload, { timeoutMs, env: { ...env, ...more }, signal })
  }

  /** @returns whether it went well. */
  after(snapshot: object): Promise<boolean> {
    return this.#runAnyway('after', { snapshot })
  }

  /** @returns whether it went well. */
  failed(error: object): Promise<boolean> {
    return this.#runAnyway('failure', { error })
  }

  /** Also when the run was aborted: what `before` has stopped must go on. */
  async #runAnyway(event: 'after' | 'failure', facts: object): Promise<boolean> {
    const { timeoutMs, env } = this.#options
    const command = this.#options[event]
    if (!command) return true
    try {
      await runHook(command, { event, server: this.#server, ...facts }, { timeoutMs, env })
      return true
    } catch (error) {
      this.#onFailure((error as Error).message)
      return false
    }
  }
}
