import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { sealedSize } from '../../transforms/index.ts'
import { type CliOptions, type CliResult, millrace, PASSWORD, scratch, startMillrace } from '../support/cli.ts'
import { assertNoSecrets } from '../support/no-secrets.ts'
import { sample } from '../support/streams.ts'
import { NO_ZSTD } from '../support/tools.ts'
import { diffTrees, leftOutTree, makeTree, oddTree } from '../support/tree.ts'
import { NO_WORLDS, WORLDS } from '../support/worlds.ts'

/** Runs a command that must fail with one clear line, and no stack. */
async function fails(code: number, says: RegExp, args: readonly string[], options?: CliOptions): Promise<CliResult> {
  const result = await millrace(args, options)
  assert.equal(result.code, code, result.stderr)
  assert.match(result.stderr, says)
  assert.doesNotMatch(result.stderr, /^\s+at /m)
  assert.ok(!result.stderr.includes(PASSWORD))
  const lines = result.stderr.trim().split('\n')
  assert.equal(lines.filter((line) => !line.startsWith('Warning: ')).length, 1, result.stderr)
  return result
}

async function succeeds(args: readonly string[], options?: CliOptions): Promise<CliResult> {
  const result = await millrace(args, options)
  assert.equal(result.code, 0, result.stderr)
  return result
}

interface Place {
  folder: string
  world: string
  url: string
  store: string
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  return { folder, world, url: `file://${folder}/store`, store: join(folder, 'store') }
}

async function storedObject({ store }: Place): Promise<string> {
  const names = await readdir(join(store, 'world'))
  return join(store, 'world', names.find((name) => name.endsWith('.mlr')) as string)
}

test('a world makes the round trip with modes, times, empty folders, hard links and symlinks', async (t) => {
  const { folder, world, url } = await place(t)
  await makeTree(world, oddTree())
  await succeeds(['backup', world, '--to', url])
  await succeeds(['restore', 'latest', '--from', url, '--server', 'world', '--target', join(folder, 'out')])
  assert.deepEqual(diffTrees(world, join(folder, 'out')), [])
})

test('standard tools read what is stored: decrypt, zstd, tar and sha256sum', { skip: NO_ZSTD }, async (t) => {
  const at = await place(t)
  const { world, url, folder } = at
  await mkdir(join(world, 'region'))
  await writeFile(join(world, 'region', 'r.0.0.mca'), sample(3_000_000))
  await succeeds(['backup', world, '--to', url])
  const object = await storedObject(at)
  const zst = (await succeeds(['decrypt'], { input: await readFile(object) })).stdout
  const tar = execFileSync('zstd', ['-dc'], { input: zst, maxBuffer: 1 << 28 })
  const names = execFileSync('tar', ['t'], { input: tar }).toString()
  assert.equal(names, 'level.dat\nregion/\nregion/r.0.0.mca\n')
  assert.equal((await stat(object)).size, sealedSize(zst.length))
  assert.match(
    execFileSync('sha256sum', ['-c', `${object}.sha256`], { cwd: join(folder, 'store/world') }).toString(),
    /OK/,
  )
})

test('encrypt and decrypt are inverse pipes, and -o writes a file that is whole or absent', async (t) => {
  const folder = await scratch(t)
  const data = sample(3_000_000)
  const sealed = (await succeeds(['encrypt'], { input: data })).stdout
  assert.equal(sealed.length, sealedSize(data.length))
  assert.deepEqual((await succeeds(['decrypt'], { input: sealed })).stdout, data)
  await succeeds(['decrypt', '-o', join(folder, 'plain')], { input: sealed })
  assert.deepEqual(await readFile(join(folder, 'plain')), data)
  await rm(join(folder, 'plain'))
  await fails(4, /authentication|ends/, ['decrypt', '-o', join(folder, 'plain')], { input: sealed.subarray(0, -1) })
  assert.deepEqual(await readdir(folder), [])
})

