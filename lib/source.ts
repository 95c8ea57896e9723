import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { IndexBuilder } from '../transforms/index.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { packFolder } from './archive/pack.ts'
import { scanFolder } from './archive/scan.ts'
import { BackupError } from './errors.ts'

const READ_BYTES = 512 * 1024
const STDERR_KEPT_BYTES = 4096

/** A program whose standard output is backed up. It counts only when it ends with exit code 0. */
export interface CommandSource {
  command: readonly [string, ...string[]]
}

/** What is backed up: a folder, a file, any stream, or a program's output. */
export type BackupSource = string | Readable | CommandSource

/** What was left out or did not hold still. */
export interface Omissions {
  /** Sockets, fifos and devices, which are never stored. */
  special: number
  /** Names that are not UTF-8. */
  names: number
  /** Files or folders that could not be read, or were gone. */
  unreadable: number
  /** Files that changed while they were read, whose stored copy is of no one moment. */
  changed: number
}

export interface SourceSummary {
  files: number
  consistency: string
  mode?: number
  mtime?: number
  omissions: Omissions
}

export interface OpenedSource {
  kind: 'tar' | 'raw'
  stream: Readable
  /** An upper bound of the bytes to come, when it is known. */
  expectedBytes?: number
  /** Entries to come, about. */
  expectedEntries: number
  /** Known when the stream has ended. */
  summary(): SourceSummary
}

export interface OpenSourceOptions {
  index: IndexBuilder
  allowEmpty: boolean
  onWarning: (warning: ArchiveWarning) => void
  signal?: AbortSignal | undefined
}

/**
 * Opens what is to be backed up.
 * @throws BackupError SOURCE when it is missing or cannot be read, EMPTY_SOURCE for a folder without entries or an
 * empty file, unless `allowEmpty`. The stream fails with EMPTY_SOURCE for a stream of 0 bytes.
 */
export async function openSource(source: BackupSource, options: OpenSourceOptions): Promise<OpenedSource> {
  if (typeof source !== 'string') {
    const stream = source instanceof Readable ? source : openCommand(source.command, options.signal)
    return rawSource(notEmpty(stream, options.allowEmpty))
  }
  let found: Awaited<ReturnType<typeof stat>>
  try {
    found = await stat(source)
  } catch (cause) {
    throw new BackupError('SOURCE', `The source ${JSON.stringify(source)} ${explain(cause)}.`, { cause })
  }
  if (found.isDirectory()) return openFolder(source, options)
  if (found.isFile()) return openFile(source, options)
  throw new BackupError('SOURCE', `The source ${JSON.stringify(source)} is neither a folder nor a file.`)
}

async function openFolder(folder: string, options: OpenSourceOptions): Promise<OpenedSource> {
  const scan = await scanFolder(folder, { signal: options.signal })
  if (scan.entries === 0 && !options.allowEmpty) {
    throw new BackupError(
      'EMPTY_SOURCE',
      `The folder ${JSON.stringify(folder)} is empty: nothing was backed up. Check that it is the right one and mounted, or allow empty sources.`,
    )
  }
  const pack = await packFolder(folder, {
    onEntry: (entry) => options.index.add(entry),
    onWarning: options.onWarning,
    signal: options.signal,
  })
  return {
    kind: 'tar',
    stream: pack.stream,
    expectedBytes: scan.bytes,
    expectedEntries: scan.entries,
    summary() {
      const { files, entries, folder: own, skipped, changed } = pack.result()
      if (entries === 0 && !options.allowEmpty) {
        throw new BackupError(
          'EMPTY_SOURCE',
          `Nothing in ${JSON.stringify(folder)} could be backed up: every entry was left out.`,
        )
      }
      return {
        files,
        consistency: changed === 0 ? 'live' : `live-changed ${changed}`,
        ...own,
        omissions: {
          special: skipped.special,
          names: skipped.name,
          unreadable: skipped.unreadable + skipped.vanished,
          changed,
        },
      }
    },
  }
}

