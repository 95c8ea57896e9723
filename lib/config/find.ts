import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

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
    if (isThere) return file
  }
  return undefined
}
