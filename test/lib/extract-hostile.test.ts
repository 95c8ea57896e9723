import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { type Header, pack } from 'tar-stream'
import type { ArchiveWarning } from '../../lib/archive/entry.ts'
import { extractTar } from '../../lib/archive/extract.ts'
import { BackupError } from '../../lib/errors.ts'
import { tempFolder } from '../support/tree.ts'

type Item = Partial<Header> & { name: string; content?: string; pax?: Record<string, string> }

async function hostile(items: Item[]): Promise<Buffer> {
  const tar = pack()
  for (const { content, ...header } of items) {
    if (content !== undefined) tar.entry(header, content)
    else tar.entry(header)
  }
  tar.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of tar) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Two folders: what is in `outside` must stay as it is. */
function stage(t: TestContext): { target: string; outside: string; check: () => void } {
  const dir = tempFolder(t)
  const [target, outside] = [path.join(dir, 'target'), path.join(dir, 'outside')]
  fs.mkdirSync(target)
  fs.mkdirSync(outside)
  fs.writeFileSync(path.join(outside, 'secret'), 'secret')
  const before = fs.statSync(outside).mtimeMs
  const check = (): void => {
    assert.deepEqual(fs.readdirSync(dir).sort(), ['outside', 'target'])
    assert.deepEqual(fs.readdirSync(outside), ['secret'])
    assert.equal(fs.readFileSync(path.join(outside, 'secret'), 'utf8'), 'secret')
    assert.equal(fs.statSync(outside).mtimeMs, before)
    assert.equal(fs.statSync(path.join(outside, 'secret')).nlink, 1)
  }
  return { target, outside, check }
}

const file = (name: string): Item => ({ name, type: 'file', content: 'evil' })
const dir = (name: string): Item => ({ name, type: 'directory', mode: 0o777, mtime: new Date(1000) })
const link = (name: string, linkname: string): Item => ({ name, type: 'link', linkname })

const REFUSED: Record<string, (outside: string) => Item[]> = {
  'a parent path': () => [file('../outside/evil')],
  'a parent path in the middle': () => [dir('a'), file('a/../../outside/evil')],
  'a parent path at the end': () => [dir('a/..')],
  'only a parent': () => [dir('..')],
  'an absolute path': (outside) => [file(`${outside}/evil`)],
  'a pax path with a parent': () => [{ ...file('good'), pax: { path: '../outside/evil' } }],
  'an absolute pax path': (outside) => [{ ...file('good'), pax: { path: `${outside}/evil` } }],
  'a pax path with a NUL': () => [{ ...file('good'), pax: { path: 'a\0b' } }],
  'a file in place of the folder itself': () => [file('./')],
  'writing through a symlink': (outside) => [{ name: 's', type: 'symlink', linkname: outside }, file('s/evil')],
  'a folder through a symlink': (outside) => [{ name: 's', type: 'symlink', linkname: outside }, dir('s/evil')],
  'a symlink through a symlink': (outside) => [
    { name: 's', type: 'symlink', linkname: outside },
    { name: 's/evil', type: 'symlink', linkname: 'x' },
  ],
  'a symlink put over the folder of a symlink': (outside) => [
    { name: 's/evil', type: 'symlink', linkname: 'x' },
    { name: 't', type: 'symlink', linkname: 'x' },
    { name: 's', type: 'symlink', linkname: outside },
  ],
  'the same, with the inner one last': (outside) => [
    dir('s'),
    { name: 's', type: 'symlink', linkname: outside },
    { name: 's/evil', type: 'symlink', linkname: 'x' },
  ],
  'a chain of symlinks': () => [
    { name: 'a', type: 'symlink', linkname: 'b' },
    { name: 'b', type: 'symlink', linkname: '../outside' },
    file('a/evil'),
  ],
  'a symlink to the parent, twice': () => [
    { name: 'up', type: 'symlink', linkname: '..' },
    { name: 'up/up2', type: 'symlink', linkname: '..' },
    file('up/outside/evil'),
  ],
  'a folder replaced by a symlink, then written below': (outside) => [
    dir('d'),
    { name: 'd', type: 'symlink', linkname: outside },
    file('d/evil'),
  ],
  'a full folder replaced by a symlink': (outside) => [
    dir('d'),
    file('d/x'),
    { name: 'd', type: 'symlink', linkname: outside },
  ],
  'a hard link to an absolute path': (outside) => [link('h', `${outside}/secret`)],
  'a hard link to a parent path': () => [link('h', '../outside/secret')],
  'a hard link through a symlink': (outside) => [
    { name: 's', type: 'symlink', linkname: outside },
    link('h', 's/secret'),
  ],
  'a hard link made behind a symlink': (outside) => [
    file('f'),
    { name: 's', type: 'symlink', linkname: outside },
    link('s/evil', 'f'),
  ],
  'a hard link to a folder': () => [dir('d'), link('h', 'd')],
  'a file below a file': () => [file('f'), file('f/evil')],
}

