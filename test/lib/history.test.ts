import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Output } from '../../lib/cli/output.ts'
import { type RecordedInvocation, recorded } from '../../lib/cli/recording.ts'
import { BackupError } from '../../lib/errors.ts'
import { type RecordedRun, type RunRecord, readRuns, recordRun } from '../../lib/history.ts'
import { childPath } from '../support/children.ts'
import { millrace, PASSWORD, scratch, startMillrace } from '../support/cli.ts'
import { sample } from '../support/streams.ts'

const RUN: RunRecord = {
  at: '2026-11-20T10:00:00.000Z',
  command: 'backup',
  server: 'survival',
  outcome: 'ok',
  exitCode: 0,
  id: '2026-11-20T09-59-00.000Z-k3f9',
  destinations: [{ destination: 'file:///mnt/backups', ok: true }],
  bytes: 1000,
  storedBytes: 500,
  elapsedMs: 60_000,
  files: 3,
  consistency: 'quiesced',
}

const runsIn = (folder: string, options = {}): Promise<RecordedRun[]> => Array.fromAsync(readRuns(folder, options))
const logOf = (folder: string) => readFile(join(folder, 'history.jsonl'), 'utf8')

test('a run is read back as it was recorded, by server and by time, the newest last', async (t) => {
  const folder = join(await scratch(t), 'not', 'there')
  assert.deepEqual(await runsIn(folder), [])
  await recordRun(folder, RUN)
  const failed = { code: 'SOURCE', message: 'The source "/srv" is not there.' }
  const second: RunRecord = {
    ...{ at: '2026-11-21T10:00:00.000Z', command: 'prune', server: 'lobby', outcome: 'failed', exitCode: 1 },
    ...{ elapsedMs: 5, removed: 2, error: failed },
  }
  await recordRun(folder, second)
  assert.deepEqual(await runsIn(folder), [
    { v: 1, ...RUN },
    { v: 1, ...second },
  ])
  assert.deepEqual(await runsIn(folder, { server: 'lobby' }), [{ v: 1, ...second }])
  assert.deepEqual(await runsIn(folder, { since: new Date('2026-11-20T10:00:00.001Z') }), [{ v: 1, ...second }])
})

test('what JSON leaves as it is ends no line: U+2028 in a message or in a folder’s name', async (t) => {
  const folder = await scratch(t)
  for (const text of ['a\u2028b', 'a\u2029b', 'a\u0085b', 'a\r\nb']) {
    const error = { code: 'HOOK', message: text }
    const run: RunRecord = { ...RUN, destinations: [{ destination: `file:///${text}`, ok: false }], error }
    await recordRun(folder, run)
    assert.deepEqual((await runsIn(folder)).at(-1), { v: 1, ...run })
  }
  assert.equal((await runsIn(folder)).length, 4)
})

test('the log and its folder are for their owner alone, and only known fields get in', async (t) => {
  const folder = join(await scratch(t), 'state')
  const credentials = {
    password: 'hunter2',
    destinations: [{ destination: 'memory:', ok: true, secretKey: 'hunter2' }],
  }
  await recordRun(folder, { ...RUN, ...credentials } as RunRecord)
  assert.equal((await stat(join(folder, 'history.jsonl'))).mode & 0o777, 0o600)
  assert.equal((await stat(folder)).mode & 0o777, 0o700)
  assert.doesNotMatch(await logOf(folder), /hunter2|password|secretKey/)
})

test('torn and foreign lines are skipped, and the next run is on a line of its own', async (t) => {
  const folder = await scratch(t)
  await recordRun(folder, RUN)
  const foreign = [
    '{"v":2}',
    'null',
    '[]',
    'not JSON',
    '{"v":1,"command":"backup"}',
    JSON.stringify({ ...RUN, v: 1, at: 'never' }),
  ]
  const strange = [{ destinations: [null] }, { error: 'text' }, { bytes: -1 }, { id: 7 }, { outcome: 'constructor' }]
  const lines = [...foreign, ...strange.map((one) => JSON.stringify({ v: 1, ...RUN, ...one }))]
  await appendFile(join(folder, 'history.jsonl'), `${lines.join('\n')}\n{"v":1,"at":"2026-11-2`)
  assert.equal((await runsIn(folder)).length, 1)
  await recordRun(folder, { ...RUN, server: 'next' })
  assert.deepEqual(
    (await runsIn(folder)).map(({ server }) => server),
    ['survival', 'next'],
  )
})

