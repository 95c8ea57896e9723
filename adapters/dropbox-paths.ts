import { StorageError } from './errors.ts'
import { checkKey, quoteKey } from './keys.ts'

export const ADAPTER = 'dropbox'

/** Characters in one name: https://github.com/dropbox/dropbox-sdk-java/issues/229 */
const NAME_MAX_CHARACTERS = 255
/** Dropbox never keeps files of these names: https://help.dropbox.com/sync/files-not-syncing */
const DISALLOWED = new Set(['desktop.ini', 'thumbs.db', '.ds_store', '.dropbox', '.dropbox.attr', '.dropbox.cache'])

/**
 * Keys as paths beneath a root folder, and back. A name that Dropbox would not keep as it is gets the troubling
 * characters percent-encoded, and a percent sign that would then be misread as well; all others stay as they are.
 */
export class DropboxPaths {
  /** `''` for the top, else `/like/this`. */
  readonly root: string
  readonly #depth: number

  /** @throws StorageError INVALID for a root that is no folder's path. */
  constructor(root = '') {
    const inner = root.replace(/^\/+|\/+$/g, '')
    if (inner !== '') {
      checkKey(inner, ADAPTER, 'open')
      if (encode(inner) !== inner) {
        const message = `The root ${quoteKey(root)} has a name that Dropbox does not keep as it is; choose another.`
        throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
      }
    }
    this.root = inner === '' ? '' : `/${inner}`
    this.#depth = inner === '' ? 0 : inner.split('/').length
  }

  /** @throws StorageError INVALID for a key that breaks the rules, or has a name too long for Dropbox once encoded. */
  pathOf(key: string, operation: string): string {
    checkKey(key, ADAPTER, operation)
    const encoded = encode(key)
    for (const name of encoded.split('/')) {
      if ([...name].length <= NAME_MAX_CHARACTERS) continue
      const message = `The key ${quoteKey(key)} has a segment that is longer than Dropbox takes, once it is encoded.`
      throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation })
    }
    return `${this.root}/${encoded}`
  }

  /**
   * The folder to list for a prefix: the deepest that has all of its keys.
   * @returns undefined for a prefix that no key begins with.
   */
  folderOf(prefix: string): string | undefined {
    const slash = prefix.lastIndexOf('/')
    if (slash < 0) return this.root
    try {
      return this.pathOf(prefix.slice(0, slash), 'list')
    } catch {
      return undefined
    }
  }

  /**
   * The key of a path that Dropbox shows.
   * @returns undefined for one that no key of ours leads to.
   */
  keyOf(path: string | undefined): string | undefined {
    if (path === undefined) return undefined
    // By depth: Dropbox may show the root in another case than it was given in.
    const inner = path
      .split('/')
      .slice(1 + this.#depth)
      .join('/')
    const key = decode(inner)
    if (encode(key) !== inner) return undefined
    try {
      checkKey(key, ADAPTER, 'list')
    } catch {
      return undefined
    }
    return key
  }
}

function encode(key: string): string {
  return key.split('/').map(encodeName).join('/')
}

function encodeName(name: string): string {
  let encoded = name.replace(/%(?=[0-9A-F]{2})/g, '%25').replaceAll('\\', '%5C')
  // Dropbox stores names in this form, and does not find them by another.
  if (encoded.normalize('NFC') !== encoded) encoded = encoded.replace(/[^\0-\x7e]/gu, percent)
  if (encoded.endsWith(' ')) encoded = `${encoded.slice(0, -1)}%20`
  if (DISALLOWED.has(encoded.toLowerCase()) || /^(~\$|\.~)|^~.*\.tmp$/i.test(encoded)) {
    encoded = percent(encoded[0]!) + encoded.slice(1)
  }
  return encoded
}

function percent(character: string): string {
  let encoded = ''
  for (const byte of Buffer.from(character)) encoded += `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  return encoded
}

/** Undoes `encode`. What it was given may be no encoded path at all: encoding the result again tells. */
function decode(path: string): string {
  // Runs of escapes are decoded together, as several bytes make one character.
  return path.replace(/(?:%[0-9A-F]{2})+/g, (run) => Buffer.from(run.replaceAll('%', ''), 'hex').toString('utf8'))
}
