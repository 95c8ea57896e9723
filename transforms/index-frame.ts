import { constants, zstdCompressSync } from 'node:zlib'
import { TransformError } from './errors.ts'
import { FrameDecompressor } from './zstd-codec.ts'
import { type DataFrame, FrameWalker, type SkippableFrame } from './zstd-walker.ts'

// The index: FORMAT.md, layer 2. A skippable frame whose payload is the marker, then zstd frames of JSON Lines.

export const INDEX_MAGIC = 0x184d2a5b
export const INDEX_MARKER = Buffer.from('MLRINDEX', 'ascii')
/** Lines a zstd frame of the index, at most. */
export const INDEX_BLOCK_BYTES = 1024 * 1024

/** The index's first line. Sizes in bytes, times in ms since 1970. */
export interface IndexHead {
  v: 1
  kind: 'tar' | 'raw'
  server: string
  id: string
  created: number
  tool: string
  /** The length of layer 1. */
  bytes: number
  files: number
  consistency: string
  /** The folder's own, for a tar. */
  mode?: number
  mtime?: number
  /** Names that patterns left out, a folder with all in it counted once; none when it is not there. */
  excluded?: number
}

/** One entry of the archive. */
export interface IndexEntry {
  /** Relative to the folder, no leading `./`, no trailing slash. */
  path: string
  type: 'file' | 'dir' | 'symlink' | 'link'
  size: number
  mode: number
  /** ms since 1970, with a fraction where there is one. */
  mtime: number
  uid: number
  gid: number
  /** What a link points to. */
  link?: string
  /** Offset of its first header block in the tar stream. */
  at: number
  /** Offset of its content in the tar stream. */
  data: number
  changed?: string
  superseded?: boolean
}

/** Collects index lines, compressed as they come: about 30 bytes an entry. */
export class IndexBuilder {
  readonly #block = Buffer.allocUnsafeSlow(INDEX_BLOCK_BYTES)
  readonly #frames: Buffer[] = []
  #held = 0