for (const [name, items] of Object.entries(REFUSED)) {
  test(`T33: refused: ${name}`, async (t) => {
    const { target, outside, check } = stage(t)
    const tar = await hostile([...items(outside), file('after')])
    const isUnsafe = (error: unknown): boolean => error instanceof BackupError && error.code === 'UNSAFE_ARCHIVE'
    await assert.rejects(extractTar(Readable.from([tar]), target), isUnsafe)
    check()
  })
}

test('T33: symlinks that stand in the target already are not written through', async (t) => {
  const { target, outside, check } = stage(t)
  fs.symlinkSync(outside, path.join(target, 's'))
  const isUnsafe = (error: unknown): boolean => error instanceof BackupError && error.code === 'UNSAFE_ARCHIVE'
  const attempts = [
    [file('s/evil')],
    [link('h', 's/secret')],
    [dir('s/evil')],
    [{ name: 's/evil', type: 'symlink', linkname: 'x' } as Item],
  ]
  for (const items of attempts) {
    await assert.rejects(extractTar(Readable.from([await hostile(items)]), target), isUnsafe)
    check()
  }
  fs.symlinkSync(path.join(outside, 'secret'), path.join(target, 'f'))
  await extractTar(Readable.from([await hostile([file('f'), dir('s')])]), target)
  assert.equal(fs.readFileSync(path.join(target, 'f'), 'utf8'), 'evil')
  assert.ok(fs.lstatSync(path.join(target, 's')).isDirectory())
  check()
})

test('T33: devices and fifos are left out with a warning, and so are links to them', async (t) => {
  const { target, check } = stage(t)
  const tar = await hostile([
    { name: 'char', type: 'character-device', devmajor: 1, devminor: 3 },
    { name: 'block', type: 'block-device', devmajor: 8 },
    { name: 'fifo', type: 'fifo' },
    link('h', 'char'),
    file('kept'),
  ])
  const warnings: ArchiveWarning[] = []
  const result = await extractTar(Readable.from([tar]), target, { onWarning: (warning) => warnings.push(warning) })
  assert.deepEqual(fs.readdirSync(target), ['kept'])
  assert.deepEqual(
    warnings.map(({ kind }) => kind),
    ['special', 'special', 'special', 'link'],
  )
  assert.equal(result.skipped, 4)
  check()
})

test('a link to what was left out at first and came later is restored', async (t) => {
  const { target } = stage(t)
  const tar = await hostile([
    { name: 'a', type: 'fifo' },
    { name: 'a', type: 'file', content: 'later' },
    link('b', 'a'),
  ])
  const result = await extractTar(Readable.from([tar]), target)
  assert.equal(fs.readFileSync(path.join(target, 'b'), 'utf8'), 'later')
  assert.equal(result.skipped, 1)
})

test('T33: a symlink to the outside is restored, and nothing is written where it points', async (t) => {
  const { target, outside, check } = stage(t)
  const tar = await hostile([
    { name: 's', type: 'symlink', linkname: outside },
    dir('s2'),
    { name: 's2', type: 'symlink', linkname: path.join(outside, 'secret') },
  ])
  await extractTar(Readable.from([tar]), target)
  assert.equal(fs.readlinkSync(path.join(target, 's')), outside)
  assert.equal(fs.readlinkSync(path.join(target, 's2')), path.join(outside, 'secret'))
  check()
})

test('T33: names that only look unsafe are plain names here', async (t) => {
  const { target, check } = stage(t)
  const names = ['C:\\x', '..\\..\\x', '...', '..x', ' ..', '~', '-rf']
  await extractTar(Readable.from([await hostile([...names.map(file), file('./dot//slash/./x')])]), target)
  assert.deepEqual(fs.readdirSync(target).sort(), [...names, 'dot'].sort())
  assert.equal(fs.readFileSync(path.join(target, 'dot/slash/x'), 'utf8'), 'evil')
  check()
})

test('T33: of several entries of one path the last counts, whatever they are', async (t) => {
  const { target, check } = stage(t)
  const big = 'y'.repeat(200_000)
  const tar = await hostile([
    { name: 'a', type: 'file', content: 'first' },
    { name: 'a', type: 'file', content: big },
    { name: 'a', type: 'file', content: 'last' },
    { name: 'b', type: 'symlink', linkname: 'x' },
    { name: 'b', type: 'file', content: 'last' },
    { name: 'c', type: 'file', content: 'first' },
    { name: 'c', type: 'symlink', linkname: 'last' },
    dir('d'),
    { name: 'd', type: 'file', content: 'last' },
    { name: 'e', type: 'file', content: 'first' },
    dir('e'),
    { name: 'e/x', type: 'file', content: 'last' },
    { name: 'f', type: 'file', content: 'self' },
    link('f', 'f'),
  ])
  await extractTar(Readable.from([tar]), target)
  for (const name of ['a', 'b', 'd', 'e/x']) assert.equal(fs.readFileSync(path.join(target, name), 'utf8'), 'last')
  assert.equal(fs.readlinkSync(path.join(target, 'c')), 'last')
  assert.equal(fs.readFileSync(path.join(target, 'f'), 'utf8'), 'self')
  check()
})

