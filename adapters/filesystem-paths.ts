import type { BigIntStats } from 'node:fs'
import { lstat, mkdir, open, rmdir, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { StorageError, type StorageErrorCode } from './errors.ts'
import { checkKey, quoteKey } from './keys.ts'
import { isMounted } from './mounts.ts'

export const ADAPTER = 'filesystem'
/** Files of unfinished writes begin so, in the folder of their object; no key's segment may. */
export const TEMPORARY_PREFIX = '.millrace-tmp-'

/** statfs(2). */
export const FUSE_SUPER_MAGIC = 0x65735546

const CODES: Record<string, StorageErrorCode> = {
  ENOENT: 'NOT_FOUND',
  EACCES: 'ACCESS_DENIED',
  EPERM: 'ACCESS_DENIED',
  EROFS: 'ACCESS_DENIED',
  // Of Node's permission model.
  ERR_ACCESS_DENIED: 'ACCESS_DENIED',
  ENOSPC: 'QUOTA',
  EDQUOT: 'QUOTA',
  EFBIG: 'QUOTA',
  EEXIST: 'CONFLICT',
  EISDIR: 'INVALID',
  ENOTDIR: 'INVALID',
  ELOOP: 'INVALID',
  ENAMETOOLONG: 'INVALID',
}

const ADVICE: Record<string, string> = {
  NOT_FOUND: 'there is no such object',
  ACCESS_DENIED: 'access is denied; check the owner and the mode of the folder',
  QUOTA: 'the disk or the quota is full; make room and try again',
  CONFLICT: 'there is an object of that key already',
  EROFS: 'the file system is read-only',
  ERR_ACCESS_DENIED: 'Node’s permission model does not allow it; the guide on security says what it allows',
  EFBIG: 'the file is larger than the file system or a limit (ulimit -f) allows: FAT takes 4 GiB at most',
  EISDIR: 'a folder is in the way',
  ENOTDIR: 'a file is in the way of a folder',
  ELOOP: 'a symbolic link is in the way, and none is followed beneath the root',
}

/** Errors of Linux that Node has no names for, by their numbers: its code is "Unknown system error -122" then. */
const UNNAMED: Record<number, string> = { [-116]: 'ESTALE', [-122]: 'EDQUOT' }

/** The code of a system error, as ENOENT. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, errno } = error as NodeJS.ErrnoException
  if (typeof code !== 'string') return undefined
  return (process.platform === 'linux' && errno !== undefined && UNNAMED[errno]) || code
}

/** A file where the key has a folder means that there can be no such object, as surely as ENOENT does. */
export function isAbsence(error: unknown): boolean {
  return errorCode(error) === 'ENOENT' || errorCode(error) === 'ENOTDIR'
}

/**
 * Turns an error of node:fs into the StorageError that callers tell apart. Any other error comes back as it is.
 * @param root where the disk is, for whoever has to make room on it, and what it is about where there is no key.
 */
export function toStorageError(error: unknown, operation: string, key?: string, root?: string): unknown {
  const code = errorCode(error)
  if (code === undefined || error instanceof StorageError || (error as Error).name === 'AbortError') return error
  const mapped = CODES[code] ?? 'UNAVAILABLE'
  const full =
    mapped === 'QUOTA' && code !== 'EFBIG' && root !== undefined
      ? `the disk or the quota at ${root} is full; make room and try again`
      : undefined
  const advice = full ?? ADVICE[code] ?? ADVICE[mapped] ?? (error as Error).message
  const named = key === undefined ? root : quoteKey(key)
  const target = named === undefined ? '' : ` ${named}`
  const details = { code: mapped, adapter: ADAPTER, operation, retryable: false, cause: error }
  return new StorageError(
    `${operation}${target}: ${advice} (${code}).`,
    key === undefined ? details : { ...details, key },
  )
}

/** What changes whenever a file is replaced or written to. */
export function versionOf(stats: BigIntStats): string {
  return `${stats.ino}-${stats.mtimeNs}-${stats.size}`
}

/** The size that a version is of. */
export function sizeIn(version: string): string | undefined {
  return version.split('-').at(-1)
}

/** @throws StorageError INVALID for a bad key, or one that could be taken for a temporary file. */
export function checkFileKey(key: string, operation: string): void {
  checkKey(key, ADAPTER, operation)
  if (key.split('/').some((segment) => segment.startsWith(TEMPORARY_PREFIX))) {
    const message = `The key ${quoteKey(key)} has a segment that begins with ${TEMPORARY_PREFIX}, which is reserved.`
    throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation, key })
  }
}

/**
 * The folders beneath a root: from keys to paths, made when a write needs them, and removed again when empty. Only
 * folders that this object made are ever removed, so that one which somebody prepared keeps its owner and mode.
 */
