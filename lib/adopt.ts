import type { Storage } from '../adapters/storage.ts'
import type { Progress, ReadKeys } from '../transforms/index.ts'
import { type ListedSnapshot, listSnapshots } from './catalog.ts'
import { writeCompanion } from './companion.ts'
import { BackupError } from './errors.ts'
import { verifySnapshot } from './verify.ts'

/** How an unfinished snapshot is adopted. */
export interface AdoptOptions {
  allowPlain?: boolean | undefined
  /** Told how far it is. */
  onProgress?: ((progress: Progress) => void) | undefined
  signal?: AbortSignal | undefined
}

/** A snapshot that was adopted. */
export interface Adopted {
  id: string
  key: string
  storedBytes: number
  /** The archive's bytes. */
  bytes: number
  /** SHA-256 of the object as stored, hex, as its companion says now. */
  sha256: string
  elapsedMs: number
}

/**
 * Makes an unfinished snapshot complete: its object is read whole, and when every frame authenticates to the last and
 * its index is this server's and this snapshot's, the companion that was missing is written.
 * @throws BackupError USAGE when it is complete already, DAMAGED when it is not whole, MISPLACED, NOT_ENCRYPTED,
 * IN_USE when the object was replaced meanwhile; TransformError WRONG_KEY; StorageError. Nothing is written then.
 */
export async function adoptSnapshot(
  storage: Storage,
  snapshot: ListedSnapshot,
  keys: ReadKeys | undefined,
  options: AdoptOptions,
): Promise<Adopted> {
  const { id, key } = snapshot
  if (snapshot.complete) {
    throw new BackupError('USAGE', `Snapshot ${id} has a companion already, so there is nothing to adopt.`)
  }
  const found = await verifySnapshot(storage, snapshot, keys, options).catch((error) => {
    throw isMisplaced(error) ? misplaced(key, error) : error
  })
  if (found.status === 'damaged' || found.sha256 === undefined || found.bytes === undefined) {
    throw new BackupError(
      'DAMAGED',
      `Snapshot ${id} is not whole, so it stays unfinished (${found.reason ?? found.status}). Files in it may still be had with restore and --allow-unverified.`,
    )
  }
  const now = (await listSnapshots(storage, snapshot.server, options.signal)).find((one) => one.key === key)
  if (now?.storedBytes !== found.storedBytes || now.version !== snapshot.version) {
    throw new BackupError('IN_USE', `The object ${key} changed while it was read. Adopt it again.`)
  }
  if (!now.complete) await writeCompanion(storage, key, found.sha256, options.signal)
  const { storedBytes, bytes, sha256, elapsedMs } = found
  return { id, key, storedBytes, bytes, sha256, elapsedMs }
}

const isMisplaced = (error: unknown): error is BackupError => error instanceof BackupError && error.code === 'MISPLACED'

/** What verify advises is not for adopting: complete, it would pass for one of this server's. */
function misplaced(key: string, cause: BackupError): BackupError {
  return new BackupError(
    'MISPLACED',
    `The object ${key} is not the one that its name says, or has no index, so it stays unfinished. Where it was moved, put it back to adopt it; what is in it may be had with restore, --allow-unverified and --allow-renamed.`,
    { cause },
  )
}
