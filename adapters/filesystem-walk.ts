import type { BigIntStats } from 'node:fs'
import { lstat, opendir } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode, TEMPORARY_PREFIX } from './filesystem-paths.ts'
import { throwIfAborted } from './retry.ts'

export interface FoundFile {
  key: string
  path: string
  temporary: boolean
  stats: BigIntStats
}

/**
 * Every regular file beneath `root` whose key starts with `prefix`, with the temporary ones, as the folders give them.
 * Symbolic links are passed over. A root that does not exist is empty; what vanishes meanwhile is left out.
 */
export async function* walk(root: string, prefix: string, signal: AbortSignal | undefined): AsyncGenerator<FoundFile> {
  yield* walkFolder(root, '', prefix, signal)
}

async function* walkFolder(
  path: string,
  keyPrefix: string,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<FoundFile> {
  const entries = await ifThere(opendir(path))
  if (!entries) return
  for await (const entry of entries) {
    throwIfAborted(signal)
    const key = keyPrefix + entry.name
    const inner = join(path, entry.name)
    if (entry.isDirectory()) {
      if (prefix.startsWith(`${key}/`) || `${key}/`.startsWith(prefix)) {
        yield* walkFolder(inner, `${key}/`, prefix, signal)
      }
    } else if (entry.isFile()) {
      const temporary = entry.name.startsWith(TEMPORARY_PREFIX)
      if (!(temporary ? keyPrefix : key).startsWith(prefix)) continue
      const stats = await ifThere(lstat(inner, { bigint: true }))
      if (stats?.isFile()) yield { key, path: inner, temporary, stats }
    }
  }
}

async function ifThere<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  }
}