export class Folders {
  readonly root: string
  readonly #mountPoint: string | undefined
  readonly #made = new Set<string>()

  constructor(root: string, mountPoint?: string) {
    this.root = root
    this.#mountPoint = mountPoint
  }

  /** @throws StorageError UNAVAILABLE where nothing is mounted at what has to be a mount point. */
  async checkMounted(): Promise<void> {
    const folder = this.#mountPoint
    if (folder === undefined || (await isMounted(folder))) return
    throw new StorageError(
      `Nothing is mounted at ${folder}, where ${this.root} is to be: neither read nor written there. Mount it, or take mountPoint away if it needs no mount.`,
      { code: 'UNAVAILABLE', adapter: ADAPTER, operation: 'open', retryable: false },
    )
  }

  pathOf(key: string): string {
    return join(this.root, ...key.split('/'))
  }

  /**
   * Refuses a key whose folders lead through a symbolic link: beneath the root none is followed, so that no key can
   * name a file outside it. The root itself may be a link. A folder that is missing is no fault.
   * @throws an error with code ELOOP or ENOTDIR
   */
  async check(key: string): Promise<void> {
    await this.checkMounted()
    for (const path of this.#foldersOf(key)) {
      const present = await assertFolder(path).then(
        () => true,
        (error) => {
          if (errorCode(error) === 'ENOENT') return false
          throw error
        },
      )
      if (!present) return
    }
  }

  /** Makes the folders that a key needs, the root with its own parents among them. */
  async make(key: string): Promise<void> {
    await this.checkMounted()
    await this.#makeRoot(this.root)
    for (const path of this.#foldersOf(key)) {
      await this.#makeOne(path)
      await assertFolder(path)
    }
  }

  /** Removes the key's folders while they are empty and of our making, from the innermost outwards. */
  async prune(key: string): Promise<void> {
    for (let path = dirname(this.pathOf(key)); this.#made.has(path); path = dirname(path)) {
      const removed = await rmdir(path).then(
        () => true,
        () => false,
      )
      if (!removed) return
      this.#made.delete(path)
    }
  }

  #foldersOf(key: string): string[] {
    const segments = key.split('/').slice(0, -1)
    return segments.map((_, index) => join(this.root, ...segments.slice(0, index + 1)))
  }

  async #makeRoot(path: string): Promise<void> {
    try {
      await this.#makeOne(path)
    } catch (error) {
      if (errorCode(error) !== 'ENOENT' || dirname(path) === path) throw error
      await this.#makeRoot(dirname(path))
      await this.#makeOne(path)
    }
    await this.#assertLeads(path)
  }

  /** A link to a disk that is not mounted is there, and nothing can be made in it. */
  async #assertLeads(path: string): Promise<void> {
    await stat(path).catch(async (cause) => {
      // One that another writer made and has removed again is made anew.
      if (errorCode(cause) !== 'ENOENT' || !(await isLink(path))) throw cause
      throw new StorageError(
        `Nothing can be written to ${this.root}: the symlink ${path} leads nowhere. Mount or make what it leads to.`,
        { code: 'UNAVAILABLE', adapter: ADAPTER, operation: 'write', retryable: false, cause },
      )
    })
  }

  async #makeOne(path: string): Promise<void> {
    try {
      await mkdir(path, { mode: 0o700 })
    } catch (error) {
      if (errorCode(error) === 'EEXIST') return
      throw error
    }
    this.#made.add(path)
    await syncFolder(dirname(path))
  }
}

async function assertFolder(path: string): Promise<void> {
  const stats = await lstat(path)
  if (stats.isDirectory()) return
  throw Object.assign(new Error(`${path} is no folder`), { code: stats.isSymbolicLink() ? 'ELOOP' : 'ENOTDIR' })
}

/**
 * Whether a path is on a mount by FUSE. Some make inode numbers of names, so that a rename changes them, and give a file
 * another time once they have sent it to where it is kept, as rclone does.
 */
export async function isFuse(path: string): Promise<boolean> {
  return (await statfs(path)).type === FUSE_SUPER_MAGIC
}

function isLink(path: string): Promise<boolean> {
  return lstat(path).then(
    (stats) => stats.isSymbolicLink(),
    () => false,
  )
}

/** Whether a mount says that it cannot sync a folder, as some of networks and FUSE do: it has nothing better to offer. */
export function isNoFolderSync(error: unknown): boolean {
  return errorCode(error) === 'EINVAL' || errorCode(error) === 'ENOTSUP'
}

/** Makes the names in a folder durable; a rename is not, until this. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } catch (error) {
    if (!isNoFolderSync(error)) throw error
  } finally {
    await handle.close()
  }
}
