import { crc32 } from 'node:zlib'
import { BackupError } from '../errors.ts'
import type { CommittedObject, JournalContents, JournalHead, JournalRun, UploadRecord } from './records.ts'

/*
 * A journal is a file of blocks, each on the disk before the next is written:
 *
 *   magic (8)  journal id (16, random)
 *   block:     payload length u32 | number u32, from 0 | crc32 u32 of journal id, number, length and payload | payload
 *   payload:   records, each: type u8 | length u32 | bytes
 *
 * Numbers are big-endian. A process or a machine that stops leaves at most the last block torn, since no further one is
 * begun before a block is durable: a bad block with a good one behind it is damage. The journal's id in each sum keeps
 * blocks of another journal out.
 */

export const JOURNAL_MAGIC = Buffer.from('MLRJRNL\x01', 'latin1')
const ID_BYTES = 16
/** Where the first block begins. */
export const JOURNAL_HEADER_BYTES = JOURNAL_MAGIC.length + ID_BYTES
const BLOCK_HEADER_BYTES = 12
const RECORD_HEADER_BYTES = 5
/** More would be no journal's: a block holds what was sealed between two parts. */
export const MAX_BLOCK_BYTES = 64 * 1024 * 1024
const SEAL_BYTES = 28
const OBJECT_HEADER_BYTES = 64
/** How far a block's number may be ahead for it to count as one that follows. */
const NUMBERS_AHEAD = 1 << 20

const TYPE = { head: 1, run: 2, header: 3, seals: 4, upload: 5, part: 6, done: 7 } as const

export type JournalRecord =
  | { type: 'head'; head: JournalHead }
  | { type: 'run'; run: JournalRun }
  /** The 64 bytes that a sealed object begins with. */
  | { type: 'header'; header: Buffer }
  /** Nonces and tags of frames that follow one another. */
  | { type: 'seals'; first: number; seals: Buffer }
  | { type: 'upload'; upload: UploadRecord }
  /** The store has acknowledged these bytes. */
  | { type: 'part'; number: number; bytes: number; checksum: string }
  /** The store has committed the object. */
  | { type: 'done'; done: CommittedObject }

/** @returns a new journal's first bytes. @param id 16 random bytes. */
export function encodeJournalHeader(id: Buffer): Buffer {
  return Buffer.concat([JOURNAL_MAGIC, id])
}

/** One block of records. */
export function encodeBlock(id: Buffer, number: number, records: readonly JournalRecord[]): Buffer {
  const payload = Buffer.concat(records.map(encodeRecord))
  const block = Buffer.alloc(BLOCK_HEADER_BYTES)
  block.writeUInt32BE(payload.length, 0)
  block.writeUInt32BE(number, 4)
  block.writeUInt32BE(sumOf(id, block, payload), 8)
  return Buffer.concat([block, payload])
}

/** What a journal's bytes say, and how many of them are whole blocks. */
export interface DecodedJournal {
  id: Buffer
  contents: JournalContents
  /** What is behind is a block that was never finished. */
  goodBytes: number
  blocks: number
}

/**
 * Reads a journal's bytes. A torn last block is left out.
 * @throws BackupError JOURNAL when it is none, is damaged, or is of a version that is not known.
 */
export function decodeJournal(bytes: Buffer): DecodedJournal {
  if (bytes.length < JOURNAL_HEADER_BYTES) throw noJournal('it ends before its first record')
  if (!bytes.subarray(0, JOURNAL_MAGIC.length).equals(JOURNAL_MAGIC)) {
    throw noJournal('it does not begin as one, or is of another release')
  }
  const id = Buffer.from(bytes.subarray(JOURNAL_MAGIC.length, JOURNAL_HEADER_BYTES))
  const builder = new ContentsBuilder()
  let at = JOURNAL_HEADER_BYTES
  let blocks = 0
  for (;;) {
    const end = blockEnd(bytes, at, id, blocks)
    if (end === undefined) break
    for (const record of decodeRecords(bytes.subarray(at + BLOCK_HEADER_BYTES, end))) builder.add(record)
    at = end
    blocks += 1
  }
  if (at < bytes.length && hasLaterBlock(bytes, at, id, blocks)) {
    throw noJournal(`block ${blocks} is damaged, and others follow it`)
  }
  return { id, contents: builder.build(), goodBytes: at, blocks }
}

/**
 * Whether these are the bytes of a journal whose first block never came to be whole: its run was killed, or the disk
 * was full, before it could send anything.
 */
export function isUnbegun(bytes: Buffer): boolean {
  const magic = bytes.subarray(0, JOURNAL_MAGIC.length)
  if (!magic.equals(JOURNAL_MAGIC.subarray(0, magic.length))) return false
  const id = bytes.subarray(JOURNAL_MAGIC.length, JOURNAL_HEADER_BYTES)
  return (
    blockEnd(bytes, JOURNAL_HEADER_BYTES, id, 0) === undefined && !hasLaterBlock(bytes, JOURNAL_HEADER_BYTES, id, 0)
  )
}

/** @returns where a whole block of that number ends; undefined when there is none. */
function blockEnd(bytes: Buffer, at: number, id: Buffer, number: number): number | undefined {
  if (at + BLOCK_HEADER_BYTES > bytes.length) return undefined
  const length = bytes.readUInt32BE(at)
  const end = at + BLOCK_HEADER_BYTES + length
  if (length > MAX_BLOCK_BYTES || end > bytes.length || bytes.readUInt32BE(at + 4) !== number) return undefined
  const sum = sumOf(id, bytes.subarray(at, at + 8), bytes.subarray(at + BLOCK_HEADER_BYTES, end))
  return bytes.readUInt32BE(at + 8) === sum ? end : undefined
}

