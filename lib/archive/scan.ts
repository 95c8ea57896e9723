import type { BigIntStats } from 'node:fs'
import { stat as statFile } from 'node:fs/promises'
import { join } from 'node:path'
import { abortError, throwIfAborted } from '../../adapters/retry.ts'
import { beginThread } from '../../transforms/thread.ts'
import { BackupError } from '../errors.ts'
import type { Selection, SelectionRules } from '../exclude.ts'
import { type ArchiveWarning, BLOCK_BYTES, escapeBytes, roundToBlock, TRAILER_BYTES } from './entry.ts'
import { explain, lstat } from './io.ts'
import { decodeName, entriesOf, SMALL_DIRECTORY_BATCH, sourceError, type WalkFilter } from './walk.ts'

export interface ScanResult {
  /**
   * Length of the folder's tar stream if nothing changes, or a little more. Files that grow or are appended again while
   * they are archived come on top.
   */
  bytes: number
  /** Files and hard links. */
  files: number
  /** Everything that gets an entry. */
  entries: number
}

export interface ScanOptions {
  /** As packFolder's. */
  filter?: WalkFilter | undefined
  /** Takes what this does not leave out: in place of a filter, since a thread can make its own of it. */
  selection?: Selection | undefined
  /** Called for what will be left out because it cannot be archived, as far as that shows without reading files. */
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
  /** Entries after which it goes on on a thread of its own; 8,192 when left out. */
  threadAfter?: number | undefined
  /** Told now and then of the bytes that were found so far, by this thread. */
  onSeen?: ((bytes: number) => void) | undefined
  signal?: AbortSignal | undefined
}

/** Stats under way at the same time. */
const PARALLEL_STATS = 32

export const LISTING = { encoding: 'latin1', bufferSize: SMALL_DIRECTORY_BATCH } as const

/** Entries that are looked at one by one before the whole scan is begun again on a thread of its own. */
const FEW_ENTRIES = 8192

/** mtime, uid, gid and size records together. */
const PAX_BYTES = 120

/** The sums of a scan. */
export class ScanSums {
  readonly result: ScanResult = { bytes: TRAILER_BYTES, files: 0, entries: 0 }
  readonly #inodes = new Set<string>()

  readonly #warn: (warning: ArchiveWarning) => void

  constructor(warn: (warning: ArchiveWarning) => void = () => {}) {
    this.#warn = warn
  }

  /** @param relative its path in the archive. */
  add(stat: BigIntStats, relative: string): void {
    const isFile = stat.isFile()
    if (!isFile && !stat.isDirectory() && !stat.isSymbolicLink()) {
      const message = `${relative} is a socket, fifo or device; it is left out`
      this.#warn({ kind: 'special', path: relative, message })
      return
    }
    const { result } = this
    const relativeBytes = Buffer.byteLength(relative) + 1
    result.entries++
    if (isFile) result.files++
    const first = !isFile || stat.nlink === 1n || this.#see(`${stat.dev}:${stat.ino}`)
    // A hard link's header holds another path, which may be longer.
    const linkBytes = stat.isSymbolicLink() ? Number(stat.size) : first ? 0 : 2 * relativeBytes
    const records = PAX_BYTES + relativeBytes + linkBytes
    result.bytes += 2 * BLOCK_BYTES + roundToBlock(records) + (isFile && first ? roundToBlock(Number(stat.size)) : 0)
  }

  #see(inode: string): boolean {
    if (this.#inodes.has(inode)) return false
    this.#inodes.add(inode)
    return true
  }
}

async function addPath(sums: ScanSums, path: string, relative: string): Promise<void> {
  const stat = await lstat(path).catch(() => undefined)
  if (stat) sums.add(stat, relative)
}

/** What a scan on a thread of its own is given. */
export interface ScanRequest {
  root: string
  /** undefined: everything is taken. */
  rules: SelectionRules | undefined
}

/** What it answers: undefined when anything went wrong that a scan has to say something about. */
export type ScanAnswer = ScanResult | undefined

/**
 * Scans on a thread of its own, with synchronous calls: a turn through the thread pool for each entry takes four times
 * as long as the kernel needs for it.
 * @returns undefined when something could not be listed, or the thread cannot be had.
 */
async function scanOnThread(request: ScanRequest, signal: AbortSignal | undefined): Promise<ScanAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<ScanAnswer>()
  const worker = beginThread(import.meta.url, 'scan-worker', request)
  if (!worker) return undefined
  const onAbort = () => reject(abortError(signal as AbortSignal))
  signal?.addEventListener('abort', onAbort)
  worker.on('message', resolve)
  worker.on('error', () => resolve(undefined))
  worker.on('exit', () => resolve(undefined))
  return promise.finally(async () => {
    signal?.removeEventListener('abort', onAbort)
    await worker.terminate()
  })
}

/**
 * Measures a folder before it is archived, for progress and for the part size of an upload. It keeps no list: memory
 * is the folders still to visit and the inodes with several names. What cannot be read is not
 * counted; packFolder warns of it.
 * @throws BackupError SOURCE when the root is missing, not a folder, or cannot be listed; AbortError
 */
export async function scanFolder(root: string, options: ScanOptions = {}): Promise<ScanResult> {
  const { signal, filter, selection, onWarning, onSeen, threadAfter = FEW_ENTRIES } = options
  const scan = new ScanSums(onWarning)
  const pending: string[] = ['']
  // A listener is of this thread, and so is a filter.
  let mayMove = filter === undefined && onWarning === undefined
  try {
    if (!(await statFile(root)).isDirectory()) throw new BackupError('SOURCE', `${root} is not a folder`)
  } catch (cause) {
    throw cause instanceof BackupError ? cause : sourceError(root, cause)
  }
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    const batch: Promise<void>[] = []
    try {
      for await (const entry of entriesOf(join(root, folder))) {
        throwIfAborted(signal)
        const name = decodeName(entry.name)
        if (name === undefined) {
          const shown = escapeBytes(Buffer.from(folder && `${folder}/`).toString('latin1') + entry.name)
          onWarning?.({ kind: 'name', path: shown, message: `The name ${shown} is not UTF-8; it is left out` })
          continue
        }
        const path = folder === '' ? name : `${folder}/${name}`
        const { isFolder } = entry
        if (selection?.judge(path, isFolder) || filter?.(path, isFolder) === false) continue
        if (isFolder) pending.push(path)
        batch.push(addPath(scan, join(root, path), path))
        if (batch.length === PARALLEL_STATS) {
          await Promise.all(batch.splice(0))
          onSeen?.(scan.result.bytes)
          if (mayMove && scan.result.entries >= threadAfter) {
            mayMove = false
            const whole = await scanOnThread({ root, rules: selection?.rules }, signal)
            if (whole) return whole
          }
        }
      }
    } catch (cause) {
      throwIfAborted(signal)
      if (folder === '') throw sourceError(root, cause)
      const message = explain(`Cannot list the folder ${folder}, its content is left out`, cause)
      onWarning?.({ kind: 'unreadable', path: folder, message, cause })
    }
    await Promise.all(batch)
  }
  return scan.result
}
