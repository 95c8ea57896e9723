import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join as joinPath } from 'node:path'
import {
  bytesFor,
  type Container,
  dataPart,
  dataParts,
  type Entry,
  FRAME_BYTES as F,
  type HeaderFields,
  indexPart,
  join,
  type Lines,
  type Part,
  type Secret,
  seal,
  sealSeed,
  seekTable,
  sha256,
  skippable,
  stream,
  type TableFaults,
  tar,
  ZSTD_FRAME_BYTES as C,
  zstdFrame,
} from './build.ts'

// Makes the vectors and their manifest: `node test/vectors/make.ts` writes them beside this file, the same bytes each
// time. Each vector that is to be refused has exactly one fault.

export type Code =
  | 'NOT_SEALED'
  | 'TRUNCATED'
  | 'UNSUPPORTED'
  | 'BAD_HEADER'
  | 'WRONG_KEY'
  | 'AUTH_FAILED'
  | 'CORRUPT'
  | 'LIMIT'
  | 'MISPLACED'

export interface Accepted {
  ok: true
  /** Of what the vector's layer yields. */
  bytes: number
  sha256: string
  /** It has no index. */
  foreign?: true
  /** Lines of the index, the head among them, and the SHA-256 of their text. */
  index?: { lines: number; sha256: string }
}

/** `whole`: it has no seek table that a reader of ranges could use, and can only be judged by reading all of it. */
export type Verdict = Accepted | { error: Code } | { whole: true }

export interface Vector {
  name: string
  file: string
  what: string
  /** Hex. Neither this nor a password: the object is not encrypted. */
  key?: string
  /** To be normalised by the reader. */
  password?: string
  /**
   * How far it is to be read: `container` to the plaintext of layer 3, `zstd` to layer 1 without asking whose it is,
   * `snapshot` to layer 1 as the snapshot that `server` and `id` name, `seed` by the original service's layout.
   */
  layer: 'container' | 'zstd' | 'snapshot' | 'seed'
  server?: string
  id?: string
  expected: Verdict
  /** Where one kind of reader sees less, or says it in another way, its own verdict; and why. */
  stream?: Verdict
  ranged?: Verdict
  python?: Verdict
  why?: string
}

export interface Manifest {
  format: 1
  about: string[]
  frameBytes: number
  zstdFrameBytes: number
  vectors: Vector[]
}

type Differs = Partial<Pick<Vector, 'stream' | 'ranged' | 'python' | 'why'>>

const KEY = bytesFor('key', 32)
// In decomposed form: whoever does not normalise derives another key.
const PASSWORD = 'Mu\u0308hle \u00e9 \u{1f511}'
const SERVER = 'survival'
const ID = '2026-11-22T10-00-00.000Z-k3f9'
const CREATED = Date.UTC(2026, 10, 22, 10)
// What PBKDF2 gives for the vectors with iterations out of range, which no reader gets as far as deriving.
const ROOT = bytesFor('root', 32)

const files = new Map<string, Buffer>()
const vectors: Vector[] = []

function put(name: string, bytes: Buffer, vector: Omit<Vector, 'name' | 'file'>, file = `${name}.mlr`): void {
  if (vectors.some((other) => other.name === name)) throw new Error(`two vectors are called ${name}`)
  files.set(file, bytes)
  vectors.push({ name, file, ...vector })
}

const hex = (secret: Secret) =>
  secret.key === undefined ? { password: secret.password as string } : { key: secret.key.toString('hex') }

