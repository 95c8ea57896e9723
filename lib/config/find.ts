import { constants } from 'node:fs'
import { access, lstat, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { BackupError } from '../errors.ts'

const FILE_NAME = 'millrace.yaml'

/** The folder that this runs in; undefined when it has been removed. */
export function currentFolder(): string | undefined {
  try {
    return process.cwd()
  } catch {
    return undefined
  }
}

/**
 * Finds the config file: the one that is given, else MILLRACE_CONFIG, else `millrace.yaml` in the current folder, in
 * `$XDG_CONFIG_HOME/millrace` (`~/.config/millrace`), or in `/etc/millrace`.
 * @returns its absolute path; undefined where there is none. One that is named need not be there: loading it says so.
 * @throws BackupError USAGE where the one in the current folder is another user's, and nobody has named it.
 */
export async function findConfigFile(given?: string): Promise<string | undefined> {
  const named = given ?? (process.env.MILLRACE_CONFIG || undefined)
  if (named !== undefined) return resolve(named)
  const current = currentFolder()
  const folders = [
    ...(current === undefined ? [] : [current]),
    join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'millrace'),
    ...(process.platform === 'win32' ? [] : ['/etc/millrace']),
  ]
  for (const folder of folders) {
    const file = join(folder, FILE_NAME)
    // One that is there and may not be read is found: passing it over would use another one. A folder that this user may
    // not look into is another user's, as after a change of user that kept HOME.
    const isThere = await access(file, constants.F_OK).then(
      () => true,
      () => false,
    )
    if (!isThere) continue
    if (folder === current) await checkOwner(file)
    return file
  }
  return undefined
}

/**
 * A config has commands run. Whoever happens to be in a folder that others write to, as /tmp, must not run theirs. By sudo
 * it may be of whoever called that, who can do as much as root anyway.
 */
async function checkOwner(file: string): Promise<void> {
  const own = process.getuid?.()
  if (own === undefined) return
  const trusted = [own, 0, ...(own === 0 ? [Number(process.env.SUDO_UID ?? 0)] : [])]
  // Where it is a symlink, both count.
  for (const look of [lstat, stat]) {
    const { uid } = await look(file)
    if (trusted.includes(uid)) continue
    throw new BackupError(
      'USAGE',
      `The config ${file} is of another user (uid ${uid}), who could have commands run in your name by it. If it is meant, name it: --config ${file}. Without it: --no-config.`,
    )
  }
}
