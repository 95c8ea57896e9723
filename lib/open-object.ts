import type { Readable } from 'node:stream'
import { readParallel } from '../adapters/read-parallel.ts'
import type { ObjectStat, Storage } from '../adapters/storage.ts'
import {
  type IndexHead,
  openPlain,
  openSealed,
  openSeekable,
  type RangeSource,
  type ReadKeys,
  type ReadRange,
  type Sealed,
  type Seekable,
  TransformError,
} from '../transforms/index.ts'
import { prepareOpenerOf } from '../transforms/open-sealed.ts'
import { openingStage, type SealingStage, ThreadAhead } from '../transforms/seal-thread.ts'
import { createLendingZstdDecompress } from '../transforms/zstd-decompress.ts'
import type { Snapshot } from './catalog.ts'
import { BackupError } from './errors.ts'
import { freeChunk, isWorthThread } from './pipe.ts'

/** The memory of reading an object whole by several requests at once: a part of what a restore may take. */
const WHOLE_READ_RING_BYTES = 16 * 1024 * 1024
/** More would make ranges so small that their requests cost more than they bring. */
const MAX_CONNECTIONS = 8

export interface OpenObjectOptions {
  /** undefined: the service was opened without encryption. */
  keys: ReadKeys | undefined
  /** Take an unencrypted object although a key is configured. */
  allowPlain?: boolean | undefined
  /** Take an object whose index names another server or snapshot, or that has no index. */
  allowRenamed?: boolean | undefined
  /** It is going to be read whole: what takes a while to begin for that is begun while the keys are derived. */
  whole?: boolean | undefined
  signal?: AbortSignal | undefined
}

/** A snapshot's object, pinned to one version, with its head read and compared with its name. */
export interface OpenObject {
  stat: ObjectStat
  sealed: Sealed | undefined
  /** null: the object has no seek table and can only be read whole. */
  seekable: Seekable | null
  /** null: it has no index. Only with `allowRenamed`. */
  head: IndexHead | null
  /** All bytes as stored, from the first. */
  createReadStream(): Readable
  /** The transforms from the stored bytes to layer 1, and what the stored bytes were. */
  reading(): SealingStage
  close(): void
}

/**
 * Opens a snapshot's object by ranges: its header, its last frame, its seek table and the index's head.
 * @throws BackupError NOT_ENCRYPTED, MISPLACED, DAMAGED; TransformError WRONG_KEY, BAD_KEY; StorageError.
 */
export async function openObject(
  storage: Storage,
  snapshot: Snapshot,
  options: OpenObjectOptions,
): Promise<OpenObject> {
  const { keys, signal } = options
  if (!snapshot.encrypted && keys !== undefined && !options.allowPlain) {
    throw new BackupError(
      'NOT_ENCRYPTED',
      `Snapshot ${snapshot.id} is not encrypted, and a password or key was given: someone may have put it there. Allow unencrypted snapshots (--allow-plain) if it is meant.`,
    )
  }
  if (snapshot.encrypted && keys === undefined) {
    throw new BackupError('USAGE', `Snapshot ${snapshot.id} is encrypted. Give the password or the key file.`)
  }
  const stat = await storage.stat(snapshot.key, { signal })
  const readRange: ReadRange = (offset, length) =>
    storage.readRange(snapshot.key, offset, length, {
      signal,
      ...(stat.version === undefined ? {} : { version: stat.version }),
    })
  const onThread = isWorthThread(stat.size)
  const threads = new ThreadAhead()
  if (options.whole && onThread) threads.begin()
  let sealed: Sealed | undefined
  let seekable: Seekable | null = null
  const close = () => {
    threads.end()
    seekable?.close()
    sealed?.close()
  }
  try {
    let source: RangeSource
    if (snapshot.encrypted) {
      sealed = await openSealed(readRange, stat.size, keys as ReadKeys)
      source = sealed
    } else {
      source = openPlain(readRange, stat.size)
    }
    seekable = await openSeekable(source)
    const head = seekable?.hasIndex ? await seekable.head() : null
    if (!options.allowRenamed) checkPlace(snapshot, head)
    if (seekable && head && head.bytes !== seekable.size) {
      throw new TransformError(
        'CORRUPT',
        `The index says ${head.bytes} bytes, and the seek table ${seekable.size}: the object is damaged.`,
      )
    }
    return {
      stat,
      sealed,
      seekable,
      head,
      createReadStream: () => readWhole(storage, stat, signal),
      reading() {
        // What comes straight from the store may be the store's own memory.
        const onStored = storage.ownedReads ? freeChunk : undefined
        const { transforms, totals } = openingStage(sealed && prepareOpenerOf(sealed, keys as ReadKeys), {
          onThread,
          begun: threads.take(),
          ownsChunks: storage.ownedReads,
          onConsumed: onStored,
        })
        const onConsumed = snapshot.encrypted ? freeChunk : onStored
        return { transforms: [...transforms, createLendingZstdDecompress({ onConsumed })], totals }
      },
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

/** All bytes of an object as stored, by as many requests as the adapter advises. */
export function readWhole(
  storage: Storage,
  { key, size, version }: ObjectStat,
  signal: AbortSignal | undefined,
): Readable {
  const pinned = { ...(signal ? { signal } : {}), ...(version === undefined ? {} : { version }) }
  const connections = Math.min(storage.parallelReads ?? 1, MAX_CONNECTIONS)
  if (connections === 1) return storage.createReadStream(key, pinned)
  const rangeBytes = Math.floor(WHOLE_READ_RING_BYTES / connections)
  return readParallel(storage, key, { ...pinned, size, connections, rangeBytes, grow: true })
}

/** A container does not authenticate its own name: its index head says whose it is. */
function checkPlace(snapshot: Snapshot, head: IndexHead | null): void {
  if (head === null) {
    throw new BackupError(
      'MISPLACED',
      `Snapshot ${snapshot.id} has no index, so nothing shows that it is this server's. Allow renamed snapshots (--allow-renamed) to use it all the same.`,
    )
  }
  if (head.server !== snapshot.server || head.id !== snapshot.id) {
    throw new BackupError(
      'MISPLACED',
      `The object ${snapshot.key} holds snapshot ${head.id} of server ${head.server}: it was moved or mixed up. Allow renamed snapshots (--allow-renamed) to use it all the same.`,
    )
  }
  if (head.kind !== snapshot.kind) {
    throw new BackupError(
      'MISPLACED',
      `The object ${snapshot.key} is named as ${snapshot.kind} and holds ${head.kind}.`,
    )
  }
}
