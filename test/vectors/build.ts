import { createCipheriv, createHash, createHmac, hkdfSync, pbkdf2Sync } from 'node:crypto'

// The bytes of the format, built by hand from FORMAT.md and without the product's code, so that a mistake in one of
// the two shows. Nothing here is random or depends on a version of zstd: data frames hold raw and repeated blocks only.

export const FRAME_BYTES = 4096
export const ZSTD_FRAME_BYTES = 64 * 1024

export const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')

/** Bytes that look random and are the same every time. */
export function bytesFor(label: string, length: number): Buffer {
  const blocks: Buffer[] = []
  for (let i = 0; i * 32 < length; i += 1) blocks.push(createHash('sha256').update(`${label} ${i}`).digest())
  return Buffer.concat(blocks).subarray(0, length)
}

// ---- layer 3

export interface Secret {
  key?: Buffer
  password?: string
}

/** What a header says; each field can be given a wrong value, under a MAC that fits it. */
export interface HeaderFields {
  magic?: string
  version?: number
  suite?: number
  kdf?: number
  log?: number
  iterations?: number
  /** Given where deriving it takes long, and where no derivation is defined. */
  root?: Buffer
}

export interface Container {
  header: Buffer
  frames: Buffer[]
}

const derive = (root: Buffer, salt: Buffer, info: string) => Buffer.from(hkdfSync('sha256', root, salt, info, 32))

/**
 * Seals `plain` with a salt and nonces that follow from `label`.
 * @param cuts the plaintext of each frame, where it is not to be cut as the format says.
 */
export function seal(
  label: string,
  plain: Buffer,
  secret: Secret,
  fields: HeaderFields = {},
  cuts?: { plain: Buffer; index: number }[],
): Container {
  const salt = bytesFor(`${label} salt`, 16)
  const iterations = fields.iterations ?? (secret.password === undefined ? 0 : 100_000)
  const head = Buffer.alloc(32)
  head.write(fields.magic ?? 'MILLRACE', 0, 'latin1')
  head[8] = fields.version ?? 1
  head[9] = fields.suite ?? 1
  head[10] = fields.kdf ?? (secret.password === undefined ? 0 : 1)
  head[11] = fields.log ?? 12
  head.writeUInt32BE(iterations, 12)
  salt.copy(head, 16)
  const root =
    fields.root ?? secret.key ?? pbkdf2Sync((secret.password as string).normalize('NFC'), salt, iterations, 32, 'sha256')
  const mac = createHmac('sha256', derive(root, salt, 'millrace/v1/header')).update(head).digest()
  const frameKey = derive(root, salt, 'millrace/v1/frames')
  const size = 2 ** (fields.log ?? 12)
  const parts = cuts ?? wholeFrames(plain, size)
  const frames = parts.map(({ plain: part, index }, i) => {
    const nonce = bytesFor(`${label} nonce ${i}`, 12)
    const aad = Buffer.alloc(40)
    mac.copy(aad)
    aad.writeBigUInt64BE(BigInt(index), 32)
    const cipher = createCipheriv('aes-256-gcm', frameKey, nonce).setAAD(aad)
    return Buffer.concat([nonce, cipher.update(part), cipher.final(), cipher.getAuthTag()])
  })
  return { header: Buffer.concat([head, mac]), frames }
}

/** Full frames, and the last one, which is never full. */
export function wholeFrames(plain: Buffer, size: number): { plain: Buffer; index: number }[] {
  const count = Math.floor(plain.length / size) + 1
  return Array.from({ length: count }, (_, index) => ({ plain: plain.subarray(index * size, (index + 1) * size), index }))
}

export const join = ({ header, frames }: Container): Buffer => Buffer.concat([header, ...frames])

/** The original service's layout. */
export function sealSeed(label: string, zstd: Buffer, password: string): Buffer {
  const [salt, nonce] = [bytesFor(`${label} salt`, 16), bytesFor(`${label} nonce`, 12)]
  const cipher = createCipheriv('aes-256-gcm', pbkdf2Sync(password, salt, 100_000, 32, 'sha256'), nonce)
  return Buffer.concat([salt, nonce, cipher.update(zstd), cipher.final(), cipher.getAuthTag()])
}

// ---- layer 2

const [P1, P2, P3, P4, P5] = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
]
const u64 = (x: bigint) => BigInt.asUintN(64, x)
const rotl = (x: bigint, n: bigint) => u64((x << n) | (x >> (64n - n)))
const round = (acc: bigint, lane: bigint) => u64(rotl(u64(acc + lane * P2), 31n) * P1)

