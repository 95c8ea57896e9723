import { Writable } from 'node:stream'
import type { Storage } from '../adapters/storage.ts'
import {
  createHashTee,
  createMeter,
  HEADER_BYTES,
  type Progress,
  parseHeader,
  plainSize,
  type ReadKeys,
  TransformError,
} from '../transforms/index.ts'
import type { Snapshot } from './catalog.ts'
import { readCompanion } from './companion.ts'
import { BackupError } from './errors.ts'
import { openObject } from './open-object.ts'
import { freeChunk, run } from './pipe.ts'

export interface VerifyOptions {
  /** Only the companion, and the header and length: nothing is downloaded. */
  quick?: boolean | undefined
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  onProgress?: ((progress: Progress) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface Verification {
  id: string
  /**
   * `ok`: everything fits. `unverified`: what was read authenticates, and the companion is missing or differs.
   * `damaged`: it cannot be restored as it was.
   */
  status: 'ok' | 'unverified' | 'damaged'
  mode: 'quick' | 'full'
  /** Why it is not `ok`. */
  reason?: string
  storedBytes: number
  /** The archive's bytes, after a full verification. */
  bytes?: number
  elapsedMs: number
}

/** What a reader throws when it is the object that is wrong, and not the key or the way to it. */
const DAMAGE = ['NOT_SEALED', 'UNSUPPORTED', 'BAD_HEADER', 'AUTH_FAILED', 'TRUNCATED', 'CORRUPT', 'LIMIT']

/**
 * Verifies one snapshot: quickly, or by reading, decrypting, decompressing and hashing all of it.
 * @throws TransformError WRONG_KEY; BackupError MISPLACED, NOT_ENCRYPTED; StorageError.
 */
export async function verifySnapshot(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  options: VerifyOptions,
): Promise<Verification> {
  const begun = performance.now()
  const { signal } = options
  const expected = await readCompanion(storage, snapshot.key, signal)
  let found: { storedBytes: number; bytes?: number; digest?: string }
  try {
    found = options.quick ? await quick(storage, snapshot, signal) : await full(storage, snapshot, keys, options)
  } catch (error) {
    if (!isDamage(error)) throw error
    return {
      id: snapshot.id,
      status: 'damaged',
      mode: options.quick ? 'quick' : 'full',
      reason: error.message,
      storedBytes: snapshot.storedBytes,
      elapsedMs: performance.now() - begun,
    }
  }
  const differs = found.digest !== undefined && expected !== null && found.digest !== expected
  const { digest: _, ...sizes } = found
  return {
    id: snapshot.id,
    status: expected === null || differs ? (differs && !snapshot.encrypted ? 'damaged' : 'unverified') : 'ok',
    mode: options.quick ? 'quick' : 'full',
    ...(expected === null ? { reason: 'The companion is missing, or is not of this object.' } : {}),
    ...(differs ? { reason: 'The object is not the one its companion was written for.' } : {}),
    ...sizes,
    elapsedMs: performance.now() - begun,
  }
}

function isDamage(error: unknown): error is Error {
  return (
    (error instanceof TransformError && DAMAGE.includes(error.code)) ||
    (error instanceof BackupError && error.code === 'DAMAGED')
  )
}

async function quick(storage: Storage, snapshot: Snapshot, signal?: AbortSignal) {
  const stat = await storage.stat(snapshot.key, { signal })
  if (snapshot.encrypted) {
    const header = parseHeader(await storage.readRange(snapshot.key, 0, Math.min(stat.size, HEADER_BYTES), { signal }))
    plainSize(stat.size, header.frameBytes)
  }
  return { storedBytes: stat.size }
}

async function full(storage: Storage, snapshot: Snapshot, keys: ReadKeys | undefined, options: VerifyOptions) {
  const object = await openObject(storage, snapshot, { ...options, keys })
  try {
    const tee = createHashTee()
    const meter = createMeter({ total: object.stat.size, onProgress: options.onProgress ?? (() => {}) })
    let bytes = 0
    const count = new Writable({
      write(chunk: Buffer, _encoding, callback) {
        bytes += chunk.length
        freeChunk(chunk)
        callback()
      },
    })
    await run(object.createReadStream(), [tee, meter, ...object.transforms()], count, options.signal)
    if (object.head && object.head.bytes !== bytes) {
      throw new BackupError('DAMAGED', `The index says ${object.head.bytes} bytes, and there are ${bytes}.`)
    }
    return { storedBytes: tee.bytes, bytes, digest: tee.digest }
  } finally {
    object.close()
  }
}
