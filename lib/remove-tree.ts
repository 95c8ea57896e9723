import { randomBytes } from 'node:crypto'
import { chmod, lstat, readdir, rename, rmdir, unlink } from 'node:fs/promises'
import { errnoOf } from './archive/io.ts'

/** Names of one folder that are removed at the same time. */
const AT_ONCE = 32
/** Of a path, in bytes, where it could become too long for the system: what is there is moved up. */
const LONG_PATH_BYTES = 3000
const SLASH = Buffer.from('/')

/**
 * Removes a file, or a folder with all in it, folders that their owner has closed too; what is not there is removed
 * already. Not by `rm` of node:fs, which begins with all of a tree at once: gigabytes of memory for a million files.
 * What is held here is the names of one folder a level.
 * @throws the error of node:fs.
 */
export async function removeTree(path: string): Promise<void> {
  const top = Buffer.from(path)
  if (!(await isRemoved(top))) await removeFolder(top, top)
}

async function removeFolder(path: Buffer, top: Buffer): Promise<void> {
  try {
    await emptyFolder(path, top)
  } catch (error) {
    // Another process removes it as well.
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}

/** @returns false for a folder, which is left. */
async function isRemoved(path: Buffer): Promise<boolean> {
  try {
    await unlink(path)
    return true
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT') return true
    if (code === 'EISDIR') return false
    // POSIX has it for folders as well.
    if (code === 'EPERM' && (await lstat(path)).isDirectory()) return false
    throw error
  }
}

async function emptyFolder(given: Buffer, top: Buffer): Promise<void> {
  const path = given.length > LONG_PATH_BYTES ? await movedUp(given, top) : given
  const names = await namesIn(path)
  // One char is one byte: names need not be UTF-8.
  const pathOf = (name: string) => Buffer.concat([path, SLASH, Buffer.from(name, 'latin1')])
  const folders: string[] = []
  const work = async (): Promise<void> => {
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      if (!(await isRemoved(pathOf(name)))) folders.push(name)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  for (const name of folders) await removeFolder(pathOf(name), top)
  await rmdir(path)
}

/** The names in a folder, which is opened for its owner first: nothing can be removed from it otherwise. */
async function namesIn(path: Buffer): Promise<string[]> {
  // Of somebody else's the rights may do as they are.
  if (process.getuid?.() !== 0) await chmod(path, 0o700).catch(() => {})
  return readdir(path, { encoding: 'latin1' })
}

async function movedUp(path: Buffer, top: Buffer): Promise<Buffer> {
  const short = Buffer.concat([top, SLASH, Buffer.from(`.${randomBytes(8).toString('hex')}`)])
  await rename(path, short)
  return short
}
