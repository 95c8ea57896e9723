import { StorageError } from '../adapters/errors.ts'
import type { Storage } from '../adapters/storage.ts'
import { TransformError } from '../transforms/index.ts'
import { findSnapshot, type ListedSnapshot, listSnapshots } from './catalog.ts'
import { BackupError, type BackupErrorCode } from './errors.ts'

/** A store that could not be used, where another one was used instead. */
export interface Fallback {
  /** The store's location: a URL without credentials. */
  destination: string
  reason: string
}

export interface FallbackOptions<T> {
  /** Whether a snapshot without a companion may be used; complete copies come first. */
  unfinished: boolean
  onFallback?: ((fallback: Fallback) => void) | undefined
  /** See FindOptions. */
  onNotice?: ((message: string) => void) | undefined
  /** Why a result is as bad as a failure; undefined when it is good. */
  isBad?: ((result: T) => string | undefined) | undefined
  signal?: AbortSignal | undefined
}

/** What another copy of the snapshot may not have. */
const OF_ONE_COPY: BackupErrorCode[] = [
  'DAMAGED',
  'MISPLACED',
  'NOT_ENCRYPTED',
  'UNSAFE_ARCHIVE',
  'NO_SNAPSHOT',
  'IN_USE',
]

/**
 * Uses the first store, in the order given, that has a snapshot complete and readable. `latest` is the newest complete
 * one of all stores that answer; see `findSnapshot`. With one store its errors are thrown as they are.
 * @param use told whether no other store is left to fall back to.
 * @returns what `use` gave; the first bad result where there is no good one.
 * @throws a store's error when none can be used; at once what is no fault of a store.
 */
export async function useFirst<T>(
  storages: readonly Storage[],
  server: string,
  id: string,
  options: FallbackOptions<T>,
  use: (storage: Storage, snapshot: ListedSnapshot, isLast: boolean) => Promise<T>,
): Promise<T> {
  const { unfinished, signal, onFallback = () => {} } = options
  const [only] = storages as [Storage]
  if (storages.length === 1) {
    return use(only, findSnapshot(await listSnapshots(only, server, signal), id, unfinished, options), true)
  }
  const bad: T[] = []
  const errors: unknown[] = []
  const pass = (storage: Storage, reason: string) => onFallback({ destination: storage.location, reason })
  const lists = await Promise.allSettled(storages.map((storage) => listSnapshots(storage, server, signal)))
  const copies: { storage: Storage; snapshots: ListedSnapshot[] }[] = []
  for (const [index, list] of lists.entries()) {
    const storage = storages[index] as Storage
    if (list.status === 'fulfilled') copies.push({ storage, snapshots: list.value })
    else if (isOfOneCopy(list.reason)) {
      errors.push(list.reason)
      pass(storage, list.reason.message)
    } else throw list.reason
  }
  if (copies.length === 0) throw errors[0]
  const chosen = findSnapshot(merge(copies.map(({ snapshots }) => snapshots)), id, unfinished, options)
  const having = copies.flatMap(({ storage, snapshots }) => {
    const snapshot = snapshots.find((one) => one.key === chosen.key)
    if (snapshot?.complete || (snapshot && unfinished)) return [{ storage, snapshot }]
    pass(storage, `Snapshot ${chosen.id} is not there, or is unfinished.`)
    return []
  })
  having.sort((a, b) => Number(b.snapshot.complete) - Number(a.snapshot.complete))
  for (const [index, { storage, snapshot }] of having.entries()) {
    try {
      const result = await use(storage, snapshot, index === having.length - 1)
      const reason = options.isBad?.(result)
      if (reason === undefined) return result
      bad.push(result)
      pass(storage, reason)
    } catch (error) {
      if (signal?.aborted || !isOfOneCopy(error)) throw error
      errors.push(error)
      pass(storage, error.message)
    }
  }
  // Each copy that there is was tried: what was found of one says more than that another store is down.
  if (bad.length > 0) return bad[0] as T
  throw errors.at(-1)
}

/**
 * The snapshots of the first store that has any: one that has none may be a disk that is not there.
 * @returns an empty list of the first that can be listed where none has any.
 * @throws the first store's error when none can be listed.
 */
export async function listFirst(
  storages: readonly Storage[],
  server: string | undefined,
  options: Pick<FallbackOptions<never>, 'onFallback' | 'signal'>,
): Promise<{ storage: Storage; snapshots: ListedSnapshot[] }> {
  let first: unknown
  const empty: Storage[] = []
  for (const storage of storages) {
    try {
      const snapshots = await listSnapshots(storage, server, options.signal)
      if (snapshots.length === 0) {
        empty.push(storage)
        continue
      }
      for (const { location } of empty)
        options.onFallback?.({ destination: location, reason: `No snapshot${server ? ` of ${server}` : ''} is there.` })
      return { storage, snapshots }
    } catch (error) {
      if (storages.length === 1 || options.signal?.aborted || !isOfOneCopy(error)) throw error
      first ??= error
      options.onFallback?.({ destination: storage.location, reason: error.message })
    }
  }
  if (empty[0]) return { storage: empty[0], snapshots: [] }
  throw first
}

/** Each snapshot once, complete when it is so anywhere, oldest first. */
function merge(lists: readonly ListedSnapshot[][]): ListedSnapshot[] {
  const found = new Map<string, ListedSnapshot>()
  for (const snapshot of lists.flat()) {
    if (snapshot.complete || !found.has(snapshot.key)) found.set(snapshot.key, snapshot)
  }
  return [...found.values()].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
}

function isOfOneCopy(error: unknown): error is Error {
  if (error instanceof TransformError) return error.code !== 'BAD_KEY' && error.code !== 'BAD_OPTION'
  return error instanceof StorageError || (error instanceof BackupError && OF_ONE_COPY.includes(error.code))
}