test("the original service's layout is written and read, and nothing comes out of a damaged one", async (t) => {
  const folder = await scratch(t)
  const data = sample(500_000)
  const layout = ['--layout', 'seed']
  const sealed = (await succeeds(['encrypt', ...layout], { input: data })).stdout
  assert.equal(sealed.length, 16 + 12 + data.length + 16)
  assert.deepEqual((await succeeds(['decrypt', ...layout], { input: sealed })).stdout, data)
  sealed[1000] = (sealed[1000] as number) ^ 1
  assert.equal((await fails(4, /./, ['decrypt', ...layout], { input: sealed })).stdout.length, 0)
  await fails(4, /./, ['decrypt', ...layout, '-o', join(folder, 'out')], { input: sealed })
  assert.deepEqual(await readdir(folder), [])
  assert.equal((await fails(4, /begin with MILLRACE/, ['decrypt'], { input: sealed })).stdout.length, 0)
  await fails(2, /layout "zip"/, ['decrypt', '--layout', 'zip'], { input: sealed })
})

test('a real world makes the round trip through a folder', {
  skip: NO_WORLDS,
}, async (t) => {
  const folder = await scratch(t)
  const url = `file://${folder}/store`
  await succeeds(['backup', WORLDS, '--to', url, '--server', 'worlds'])
  await succeeds(['restore', 'latest', '--from', url, '--server', 'worlds', '--target', join(folder, 'out')])
  execFileSync('diff', ['-r', WORLDS, join(folder, 'out')])
  assert.deepEqual(diffTrees(WORLDS, join(folder, 'out')), [])
})

test('what tar, zstd and encrypt made by hand is restored whole, when its missing index is allowed', {
  skip: NO_ZSTD,
}, async (t) => {
  const { folder, world, url, store } = await place(t)
  await makeTree(join(world, 'more'), oddTree())
  const tar = execFileSync('tar', ['c', '--format=pax', '-C', world, '.'], { maxBuffer: 1 << 28 })
  const zst = execFileSync('zstd', ['-c', '--no-check'], { input: tar, maxBuffer: 1 << 28 })
  const object = (await succeeds(['encrypt'], { input: zst })).stdout
  const id = '2026-11-22T10-00-00.000Z-hand'
  await mkdir(join(store, 'world'), { recursive: true })
  await writeFile(join(store, 'world', `${id}.tar.zst.mlr`), object)
  await writeFile(join(store, 'world', `${id}.tar.zst.mlr.sha256`), createHash('sha256').update(object).digest('hex'))
  const from = ['--from', url, '--server', 'world']
  const restore = ['restore', id, ...from, '--target', join(folder, 'out')]
  await fails(4, /has no index.*\(--allow-renamed\)/, restore)
  await fails(2, /only be restored whole/, [...restore, '--allow-renamed', '--include', 'level.dat'])
  await succeeds([...restore, '--allow-renamed'])
  assert.deepEqual(diffTrees(world, join(folder, 'out'), ['mtime']), [])
  assert.match((await succeeds(['verify', id, ...from, '--allow-renamed'])).stdout.toString(), /: ok /)
})

test('list, inspect and verify, for people and as JSON', async (t) => {
  const { world, url } = await place(t)
  const from = ['--from', url, '--server', 'world']
  assert.match((await succeeds(['list', '--from', url])).stdout.toString(), /No snapshots/)
  const made = (await succeeds(['backup', world, '--to', url, '--json'])).events().at(-1)
  assert.equal(made?.event, 'snapshot')
  const list = await succeeds(['list', '--from', url], { env: { MILLRACE_PASSWORD: undefined } })
  assert.match(list.stdout.toString(), new RegExp(`world +${made?.id} +.* complete`))
  assert.equal((await succeeds(['list', ...from, '--json'])).events()[0]?.id, made?.id)
  const inspected = (await succeeds(['inspect', 'latest', ...from, '--json', '--files'])).events()
  assert.deepEqual(
    inspected.map((line) => line.event),
    ['entry', 'inspection'],
  )
  assert.match(
    (await succeeds(['inspect', 'latest', ...from])).stdout.toString(),
    /AES-256-GCM, password, 600000 iterations/,
  )
  assert.match((await succeeds(['verify', ...from])).stdout.toString(), /: ok /)
  assert.equal((await succeeds(['verify', '--quick', ...from, '--json'])).events()[0]?.status, 'ok')
})

