import { spawn } from 'node:child_process'
import { split } from 'shlex'
import { BackupError } from '../errors.ts'
import { readKeyFile, readSecretFile } from '../key-file.ts'
import { lastWords } from '../last-words.ts'
import { noteSecret } from '../redact.ts'
import { pathFrom } from './paths.ts'

const COMMAND_MS = 30_000
const KILL_AFTER_MS = 2_000
/** For what is in the pipe when the program has ended, and a daemon of its keeps it open. */
const LATE_OUTPUT_MS = 5_000
const OUTPUT_MAX_BYTES = 64 * 1024
const STDERR_KEPT_BYTES = 2048
const STDERR_SHOWN_CHARS = 200
const KEY_BYTES = 32

/** Whose secret it is, and where the config is. */
export interface SecretAt {
  /** The config's: `file:` is relative to it, and `command:` runs in it. */
  folder: string
  /** For errors: `encryption.password`. */
  what: string
  /** What a command may take; 30 s when left out. */
  commandMs?: number | undefined
}

/**
 * Gets a secret from where it is: `${NAME}` of the environment, `file:PATH`, or `command:PROGRAM ARGUMENTS`, which is
 * split into words as a shell does, run without one, and whose output it is. One line end is taken off.
 * @throws BackupError USAGE when there is none, or it is empty. Nothing of a secret is in it.
 */
export async function resolveSecret(reference: string, at: SecretAt): Promise<Buffer> {
  const secret = await readSecret(reference, at)
  noteSecret(secret)
  return secret
}

async function readSecret(reference: string, at: SecretAt): Promise<Buffer> {
  const { folder, what } = at
  const [kind, rest] = partsOf(reference, what)
  if (kind === 'env') return fromEnvironment(rest, what)
  if (kind === 'file') {
    const file = pathFrom(folder, rest)
    return notEmpty(
      withoutLineEnd(await readSecretFile(file, `file of ${what}`)),
      () => `The file ${file} of ${what} is empty.`,
    )
  }
  const words = wordsOf(rest, what)
  const output = await runCommand(words, at)
  return notEmpty(
    withoutLineEnd(output),
    () => `The command ${words[0]} of ${what} wrote nothing to its standard output.`,
  )
}

/**
 * The same for what is text.
 * @throws BackupError USAGE, also for what is not UTF-8.
 */
export async function resolvePassword(reference: string, at: SecretAt): Promise<string> {
  const bytes = await resolveSecret(reference, at)
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new BackupError('USAGE', `What ${at.what} says holds no UTF-8 text.`, { cause })
  }
}

/**
 * The same for a 32-byte key: the bytes themselves (of a file), 64 hex digits, or base64.
 * @throws BackupError USAGE, also for what is none of them.
 */
export async function resolveKey(reference: string, at: SecretAt): Promise<Buffer> {
  const [kind, rest] = partsOf(reference, at.what)
  // A raw key may end in the byte of a line end.
  if (kind === 'file') return readKeyFile(pathFrom(at.folder, rest))
  const bytes = await resolveSecret(reference, at)
  const text = bytes.toString('latin1')
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
  if (/^[0-9A-Za-z+/]{43}=$/.test(text)) return Buffer.from(text, 'base64')
  throw new BackupError(
    'USAGE',
    `What ${at.what} says is no key of ${KEY_BYTES} bytes: it must be 64 hex digits or 44 characters of base64.`,
  )
}

/** The file that a reference names; undefined where the secret is elsewhere. */
export function secretFile(reference: string | undefined, folder: string): string | undefined {
  return reference?.startsWith('file:') ? pathFrom(folder, reference.slice('file:'.length).trim()) : undefined
}

function partsOf(reference: string, what: string): ['env' | 'file' | 'command', string] {
  const variable = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/.exec(reference)
  if (variable) return ['env', variable[1] as string]
  if (reference.startsWith('file:') && reference.length > 5) return ['file', reference.slice(5).trim()]
  if (reference.startsWith('command:') && reference.length > 8) return ['command', reference.slice(8)]
  throw new BackupError('USAGE', `${what} must say where the secret is: \${NAME}, file:PATH, or command:PROGRAM.`)
}

