import { randomBytes } from 'node:crypto'
import { lstat, open, realpath, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ifHad } from './archive/attributes.ts'
import { BackupError } from './errors.ts'

/**
 * Whether what has this name takes what is written and is no file that a new one may be put in the place of: a device, a
 * pipe, or `/dev/stdout`. Root would be left without `/dev/null`.
 */
export async function isWrittenInPlace(file: string): Promise<boolean> {
  const there = await stat(file).catch(() => undefined)
  if (!there || there.isDirectory()) return false
  if (!there.isFile()) return true
  // A file that standard output goes to, by the name of a descriptor.
  return (await lstat(file)).isSymbolicLink() && /^\/(dev$|proc\/)/.test(await realpath(dirname(file)))
}

/**
 * Writes a file all at once: whoever reads it meanwhile sees the old one or the new one. A device or pipe is written to.
 * @param text its content, or what makes it.
 * @param options.mode of the new file; an umask takes nothing from it. A file system without modes has its own.
 * @param options.what the file's name in an error: `The report`.
 * @throws BackupError TARGET when it cannot be made or written; the old one is as it was then.
 */
export async function replaceFile(
  file: string,
  text: string | (() => Promise<string>),
  { mode, what }: { mode: number; what: string },
): Promise<void> {
  const partial = `${file}.${randomBytes(6).toString('hex')}`
  try {
    const content = typeof text === 'string' ? text : await text()
    if (await isWrittenInPlace(file)) return await writeFile(file, content)
    const handle = await open(partial, 'wx', mode)
    try {
      await ifHad(handle.chmod(mode))
      await handle.writeFile(content)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(partial, file)
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => {})
    throw new BackupError('TARGET', `${what} ${file} cannot be written: ${(cause as Error).message}.`, { cause })
  }
}
