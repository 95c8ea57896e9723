import { type FileHandle, open } from 'node:fs/promises'
import { throwIfAborted } from '../../adapters/retry.ts'
import { targetError } from './io.ts'

export interface RawFileOptions {
  /** Where the bytes that come are put: what stands before stays, what stands after is cut off. */
  from: number
  /** Bytes between two marks, at least. */
  everyBytes: number
  /** Told how many bytes of the file are on the disk. */
  onMark: (bytes: number) => Promise<void>
  /** Told of each chunk that has been written, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Writes a stream into a file, and brings it onto the disk.
 * @returns the file's length in bytes.
 * @throws BackupError TARGET when it cannot be written; the source's own error; AbortError.
 */
export async function writeRawFile(
  source: AsyncIterable<Buffer>,
  path: string,
  { from, everyBytes, onMark, onConsumed, signal }: RawFileOptions,
): Promise<number> {
  const file = await onFile(path, open(path, from === 0 ? 'wx' : 'r+', 0o600))
  let at = from
  let marked = from
  try {
    await onFile(path, file.truncate(from))
    for await (const chunk of source) {
      throwIfAborted(signal)
      const { length } = chunk
      await onFile(path, writeAt(file, chunk, at))
      onConsumed?.(chunk)
      at += length
      if (at - marked < everyBytes) continue
      await onFile(path, file.sync())
      marked = at
      await onMark(marked)
    }
    await onFile(path, file.sync())
    return at
  } finally {
    await file.close()
  }
}

async function writeAt(file: FileHandle, chunk: Buffer, at: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    done += (await file.write(chunk, done, chunk.length - done, at + done)).bytesWritten
  }
}

/** The file's own failures, told from the source's. */
function onFile<T>(path: string, work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    throw targetError(path, error)
  })
}