function fromEnvironment(name: string, what: string): Buffer {
  const value = process.env[name]
  if (value === undefined) {
    throw new BackupError('USAGE', `${what} is in the environment variable ${name}, which is not set.`)
  }
  return notEmpty(Buffer.from(value), () => `${what} is in the environment variable ${name}, which is set and empty.`)
}

function notEmpty(bytes: Buffer, message: () => string): Buffer {
  if (bytes.length > 0) return bytes
  throw new BackupError('USAGE', message())
}

function withoutLineEnd(bytes: Buffer): Buffer {
  let end = bytes.length
  if (bytes[end - 1] === 0x0a) end -= bytes[end - 2] === 0x0d ? 2 : 1
  return bytes.subarray(0, Math.max(0, end))
}

function wordsOf(line: string, what: string): [string, ...string[]] {
  let words: string[]
  try {
    words = split(line)
  } catch (cause) {
    throw new BackupError('USAGE', `The command of ${what} has a quote that is not closed.`, { cause })
  }
  if (!words[0]) throw new BackupError('USAGE', `The command of ${what} names no program.`)
  return words as [string, ...string[]]
}

/** Its standard output, when it ends with exit code 0. */
function runCommand(
  [program, ...args]: [string, ...string[]],
  { folder, what, commandMs = COMMAND_MS }: SecretAt,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    // A group of its own: it ends with all that it started.
    const detached = process.platform !== 'win32'
    const child = spawn(program, args, { cwd: folder, detached, stdio: ['ignore', 'pipe', 'pipe'] })
    const output: Buffer[] = []
    let held = 0
    let errors = ''
    let ended: string | undefined
    let killer: NodeJS.Timeout | undefined
    const kill = (by: NodeJS.Signals) => {
      try {
        if (detached && child.pid !== undefined) process.kill(-child.pid, by)
        else child.kill(by)
      } catch {
        // It has ended.
      }
    }
    const end = (why: string) => {
      ended ??= why
      kill('SIGTERM')
      killer ??= setTimeout(() => kill('SIGKILL'), KILL_AFTER_MS)
    }
    const timer = setTimeout(() => end(`did not end within ${commandMs / 1000} seconds`), commandMs)
    child.stdout.on('data', (chunk: Buffer) => {
      held += chunk.length
      if (held > OUTPUT_MAX_BYTES) end('wrote more than 64 KiB: that is no secret')
      else output.push(chunk)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-STDERR_KEPT_BYTES)
    })
    const settle = (why: string | undefined) => {
      clearTimeout(timer)
      clearTimeout(killer)
      // What it left running may hold the pipes open.
      child.stdout.destroy()
      child.stderr.destroy()
      if (ended !== undefined) kill('SIGKILL')
      if (why === undefined) return resolve(Buffer.concat(output))
      const said = printed(errors)
      reject(new BackupError('USAGE', `The command ${program} of ${what} ${why}${said ? `: ${said}` : '.'}`))
    }
    child.once('error', (error: NodeJS.ErrnoException) => {
      settle(error.code === 'ENOENT' ? 'cannot be run: there is no such program' : `cannot be run (${error.code})`)
    })
    // The exit, not the close of the pipes: a daemon that it starts may keep them open.
    child.once('exit', async (code, killedBy) => {
      // Where it failed, stderr says why.
      await lastWords(code === 0 ? [child.stdout] : [child.stdout, child.stderr], LATE_OUTPUT_MS)
      if (ended !== undefined) settle(ended)
      else if (code === 0) settle(undefined)
      else settle(code === null ? `was ended by ${killedBy}` : `ended with exit code ${code}`)
    })
  })
}

/** The last of what a program said, without what moves a terminal's cursor. */
function printed(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ')
    .replace(/ {2,}/g, ' ')
    .trim()
    .slice(-STDERR_SHOWN_CHARS)
}
