import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { millrace, scratch, startMillrace } from '../support/cli.ts'

const MANY = 3000

interface Place {
  world: string
  store: string
  at: string[]
  state: string
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const [world, store] = [join(folder, 'world'), join(folder, 'store')]
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), randomBytes(4_000_000))
  const at = ['--from', `file://${store}`, '--server', 'world', '--no-encryption']
  return { world, store, at, state: join(folder, 'state') }
}

/** Runs the command with nobody who reads what it prints. @returns its exit code. */
async function unread(args: string[], env = {}): Promise<number | null> {
  const { child, result } = startMillrace(args, { env })
  child.stdout.destroy()
  return (await result).code
}

async function storedIn(store: string): Promise<string[]> {
  const names = await readdir(join(store, 'world'))
  return names.map((name) => name.replace(/^.*Z-[0-9a-z]{4}/, '')).sort()
}

test('a backup goes on to its end when nobody reads what it says of it', async (t) => {
  const { world, store, state } = await place(t)
  // It is warned of before anything is stored.
  execFileSync('mkfifo', [join(world, 'a fifo')])
  const backup = ['backup', world, '--to', `file://${store}`, '--no-encryption']
  for (const json of [['--json'], []]) {
    assert.equal(await unread([...backup, ...json], { MILLRACE_STATE_DIR: state }), 0)
  }
  assert.deepEqual(await storedIn(store), ['.tar.zst', '.tar.zst', '.tar.zst.sha256', '.tar.zst.sha256'])
  const runs = (await readFile(join(state, 'history.jsonl'), 'utf8')).trim().split('\n')
  assert.deepEqual(
    runs.map((line) => (JSON.parse(line) as { outcome: string }).outcome),
    ['ok', 'ok'],
  )
})

test('a verification and a status have their exit codes when nobody reads what they say', async (t) => {
  const { world, store, at } = await place(t)
  assert.equal((await millrace(['backup', world, '--to', `file://${store}`, '--no-encryption'])).code, 0)
  assert.equal(await unread(['status', '--from', `file://${store}`, '--server', 'lobby', '--max-age', '1h']), 6)
  assert.equal(await unread(['verify', 'latest', ...at]), 0)
  const name = (await readdir(join(store, 'world'))).find((one) => one.endsWith('.tar.zst')) as string
  const file = join(store, 'world', name)
  const bytes = await readFile(file)
  bytes[2_000_000] = (bytes[2_000_000] as number) ^ 1
  await writeFile(file, bytes)
  assert.equal(await unread(['verify', 'latest', ...at]), 4)
})

test('a reader that has seen enough of what is printed ends it, and that is no failure', async (t) => {
  const { world, store, at } = await place(t)
  assert.equal((await millrace(['backup', world, '--to', `file://${store}`, '--no-encryption'])).code, 0)
  assert.equal(await unread(['cat', 'latest', 'level.dat', ...at]), 0)
  assert.equal(await unread(['list', ...at.slice(0, 4)]), 0)
  // More than a pipe holds: it waits for its reader, until that one goes away.
  for (let i = 0; i < MANY; i++) await writeFile(join(world, `${i}`), '')
  assert.equal((await millrace(['backup', world, '--to', `file://${store}`, '--no-encryption'])).code, 0)
  const { child, result } = startMillrace(['inspect', 'latest', '--files', ...at])
  child.stdout.once('data', () => child.stdout.destroy())
  assert.equal((await result).code, 0)
  const all = await millrace(['inspect', 'latest', '--files', ...at])
  assert.equal(all.stdout.toString().match(/^-0/gm)?.length, MANY + 1)
  assert.equal(await unread(['--help']), 0)
})
