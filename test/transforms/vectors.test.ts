import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import type { Storage } from '../../adapters/storage.ts'
import { BackupError } from '../../lib/errors.ts'
import { openObject } from '../../lib/open-object.ts'
import { prepareOpener } from '../../transforms/container.ts'
import {
  createDecrypt,
  createZstdDecompress,
  openPlain,
  openSealed,
  openSeekable,
  type RangeSource,
  type ReadKeys,
  type ReadRange,
  type Seekable,
  TransformError,
} from '../../transforms/index.ts'
import { openingStage } from '../../transforms/seal-thread.ts'
import { createSeedDecrypt } from '../../transforms/seed-decrypt.ts'
import { independentReader, NO_READER } from '../support/tools.ts'
import { type Accepted, type Manifest, makeVectors, manifestText, type Vector, type Verdict } from '../vectors/make.ts'

// FORMAT.md, 'Vectors'. Every vector goes through the streaming reader, the reader of ranges and the independent one.

const FOLDER = join(import.meta.dirname, '../vectors')
const { vectors }: Manifest = JSON.parse(await readFile(join(FOLDER, 'manifest.json'), 'utf8'))
const bytesOf = ({ file }: Vector) => readFile(join(FOLDER, file))

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

function keysOf({ key, password }: Vector): ReadKeys | undefined {
  if (key !== undefined) return { key: Buffer.from(key, 'hex') }
  return password === undefined ? undefined : { password }
}

/** What a reader made of a vector, with the errors that are no verdict let through. */
async function verdictOf(read: () => Promise<Verdict>): Promise<Verdict> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof TransformError || (error instanceof BackupError && error.code === 'MISPLACED')) {
      return { error: error.code } as Verdict
    }
    throw error
  }
}

async function collect(source: Readable): Promise<Buffer> {
  const out: Buffer[] = []
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      out.push(chunk)
      callback()
    },
  })
  await pipeline(source, sink)
  return Buffer.concat(out)
}

function inPieces(bytes: Buffer, pieceBytes: number): Readable {
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length; at += pieceBytes) pieces.push(bytes.subarray(at, at + pieceBytes))
  return Readable.from(pieces, { objectMode: false })
}

function readStream(vector: Vector, bytes: Buffer, pieceBytes: number): Promise<Verdict> {
  return verdictOf(async () => {
    const out: Buffer[] = []
    const sink = new Writable({
      write(chunk: Buffer, _encoding, callback) {
        out.push(chunk)
        callback()
      },
    })
    await pipeline([inPieces(bytes, pieceBytes), ...stagesOf(vector), sink])
    const content = Buffer.concat(out)
    return { ok: true, bytes: content.length, sha256: sha256(content) }
  })
}

function stagesOf(vector: Vector): Duplex[] {
  if (vector.layer === 'seed') return [createSeedDecrypt({ password: vector.password as string })]
  const keys = keysOf(vector)
  const unpack = vector.layer === 'container' ? [] : [createZstdDecompress()]
  return keys ? [createDecrypt(keys), ...unpack] : unpack
}

function readRanges(vector: Vector, bytes: Buffer): Promise<Verdict> {
  const readRange: ReadRange = async (offset, length) => {
    assert.ok(offset >= 0 && offset + length <= bytes.length, `a read of ${length} bytes from ${offset}`)
    return Buffer.from(bytes.subarray(offset, offset + length))
  }
  return verdictOf(async () => {
    if (vector.layer === 'snapshot') return readSnapshot(vector, bytes, readRange)
    const keys = keysOf(vector)
    const source = keys ? await openSealed(readRange, bytes.length, keys) : openPlain(readRange, bytes.length)
    if (vector.layer === 'container' || vector.layer === 'seed') return wholeOf(source)
    const seekable = await openSeekable(source)
    return seekable ? readSeekable(seekable) : { whole: true }
  })
}

async function wholeOf(source: RangeSource): Promise<Accepted> {
  const content = await collect(source.createReadStream())
  assert.equal(content.length, source.size)
  // The same through small ranges.
  const pieces: Buffer[] = []
  for (let at = 0; at < source.size; at += 9973) pieces.push(await source.read(at, Math.min(9973, source.size - at)))
  assert.ok(Buffer.concat(pieces).equals(content))
  return { ok: true, bytes: content.length, sha256: sha256(content) }
}

