import { lstat, realpath } from 'node:fs/promises'
import { finished, type Readable } from 'node:stream'
import type { Extract } from 'tar-stream'
import { abortError, throwIfAborted } from '../../adapters/retry.ts'
import { BackupError } from '../errors.ts'
import { makeFolders } from '../folders.ts'
import { Extraction, type ExtractOptions, type ExtractResult } from './extraction.ts'
import { targetError } from './io.ts'
import { ContentError } from './tar-entry.ts'

export { applyFolder } from './attributes.ts'
export type { ExtractOptions, ExtractResult } from './extraction.ts'

/** Loads what `extractTar` needs, ahead of it: a backup needs none of that. */
export const loadExtract = () => import('tar-stream')

/** Feeds the source into extract; settles when all is taken, or rejects with the source's own error. */
async function feed(source: Readable, tar: Extract, { tail, chunks }: Extraction): Promise<void> {
  let wake = (): void => {}
  tar.on('drain', () => wake())
  tar.on('close', () => wake())
  for await (const chunk of source) {
    if (tar.destroyed) return
    const data = typeof chunk === 'string' ? Buffer.from(chunk) : (chunk as Buffer)
    if (data.length === 0) continue
    tail.push(data)
    chunks.feed(data)
    if (tar.write(data)) continue
    if (tar.destroyed) return
    await new Promise<void>((resolve) => {
      wake = resolve
    })
  }
  tar.end(null)
}

/**
 * Extracts a tar stream into a folder, and writes nothing outside it (see TargetFolder for the rules). Of several
 * entries of one path the last counts. Devices and fifos are left out with a warning; modes, times to a quarter of a
 * microsecond, symlinks and hard links are restored. What is in the folder already stays, unless an entry replaces
 * it. On failure what was restored so far stays, but no file is left half-written; stage the restore beside the world.
 * @param source - the tar; it is destroyed on failure
 * @param targetDir - made if it does not exist; its own mode and mtime are left to applyFolder
 * @throws BackupError DAMAGED when it is no whole tar, UNSAFE_ARCHIVE when an entry would leave the folder, TARGET
 * when the folder cannot be written; the source's own error; AbortError
 */
export async function extractTar(
  source: Readable,
  targetDir: string,
  options: ExtractOptions = {},
): Promise<ExtractResult> {
  const { signal } = options
  // Whoever reads it later finds its error; without a listener until then, the process would end.
  source.on('error', () => {})
  const { extract } = await loadExtract()
  // Nothing may be fed before somebody listens for entries: tar-stream would lose the first.
  const run = await start(source, targetDir, options)
  // Plain names as bytes: decoded as UTF-8 by tar-stream, two broken names could become one.
  const tar = extract({ filenameEncoding: 'latin1' } as Parameters<typeof extract>[0])
  const stop = (): void => {
    tar.destroy(abortError(signal!))
  }
  signal?.addEventListener('abort', stop, { once: true })
  let tarFailure: unknown
  tar.on('error', (error) => {
    tarFailure = error
  })
  let sourceFailure: { error: unknown } | undefined
  const fed = feed(source, tar, run).catch((error: unknown) => {
    sourceFailure = { error }
    tar.destroy(error as Error)
  })
  try {
    for await (const entry of tar) await run.take(entry)
    await fed
    run.tail.finish()
    await run.finish()
    run.result.archiveBytes = run.tail.total
    return run.result
  } catch (error) {
    throwIfAborted(signal)
    if (sourceFailure) throw sourceFailure.error
    if (error instanceof ContentError || error === tarFailure) {
      const cause = tarFailure ?? error
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new BackupError('DAMAGED', `The archive is damaged: ${reason}`, { cause })
    }
    throw error
  } finally {
    signal?.removeEventListener('abort', stop)
    tar.destroy(null)
    await run.settle()
    await destroyed(source)
    await fed
  }
}

async function start(source: Readable, targetDir: string, options: ExtractOptions): Promise<Extraction> {
  try {
    throwIfAborted(options.signal)
    await makeFolders(targetDir)
    const root = await realpath(targetDir)
    if (!(await lstat(root)).isDirectory()) throw new BackupError('TARGET', `${targetDir} is not a folder`)
    const run = new Extraction(root, options)
    await run.target.look()
    await options.before?.(run.target)
    return run
  } catch (error) {
    await destroyed(source)
    throw targetError(targetDir, error)
  }
}

/** Destroys a stream and waits for its close. */
function destroyed(source: Readable): Promise<void> {
  return new Promise((resolve) => {
    finished(source, () => resolve())
    source.on('error', () => {})
    source.destroy()
  })
}