/** XXH64 with seed 0 (xxHash, doc/xxhash_spec.md), of which a zstd frame's checksum is the low half. */
export function xxh64(data: Buffer): bigint {
  let at = 0
  let hash = P5
  if (data.length >= 32) {
    const acc = [u64(P1 + P2), P2, 0n, u64(-P1)]
    for (; at + 32 <= data.length; at += 32) {
      for (let i = 0; i < 4; i += 1) acc[i] = round(acc[i] as bigint, data.readBigUInt64LE(at + 8 * i))
    }
    const [a, b, c, d] = acc as [bigint, bigint, bigint, bigint]
    hash = u64(rotl(a, 1n) + rotl(b, 7n) + rotl(c, 12n) + rotl(d, 18n))
    for (const lane of acc) hash = u64((hash ^ round(0n, lane)) * P1 + P4)
  }
  hash = u64(hash + BigInt(data.length))
  for (; at + 8 <= data.length; at += 8) hash = u64(rotl(hash ^ round(0n, data.readBigUInt64LE(at)), 27n) * P1 + P4)
  if (at + 4 <= data.length) {
    hash = u64(rotl(hash ^ u64(BigInt(data.readUInt32LE(at)) * P1), 23n) * P2 + P3)
    at += 4
  }
  for (; at < data.length; at += 1) hash = u64(rotl(hash ^ u64(BigInt(data[at] as number) * P5), 11n) * P1)
  hash = u64((hash ^ (hash >> 33n)) * P2)
  hash = u64((hash ^ (hash >> 29n)) * P3)
  return hash ^ (hash >> 32n)
}

/** Single faults of a data frame. */
export interface FrameFaults {
  /** What the header says instead of the content's length. */
  says?: number
  checksum?: 'none' | 'wrong'
  /** XORed into the descriptor byte. */
  descriptor?: number
  dictionary?: number
  /** A window descriptor instead of a single segment. */
  window?: number
  /** The type of the first block: 3 is reserved. */
  blockType?: number
  /** No content size, and a window of 64 KiB. */
  noSize?: true
}

/** A zstd frame (RFC 8878) with content size and checksum. */
export function zstdFrame(content: Buffer, faults: FrameFaults = {}): Buffer {
  if (faults.noSize) {
    const sized = zstdFrame(content, { ...faults, noSize: undefined as never, says: 256, window: 6 << 3 })
    return Buffer.concat([sized.subarray(0, 4), Buffer.from([0x04, 6 << 3]), sized.subarray(8)])
  }
  const says = faults.says ?? content.length
  const sizeFlag = says > 65791 ? 2 : says > 255 || faults.window !== undefined ? 1 : 0
  const single = faults.window === undefined
  let descriptor = (sizeFlag << 6) | (single ? 0x20 : 0) | (faults.checksum === 'none' ? 0 : 4)
  if (faults.dictionary !== undefined) descriptor |= 3
  descriptor ^= faults.descriptor ?? 0
  const header: Buffer[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, descriptor])]
  if (faults.window !== undefined) header.push(Buffer.from([faults.window]))
  if (faults.dictionary !== undefined) header.push(u32(faults.dictionary))
  const size = Buffer.alloc([1, 2, 4][sizeFlag] as number)
  size.writeUIntLE(sizeFlag === 1 ? says - 256 : says, 0, size.length)
  const checksum = Buffer.alloc(faults.checksum === 'none' ? 0 : 4)
  if (checksum.length > 0) checksum.writeUInt32LE(Number(xxh64(content) & 0xffffffffn))
  if (faults.checksum === 'wrong') checksum[0] = (checksum[0] as number) ^ 1
  const blocks = blocksOf(content)
  if (faults.blockType !== undefined) {
    const first = blocks[0] as Buffer
    first[0] = ((first[0] as number) & ~6) | (faults.blockType << 1)
  }
  return Buffer.concat([...header, size, ...blocks, checksum])
}

/** Runs of one byte as repeated blocks, everything else as raw blocks. */
function blocksOf(content: Buffer): Buffer[] {
  const MOST = 64 * 1024
  const SHORTEST_RUN = 32
  const pieces: { type: number; at: number; length: number }[] = []
  const add = (type: number, from: number, to: number) => {
    for (let at = from; at < to; at += MOST) pieces.push({ type, at, length: Math.min(MOST, to - at) })
  }
  let raw = 0
  for (let at = 0; at < content.length; ) {
    let end = at + 1
    while (end < content.length && content[end] === content[at]) end += 1
    if (end - at >= SHORTEST_RUN) {
      add(0, raw, at)
      add(1, at, end)
      raw = end
    }
    at = end
  }
  add(0, raw, content.length)
  if (pieces.length === 0) pieces.push({ type: 0, at: 0, length: 0 })
  return pieces.flatMap(({ type, at, length }, i): Buffer[] => {
    const header = Buffer.alloc(3)
    header.writeUIntLE((i === pieces.length - 1 ? 1 : 0) | (type << 1) | (length << 3), 0, 3)
    return [header, content.subarray(at, type === 1 ? at + 1 : at + length)]
  })
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

export const skippable = (magic: number, payload: Buffer): Buffer =>
  Buffer.concat([u32(magic), u32(payload.length), payload])

export interface Row {
  compressed: number
  decompressed: number
}

/** Single faults of a seek table. */
export interface TableFaults {
  count?: number
  descriptor?: number
  footerMagic?: number
  payloadBytes?: number
  /** With a checksum an entry. */
  checksums?: number[]
}

export function seekTable(rows: readonly Row[], faults: TableFaults = {}): Buffer {
  const entries = rows.flatMap(({ compressed, decompressed }, i) => [
    u32(compressed),
    u32(decompressed),
    ...(faults.checksums ? [u32(faults.checksums[i] as number)] : []),
  ])
  const descriptor = faults.descriptor ?? (faults.checksums ? 0x80 : 0)
  const footer = [u32(faults.count ?? rows.length), Buffer.from([descriptor]), u32(faults.footerMagic ?? 0x8f92eab1)]
  const table = skippable(0x184d2a5e, Buffer.concat([...entries, ...footer]))
  if (faults.payloadBytes !== undefined) table.writeUInt32LE(faults.payloadBytes, 4)
  return table
}

/** Index lines, and where a new block begins before one. */
export type Lines = readonly (object | string)[]

export function indexPayload(blocks: readonly Lines[], marker = 'MLRINDEX'): Buffer {
  const frames = blocks.map((lines) =>
    zstdFrame(Buffer.from(lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''))),
  )
  return Buffer.concat([Buffer.from(marker, 'latin1'), ...frames])
}

