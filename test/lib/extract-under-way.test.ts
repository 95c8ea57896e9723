import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { pack } from 'tar-stream'
import { extractTar } from '../../lib/archive/extract.ts'
import { tempFolder } from '../support/tree.ts'

// What a restore does while something else of it is still under way in the kernel.

type Done = (error: Error | null, ...results: unknown[]) => void
type Call = (...args: unknown[]) => void

/** Puts something before a call of this process; `real` does it. */
function before(t: TestContext, call: 'open' | 'write' | 'close', act: (real: Call, args: unknown[]) => void): void {
  const real = fs[call] as unknown as Call
  t.mock.method(fs, call, (...args: unknown[]) => act(real, args))
}

async function tarOf(...entries: [name: string, content: string | Buffer][]): Promise<Buffer> {
  const tar = pack()
  for (const [name, content] of entries) tar.entry({ name, mode: 0o644, mtime: new Date(1e12) }, content)
  tar.finalize()
  return buffer(tar)
}

/** The first file is long in being made; what does not wait for it is done by then. */
function holdFirstOpen(t: TestContext): void {
  let isFirst = true
  before(t, 'open', (real, args) => {
    if (isFirst) setTimeout(() => real(...args), 50)
    else real(...args)
    isFirst = false
  })
}

test('of two files of one path the last counts, however long the first one takes', async (t) => {
  const out = tempFolder(t)
  const tar = await tarOf(['a', 'first'], ['a', 'last'])
  holdFirstOpen(t)
  await extractTar(Readable.from([tar]), out)
  assert.equal(fs.readFileSync(path.join(out, 'a'), 'utf8'), 'last')
})

test('nothing stands below a file, also while that one is being made', async (t) => {
  const out = tempFolder(t)
  const tar = await tarOf(['a', 'file'], ['a/b', 'below'])
  holdFirstOpen(t)
  await assert.rejects(extractTar(Readable.from([tar]), out), {
    code: 'UNSAFE_ARCHIVE',
    message: /a\/b stands below a, which is no folder/,
  })
  assert.equal(fs.readFileSync(path.join(out, 'a'), 'utf8'), 'file')
})

test('a mark says that files are on the disk, which are there then, however long one takes', async (t) => {
  const out = tempFolder(t)
  const tar = await tarOf(['a', 'first'], ['b', 'last'])
  holdFirstOpen(t)
  const there: boolean[] = []
  const onMark = async (_: number, entries: number) => void there.push(fs.readdirSync(out).length >= entries)
  await extractTar(Readable.from([tar]), out, { checkpoints: { everyBytes: 1, onMark } })
  assert.deepEqual(there, [true, true])
})

test('a file is not closed while it is written to: its number may be that of another one by then', async (t) => {
  const out = tempFolder(t)
  const tar = await tarOf(['large', Buffer.alloc(400_000, 1)])
  const writing: unknown[] = []
  const closedTooEarly: unknown[] = []
  before(t, 'write', (real, args) => {
    const [fd] = args
    const done = args.pop() as Done
    writing.push(fd)
    const end: Done = (...results) => {
      writing.splice(writing.indexOf(fd), 1)
      done(...results)
    }
    setTimeout(() => real(...args, end), 50)
  })
  before(t, 'close', (real, args) => {
    if (writing.includes(args[0])) closedTooEarly.push(args[0])
    real(...args)
  })
  async function* failing() {
    yield tar.subarray(0, 200_000)
    throw new Error('the source failed')
  }
  await assert.rejects(extractTar(Readable.from(failing()), out), /the source failed/)
  assert.deepEqual(closedTooEarly, [])
  assert.deepEqual(fs.readdirSync(out), [])
})

for (const [kind, bytes] of [
  ['small', 100],
  ['large', 200_000],
] as const) {
  test(`a ${kind} file that the disk refuses when it is closed fails the restore, and is not left`, async (t) => {
    const out = tempFolder(t)
    const tar = await tarOf(['file', Buffer.alloc(bytes, 1)])
    const full = Object.assign(new Error('ENOSPC: no space left on device, close'), { code: 'ENOSPC' })
    before(t, 'close', (real, args) => real(args[0], () => (args[1] as Done)(full)))
    await assert.rejects(extractTar(Readable.from([tar]), out), { code: 'TARGET', message: /file: the disk is full/ })
    assert.deepEqual(fs.readdirSync(out), [])
  })
}
