import type { Readable } from 'node:stream'
import { StorageError } from '../adapters/errors.ts'
import { type ForwardingOptions, ForwardingReadable } from '../adapters/layers/forwarding.ts'
import type { Storage } from '../adapters/storage.ts'
import type { Snapshot } from './catalog.ts'
import { BackupError } from './errors.ts'
import { holdMark, isLiveMark, type Mark, parseMark } from './marks.ts'
import { LEASE_FOLDER } from './names.ts'
import { hasCode, readSmall } from './small-object.ts'

/** Many ids fit in; a prune that removes more than that at once cuts its mark into several. */
const PRUNE_MARK_MAX_BYTES = 64 * 1024
const IDS_PER_MARK = 1000

export interface ReadLeaseOptions {
  /** Told, in a sentence, when no lease can be written: reading goes on without one. */
  onNotice?: ((message: string) => void) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Takes a lease on a snapshot that is to be read, which keeps `prune` from removing it meanwhile. A store that cannot be
 * written, as with a key that may only read, is read without one.
 * @returns gives the lease back; it never rejects, and may be called again.
 * @throws BackupError IN_USE when a prune is removing the snapshot; StorageError when that cannot be found out;
 * AbortError.
 */
export async function holdReadLease(
  storage: Storage,
  { server, id }: Snapshot,
  { onNotice, signal }: ReadLeaseOptions,
): Promise<() => Promise<void>> {
  let mark: Mark
  try {
    mark = await holdMark(storage, server, `read-${id}`, { reads: id }, signal)
  } catch (error) {
    if (!(error instanceof StorageError)) throw error
    onNotice?.(`No lease could be written, so a prune that runs meanwhile may remove snapshot ${id}: ${error.message}`)
    return async () => {}
  }
  let released: Promise<void> | undefined
  const release = () => {
    released ??= mark.release()
    return released
  }
  try {
    if (await isBeingRemoved(storage, server, id, mark.storeTime, { onNotice, signal })) {
      throw new BackupError(
        'IN_USE',
        `Snapshot ${id} is being removed by a prune at this moment. Use another one, or look again in a few minutes.`,
      )
    }
    return release
  } catch (error) {
    await release()
    throw error
  }
}

/**
 * Reads a snapshot under a lease; see `holdReadLease`.
 * @param read what is to be done; the lease is given back when it settles.
 * @throws what `holdReadLease` and `read` throw.
 */
export async function withReadLease<T>(
  storage: Storage,
  snapshot: Snapshot,
  options: ReadLeaseOptions,
  read: () => Promise<T>,
): Promise<T> {
  const release = await holdReadLease(storage, snapshot, options)
  try {
    return await read()
  } finally {
    await release()
  }
}

/**
 * A stream that is read under a lease: it closes when the stream beneath has closed and the lease was given back, be it
 * read to its end, destroyed or failed.
 */
export class LeasedReadable extends ForwardingReadable {
  readonly #release: () => Promise<void>

  constructor(inner: Readable, release: () => Promise<void>, options: ForwardingOptions) {
    super(inner, options)
    this.#release = release
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    super._destroy(error, (given) => {
      this.#release().then(() => callback(given))
    })
  }
}

async function isBeingRemoved(
  storage: Storage,
  server: string,
  id: string,
  storeTime: Date,
  { onNotice, signal }: ReadLeaseOptions,
): Promise<boolean> {
  for await (const object of storage.list(`${server}/${LEASE_FOLDER}/prune-`, { signal })) {
    if (parseMark(object.key)?.kind !== 'prune' || !isLiveMark(object, storeTime)) continue
    let text: string | null
    try {
      text = await readSmall(storage, object.key, { signal, maxBytes: PRUNE_MARK_MAX_BYTES })
    } catch (error) {
      // What is removed meanwhile is found missing: that is better than that nothing can be read.
      if (!hasCode(error, 'ACCESS_DENIED')) throw error
      onNotice?.(`A prune of another account is at work, and this key may not read what it removes: ${object.key}`)
      continue
    }
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
