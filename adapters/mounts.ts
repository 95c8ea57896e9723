import { opendir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'

/** What is mounted where. */
export interface Mount {
  /** The folder, with all symlinks followed. */
  path: string
  /** The file system's type; `autofs` where one is mounted when it is used. */
  type: string
}

/**
 * All that is mounted, for this process; a later one covers an earlier one of its path. proc(5), mountinfo.
 * @returns nothing where the kernel has no such list.
 */
export async function readMounts(): Promise<Mount[]> {
  const list = await readFile('/proc/self/mountinfo', 'latin1').catch(() => '')
  return list.split('\n').flatMap((line) => {
    const [fields = '', after = ''] = line.split(' - ')
    const path = fields.split(' ')[4]
    const [type = ''] = after.split(' ')
    return path === undefined ? [] : { path: unescaped(path), type }
  })
}

/** Octal for what would end a field; bytes, which need not be UTF-8. */
function unescaped(path: string): string {
  const bytes = path.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
  return Buffer.from(bytes, 'latin1').toString()
}

/** Whether a file system is mounted at just this folder; the look mounts one that an automounter has there. */
export async function isMounted(folder: string): Promise<boolean> {
  try {
    await (await opendir(folder)).close()
    const real = await realpath(folder)
    const mounts = await readMounts()
    if (mounts.length > 0) {
      const found = mounts.findLast(({ path }) => path === real)
      return found !== undefined && found.type !== 'autofs'
    }
    return (await stat(real)).dev !== (await stat(dirname(real))).dev
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(String((error as NodeJS.ErrnoException).code))) return false
    throw error
  }
}

/** What a path is on, or will be, with all symlinks followed; undefined where that cannot be said. */
export async function mountOf(path: string): Promise<Mount | undefined> {
  const real = await realPath(path)
  const around = (await readMounts()).filter((mount) => isWithin(real, mount.path))
  return around.toSorted((a, b) => a.path.length - b.path.length).at(-1)
}

/** The path with all symlinks followed, also of what is not there yet. */
export async function realPath(path: string): Promise<string> {
  const absent: string[] = []
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      return join(await realpath(at), ...absent)
    } catch {
      if (dirname(at) === at) return resolve(path)
      absent.unshift(basename(at))
    }
  }
}

/** Whether a path is a folder itself or in it, by their names alone. */
export function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path)
  return way.split(sep)[0] !== '..' && !isAbsolute(way)
}
