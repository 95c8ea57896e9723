import type { ArchiveWarning } from './entry.ts'
import { errnoOf, explain } from './io.ts'

/** What a file system may not keep of a file or folder. */
export type Attribute = 'owner' | 'mode' | 'time'

const NAMES: Record<Attribute, string> = { owner: 'owners', mode: 'modes', time: 'times' }
const ADVICE: Record<Attribute, string> = {
  owner: ' (--no-owner asks for none)',
  mode: ' (--no-mode asks for none)',
  time: '',
}

/** What file systems say that do not have a thing: FAT, exFAT, network shares and what is mounted by FUSE. */
const NOT_HAD = new Set(['EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL', 'EOVERFLOW'])
/** Some say it as if the disk were at fault, as rclone does of links; others, of how many there may be or where. */
const NO_LINK = new Set([...NOT_HAD, 'EIO', 'EMLINK', 'EXDEV'])

/** Whether an error of chown, chmod or utimes says that the file system has no such thing, or not this one. */
export function isNotHad(error: unknown): boolean {
  return NOT_HAD.has(errnoOf(error) ?? '')
}

/** The same of a symlink or hard link. */
export function isNoLink(error: unknown): boolean {
  return NO_LINK.has(errnoOf(error) ?? '')
}

/** What the file system of a target cannot hold: told once for all files and folders, with the first of them. */
export class Shortfalls {
  readonly #warn: (warning: ArchiveWarning) => void
  readonly #attributes = new Map<Attribute, { path: string; count: number }>()

  constructor(warn: (warning: ArchiveWarning) => void = () => {}) {
    this.#warn = warn
  }

  /** Counts attributes that did not stay. */
  note(path: string, attributes: readonly Attribute[]): void {
    for (const attribute of attributes) {
      const found = this.#attributes.get(attribute)
      if (found) found.count++
      else this.#attributes.set(attribute, { path, count: 1 })
    }
  }

  /** Warns of something that is not there, or not as it was. */
  tell(path: string, message: string, cause?: unknown): void {
    this.#warn({ kind: 'unsupported', path, message, cause })
  }

  /** Of a symlink or hard link. */
  link(path: string, what: string, cause: unknown): void {
    this.tell(path, explain(what, cause), cause)
  }

  /** Warns of the attributes that were counted. */
  report(): void {
    for (const [attribute, { path, count }] of this.#attributes) {
      const others = count === 1 ? '' : ` and ${count - 1} more`
      const message = `The file system of the target does not keep ${NAMES[attribute]} as they were: ${path}${others}${ADVICE[attribute]}`
      this.tell(path, message)
    }
    this.#attributes.clear()
  }
}
