import { StorageError } from '../adapters/errors.ts'
import { abortError, throwIfAborted } from '../adapters/retry.ts'
import { BackupError } from './errors.ts'
import type { Lease } from './lease.ts'

/** What a prune needs of the server's lease. */
export type HeldLease = Pick<Lease, 'release'> & Partial<Pick<Lease, 'confirm'>>

/**
 * @param notes told why it was not to be had.
 * @returns undefined without one.
 */
export async function takeLease(
  lease: (() => Promise<HeldLease>) | undefined,
  notes: string[],
): Promise<HeldLease | undefined> {
  try {
    return await lease?.()
  } catch (error) {
    if (!(error instanceof BackupError)) throw error
    notes.push(`The lease of the server was not to be had: ${error.message}`)
    return undefined
  }
}

/**
 * Whether the lease is held yet: while the machine slept, or the store could not be reached, another run may have taken
 * it, and may be going on with what was left unfinished long ago.
 * @param notes told why it is not.
 * @throws AbortError at once: a store that does not answer is asked for as long as the lease lives.
 */
export async function isStillHeld(
  held: HeldLease | undefined,
  notes: string[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (!held?.confirm) return held !== undefined
  throwIfAborted(signal)
  const end = new AbortController()
  try {
    await Promise.race([
      held.confirm(),
      new Promise<never>((_, reject) => {
        signal?.addEventListener('abort', () => reject(abortError(signal)), { once: true, signal: end.signal })
      }),
    ])
    return true
  } catch (error) {
    if (!(error instanceof BackupError || error instanceof StorageError)) throw error
    const said =
      'The lease of the server was lost meanwhile, so unfinished snapshots, and uploads of the last week, were left.'
    if (!notes.includes(said)) notes.push(said)
    return false
  } finally {
    end.abort()
  }
}
