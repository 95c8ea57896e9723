import { StorageError } from './errors.ts'
import type { DriveCall, DriveConnection } from './google-drive-client.ts'
import { ADAPTER, driveError } from './google-drive-errors.ts'
import {
  byAge,
  type DriveFile,
  FOLDER_TYPE,
  getFile,
  inParents,
  quoteQuery,
  removeFile,
  search,
} from './google-drive-files.ts'
import { DriveFolders } from './google-drive-folders.ts'
import { checkKey, quoteKey } from './keys.ts'

/** For how long, and for how many files, what was done here is trusted more than what a listing shows. */
const MEMORY_MS = 10 * 60_000
const MEMORY_FILES = 1000

/** A file, and the key that it stands for. */
export interface Entry {
  key: string
  file: DriveFile
}

/**
 * Finds the file of a key, among files that have ids and no unique names, by listings that can lag. Of several files of
 * one name the newest counts, and all of them go when the key is deleted.
 */
export class DriveCatalog {
  readonly folders: DriveFolders
  readonly #connection: DriveConnection
  /** By key: the ids of files that were written from here. */
  readonly #written = new Memory<string[]>()
  /** By id: files that are gone; `true` where they were removed from here, and so rightly. */
  readonly #gone = new Memory<boolean>()

  constructor(connection: DriveConnection) {
    this.#connection = connection
    this.folders = new DriveFolders(connection)
  }

  /** @throws StorageError NOT_FOUND; UNAVAILABLE while a listing shows only what is gone. */
  async lookup(key: string, call: DriveCall): Promise<DriveFile> {
    const { files, ghosts } = await this.#candidates(key, 'stat', call)
    const [newest] = files
    if (newest) return newest
    if (ghosts) throw this.lagging(key)
    const message = `Google Drive: there is no object ${quoteKey(key)}.`
    throw driveError('NOT_FOUND', 'stat', message, { key })
  }

