import type { IndexEntry } from '../../transforms/index.ts'

/**
 * What an entry of the archive is, to everyone who writes, lists or restores one, and the exact conversions between
 * the three clocks that meet here: the kernel's nanoseconds, tar's decimal seconds, the index's milliseconds.
 */

export type EntryType = IndexEntry['type']

/**
 * How the stored copy of a file came to differ from any one moment of the file: `grew` (cut at the size of its
 * header), `shrank` (filled up with zeros), `modified` (same size, but its times moved while it was read),
 * `vanished` (it changed while it was read and was gone before it could be read again), `unreadable` (a read failed
 * half-way; the rest is zeros).
 */
export type EntryChange = 'grew' | 'shrank' | 'modified' | 'vanished' | 'unreadable'

/** One entry as it stands in the index, with what this writer says of changes. */
export interface ArchiveEntry extends IndexEntry {
  changed?: EntryChange
  superseded?: true
}

/**
 * - `special`: a socket, fifo or device, never stored
 * - `name`: a name or symlink target that is not UTF-8, not stored
 * - `unreadable`, `vanished`: could not be opened or read to its end, or was gone with its folder, or replaced
 * - `removed`: was removed from its folder before it could be read
 * - `changed`: stored, but it did not hold still while it was read
 * - `link`: (extracting) a hard link whose content was not selected or not restored
 * - `unsupported`: (extracting) what the target's file system cannot hold: symlinks, hard links, owners, modes, times
 * - `pattern`: a pattern of what to take that takes nothing; the path is the pattern
 * - `quiesce`: the source was not held still as it should have been; of no path
 */
export type WarningKind =
  | 'special'
  | 'name'
  | 'unreadable'
  | 'vanished'
  | 'removed'
  | 'changed'
  | 'link'
  | 'unsupported'
  | 'pattern'
  | 'quiesce'

/** Something in a folder that was left out, or did not come out as it should. */
export interface ArchiveWarning {
  kind: WarningKind
  /** Relative to the folder; for names that are not UTF-8 in an escaped form. */
  path: string
  message: string
  cause?: unknown
}

export const BLOCK_BYTES = 512

/** The end of an archive is two blocks of zeros. */
export const TRAILER_BYTES = 2 * BLOCK_BYTES

const NS_PER_S = 1_000_000_000n
const NS_PER_MS = 1_000_000n

/** Bytes up to the next block border. */
export function roundToBlock(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES
}

/** Milliseconds, with the fraction a double can hold, of a time in nanoseconds. */
export function nsToMs(ns: bigint): number {
  return Number(ns / NS_PER_MS) + Number(ns % NS_PER_MS) / 1e6
}

/** Nanoseconds of a time in milliseconds (may have a fraction). */
export function msToNs(ms: number): bigint {
  const whole = Math.floor(ms)
  return BigInt(whole) * NS_PER_MS + BigInt(Math.round((ms - whole) * 1e6))
}

/** A time in nanoseconds as pax writes it: decimal seconds, up to nine digits after the point, none if they are 0. */
export function nsToPax(ns: bigint): string {
  const abs = ns < 0n ? -ns : ns
  const sign = ns < 0n ? '-' : ''
  const fraction = Number(abs % NS_PER_S)
  if (fraction === 0) return `${sign}${abs / NS_PER_S}`
  let digits = String(fraction).padStart(9, '0')
  while (digits.endsWith('0')) digits = digits.slice(0, -1)
  return `${sign}${abs / NS_PER_S}.${digits}`
}

/** Nanoseconds of a pax time; undefined when it is not one. */
export function paxToNs(text: string): bigint | undefined {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text)
  if (!match) return undefined
  const abs = BigInt(match[2]!) * NS_PER_S + BigInt((match[3] ?? '').slice(0, 9).padEnd(9, '0'))
  return match[1] ? -abs : abs
}

/**
 * The argument that makes fs.utimes set a time in nanoseconds, exact to the millisecond and to a quarter of a
 * microsecond around now.
 */
export function nsToTimeArgument(ns: bigint): number | Date {
  // fs.utimes takes every negative number for "now"; a Date before 1970 passes. It arrives some nanoseconds off, so that
  // the next restore of it would be a millisecond earlier if this were cut and not rounded.
  if (ns < 0n) return new Date(Math.round(nsToMs(ns)))
  const seconds = Number(ns / NS_PER_S) + Number(ns % NS_PER_S) / 1e9
  // libuv cuts the double to a whole nanosecond, so 0.123 would arrive as 0.122999906.
  const wanted = Number(ns / NS_PER_MS)
  const whole = Math.floor(seconds)
  const arrives = whole * 1000 + Math.floor(Math.trunc((seconds - whole) * 1e9) / 1e6)
  if (arrives < wanted) return seconds * (1 + Number.EPSILON)
  if (arrives > wanted) return seconds * (1 - Number.EPSILON / 2)
  return seconds
}

/** A name whose bytes (one char each) are not UTF-8, in a form that can be shown: `w\xf6rld`. */
export function escapeBytes(latin1: string): string {
  let shown = ''
  for (let i = 0; i < latin1.length; i++) {
    const code = latin1.charCodeAt(i)
    if (code === 0x5c) shown += '\\\\'
    else if (code < 0x20 || code > 0x7e) shown += `\\x${code.toString(16).padStart(2, '0')}`
    else shown += latin1[i]
  }
  return shown
}
