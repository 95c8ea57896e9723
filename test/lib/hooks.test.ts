import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { type HookOptions, openBackups, runHook, type ServiceWarning } from '../../lib/index.ts'
import { millrace, PASSWORD, scratch } from '../support/cli.ts'
import { overriding } from '../support/storage.ts'
import { feed, sample } from '../support/streams.ts'

const key = Buffer.alloc(32, 9)
const DATA = sample(10_000)
const hasCode = (code: string) => (error: unknown) => (error as { code: string }).code === code

async function create(hooks: HookOptions, source = feed(DATA)) {
  const storage = await openMemory()
  const backups = await openBackups({ storage, server: 'survival', key })
  const warnings: ServiceWarning[] = []
  const onWarning = (warning: unknown) => warnings.push(warning as ServiceWarning)
  const result = await backups.create(source, { hooks, onWarning }).then(
    (made) => ({ made, error: undefined }),
    (error) => ({ made: undefined, error }),
  )
  const keys = (await Array.fromAsync(storage.list(''))).map((one) => one.key)
  return { ...result, warnings, keys }
}

test('hooks run in their order, with what happened as JSON on standard input', async (t) => {
  const log = join(await scratch(t), 'log')
  const hook = `cat >> '${log}'`
  const { made } = await create({ before: hook, after: hook, failure: hook })
  const failed = await create({ before: ['sh', '-c', hook], failure: ['sh', '-c', hook] }, feed(Buffer.alloc(0)))
  assert.ok(hasCode('EMPTY_SOURCE')(failed.error))
  const lines = (await readFile(log, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    lines.map(({ event, server }) => [event, server]),
    ['before', 'after', 'before', 'failure'].map((event) => [event, 'survival']),
  )
  assert.equal(lines[1].snapshot.id, made?.id)
  assert.equal(lines[1].snapshot.destinations[0].ok, true)
  assert.equal(lines[3].error.code, 'EMPTY_SOURCE')
})

test('a before hook that fails, hangs or cannot be run stops the backup with nothing written', async () => {
  for (const [before, says] of [
    ['echo the world is not ready >&2; exit 7', /exit code 7: the world is not ready/],
    [['/nonexistent/hook'], /cannot be run/],
    ['kill -9 $$', /ended by SIGKILL/],
    ['sleep 60', /did not end within 0.2 seconds/],
  ] as const) {
    const { error, keys } = await create({ before, timeoutMs: before === 'sleep 60' ? 200 : undefined })
    assert.ok(hasCode('HOOK')(error), String(error))
    assert.match(error.message, says)
    assert.deepEqual(keys, [])
  }
})

test('a hook may have more time than a timer can wait', async () => {
  const { made, error } = await create({ before: 'sleep 0.1', timeoutMs: 30 * 86_400_000 })
  assert.ok(made, String(error))
})

test('options that cannot be used are refused before the hook, the store and the source', async (t) => {
  const folder = await scratch(t)
  const storage = await openMemory()
  const untouched = overriding(storage, { list: () => assert.fail('the store was asked') })
  const backups = await openBackups({ storage: untouched, server: 'survival', key })
  const hooks = { before: `touch '${join(folder, 'ran')}'` }
  for (const options of [{ level: 23 }, { zstdFrameBytes: 1 }, { threads: 0 }, { iterations: 1 }]) {
    await assert.rejects(backups.create(join(folder, 'missing'), { hooks, ...options }), hasCode('BAD_OPTION'))
  }
  assert.deepEqual(await readdir(folder), [])
})

test('an after hook that fails is a warning, and the snapshot stays', async () => {
  const { made, warnings, keys } = await create({ after: 'exit 1' })
  assert.equal(made?.incomplete, true)
  assert.deepEqual(
    warnings.map(({ kind }) => kind),
    ['hook'],
  )
  assert.equal(keys.length, 2)
})

test('a hook that is out of time is ended with all that it started', async (t) => {
  const file = join(await scratch(t), 'pid')
  const command = `trap '' TERM; sh -c 'echo $$ > "${file}"; sleep 60' & sleep 0.3; wait`
  const running = runHook(`(${command})`, { event: 'before', server: 's' }, { timeoutMs: 600 })
  await assert.rejects(running, hasCode('HOOK'))
  const pid = Number(await readFile(file, 'utf8'))
  // A process that has been killed may be listed until it has ended and is reaped; left alone it would sleep for long.
  let state = ' '
  for (let tries = 0; tries < 200 && !/^$|\) Z /.test(state); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    state = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  }
  assert.match(state, /^$|\) Z /)
})

test('an abort ends a before hook', async () => {
  const stop = new AbortController()
  setTimeout(() => stop.abort(), 100)
  const running = runHook('sleep 60', { event: 'before', server: 's' }, { signal: stop.signal })
  await assert.rejects(running, { name: 'AbortError' })
})

test('no secret reaches a hook, by its environment or by what it is told', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'world'), DATA)
  const hook = (name: string) => `(env; cat) > '${join(folder, name)}'`
  const env = { AWS_SECRET_ACCESS_KEY: 'a-secret-key', MY_TOKEN: 'a-secret-token', HOME: '/home/somebody' }
  const args = ['backup', join(folder, 'world'), '--to', `file://${folder}/store`, '--server', 'survival']
  const hooks = ['--hook-before', hook('before'), '--hook-after', hook('after')]
  const done = await millrace([...args, ...hooks], { env })
  assert.equal(done.code, 0, done.stderr)
  const missing = args.with(1, join(folder, 'missing'))
  const failed = await millrace([...missing, '--hook-failure', hook('failure')], { env })
  assert.notEqual(failed.code, 0)
  for (const name of ['before', 'after', 'failure']) {
    const text = await readFile(join(folder, name), 'utf8')
    assert.match(text, /HOME=\/home\/somebody/)
    assert.match(text, new RegExp(`MILLRACE_EVENT=${name}`))
    assert.doesNotMatch(text, /a-secret|MILLRACE_PASSWORD/)
    assert.ok(!text.includes(PASSWORD))
  }
  const stopped = await millrace([...args, '--hook-before', 'exit 1'])
  assert.equal(stopped.code, 1)
  const warned = await millrace([...args, '--hook-after', 'exit 1'])
  assert.equal(warned.code, 3)
})
