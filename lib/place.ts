import { createHash } from 'node:crypto'
import { constants, renameSync } from 'node:fs'
import { access, chmod, lstat, readdir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { isWithin, readMounts } from '../adapters/mounts.ts'
import { BackupError } from './errors.ts'
import { makeFolders } from './folders.ts'

/** Of a target's name, what fits into the name of the folder beside it; names end at 255 bytes. */
const NAME_PART_BYTES = 200
/** What a new file system has at its top: nobody's data, and not to be moved. */
const FILE_SYSTEM_OWN = 'lost+found'

/** Where something is restored to, and where it is built before. */
export interface Place {
  /** The target, absolute, symlinks to it followed. */
  path: string
  /** The folder that staging folders are made in. */
  around: string
  /** Whether that is the target itself: where it is a mount point, or its parent cannot be written. */
  inside: boolean
  /** What the names of its staging folders begin with. */
  prefix: string
}

/**
 * Finds out where a target is to be built: beside it, or inside it where nothing can be renamed into its place.
 * @throws BackupError USAGE for no name at all; TARGET for a symlink that leads nowhere, a folder that cannot be
 * read, or a device, pipe or socket.
 */
export async function findPlace(target: string): Promise<Place> {
  // It would be the folder that the program runs in.
  if (target === '') throw new BackupError('USAGE', 'The target is empty text. Name the folder to restore into.')
  let path = resolve(target)
  try {
    if ((await lstat(path)).isSymbolicLink()) path = await realpath(path)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code !== 'ENOENT') throw new BackupError('TARGET', `The target ${path} cannot be read: ${message}.`, { cause })
    if (await isThere(path)) {
      throw new BackupError('TARGET', `The target ${path} is a symlink that leads nowhere. Name the folder itself.`, {
        cause,
      })
    }
  }
  const found = await stat(path).catch(() => undefined)
  if (found && !found.isDirectory() && !found.isFile()) {
    // A file in the place of a disk would be told as restored, and nothing would be on the disk.
    const advice =
      'it is never replaced. Name a folder or file, or write one file to it: `millrace cat ID PATH > DEVICE`.'
    throw new BackupError('TARGET', `The target ${path} is a device, pipe or socket: ${advice}`)
  }
  const inside = await mustBeInside(path)
  return { path, around: inside ? path : dirname(path), inside, prefix: prefixOf(path, inside) }
}

function prefixOf(path: string, inside: boolean): string {
  if (inside) return '.millrace-'
  const name = basename(path)
  const short = Buffer.byteLength(name) <= NAME_PART_BYTES
  return `.${short ? name : createHash('sha256').update(name).digest('hex')}.millrace-`
}

async function mustBeInside(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  if (!found?.isDirectory()) return false
  const parent = dirname(path)
  if (parent === path || (await stat(parent)).dev !== found.dev || (await isMountPoint(path))) return true
  return access(parent, constants.W_OK | constants.X_OK).then(
    () => false,
    () => true,
  )
}

/** A bind mount has its parent's device number: only the kernel's list tells. */
async function isMountPoint(path: string): Promise<boolean> {
  const real = await realpath(path)
  return (await readMounts()).some((one) => one.path === real)
}

/** Where in a folder something is mounted, as paths that begin with the folder's as it is given. */
export async function mountsIn(folder: string): Promise<string[]> {
  const real = await realpath(folder).catch(() => undefined)
  if (real === undefined) return []
  const within = (await readMounts()).filter(({ path }) => path !== real && isWithin(path, real))
  return within.map(({ path }) => join(folder, relative(real, path)))
}

/**
 * Checks that a target may be moved aside and removed.
 * @throws BackupError TARGET where something is mounted in it, whose files would be removed, or moved out of sight.
 */
export async function checkOverwrite({ path }: Place): Promise<void> {
  const [mounted] = await mountsIn(path)
  if (mounted === undefined) return
  throw new BackupError(
    'TARGET',
    `The target ${path} cannot be overwritten: something is mounted in it, at ${mounted}. Unmount it first, restore to another folder, or merge.`,
  )
}

/**
 * Checks that a target may become the restored folder.
 * @throws BackupError TARGET unless nothing stands there, or an empty folder.
 */
export async function checkTarget(place: Place): Promise<void> {
  const { path } = place
  let entries: string[]
  try {
    entries = await contentOf(place)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return
    if (code === 'ENOTDIR') {
      throw new BackupError('TARGET', `The target ${path} is a file. Name a folder that does not exist or is empty.`)
    }
    throw new BackupError('TARGET', `The target ${path} cannot be read: ${message}.`, { cause })
  }
  if (entries.length > 0) {
    throw new BackupError(
      'TARGET',
      `The target ${path} is not empty. Name another folder, or ask to overwrite it (--overwrite) or to merge into it (--merge).`,
    )
  }
}

/** The names in a target that are somebody's: not its staging folders, nor what belongs to the file system. */
export async function contentOf(place: Place): Promise<string[]> {
  const names = await readdir(place.path)
  if (!place.inside) return names
  return names.filter((name) => !name.startsWith(place.prefix) && name !== FILE_SYSTEM_OWN)
}

/** Makes the folder around a place. @throws BackupError TARGET. */
export async function makeAround({ around }: Place): Promise<void> {
  try {
    await makeFolders(around)
  } catch (cause) {
    throw new BackupError('TARGET', `The folder ${around} cannot be made: ${(cause as Error).message}.`, { cause })
  }
}

/** Whether anything has this name, a dangling symlink too. */
export async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

/** Renames; a folder that its owner may not write to is opened for it, since its `..` changes. */
export async function moveTo(from: string, to: string): Promise<void> {
  const { mode } = await lstat(from)
  const isClosed = process.getuid?.() !== 0 && (mode & 0o170000) === 0o040000 && (mode & 0o200) === 0
  if (isClosed) await chmod(from, (mode & 0o7777) | 0o200)
  renameSync(from, to)
  if (isClosed) await chmod(to, mode & 0o7777)
}