test('T26: passwords and keys that cannot be used fail before anything is written', async (t) => {
  const at = await place(t)
  const { folder, world, url, store } = at
  const to = ['backup', world, '--to', url]
  const key = (name: string) => join(folder, name)
  await writeFile(key('short'), Buffer.alloc(31, 200))
  await writeFile(key('hex16'), '0123456789abcdef0123456789abcdef')
  await writeFile(key('empty'), '')
  const none = { env: { MILLRACE_PASSWORD: undefined } }
  await fails(2, /has 31 bytes/, [...to, '--key-file', key('short')])
  await fails(2, /32 hex digits/, [...to, '--key-file', key('hex16')])
  await fails(2, /does not exist/, [...to, '--key-file', key('absent')])
  await fails(2, /is empty/, [...to, '--password-file', key('empty')])
  await fails(2, /does not exist/, [...to, '--password-file', key('absent')])
  await fails(2, /MILLRACE_PASSWORD is set and empty/, to, { env: { MILLRACE_PASSWORD: '' } })
  await fails(2, /No password was given/, to, none)
  await fails(2, /not both/, [...to, '--key-file', key('short'), '--password-file', key('empty')])
  assert.ok(!existsSync(store))

  for (const [name, content] of [
    ['hex', `${'ab'.repeat(32)}\n`],
    ['base64', Buffer.alloc(32, 0xab).toString('base64')],
    ['raw', Buffer.alloc(32, 0xab)],
  ] as const) {
    await writeFile(key(name), content)
    await writeFile(key('raw'), Buffer.alloc(32, 0xab))
    await succeeds([...to, '--key-file', key(name)], none)
    await succeeds(['verify', '--from', url, '--server', 'world', '--key-file', key('raw')], none)
  }
})

test('T26: a wrong password is told, with exit code 4, and nothing is restored', async (t) => {
  const { folder, world, url } = await place(t)
  await succeeds(['backup', world, '--to', url])
  const from = ['--from', url, '--server', 'world']
  const wrong = { env: { MILLRACE_PASSWORD: 'guess' } }
  await fails(4, /Wrong password/, ['restore', 'latest', ...from, '--target', join(folder, 'out')], wrong)
  await fails(4, /Wrong password/, ['verify', ...from], wrong)
  await fails(4, /Wrong password/, ['inspect', 'latest', ...from], wrong)
  assert.deepEqual((await readdir(folder)).sort(), ['store', 'world'])
})

test('a password can be changed: several are tried for reading, in order', async (t) => {
  const { folder, world, url } = await place(t)
  const none = { env: { MILLRACE_PASSWORD: undefined } }
  const old = ['--password-file', join(folder, 'old')]
  const now = ['--password-file', join(folder, 'now')]
  await writeFile(join(folder, 'old'), 'the old one\n')
  await writeFile(join(folder, 'now'), 'the new one\n')
  const made = (await succeeds(['backup', world, '--to', url, '--json', ...old], none)).events().at(-1)
  await succeeds(['backup', world, '--to', url, ...now], none)
  const from = ['--from', url, '--server', 'world']
  await fails(4, /Wrong password/, ['verify', made?.id as string, ...from, ...now], none)
  await succeeds(['verify', made?.id as string, ...from, ...now, ...old], none)
  await succeeds(['verify', 'latest', ...from, ...now, ...old], none)
  await fails(2, /not both or several/, ['backup', world, '--to', url, ...now, ...old], none)
})

test('T5: an empty source is refused with exit code 5', async (t) => {
  const { folder, url, store } = await place(t)
  await mkdir(join(folder, 'empty'))
  await fails(5, /is empty.*\(--allow-empty\)/, ['backup', join(folder, 'empty'), '--to', url])
  assert.ok(!existsSync(store))
  await succeeds(['backup', join(folder, 'empty'), '--to', url, '--allow-empty'])
})