test('T33: entries that make no sense are damage, not guesses', async (t) => {
  const { target } = stage(t)
  const cases: Item[][] = [
    [link('h', 'missing')],
    [{ ...file('f'), pax: { mtime: 'yesterday' } }],
    [{ ...file('f'), pax: { uid: '-1' } }],
    [{ ...file('f'), pax: { gid: '4294967296' } }],
    [{ ...file('f'), pax: { 'GNU.sparse.major': '1' } }],
  ]
  for (const items of cases) {
    const extracting = extractTar(Readable.from([await hostile(items)]), target)
    await assert.rejects(extracting, (error) => error instanceof BackupError && error.code === 'DAMAGED')
  }
})

test('more pax records than any tar writes are damage, and not copied into entry after entry', async (t) => {
  const { target } = stage(t)
  const records = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`comment${at}`, 'x']))
  const pax = (count: number): Item => ({ name: 'a', type: 'directory', pax: records(count) })
  await extractTar(Readable.from([await hostile([pax(990)])]), target)
  // Global ones, in front of an entry with records of its own.
  const tar = changed(await hostile([pax(1001), { ...file('b'), pax: { comment: 'x' } }]), 156, Buffer.from('g'))
  await assert.rejects(
    extractTar(Readable.from([tar]), target),
    (error) => error instanceof BackupError && error.code === 'DAMAGED' && /pax records/.test(error.message),
  )
})

/** An archive of one entry, with bytes of its header changed under a checksum that fits. */
async function withField(item: Item, at: number, field: Uint8Array): Promise<Buffer> {
  return changed(await hostile([item, file('after')]), at, field)
}

function changed(tar: Buffer, at: number, field: Uint8Array): Buffer {
  tar.set(field, at)
  tar.fill(' ', 148, 156)
  const sum = tar.subarray(0, 512).reduce((all, byte) => all + byte, 0)
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return tar
}

test('T33: fields that are no numbers are damage too', async (t) => {
  const { target } = stage(t)
  const nonsense = Buffer.from('zzzzzzz\0')
  const cases: [string, number, Uint8Array][] = [
    ['mode', 100, nonsense],
    ['uid', 108, nonsense],
    ['gid', 116, nonsense],
    ['an owner beyond 32 bits', 108, Buffer.from('8000000100000000', 'hex')],
    ['an owner below 0', 116, Buffer.from('fffffffffffffffe', 'hex')],
    ['mtime', 136, nonsense],
    ['an mtime beyond any calendar', 136, Buffer.from('800000007fffffffffffffff', 'hex')],
  ]
  for (const [what, at, field] of cases) {
    const extracting = extractTar(Readable.from([await withField(file('f'), at, field)]), target)
    await assert.rejects(extracting, (error) => error instanceof BackupError && error.code === 'DAMAGED', what)
  }
})

test('a folder has no content, whatever size its header says', { timeout: 20_000 }, async (t) => {
  for (const filter of [undefined, () => false]) {
    const { target } = stage(t)
    const tar = await withField(dir('d/'), 124, Buffer.from('00000001000\0'))
    const marks: number[] = []
    const checkpoints = { everyBytes: 1, onMark: async (offset: number) => void marks.push(offset) }
    await extractTar(Readable.from([tar]), target, { checkpoints, ...(filter && { filter }) })
    assert.deepEqual(fs.readdirSync(target), filter ? [] : ['after', 'd'])
    assert.deepEqual(marks, [512, 3 * 512])
  }
})

test('headers without end are no entry, and are not held', async (t) => {
  const { target, check } = stage(t)
  const whole = await hostile([{ name: 'a', type: 'directory', pax: { comment: 'x'.repeat(1024 * 1024) } }])
  // Without the entry itself and the two blocks at the end.
  const header = whole.subarray(0, -3 * 512)
  let taken = 0
  function* headers(): Generator<Buffer> {
    for (; taken < 200; taken++) yield header
  }
  await assert.rejects(extractTar(Readable.from(headers()), target), (error) => {
    assert.match((error as Error).message, /headers of more than 33554432 bytes/)
    return error instanceof BackupError && error.code === 'DAMAGED'
  })
  assert.ok(taken < 60, `${taken} headers were taken`)
  check()
})
