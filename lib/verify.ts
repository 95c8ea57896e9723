import { randomBytes } from 'node:crypto'
import { Writable } from 'node:stream'
import type { Storage } from '../adapters/storage.ts'
import { createMeter, HEADER_BYTES, type Progress, parseHeader, plainSize, type ReadKeys } from '../transforms/index.ts'
import type { Snapshot } from './catalog.ts'
import { readCompanion } from './companion.ts'
import { type Damage, isDamage, locateDamage } from './damage.ts'
import { BackupError } from './errors.ts'
import { type OpenObject, openObject } from './open-object.ts'
import { needSeekable } from './partial.ts'
import { freeChunk, run } from './pipe.ts'
import { testRestore } from './restore-test.ts'
import { readSample } from './sample.ts'

/** How much of a snapshot is verified. */
export interface VerifyOptions {
  /** Only the companion, and the header and length: nothing is downloaded. */
  quick?: boolean | undefined
  /** The header, the index, the last frame, and this share of the frames (0 to 1), chosen at random. */
  sample?: number | undefined
  /** Chooses the frames of a sample; the same seed, the same frames. Random if left out. */
  seed?: string | undefined
  /** Restore it into a scratch folder, compare what is there with the index, and remove it. */
  restoreTest?: boolean | undefined
  /** Where that folder is made; the system's temporary folder if left out. */
  scratch?: string | undefined
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  /** Told how far it is. */
  onProgress?: ((progress: Progress) => void) | undefined
  signal?: AbortSignal | undefined
}

/** What a verification has found. */
export interface Verification {
  id: string
  /**
   * `ok`: everything that was looked at fits. `unverified`: what was read authenticates, and the companion is missing
   * or differs. `damaged`: it cannot be restored as it was.
   */
  status: 'ok' | 'unverified' | 'damaged'
  mode: 'quick' | 'sample' | 'full' | 'restore-test'
  /** Why it is not `ok`. */
  reason?: string
  /** The first place that is damaged, where it could be told. */
  damage?: Damage
  storedBytes: number
  /** The archive's bytes that were read. */
  bytes?: number
  /** The object's SHA-256 as stored, hex, after a full verification. */
  sha256?: string
  /** Of a sample: data frames read, how many there are, and what they were chosen by. */
  frames?: { read: number; of: number; seed: string }
  /** Of a restore test: entries compared with the index. */
  compared?: number
  /** Of a restore test: what is not as the index says, the first 20. */
  differences?: string[]
  elapsedMs: number
}

/** One of several verifications: its result, or why there is none. */
export type VerificationOrError = Verification | { id: string; status: 'failed'; error: Error }

interface Found {
  storedBytes: number
  bytes?: number
  digest?: string
  frames?: { read: number; of: number; seed: string }
  compared?: number
  differences?: string[]
  /** Whether it was found to differ from its companion, by another reader than this one. */
  differs?: boolean
}

/** How far a reader came, for finding what it failed at. */
interface Reached {
  object?: OpenObject
  contentBytes: number
}

/**
 * Verifies one snapshot: quickly, by a sample, by reading, decrypting, decompressing and hashing all of it, or by
 * restoring it.
 * @throws BackupError USAGE, MISPLACED, NOT_ENCRYPTED, TARGET (no room to restore); TransformError WRONG_KEY;
 * StorageError.
 */
export async function verifySnapshot(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  options: VerifyOptions,
): Promise<Verification> {
  const begun = performance.now()
  const mode = modeOf(options)
  const expected = await readCompanion(storage, snapshot.key, options.signal)
  const reached: Reached = { contentBytes: 0 }
  const result = { id: snapshot.id, mode }
  try {
    const { digest, differs: differed, ...found } = await look(storage, snapshot, keys, options, reached)
    const differs = expected !== null && (differed ?? (digest !== undefined && digest !== expected))
    const wrong = found.differences !== undefined && found.differences.length > 0
    return {
      ...result,
      status: wrong
        ? 'damaged'
        : expected !== null && !differs
          ? 'ok'
          : differs && !snapshot.encrypted
            ? 'damaged'
            : 'unverified',
      ...(expected === null ? { reason: 'The companion is missing, or is not of this object.' } : {}),
      ...(differs ? { reason: 'The object is not the one its companion was written for.' } : {}),
      ...(wrong ? { reason: `What was restored is not what the index says: ${found.differences?.[0]}.` } : {}),
      ...found,
      ...(digest === undefined ? {} : { sha256: digest }),
      elapsedMs: performance.now() - begun,
    }
  } catch (error) {
    if (!isDamage(error)) throw error
    const damage = await locateDamage(storage, snapshot, error, reached.object, reached.contentBytes)
    return {
      ...result,
      status: 'damaged',
      reason: error.message,
      ...(damage ? { damage } : {}),
      storedBytes: snapshot.storedBytes,
      elapsedMs: performance.now() - begun,
    }
  } finally {
    reached.object?.close()
  }
}