function hasLaterBlock(bytes: Buffer, from: number, id: Buffer, number: number): boolean {
  for (let at = from; at + BLOCK_HEADER_BYTES <= bytes.length; at += 1) {
    const found = bytes.readUInt32BE(at + 4)
    if (found < number || found > number + NUMBERS_AHEAD) continue
    if (blockEnd(bytes, at, id, found) !== undefined) return true
  }
  return false
}

function sumOf(id: Buffer, blockHeader: Buffer, payload: Buffer): number {
  return crc32(payload, crc32(blockHeader.subarray(0, 8), crc32(id)))
}

function encodeRecord(record: JournalRecord): Buffer {
  const bytes = bodyOf(record)
  const header = Buffer.alloc(RECORD_HEADER_BYTES)
  header[0] = TYPE[record.type]
  header.writeUInt32BE(bytes.length, 1)
  return Buffer.concat([header, bytes])
}

function bodyOf(record: JournalRecord): Buffer {
  switch (record.type) {
    case 'head':
      return Buffer.from(JSON.stringify(record.head))
    case 'run':
      return Buffer.from(JSON.stringify(record.run))
    case 'header':
      return record.header
    case 'seals': {
      const first = Buffer.alloc(8)
      first.writeBigUInt64BE(BigInt(record.first))
      return Buffer.concat([first, record.seals])
    }
    case 'upload':
      return Buffer.from(JSON.stringify(record.upload))
    case 'part': {
      const { number, bytes, checksum } = record
      return Buffer.from(JSON.stringify({ number, bytes, checksum }))
    }
    case 'done':
      return Buffer.from(JSON.stringify(record.done))
  }
}

function* decodeRecords(payload: Buffer): Generator<JournalRecord> {
  let at = 0
  while (at < payload.length) {
    if (at + RECORD_HEADER_BYTES > payload.length) throw noJournal('a record is cut')
    const length = payload.readUInt32BE(at + 1)
    const from = at + RECORD_HEADER_BYTES
    if (from + length > payload.length) throw noJournal('a record is cut')
    yield decodeRecord(payload[at] as number, payload.subarray(from, from + length))
    at = from + length
  }
}

function decodeRecord(type: number, body: Buffer): JournalRecord {
  switch (type) {
    case TYPE.head:
      return { type: 'head', head: parse(body) as JournalHead }
    case TYPE.run:
      return { type: 'run', run: parse(body) as JournalRun }
    case TYPE.header:
      return { type: 'header', header: Buffer.from(body) }
    case TYPE.seals:
      if (body.length < 8 || (body.length - 8) % SEAL_BYTES !== 0) throw noJournal('a record of frames is cut')
      return { type: 'seals', first: Number(body.readBigUInt64BE(0)), seals: body.subarray(8) }
    case TYPE.upload:
      return { type: 'upload', upload: parse(body) as UploadRecord }
    case TYPE.part:
      return { type: 'part', ...(parse(body) as { number: number; bytes: number; checksum: string }) }
    case TYPE.done:
      return { type: 'done', done: parse(body) as CommittedObject }
    default:
      // Written by a later release: what it means for what may be sent cannot be known.
      throw noJournal(`it has a record of type ${type}, which this release does not know`)
  }
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch {
    throw noJournal('a record is no JSON')
  }
}

class ContentsBuilder {
  #head: JournalHead | undefined
  #run: JournalRun | undefined
  #header: Buffer | undefined
  #upload: UploadRecord | undefined
  #done: CommittedObject | undefined
  readonly #seals: Buffer[] = []
  readonly #parts = new Map<number, number>()
  #frames = 0

  add(record: JournalRecord): void {
    if (this.#head === undefined && record.type !== 'head') throw noJournal('it does not begin with its head')
    switch (record.type) {
      case 'head':
        if (this.#head) throw noJournal('it has two heads')
        if (record.head.v !== 1) throw noJournal(`it is of version ${record.head.v}, which this release does not know`)
        this.#head = record.head
        return
      case 'run':
        this.#run = record.run
        return
      case 'header':
        if (this.#header) throw noJournal('it has two headers of an object')
        if (record.header.length !== OBJECT_HEADER_BYTES) throw noJournal('the header of its object is cut')
        this.#header = record.header
        return
      case 'seals':
        if (!this.#header) throw noJournal('it has frames before the header of their object')
        if (record.first !== this.#frames) {
          throw noJournal(`it goes on with frame ${record.first} where ${this.#frames} was to come`)
        }
        this.#seals.push(record.seals)
        this.#frames += record.seals.length / SEAL_BYTES
        return
      case 'upload':
        this.#upload = record.upload
        this.#parts.clear()
        return
      case 'part':
        this.#parts.set(record.number, record.bytes)
        return
      case 'done':
        this.#done = record.done
    }
  }

  build(): JournalContents {
    if (!this.#head || !this.#run) throw noJournal('it ends before its first record')
    return {
      head: this.#head,
      run: this.#run,
      header: this.#header,
      seals: Buffer.concat(this.#seals),
      frames: this.#frames,
      upload: this.#upload,
      done: this.#done,
      storedBytes: [...this.#parts.values()].reduce((sum, bytes) => sum + bytes, 0),
    }
  }
}

function noJournal(why: string): BackupError {
  return new BackupError('JOURNAL', `This is no journal that an upload could be taken up by: ${why}.`)
}
