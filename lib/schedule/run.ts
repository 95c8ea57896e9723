import { type ChildProcess, spawn } from 'node:child_process'
import { Lines } from './lines.ts'

/** A line of events is a few hundred bytes; that of a prune can be long, and is not needed here. */
const LINE_MAX_BYTES = 256 * 1024
const STDERR_KEPT_CHARS = 2048
const MESSAGE_MAX_CHARS = 1000

/** What a run came to, as its events tell it. */
export interface RunResult {
  /** null when a signal ended it, or it could not be started. */
  exitCode: number | null
  signal?: NodeJS.Signals | undefined
  /** The snapshot that was made. */
  snapshot?: {
    id: string
    /** ms since 1970. */
    createdAt: number
    bytes: number
    storedBytes: number
    elapsedMs: number
    destinations: readonly { destination: string; ok: boolean }[]
  }
  /** What a verify found. */
  verified?: { id: string; status: string }
  /** The newest snapshot that `status` finds in each destination. */
  statuses: { destination: string; newestAt: number | undefined }[]
  warnings: number
  /** Why it failed, in a sentence. */
  error?: string | undefined
}

/** A run that is at work. */
export interface Run {
  /** Never rejects. */
  ended: Promise<RunResult>
  /** Asks it to stop ('SIGTERM'), or ends it ('SIGKILL'). */
  stop(signal: 'SIGTERM' | 'SIGKILL'): void
}

/** Starts the command with these arguments. */
export type Runner = (args: readonly string[]) => Run

/**
 * A runner that starts the command as a process of its own, in a group of its own: a terminal's Ctrl-C reaches the
 * daemon alone, which then stops its runs in order.
 * @param command the program and its first arguments: this node, and the script of the command.
 */
export function createChildRunner(command: readonly [string, ...string[]]): Runner {
  const [program, ...first] = command
  const atWork = new Set<() => void>()
  // Whatever ends the daemon, but for SIGKILL, takes its runs with it. One listener for all: Node warns of more than ten.
  const endAll = () => {
    for (const end of atWork) end()
  }
  return (args) => {
    const isGroup = process.platform !== 'win32'
    const child = spawn(program, [...first, ...args], { stdio: ['ignore', 'pipe', 'pipe'], detached: isGroup })
    const end = (signal: NodeJS.Signals) => {
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
      // SIGTERM is for the command, which ends what it has started itself.
      if (signal === 'SIGTERM' || !isGroup) child.kill(signal)
      else killGroup(child.pid)
    }
    const kill = () => end('SIGKILL')
    if (atWork.size === 0) process.on('exit', endAll)
    atWork.add(kill)
    const ended = watch(child).finally(() => {
      atWork.delete(kill)
      if (atWork.size === 0) process.off('exit', endAll)
    })
    return { ended, stop: end }
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

function watch(child: ChildProcess): Promise<RunResult> {
  return new Promise((resolve) => {
    const result: RunResult = { exitCode: null, statuses: [], warnings: 0 }
    let errors = ''
    const lines = new Lines(LINE_MAX_BYTES, (line) => takeEvent(line, result))
    child.stdout?.on('data', (chunk: Buffer) => lines.push(chunk))
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-STDERR_KEPT_CHARS)
    })
    child.once('error', (error) => {
      resolve({ ...result, error: `The run could not be started: ${error.message}` })
    })
    child.once('close', (exitCode, signal) => {
      lines.end()
      const said = result.error ?? (exitCode === 0 ? undefined : errors.trim() || undefined)
      resolve({
        ...result,
        exitCode,
        ...(signal === null ? {} : { signal }),
        error: said?.slice(0, MESSAGE_MAX_CHARS),
      })
    })
  })
}

/** What an event of `--json` adds to what is known of the run. What is not known here is passed over. */
export function takeEvent(line: string, result: RunResult): void {
  let event: Record<string, unknown>
  try {
    event = JSON.parse(line)
  } catch {
    return
  }
  switch (event?.event) {
    case 'snapshot':
      takeSnapshot(event, result)
      return
    case 'verification':
      result.verified = { id: String(event.id), status: String(event.status) }
      if (event.status !== 'ok' && typeof event.reason === 'string') result.error = event.reason
      return
    case 'status': {
      const newest = event.newest as { created?: unknown } | null
      result.statuses.push({ destination: String(event.destination), newestAt: timeOf(newest?.created) })
      return
    }
    case 'warning':
      result.warnings += 1
      return
    case 'error':
      if (typeof event.message === 'string') result.error = event.message
      return
    default:
  }
}

function takeSnapshot(event: Record<string, unknown>, result: RunResult): void {
  const { id, created, bytes, storedBytes, elapsedMs, destinations } = event
  const createdAt = timeOf(created)
  if (typeof id !== 'string' || createdAt === undefined) return
  result.snapshot = {
    id,
    createdAt,
    bytes: numberOf(bytes) ?? 0,
    storedBytes: numberOf(storedBytes) ?? 0,
    elapsedMs: numberOf(elapsedMs) ?? 0,
    destinations: (Array.isArray(destinations) ? destinations : []).map((one) => ({
      destination: String(one?.destination),
      ok: one?.ok === true,
    })),
  }
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

function timeOf(value: unknown): number | undefined {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN
  return Number.isNaN(time) ? undefined : time
}