test('several processes at once lose no run, while the log is put aside again and again', async (t) => {
  const folder = await scratch(t)
  const processes = 4
  const each = 100
  const child = childPath('history')
  const children = Array.from({ length: processes }, (_, index) =>
    fork(child, [folder, String(index), String(each)], { stdio: 'inherit' }),
  )
  for (const [code] of await Promise.all(children.map((one) => once(one, 'exit')))) assert.equal(code, 0)
  const names = await readdir(folder)
  assert.ok(names.filter((name) => name !== 'history.jsonl').length > 1, names.join(' '))
  const runs = await runsIn(folder)
  const servers = runs.map(({ server }) => server).sort()
  const wanted = Array.from({ length: processes * each }, (_, n) => `p${Math.floor(n / each)}-${n % each}`).sort()
  assert.deepEqual(servers, wanted)
})

test('the log stays within its bounds, and the newest runs are the ones that stay', async (t) => {
  const folder = await scratch(t)
  for (let n = 0; n < 200; n += 1) {
    await recordRun(folder, { ...RUN, server: `s${n}` }, { fileBytes: 2000, totalBytes: 9000 })
  }
  let total = 0
  for (const name of await readdir(folder)) total += (await stat(join(folder, name))).size
  assert.ok(total < 9000 + 3000, String(total))
  const numbers = (await runsIn(folder)).map(({ server }) => Number(server.slice(1)))
  assert.equal(numbers.at(-1), 199)
  assert.ok(numbers.length > 15, String(numbers.length))
  assert.deepEqual(
    numbers,
    Array.from({ length: numbers.length }, (_, n) => 200 - numbers.length + n),
  )
})

test('a log that is put aside while it is read is read once', async (t) => {
  const folder = await scratch(t)
  for (const server of ['a', 'b']) await recordRun(folder, { ...RUN, server })
  const reading = readRuns(folder)
  const first = await reading.next()
  await recordRun(folder, { ...RUN, server: 'c' }, { fileBytes: 1 })
  const rest = await Array.fromAsync(reading)
  assert.equal(first.value?.server, 'a')
  const servers = rest.map(({ server }) => server)
  assert.deepEqual(servers.slice(0, 1), ['b'])
  assert.ok(servers.length <= 2)
})

// ---- the command

interface Place {
  folder: string
  world: string
  to: string[]
  from: string[]
  state: string
  env: NodeJS.ProcessEnv
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const state = join(folder, 'state')
  const url = `file://${folder}/store`
  const from = ['--from', url, '--server', 'world']
  return { folder, world, to: ['--to', url, '--server', 'world'], from, state, env: { MILLRACE_STATE_DIR: state } }
}

test('backup, verify, restore and prune record what came of them, and history shows it', async (t) => {
  const { folder, world, to, from, state, env } = await place(t)
  for (const [code, args] of [
    [0, ['backup', world, ...to, '--prune', '--keep-last', '1']],
    [0, ['restore', 'latest', ...from, '--target', join(folder, 'out')]],
    [0, ['prune', ...from, '--dry-run']],
    [0, ['prune', ...from]],
    [4, ['verify', ...from]],
    [3, ['backup', world, ...to]],
  ] as [number, string[]][]) {
    const wrong = code === 4 ? { MILLRACE_PASSWORD: 'another one' } : {}
    if (code === 3) await writeFile(Buffer.concat([Buffer.from(`${world}/`), Buffer.from([0xff])]), 'no UTF-8')
    const result = await millrace(args, { env: { ...env, ...wrong } })
    assert.equal(result.code, code, `${args.join(' ')}\n${result.stdout}${result.stderr}`)
  }
  const runs = await runsIn(state)
  assert.deepEqual(
    runs.map(({ command, outcome, exitCode }) => [command, outcome, exitCode]),
    [
      ['backup', 'ok', 0],
      ['restore', 'ok', 0],
      ['prune', 'ok', 0],
      ['verify', 'failed', 4],
      ['backup', 'incomplete', 3],
    ],
  )
  const [made, restored] = runs as [RecordedRun, RecordedRun]
  assert.equal(made.server, 'world')
  assert.ok((made.bytes ?? 0) > 5000 && made.files === 1 && made.consistency === 'live' && made.removed === 0)
  assert.deepEqual(made.destinations, [{ destination: `file://${folder}/store`, ok: true }])
  assert.match(made.id ?? '', /^\d{4}-/)
  assert.equal(restored.id, made.id)
  assert.equal(runs[3]?.error?.code, 'WRONG_KEY')
  assert.deepEqual(runs[4]?.error, { code: 'INCOMPLETE', message: 'left out: 1 name not in UTF-8.' })
  const shown = (await millrace(['history', '--last', '4'], { env })).stdout.toString()
  assert.match(shown, /^ENDED \(UTC\) +SERVER +COMMAND +OUTCOME/)
  assert.match(shown, /world +verify +failed \(4\)/)
  assert.match(shown, /world +backup +incomplete \(3\).* left out: 1 name not in UTF-8/)
  assert.doesNotMatch(shown, / backup +ok /)
})

