import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { DOING } from '../../adapters/errors.ts'
import { STORE_WAITS, type StoreWait } from '../../adapters/retry.ts'
import { formatDuration } from './format.ts'

/** A shorter wait is over before it is read. */
const TOLD_MS = 5000

/**
 * Tells of waits that a store asks for: a command that does nothing for minutes looks like one that hangs. Of those that
 * several requests are asked for at a time, the first is told.
 * @returns ends it.
 */
export function tellStoreWaits(tell: (message: string) => void): () => void {
  const until = new Map<string, number>()
  const onWait = (message: unknown) => {
    const { ms, error } = message as StoreWait
    const { adapter, operation, key } = error
    const now = performance.now()
    if (ms < TOLD_MS || now < (until.get(adapter) ?? 0)) return
    until.set(adapter, now + ms)
    const what = DOING[operation] === undefined ? operation : `${DOING[operation]} ${key ?? 'it'}`
    tell(`${adapter} asks for a rest of ${formatDuration(ms)} (${what}). It goes on after that.`)
  }
  subscribe(STORE_WAITS, onWait)
  return () => void unsubscribe(STORE_WAITS, onWait)
}