async function readSeekable(seekable: Seekable): Promise<Verdict> {
  try {
    if (!seekable.hasIndex) return { ...(await wholeOf(seekable)), foreign: true }
    const lines = [JSON.stringify(await seekable.head())]
    for await (const entry of seekable.entries()) lines.push(JSON.stringify(entry))
    const text = Buffer.from(lines.map((line) => `${line}\n`).join(''))
    return { ...(await wholeOf(seekable)), index: { lines: lines.length, sha256: sha256(text) } }
  } finally {
    seekable.close()
  }
}

/** As the service reads it, under the name of the snapshot that it should be. */
async function readSnapshot(vector: Vector, bytes: Buffer, readRange: ReadRange): Promise<Verdict> {
  const { file, server = '', id = '' } = vector
  const kind = file.includes('.tar.') ? 'tar' : 'raw'
  const key = `${server}/${id}${kind === 'tar' ? '.tar' : ''}.zst`
  const stat = { key, size: bytes.length, modified: new Date(0) }
  const storage = {
    stat: async () => stat,
    readRange: (_key: string, offset: number, length: number) => readRange(offset, length),
  } as unknown as Storage
  const keys = keysOf(vector)
  const snapshot = { id, kind, encrypted: keys !== undefined, server, key, created: new Date(0) } as const
  const object = await openObject(
    storage,
    { ...snapshot, storedBytes: bytes.length, complete: true, pinned: false },
    { keys },
  )
  try {
    return object.seekable ? await readSeekable(object.seekable) : { whole: true }
  } finally {
    object.close()
  }
}

/** Compares what a reader says with the manifest, as far as that reader looks. */
function check(vector: Vector, reader: 'stream' | 'ranged' | 'python', actual: Verdict): void {
  const expected = vector[reader] ?? vector.expected
  const { index, foreign, ...seen } = expected as Accepted
  const wanted: Record<string, unknown> = { ...seen }
  if ('index' in actual) wanted.index = index
  if ('foreign' in actual) wanted.foreign = foreign
  assert.deepEqual(actual, wanted, `${vector.name}: ${vector.what}`)
}

test('every vector is judged by the streaming reader as the manifest says', async () => {
  for (const vector of vectors) {
    const bytes = await bytesOf(vector)
    for (const pieceBytes of [bytes.length + 1, 1000, 61]) {
      check(vector, 'stream', await readStream(vector, bytes, pieceBytes))
      // Deriving from a password costs more than all else together.
      if (vector.password !== undefined) break
    }
  }
})

test('every vector is judged by the streaming reader that decrypts on a thread as the manifest says', async () => {
  for (const vector of vectors.filter(({ layer }) => layer !== 'seed')) {
    const bytes = await bytesOf(vector)
    const keys = keysOf(vector)
    const thread = openingStage(keys && prepareOpener(keys), { onThread: true })
    const verdict = await verdictOf(async () => {
      const out: Buffer[] = []
      const sink = new Writable({
        write(chunk: Buffer, _encoding, callback) {
          out.push(chunk)
          callback()
        },
      })
      const unpack = vector.layer === 'container' ? [] : [createZstdDecompress()]
      await pipeline([inPieces(bytes, 1000), ...thread.transforms, ...unpack, sink])
      assert.deepEqual([thread.totals().bytes, thread.totals().digest], [bytes.length, sha256(bytes)])
      const content = Buffer.concat(out)
      return { ok: true, bytes: content.length, sha256: sha256(content) }
    })
    check(vector, 'stream', verdict)
  }
})

test('every vector is judged by the reader of ranges as the manifest says', async () => {
  for (const vector of vectors) check(vector, 'ranged', await readRanges(vector, await bytesOf(vector)))
})

test('every vector is judged by the independent reader as the manifest says', { skip: NO_READER }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-vectors-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const secrets = new Map<string, string>()
  const secretFile = async (text: string | Buffer) => {
    const name = sha256(Buffer.from(text))
    if (!secrets.has(name)) await writeFile(join(folder, name), text)
    secrets.set(name, join(folder, name))
    return secrets.get(name) as string
  }
  const judged = vectors.filter(({ layer }) => layer !== 'seed')
  const jobs: string[] = []
  for (const { file, key, password, layer, server, id } of judged) {
    const args = [join(FOLDER, file)]
    if (key !== undefined) args.push('--key-file', await secretFile(Buffer.from(key, 'hex')))
    else if (password !== undefined) args.push('--password-file', await secretFile(`${password}\n`))
    else args.push('--plain')
    if (layer === 'container') args.push('--layer3-only')
    if (layer === 'snapshot') args.push('--server', server as string, '--id', id as string)
    jobs.push(`${JSON.stringify(args)}\n`)
  }
  await writeFile(join(folder, 'jobs'), jobs.join(''))
  const { code, stdout, stderr } = independentReader(['batch', join(folder, 'jobs')])
  assert.equal(code, 0, stderr)
  const answers = stdout.toString().trim().split('\n')
  assert.equal(answers.length, judged.length)
  for (const [i, vector] of judged.entries()) check(vector, 'python', pythonVerdict(JSON.parse(answers[i] as string)))

  for (const vector of vectors.filter(({ layer }) => layer === 'seed')) {
    const args = ['seed', join(FOLDER, vector.file), '--password-file', await secretFile(`${vector.password}\n`)]
    const { code: exit, stdout: plain, stderr: refusal } = independentReader(args)
    const verdict: Verdict =
      exit === 0 ? { ok: true, bytes: plain.length, sha256: sha256(plain) } : { error: JSON.parse(refusal).error }
    check(vector, 'python', verdict)
  }
})

