import { isUtf8 } from 'node:buffer'
import type { Extract, Header } from 'tar-stream'
import { BackupError } from '../errors.ts'
import type { Meta } from './attributes.ts'
import { type EntryType, paxToNs } from './entry.ts'

// What an entry of a tar stream says, in our own terms, with what it may not say refused.

/** What tar-stream gives beyond its own types. */
export interface TarHeaders extends Omit<Header, 'type' | 'linkname'> {
  type: string | null
  linkname: string | null
  /** Offset of the content. */
  byteOffset: number
  pax: Record<string, string> | null
}

/** An entry as tar-stream gives it: a stream of its content. */
export type Entry = Extract extends AsyncIterable<infer E> ? E : never

/** tar-stream's names for what can be restored. */
export const TYPES: Record<string, EntryType> = {
  file: 'file',
  'contiguous-file': 'file',
  directory: 'dir',
  symlink: 'symlink',
  link: 'link',
}

/** The archive failed while an entry's content was read: not the fault of who was writing it. */
export class ContentError extends Error {}

/**
 * An entry's content, which has to be read to its end.
 * @throws ContentError when the archive fails.
 */
export async function* contentOf(entry: Entry): AsyncGenerator<Buffer, void, void> {
  const chunks = entry[Symbol.asyncIterator]()
  let whole = false
  try {
    for (;;) {
      const next = await chunks.next().catch((cause: unknown) => {
        throw new ContentError(cause instanceof Error ? cause.message : String(cause), { cause })
      })
      if (next.done) break
      yield next.value as Buffer
    }
    whole = true
  } finally {
    if (!whole) await chunks.return?.()
  }
}

/** The error of an archive that is none, or holds what cannot be. */
export function damaged(message: string): BackupError {
  return new BackupError('DAMAGED', message)
}

/** The text of a header field: pax records arrive decoded, plain ones as bytes. Undefined when it is not UTF-8. */
export function decodeField(pax: string | undefined, plain: string | null | undefined): string | undefined {
  if (pax) return pax
  const bytes = Buffer.from(plain ?? '', 'latin1')
  return isUtf8(bytes) ? bytes.toString('utf8') : undefined
}

/** The path below the target, '' for the target itself. Throws BackupError UNSAFE_ARCHIVE when it leaves it. */
export function safePath(name: string): string {
  const shown = JSON.stringify(name)
  if (name.startsWith('/')) throw new BackupError('UNSAFE_ARCHIVE', `The archive entry ${shown} has an absolute path`)
  if (name.includes('\0')) throw new BackupError('UNSAFE_ARCHIVE', `The archive entry ${shown} holds a NUL`)
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw new BackupError('UNSAFE_ARCHIVE', `The archive entry ${shown} leaves the folder`)
  return parts.join('/')
}

/** The largest owner that there is: 32 bits on Linux, and what chown takes. */
const MAX_OWNER = 2 ** 32 - 1

function ownerOf(headers: TarHeaders, key: 'uid' | 'gid'): number {
  const text = headers.pax?.[key]
  const owner = text === undefined ? headers[key] : /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (!(Number.isInteger(owner) && owner >= 0 && owner <= MAX_OWNER)) {
    throw damaged(`The archive has an entry with the ${key} ${JSON.stringify(text ?? String(owner))}`)
  }
  return owner
}

function mtimeOf({ pax, mtime }: TarHeaders): bigint {
  const text = pax?.mtime
  const ms = mtime.getTime()
  const ns = text !== undefined ? paxToNs(text) : Number.isNaN(ms) ? undefined : BigInt(ms) * 1_000_000n
  if (ns === undefined) throw damaged(`The archive has an entry with the mtime ${JSON.stringify(text ?? 'NaN')}`)
  return ns
}

/** @throws BackupError DAMAGED for times, owners or modes that are none. */
export function metaOf(headers: TarHeaders): Meta {
  if (!Number.isInteger(headers.mode)) throw damaged(`The archive has an entry with the mode "${headers.mode}"`)
  return {
    mode: headers.mode & 0o7777,
    mtimeNs: mtimeOf(headers),
    uid: ownerOf(headers, 'uid'),
    gid: ownerOf(headers, 'gid'),
  }
}
