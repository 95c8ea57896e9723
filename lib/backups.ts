import { resolve } from 'node:path'
import { Readable } from 'node:stream'
import { openStorage, type StorageConfig } from '../adapters/open.ts'
import { throwIfAborted } from '../adapters/retry.ts'
import type { Storage } from '../adapters/storage.ts'
import { checkReadKeys, type IndexEntry, type IndexHead, type ReadKeys, type WriteKey } from '../transforms/index.ts'
import { type Adopted, type AdoptOptions, adoptSnapshot } from './adopt.ts'
import { findSnapshot, type ListedSnapshot, listSnapshots, type Snapshot } from './catalog.ts'
import { type CreatedSnapshot, type CreateOptions, createSnapshot } from './create.ts'
import { BackupError } from './errors.ts'
import { type Fallback, listFirst, useFirst } from './fallback.ts'
import { HeadCache, type KnownHead, knownOf } from './head-cache.ts'
import { checkKept } from './kept.ts'
import { describeSnapshots, type KnownSnapshot } from './known.ts'
import { acquireLease, type LeaseOptions } from './lease.ts'
import { checkServer } from './names.ts'
import { type OpenObject, openObject } from './open-object.ts'
import { readEntry } from './partial.ts'
import { type Pin, pinSnapshot, readPins, unpinSnapshot } from './pins.ts'
import { isThere } from './place.ts'
import { type PruneOptions, type PruneReport, pruneSnapshots } from './prune.ts'
import { holdReadLease, LeasedReadable, withReadLease } from './read-lease.ts'
import { type Restored, type RestoreOptions, restoreSnapshot } from './restore.ts'
import { DEFAULT_POLICY, type RetentionPolicy } from './retention.ts'
import { checkPatterns } from './select.ts'
import type { BackupSource } from './source.ts'
import {
  modeOf,
  type Verification,
  type VerificationOrError,
  type VerifyOptions,
  verifySnapshot,
  verifySnapshots,
} from './verify.ts'
import { VERSION } from './version.ts'

export interface BackupsOptions extends ReadKeys {
  /** An open store, or what `openStorage` takes. A store that is opened here is closed by `close`. */
  storage: Storage | StorageConfig | string | URL
  /** More stores: `create` writes to all in one pass, and what reads uses the first that has the snapshot readable. */
  mirrors?: readonly (Storage | StorageConfig | string | URL)[] | undefined
  /** Told of each store that could not be used for reading, where another one was. */
  onFallback?: ((fallback: Fallback) => void) | undefined
  /** Whose backups: `[a-z0-9][a-z0-9._-]*`. Each server is alone under its own prefix. */
  server: string
  /** false: write and read without encryption. Otherwise a password or a key is needed; the first is written with. */
  encryption?: boolean | undefined
  /** What is written with, where the first is not what is meant: keys come before passwords. */
  writeWith?: WriteKey | undefined
  /** Where what snapshots say of themselves is kept, for lists without opening them; nothing is kept without one. */
  stateFolder?: string | undefined
  /**
   * Told, in a sentence, what is worth knowing and no failure: that a read lease cannot be written, or that `latest` has
   * to do with snapshots that are dated in the future.
   */
  onNotice?: ((message: string) => void) | undefined
}

interface CallOptions {
  signal?: AbortSignal | undefined
}

/** What a snapshot says of itself. */
export interface Inspection {
  snapshot: Snapshot
  /** The index's head; null when the object has none. */
  head: IndexHead | null
  /** zstd frames, the index among them; null when the object has no seek table. */
  frames: number | null
  /** null: not encrypted. */
  encryption: { frameBytes: number; iterations: number | null } | null
}

/** What `inspect` may take. */
export interface InspectOptions {
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  /** Called for each entry of the archive, in stream order. What it gives is waited for before the next one is read. */
  onEntry?: ((entry: IndexEntry) => void) | ((entry: IndexEntry) => Promise<void> | undefined) | undefined
  signal?: AbortSignal | undefined
}

/** What `read` may take. */
export interface ReadOptions {
  allowUnverified?: boolean | undefined
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  signal?: AbortSignal | undefined
}

/** How snapshots are verified, in one store or with their copies in others. */
export interface ServerVerifyOptions extends VerifyOptions {
  /** Told what was found of each copy that was looked at: of one snapshot more than one where the first is not good. */
  onCopy?: ((storage: Storage, snapshot: ListedSnapshot, found: Verification) => void | Promise<void>) | undefined
}

