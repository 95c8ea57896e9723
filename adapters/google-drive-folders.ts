import type { drive_v3 } from 'googleapis/build/src/apis/drive/v3.js'
import { type DriveCall, type DriveConnection, orAbort } from './google-drive-client.ts'
import { reasonOf } from './google-drive-errors.ts'
import { byAge, type DriveFile, FOLDER_TYPE, inParents, quoteQuery, search } from './google-drive-files.ts'

/** For so long a folder's ids are believed: another process may have made a second one of its name since. */
const CACHE_MS = 60_000

/** Where a key's file is: in the folder of its first segment, or, where it has one segment only, in the root. */
export interface Place {
  /** Names of folders, from the top of the store's root. */
  path: string[]
  /** The file's own name. */
  name: string
}

/**
 * Finds and makes the folders in which files lie. A name does not stand for one folder: two processes that make it at
 * once make two. Files are put into the oldest, and looked for in all.
 */
export class DriveFolders {
  readonly #connection: DriveConnection
  readonly #cache = new Map<string, { ids: string[]; at: number }>()
  /** What was made here, which a listing may not show yet. */
  readonly #made = new Map<string, string>()
  readonly #making = new Map<string, Promise<string>>()

  constructor(connection: DriveConnection) {
    this.#connection = connection
  }

  placeOf(key: string): Place {
    const { path } = this.#connection.root
    const slash = key.indexOf('/')
    if (slash < 0) return { path, name: key }
    return { path: [...path, key.slice(0, slash)], name: key.slice(slash + 1) }
  }

  /**
   * The ids of all folders of a path, the oldest first; none when there is no such folder.
   * @param fresh asks Drive, whatever is known.
   */
  async find(path: readonly string[], call: DriveCall, fresh = false): Promise<string[]> {
    const { root } = this.#connection
    if (path.length === 0) return [root.top]
    const name = path.join('/')
    const known = this.#cache.get(name)
    if (known && !fresh && performance.now() - known.at < CACHE_MS) return known.ids
    const parents = await this.find(path.slice(0, -1), call, fresh)
    return this.found(path, parents.length === 0 ? [] : await this.#named(parents, path.at(-1) as string, call))
  }

  /** Takes down which folders Drive has shown at a path. @returns the ids of all, as `find` does. */
  found(path: readonly string[], folders: readonly DriveFile[]): string[] {
    const name = path.join('/')
    const ids = folders.toSorted((a, b) => byAge(b, a)).map((folder) => folder.id)
    const made = this.#made.get(name)
    if (made !== undefined && !ids.includes(made)) ids.push(made)
    if (ids.length > 0) this.#cache.set(name, { ids, at: performance.now() })
    else this.#cache.delete(name)
    return ids
  }

  /** The folder that new files of a path go into; it is made when there is none. */
  async ensure(path: readonly string[], call: DriveCall): Promise<string> {
    const [oldest] = await this.find(path, call)
    if (oldest !== undefined) return oldest
    const name = path.join('/')
    const making = this.#making.get(name) ?? this.#make(path, call).finally(() => this.#making.delete(name))
    this.#making.set(name, making)
    return orAbort(making, call.signal)
  }

  /** Believes nothing of a path any more. @returns whether anything was believed, so that asking again can help. */
  forget(path: readonly string[]): boolean {
    let knew = false
    for (let length = path.length; length > 0; length--) {
      const name = path.slice(0, length).join('/')
      knew = this.#cache.delete(name) || knew
      knew = this.#made.delete(name) || knew
    }
    return knew
  }

  async #make(path: readonly string[], { key }: DriveCall): Promise<string> {
    // Without a signal: other writes wait for the same folder.
    const call = { key }
    const parent = await this.ensure(path.slice(0, -1), call)
    const id = await this.#connection.takeId(call)
    const requestBody = { id, name: path.at(-1) as string, mimeType: FOLDER_TYPE, parents: [parent] }
    const params = { requestBody, fields: 'id', ...this.#connection.anyDrive }
    try {
      await this.#connection.ask<drive_v3.Schema$File>(
        'createFolder',
        (sdk, options) => sdk.files.create(params, options),
        call,
      )
    } catch (error) {
      // An attempt before this one made it, and its answer was lost.
      if (reasonOf(error) !== 'fileIdInUse') throw error
    }
    this.#made.set(path.join('/'), id)
    // Somebody may have made one a moment before: then that is the oldest.
    const [oldest = id] = await this.find(path, call, true)
    return oldest
  }

  async #named(parents: string[], name: string, call: DriveCall): Promise<DriveFile[]> {
    const query = `name = ${quoteQuery(name)} and mimeType = ${quoteQuery(FOLDER_TYPE)} and ${inParents(parents)}`
    const found = []
    for await (const folder of search(this.#connection, query, 'folder', call)) {
      // Drive takes no notice of case.
      if (folder.isFolder && folder.name === name) found.push(folder)
    }
    return found
  }
}
