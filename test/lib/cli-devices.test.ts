import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { lstatSync } from 'node:fs'
import { open, readFile, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isWrittenInPlace, replaceFile } from '../../lib/replace-file.ts'
import { BIN, millrace, PASSWORD, scratch } from '../support/cli.ts'
import { sample } from '../support/streams.ts'

const DATA = sample(3 << 20)

/** A disk that is a file; what cannot be had everywhere. */
function loopOf(file: string): string | undefined {
  try {
    return execFileSync('losetup', ['-f', '--show', file], { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim()
  } catch {
    return undefined
  }
}

/** Runs the command with standard input from and output to what these paths name. */
async function between(from: string, to: string, args: string[]): Promise<{ code: number | null; stderr: string }> {
  const [input, output] = [await open(from, 'r'), await open(to, 'w')]
  const env = { ...process.env, MILLRACE_PASSWORD: PASSWORD }
  const child = spawn(process.execPath, [BIN, ...args], { env, stdio: [input.fd, output.fd, 'pipe'] })
  let stderr = ''
  child.stderr?.on('data', (text) => (stderr += text))
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  await Promise.all([input.close(), output.close()])
  return { code, stderr }
}

test('encrypt, decrypt and cat take a disk as standard input and output, and say when it is too small', async (t) => {
  const folder = await scratch(t)
  const at = (name: string) => join(folder, name)
  await writeFile(at('disk'), DATA)
  await writeFile(at('out'), '')
  await truncate(at('out'), DATA.length)
  await writeFile(at('short'), '')
  await truncate(at('short'), 1 << 20)
  const [disk, out, short] = [loopOf(at('disk')), loopOf(at('out')), loopOf(at('short'))]
  t.after(() => {
    for (const one of [disk, out, short]) if (one) execFileSync('losetup', ['-d', one])
  })
  if (!disk || !out || !short) return t.skip('no loop devices here')
  assert.deepEqual(await between(disk, at('sealed'), ['encrypt']), { code: 0, stderr: '' })
  assert.ok((await millrace(['decrypt'], { input: await readFile(at('sealed')) })).stdout.equals(DATA))
  assert.deepEqual(await between(at('sealed'), out, ['decrypt']), { code: 0, stderr: '' })
  assert.ok((await readFile(out)).equals(DATA))
  assert.equal((await millrace(['backup', at('disk'), '--to', `file://${folder}/store`])).code, 0)
  await writeFile(out, Buffer.alloc(DATA.length))
  const cat = ['cat', 'latest', '--from', `file://${folder}/store`, '--server', 'disk']
  assert.deepEqual(await between('/dev/null', out, cat), { code: 0, stderr: '' })
  assert.ok((await readFile(out)).equals(DATA))
  for (const args of [['decrypt'], cat]) {
    const { code, stderr } = await between(at('sealed'), short, args)
    assert.equal(code, 1)
    assert.match(stderr, /no space/)
  }
})

test('a folder as standard input is an error, and not nothing', async (t) => {
  const folder = await scratch(t)
  const { code, stderr } = await between(folder, join(folder, 'sealed'), ['encrypt'])
  assert.equal(code, 1)
  assert.match(stderr, /EISDIR/)
})

async function fifo(t: TestContext): Promise<{ path: string; content: () => Promise<Buffer> }> {
  const path = join(await scratch(t), 'fifo')
  execFileSync('mkfifo', [path])
  const reader = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => reader.kill())
  const content = Array.fromAsync(reader.stdout as AsyncIterable<Buffer>).then((chunks) => Buffer.concat(chunks))
  return { path, content: () => content }
}

test('-o of a pipe or of /dev/stdout writes to it, and puts no file in its place', async (t) => {
  const sealed = (await millrace(['encrypt'], { input: DATA })).stdout
  const { path, content } = await fifo(t)
  const { code, stderr } = await millrace(['decrypt', '-o', path], { input: sealed })
  assert.equal(code, 0, stderr)
  assert.ok(lstatSync(path).isFIFO())
  assert.ok((await content()).equals(DATA))
  // What root would have lost is not tried on the real one.
  if (process.getuid?.() === 0) return
  assert.ok((await millrace(['decrypt', '-o', '/dev/stdout'], { input: sealed })).stdout.equals(DATA))
})

test('what is written in place is a device, a pipe, or a file by the name of a descriptor', async (t) => {
  const folder = await scratch(t)
  const [file, link] = [join(folder, 'file'), join(folder, 'link')]
  const handle = await open(file, 'w')
  await symlink(file, link)
  try {
    assert.ok(await isWrittenInPlace(`/proc/self/fd/${handle.fd}`))
    assert.ok(await isWrittenInPlace('/dev/null'))
    for (const path of [file, link, folder, join(folder, 'none')]) assert.ok(!(await isWrittenInPlace(path)), path)
  } finally {
    await handle.close()
  }
})

test('a report or sheet that goes to a pipe puts no file in its place', async (t) => {
  const { path, content } = await fifo(t)
  await replaceFile(path, 'text', { mode: 0o600, what: 'The report' })
  assert.ok(lstatSync(path).isFIFO())
  assert.equal((await content()).toString(), 'text')
})

test('a restore puts no file or folder in the place of a pipe or device, nor by a symlink', async (t) => {
  const folder = await scratch(t)
  const [file, pipe, link] = [join(folder, 'image'), join(folder, 'pipe'), join(folder, 'link')]
  await writeFile(file, 'image')
  execFileSync('mkfifo', [pipe])
  await symlink(pipe, link)
  const from = ['--from', `file://${folder}/store`, '--server', 'image']
  assert.equal((await millrace(['backup', file, '--to', `file://${folder}/store`])).code, 0)
  for (const target of [pipe, link]) {
    const { code, stderr } = await millrace(['restore', 'latest', ...from, '--target', target, '--overwrite'])
    assert.equal(code, 5, stderr)
    assert.match(stderr, /pipe is a device, pipe or socket/)
  }
  assert.ok(lstatSync(pipe).isFIFO())
})
