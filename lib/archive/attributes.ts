import fs from 'node:fs'
import { lchown, lutimes } from 'node:fs/promises'
import { msToNs, nsToMs, nsToTimeArgument } from './entry.ts'
import { close, FOLDER_FLAGS, fchmod, fchown, fstat, fsyncFolder, futimes, open, targetError } from './io.ts'
import type { TargetRights } from './rights.ts'
import { type Attribute, isNotHad } from './shortfalls.ts'

/** FAT counts in steps of two seconds, others in one: what is rounded so is as it was. */
const ROUNDED_MS = 2000

export interface Meta {
  mode: number
  mtimeNs: bigint
  uid: number
  gid: number
}

/**
 * Owner before mode (chown clears setuid), time last.
 * @returns what did not stay, of what was asked for: some file systems refuse it, and others say nothing.
 */
export async function setOpen(fd: number, meta: Meta, rights: TargetRights): Promise<Attribute[]> {
  if (rights.owners) await ifHad(fchown(fd, meta.uid, meta.gid))
  await ifHad(fchmod(fd, meta.mode & (rights.specialBits ? 0o7777 : 0o777)))
  await ifHad(futimes(fd, nsToTimeArgument(meta.mtimeNs)))
  const { mode, uid, gid, mtimeNs } = await fstat(fd)
  const found = { mode: Number(mode), uid: Number(uid), gid: Number(gid), mtimeMs: nsToMs(mtimeNs) }
  const lost = missing(found, { ...meta, mtimeMs: nsToMs(meta.mtimeNs) }, rights)
  if (!isOfAnother(found, lost)) return lost
  await fchmod(fd, found.mode & 0o777)
  return withMode(lost)
}

/** Whether setuid or setgid bits would run a program as somebody it was never of. */
export function isOfAnother({ mode }: { mode: number }, lost: readonly Attribute[]): boolean {
  return lost.includes('owner') && (mode & 0o6000) !== 0
}

/** What did not stay, once those bits have been taken away. */
export function withMode(lost: readonly Attribute[]): Attribute[] {
  return [...new Set<Attribute>([...lost, 'mode'])]
}

/** Waits for a call that a file system may have nothing for. @returns whether it did it. */
export function ifHad(call: Promise<void>): Promise<boolean> {
  return call.then(
    () => true,
    (error: unknown) => {
      if (!isNotHad(error)) throw error
      return false
    },
  )
}

/** Owner and time of a symlink. @returns what the file system has nothing for. */
export async function setSymlink(absolute: string, meta: Meta, { owners }: TargetRights): Promise<Attribute[]> {
  const lost: Attribute[] = []
  if (owners && !(await ifHad(lchown(absolute, meta.uid, meta.gid)))) lost.push('owner')
  const time = nsToTimeArgument(meta.mtimeNs)
  if (!(await ifHad(lutimes(absolute, time, time)))) lost.push('time')
  return lost
}

/** What of a file or folder is not as it was to be, once all was set. */
export function missing(
  found: { mode: number; uid: number; gid: number; mtimeMs: number },
  meta: Omit<Meta, 'mtimeNs'> & { mtimeMs: number },
  { owners, modes, specialBits }: TargetRights,
): Attribute[] {
  const bits = specialBits ? 0o7777 : 0o777
  const lost: Attribute[] = []
  if (owners && (found.uid !== meta.uid || found.gid !== meta.gid)) lost.push('owner')
  // Windows keeps one bit of it.
  if (modes && process.platform !== 'win32' && ((found.mode ^ meta.mode) & bits) !== 0) lost.push('mode')
  if (Math.abs(found.mtimeMs - meta.mtimeMs) > ROUNDED_MS) lost.push('time')
  return lost
}

/** @returns what did not stay. */
export async function setFolder(
  absolute: string,
  meta: Meta,
  rights: TargetRights,
  durable: boolean,
): Promise<Attribute[]> {
  const fd = await open(absolute, FOLDER_FLAGS)
  try {
    const lost = await setOpen(fd, meta, rights)
    if (durable) await fsyncFolder(fd)
    return lost
  } finally {
    await close(fd)
  }
}

/**
 * Gives a restored folder the mode and mtime of the folder that was backed up: the root has no entry in its archive.
 * Call it last, since anything made in the folder moves its mtime. Where the file system has no modes or times, it is as
 * it can be.
 * @param meta - mode in permission bits (setuid, setgid and sticky only count when run as root), mtime in ms
 * @throws BackupError TARGET
 */
export async function applyFolder(target: string, meta: { mode: number; mtime: number }): Promise<void> {
  try {
    const fd = await open(target, fs.constants.O_RDONLY)
    try {
      await ifHad(fchmod(fd, meta.mode & (process.getuid?.() === 0 ? 0o7777 : 0o777)))
      await ifHad(futimes(fd, nsToTimeArgument(msToNs(meta.mtime))))
    } finally {
      await close(fd)
    }
  } catch (error) {
    throw targetError(target, error)
  }
}

/** The same of a file by itself. @returns what did not stay. @throws BackupError TARGET */
export async function applyFile(
  target: string,
  { mode, mtime }: { mode: number; mtime: number },
  modes: boolean,
): Promise<Attribute[]> {
  try {
    const fd = await open(target, fs.constants.O_RDONLY)
    try {
      const meta = { mode, mtimeNs: msToNs(mtime), uid: 0, gid: 0 }
      return await setOpen(fd, meta, { owners: false, specialBits: false, modes })
    } finally {
      await close(fd)
    }
  } catch (error) {
    throw targetError(target, error)
  }
}
