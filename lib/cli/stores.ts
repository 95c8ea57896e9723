import type { Storage } from '../../adapters/storage.ts'
import type { Fallback } from '../fallback.ts'
import { type MetricUpdate, type MetricValues, writeMetrics } from '../metrics.ts'
import { readStatus, type Status, statusMetrics } from '../status.ts'
import type { Output } from './output.ts'

/** The stores of an option that may be repeated, as `openBackups` takes them. */
export function storesOf(urls: readonly string[]): { storage: string; mirrors: string[] } {
  const [storage, ...mirrors] = urls as [string, ...string[]]
  return { storage, mirrors }
}

/** Says which stores could not be used. */
export function fallbackTo(output: Output): (fallback: Fallback) => void {
  return ({ destination, reason }) =>
    output.warning({ kind: 'fallback', path: destination, message: `${destination} was not used: ${reason}` })
}

/**
 * Writes what a run came to into the file of metrics, with what each store holds now. That it cannot be done is a
 * warning: the run has gone as it has.
 * @param values what to say of a store besides.
 * @param read what a store holds; it is listed when left out.
 */
export async function reportMetrics(
  file: string | undefined,
  server: string,
  storages: readonly Storage[],
  output: Output,
  values: (destination: string) => MetricValues,
  read: (storage: Storage) => Promise<Status> = (storage) => readStatus(storage, server),
): Promise<void> {
  if (file === undefined) return
  const updates: MetricUpdate[] = []
  for (const storage of storages) {
    // A store that cannot be listed keeps the numbers that it had.
    const counts = await read(storage).then(statusMetrics, () => ({}))
    updates.push({ ...counts, server, destination: storage.location, ...values(storage.location) })
  }
  try {
    await writeMetrics(file, updates)
  } catch (error) {
    output.warning({ kind: 'metrics', path: file, message: (error as Error).message })
  }
}

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1000)
}
