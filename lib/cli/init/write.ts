import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { copyFile, link, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { BackupError } from '../../errors.ts'
import { removeEmptyFolders } from '../../folders.ts'
import type { SecretBox } from './secret-box.ts'

/**
 * Writes the config and its secrets: all of it, or nothing.
 * @param replace a config that is there is kept beside it under another name, and replaced; without it, it is an error.
 * @returns the copy's name, where there was something to keep.
 * @throws BackupError TARGET when it cannot be written; nothing is left then.
 */
export async function writeConfig(
  file: string,
  text: string,
  box: SecretBox,
  { replace, now = new Date() }: { replace: boolean; now?: Date },
): Promise<{ copy: string | undefined }> {
  const undo: (() => Promise<unknown>)[] = []
  try {
    // Of several folders that are made, the first is what this gives.
    const made = await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    if (made !== undefined) undo.push(() => removeEmptyFolders(dirname(file), made))
    undo.push(await box.write())
    const temporary = `${file}.${randomBytes(6).toString('hex')}`
    undo.push(() => rm(temporary, { force: true }))
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    let copy: string | undefined
    if (replace) {
      const name = `${file}.${now.toISOString().replaceAll(/[:.]/g, '-')}.bak`
      // A second name for the old one, and then its first for the new one: there is no moment without a config.
      copy = await linkOrCopy(file, name).then(
        () => name,
        (error: NodeJS.ErrnoException) => {
          if (error.code === 'ENOENT') return undefined
          throw error
        },
      )
      if (copy !== undefined) undo.push(() => rm(name, { force: true }))
      await rename(temporary, file)
    } else {
      await linkOrCopy(temporary, file)
      await rm(temporary)
    }
    return { copy }
  } catch (cause) {
    for (const step of undo.reverse()) await step().catch(() => {})
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'EEXIST' ? 'it is there by now' : message
    throw new BackupError('TARGET', `The config ${file} was not written: ${why}.`, { cause })
  }
}

/** Gives a file a second name, where that is free; a copy of it on file systems without hard links. */
async function linkOrCopy(file: string, name: string): Promise<void> {
  try {
    await link(file, name)
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(code)) throw error
    await copyFile(file, name, constants.COPYFILE_EXCL)
  }
}
