import { spawn } from 'node:child_process'
import { abortError } from '../../adapters/retry.ts'
import { startLimit } from '../duration.ts'
import { BackupError } from '../errors.ts'
import { lastWords } from '../last-words.ts'
import { Marker } from './marker.ts'
import type { QuiesceLevel, Quiescer } from './quiescer.ts'

const COMMAND_MS = 10 * 60_000
const KILL_AFTER_MS = 5_000
/** How long the last of what a failed one said is waited for: something that it started may hold the pipes open. */
const LATE_OUTPUT_MS = 1_000
const OUTPUT_KEPT_BYTES = 4096
const OUTPUT_SHOWN_CHARS = 200
/** What a hook has no business with. */
const SECRETS = ['MILLRACE_PASSWORD', 'MILLRACE_RCON_PASSWORD']

/** The commands around reading, and what they reach. */
export interface CommandQuiescerOptions {
  /** A shell's command line that brings the source to rest. Any exit code but 0 is a failure. */
  before?: string | undefined
  /** One that lets it go on. It runs after each `before`, also one that failed, so it must stand being run twice. */
  after?: string | undefined
  /** What `before` reaches; `quiesced` when left out. */
  level?: QuiesceLevel | undefined
  /** Whose backup it is: for the marker, and MILLRACE_SERVER in the environment of both. */
  server: string
  /** Where the marker is kept from before `before` until `after` has ended well. */
  stateFolder: string
  /** For each of the two; 10 minutes when left out. */
  timeoutMs?: number | undefined
  /** The time in ms, for tests. */
  now?: (() => number) | undefined
}

/**
 * Brings a source to rest by a command of the owner's, and lets it go on by another. When a backup died between the
 * two, the next one runs `after` first.
 * @returns a quiescer whose `begin` throws BackupError QUIESCE with the end of what the command said, BUSY while another
 * backup holds the server, and AbortError.
 */
export function createCommandQuiescer(options: CommandQuiescerOptions): Quiescer {
  const { before, after, level = 'quiesced', server, stateFolder, timeoutMs = COMMAND_MS, now = Date.now } = options
  if (before === undefined && after === undefined) {
    throw new BackupError('USAGE', 'Give a command to run before the backup, or after it, or both.')
  }
  for (const [which, command] of Object.entries({ before, after })) {
    if (command === '') throw new BackupError('USAGE', `The command to run ${which} the backup is empty text.`)
  }
  let marker: Marker | undefined
  let isLeft = false
  return {
    async begin(signal) {
      if (after !== undefined) {
        marker = await Marker.take(stateFolder, 'command', server, server, now())
        if (marker.stale) await runCommand('after', after, server, timeoutMs).catch(notSince)
      }
      if (before === undefined) return 'live'
      await runCommand('before', before, server, timeoutMs, signal)
      return level
    },
    async end() {
      if (after === undefined || !marker) return 'kept'
      if (isLeft) {
        // Whoever has taken it over since has run the command, and may hold the source by now.
        if (!(await marker.isOurs())) return 'broken'
        marker = await Marker.take(stateFolder, 'command', server, server, now())
      }
      try {
        await runCommand('after', after, server, timeoutMs)
        await marker.remove()
        return 'kept'
      } catch (cause) {
        isLeft = true
        await marker.abandon().catch(() => {})
        throw cause
      }
    },
  }
}

/** What it is to hold still may be as the last backup had left it: no `before` is to begin from that. */
function notSince(cause: BackupError): never {
  const { message } = cause
  throw new BackupError(
    'QUIESCE',
    `${message.replace(/\.?$/, '.')} It has not ended well since the last backup, so it ran first; nothing is backed up until it does.`,
    { cause },
  )
}

/** Runs a command line; resolves when it has ended with exit code 0. */
function runCommand(
  which: 'before' | 'after',
  command: string,
  server: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<void> {
  const failure = (what: string, output: string) => {
    const said = output.trim().replace(/\s+/g, ' ').slice(-OUTPUT_SHOWN_CHARS)
    return new BackupError('QUIESCE', `The command to run ${which} the backup ${what}${said ? `: ${said}` : '.'}`)
  }
  const env: NodeJS.ProcessEnv = { ...process.env, MILLRACE_SERVER: server }
  for (const name of SECRETS) delete env[name]
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortError(signal))
    // A group of its own: it ends with all that it started, and not by the Ctrl-C that ends the backup.
    const detached = process.platform !== 'win32'
    const child = spawn(command, { shell: true, detached, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const keep = (text: string) => {
      output = (output + text).slice(-OUTPUT_KEPT_BYTES)
    }
    child.stdout.setEncoding('utf8').on('data', keep)
    child.stderr.setEncoding('utf8').on('data', keep)
    const kill = (by: NodeJS.Signals) => {
      try {
        if (detached && child.pid !== undefined) process.kill(-child.pid, by)
        else child.kill(by)
      } catch {
        // It has ended.
      }
    }
    let over: Error | undefined
    let killer: NodeJS.Timeout | undefined
    const stop = (why: Error) => {
      over ??= why
      kill('SIGTERM')
      killer ??= setTimeout(() => kill('SIGKILL'), KILL_AFTER_MS)
    }
    const onAbort = () => stop(abortError(signal as AbortSignal))
    signal?.addEventListener('abort', onAbort, { once: true })
    const stopLimit = startLimit(timeoutMs, () => stop(failure(`was not done within ${timeoutMs / 1000} s`, output)))
    const settle = (error?: Error) => {
      stopLimit()
      clearTimeout(killer)
      signal?.removeEventListener('abort', onAbort)
      // A program left running in the background may hold the pipes open.
      child.stdout.destroy()
      child.stderr.destroy()
      if (error) reject(error)
      else resolve()
    }
    child.once('error', (error) => settle(over ?? failure(`cannot be run (${error.message})`, '')))
    child.once('exit', async (code, killedBy) => {
      if (!over && code !== 0) await lastWords([child.stdout, child.stderr], LATE_OUTPUT_MS)
      if (over || code === 0) settle(over)
      else settle(failure(code === null ? `was ended by ${killedBy}` : `ended with exit code ${code}`, output))
    })
  })
}