/** How the snapshots of a server are pruned. */
export interface ServerPruneOptions extends Omit<PruneOptions, 'lease'> {
  /** Which of `storages`; the first when left out. */
  storage?: Storage | undefined
  /** How the server's lease is taken; see `acquireLease`. A function takes it itself; false: without one. */
  lease?: Omit<LeaseOptions, 'signal'> | PruneOptions['lease'] | false
}

/** The backups of one server in one store, or in several that hold the same. */
export interface Backups {
  readonly server: string
  readonly storage: Storage
  /** All stores: `storage`, then the mirrors. */
  readonly storages: readonly Storage[]
  /** Backs a folder, a file, a stream (destroyed where it fails) or a program's output up. See `createSnapshot`. */
  create(source: BackupSource, options?: CreateOptions): Promise<CreatedSnapshot>
  /** All snapshots, oldest first; nothing is opened. */
  list(options?: CallOptions): Promise<ListedSnapshot[]>
  /**
   * All snapshots, oldest first, with what is known here of what they say of themselves.
   * @param options.fetch open those of which nothing is known.
   */
  describe(options?: { fetch?: boolean | undefined; signal?: AbortSignal | undefined }): Promise<KnownSnapshot[]>
  /** Reads what a snapshot says of itself, in the first store. `id` may be `latest`. */
  inspect(id: string, options?: InspectOptions): Promise<Inspection>
  /**
   * Restores a snapshot so that `target` becomes the folder (or file) that was backed up. A target whose overwriting would
   * remove one of the stores, or that is among the snapshots, is refused (BackupError TARGET).
   */
  restore(id: string, target: string, options?: RestoreOptions): Promise<Restored>
  /** Verifies a snapshot; the first store that has it readable is used. */
  verify(id: string, options?: ServerVerifyOptions): Promise<Verification>
  /** Verifies all snapshots of the first store, oldest first. One that cannot be read is `failed`, and the others go on. */
  verifyAll(options?: ServerVerifyOptions): AsyncGenerator<VerificationOrError>
  /**
   * Reads one file of a snapshot by ranges: only the frames that hold it are fetched. `path` is relative to the folder
   * that was backed up; undefined for a snapshot of a file or stream. Nothing is checked beyond what is read, and every
   * byte of it is authenticated first. The snapshot is held against `prune` until the stream closes: one that is not
   * read to its end has to be destroyed.
   */
  read(id: string, path: string | undefined, options?: ReadOptions): Promise<Readable>
  /**
   * Removes from one store what a policy does not keep: 24 hourly, 14 daily and 8 weekly ones when none is given. It is
   * done under the server's lease where that is free. See `pruneSnapshots`.
   */
  prune(policy?: RetentionPolicy, options?: ServerPruneOptions): Promise<PruneReport>
  /** Keeps a snapshot of the first store, as `unpin` and `pins` do, from `prune` until it is unpinned. `id` may be `latest`; `note` is for people. */
  pin(id: string, note?: string, options?: CallOptions): Promise<Pin>
  /**
   * Takes the pin of a snapshot away; none is no error.
   * @throws BackupError USAGE for what is no id; StorageError.
   */
  unpin(id: string, options?: CallOptions): Promise<void>
  /**
   * @returns the pins of the server.
   * @throws StorageError.
   */
  pins(options?: CallOptions): Promise<Pin[]>
  /** Makes an unfinished snapshot of the first store complete, once all of it has been read and authenticates. See `adoptSnapshot`. */
  adopt(id: string, options?: AdoptOptions): Promise<Adopted>
  /** Closes the stores. */
  close(): Promise<void>
}

/**
 * Opens the backups of one server.
 * @throws BackupError USAGE for a bad server name or no key; TransformError BAD_KEY; StorageError from the store.
 */
