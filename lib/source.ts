import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, readdir, stat } from 'node:fs/promises'
import { pipeline, Readable, Transform } from 'node:stream'
import { isAbort } from '../adapters/retry.ts'
import type { IndexBuilder } from '../transforms/index.ts'
import { type ArchiveWarning, nsToMs } from './archive/entry.ts'
import { packFolder } from './archive/pack.ts'
import { type ScanOptions, type ScanResult, scanFolder } from './archive/scan.ts'
import { BackupError } from './errors.ts'
import { type LeftOut, openSelection, type Selection, type SelectionOptions } from './exclude.ts'
import { type Destined, ownFolders } from './kept.ts'
import { consistencyOf, type Hold } from './quiesce/quiescer.ts'

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
  /** Files or folders that could not be read, or were gone with the folder that they were in. */
  unreadable: number
  /** Files that were removed from their folder between its listing and their turn. */
  removed: number
  /** Files that changed while they were read, whose stored copy is of no one moment. */
  changed: number
  /** Names that patterns left out; a folder counts once, with all in it. */
  excluded: number
}

/** A game removes temporary files all the time; more than these may be a folder that was put in another's place. */
const FEW_REMOVED = 2
const REMOVED_SHARE = 0.01

/**
 * Whether a snapshot may lack what only older ones have, so that none of those is to be removed.
 * @param files that it has.
 */
export function mayLack({ names, unreadable, removed }: Omissions, files: number): boolean {
  return names + unreadable > 0 || removed > Math.max(FEW_REMOVED, files * REMOVED_SHARE)
}

export interface SourceSummary {
  files: number
  consistency: string
  mode?: number
  mtime?: number
  /** The include patterns that took nothing. */
  unused?: string[]
  omissions: Omissions
}

export interface OpenedSource {
  kind: 'tar' | 'raw'
  stream: Readable
  /** Its chunks are nobody else's, so their memory may be given back. */
  ownsChunks: boolean
  /** An upper bound of the bytes to come, when it is known. */
  expectedBytes?: number
  /** Entries to come, about. */
  expectedEntries: number
  /** Known when the stream has ended. */
  summary(): SourceSummary
}

export interface OpenSourceOptions extends SelectionOptions {
  /** Brings the source to rest: called just before the first byte of it is read, and after all that takes its time. */
  hold?: (() => Promise<Hold>) | undefined
  /** Called for each name that a pattern left out. */
  onLeftOut?: ((left: LeftOut) => void) | undefined
  /** Told of how much there is at least, while a folder is looked through. */
  onSeen?: ScanOptions['onSeen']
  /** Where it goes to: a store in the folder, and what the backup itself writes there, are left out. */
  into: Destined
  index: IndexBuilder
  allowEmpty: boolean
  onWarning: (warning: ArchiveWarning) => void
  signal?: AbortSignal | undefined
}

/**
 * Opens what is to be backed up.
 * @throws BackupError USAGE for what is no source, SOURCE when it is missing or cannot be read, EMPTY_SOURCE for a folder
 * without entries or an empty file, unless `allowEmpty`. The stream fails with EMPTY_SOURCE for a stream of 0 bytes.
 * What `hold` throws; the hold is released at the stream's end, and whoever opened it releases it when anything fails.
 */