  /** @throws TransformError LIMIT for a line of more than 1 MiB. */
  add(entry: IndexEntry): void {
    const line = Buffer.from(`${JSON.stringify(entry)}\n`)
    if (line.length > INDEX_BLOCK_BYTES) {
      throw new TransformError('LIMIT', 'An index line is longer than 1 MiB: a path or link is too long.')
    }
    if (this.#held + line.length > INDEX_BLOCK_BYTES) this.#flush()
    line.copy(this.#block, this.#held)
    this.#held += line.length
  }

  /** @returns the payload of the index frame. The head comes first, though it is known last. */
  finish(head: IndexHead): Buffer[] {
    this.#flush()
    return [INDEX_MARKER, compressBlock(Buffer.from(`${JSON.stringify(head)}\n`)), ...this.#frames]
  }

  #flush(): void {
    if (this.#held === 0) return
    this.#frames.push(compressBlock(this.#block.subarray(0, this.#held)))
    this.#held = 0
  }
}

/** With a checksum, so that damage shows where nothing else authenticates the index. */
function compressBlock(lines: Buffer): Buffer {
  return zstdCompressSync(lines, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
}

/**
 * Reads an index payload from pieces of any size, a block of lines at a time.
 * @param pieces the payload, its marker included.
 * @returns the lines, parsed; the head first.
 * @throws TransformError CORRUPT, LIMIT.
 */
export async function* readIndex(pieces: AsyncIterable<Buffer>): AsyncGenerator<IndexHead | IndexEntry> {
  const collector = new BlockCollector()
  const decompressor = new FrameDecompressor(INDEX_BLOCK_BYTES)
  let marker = Buffer.alloc(0)
  let lines = 0
  let bytes = 0
  try {
    for await (const piece of pieces) {
      let at = 0
      if (marker.length < INDEX_MARKER.length) {
        const take = piece.subarray(0, INDEX_MARKER.length - marker.length)
        marker = Buffer.concat([marker, take])
        at = take.length
        if (!INDEX_MARKER.subarray(0, marker.length).equals(marker)) corruptIndex('it does not begin with MLRINDEX')
      }
      while (at < piece.length) {
        at += collector.walker.push(piece, at)
        const frame = collector.take()
        if (!frame) continue
        const text = Buffer.concat(await decompressor.decompress(frame.bytes, frame.contentBytes))
        for (const line of parseLines(text)) {
          if (lines === 0) {
            checkHead(line)
            bytes = line.bytes as number
          } else {
            checkEntry(line, bytes)
          }
          lines += 1
          yield line as unknown as IndexHead | IndexEntry
        }
      }
    }
    if (!collector.walker.betweenFrames || marker.length < INDEX_MARKER.length) corruptIndex('it ends in the middle')
    if (lines === 0) corruptIndex('it has no head')
  } finally {
    decompressor.close()
  }
}

/** Gathers one whole frame of index lines; never more than one block can need. */
class BlockCollector {
  readonly walker = new FrameWalker({
    begin: (frame) => this.#begin(frame),
    bytes: (piece) => this.#bytes(piece),
    end: () => {
      this.#whole = true
    },
  })
  #pieces: Buffer[] = []
  #held = 0
  #contentBytes = 0
  #whole = false

  take(): { bytes: Buffer; contentBytes: number } | undefined {
    if (!this.#whole) return undefined
    this.#whole = false
    return { bytes: Buffer.concat(this.#pieces), contentBytes: this.#contentBytes }
  }

  #begin(frame: DataFrame | SkippableFrame): void {
    if (frame.kind === 'skippable' || frame.contentBytes === null)
      corruptIndex('a block is no zstd frame with its size')
    if (frame.contentBytes > INDEX_BLOCK_BYTES) {
      throw new TransformError('LIMIT', `An index block says ${frame.contentBytes} bytes, and 1 MiB is allowed.`)
    }
    this.#contentBytes = frame.contentBytes
    this.#pieces = []
    this.#held = 0
  }

  #bytes(piece: Buffer): void {
    this.#held += piece.length
    if (this.#held > 2 * INDEX_BLOCK_BYTES) corruptIndex('a block is longer than its content could be')
    this.#pieces.push(Buffer.from(piece))
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function* parseLines(text: Buffer): Generator<Record<string, unknown>> {
  let from = 0
  while (from < text.length) {
    const to = text.indexOf(10, from)
    if (to < 0) corruptIndex('a block ends inside a line')
    let line: unknown
    try {
      line = JSON.parse(utf8.decode(text.subarray(from, to)))
    } catch {
      corruptIndex('a line is no JSON in UTF-8')
    }
    if (typeof line !== 'object' || line === null || Array.isArray(line)) corruptIndex('a line is no object')
    yield line as Record<string, unknown>
    from = to + 1
  }
}

function checkHead(head: Record<string, unknown>): void {
  if (head.v !== 1)
    throw new TransformError('UNSUPPORTED', `The index has version ${head.v}, which this release does not know.`)
  if (head.kind !== 'tar' && head.kind !== 'raw') corruptIndex('its head has no kind')
  for (const name of ['server', 'id', 'tool', 'consistency']) {
    if (typeof head[name] !== 'string') corruptIndex(`its head has no ${name}`)
  }
  for (const name of ['created', 'bytes', 'files', ...(head.kind === 'tar' ? ['mode'] : [])]) {
    if (!isCount(head[name])) corruptIndex(`its head has no ${name}`)
  }
  if (head.excluded !== undefined && !isCount(head.excluded)) corruptIndex('what it says was left out is no count')
  // A raw one has them where its source was a file.
  const { kind, mode, mtime } = head
  if (mode !== undefined && !isCount(mode)) corruptIndex('the mode in its head is none')
  if ((kind === 'tar' || mtime !== undefined) && !Number.isFinite(mtime)) corruptIndex('its head has no mtime')
}

const TYPES = ['file', 'dir', 'symlink', 'link']
/** What an entry need not have. */
const OPTIONAL = [
  ['link', 'string'],
  ['changed', 'string'],
  ['superseded', 'boolean'],
] as const

function checkEntry(entry: Record<string, unknown>, bytes: number): void {
  const { path, type, at, data, link } = entry
  if (typeof path !== 'string' || !isSafePath(path)) corruptIndex('an entry has no path within the folder')
  if (typeof type !== 'string' || !TYPES.includes(type)) corruptIndex('an entry has no type that is known')
  for (const name of ['size', 'at', 'data', 'mode', 'uid', 'gid']) {
    if (!isCount(entry[name])) corruptIndex(`an entry has no ${name}`)
  }
  if (typeof entry.mtime !== 'number' || !Number.isFinite(entry.mtime)) corruptIndex('an entry has no mtime')
  if ((data as number) < (at as number)) corruptIndex('an entry has its content before its header')
  if ((data as number) + (type === 'file' ? (entry.size as number) : 0) > bytes)
    corruptIndex('an entry ends past the archive')
  for (const [name, kind] of OPTIONAL) {
    if (entry[name] !== undefined && typeof entry[name] !== kind) corruptIndex(`the ${name} of an entry is no ${kind}`)
  }
  if ((type === 'symlink' || type === 'link') && typeof link !== 'string') corruptIndex('a link has no target')
  if (type === 'link' && !isSafePath(link as string)) corruptIndex('a hard link has no target within the folder')
}

/** Relative, and every part a name. */
function isSafePath(path: string): boolean {
  return !path.includes('\0') && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function corruptIndex(what: string): never {
  throw new TransformError('CORRUPT', `The index is wrong: ${what}.`)
}