async function openFile(file: string, options: OpenSourceOptions): Promise<OpenedSource> {
  let handle: FileHandle
  try {
    handle = await open(file, 'r')
  } catch (cause) {
    throw new BackupError('SOURCE', `The file ${JSON.stringify(file)} ${explain(cause)}.`, { cause })
  }
  const before = await handle.stat({ bigint: true })
  if (before.size === 0n && !options.allowEmpty) {
    await handle.close()
    throw new BackupError(
      'EMPTY_SOURCE',
      `The file ${JSON.stringify(file)} is empty: nothing was backed up. Allow empty sources if it is meant.`,
    )
  }
  let changed = 0
  async function* bytes() {
    try {
      yield* createReadStream('', { fd: handle, autoClose: false, highWaterMark: READ_BYTES })
      const after = await handle.stat({ bigint: true })
      if (after.size !== before.size || after.mtimeNs !== before.mtimeNs) {
        changed = 1
        options.onWarning({ kind: 'changed', path: file, message: `${file} changed while it was read` })
      }
    } catch (cause) {
      throw new BackupError('SOURCE', `The file ${JSON.stringify(file)} ${explain(cause)}.`, { cause })
    } finally {
      await handle.close()
    }
  }
  const stream = Readable.from(bytes(), { objectMode: false, highWaterMark: READ_BYTES })
  // A generator that was never begun has no `finally` to run.
  stream.once('close', () => void handle.close().catch(() => {}))
  return {
    ...rawSource(stream),
    expectedBytes: Number(before.size),
    summary: () => ({
      files: 1,
      consistency: changed === 0 ? 'live' : 'live-changed 1',
      mode: Number(before.mode) & 0o7777,
      mtime: Number(before.mtimeNs / 1_000_000n),
      omissions: { special: 0, names: 0, unreadable: 0, changed },
    }),
  }
}

function rawSource(stream: Readable): OpenedSource {
  return {
    kind: 'raw',
    stream,
    expectedEntries: 0,
    summary: () => ({
      files: 1,
      consistency: 'unknown',
      omissions: { special: 0, names: 0, unreadable: 0, changed: 0 },
    }),
  }
}

function notEmpty(source: Readable, allowEmpty: boolean): Readable {
  if (allowEmpty) return source
  async function* bytes() {
    let any = false
    for await (const chunk of source) {
      any ||= chunk.length > 0
      yield chunk
    }
    if (!any)
      throw new BackupError(
        'EMPTY_SOURCE',
        'The source ended without a byte: nothing was backed up. Allow empty sources if it is meant.',
      )
  }
  const stream = Readable.from(bytes(), { objectMode: false, highWaterMark: READ_BYTES })
  stream.once('close', () => source.destroy())
  return stream
}

/**
 * A program's standard output as a stream, which fails when the program does: an output that was cut by a crash must
 * not become a backup.
 */
export function openCommand(command: readonly string[], signal?: AbortSignal): Readable {
  const [program, ...args] = command as [string, ...string[]]
  async function* output() {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], signal })
    const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
    exit.catch(() => {})
    let errors = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-STDERR_KEPT_BYTES)
    })
    try {
      yield* child.stdout
      const [code, killedBy] = await exit
      if (code !== 0) {
        const last = errors.trim().split('\n').at(-1)
        throw new BackupError(
          'SOURCE',
          `The source command ${program} ${code === null ? `was ended by ${killedBy}` : `ended with exit code ${code}`}, so its output is not complete${last ? `: ${last}` : '.'}`,
        )
      }
    } catch (cause) {
      if (cause instanceof BackupError || (cause as Error).name === 'AbortError') throw cause
      throw new BackupError('SOURCE', `The source command ${program} cannot be run: ${(cause as Error).message}.`, {
        cause,
      })
    } finally {
      child.kill()
    }
  }
  return Readable.from(output(), { objectMode: false, highWaterMark: READ_BYTES })
}

function explain(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'does not exist'
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read by this user'
  return `cannot be read (${message})`
}