interface Report {
  ok: boolean
  error: 'CORRUPT'
  foreign?: boolean
  layer3: { plain_bytes: number; sha256: string }
  layer2?: { bytes: number; sha256: string; index: { lines: number; sha256: string } | null }
}

function pythonVerdict({ ok, error, foreign, layer3, layer2 }: Report): Verdict {
  if (!ok) return { error }
  if (!layer2) return { ok, bytes: layer3.plain_bytes, sha256: layer3.sha256 }
  const { bytes, sha256: digest, index } = layer2
  const content: Accepted = { ok, bytes, sha256: digest }
  if (index) return { ...content, index: { lines: index.lines, sha256: index.sha256 } }
  return foreign ? { ...content, foreign } : content
}

test('single files of a snapshot come out of its vector by their index lines', async () => {
  const vector = vectors.find(({ name }) => name === 'snapshot-tar') as Vector
  const bytes = await bytesOf(vector)
  const readRange: ReadRange = async (offset, length) => Buffer.from(bytes.subarray(offset, offset + length))
  const sealed = await openSealed(readRange, bytes.length, keysOf(vector) as ReadKeys)
  const seekable = (await openSeekable(sealed)) as Seekable
  const files = new Map<string, string>()
  for await (const { path, type, data, size } of seekable.entries()) {
    if (type === 'file') files.set(path, sha256(await seekable.read(data, size)))
  }
  assert.equal(files.get('a.txt'), sha256(Buffer.from('the later one counts')))
  assert.equal(files.get('gone'), sha256(Buffer.from('was here')))
  assert.equal(files.get('empty'), sha256(Buffer.alloc(0)))
  assert.equal(files.get('zeros'), sha256(Buffer.alloc(40)))
  seekable.close()
})

test('the vectors cover every error that a reader can give', async () => {
  const source = await readFile(join(import.meta.dirname, '../../transforms/errors.ts'), 'utf8')
  const union = source.slice(source.indexOf('TransformErrorCode ='), source.indexOf('/** The one error class'))
  const codes = [...union.matchAll(/\| '(\w+)'/g)].map((match) => match[1] as string)
  assert.ok(codes.length >= 10, codes.join())
  // What is wrong with an argument, a disk, a destination, a thread or a writer's source is not in a file.
  const elsewhere = ['BAD_OPTION', 'BAD_KEY', 'SPOOL', 'FAN_OUT', 'DIFFERS', 'THREAD']
  const wanted = codes.filter((code) => !elsewhere.includes(code))
  for (const [reader, also] of [
    ['stream', []],
    ['ranged', ['MISPLACED']],
  ] as const) {
    const verdicts = vectors.map((vector) => (vector[reader] ?? vector.expected) as { error?: string })
    const errors = new Set(verdicts.flatMap(({ error }) => (error === undefined ? [] : [error])))
    assert.deepEqual([...errors].sort(), [...wanted, ...also].sort(), reader)
  }
})

test('make.ts makes the same vectors again, byte for byte', async () => {
  const { files, manifest } = makeVectors()
  assert.equal(await readFile(join(FOLDER, 'manifest.json'), 'utf8'), manifestText(manifest))
  const there = (await readdir(FOLDER)).filter((name) => /\.(mlr|zst|enc)$/.test(name)).sort()
  assert.deepEqual(there, [...files.keys()].sort())
  let total = 0
  for (const [name, bytes] of files) {
    assert.ok((await readFile(join(FOLDER, name))).equals(bytes), name)
    total += bytes.length
  }
  assert.ok(total < 2 * 1024 * 1024, `${total} bytes`)
})
