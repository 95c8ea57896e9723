import { BLOCK_BYTES, type EntryType, nsToPax, roundToBlock } from './entry.ts'

/*
 * The headers are written here and not by tar-stream's pack, for two reasons. With pax records, tar-stream names the
 * plain header of every entry 'PaxHeader': a tar that ignores pax (busybox, on every small Linux) would restore the
 * whole world into one file. And it costs two stream objects an entry, which is most of the time of a folder of
 * small files.
 */

/** Paths and symlink targets end at PATH_MAX (4,096 bytes), so a header with both of them fits. */
export const HEADER_LIMIT_BYTES = 16 * 1024

/** What GNU tar and tar-stream agree on: above these, the pax record counts. */
const MAX_PLAIN_ID = 0o777777
const MAX_FIELD_ID = 0o7777777
const MAX_PLAIN_SIZE = 0o77777777777
const NAME_BYTES = 100
const PREFIX_BYTES = 155
const SLASH = 0x2f

const TYPE_FLAGS: Record<EntryType, string> = { file: '0', link: '1', symlink: '2', dir: '5' }

export interface TarHeader {
  /** Relative, without a trailing slash. */
  path: string
  type: EntryType
  /** Bytes of content that follow; 0 for everything but a file. */
  size: number
  mode: number
  mtimeNs: bigint
  uid: number
  gid: number
  link?: string | undefined
}

function isPlain(text: string): boolean {
  if (text.length > NAME_BYTES) return false
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return false
  return true
}

function paxRecord(key: string, value: string): string {
  const rest = key.length + Buffer.byteLength(value) + 3
  let digits = String(rest).length
  // The length counts its own digits.
  if (String(rest + digits).length > digits) digits++
  return `${rest + digits} ${key}=${value}\n`
}

function paxRecords(header: TarHeader, name: string): string {
  let records = paxRecord('mtime', nsToPax(header.mtimeNs))
  if (!isPlain(name)) records += paxRecord('path', name)
  if (header.link !== undefined && !isPlain(header.link)) records += paxRecord('linkpath', header.link)
  if (header.size > MAX_PLAIN_SIZE) records += paxRecord('size', String(header.size))
  if (header.uid > MAX_PLAIN_ID) records += paxRecord('uid', String(header.uid))
  if (header.gid > MAX_PLAIN_ID) records += paxRecord('gid', String(header.gid))
  return records
}

function writeOctal(out: Buffer, at: number, digits: number, value: number): void {
  out.write(value.toString(8).padStart(digits, '0'), at, digits, 'latin1')
}

/** Base 256, as GNU tar has it, for readers that do not know pax; pax readers take the `size` record. */
function writeSize(out: Buffer, at: number, size: number): void {
  if (size <= MAX_PLAIN_SIZE) {
    writeOctal(out, at, 11, size)
    return
  }
  out[at] = 0x80
  out.writeUInt32BE(Math.floor(size / 2 ** 32), at + 4)
  out.writeUInt32BE(size % 2 ** 32, at + 8)
}

/** Whole when it fits, split at a slash when prefix and name hold it, else cut: then the pax record has it all. */
function writeName(out: Buffer, block: number, name: string): void {
  if (isPlain(name)) {
    out.write(name, block, NAME_BYTES, 'latin1')
    return
  }
  const bytes = Buffer.from(name)
  if (bytes.length > NAME_BYTES) {
    const split = bytes.subarray(0, PREFIX_BYTES + 1).lastIndexOf(SLASH, bytes.length - 2)
    if (split > 0 && bytes.length - split - 1 <= NAME_BYTES) {
      bytes.copy(out, block + 345, 0, split)
      bytes.copy(out, block, split + 1)
      return
    }
  }
  bytes.copy(out, block, 0, NAME_BYTES)
}

function finishBlock(out: Buffer, block: number, flag: string): void {
  out.write(flag, block + 156, 1, 'latin1')
  out.write('ustar', block + 257, 5, 'latin1')
  out.write('00', block + 263, 2, 'latin1')
  let sum = 8 * 0x20
  for (let i = block; i < block + 148; i++) sum += out[i]!
  for (let i = block + 156; i < block + BLOCK_BYTES; i++) sum += out[i]!
  writeOctal(out, block + 148, 6, sum)
  out[block + 155] = 0x20
}

function makePaxBlock(bytes: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  block.write('PaxHeader', 0, 'latin1')
  writeOctal(block, 100, 7, 0o644)
  writeOctal(block, 108, 7, 0)
  writeOctal(block, 116, 7, 0)
  writeOctal(block, 124, 11, bytes)
  writeOctal(block, 136, 11, 0)
  finishBlock(block, 0, 'x')
  return block
}

// A pax header says nothing but the length of its records, and nearly all entries of a folder share one length.
const paxBlocks = new Map<number, Buffer>()

function paxBlock(bytes: number): Buffer {
  let block = paxBlocks.get(bytes)
  if (!block) {
    block = makePaxBlock(bytes)
    if (bytes < BLOCK_BYTES) paxBlocks.set(bytes, block)
  }
  return block
}

/**
 * Writes an entry's blocks (pax header, its records, plain header) into `out` from `at` on, where at least
 * HEADER_LIMIT_BYTES are free.
 * @returns the number of bytes written, a multiple of 512
 */
export function writeHeader(out: Buffer, at: number, header: TarHeader): number {
  const name = header.type === 'dir' ? `${header.path}/` : header.path
  const records = paxRecords(header, name)
  const recordBytes = out.write(records, at + BLOCK_BYTES, 'utf8')
  paxBlock(recordBytes).copy(out, at)
  const block = at + BLOCK_BYTES + roundToBlock(recordBytes)
  out.fill(0, at + BLOCK_BYTES + recordBytes, block + BLOCK_BYTES)
  writeName(out, block, name)
  writeOctal(out, block + 100, 7, header.mode & 0o7777)
  writeOctal(out, block + 108, 7, Math.min(header.uid, MAX_FIELD_ID))
  writeOctal(out, block + 116, 7, Math.min(header.gid, MAX_FIELD_ID))
  writeSize(out, block + 124, header.size)
  const seconds = Number(header.mtimeNs / 1_000_000_000n)
  writeOctal(out, block + 136, 11, Math.min(Math.max(seconds, 0), MAX_PLAIN_SIZE))
  if (header.link !== undefined) Buffer.from(header.link).copy(out, block + 157, 0, NAME_BYTES)
  finishBlock(out, block, TYPE_FLAGS[header.type])
  return block + BLOCK_BYTES - at
}
