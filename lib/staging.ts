import { randomBytes } from 'node:crypto'
import { lstat, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { BackupError } from './errors.ts'

/**
 * Builds something beside its place and renames it there when it is whole: until then the place is as it was, and
 * after a failure nothing is left beside it.
 * @param target where it is to stand; its parent is made.
 * @param build makes the path that it is given, which does not exist yet.
 * @throws BackupError TARGET when the target is a file or not empty (unless `overwrite`), or cannot be written; what
 * `build` throws.
 */
export async function stage<T>(target: string, overwrite: boolean, build: (path: string) => Promise<T>): Promise<T> {
  const place = resolve(target)
  const staging = join(dirname(place), `.${basename(place)}.millrace-${randomBytes(6).toString('hex')}`)
  try {
    await mkdir(dirname(place), { recursive: true })
  } catch (cause) {
    throw new BackupError('TARGET', `The folder ${dirname(place)} cannot be made: ${(cause as Error).message}.`, {
      cause,
    })
  }
  try {
    const built = await build(staging)
    if (!overwrite) await checkTarget(place)
    await swapIn(staging, place)
    return built
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    throw error
  }
}

/** @throws BackupError TARGET unless nothing stands there, or an empty folder. */
export async function checkTarget(target: string): Promise<void> {
  const place = resolve(target)
  let entries: string[]
  try {
    entries = await readdir(place)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return
    if (code === 'ENOTDIR') {
      throw new BackupError('TARGET', `The target ${place} is a file. Name a folder that does not exist or is empty.`)
    }
    throw new BackupError('TARGET', `The target ${place} cannot be read: ${message}.`, { cause })
  }
  if (entries.length > 0) {
    throw new BackupError('TARGET', `The target ${place} is not empty. Name another folder, or ask to overwrite it.`)
  }
}

async function swapIn(staging: string, place: string): Promise<void> {
  const aside = `${staging}.old`
  const there = await exists(place)
  try {
    if (there) await rename(place, aside)
    await rename(staging, place)
  } catch (cause) {
    if (there && !(await exists(place))) await rename(aside, place)
    throw new BackupError(
      'TARGET',
      `What was restored cannot be put in place at ${place}: ${(cause as Error).message}.`,
      { cause },
    )
  }
  if (there) await rm(aside, { recursive: true, force: true })
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
