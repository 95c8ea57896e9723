import { randomBytes } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { StorageError } from './errors.ts'
import { isAbort, throwIfAborted } from './retry.ts'
import type { CallOptions, ObjectStat, ProbeReport, ProbeStep, Storage } from './storage.ts'

export const CANARY = 'millrace canary: safe to delete\n'

/** Does one step, and notes in the report how it went. @returns whether it succeeded. @throws AbortError */
export type Attempt = (step: ProbeStep['step'], work: () => Promise<void>) => Promise<boolean>

/** What an adapter adds to the probe. */
export interface ProbeExtras {
  /** Further steps, done while the canary is there. @returns what goes into the report as `found`. */
  further?: (attempt: Attempt, canary: string) => Promise<Record<string, boolean | string>>
  /** In place of `delete`, where that leaves something: it shows the same right, and leaves nothing where it can. */
  remove?: (canary: string) => Promise<void>
}

/**
 * Does what `Storage.probe` says, with the store's own methods.
 * @param signIn rejects when the credentials are refused or the store cannot be reached; then no other step is tried.
 */
export async function probeStorage(
  storage: Storage,
  signIn: () => Promise<void>,
  options: CallOptions = {},
  extras: ProbeExtras = {},
): Promise<ProbeReport> {
  const { signal } = options
  const call = signal ? { signal } : {}
  const steps: ProbeStep[] = []
  let found: ProbeReport['found']
  const report = () => ({ ok: steps.every((step) => step.ok), steps, ...(found ? { found } : {}) })
  const attempt: Attempt = async (step, work) => {
    const begin = performance.now()
    const done = (error?: unknown) => {
      const ms = Math.round(performance.now() - begin)
      steps.push(error === undefined ? { step, ok: true, ms } : { step, ok: false, ms, error: error as Error })
      return error === undefined
    }
    try {
      if (step !== 'delete') throwIfAborted(signal)
      await work()
      return done()
    } catch (error) {
      if (isAbort(error) && step !== 'delete') throw error
      return done(error)
    }
  }

  if (!(await attempt('sign-in', signIn))) return report()

  const canary = `.millrace-canary-${randomBytes(9).toString('hex')}`
  let existing: ObjectStat | undefined
  let written = false
  try {
    await attempt('list', async () => {
      for await (const object of storage.list('', call)) {
        existing = object
        break
      }
    })
    await attempt('write', async () => {
      const stream = storage.createWriteStream(canary, { ...call, size: CANARY.length })
      stream.end(CANARY)
      await finished(stream).catch((error) => {
        // The store took it, and only would not say so: the next step reports that.
        if (!(error instanceof StorageError && error.operation === 'stat')) throw error
      })
      written = true
    })
    // A key that may not write can still show that it reads, where there is something to read.
    const key = written ? canary : existing?.key
    if (key !== undefined) {
      let size = CANARY.length
      await attempt('stat', async () => {
        size = (await storage.stat(key, call)).size
      })
      if (written) {
        await attempt('read', async () => {
          if ((await text(storage.createReadStream(key, call))) !== CANARY) throw changed(storage, key)
        })
      }
      if (size > 0) {
        await attempt('range', async () => {
          const byte = await storage.readRange(key, size - 1, 1, call)
          if (written && byte.toString() !== CANARY.at(-1)) throw changed(storage, key)
        })
      }
    }
    if (written) found = await extras.further?.(attempt, canary)
  } finally {
    // Tried even when nothing was written: an absent object is success, so it shows the right to delete. Without the
    // caller's signal, as an aborted probe must not leave its canary.
    await attempt('delete', async () => {
      await (extras.remove ? extras.remove(canary) : storage.delete(canary))
    })
  }
  return report()
}

function changed(storage: Storage, key: string): StorageError {
  const message = 'The store gave other bytes than the ones that were written.'
  return new StorageError(message, { code: 'CORRUPT', adapter: storage.adapter, operation: 'probe', key })
}