export async function openSource(source: BackupSource, options: OpenSourceOptions): Promise<OpenedSource> {
  if (typeof source !== 'string') {
    checkStreamed(source)
    noSelection(options, 'stream')
    const hold = await options.hold?.().catch((error) => {
      if (source instanceof Readable) source.destroy()
      throw error
    })
    const stream = source instanceof Readable ? source : openCommand(source.command, options.signal)
    const ownsChunks = !(source instanceof Readable)
    return rawSource(released(notEmpty(stream, options.allowEmpty), hold), hold, ownsChunks)
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

function checkStreamed(source: Exclude<BackupSource, string>): void {
  if (source instanceof Readable || (Array.isArray(source?.command) && source.command.length > 0)) return
  throw new BackupError(
    'USAGE',
    'A source is the path of a folder or file, a Readable stream, or { command: [program, …arguments] }.',
  )
}

/** @throws BackupError USAGE when there is something to choose from what is one file. */
function noSelection({ include, exclude }: SelectionOptions, what: string): void {
  if (!include && !exclude?.length) return
  throw new BackupError('USAGE', `The source is a ${what}: include and exclude patterns choose from a folder.`)
}

/**
 * The source as it is, chunk by chunk, and something to do when it has ended and before its end is seen. Not a loop over
 * it: that joins what has piled up, which copies all of a source that is faster than compression.
 */
function before(source: Readable, end: (bytes: number) => Promise<void> | void): Readable {
  let bytes = 0
  const stream = new Transform({
    readableHighWaterMark: READ_BYTES,
    writableHighWaterMark: READ_BYTES,
    transform(chunk: Buffer, _encoding, callback) {
      bytes += chunk.length
      callback(null, chunk)
    },
    flush(callback) {
      Promise.resolve(bytes)
        .then(end)
        .then(() => callback(), callback)
    },
  })
  pipeline(source, stream, () => {})
  return stream
}

/** The source, and at its end whoever was held goes on, before anything is said of how it went. */
function released(source: Readable, hold: Hold | undefined): Readable {
  return hold ? before(source, () => hold.release()) : source
}

/** What packFolder and scanFolder ask; undefined where everything is taken. */
function filterOf(selection: Selection, onLeftOut: ((left: LeftOut) => void) | undefined) {
  if (!selection.any) return undefined
  return (path: string, isFolder: boolean) => {
    const left = selection.judge(path, isFolder)
    if (left) onLeftOut?.(left)
    return left === undefined
  }
}

export interface FolderPlan {
  selection: Selection
  scan: ScanResult
}

/**
 * Looks at what of a folder would be backed up.
 * @throws BackupError SOURCE, USAGE; AbortError.
 */
export async function planFolder(
  folder: string,
  options: SelectionOptions &
    Pick<OpenSourceOptions, 'onLeftOut'> &
    Pick<ScanOptions, 'onWarning' | 'onSeen' | 'signal'> & { into?: Destined | undefined },
): Promise<FolderPlan> {
  const { onLeftOut, into } = options
  const selection = await openSelection(folder, options, into && (await ownFolders(folder, into)))
  const how = onLeftOut
    ? { filter: filterOf(selection, onLeftOut) }
    : { selection: selection.any ? selection : undefined }
  return { selection, scan: await scanFolder(folder, { ...options, ...how }) }
}

function nothingTaken(folder: string): BackupError {
  return new BackupError(
    'EMPTY_SOURCE',
    `Nothing in ${JSON.stringify(folder)} is taken by the patterns: nothing was backed up. \`millrace backup --dry-run\` shows what each of them leaves out; or allow empty sources (--allow-empty).`,
  )
}

async function openFolder(folder: string, options: OpenSourceOptions): Promise<OpenedSource> {
  const { selection, scan } = await planFolder(folder, { ...options, onLeftOut: undefined, onWarning: undefined })
  if (scan.entries === 0 && !options.allowEmpty) {
    if (selection.any && (await readdir(folder)).length > 0) throw nothingTaken(folder)
    throw new BackupError(
      'EMPTY_SOURCE',
      `The folder ${JSON.stringify(folder)} is empty: nothing was backed up. Check that it is the right one and mounted, or allow empty sources (--allow-empty).`,
    )
  }
  const hold = await options.hold?.()
  let excluded = 0
  const filter = filterOf(selection, (left) => {
    excluded += 1
    options.onLeftOut?.(left)
  })
  const pack = await packFolder(folder, {
    filter,
    onEntry: (entry) => options.index.add(entry),
    onWarning: options.onWarning,
    signal: options.signal,
  })
  return {
    kind: 'tar',
    ownsChunks: true,
    stream: released(pack.stream, hold),
    expectedBytes: scan.bytes,
    expectedEntries: scan.entries,
    summary() {
      const { files, entries, folder: own, skipped, changed, reread } = pack.result()
      if (entries === 0 && !options.allowEmpty) {
        throw new BackupError(
          'EMPTY_SOURCE',
          `Nothing in ${JSON.stringify(folder)} could be backed up: every entry was left out.`,
        )
      }
      return {
        files,
        consistency: consistencyOf(hold?.outcome(), changed, reread),
        ...own,
        unused: selection.unused(),
        omissions: {
          special: skipped.special,
          names: skipped.name,
          unreadable: skipped.unreadable + skipped.vanished,
          removed: skipped.removed,
          changed,
          excluded,
        },
      }
    },
  }
}

async function openFile(file: string, options: OpenSourceOptions): Promise<OpenedSource> {
  noSelection(options, 'file')
  const hold = await options.hold?.()
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
      `The file ${JSON.stringify(file)} is empty: nothing was backed up. Allow empty sources (--allow-empty) if it is meant.`,
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
      // What the stream was destroyed with is thrown in here as well.
      if (isAbort(cause)) throw cause
      throw new BackupError('SOURCE', `The file ${JSON.stringify(file)} ${explain(cause)}.`, { cause })
    } finally {
      await handle.close()
    }
  }
  const stream = Readable.from(bytes(), { objectMode: false, highWaterMark: READ_BYTES })
  // A generator that was never begun has no `finally` to run.
  stream.once('close', () => void handle.close().catch(() => {}))
  return {
    ...rawSource(released(stream, hold), hold, true),
    expectedBytes: Number(before.size),
    summary: () => ({
      files: 1,
      consistency: consistencyOf(hold?.outcome(), changed, 0),
      mode: Number(before.mode) & 0o7777,
      mtime: nsToMs(before.mtimeNs),
      omissions: { ...NO_OMISSIONS, changed },
    }),
  }
}