test('T4: a source that dies half-way leaves nothing', async (t) => {
  const { folder, url } = await place(t)
  const command = ['backup', '--to', url, '--server', 'db', '--from-command', '--', 'sh', '-c']
  await fails(1, /exit code 3/, [...command, 'head -c 30000000 /dev/urandom; exit 3'])
  await fails(1, /SIGKILL/, [...command, 'head -c 30000000 /dev/urandom; kill -9 $$'])
  assert.deepEqual(await leftovers(join(folder, 'store')), [])
  const made = await succeeds([...command, 'echo dump'])
  assert.match(made.stdout.toString(), /Backed up the stream of db/)
})

test('a source command that is interrupted is not waited for, nor is what it has started', {
  timeout: 60_000,
}, async (t) => {
  const { folder, url } = await place(t)
  const begun = join(folder, 'begun')
  // The shell ends at the signal, and what it runs has its output for much longer.
  const command = ['sh', '-c', 'echo x; touch "$1"; sleep 90; true', 'sh', begun]
  const { child, result } = startMillrace(['backup', '--to', url, '--server', 'db', '--from-command', '--', ...command])
  while (!existsSync(begun)) await new Promise((resolve) => setTimeout(resolve, 50))
  child.kill('SIGTERM')
  const { code, stderr } = await result
  assert.equal(code, 143, stderr)
})

test('T24: a target that is not empty is refused with exit code 5', async (t) => {
  const { folder, world, url } = await place(t)
  await succeeds(['backup', world, '--to', url])
  const out = join(folder, 'out')
  await mkdir(out)
  await writeFile(join(out, 'mine'), 'mine')
  const restore = ['restore', 'latest', '--from', url, '--server', 'world', '--target', out]
  await fails(5, /is not empty.*\(--overwrite\).*\(--merge\)/, restore)
  assert.equal((await readFile(join(out, 'mine'))).toString(), 'mine')
  await fails(5, /is a file/, [...restore.slice(0, -1), join(out, 'mine')])
  await succeeds([...restore, '--overwrite'])
  assert.deepEqual(await readdir(out), ['level.dat'])
  assert.deepEqual((await readdir(folder)).sort(), ['out', 'store', 'world'])
})

