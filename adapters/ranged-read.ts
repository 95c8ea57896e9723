import { Readable } from 'node:stream'
import { checkRange, type OpenedRange, type RangeRequest, ResumingReadable, replaced } from './read.ts'
import type { RetryPolicy } from './retry.ts'
import type { ReadOptions, Storage } from './storage.ts'

// What the adapters that read by ranged HTTP requests have in common. Each brings the request.

/** Of an adapter's settings, those that bound its reads. */
export interface ReadSettings {
  /** Bounds the attempts at the first answer. */
  callRetry?: RetryPolicy | undefined
  /** Bounds the attempts at going on. */
  partRetry?: RetryPolicy | undefined
  /** Milliseconds without a byte after which a body is given up. */
  idleMs?: number | undefined
}

/**
 * `Storage.createReadStream` by an adapter's own request for a range, which is one attempt.
 * @throws StorageError INVALID for no range.
 */
export function readByRanges(
  names: { adapter: string; key: string },
  options: ReadOptions,
  { callRetry, partRetry, idleMs }: ReadSettings,
  open: (request: RangeRequest) => Promise<OpenedRange>,
): Readable {
  checkRange(options, names)
  return new ResumingReadable({ ...options, ...names, open, callRetry, resumeRetry: partRetry, idleMs })
}

/**
 * What 416 means: there is nothing from `start` on, which for us is an empty range, unless the object is not what was
 * asked for.
 * @throws StorageError CONFLICT when it was replaced; what `stat` throws.
 */
export async function openPastEnd(
  storage: Pick<Storage, 'adapter' | 'stat'>,
  key: string,
  { start, version, signal }: RangeRequest,
): Promise<OpenedRange> {
  const { size, version: found = '' } = await storage.stat(key, { signal })
  if ((version !== undefined && version !== found) || start < size) throw replaced({ adapter: storage.adapter, key })
  return { body: Readable.from([]), length: 0, version: found }
}
