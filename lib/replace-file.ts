import { randomBytes } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { ifHad } from './archive/attributes.ts'
import { BackupError } from './errors.ts'

/**
 * Writes a file all at once: whoever reads it meanwhile sees the old one or the new one.
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