const NO_OMISSIONS: Omissions = { special: 0, names: 0, unreadable: 0, removed: 0, changed: 0, excluded: 0 }

function rawSource(stream: Readable, hold: Hold | undefined, ownsChunks: boolean): OpenedSource {
  return {
    kind: 'raw',
    stream,
    ownsChunks,
    expectedEntries: 0,
    summary: () => ({
      files: 1,
      // Of a stream nothing can be seen from here but what was done to its writer.
      consistency: hold ? consistencyOf(hold.outcome(), 0, 0) : 'unknown',
      omissions: NO_OMISSIONS,
    }),
  }
}

function notEmpty(source: Readable, allowEmpty: boolean): Readable {
  if (allowEmpty) return source
  return before(source, (bytes) => {
    if (bytes > 0) return
    throw new BackupError(
      'EMPTY_SOURCE',
      'The source ended without a byte: nothing was backed up. Allow empty sources (--allow-empty) if it is meant.',
    )
  })
}

/**
 * A program's standard output as a stream, which fails when the program does: an output that was cut by a crash must
 * not become a backup.
 */
export function openCommand(command: readonly string[], signal?: AbortSignal): Readable {
  const [program, ...args] = command as [string, ...string[]]
  let release = () => {}
  async function* output() {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], signal })
    // What the program has started may hold its outputs for long after it.
    release = () => {
      child.kill()
      child.stdout.destroy()
      child.stderr.destroy()
    }
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
      if (cause instanceof BackupError || isAbort(cause)) throw cause
      throw new BackupError('SOURCE', `The source command ${program} cannot be run: ${(cause as Error).message}.`, {
        cause,
      })
    } finally {
      release()
    }
  }
  const stream = Readable.from(output(), { objectMode: false, highWaterMark: READ_BYTES })
  // It waits for the generator, and that for the program's next byte.
  const end = stream._destroy
  stream._destroy = (error, callback) => {
    release()
    end.call(stream, error, callback)
  }
  return stream
}

function explain(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'does not exist'
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read by this user'
  return `cannot be read (${message})`
}