/**
 * Verifies several snapshots, one after the other. One that cannot be read is `failed`, and the others go on.
 * @param verify verifies one.
 * @throws AbortError.
 */
export async function* verifySnapshots<S extends Snapshot>(
  snapshots: readonly S[],
  verify: (snapshot: S) => Promise<Verification>,
  options: Pick<VerifyOptions, 'signal'>,
): AsyncGenerator<VerificationOrError> {
  for (const snapshot of snapshots) {
    try {
      yield await verify(snapshot)
    } catch (error) {
      if (options.signal?.aborted) throw error
      yield { id: snapshot.id, status: 'failed', error: error as Error }
    }
  }
}

/** @throws BackupError USAGE for ways that go together with none, and a sample that is none. */
export function modeOf({ quick, sample, restoreTest }: VerifyOptions): Verification['mode'] {
  if ([quick, sample !== undefined, restoreTest].filter(Boolean).length > 1) {
    throw new BackupError('USAGE', 'Verify quickly, by a sample, or by restoring: one of them.')
  }
  if (sample !== undefined && !(sample > 0 && sample <= 1)) {
    throw new BackupError('USAGE', 'A sample is more than 0 and at most all of the frames.')
  }
  return quick ? 'quick' : sample !== undefined ? 'sample' : restoreTest ? 'restore-test' : 'full'
}

async function look(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  options: VerifyOptions,
  reached: Reached,
): Promise<Found> {
  if (options.quick) return quick(storage, snapshot, options.signal)
  const whole = options.sample === undefined && !options.restoreTest
  const object = await openObject(storage, snapshot, { ...options, keys, whole })
  reached.object = object
  if (options.sample !== undefined) return sample(object, snapshot, options.sample, options)
  if (!options.restoreTest) return full(object, options, reached)
  const { restored, compared, different, differences } = await testRestore(storage, snapshot, keys, options)
  const more = different > differences.length ? [`and ${different - differences.length} more`] : []
  const { bytes, verified } = restored
  return { storedBytes: object.stat.size, bytes, compared, differences: [...differences, ...more], differs: !verified }
}

async function quick(storage: Storage, snapshot: Snapshot, signal?: AbortSignal): Promise<Found> {
  const stat = await storage.stat(snapshot.key, { signal })
  if (snapshot.encrypted) {
    const header = parseHeader(await storage.readRange(snapshot.key, 0, Math.min(stat.size, HEADER_BYTES), { signal }))
    plainSize(stat.size, header.frameBytes)
  }
  return { storedBytes: stat.size }
}

async function sample(
  object: OpenObject,
  { id }: Snapshot,
  share: number,
  { seed = randomBytes(8).toString('hex'), onProgress, signal }: VerifyOptions,
): Promise<Found> {
  const seekable = needSeekable(object, id)
  const begun = performance.now()
  let bytes = 0
  const onFrame = (stored: number) => {
    bytes += stored
    const elapsedMs = performance.now() - begun
    onProgress?.({ bytes, elapsedMs, bytesPerSecond: (bytes * 1000) / Math.max(1, elapsedMs) })
  }
  const { contentBytes, ...frames } = await readSample(seekable, share, seed, onFrame, signal)
  return { storedBytes: object.stat.size, bytes: contentBytes, frames: { ...frames, seed } }
}

async function full(object: OpenObject, options: VerifyOptions, reached: Reached): Promise<Found> {
  const { transforms, totals } = object.reading()
  const meter = createMeter({ total: object.stat.size, onProgress: options.onProgress ?? (() => {}) })
  const count = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      reached.contentBytes += chunk.length
      freeChunk(chunk)
      callback()
    },
  })
  await run(object.createReadStream(), [meter, ...transforms], count, options.signal)
  const { contentBytes: bytes } = reached
  if (object.head && object.head.bytes !== bytes) {
    throw new BackupError('DAMAGED', `The index says ${object.head.bytes} bytes, and there are ${bytes}.`)
  }
  const stored = totals()
  return { storedBytes: stored.bytes, bytes, digest: stored.digest }
}