export const INDEX_MAGIC = 0x184d2a5b

export interface Part {
  bytes: Buffer
  content: number
}

/** Frames and their seek table. */
export function stream(parts: readonly Part[], faults: TableFaults = {}): Buffer {
  const rows = parts.map(({ bytes, content }) => ({ compressed: bytes.length, decompressed: content }))
  return Buffer.concat([...parts.map(({ bytes }) => bytes), seekTable(rows, faults)])
}

export const dataParts = (layer1: Buffer, size: number = ZSTD_FRAME_BYTES): Part[] =>
  Array.from({ length: Math.ceil(layer1.length / size) }, (_, i) => dataPart(layer1.subarray(i * size, (i + 1) * size)))

export const dataPart = (content: Buffer, faults: FrameFaults = {}): Part => ({
  bytes: zstdFrame(content, faults),
  content: content.length,
})

export const indexPart = (blocks: readonly Lines[], marker?: string): Part => ({
  bytes: skippable(INDEX_MAGIC, indexPayload(blocks, marker)),
  content: 0,
})

// ---- layer 1

export interface Entry {
  path: string
  type: 'file' | 'dir' | 'symlink' | 'link'
  content?: Buffer
  mode: number
  /** As the pax record has it: decimal seconds. */
  mtime: string
  uid: number
  gid: number
  link?: string
  /** More keys for its line in the index. */
  more?: object
}

const FLAGS = { file: '0', link: '1', symlink: '2', dir: '5' } as const

function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest
  while (length !== rest + String(length).length) length = rest + String(length).length
  return Buffer.from(`${length} ${key}=${value}\n`)
}

function tarBlock(name: Buffer, flag: string, size: number, entry?: Entry): Buffer {
  const block = Buffer.alloc(512)
  const octal = (at: number, digits: number, value: number) =>
    block.write(value.toString(8).padStart(digits, '0'), at, digits, 'latin1')
  name.copy(block, 0, 0, 100)
  octal(100, 7, entry?.mode ?? 0o644)
  octal(108, 7, entry?.uid ?? 0)
  octal(116, 7, entry?.gid ?? 0)
  octal(124, 11, size)
  octal(136, 11, Math.max(0, Math.floor(Number(entry?.mtime ?? 0))))
  block.write(`        ${flag}`, 148, 'latin1')
  Buffer.from(entry?.link ?? '').copy(block, 157, 0, 100)
  block.write('ustar\0' + '00', 257, 'latin1')
  octal(148, 6, block.reduce((sum, byte) => sum + byte, 0))
  block[154] = 0
  return block
}

const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])

/** A pax tar, and the lines of its entries. */
export function tar(entries: readonly Entry[]): { bytes: Buffer; lines: Record<string, unknown>[] } {
  const pieces: Buffer[] = []
  const lines: Record<string, unknown>[] = []
  let at = 0
  for (const entry of entries) {
    const { path, type, content = Buffer.alloc(0), mode, mtime, uid, gid, link, more } = entry
    const name = Buffer.from(type === 'dir' ? `${path}/` : path)
    const plain = (text: Buffer) => text.length <= 100 && text.every((byte) => byte < 128)
    const records = [paxRecord('mtime', mtime)]
    if (!plain(name)) records.push(paxRecord('path', name.toString()))
    if (link !== undefined && !plain(Buffer.from(link))) records.push(paxRecord('linkpath', link))
    const pax = Buffer.concat(records)
    const header = [tarBlock(Buffer.from('PaxHeader'), 'x', pax.length), padded(pax)]
    header.push(tarBlock(name, FLAGS[type], content.length, entry))
    const headerBytes = header.reduce((sum, piece) => sum + piece.length, 0)
    const line = { path, type, size: content.length, mode, mtime: Number(mtime) * 1000, uid, gid }
    lines.push({ ...line, ...(link === undefined ? {} : { link }), at, data: at + headerBytes, ...more })
    pieces.push(...header, padded(content))
    at += headerBytes + padded(content).length
  }
  return { bytes: Buffer.concat([...pieces, Buffer.alloc(1024)]), lines }
}
