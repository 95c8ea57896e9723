import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, globSync, readFileSync } from 'node:fs'
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { describe, type TestContext, test } from 'node:test'
import { unseal } from '../../transforms/index.ts'
import { scratch } from '../support/cli.ts'

const EXAMPLES = join(import.meta.dirname, '../../examples')
const PASSWORD = 'an example password'

/** What a program printed, by its headings. */
type Output = Map<string, string[]>

/**
 * Runs an example as a process of its own, and holds it to exit code 0 and to nothing on standard error.
 * @param folder where it works, which stays; undefined: a temporary one, of which nothing may be left.
 */
async function example(t: TestContext, name: string, folder?: string): Promise<Output> {
  const temporary = join(await scratch(t), 'tmp')
  await mkdir(temporary)
  const child = spawn(process.execPath, [join(EXAMPLES, 'run.ts'), name, ...(folder ? [folder] : [])], {
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const closed = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr] = (await Promise.all([buffer(child.stdout), buffer(child.stderr)])).map(String)
  assert.equal(await closed, 0, stderr)
  assert.equal(stderr, '')
  assert.deepEqual(await readdir(temporary), [], 'something is left in the temporary folder')
  const output: Output = new Map()
  let last: string[] = []
  for (const line of (stdout as string).trimEnd().split('\n')) {
    const [, what, text] = /^(\S[^:]*):\s+(.*)$/.exec(line) ?? []
    if (what === undefined) {
      last.push(`${last.pop()}\n${line.trim()}`)
      continue
    }
    last = output.get(what) ?? []
    last.push(text as string)
    output.set(what, last)
  }
  return output
}

function said(output: Output, what: string): string {
  const lines = output.get(what)
  assert.equal(lines?.length, 1, `${what} is not said once: ${lines}`)
  return (lines as string[])[0] as string
}

/** All `1,234 bytes` of a text. */
function bytesIn(text: string): number[] {
  return [...text.matchAll(/([\d,]+) bytes/g)].map((match) => Number((match[1] as string).replaceAll(',', '')))
}

async function sha256(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}

async function assertSame(path: string, other: string): Promise<void> {
  assert.equal(await sha256(path), await sha256(other), `${path} differs from ${other}`)
}

async function assertOpens(object: string, source: string): Promise<void> {
  const plain = await buffer(createReadStream(object).pipe(unseal({ password: PASSWORD })))
  assert.ok(plain.equals(await readFile(source)), `${object} does not hold ${source}`)
}

describe('the examples', { concurrency: 2 }, () => {
  test('pipe-by-hand: what is stored opens, what came back is the same, a guess gives no plaintext', async (t) => {
    const folder = await scratch(t)
    const output = await example(t, 'pipe-by-hand', folder)
    const source = join(folder, 'world/region/r.0.0.mca')
    const object = join(folder, 'store/survival/r.0.0.mca.zst.mlr')
    assert.deepEqual(bytesIn(said(output, 'Stored')), [(await stat(source)).size, (await stat(object)).size])
    assert.equal(said(output, 'SHA-256'), await sha256(object))
    await assertOpens(object, source)
    await assertSame(join(folder, 'r.0.0.mca'), source)
    assert.match(said(output, 'A guess'), /^WRONG_KEY: /)
    assert.match(said(output, 'No object'), /^NOT_FOUND: /)
    for (const name of ['guessed', 'nothing']) {
      const file = await readFile(join(folder, name)).catch(() => Buffer.alloc(0))
      assert.equal(file.length, 0)
    }
  })

  test('custom-transform: the list holds, the damaged block is found and repaired, the world is restored', async (t) => {
    const folder = await scratch(t)
    const output = await example(t, 'custom-transform', folder)
    const source = join(folder, 'world/region/r.0.0.mca')
    const [near, far] = ['near', 'far'].map((name) => join(folder, name, 'survival/world.zst.mlr')) as [string, string]
    const object = await readFile(near)
    let end = 0
    for (const line of (await readFile(`${near}.blocks`, 'utf8')).trimEnd().split('\n')) {
      const [offset, bytes, digest] = line.split(' ')
      assert.equal(Number(offset), end)
      end += Number(bytes)
      assert.equal(
        digest,
        createHash('sha256')
          .update(object.subarray(Number(offset), end))
          .digest('hex'),
      )
    }
    assert.equal(end, object.length)
    await assertSame(near, far)
    await assertOpens(near, source)
    await assertSame(join(folder, 'r.0.0.mca'), source)

    const flipped = Number(/byte (\d+)/.exec(said(output, 'Damaged'))?.[1])
    const [bytes] = bytesIn(said(output, 'Found')) as [number]
    const offset = Number(/byte (\d+)/.exec(said(output, 'Found'))?.[1])
    assert.ok(offset <= flipped && flipped < offset + bytes)
    assert.deepEqual(bytesIn(said(output, 'Repaired')), [bytes])
    assert.ok(bytes < object.length / 2)
  })

  test('T28: fan-out: two destinations have it whole, the third has failed half-way, each has its status', async (t) => {
    const folder = await scratch(t)
    const output = await example(t, 'fan-out', folder)
    const [size] = bytesIn(said(output, 'Sent')) as [number]
    const digest = /SHA-256 (\w+)/.exec(said(output, 'Sent'))?.[1]
    for (const name of ['disk', 'usb']) {
      const object = join(folder, name, 'survival/r.0.0.mca.zst.mlr')
      assert.match(said(output, name), /^finished/)
      assert.deepEqual(bytesIn(said(output, name)), [size])
      assert.equal((await stat(object)).size, size)
      assert.equal(await sha256(object), digest)
      await assertOpens(object, join(folder, 'world/region/r.0.0.mca'))
    }
    assert.match(
      said(output, 'program'),
      /^failed, .*: (write EPIPE|.*ECONNRESET|The destination was closed before it had taken everything\.)$/,
    )
    const [taken] = bytesIn(said(output, 'program')) as [number]
    assert.ok(taken > 0 && taken < size)
    assert.match(said(output, 'All or none'), /program failed/)
    assert.equal(said(output, 'Left of it'), 'nothing')
    assert.deepEqual(globSync('{disk,usb}/**/*second*', { cwd: folder }), [])
  })

  test('one-file-by-ranges: the files are right, and what was read is counted and is a part of the object', async (t) => {
    const folder = await scratch(t)
    const output = await example(t, 'one-file-by-ranges', folder)
    const [object] = globSync('store/survival/*.mlr', { cwd: folder })
    const { size } = await stat(join(folder, object as string))
    assert.equal(bytesIn(said(output, 'Stored'))[1], size)
    const lines = output.get('Read') ?? []
    assert.equal(lines.length, 3)
    for (const line of lines) {
      const [, read, of] = bytesIn(line) as [number, number, number]
      assert.equal(of, size)
      assert.ok(read > 0 && read < size / 3, line)
    }
    const whole = (await stat(join(folder, 'world/region/r.0.0.mca'))).size
    assert.equal(bytesIn(lines[1] as string)[0], whole)
    assert.deepEqual(filesIn(join(folder, 'restored')), ['level.dat', 'playerdata/7/player_7.json'])
    for (const path of ['level.dat', 'playerdata/7/player_7.json']) {
      await assertSame(join(folder, 'restored', path), join(folder, 'world', path))
    }
  })

  test('progress-and-events: the last report is the whole, each operation is told, an abort leaves nothing', async (t) => {
    const folder = await scratch(t)
    const output = await example(t, 'progress-and-events', folder)
    const snapshot = said(output, 'Snapshot')
    const id = snapshot.split(': ')[0] as string
    const [bytes, storedBytes] = bytesIn(snapshot) as [number, number]
    const objects = globSync('store/survival/*.mlr', { cwd: folder })
    assert.deepEqual(objects, [`store/survival/${id}.tar.zst.mlr`])
    assert.equal((await stat(join(folder, objects[0] as string))).size, storedBytes)
    for (const [what, total] of [
      ['Progress', bytes],
      ['Verifying', storedBytes],
      ['Restoring', storedBytes],
    ] as const) {
      const reports = (output.get(what) ?? []).map((line) => bytesIn(line)[0] as number)
      assert.deepEqual(
        reports,
        reports.toSorted((a, b) => a - b),
      )
      assert.equal(reports.at(-1), total, what)
    }
    assert.match(said(output, 'Warning'), /^special console: /)
    assert.equal(said(output, 'Hook'), `told of ${id}`)
    assert.equal(said(output, 'Verified'), 'ok')
    assert.match(said(output, 'Aborted'), /^AbortError; snapshots in the store: 1$/)
    assert.match(said(output, 'Refused'), /^TARGET: /)
    const writes = (output.get('Store') ?? []).filter((line) => line.startsWith('createWriteStream'))
    assert.equal(writes.length, 3)
    const [object, companion, endless] = writes as [string, string, string]
    assert.ok(
      object.startsWith(`createWriteStream survival/${id}.tar.zst.mlr, `) && object.includes(': ok in '),
      object,
    )
    assert.match(companion, /\.tar\.zst\.mlr\.sha256, 108 bytes: ok in /)
    assert.match(endless, /\.zst\.mlr(, [\d,]+ bytes)?: aborted in /)
    assert.equal(bytesIn(object)[0], storedBytes)

    const [world, restored] = [join(folder, 'world'), join(folder, 'restored')]
    const files = filesIn(world).filter((path) => path !== 'console')
    assert.deepEqual(filesIn(restored), files)
    assert.equal(Number(/^(\d+) files/.exec(said(output, 'Restored'))?.[1]), files.length)
    for (const path of files) await assertSame(join(restored, path), join(world, path))
  })

  test('without a folder they work in a temporary one, and leave nothing', async (t) => {
    assert.match(said(await example(t, 'pipe-by-hand'), 'Stored'), /millrace-example-/)
  })

  test('import what a package has: the entry points, Node, and one another', () => {
    for (const path of globSync('*.ts', { cwd: EXAMPLES })) {
      if (path === 'demo.ts') continue
      for (const [, from] of readFileSync(join(EXAMPLES, path), 'utf8').matchAll(/^(?:import|\}).* from '(.+)'$/gm)) {
        assert.match(
          from as string,
          /^(node:.+|\.\/.+|\.\.\/(lib|transforms|adapters)\/index\.ts|\.\.\/bench\/world\.ts)$/,
          path,
        )
      }
    }
  })

  test('each has a line in the README, and that names no other', () => {
    const readme = readFileSync(join(EXAMPLES, 'README.md'), 'utf8')
    const named = [...readme.matchAll(/^\| \[`(.+?)`\]\((.+?)\)/gm)].map(([, name, path]) => [name, path])
    const programs = globSync('*.ts', { cwd: EXAMPLES }).filter(
      (path) => !/^(support|run)\.ts$|-client\.ts$/.test(path),
    )
    assert.deepEqual(named.map(([, path]) => path).sort(), programs.sort())
    for (const [name, path] of named) assert.equal(`${name}.ts`, path)
  })
})

/** Everything in a folder that is no folder, by its path. */
function filesIn(folder: string): string[] {
  return globSync('**', { cwd: folder, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
}
