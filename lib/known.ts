import { StorageError } from '../adapters/errors.ts'
import { throwIfAborted } from '../adapters/retry.ts'
import type { Storage } from '../adapters/storage.ts'
import type { ReadKeys } from '../transforms/index.ts'
import type { Snapshot } from './catalog.ts'
import { HeadCache, type KnownHead, knownOf } from './head-cache.ts'
import { openObject } from './open-object.ts'

/** Objects opened at once: each costs a key derivation. */
const PARALLEL_OPENS = 4

export interface KnownSnapshot extends Snapshot {
  /** What it says of itself; null when that is not known here. */
  known: KnownHead | null
  /** Why it could not be asked, with `fetch`. */
  problem?: string
}

/** How much `describeSnapshots` finds out. */
export interface DescribeOptions {
  /** Where what is known is kept; nothing is known without one. */
  stateFolder?: string | undefined
  /** Open those of which nothing is known, and keep what they say. Needs the keys of those that are encrypted. */
  fetch?: { keys: ReadKeys | undefined; allowPlain?: boolean | undefined } | undefined
  signal?: AbortSignal | undefined
}

/**
 * Tells of snapshots what their indexes say, from what is known of them; without `fetch` no object is opened.
 * @returns them in the same order. One that is damaged or under another key has its `problem`.
 * @throws StorageError from the store; TransformError BAD_KEY; AbortError.
 */
export async function describeSnapshots(
  storage: Storage,
  snapshots: readonly Snapshot[],
  options: DescribeOptions,
): Promise<KnownSnapshot[]> {
  const { stateFolder, fetch, signal } = options
  const cache = stateFolder === undefined ? undefined : new HeadCache(stateFolder, storage.location)
  const known = (await cache?.read(snapshots)) ?? new Map<string, KnownHead>()
  const problems = new Map<string, string>()
  const fresh: [Snapshot, KnownHead][] = []
  if (fetch) {
    const unknown = snapshots.filter(({ key }) => !known.has(key)).values()
    const worker = async () => {
      for (const snapshot of unknown) {
        throwIfAborted(signal)
        const head = await headOf(storage, snapshot, { ...fetch, signal })
        if (typeof head === 'string') problems.set(snapshot.key, head)
        else {
          known.set(snapshot.key, head)
          fresh.push([snapshot, head])
        }
      }
    }
    let failed: unknown
    const settled = Array.from({ length: PARALLEL_OPENS }, () =>
      worker().catch((error) => {
        // Taken from the others too: nobody opens another one.
        for (const _ of unknown);
        failed ??= error
      }),
    )
    await Promise.all(settled)
    if (failed) throw failed
  }
  for (const [server, heads] of Map.groupBy(fresh, ([snapshot]) => snapshot.server)) await cache?.write(server, heads)
  return snapshots.map((snapshot) => {
    const problem = problems.get(snapshot.key)
    return { ...snapshot, known: known.get(snapshot.key) ?? null, ...(problem === undefined ? {} : { problem }) }
  })
}

/** @returns what the snapshot says, or why it says nothing. */
async function headOf(
  storage: Storage,
  snapshot: Snapshot,
  options: { keys: ReadKeys | undefined; allowPlain?: boolean | undefined; signal?: AbortSignal | undefined },
): Promise<KnownHead | string> {
  try {
    const object = await openObject(storage, snapshot, options)
    object.close()
    return object.head ? knownOf(object.head) : 'It has no index.'
  } catch (error) {
    const { name, code } = error as { name: string; code?: unknown }
    // One object that is gone or damaged is no reason to show none of the others.
    const ofObject = error instanceof StorageError && (code === 'NOT_FOUND' || code === 'CORRUPT')
    if (!ofObject && (error instanceof StorageError || name === 'AbortError' || code === 'BAD_KEY')) throw error
    return (error as Error).message
  }
}
