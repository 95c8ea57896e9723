import { StorageError } from '../adapters/errors.ts'
import type { Storage } from '../adapters/storage.ts'
import type { Snapshot } from './catalog.ts'
import { BackupError } from './errors.ts'
import { holdMark, isLiveMark, type Mark, parseMark } from './marks.ts'
import { LEASE_FOLDER } from './names.ts'
import { readSmall } from './small-object.ts'

/** Many ids fit in; a prune that removes more than that at once cuts its mark into several. */
const PRUNE_MARK_MAX_BYTES = 64 * 1024
const IDS_PER_MARK = 1000

export interface ReadLeaseOptions {
  /** Told, in a sentence, when no lease can be written: reading goes on without one. */
  onNotice?: ((message: string) => void) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Reads a snapshot under a lease, which keeps `prune` from removing it meanwhile. A store that cannot be written, as
 * with a key that may only read, is read without one.
 * @param read what is to be done; the lease is given back when it settles.
 * @throws BackupError IN_USE when a prune is removing the snapshot; what `read` throws.
 */
export async function withReadLease<T>(
  storage: Storage,
  { server, id }: Snapshot,
  { onNotice, signal }: ReadLeaseOptions,
  read: () => Promise<T>,
): Promise<T> {
  let mark: Mark
  try {
    mark = await holdMark(storage, server, `read-${id}`, { reads: id }, signal)
  } catch (error) {
    if (!(error instanceof StorageError)) throw error
    onNotice?.(`No lease could be written, so a prune that runs meanwhile may remove snapshot ${id}: ${error.message}`)
    return read()
  }
  try {
    if (await isBeingRemoved(storage, server, id, mark.storeTime, signal)) {
      throw new BackupError(
        'IN_USE',
        `Snapshot ${id} is being removed by a prune at this moment. Use another one, or look again in a few minutes.`,
      )
    }
    return await read()
  } finally {
    await mark.release()
  }
}

async function isBeingRemoved(
  storage: Storage,
  server: string,
  id: string,
  storeTime: Date,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  for await (const object of storage.list(`${server}/${LEASE_FOLDER}/prune-`, { signal })) {
    if (parseMark(object.key)?.kind !== 'prune' || !isLiveMark(object, storeTime)) continue
    const text = await readSmall(storage, object.key, { signal, maxBytes: PRUNE_MARK_MAX_BYTES })
    if (text?.includes(`"${id}"`)) return true
  }
  return false
}

/**
 * Marks snapshots as being removed, so that nobody begins to read them.
 * @returns marks, at least one.
 * @throws StorageError when one cannot be written; none is left then.
 */
export async function markRemoval(
  storage: Storage,
  server: string,
  ids: readonly string[],
  signal?: AbortSignal,
): Promise<Mark[]> {
  const marks: Mark[] = []
  try {
    do {
      const removes = ids.slice(marks.length * IDS_PER_MARK, (marks.length + 1) * IDS_PER_MARK)
      marks.push(await holdMark(storage, server, 'prune', { removes }, signal))
    } while (marks.length * IDS_PER_MARK < ids.length)
    return marks
  } catch (error) {
    for (const mark of marks) await mark.release()
    throw error
  }
}