  /** Every object whose key starts with `prefix`. A folder is read whole before its first object is given. */
  async *list(prefix: string, call: DriveCall): AsyncGenerator<Entry> {
    const slash = prefix.indexOf('/')
    if (slash >= 0) {
      yield* this.#listFolder(prefix.slice(0, slash), prefix, call)
      return
    }
    const shown = new Map<string, DriveFile[]>()
    yield* this.#listFolder(undefined, prefix, call, (folder) => {
      const known = shown.get(folder.name) ?? []
      // A listing that is begun again shows it again.
      if (!known.some(({ id }) => id === folder.id)) shown.set(folder.name, [...known, folder])
    })
    for (const [name, folders] of shown) {
      if (!name.startsWith(prefix) || !isKey(name)) continue
      // Not asked for by its name, which takes a request for each folder on the way.
      this.folders.found([...this.#connection.root.path, name], folders)
      yield* this.#listFolder(name, prefix, call, undefined, false)
    }
  }

  /** Removes every file of a key, the newest last, so that none comes to light again. */
  async delete(key: string, call: DriveCall): Promise<void> {
    const { files } = await this.#candidates(key, 'delete', call)
    for (const file of files.reverse()) await this.remove(file.id, 'delete', call)
  }

  /** Asks for a file by its id. @returns undefined when it is gone. */
  get(id: string, operation: string, call: DriveCall): Promise<DriveFile | undefined> {
    return getFile(this.#connection, id, operation, call)
  }

  /** Removes one file. */
  async remove(id: string, operation: string, call: DriveCall): Promise<void> {
    await removeFile(this.#connection, id, operation, call)
    this.#gone.set(id, true)
  }

  /**
   * Removes the files that the one of that id replaces.
   * @throws StorageError CONFLICT when a newer one is there: then it is this one that was replaced.
   */
  async retire(key: string, id: string, call: DriveCall): Promise<void> {
    const { files } = await this.#candidates(key, 'removeOld', call)
    if (files[0]?.id !== id) {
      const message = `The object ${quoteKey(key)} was stored, and someone else has written a newer one meanwhile.`
      throw driveError('CONFLICT', 'removeOld', message, { key })
    }
    for (const file of files.slice(1).reverse()) await this.remove(file.id, 'removeOld', call)
  }

  /** From now on the file counts for its key, whether listings show it yet or not. */
  noteWritten(key: string, id: string): void {
    const others = (this.#written.get(key) ?? []).filter((other) => other !== id && this.#gone.get(other) === undefined)
    this.#written.set(key, [...others, id])
  }

  /** A listing named this file, and it is not there. */
  noteGone(id: string): void {
    if (this.#gone.get(id) === undefined) this.#gone.set(id, false)
  }

  lagging(key: string): StorageError {
    const what = 'is gone or has changed, and the listing still shows it as it was'
    return driveError('UNAVAILABLE', 'stat', `Google Drive: ${quoteKey(key)} ${what}. Try again later.`, { key })
  }

  async #candidates(key: string, operation: string, call: DriveCall): Promise<{ files: DriveFile[]; ghosts: boolean }> {
    const { path, name } = this.folders.placeOf(key)
    const query = `name = ${quoteQuery(name)} and mimeType != ${quoteQuery(FOLDER_TYPE)}`
    const listed = await this.#inFolders(path, { operation }, call, async (folders) => {
      const found: DriveFile[] = []
      for await (const file of search(this.#connection, `${query} and ${inParents(folders)}`, operation, call)) {
        // Drive takes no notice of case.
        if (file.hasBytes && file.name === name) found.push(file)
      }
      return found
    })
    const files = listed.filter((file) => this.#gone.get(file.id) === undefined)
    files.push(...(await this.#ownWrites(key, listed, call)))
    return { files: files.sort(byAge), ghosts: listed.some((file) => this.#gone.get(file.id) === false) }
  }

  /** What was written from here and a listing does not show. */
  async #ownWrites(key: string, listed: readonly DriveFile[], call: DriveCall): Promise<DriveFile[]> {
    const found: DriveFile[] = []
    for (const id of this.#written.get(key) ?? []) {
      if (this.#gone.get(id) !== undefined || listed.some((file) => file.id === id)) continue
      const file = await this.get(id, 'stat', call)
      if (file?.name === this.folders.placeOf(key).name) found.push(file)
      else this.noteGone(id)
    }
    return found
  }

  async *#listFolder(
    segment: string | undefined,
    prefix: string,
    call: DriveCall,
    onFolder?: (folder: DriveFile) => void,
    fresh = true,
  ): AsyncGenerator<Entry> {
    const base = segment === undefined ? '' : `${segment}/`
    const path = segment === undefined ? this.#connection.root.path : [...this.#connection.root.path, segment]
    const seen: DriveFile[] = []
    const newest = new Map<string, DriveFile>()
    await this.#inFolders(path, { operation: 'list', fresh }, call, async (folders) => {
      for await (const file of search(this.#connection, inParents(folders), 'list', call)) {
        if (file.isFolder) onFolder?.(file)
        const key = base + file.name
        // A name with a slash in the root would be taken for a file in a folder.
        const isOurs = file.hasBytes && isKey(key) && (segment !== undefined || !file.name.includes('/'))
        if (!isOurs || !key.startsWith(prefix)) continue
        seen.push(file)
        const other = newest.get(key)
        const isGone = this.#gone.get(file.id) !== undefined
        if (!isGone && (other === undefined || byAge(file, other) < 0)) newest.set(key, file)
      }
      return []
    })
    for (const key of this.#written.keys()) {
      const isHere = key.startsWith(prefix) && key.startsWith(base) && (segment !== undefined || !key.includes('/'))
      for (const own of isHere ? await this.#ownWrites(key, seen, call) : []) {
        const other = newest.get(key)
        if (other === undefined || byAge(own, other) < 0) newest.set(key, own)
      }
    }
    for (const [key, file] of newest) yield { key, file }
  }

  /** Calls `work` with a path's folders, unless there is none; again where those that were known are gone. */
  async #inFolders(
    path: readonly string[],
    { operation, fresh }: { operation: string; fresh?: boolean },
    call: DriveCall,
    work: (folders: string[]) => Promise<DriveFile[]>,
  ): Promise<DriveFile[]> {
    const known = await this.folders.find(path, call, fresh)
    if (known.length === 0) return []
    try {
      const found = await work(known)
      if (found.length > 0 || operation === 'list') return found
    } catch (error) {
      const isGone = error instanceof StorageError && error.code === 'NOT_FOUND'
      if (!isGone || !this.folders.forget(path)) throw error
    }
    // Another process may have made a second folder of the name.
    const again = await this.folders.find(path, call, true)
    const isSame = again.length === known.length && again.every((id) => known.includes(id))
    return isSame || again.length === 0 ? [] : work(again)
  }
}

/** A map that forgets: what is too old, and the oldest of too many. */
class Memory<T> {
  readonly #items = new Map<string, { value: T; at: number }>()

  get(name: string): T | undefined {
    const item = this.#items.get(name)
    return item && performance.now() - item.at < MEMORY_MS ? item.value : undefined
  }

  set(name: string, value: T): void {
    this.#items.delete(name)
    this.#items.set(name, { value, at: performance.now() })
    for (const [oldest, { at }] of this.#items) {
      if (this.#items.size <= MEMORY_FILES && performance.now() - at < MEMORY_MS) break
      this.#items.delete(oldest)
    }
  }

  keys(): string[] {
    return [...this.#items.keys()].filter((name) => this.get(name) !== undefined)
  }
}

function isKey(key: string): boolean {
  try {
    checkKey(key, ADAPTER, 'list')
    return true
  } catch {
    return false
  }
}
