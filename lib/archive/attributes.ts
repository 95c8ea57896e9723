import fs from 'node:fs'
import { msToNs, nsToTimeArgument } from './entry.ts'
import { close, FOLDER_FLAGS, fchmod, fchown, fsync, futimes, open, targetError } from './io.ts'
import type { TargetRights } from './rights.ts'

export interface Meta {
  mode: number
  mtimeNs: bigint
  uid: number
  gid: number
}

/** Owner before mode (chown clears setuid), time last. */
export async function setOpen(fd: number, meta: Meta, { owners, specialBits }: TargetRights): Promise<void> {
  if (owners) await fchown(fd, meta.uid, meta.gid)
  await fchmod(fd, meta.mode & (specialBits ? 0o7777 : 0o777))
  await futimes(fd, nsToTimeArgument(meta.mtimeNs))
}

export async function setFolder(absolute: string, meta: Meta, rights: TargetRights, durable: boolean): Promise<void> {
  const fd = await open(absolute, FOLDER_FLAGS)
  try {
    await setOpen(fd, meta, rights)
    if (durable) await fsync(fd)
  } finally {
    await close(fd)
  }
}

/**
 * Gives a restored folder the mode and mtime of the folder that was backed up: the root has no entry in its archive.
 * Call it last, since anything made in the folder moves its mtime.
 * @param meta - mode in permission bits (setuid, setgid and sticky only count when run as root), mtime in ms
 * @throws BackupError TARGET
 */
export async function applyFolder(target: string, meta: { mode: number; mtime: number }): Promise<void> {
  try {
    const fd = await open(target, fs.constants.O_RDONLY)
    try {
      await fchmod(fd, meta.mode & (process.getuid?.() === 0 ? 0o7777 : 0o777))
      await futimes(fd, nsToTimeArgument(msToNs(meta.mtime)))
    } finally {
      await close(fd)
    }
  } catch (error) {
    throw targetError(target, error)
  }
}