/** Runs some work in this process as a command does; its warnings are returned. */
async function record(stateFolder: string, work: (invocation: RecordedInvocation) => Promise<number>, aborted = false) {
  const warnings: string[] = []
  const output = new Output()
  output.warning = ({ message }) => warnings.push(message)
  const signal = aborted ? AbortSignal.abort() : new AbortController().signal
  const run = { command: 'backup', server: 'world', stateFolder } as const
  const result = await recorded(run, { output, signal }, work).catch((error: Error) => error)
  return { result, warnings }
}

test('an exit code, an error and an interruption each have their outcome, and the caller gets them all the same', async (t) => {
  const folder = await scratch(t)
  for (const code of [0, 3, 7, 4]) assert.equal((await record(folder, async () => code)).result, code)
  const refused = new BackupError('LEASE_HELD', 'Another run is at work.')
  assert.equal((await record(folder, () => Promise.reject(refused))).result, refused)
  const unexpected = new TypeError('it says: hunter2')
  assert.equal((await record(folder, () => Promise.reject(unexpected))).result, unexpected)
  const late = { code: 'DESTINATIONS', message: 's3://b failed: 503' }
  await record(folder, async ({ note }) => {
    note({ id: 'one', bytes: 5, elapsedMs: 77 })
    note({ id: 'two', error: late })
    return 3
  })
  const partly = async ({ note }: RecordedInvocation): Promise<number> => {
    note({ id: 'three' })
    throw new DOMException('aborted', 'AbortError')
  }
  await record(folder, partly, true)
  const runs = await runsIn(folder)
  assert.deepEqual(
    runs.map(({ outcome, exitCode, error }) => [outcome, exitCode, error?.code]),
    [
      ['ok', 0, undefined],
      ['incomplete', 3, undefined],
      ['ok', 7, undefined],
      ['failed', 4, undefined],
      ['failed', 5, 'LEASE_HELD'],
      ['failed', 1, 'TypeError'],
      ['incomplete', 3, 'DESTINATIONS'],
      ['interrupted', 1, 'INTERRUPTED'],
    ],
  )
  assert.deepEqual(runs[6]?.error, late)
  assert.deepEqual([runs[6]?.id, runs[6]?.bytes, runs[6]?.elapsedMs], ['two', 5, 77])
  assert.equal(runs[7]?.id, 'three')
  assert.doesNotMatch(await logOf(folder), /hunter2/)
})

test('a backup that is interrupted is recorded as such', async (t) => {
  const { state, to, env } = await place(t)
  const program = ['--from-command', '--', process.execPath, '-e', "console.log('x'); setInterval(() => {}, 1000)"]
  const ready = ['--hook-before', 'touch "$HOME/ready"']
  const home = join(state, '..')
  const { child, result } = startMillrace(['backup', ...to, ...ready, ...program], { env: { ...env, HOME: home } })
  const isReady = () => stat(join(home, 'ready')).then(Boolean, () => false)
  while (!(await isReady())) await new Promise((resolve) => setTimeout(resolve, 20))
  child.kill('SIGINT')
  assert.notEqual((await result).code, 0)
  const [run] = await runsIn(state)
  assert.equal(run?.outcome, 'interrupted')
  assert.equal(run?.error?.code, 'INTERRUPTED')
})

test('no secret gets into the log, even where a program that was run printed one', async (t) => {
  const { world, to, state, env } = await place(t)
  const secrets = {
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE1',
    AWS_SECRET_ACCESS_KEY: 'a-secret-key-of-aws',
    PGPASSWORD: 'pg-secret',
  }
  const all = { ...env, ...secrets }
  const s3 = 's3://bucket/prefix?region=eu-central-1&endpoint=http://127.0.0.1:1'
  const loud = [
    '--from-command',
    '--',
    'sh',
    '-c',
    'echo "connect failed with $PGPASSWORD and $MILLRACE_PASSWORD" >&2; exit 1',
  ]
  for (const args of [
    ['backup', ...to, ...loud],
    ['backup', world, '--to', s3.replace('//bucket', '//user:hunter2@bucket'), '--server', 'world'],
  ]) {
    // What a program says is passed on as it is; it is the log that must not keep it.
    assert.notEqual((await millrace(args, { env: all, showsSecret: true })).code, 0, args.join(' '))
  }
  const log = await logOf(state)
  assert.equal((await runsIn(state)).filter(({ outcome }) => outcome === 'failed').length, 2, log)
  assert.match(log, /connect failed with \*\*\* and \*\*\*/)
  for (const secret of [PASSWORD, 'hunter2', ...Object.values(secrets)]) assert.ok(!log.includes(secret), secret)
})

test('a history that cannot be written is a warning, and the run has gone as it has', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'history.jsonl'))
  const { result, warnings } = await record(folder, async () => 0)
  assert.equal(result, 0)
  assert.match(warnings.join(), /could not be noted for `millrace history`: EISDIR/)
})