export async function openBackups(options: BackupsOptions): Promise<Backups> {
  const server = checkServer(options.server)
  const keys = readKeysOf(options)
  const { onFallback } = options
  const stateFolder = options.stateFolder && resolve(options.stateFolder)
  const opened = await openAll([options.storage, ...(options.mirrors ?? [])])
  const storages = opened.map(({ storage }) => storage)
  const [storage, ...mirrors] = storages as [Storage, ...Storage[]]
  const tool = `millrace/${VERSION}`
  const { onNotice } = options
  const leased = <T>(from: Storage, snapshot: Snapshot, signal: AbortSignal | undefined, read: () => Promise<T>) =>
    withReadLease(from, snapshot, { onNotice, signal }, read)
  const find = async (id: string, unfinished: boolean, signal?: AbortSignal) =>
    findSnapshot(await listSnapshots(storage, server, signal), id, unfinished, { onNotice })
  /** Those that hold a lease. */
  const reading = new Set<Readable>()
  const remember = async (at: Storage, snapshot: Snapshot, head: KnownHead) => {
    if (stateFolder !== undefined) await new HeadCache(stateFolder, at.location).write(server, [[snapshot, head]])
  }
  return {
    server,
    storage,
    storages,
    async create(from, create = {}) {
      const source = typeof from === 'string' ? asOfNow(from) : from
      const context = {
        storage,
        mirrors,
        server,
        key: keys && (options.writeWith ?? writeKeyOf(keys)),
        stateFolder,
        tool,
      }
      const made = await createSnapshot(context, source, create).catch((error) => {
        // Where it failed before it read: a pipeline destroys its source too, and what it holds would stay open.
        if (source instanceof Readable) source.destroy()
        throw error
      })
      const { version: _, consistency, files, bytes, omissions, ...snapshot } = made
      for (const [index, { ok, version }] of made.destinations.entries()) {
        if (!ok) continue
        const copy = version === undefined ? snapshot : { ...snapshot, version }
        await remember(storages[index] as Storage, copy, { consistency, files, bytes, excluded: omissions.excluded })
      }
      return made
    },
    list: async ({ signal } = {}) => (await listFirst(storages, server, { onFallback, signal })).snapshots,
    async describe({ fetch, signal } = {}) {
      const { storage: from, snapshots } = await listFirst(storages, server, { onFallback, signal })
      return describeSnapshots(from, snapshots, { stateFolder, fetch: fetch ? { keys } : undefined, signal })
    },
    async inspect(id, inspect = {}) {
      const snapshot = await find(id, true, inspect.signal)
      const object = await openObject(storage, snapshot, { ...inspect, keys })
      try {
        if (inspect.onEntry && object.seekable?.hasIndex) {
          for await (const entry of object.seekable.entries()) {
            await inspect.onEntry(entry)
            throwIfAborted(inspect.signal)
          }
        }
        const { sealed, seekable, head } = object
        // What stands under another's name is not what a list should say of it.
        if (head && head.id === snapshot.id && head.server === server) await remember(storage, snapshot, knownOf(head))
        return {
          snapshot,
          head,
          frames: seekable?.frames ?? null,
          encryption: sealed ? { frameBytes: sealed.header.frameBytes, iterations: sealed.header.iterations } : null,
        }
      } finally {
        object.close()
      }
    },
    async restore(id, target, restore = {}) {
      if (typeof target !== 'string') throw new BackupError('USAGE', 'The target of a restore is the path of a folder.')
      checkPatterns(restore.include, 'include')
      const at = asOfNow(target)
      const unfinished = restore.allowUnverified ?? false
      const { signal } = restore
      await checkKept(at, { stores: storages, server, ...restore })
      let kept: string | undefined
      const onKept = (folder: string) => {
        kept = folder
      }
      const how = { unfinished, onFallback, onNotice, signal }
      try {
        return await useFirst(storages, server, id, how, (from, snapshot, isLast) => {
          const options = { ...restore, onKept, isLastCopy: isLast }
          return leased(from, snapshot, signal, () => restoreSnapshot(from, snapshot, keys, at, options))
        })
      } catch (error) {
        // What came of one copy is gone on with from another, or removed.
        if (kept !== undefined && (await isThere(kept))) restore.onKept?.(kept)
        throw error
      }
    },
    async verify(id, { onCopy, ...verify } = {}) {
      const { signal } = verify
      const isBad = ({ status, reason }: Verification) => (status === 'ok' ? undefined : `${status}: ${reason}`)
      const how = { unfinished: true, onFallback, onNotice, isBad, signal }
      return useFirst(storages, server, id, how, async (from, snapshot) => {
        const read = () => verifySnapshot(from, snapshot, keys, verify)
        const found = await (verify.quick ? read() : leased(from, snapshot, signal, read))
        await onCopy?.(from, snapshot, found)
        return found
      })
    },
    async *verifyAll({ onCopy, ...verify } = {}) {
      // What is wrong with all of them is no finding of each.
      modeOf(verify)
      const { signal, quick } = verify
      let told = false
      // One notice says it for all of them.
      const tellOnce = (message: string) => {
        if (!told) onNotice?.(message)
        told = true
      }
      const one = async (snapshot: ListedSnapshot) => {
        const read = () => verifySnapshot(storage, snapshot, keys, verify)
        const found = await (quick ? read() : withReadLease(storage, snapshot, { onNotice: tellOnce, signal }, read))
        await onCopy?.(storage, snapshot, found)
        return found
      }
      yield* verifySnapshots(await listSnapshots(storage, server, signal), one, verify)
    },
    async read(id, path, read = {}) {
      const { signal } = read
      const how = { unfinished: read.allowUnverified ?? false, onFallback, onNotice, signal }
      return useFirst(storages, server, id, how, async (from, snapshot) => {
        const release = await holdReadLease(from, snapshot, { onNotice, signal })
        let object: OpenObject | undefined
        try {
          object = await openObject(from, snapshot, { ...read, keys })
          const inner = await readEntry(object, snapshot.id, path)
          inner.once('close', () => object?.close())
          const stream = new LeasedReadable(inner, release, { adapter: from.adapter, signal })
          reading.add(stream)
          return stream.once('close', () => reading.delete(stream))
        } catch (error) {
          object?.close()
          await release()
          throw error
        }
      })
    },
    prune(policy = DEFAULT_POLICY, { storage: at = storage, lease: how, ...prune } = {}) {
      const { signal } = prune
      const lease =
        typeof how === 'object' || how === undefined ? () => acquireLease(at, server, { ...how, signal }) : how
      return pruneSnapshots({ storage: at, server }, policy, { ...prune, lease: lease || undefined })
    },
    pin: (id, note, { signal } = {}) => pinSnapshot(storage, server, id, note, { signal, onNotice }),
    unpin: (id, { signal } = {}) => unpinSnapshot(storage, server, id, signal),
    pins: ({ signal } = {}) => readPins(storage, server, signal),
    async adopt(id, adopt = {}) {
      const snapshot = await find(id, true, adopt.signal)
      return leased(storage, snapshot, adopt.signal, () => adoptSnapshot(storage, snapshot, keys, adopt))
    },
    async close() {
      // What has ended gives its lease back, for which the store has to be open.
      const ended = [...reading].filter((stream) => stream.destroyed)
      await Promise.all(ended.map((stream) => new Promise((resolve) => stream.once('close', resolve))))
      await closeOwn(opened)
    },
  }
}

