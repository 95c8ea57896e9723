import { BackupError } from '../errors.ts'

/** What to do with names that Windows cannot hold: refuse the restore, write them otherwise, or leave them as they are. */
export type PortableNames = 'refuse' | 'map' | 'keep'

// learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved characters, device names (with any extension, and
// with the superscript digits), and the dots and spaces that are cut off at a name's end.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what Windows refuses
const HOSTILE = /[\u0000-\u001f<>:"|?*\\]/g
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?$/i
const LAST = /[. ]$/
/** What a mapped name looks like: escaped too, so that no two names become one. */
const ESCAPED = /%(?=[0-9A-F]{2})/g

/**
 * Makes what turns the paths of an archive into paths to write.
 * @returns a function of a relative path with slashes; its results are relative and as deep as what they are made of.
 * It throws BackupError TARGET for a name that Windows cannot hold, where these are refused.
 */
export function namePolicy(how: PortableNames): (path: string) => string {
  if (how === 'keep') return (path) => path
  const one = how === 'map' ? mapName : refuseName
  return (path) => path.split('/').map(one).join('/')
}

/** The policy where none is asked for: nothing is written under another name unless someone wants it. */
export function defaultPortableNames(): PortableNames {
  return process.platform === 'win32' ? 'refuse' : 'keep'
}

/** Whether a name is one that Windows cannot hold. */
export function isHostile(name: string): boolean {
  return name.search(HOSTILE) !== -1 || DEVICE.test(name) || LAST.test(name)
}

function refuseName(name: string): string {
  if (!isHostile(name)) return name
  throw new BackupError(
    'TARGET',
    `The name ${JSON.stringify(name)} cannot be written on Windows. Restore with portable names mapped (--portable-names map), or leave that file out.`,
  )
}

function mapName(name: string): string {
  const escaped = name.replace(ESCAPED, '%25').replace(HOSTILE, percent)
  if (DEVICE.test(escaped)) return percent(escaped[0] as string) + escaped.slice(1)
  return escaped.replace(LAST, percent)
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
}
