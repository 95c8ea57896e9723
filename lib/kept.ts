import { join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isWithin, realPath } from '../adapters/mounts.ts'
import type { Storage } from '../adapters/storage.ts'
import { BackupError } from './errors.ts'
import { isThere } from './place.ts'

/*
 * A store that is a folder of this machine can be in what is backed up, or in what a restore replaces. A backup that
 * took it in would double with each run, and an overwrite would remove the very snapshots.
 */

/** Where a store says that it is. */
export type StoreLocation = Pick<Storage, 'location'>

/** The folder that a store is; undefined for what is not one of this machine. */
function folderOf({ location }: StoreLocation): string | undefined {
  if (!location.startsWith('file:')) return undefined
  try {
    return fileURLToPath(location)
  } catch {
    return undefined
  }
}

/** Where a backup goes to, and what it works with. */
export interface Destined {
  stores: readonly StoreLocation[]
  server: string
  /** Folders that change with each run: of states and journals. */
  state?: readonly string[] | undefined
}

/** A folder in a source that is no part of what is backed up. */
export interface OwnFolder {
  /** Relative to the source, with `/` between names. */
  path: string
  origin: 'destination' | 'state'
}

/**
 * What of a source folder is a store that its backup goes to (the store's folder, or where the source is in that, the
 * folder of the server in it), or is written to by the backup itself: no upload could be taken up with that in it.
 * @throws BackupError SOURCE when the source is where the server's own snapshots are.
 */
export async function ownFolders(source: string, { stores, server, state = [] }: Destined): Promise<OwnFolder[]> {
  const root = await realPath(source)
  const found: OwnFolder[] = []
  const add = (path: string, origin: OwnFolder['origin']): boolean => {
    if (path === root || !isWithin(path, root)) return false
    found.push({ path: relative(root, path).split(sep).join('/'), origin })
    return true
  }
  for (const folder of stores.map(folderOf)) {
    if (folder === undefined) continue
    const store = await realPath(folder)
    const snapshots = join(store, server)
    if (isWithin(root, snapshots)) {
      throw new BackupError(
        'SOURCE',
        `The source ${source} is where the snapshots of ${server} are stored: it would be backed up into itself. Name another source or another store.`,
      )
    }
    if (!add(store, 'destination')) add(snapshots, 'destination')
  }
  for (const folder of state) add(await realPath(folder), 'state')
  return found
}

/** What must outlive a restore. */
export interface KeptOptions {
  /** The stores that snapshots are in, and the server whose they are. */
  stores: readonly StoreLocation[]
  server: string
  /** More files and folders, such as the one with the key. */
  keep?: readonly string[] | undefined
  merge?: boolean | undefined
  overwrite?: boolean | undefined
}

/**
 * Checks that a restore removes none of the stores' snapshots and no file that is needed to read them, and writes nothing
 * among them.
 * @throws BackupError TARGET.
 */
export async function checkKept(target: string, options: KeptOptions): Promise<void> {
  const { stores, server, keep = [], merge = false, overwrite = false } = options
  // No name at all is refused by whoever looks for the place.
  if (target === '') return
  const place = await realPath(target)
  for (const store of stores) {
    const folder = folderOf(store)
    if (folder === undefined) continue
    const root = await realPath(folder)
    if (overwrite && isWithin(root, place)) {
      throw new BackupError(
        'TARGET',
        `The target ${target} holds the store ${store.location}: to overwrite it would remove the snapshots. Restore to another folder${merge ? ', or merge without overwriting' : ', or merge into this one'}.`,
      )
    }
    if (
      isWithin(place, join(root, server)) ||
      ((merge || overwrite) && (await isThere(place)) && isWithin(place, root))
    ) {
      throw new BackupError(
        'TARGET',
        `The target ${target} is in the store ${store.location}, where snapshots are. Name a folder outside of it.`,
      )
    }
  }
  if (!overwrite || merge) return
  for (const file of keep) {
    if (!isWithin(await realPath(file), place)) continue
    throw new BackupError(
      'TARGET',
      `The target ${target} holds ${file}, which has to be kept: to overwrite it would remove that. Move it out of there, or merge.`,
    )
  }
}
