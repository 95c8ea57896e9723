import { join } from 'node:path'
import { close, errnoOf, fsync, open, READ_FLAGS, targetError } from './io.ts'

/** Files that are brought onto the disk at the same time. */
const PARALLEL_SYNCS = 8

/**
 * Brings files onto the disk; what a later one of its path replaced is left out.
 * @param paths relative to the root; taken from.
 * @throws BackupError TARGET
 */
export async function syncFiles(root: string, paths: string[]): Promise<void> {
  const work = async (): Promise<void> => {
    for (let path = paths.pop(); path !== undefined; path = paths.pop()) await syncFile(root, path)
  }
  await Promise.all(Array.from({ length: PARALLEL_SYNCS }, work))
}

async function syncFile(root: string, path: string): Promise<void> {
  try {
    const fd = await open(join(root, path), READ_FLAGS)
    try {
      await fsync(fd)
    } finally {
      await close(fd)
    }
  } catch (error) {
    // A later entry of its path replaced it.
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ELOOP') throw targetError(path, error)
  }
}
