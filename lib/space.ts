import { statfs } from 'node:fs/promises'
import { errorCode, FUSE_SUPER_MAGIC } from '../adapters/filesystem-paths.ts'
import { BackupError } from './errors.ts'

/**
 * Checks that a file system has room, before anything is written.
 * @param folder on that file system.
 * @param needed bytes to come, and how many files and folders; undefined: unknown, not checked.
 * @throws BackupError TARGET with both numbers.
 */
export async function checkSpace(folder: string, needed: { bytes: number; files?: number | undefined }): Promise<void> {
  const { bavail, bsize, files, ffree, type } = await statfs(folder)
  const free = bavail * bsize
  if (free < needed.bytes) {
    throw new BackupError(
      'TARGET',
      `There is not enough room at ${folder}: ${showBytes(needed.bytes)} are needed, and ${showBytes(free)} are free. Make room, name another target, or skip the check (--no-space-check).`,
    )
  }
  // Some file systems count no inodes, and say 0 of 0; rclone's mount says 0 of 1,000,000,000.
  const counts = files > 0 && !(ffree === 0 && type === FUSE_SUPER_MAGIC)
  if (counts && needed.files !== undefined && ffree < needed.files) {
    throw new BackupError(
      'TARGET',
      `There are not enough inodes at ${folder}: ${needed.files} files are to be written, and ${ffree} inodes are free. Name another target, or skip the check (--no-space-check).`,
    )
  }
}

/** Whether an error, or what caused it, is that a disk or its quota is full. */
export function isFullDisk(error: unknown): boolean {
  const { cause } = (error ?? {}) as { cause?: unknown }
  const code = errorCode(error)
  return code === 'ENOSPC' || code === 'EDQUOT' || (cause !== undefined && isFullDisk(cause))
}

/** A size as errors say it: exact, and in MiB where it is large. */
function showBytes(bytes: number): string {
  return bytes < 2 ** 20 ? `${bytes} bytes` : `${bytes} bytes (${(bytes / 2 ** 20).toFixed(1)} MiB)`
}
