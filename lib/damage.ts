import type { Storage } from '../adapters/storage.ts'
import { HEADER_BYTES, parseHeader, type Seekable, sealedSize, TransformError } from '../transforms/index.ts'
import type { Snapshot } from './catalog.ts'
import { BackupError } from './errors.ts'
import type { OpenObject } from './open-object.ts'

/** Files that a damaged place is reported with. */
const FILES_SHOWN = 20

/** The first place of an object that is not as it was written. Offsets and lengths are of the object as stored. */
export interface Damage {
  /** Frames of the container are authenticated, those of zstd have checksums. */
  layer: 'header' | 'container' | 'zstd'
  /** The frame's number, from 0; null for the header. */
  frame: number | null
  offset: number
  bytes: number
  /** Paths that the index has there, the first 20; null when the index cannot be read. */
  files: string[] | null
  /** How many there are beyond those. */
  moreFiles: number
}

/** What a reader throws when it is the object that is wrong, and not the key or the way to it. */
const DAMAGE = ['NOT_SEALED', 'UNSUPPORTED', 'BAD_HEADER', 'AUTH_FAILED', 'TRUNCATED', 'CORRUPT', 'LIMIT']

export function isDamage(error: unknown): error is Error {
  return (
    (error instanceof TransformError && DAMAGE.includes(error.code)) ||
    (error instanceof BackupError && error.code === 'DAMAGED')
  )
}

/**
 * Finds the place that an error is about.
 * @param object undefined when it could not even be opened.
 * @param contentBytes of the archive that came out before the error: where to look from.
 * @returns undefined when there is no one place, as of an object that was cut.
 */
export async function locateDamage(
  storage: Storage,
  snapshot: Snapshot,
  error: Error,
  object: OpenObject | undefined,
  contentBytes: number,
): Promise<Damage | undefined> {
  const { code, frame } = error as TransformError
  if (code === 'NOT_SEALED' || code === 'BAD_HEADER' || (code === 'UNSUPPORTED' && !object)) {
    return { layer: 'header', frame: null, offset: 0, bytes: HEADER_BYTES, files: null, moreFiles: 0 }
  }
  const seekable = object?.seekable ?? undefined
  if (frame !== undefined) return inContainer(storage, snapshot, seekable, frame)
  if (!object || !seekable) return undefined
  const found = await firstBadFrame(seekable, contentBytes)
  if (found === undefined) return undefined
  // By ranges the container may be what fails, where the stream saw something else first.
  if (found.sealedFrame !== undefined) return inContainer(storage, snapshot, seekable, found.sealedFrame)
  const { at, bytes, contentAt, contentBytes: content } = seekable.frame(found.frame)
  const files = await filesIn(seekable, contentAt, contentAt + content)
  const { sealed } = object
  const offset = sealed ? sealedOffset(at, sealed.header.frameBytes) : at
  const end = sealed ? sealedOffset(at + bytes, sealed.header.frameBytes) : at + bytes
  return { layer: 'zstd', frame: found.frame, offset, bytes: end - offset, ...files }
}

async function inContainer(
  storage: Storage,
  snapshot: Snapshot,
  seekable: Seekable | undefined,
  frame: number,
): Promise<Damage> {
  const { frameBytes } = parseHeader(await storage.readRange(snapshot.key, 0, HEADER_BYTES))
  const offset = sealedOffset(frame * frameBytes, frameBytes)
  const bytes = Math.min(sealedOffset((frame + 1) * frameBytes, frameBytes), snapshot.storedBytes) - offset
  const [start, end] = [frame * frameBytes, (frame + 1) * frameBytes]
  const content = seekable ? contentOf(seekable, start, end) : undefined
  const files =
    seekable && content ? await filesIn(seekable, content.start, content.end) : { files: null, moreFiles: 0 }
  return { layer: 'container', frame, offset, bytes, ...files }
}

/** Where a byte of plaintext is in a container. */
function sealedOffset(plain: number, frameBytes: number): number {
  const [noPlain, overhead] = [HEADER_BYTES, sealedSize(0, frameBytes) - HEADER_BYTES]
  return noPlain + plain + Math.floor(plain / frameBytes) * overhead
}

/** The content of the zstd frames that have bytes in a range of the zstd stream. */
function contentOf(seekable: Seekable, start: number, end: number): { start: number; end: number } | undefined {
  let found: { start: number; end: number } | undefined
  for (let i = 0; i < seekable.frames; i += 1) {
    const { at, bytes, contentAt, contentBytes } = seekable.frame(i)
    if (at + bytes <= start || at >= end || contentBytes === 0) continue
    found = { start: found?.start ?? contentAt, end: contentAt + contentBytes }
  }
  return found
}

async function firstBadFrame(
  seekable: Seekable,
  contentBytes: number,
): Promise<{ frame: number; sealedFrame?: number } | undefined> {
  for (let i = 0; i < seekable.frames; i += 1) {
    const { contentAt, contentBytes: bytes } = seekable.frame(i)
    if (bytes === 0 || contentAt + bytes <= contentBytes) continue
    try {
      await seekable.read(contentAt, bytes)
    } catch (error) {
      if (!isDamage(error)) throw error
      const { frame } = error as TransformError
      return { frame: i, ...(frame === undefined ? {} : { sealedFrame: frame }) }
    }
  }
  return undefined
}

/** The entries that have headers or content in a range of the archive. */
async function filesIn(
  seekable: Seekable,
  start: number,
  end: number,
): Promise<{ files: string[] | null; moreFiles: number }> {
  const files: string[] = []
  let moreFiles = 0
  try {
    for await (const { path, at, data, size } of seekable.entries()) {
      if (data + size <= start || at >= end) continue
      if (files.length < FILES_SHOWN) files.push(path)
      else moreFiles += 1
    }
  } catch (error) {
    if (!isDamage(error)) throw error
    return { files: null, moreFiles: 0 }
  }
  return { files, moreFiles }
}