function accepted(content: Buffer, blocks?: readonly Lines[]): Accepted {
  const verdict: Accepted = { ok: true, bytes: content.length, sha256: sha256(content) }
  if (!blocks) return verdict
  const lines = blocks.flat().map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`)
  return { ...verdict, index: { lines: lines.length, sha256: sha256(Buffer.from(lines.join(''))) } }
}

const flip = (bytes: Buffer, at: number, bit = 1): Buffer => {
  const changed = Buffer.from(bytes)
  const index = at < 0 ? bytes.length + at : at
  changed[index] = (changed[index] as number) ^ bit
  return changed
}

// ---- containers

function goodContainers(): void {
  for (const [how, secret] of [
    ['key', { key: KEY }],
    ['password', { password: PASSWORD }],
  ] as const) {
    for (const length of [0, 1, F - 1, F, F + 1, 2 * F]) {
      const plain = bytesFor('plain', length)
      const name = `${how}-${length}`
      const what = `${length} bytes under a ${how === 'key' ? 'raw key' : 'password'}`
      put(name, join(seal(name, plain, secret)), { what, ...hex(secret), layer: 'container', expected: accepted(plain) })
    }
  }
  const plain = bytesFor('plain', 10)
  put('frame-log-24', join(seal('frame-log-24', plain, { key: KEY }, { log: 24 })), {
    what: 'the largest frame size, 16 MiB',
    ...hex({ key: KEY }),
    layer: 'container',
    expected: accepted(plain),
  })
}

function badContainers(): void {
  const secret = { key: KEY }
  const three = bytesFor('plain', 2 * F + 100)
  const good = seal('three', three, secret)
  const [first, second, last] = good.frames as [Buffer, Buffer, Buffer]
  const whole = join(good)
  const short = join(seal('short', bytesFor('plain', 10), secret))
  const bad = (name: string, what: string, bytes: Buffer, error: Code, differs: Differs = {}, by: Secret = secret) =>
    put(name, bytes, { what, ...hex(by), layer: 'container', expected: { error }, ...differs })
  const frames = (...list: Buffer[]): Buffer => join({ header: good.header, frames: list })
  const header = (name: string, fields: HeaderFields, by: Secret = secret) =>
    join(seal(name, bytesFor('plain', 10), by, fields))

  bad('empty-object', '0 bytes', Buffer.alloc(0), 'NOT_SEALED')
  bad('magic-flipped', 'a bit of the magic', flip(short, 7), 'NOT_SEALED')
  bad('magic-lower-case', 'the magic in small letters', header('magic-lower-case', { magic: 'millrace' }), 'NOT_SEALED')
  bad('bare-zstd', 'a zstd stream where a container is expected', zstdFrame(bytesFor('plain', 100)), 'NOT_SEALED')
  bad('cut-in-magic', 'the first 4 bytes of the magic', short.subarray(0, 4), 'TRUNCATED')
  bad('cut-after-magic', 'the magic alone', short.subarray(0, 8), 'TRUNCATED')
  bad('cut-in-header', 'one byte less than the header', short.subarray(0, 63), 'TRUNCATED')
  bad('cut-in-unknown-version', 'too short, and its version is never looked at', flip(short, 8, 2).subarray(0, 63), 'TRUNCATED')

  for (const [name, what, fields] of [
    ['version-0', 'format version 0', { version: 0 }],
    ['version-2', 'format version 2', { version: 2 }],
    ['suite-0', 'suite 0', { suite: 0 }],
    ['suite-2', 'suite 2', { suite: 2 }],
    ['kdf-2', 'key derivation 2', { kdf: 2 }],
  ] as const) {
    bad(name, what, header(name, fields), 'UNSUPPORTED')
  }
  // The frames of these are cut at F: the header is refused first.
  for (const log of [0, 11, 25, 255]) {
    const { header: head } = seal(`frame-log-${log}`, Buffer.alloc(0), secret, { log })
    const name = `frame-log-${log}`
    bad(name, `frames of 2^${log} bytes`, join({ header: head, frames: [last] }), 'BAD_HEADER')
  }
  bad('raw-with-iterations', 'a raw key, and 1 iteration', header('raw-with-iterations', { iterations: 1 }), 'BAD_HEADER')
  for (const iterations of [0, 1, 99_999, 10_000_001, 2 ** 32 - 1]) {
    const name = `iterations-${iterations}`
    const sealed = header(name, { iterations, root: ROOT }, { password: PASSWORD })
    bad(name, `a password, and ${iterations} iterations`, sealed, 'BAD_HEADER', {}, { password: PASSWORD })
  }

  const byPassword = join(seal('password-1', bytesFor('plain', 1), { password: PASSWORD }))
  bad('mac-first-bit', 'a bit in the first byte of the MAC', flip(short, 32, 0x80), 'WRONG_KEY')
  bad('mac-last-bit', 'a bit in the last byte of the MAC', flip(short, 63), 'WRONG_KEY')
  bad('salt-flipped', 'a bit of the salt', flip(short, 16), 'WRONG_KEY')
  bad('frame-log-changed', 'another frame size, itself valid', flip(short, 11), 'WRONG_KEY')
  bad('iterations-changed', 'one iteration more', flip(byPassword, 15), 'WRONG_KEY', {}, { password: PASSWORD })
  bad('wrong-key', 'another key', short, 'WRONG_KEY', {}, { key: bytesFor('other key', 32) })
  bad('wrong-password', 'another password', byPassword, 'WRONG_KEY', {}, { password: 'Muhle' })
  bad('key-for-password', 'a key, where a password is needed', byPassword, 'WRONG_KEY')
  bad('password-for-key', 'a password, where a key is needed', short, 'WRONG_KEY', {}, { password: PASSWORD })

  for (const [which, at, length] of [
    ['first', 0, first.length],
    ['last', 2, last.length],
  ] as const) {
    for (const [what, offset] of [
      ['nonce', 3],
      ['ciphertext', 12 + 50],
      ['tag', length - 1],
    ] as const) {
      const list = [...good.frames]
      list[at] = flip(list[at] as Buffer, offset)
      bad(`${which}-frame-${what}`, `a bit in the ${what} of the ${which} frame`, frames(...list), 'AUTH_FAILED')
    }
  }
  bad('empty-frame-tag', 'a bit in the tag of an empty last frame', flip(join(seal('empty', Buffer.alloc(0), secret)), -1), 'AUTH_FAILED')
  bad('frames-swapped', 'frames 0 and 1 swapped', frames(second, first, last), 'AUTH_FAILED')
  bad('frame-repeated', 'frame 0 twice', frames(first, first, second, last), 'AUTH_FAILED')
  bad('first-frame-dropped', 'without frame 0', frames(second, last), 'AUTH_FAILED')
  bad('middle-frame-dropped', 'without frame 1', frames(first, last), 'AUTH_FAILED')
  bad('only-last-frame', 'the last frame alone', frames(last), 'AUTH_FAILED')
  bad('last-frame-dropped', 'without the last frame', frames(first, second), 'TRUNCATED')
  bad('no-frame', 'the header alone', frames(), 'TRUNCATED')
  const exact = seal('exact', bytesFor('plain', F), secret)
  bad('no-empty-last-frame', 'a plaintext of F bytes without its empty last frame', join({ header: exact.header, frames: exact.frames.slice(0, 1) }), 'TRUNCATED')
  bad('empty-last-frame-cut', 'the empty last frame, a byte short', join(exact).subarray(0, -1), 'TRUNCATED')

  const other = seal('other', bytesFor('other plain', 2 * F + 100), secret)
  bad('spliced-frame', 'frame 1 of another object under the same key', frames(first, other.frames[1] as Buffer, last), 'AUTH_FAILED')
  bad('spliced-last-frame', 'the last frame of another object', frames(first, second, other.frames[2] as Buffer), 'AUTH_FAILED')
  bad('spliced-header', 'the header of another object', join({ header: other.header, frames: good.frames }), 'AUTH_FAILED')
  const cut = (plain: Buffer, ...indexes: [number, number, number][]): Container['frames'] =>
    seal('cuts', plain, secret, {}, indexes.map(([index, from, to]) => ({ index, plain: plain.subarray(from, to) }))).frames
  const { header: cutHeader } = seal('cuts', Buffer.alloc(0), secret)
  const fromOne = cut(three, [1, 0, F], [2, F, 2 * F], [3, 2 * F, 2 * F + 100])
  bad('frames-from-1', 'frames counted from 1', join({ header: cutHeader, frames: fromOne }), 'AUTH_FAILED')
  const early = cut(three, [0, 0, F - 1], [1, F - 1, 2 * F - 1])
  bad('short-frame-inside', 'a frame of F-1 bytes before another', join({ header: cutHeader, frames: early }), 'AUTH_FAILED')

  const border = 64 + F + 28
  for (const [name, what, length, error] of [
    ['cut-in-nonce', 'cut in the nonce of frame 0', 64 + 5, 'TRUNCATED'],
    ['cut-27', 'a frame of 27 bytes', 64 + 27, 'TRUNCATED'],
    ['cut-28', 'a frame of 28 bytes, as an empty one has', 64 + 28, 'AUTH_FAILED'],
    ['cut-in-ciphertext', 'cut in the ciphertext of frame 0', 64 + 2000, 'AUTH_FAILED'],
    ['cut-border-less-1', 'cut a byte before the end of frame 0', border - 1, 'AUTH_FAILED'],
    ['cut-border', 'cut at the end of frame 0', border, 'TRUNCATED'],
    ['cut-border-more-1', 'cut a byte after the end of frame 0', border + 1, 'TRUNCATED'],
    ['cut-border-more-27', 'cut 27 bytes after the end of frame 0', border + 27, 'TRUNCATED'],
    ['cut-border-more-28', 'cut 28 bytes after the end of frame 0', border + 28, 'AUTH_FAILED'],
    ['cut-last-byte', 'without the last byte', whole.length - 1, 'AUTH_FAILED'],
  ] as const) {
    bad(name, what, whole.subarray(0, length), error)
  }
  const append = (bytes: Buffer) => Buffer.concat([whole, bytes])
  bad('appended-byte', 'a byte after the end', append(Buffer.alloc(1)), 'AUTH_FAILED')
  bad('appended-frame', 'the last frame twice', append(last), 'AUTH_FAILED')
  bad('appended-to-border', 'zeros after the end, until the last frame is as long as a full one', append(Buffer.alloc(F - 100)), 'AUTH_FAILED', {
    ranged: { error: 'TRUNCATED' },
    python: { error: 'TRUNCATED' },
    why: 'the stream opens a full frame before it sees the end; readers of ranges see from the length that it cannot be',
  })
  bad('appended-object', 'the object twice', append(whole), 'AUTH_FAILED')
}

// ---- layer 2

const RAW = Buffer.concat([bytesFor('raw', 700), Buffer.alloc(C - 700, 0x61), bytesFor('raw end', 300), Buffer.alloc(700, 7)])

const headOf = (kind: 'tar' | 'raw', bytes: number, files: number, more: object = {}) => ({
  v: 1,
  kind,
  server: SERVER,
  id: ID,
  created: CREATED,
  tool: 'vectors 1',
  bytes,
  files,
  consistency: 'live',
  ...more,
})

interface Layer2 {
  name: string
  what: string
  layer2: Buffer
  expected: Verdict
  layer?: Vector['layer']
  secret?: Secret | null
  differs?: Differs
  id?: string
  server?: string
  kind?: 'tar' | 'raw'
}

function put2({ name, what, layer2, expected, layer = 'zstd', secret = { key: KEY }, differs, id, server, kind = 'raw' }: Layer2): void {
  const known = layer === 'snapshot' ? { server: server ?? SERVER, id: id ?? ID } : {}
  const bytes = secret === null ? layer2 : join(seal(name, layer2, secret))
  const suffix = `${kind === 'tar' ? '.tar' : ''}.zst${secret === null ? '' : '.mlr'}`
  put(name, bytes, { what, ...(secret === null ? {} : hex(secret)), layer, ...known, expected, ...differs }, name + suffix)
}

const rawBlocks = (content: Buffer, more?: object): Lines[] => [[headOf('raw', content.length, 1, more)]]
const rawParts = (content: Buffer = RAW): Part[] => [...dataParts(content), indexPart(rawBlocks(content))]

function entriesOfAll(): Entry[] {
  const owner = { uid: 1000, gid: 1000 }
  const file = { type: 'file', mode: 0o644, mtime: '1700000000.25', ...owner } as const
  const long = `world/${'deep/'.repeat(30)}name`
  return [
    { ...file, path: 'a.txt', content: Buffer.from('first'), more: { changed: 'grew', superseded: true } },
    { ...file, path: 'big.bin', content: Buffer.concat([bytesFor('big', 3000), Buffer.alloc(100_000, 0x20)]), mode: 0o600 },
    { ...file, path: 'empty', content: Buffer.alloc(0), mtime: '-1.5' },
    { ...file, path: 'gone', content: Buffer.from('was here'), more: { changed: 'modified', superseded: true } },
    { ...file, path: 'hard', type: 'link', link: 'big.bin' },
    { ...file, path: 'sym', type: 'symlink', mode: 0o777, link: '../outside' },
    { ...file, path: 'world', type: 'dir', mode: 0o755 },
    { ...file, path: long, content: bytesFor('long', 513) },
    { ...file, path: 'world/gr\u00fc\u00df \u{1f600}.txt', content: Buffer.alloc(512, 0x78), mtime: '1700000000.123456789' },
    { ...file, path: 'zeros', content: Buffer.alloc(40), more: { changed: 'unreadable', note: 'a key of a later release' } },
    { ...file, path: 'a.txt', content: Buffer.from('the later one counts') },
  ]
}

function goodSnapshots(): void {
  const { bytes, lines } = tar(entriesOfAll())
  // A file that vanished before it could be read again: its line once more, and no new member.
  const { superseded: _, ...gone } = lines[3] as { superseded?: unknown }
  const all = [...lines, { ...gone, changed: 'vanished' }]
  const head = headOf('tar', bytes.length, 8, { mode: 0o755, mtime: 1_700_000_000_250.5, consistency: 'live-changed 2' })
  const blocks = [[head], all.slice(0, 5), all.slice(5)]
  const layer2 = stream([...dataParts(bytes), indexPart(blocks)])
  const good = (name: string, what: string, more: Omit<Layer2, 'name' | 'what'>) => put2({ name, what, layer: 'snapshot', ...more })

  const expected = accepted(bytes, blocks)
  good('snapshot-tar', 'a folder: every type of entry, superseded and changed files, an index of several blocks', { layer2, expected, kind: 'tar' })
  good('snapshot-tar-plain', 'the same, not encrypted', { layer2, expected, secret: null, kind: 'tar' })
  const nothing = tar([])
  const emptyHead = [[{ ...head, bytes: nothing.bytes.length, files: 0, consistency: 'live' }]]
  good('snapshot-tar-empty', 'an empty folder', {
    layer2: stream([...dataParts(nothing.bytes), indexPart(emptyHead)]),
    expected: accepted(nothing.bytes, emptyHead),
    kind: 'tar',
  })
  good('snapshot-raw', 'a file, under a password', { layer2: stream(rawParts()), expected: accepted(RAW, rawBlocks(RAW)), secret: { password: PASSWORD } })
  good('snapshot-raw-plain', 'a file, not encrypted', { layer2: stream(rawParts()), expected: accepted(RAW, rawBlocks(RAW)), secret: null })
  const none = Buffer.alloc(0)
  good('snapshot-raw-empty', 'a stream of 0 bytes: no data frame', { layer2: stream(rawParts(none)), expected: accepted(none, rawBlocks(none)) })
  const cuts = [0, 1, 1, 500, C, RAW.length]
  const uneven = cuts.slice(1).map((to, i) => dataPart(RAW.subarray(cuts[i], to)))
  good('short-frames', 'data frames shorter than the others, and an empty one', {
    layer2: stream([...uneven, indexPart(rawBlocks(RAW))]),
    expected: accepted(RAW, rawBlocks(RAW)),
  })
  const note = { bytes: skippable(0x184d2a50, Buffer.from('a note')), content: 0 }
  const [one, two, index] = rawParts() as [Part, Part, Part]
  good('unknown-skippable', 'a skippable frame of another kind between the data frames, with its entry in the seek table', {
    layer2: stream([one, note, two, index]),
    expected: accepted(RAW, rawBlocks(RAW)),
  })
  const known = [[headOf('raw', RAW.length, 1, { consistency: 'stopped', later: { a: [1, null] } })]]
  good('unknown-keys', 'keys and a consistency of a later release in the head', {
    layer2: stream([...dataParts(RAW), indexPart(known)]),
    expected: accepted(RAW, known),
  })
}

// What the zstd command (1.5.4) made of TEXT: with a checksum, without, and with its content size.
const TEXT = Buffer.from(Array.from({ length: 60 }, (_, i) => `line ${i} of a stream that another program compressed\n`).join(''))
const CHECKED = Buffer.from(
  'KLUv/QRo9QQA8kcXEoDbAdz8i+WZoOtQ2vvUwjplAQkdU8gQHcoTOqaQITqQJ3RMIUN0GE/omEKG6CCe0DGFDNH9dPRz83LycfEGrGHcrp11far76r' +
    'W/DeZK1bOC+VO1m/HVXX14o1EGPKgRMKv7/wbwNeYRJAT//6/g/AYgAAGLOgCBAGDUCAgEAKMGQiAAGDUAAwEGrmQENC+TSKUyZRKLVY4FZBXtHy10',
  'base64',
)
const UNCHECKED = Buffer.from(
  'KLUv/QBYlQYAIkcVFpA5HQt7iaH9L+iZmfRAP6UUOZOZNSf///+/bdu23bZt25IkSZJmZmZmViAMBHdpdYlxAA63LIcU5BgKMShxkFLoinQSU8kUqR' +
    'BzKC1lCnEqUJcYRzsgsDOKB5uC83AyOAXn4WR4Cs7DyeAUnIeT4RQ4DyfDKXgeToZT4DycDKfgPDgZTsF5eDKcgvPgZDgF5+FkcArOw8nwFJyHk4Gn' +
    'YEHOgwJOhgQ7BQh6Hg5wMhjYKSjQ80CAkzFgp0XAyRbJ0R2xRXJ0R+xI5tHNbWSh',
  'base64',
)
const SIZED = Buffer.from(
  'KLUv/WQmC/UEAPJHFxKA2wHc/IvlmaDrUNr71MI6ZQEJHVPIEB3KEzqmkCE6kCd0TCFDdBhP6JhChuggntAxhQzR/XT0c/Ny8nHxBqxh3K6ddX2q++' +
    'q1vw3mStWzgvlTtZvx1V19eKNRBjyoETCr+/8G8DXmESQE//+v4PwGIAABizoAgQBg1AgIBACjBkIgABg1AAMBBq5kBDQvk0ilMmUSi1WOBWQV7R8t' +
    'dA==',
  'base64',
)

function foreign(): void {
  const some = (name: string, what: string, layer2: Buffer, content: Buffer, seekable = false, secret: Secret | null = null) => {
    const expected: Accepted = { ...accepted(content), foreign: true }
    put2({ name, what, layer2, expected, secret, differs: seekable ? {} : { ranged: { whole: true } } })
  }
  const twice = Buffer.concat([TEXT, TEXT])
  some('foreign-one-frame', 'one frame of the zstd command, without its content size', CHECKED, TEXT)
  some('foreign-no-checksum', 'the same without a checksum', UNCHECKED, TEXT)
  some('foreign-many-frames', 'frames of several kinds and a skippable one', Buffer.concat([CHECKED, skippable(0x184d2a5b, Buffer.from('x')), SIZED]), twice)
  some('foreign-in-container', 'a foreign stream, sealed', Buffer.concat([SIZED, CHECKED]), twice, false, { key: KEY })
  const seekable = [
    { bytes: SIZED, content: TEXT.length },
    { bytes: CHECKED, content: TEXT.length },
  ]
  some('foreign-seekable', 'frames and a seek table, no index', stream(seekable), twice, true)
  some('foreign-seekable-checksums', 'the same, with checksums in the seek table', stream(seekable, { checksums: [0x01020304, 5] }), twice, true)
  // Its last table describes the second half only, so ranges of the whole cannot be found by it.
  put2({
    name: 'foreign-two-seekable',
    what: 'two seekable streams, one after the other',
    layer2: Buffer.concat([stream(seekable), stream(seekable)]),
    expected: { ...accepted(Buffer.concat([twice, twice])), foreign: true },
    secret: null,
    differs: {
      ranged: { error: 'CORRUPT' },
      python: { error: 'CORRUPT' },
      why: 'the last table is of the second stream alone; only a reader that meets the frames in order can tell',
    },
  })
}

function badZstd(): void {
  const good = rawParts()
  const [one, two, index] = good as [Part, Part, Part]
  const bad = (name: string, what: string, layer2: Buffer, error: Code, differs: Differs = {}) =>
    put2({ name, what, layer2, expected: { error }, differs })
  const second = RAW.subarray(C)
  const withSecond = (faults: Parameters<typeof zstdFrame>[1]) => stream([one, dataPart(second, faults), index])
  const pythonCorrupt: Differs = { python: { error: 'CORRUPT' } }

  bad('zstd-checksum', 'a wrong checksum', withSecond({ checksum: 'wrong' }), 'CORRUPT')
  bad('zstd-size-more', 'a content size of one byte too many', withSecond({ says: second.length + 1 }), 'CORRUPT')
  bad('zstd-size-less', 'a content size of one byte too few', withSecond({ says: second.length - 1 }), 'CORRUPT')
  bad('zstd-block-type', 'a block of the reserved type', withSecond({ blockType: 3 }), 'CORRUPT')
  bad('zstd-reserved-bit', 'the reserved bit of the frame header', withSecond({ descriptor: 8 }), 'CORRUPT')
  bad('zstd-dictionary', 'a dictionary id', withSecond({ dictionary: 7 }), 'UNSUPPORTED', {
    ...pythonCorrupt,
    why: 'the Python reader has one code for what it cannot decompress',
  })
  bad('zstd-window', 'a window of 144 MiB', withSecond({ window: (17 << 3) | 1 }), 'LIMIT')
  bad('zstd-single-segment', 'a single segment of 2 GiB', withSecond({ says: 2 ** 31 }), 'LIMIT')
  const tight = dataPart(Buffer.concat([bytesFor('tight', 1100), Buffer.alloc(100)]), { window: 0 })
  bad('zstd-block-too-long', 'a block longer than its window of 1 KiB', stream([one, tight, indexPart(rawBlocks(Buffer.alloc(C + 1200)))]), 'CORRUPT')
  const magic = { ...two, bytes: flip(two.bytes, 0) }
  bad('zstd-magic', 'a frame with a wrong magic', stream([one, magic, index]), 'CORRUPT')

  const layer2 = stream(good)
  const truncated: Differs = { ranged: { whole: true }, ...pythonCorrupt, why: 'without its footer the seek table is not found; the Python reader has one code for a broken stream' }
  bad('zstd-empty', 'no byte', Buffer.alloc(0), 'TRUNCATED', truncated)
  bad('zstd-cut-frame', 'cut in a data frame', layer2.subarray(0, one.bytes.length + 50), 'TRUNCATED', truncated)
  bad('zstd-cut-frame-header', 'cut in the header of a data frame', layer2.subarray(0, one.bytes.length + 5), 'TRUNCATED', truncated)
  const indexAt = one.bytes.length + two.bytes.length
  bad('zstd-cut-index', 'cut in the index', layer2.subarray(0, indexAt + 40), 'TRUNCATED', truncated)
  bad('zstd-cut-table', 'cut in the seek table', layer2.subarray(0, -1), 'TRUNCATED', truncated)
  bad('zstd-trailing-garbage', 'bytes after the seek table', Buffer.concat([layer2, Buffer.from('garbage')]), 'CORRUPT', { ranged: { whole: true } })
  bad('zstd-trailing-byte', 'a byte after the seek table', Buffer.concat([layer2, Buffer.from('x')]), 'TRUNCATED', truncated)

  const rows = good.map(({ bytes, content: decompressed }) => ({ compressed: bytes.length, decompressed }))
  const body = Buffer.concat(good.map(({ bytes }) => bytes))
  const table = (faults: TableFaults, change: [row: number, compressed: number, decompressed: number][] = []) => {
    const changed = rows.map((row) => ({ ...row }))
    for (const [row, compressed, decompressed] of change) {
      const one = changed[row] as (typeof rows)[number]
      one.compressed += compressed
      one.decompressed += decompressed
    }
    return Buffer.concat([body, seekTable(changed, faults)])
  }
  bad('table-count-2-31', 'a seek table of 2^31 entries', table({ count: 2 ** 31 }), 'LIMIT', {
    stream: { error: 'CORRUPT' },
    why: 'the stream has no need to allocate the table, and counts the frames instead',
  })
  bad('table-count-2-20', 'a seek table longer than the stream', table({ count: 2 ** 20 }), 'CORRUPT')
  bad('table-count-more', 'an entry more than there are', table({ count: 4 }), 'CORRUPT')
  bad('table-count-less', 'an entry less than there are', table({ count: 2 }), 'CORRUPT')
  bad('table-sum', 'compressed sizes whose sum is one too many', table({}, [[0, 1, 0]]), 'CORRUPT')
  bad('table-sizes', 'compressed sizes of the right sum', table({}, [[0, 1, 0], [1, -1, 0]]), 'CORRUPT')
  bad('table-content', 'decompressed sizes of the right sum', table({}, [[0, 0, 1], [1, 0, -1]]), 'CORRUPT')
  bad('table-content-large', 'a decompressed size of more than 128 MiB', table({}, [[1, 0, 2 ** 27]]), 'LIMIT', {
    stream: { error: 'CORRUPT' },
    python: { error: 'CORRUPT' },
    why: 'whoever reads the frames first finds that they are not of this size',
  })
  bad('table-header', 'a length in its header that does not fit', table({ payloadBytes: 3 * 8 + 9 + 1 }), 'CORRUPT', {
    stream: { error: 'TRUNCATED' },
    why: 'the stream waits for the byte that is missing',
  })
  bad('table-reserved-bit', 'a reserved bit of the descriptor', table({ descriptor: 4 }), 'CORRUPT')
  bad('table-checksum-flag', 'a descriptor that says checksums where there are none', table({ descriptor: 0x80 }), 'CORRUPT')
  const note = { bytes: skippable(0x184d2a50, Buffer.from('a note')), content: 0 }
  const skipped = Buffer.concat([one.bytes, note.bytes, two.bytes, index.bytes, seekTable(rows)])
  bad('table-skippable-missing', 'a skippable frame that the seek table leaves out', skipped, 'CORRUPT')
  bad('table-skippable-content', 'a skippable frame that is said to have content', stream([one, { ...note, content: 6 }, two, index]), 'CORRUPT')
}

function badIndexes(): void {
  const data = dataParts(RAW)
  const good = headOf('raw', RAW.length, 1)
  const unread: Differs = { stream: accepted(RAW), why: 'the stream passes over the index' }
  const bad = (name: string, what: string, layer2: Buffer, error: Code, differs: Differs = {}, more: Partial<Layer2> = {}) =>
    put2({ name, what, layer2, layer: 'snapshot', expected: { error }, differs: { ...unread, ...differs }, ...more })
  const withBlocks = (...blocks: Lines[]) => stream([...data, indexPart(blocks)])
  const withPayload = (...payload: Buffer[]) =>
    stream([...data, { bytes: skippable(0x184d2a5b, Buffer.concat([Buffer.from('MLRINDEX'), ...payload])), content: 0 }])
  const text = Buffer.from(`${JSON.stringify(good)}\n`)

  bad('index-marker', 'an index without its marker', stream([...data, indexPart([[good]], 'mlrindex')]), 'MISPLACED')
  bad('index-no-head', 'an index without a line', withPayload(), 'CORRUPT')
  bad('index-json', 'a line that is no JSON', withBlocks([good], ['{"path":']), 'CORRUPT')
  bad('index-array', 'a line that is no object', withBlocks([good], ['[]']), 'CORRUPT')
  const { server: _, ...nobody } = good
  bad('index-no-server', 'a head without a server', withBlocks([nobody]), 'CORRUPT')
  bad('index-bytes-negative', 'a head with a negative length', withBlocks([{ ...good, bytes: -1 }]), 'CORRUPT')
  bad('index-kind', 'a head of an unknown kind', withBlocks([{ ...good, kind: 'zip' }]), 'CORRUPT')
  bad('index-v-2', 'index version 2', withBlocks([{ ...good, v: 2 }]), 'UNSUPPORTED')
  const padding = 2 ** 20 + 1 - Buffer.byteLength(`${JSON.stringify({ ...good, pad: '' })}\n`)
  bad('index-block-too-long', 'a block of 1 MiB and a byte', withBlocks([{ ...good, pad: 'a'.repeat(padding) }]), 'LIMIT')
  bad('index-block-no-size', 'a block without its content size', withPayload(zstdFrame(text, { noSize: true })), 'CORRUPT')
  bad('index-block-checksum', 'a block with a wrong checksum', withPayload(zstdFrame(text, { checksum: 'wrong' })), 'CORRUPT')
  bad('index-line-cut', 'a block that ends inside a line', withPayload(zstdFrame(text.subarray(0, -1))), 'CORRUPT')
  bad('index-block-cut', 'a payload that ends inside a block', withPayload(zstdFrame(text).subarray(0, -6)), 'CORRUPT')
  bad('index-skippable', 'a skippable frame where a block should be', withPayload(zstdFrame(text), skippable(0x184d2a50, Buffer.from('x'))), 'CORRUPT')
  badEntries()

  const index = indexPart([[good]])
  const [one, two] = data as [Part, Part]
  bad('index-not-last', 'an index before the last data frame', stream([one, index, two]), 'CORRUPT', {
    ranged: { error: 'MISPLACED' },
    why: 'the stream passes over the index; the reader of ranges looks for it in its one place',
  })
  bad('index-twice', 'two indexes', stream([...data, index, index]), 'CORRUPT', {
    ranged: accepted(RAW, [[good]]),
    why: 'the stream passes over the index; the reader of ranges reads the last one',
  })
  bad('index-bytes', 'a head that says a byte too many', withBlocks([{ ...good, bytes: RAW.length + 1 }]), 'CORRUPT')
  bad('no-seek-table', 'an index, and no seek table', Buffer.concat([...data, index].map(({ bytes }) => bytes)), 'MISPLACED', {
    python: { error: 'CORRUPT' },
    why: 'the stream passes over the index; without the table the reader of ranges does not find it',
  })
  const whole = stream([...data, index])
  bad('misplaced-server', 'a snapshot of another server', whole, 'MISPLACED', {}, { server: 'creative' })
  bad('misplaced-id', 'another snapshot of this server', whole, 'MISPLACED', {}, { id: '2026-11-23T10-00-00.000Z-aaaa' })
  bad('no-index', 'a stream without an index, under a snapshot\'s name', stream(data), 'MISPLACED', { why: 'the stream does not ask whose it is' })
}

/** Faults of one line of a folder's index. */
function badEntries(): void {
  const meta = { mode: 0o644, mtime: '0', uid: 0, gid: 0 }
  const bad = (name: string, what: string, entry: Partial<Entry>, change: object = {}) => {
    const { bytes, lines } = tar([{ path: 'x', type: 'file', content: Buffer.from('content'), ...meta, ...entry }])
    const head = headOf('tar', bytes.length, 1, { mode: 0o755, mtime: 0 })
    const blocks = [[head], lines.map((line) => ({ ...line, ...change }))]
    put2({
      name,
      what,
      layer2: stream([...dataParts(bytes), indexPart(blocks)]),
      expected: { error: 'CORRUPT' },
      layer: 'snapshot',
      kind: 'tar',
      differs: {
        stream: accepted(bytes),
        why: 'the stream passes over the index',
      },
    })
  }
  bad('entry-no-size', 'an entry without a size', {}, { size: undefined })
  bad('entry-at-negative', 'an entry before the stream', {}, { at: -512 })
  bad('entry-path-dots', 'an entry with a .. in its path', { path: 'a/../../x' })
  bad('entry-path-dot', 'an entry with a . in its path', { path: './x' }, { path: './x' })
  bad('entry-path-absolute', 'an entry with an absolute path', { path: '/x' })
  bad('entry-path-empty', 'an entry with an empty component in its path', { path: 'a//x' })
  bad('entry-path-nul', 'an entry with a NUL in its path', {}, { path: 'x\0y' })
  bad('entry-type', 'an entry of an unknown type', {}, { type: 'fifo' })
  bad('entry-no-link', 'a hard link without its target', { type: 'link', content: Buffer.alloc(0) })
  bad('entry-beyond', 'an entry that ends after the archive', {}, { size: 2 ** 40 })
}

function plainOnes(): void {
  const parts = rawParts()
  const layer2 = stream(parts)
  const firstFrame = (parts[0] as Part).bytes
  const cut = layer2.subarray(0, firstFrame.length)
  const expected: Accepted = { ...accepted(RAW.subarray(0, C)), foreign: true }
  const what = 'not encrypted, and cut after its first data frame'
  put2({ name: 'plain-cut-at-border', what, layer2: cut, expected, secret: null, differs: { ranged: { whole: true } } })
  put(
    'plain-cut-as-snapshot',
    cut,
    {
      what: `the same, read as a snapshot`,
      layer: 'snapshot',
      server: SERVER,
      id: ID,
      expected: { error: 'MISPLACED' },
      stream: expected,
      why: 'the stream does not ask whose it is',
    },
    'plain-cut-at-border.zst',
  )
  put2({ name: 'plain-flipped', what: 'not encrypted, a bit of the content flipped', layer2: flip(layer2, 100), expected: { error: 'CORRUPT' }, secret: null })
  const cutInside = layer2.subarray(0, firstFrame.length - 1)
  put2({
    name: 'plain-cut-inside',
    what: 'not encrypted, and cut inside a frame',
    layer2: cutInside,
    expected: { error: 'TRUNCATED' },
    secret: null,
    differs: { ranged: { whole: true }, python: { error: 'CORRUPT' }, why: 'the Python reader has one code for a broken stream' },
  })
}

function seeds(): void {
  const password = 'a pass word'
  const sealed = sealSeed('seed', CHECKED, password)
  const why = 'to the reader of ranges, which knows containers only, this is none'
  const seed = (name: string, what: string, bytes: Buffer, expected: Verdict, more: Partial<Vector> = {}) =>
    put(name, bytes, { what, password, layer: 'seed', expected, ranged: { error: 'NOT_SEALED' }, why, ...more }, `${name}.zst.enc`)
  seed('seed', "the original service's layout", sealed, accepted(CHECKED))
  const typed = sealSeed('seed-password-as-typed', CHECKED, PASSWORD)
  seed('seed-password-as-typed', 'the same, under a password that is not in NFC', typed, accepted(CHECKED), { password: PASSWORD })
  seed('seed-tag', 'the same with a bit of its tag flipped', flip(sealed, -1), { error: 'AUTH_FAILED' })
  seed('seed-cut', 'the same without its last byte', sealed.subarray(0, -1), { error: 'AUTH_FAILED' })
  seed('seed-short', 'a byte less than salt, nonce and tag', sealed.subarray(0, 43), { error: 'TRUNCATED' })
  const container = join(seal('seed-container', bytesFor('plain', 1), { password }))
  const ranged = accepted(bytesFor('plain', 1))
  seed('seed-container', 'a container, read by that layout', container, { error: 'UNSUPPORTED' }, { ranged, why: 'it is a container' })
}

let made: { files: Map<string, Buffer>; manifest: Manifest } | undefined

/** All files but the manifest, and the manifest. */
export function makeVectors(): { files: Map<string, Buffer>; manifest: Manifest } {
  if (made) return made
  for (const group of [goodContainers, badContainers, goodSnapshots, foreign, badZstd, badIndexes, plainOnes, seeds]) group()
  const about = [
    'Vectors of the millrace container, format version 1. Made by make.ts; FORMAT.md says how to use them.',
    'A vector that is to be refused has exactly one fault. `expected` is what a reader of everything says;',
    '`stream`, `ranged` and `python` stand where the reader of that name says something else, and `why` says why.',
  ]
  made = { files, manifest: { format: 1, about, frameBytes: F, zstdFrameBytes: C, vectors } }
  return made
}

export const manifestText = (manifest: Manifest): string => `${JSON.stringify(manifest, null, 2)}\n`

if (process.argv[1] === import.meta.filename) {
  const folder = process.argv[2] ?? import.meta.dirname
  const { files: all, manifest } = makeVectors()
  await mkdir(folder, { recursive: true })
  for (const name of await readdir(folder)) {
    if (/\.(mlr|zst|enc)$/.test(name) && !all.has(name)) await rm(joinPath(folder, name))
  }
  for (const [name, bytes] of all) await writeFile(joinPath(folder, name), bytes)
  await writeFile(joinPath(folder, 'manifest.json'), manifestText(manifest))
  const total = [...all.values()].reduce((sum, bytes) => sum + bytes.length, 0)
  console.log(`${manifest.vectors.length} vectors in ${all.size} files, ${total} bytes`)
}