/** A relative path, where it leads when it is given: the program may go to another folder meanwhile. */
function asOfNow(path: string): string {
  // Nothing is no path, and not the current folder.
  return path === '' ? path : resolve(path)
}

interface Opened {
  storage: Storage
  /** Whether it was opened here, and is closed here. */
  own: boolean
}

async function openAll(given: readonly (Storage | StorageConfig | string | URL)[]): Promise<Opened[]> {
  const opened: Opened[] = []
  try {
    for (const one of given) {
      // What is neither is refused there, with a sentence.
      const isOpen = typeof one === 'object' && one !== null && !(one instanceof URL) && !('provider' in one)
      opened.push({ storage: isOpen ? one : await openStorage(one), own: !isOpen })
    }
    return opened
  } catch (error) {
    await closeOwn(opened)
    throw error
  }
}

async function closeOwn(opened: readonly Opened[]): Promise<void> {
  for (const { storage, own } of opened) if (own) await storage.close()
}

function readKeysOf(options: BackupsOptions): ReadKeys | undefined {
  const { password, key } = options
  const given =
    (Array.isArray(password) ? password.length > 0 : password !== undefined) ||
    (Array.isArray(key) ? key.length > 0 : key !== undefined)
  if (options.encryption === false) {
    if (given)
      throw new BackupError(
        'USAGE',
        'A password or key was given together with encryption: false. Leave one of them out.',
      )
    return undefined
  }
  if (!given) throw new BackupError('USAGE', 'Give a password or a key, or say encryption: false to go without.')
  checkReadKeys({ password, key })
  return { password, key }
}

/** Written with what comes first; the others are for reading older snapshots. */
export function writeKeyOf({ password, key }: ReadKeys): WriteKey {
  const firstKey = (Array.isArray(key) ? key[0] : key) as Uint8Array | undefined
  if (firstKey !== undefined) return { key: firstKey }
  return { password: (Array.isArray(password) ? password[0] : password) as string | undefined }
}
