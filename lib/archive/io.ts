import fs, { type BigIntStats } from 'node:fs'
import { errorCode as errnoOf, isNoFolderSync } from '../../adapters/filesystem-paths.ts'
import { isAbort } from '../../adapters/retry.ts'
import { BackupError } from '../errors.ts'
import { isHostile } from './portable-names.ts'

/*
 * Thin promises over fs's callbacks: fs.promises costs a FileHandle object an open file, and a folder of a million
 * small files is mostly opening and closing.
 */

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = fs.constants

/** What FAT, exFAT, NTFS and shares say of a name that they cannot hold. */
const NAME_REFUSED = new Set(['EINVAL', 'ENOENT', 'EPERM', 'EIO', 'EILSEQ'])
const NAME_HINT =
  '. The file system of the target may have no such name: --portable-names map writes what Windows cannot hold otherwise.'

/** Never through a symlink, and without waiting for the other side of a fifo that took the place of a file. */
export const READ_FLAGS = O_RDONLY | (O_NOFOLLOW ?? 0) | (O_NONBLOCK ?? 0)
/** A new file or EEXIST: never an old one, never through a symlink. */
export const CREATE_FLAGS = O_WRONLY | O_CREAT | O_EXCL | (O_NOFOLLOW ?? 0)
export const FOLDER_FLAGS = O_RDONLY | (O_DIRECTORY ?? 0) | (O_NOFOLLOW ?? 0)

export function open(path: string, flags: number, mode?: number): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.open(path, flags, mode, (error, fd) => (error ? reject(error) : resolve(fd))),
  )
}

export function close(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fs.close(fd, (error) => (error ? reject(error) : resolve())))
}

export function fstat(fd: number): Promise<BigIntStats> {
  return new Promise((resolve, reject) =>
    fs.fstat(fd, { bigint: true }, (error, stat) => (error ? reject(error) : resolve(stat))),
  )
}

export function lstat(path: string): Promise<BigIntStats> {
  return new Promise((resolve, reject) =>
    fs.lstat(path, { bigint: true }, (error, stat) => (error ? reject(error) : resolve(stat))),
  )
}

export function read(fd: number, out: Buffer, at: number, bytes: number, position: number): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.read(fd, out, at, bytes, position, (error, got) => (error ? reject(error) : resolve(got))),
  )
}

/** Writes what it can of `data` from `at` on; to `position` of the file, or null for where it is. @returns how much. */
export function write(fd: number, data: Buffer, at: number, position: number | null): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.write(fd, data, at, data.length - at, position, (error, written) => (error ? reject(error) : resolve(written))),
  )
}

/** Writes all of `data` at the file's own position. */
export async function writeAll(fd: number, data: Buffer): Promise<void> {
  for (let at = 0; at < data.length; ) at += await write(fd, data, at, null)
}

export function fchmod(fd: number, mode: number): Promise<void> {
  return new Promise((resolve, reject) => fs.fchmod(fd, mode, (error) => (error ? reject(error) : resolve())))
}

export function fchown(fd: number, uid: number, gid: number): Promise<void> {
  return new Promise((resolve, reject) => fs.fchown(fd, uid, gid, (error) => (error ? reject(error) : resolve())))
}

export function fsync(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fs.fsync(fd, (error) => (error ? reject(error) : resolve())))
}

/** The same of a folder, where its file system can. */
export async function fsyncFolder(fd: number): Promise<void> {
  await fsync(fd).catch((error: unknown) => {
    if (!isNoFolderSync(error)) throw error
  })
}

export function futimes(fd: number, time: number | Date): Promise<void> {
  return new Promise((resolve, reject) => fs.futimes(fd, time, time, (error) => (error ? reject(error) : resolve())))
}

export { errnoOf }

/** Whether an error says that a path leads nowhere any more. */
export function isGone(error: unknown): boolean {
  const code = errnoOf(error)
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ESTALE'
}

/** One sentence for a system error; `what` is the start of it, as "Cannot read x". */
export function explain(what: string, error: unknown): string {
  const reasons: Record<string, string> = {
    ENOENT: 'it does not exist',
    ENOTDIR: 'it is not a folder',
    EACCES: 'permission denied',
    EPERM: 'not permitted',
    EIO: 'the disk reports a read or write error (EIO)',
    ENOSPC: 'the disk is full',
    EDQUOT: 'the disk quota is used up',
    EFBIG: 'the file is larger than this system or its limits allow',
    EROFS: 'the file system is read-only',
    ESTALE: 'it is gone from the share that it was on (ESTALE)',
    ENOTCONN: 'its disk or share is gone, or the program that mounts it (ENOTCONN)',
    EMFILE: 'too many open files',
    ENFILE: 'too many open files',
    ENAMETOOLONG: 'the path is too long',
    ELOOP: 'it is a symlink, or there are too many on the way',
  }
  const code = errnoOf(error)
  const reason = (code && reasons[code]) ?? (error instanceof Error ? error.message : String(error))
  return `${what}: ${reason}`
}

/** The error of a path that cannot be written; an abort is none. */
export function targetError(path: string, cause: unknown): unknown {
  if (cause instanceof BackupError || isAbort(cause) || errnoOf(cause) === undefined) return cause
  const message = explain(`Cannot write ${path}`, cause)
  const hint = NAME_REFUSED.has(errnoOf(cause) ?? '') && path.split('/').some(isHostile) ? NAME_HINT : ''
  return new BackupError('TARGET', message + hint, { cause })
}

/** The error of an entry that would lead out of the folder, or through what it may not. */
export function unsafe(path: string, why: string): BackupError {
  return new BackupError('UNSAFE_ARCHIVE', `The archive entry ${path} ${why}; nothing was written through it`)
}