test('bad input is told in a sentence', async (t) => {
  const { folder, world, url, store } = await place(t)
  await fails(1, /does not exist/, ['backup', join(folder, 'absent'), '--to', url])
  await fails(1, /neither a folder nor a file/, ['backup', '/dev/null', '--to', url, '--server', 'x'])
  for (const server of ['a/b', '..', '../x', 'World', '']) {
    await fails(2, /server name|server's name/, ['backup', world, '--to', url, '--server', server])
  }
  await fails(2, /scheme ftp/, ['backup', world, '--to', 'ftp://host/x'])
  await fails(2, /URL|scheme/, ['backup', world, '--to', 'not a url'])
  await fails(2, /: level must be a whole number from 1 to 22\.\n$/, ['backup', world, '--to', url, '--level', 'nine'])
  await fails(2, /level is 23/, ['backup', world, '--to', url, '--level', '23'])
  await fails(1, /no snapshot/, [
    'restore',
    'latest',
    '--from',
    url,
    '--server',
    'world',
    '--target',
    join(folder, 'out'),
  ])
  await fails(2, /unknown command/, ['frobnicate'])
  await fails(2, /required option/, ['backup', world])
  assert.ok(!existsSync(store))
})

test('a relative folder and a symlink to one are backed up', async (t) => {
  const { folder, world, url } = await place(t)
  await succeeds(['backup', 'world', '--to', url], { cwd: folder })
  await symlink(world, join(folder, 'current'))
  await succeeds(['backup', join(folder, 'current'), '--to', url])
  await succeeds(['restore', 'latest', '--from', url, '--server', 'current', '--target', join(folder, 'out')])
  assert.deepEqual(diffTrees(world, join(folder, 'out')), [])
})

test('what cannot be stored is named: exit 3 for names and unreadable files, 0 for sockets and fifos', async (t) => {
  const { folder, world, url } = await place(t)
  await makeTree(join(folder, 'special'), [
    { path: 'level.dat', type: 'file', content: 'x' },
    { path: 'pipe', type: 'fifo' },
    { path: 'socket', type: 'socket' },
  ])
  const special = await succeeds(['backup', join(folder, 'special'), '--to', url])
  assert.match(special.stderr, /Warning: .*pipe/)
  assert.match(special.stderr, /Warning: .*socket/)
  assert.match(special.stdout.toString(), /left out: 2 sockets, fifos or devices/)

  await makeTree(world, leftOutTree())
  const left = await millrace(['backup', world, '--to', url, '--json'])
  assert.equal(left.code, 3, left.stderr)
  const warnings = left.events().filter((line) => line.event === 'warning')
  assert.ok(warnings.some((line) => line.kind === 'name'))
  assert.equal(left.events().at(-1)?.incomplete, true)
  await succeeds(['restore', 'latest', '--from', url, '--server', 'world', '--target', join(folder, 'out')])
  assert.deepEqual(await readFile(join(folder, 'out/level.dat')), await readFile(join(world, 'level.dat')))
})

test('a file that may not be read is left out with exit code 3, a folder that may not be with 1', async (t) => {
  const { folder, world, url } = await place(t)
  await writeFile(join(world, 'secret'), 'x', { mode: 0 })
  await chmod(folder, 0o777)
  await chmod(join(folder, '..'), 0o1777)
  const left = await asNobody(['backup', world, '--to', url])
  assert.equal(left.code, 3, left.stderr)
  assert.match(left.stderr, /Warning: .*secret/)
  await chmod(world, 0)
  const refused = await asNobody(['backup', world, '--to', url])
  assert.equal(refused.code, 1, refused.stderr)
  assert.match(refused.stderr, /millrace: .*world/)
  await chmod(world, 0o755)
})

test('SIGINT aborts cleanly and says so', async (t) => {
  const { folder, url } = await place(t)
  const args = ['backup', '--to', url, '--server', 'db', '--from-command', '--', 'cat', '/dev/zero']
  const { child, result } = startMillrace(args)
  while (!existsSync(join(folder, 'store'))) await new Promise((resolve) => setTimeout(resolve, 20))
  child.kill('SIGINT')
  const { code, stderr } = await result
  assert.equal(code, 130, stderr)
  assert.match(stderr, /Interrupted\. Nothing unfinished was left behind/)
  assert.ok(!existsSync(join(folder, 'store')))
})

async function leftovers(folder: string): Promise<string[]> {
  return existsSync(folder) ? readdir(folder, { recursive: true }) : []
}

/** The command as a user who is not root, whom a mode of 0 keeps out. */
function asNobody(args: readonly string[]): Promise<{ code: number | null; stderr: string }> {
  const root = process.getuid?.() === 0
  const script = `
    ${root ? 'process.setgroups([]); process.setgid(65534); process.setuid(65534)' : ''}
    const { main } = await import(${JSON.stringify(join(import.meta.dirname, '../../lib/cli/main.ts'))})
    process.exitCode = await main(${JSON.stringify(args)})
  `
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, MILLRACE_PASSWORD: PASSWORD },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  return new Promise((resolve, reject) => {
    child.on('close', (code) => {
      try {
        assertNoSecrets(stderr, { args, env: { MILLRACE_PASSWORD: PASSWORD } })
        resolve({ code, stderr })
      } catch (error) {
        reject(error)
      }
    })
  })
}

test('check tries every right, timed, leaves nothing, and fails where one is missing', async (t) => {
  const { folder, url, store } = await place(t)
  const good = await succeeds(['check', '--to', url])
  assert.match(good.stdout.toString(), /write +ok[\s\S]*Everything that a backup needs works/)
  assert.deepEqual(existsSync(store) ? await readdir(store) : [], [])
  const [event] = (await succeeds(['check', '--to', url, '--json'])).events()
  assert.equal(event?.event, 'check')
  assert.equal(event?.ok, true)
  await writeFile(join(folder, 'a-file'), '')
  const bad = await millrace(['check', '--to', `file://${folder}/a-file`])
  assert.equal(bad.code, 1)
  assert.match(bad.stdout.toString(), /write +FAILED .*in the way[\s\S]*A backup would not work/)
})
