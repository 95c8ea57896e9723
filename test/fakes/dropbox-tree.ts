/** One revision of a file. */
export interface FakeFile {
  kind: 'file'
  display: string
  id: string
  rev: string
  size: number
  hash: string
  /** Absent where the fake keeps no bytes. */
  bytes: Buffer | undefined
  clientModified: string
  serverModified: string
}

/** A folder; what is in it is told by paths. */
export interface FakeFolder {
  kind: 'folder'
  display: string
  id: string
}

/** WriteMode. */
export type Mode = { '.tag': 'add' } | { '.tag': 'overwrite' } | { '.tag': 'update'; update: string }

/** CommitInfo, as far as it decides. */
export interface Commit {
  path: string
  mode: Mode
  strict: boolean
  clientModified: string | undefined
}

/** Why a path or a write is refused: the tags of LookupError or WriteError. */
export class TreeError extends Error {
  readonly tags: readonly string[]

  constructor(...tags: string[]) {
    super(tags.join('/'))
    this.tags = tags
  }
}

const DISALLOWED = /^(desktop\.ini|thumbs\.db|\.ds_store|\.dropbox|\.dropbox\.attr|\.dropbox\.cache)$/

/**
 * The files of one namespace. Names keep their case, and are looked up without it; all are in Unicode's form NFC. Old
 * revisions are kept.
 */
export class FakeTree {
  quotaBytes = Infinity
  /** Whether the revisions of what was deleted are kept too, as Dropbox does. */
  keepsDeleted = true
  readonly #entries = new Map<string, FakeFile | FakeFolder>()
  readonly #revisions = new Map<string, FakeFile>()
  #count = 0

  /** Every entry, folders too, in no order that means anything. */
  get entries(): (FakeFile | FakeFolder)[] {
    return [...this.#entries.values()]
  }

  get files(): FakeFile[] {
    return this.entries.filter((entry) => entry.kind === 'file')
  }

  /** By path, or by `rev:` or `id:`. @throws TreeError malformed_path */
  find(path: string): FakeFile | FakeFolder | undefined {
    if (path.startsWith('rev:')) return this.#revisions.get(path.slice(4))
    if (path.startsWith('id:')) return this.entries.find(({ id }) => id === path)
    checkPath(path)
    return this.#entries.get(lower(path))
  }

  /** What lies beneath a folder (`''`: the top). */
  beneath(folder: string, recursive: boolean): (FakeFile | FakeFolder)[] {
    const prefix = `${lower(folder)}/`
    return [...this.#entries]
      .filter(([path]) => path.startsWith(prefix) && (recursive || !path.slice(prefix.length).includes('/')))
      .map(([, entry]) => entry)
  }

  /** @returns the file that is there now, which is the old one where the same bytes were there. @throws TreeError */
  write(commit: Commit, content: { size: number; hash: string; bytes: Buffer | undefined }): FakeFile {
    const { mode, strict } = commit
    const path = commit.path.normalize('NFC')
    checkPath(path)
    const names = path.split('/').slice(1)
    if (names.some((name) => DISALLOWED.test(name.toLowerCase()))) throw new TreeError('disallowed_name')
    const there = this.#entries.get(lower(path))
    if (there?.kind === 'folder') throw new TreeError('conflict', 'folder')
    if (there && there.hash === content.hash) {
      if (strict) throw new TreeError('conflict', 'file')
      return there
    }
    if (there && !(mode['.tag'] === 'overwrite' || (mode['.tag'] === 'update' && mode.update === there.rev))) {
      throw new TreeError('conflict', 'file')
    }
    if (!there && mode['.tag'] === 'update' && strict) throw new TreeError('conflict', 'file')
    const used = this.files.reduce((sum, { size }) => sum + size, 0)
    if (used - (there?.size ?? 0) + content.size > this.quotaBytes) throw new TreeError('insufficient_space')
    const parent = this.#makeFolders(names.slice(0, -1))
    const now = `${new Date().toISOString().slice(0, 19)}Z`
    const file: FakeFile = {
      kind: 'file',
      display: there?.display ?? `${parent}/${names.at(-1)}`,
      id: there?.id ?? this.#id(),
      rev: `5e${(++this.#count).toString(16).padStart(12, '0')}`,
      ...content,
      clientModified: commit.clientModified ?? now,
      serverModified: now,
    }
    this.#entries.set(lower(path), file)
    this.#revisions.set(file.rev, file)
    return file
  }

  /** A folder goes with all that is in it. @throws TreeError */
  delete(path: string, parentRev?: string): FakeFile | FakeFolder {
    const there = this.find(path)
    if (!there) throw new TreeError('not_found')
    if (parentRev !== undefined && (there.kind === 'folder' || there.rev !== parentRev)) {
      throw new TreeError('conflict', there.kind)
    }
    const own = lower(path)
    for (const key of [...this.#entries.keys()]) {
      if (key !== own && !key.startsWith(`${own}/`)) continue
      const entry = this.#entries.get(key)
      if (!this.keepsDeleted && entry?.kind === 'file') this.#revisions.delete(entry.rev)
      this.#entries.delete(key)
    }
    return there
  }

  /** @returns the path of the deepest, in the case in which it was made. */
  #makeFolders(names: string[]): string {
    let display = ''
    for (const name of names) {
      const path = `${display}/${name}`
      const there = this.#entries.get(lower(path))
      if (there?.kind === 'file') throw new TreeError('conflict', 'file_ancestor')
      if (!there) this.#entries.set(lower(path), { kind: 'folder', display: path, id: this.#id() })
      display = there?.display ?? path
    }
    return display
  }

  #id(): string {
    return `id:fake${(++this.#count).toString().padStart(18, '0')}`
  }
}

/** A path as Dropbox compares it. */
export function lower(path: string): string {
  return path.normalize('NFC').toLowerCase()
}

/** https://www.dropbox.com/developers/documentation/http/documentation#path-formats, and what it was seen to refuse. */
function checkPath(path: string): void {
  const names = path.split('/').slice(1)
  const isBad = (name: string) =>
    name === '' || [...name].length > 255 || name.includes('\\') || name.endsWith(' ') || /\p{Cc}/u.test(name)
  if (!path.startsWith('/') || names.some(isBad)) throw new TreeError('malformed_path')
  // It stores names in this form, and does not find them by another: https://github.com/samschott/maestral/pull/678
  if (path.normalize('NFC') !== path) throw new TreeError('not_found')
}
