import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { parseEvent } from '../../../lib/cli/events.ts'
import { parseConfig } from '../../../lib/config/index.ts'
import { Daemon } from '../../../lib/schedule/daemon.ts'
import { Lines } from '../../../lib/schedule/lines.ts'
import { createChildRunner, type Runner } from '../../../lib/schedule/run.ts'
import { BIN, millrace, scratch } from '../../support/cli.ts'

const DEADLINE_MS = 180_000

type Event = Record<string, unknown> & { event: string }

/** The daemon as a process of its own, and what it says. */
class DaemonProcess {
  readonly child: ChildProcess
  readonly events: Event[] = []
  stderr = ''
  #onEvent = () => {}

  constructor(t: TestContext, folder: string, args: readonly string[], command = [BIN, 'schedule', '--json']) {
    const env = { ...process.env, MILLRACE_STATE_DIR: join(folder, 'state') }
    this.child = spawn(process.execPath, [...command, ...args], { cwd: folder, env, stdio: 'pipe' })
    const lines = new Lines(1 << 20, (line) => {
      this.events.push(parseEvent(line) as never)
      this.#onEvent()
    })
    this.child.stdout?.on('data', (chunk) => lines.push(chunk))
    this.child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.stderr += text
    })
    this.child.on('exit', () => this.#onEvent())
    t.after(() => this.child.kill('SIGKILL'))
  }

  /** Waits until it has said something of that kind. */
  async seen(event: string, fields: Record<string, unknown> = {}): Promise<Event> {
    const find = () =>
      this.events.find(
        (one) => one.event === event && Object.entries(fields).every(([name, value]) => one[name] === value),
      )
    const end = Date.now() + DEADLINE_MS
    for (;;) {
      const found = find()
      if (found) return found
      const hasEnded = this.child.exitCode !== null || this.child.signalCode !== null
      if (hasEnded || Date.now() > end) {
        throw new Error(`no ${event} ${JSON.stringify(fields)}: ${JSON.stringify(this.events)} ${this.stderr}`)
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000)
        this.#onEvent = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  async ended(): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit')
    return this.child.exitCode
  }
}

interface Place {
  folder: string
  config(servers: Record<string, object>): Promise<void>
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  await writeFile(join(folder, 'world/level.dat'), 'level')
  return {
    folder,
    config: (servers) =>
      writeFile(
        join(folder, 'millrace.yaml'),
        JSON.stringify({
          destinations: { local: { provider: 'filesystem', root: 'store' } },
          encryption: false,
          daemon: { port: 0, healthFile: 'run/health.json' },
          servers,
        }),
      ),
  }
}

async function storedFiles(folder: string): Promise<string[]> {
  try {
    const found = await readdir(join(folder, 'store'), { recursive: true, withFileTypes: true })
    return found.filter((one) => one.isFile()).map(({ name }) => name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** Yearly: in these tests nothing runs by the clock. */
const YEARLY = { schedule: '0 0 1 1 *' }

test('two servers, one of which fails: log, health, metrics, state, SIGHUP and SIGTERM', {
  timeout: 2 * DEADLINE_MS,
}, async (t) => {
  const { folder, config } = await place(t)
  await config({ good: { source: 'world', ...YEARLY, maxAge: '1d' }, bad: { source: 'nowhere', ...YEARLY } })
  const daemon = new DaemonProcess(t, folder, ['--run-now'])
  const { port } = await daemon.seen('daemon-start')
  const page = (path: string) => fetch(`http://127.0.0.1:${port}${path}`)
  const good = await daemon.seen('run-end', { server: 'good' })
  assert.deepEqual([good.outcome, good.exitCode, good.meaning], ['good', 0, 'good'])
  assert.ok((good.bytes as number) > (good.storedBytes as number))
  const bad = await daemon.seen('run-end', { server: 'bad' })
  assert.deepEqual([bad.outcome, bad.exitCode], ['failed', 1])
  assert.match(bad.message as string, /nowhere" does not exist/)
  assert.equal((bad.next as { reason: string }).reason, 'retry')

  const health = await page('/health')
  assert.equal(health.status, 503)
  const { servers } = (await health.json()) as { servers: Record<string, { ok: boolean; problems: string[] }> }
  assert.deepEqual([servers.good?.ok, servers.bad?.ok], [true, false])
  assert.deepEqual(servers.bad?.problems, ['The last backup failed (exit code 1).'])
  const metrics = await (await page('/metrics')).text()
  assert.match(metrics, /^millrace_last_success_timestamp_seconds\{server="good",destination="file:.*store"\} \d/m)
  assert.match(metrics, /^millrace_schedule_runs_total\{server="bad",job="backup",outcome="failed"\} 1$/m)
  assert.match(metrics, /^# TYPE millrace_schedule_runs_total counter$/m)
  assert.match(await (await page('/')).text(), /NOT WELL\n.*bad backup: next /s)

  // A config that is wrong is told of, and the daemon goes on by the old schedules.
  await writeFile(join(folder, 'millrace.yaml'), 'servers: 7')
  daemon.child.kill('SIGHUP')
  assert.match((await daemon.seen('daemon-reload', { ok: false })).message as string, /servers/)
  assert.equal((await page('/health')).status, 503)
  await config({ good: { source: 'world', ...YEARLY, maxAge: '1d' } })
  daemon.child.kill('SIGHUP')
  await daemon.seen('daemon-reload', { ok: true })
  assert.equal((await page('/health')).status, 200)

  daemon.child.kill('SIGTERM')
  assert.equal(await daemon.ended(), 0, daemon.stderr)
  assert.equal(daemon.events.at(-1)?.event, 'daemon-stop')
  const state = JSON.parse(await readFile(join(folder, 'state/schedule.json'), 'utf8'))
  assert.equal((await stat(join(folder, 'state/schedule.json'))).mode & 0o777, 0o600)
  assert.deepEqual([state.servers.good.jobs.backup.exitCode, state.servers.bad.jobs.backup.exitCode], [0, 1])
  assert.equal((await stat(join(folder, 'run/health.json'))).mode & 0o777, 0o644)
  const file = JSON.parse(await readFile(join(folder, 'run/health.json'), 'utf8'))
  assert.deepEqual([file.ok, file.pid, Object.keys(file.servers)], [true, daemon.child.pid, ['good']])
  assert.equal(file.servers.good.jobs[0].lastExitCode, 0)

  // Without its state it asks the store.
  await rm(join(folder, 'state/schedule.json'))
  const again = new DaemonProcess(t, folder, [])
  const { port: other } = await again.seen('daemon-start')
  const lastSuccess = async () => {
    const { servers } = (await (await fetch(`http://127.0.0.1:${other}/health`)).json()) as typeof file
    return servers.good.jobs[0].lastSuccess
  }
  const end = Date.now() + DEADLINE_MS
  while ((await lastSuccess()) === null) {
    assert.ok(Date.now() < end, again.stderr)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  assert.equal(await lastSuccess(), file.servers.good.jobs[0].lastSuccess)
  again.child.kill('SIGINT')
  assert.equal(await again.ended(), 0, again.stderr)
})

test('SIGTERM while a run is at work: it cleans up, and the store has nothing unfinished', {
  timeout: 2 * DEADLINE_MS,
}, async (t) => {
  const { folder, config } = await place(t)
  // It writes a part, and never ends.
  const script = `process.stdout.write(require('node:crypto').randomBytes(20_000_000)); setInterval(() => {}, 1000)`
  await config({ slow: { sourceCommand: [process.execPath, '-e', script], ...YEARLY } })
  const daemon = new DaemonProcess(t, folder, ['--run-now'])
  await daemon.seen('run-start', { server: 'slow' })
  const end = Date.now() + DEADLINE_MS
  while ((await storedFiles(folder)).length === 0) {
    assert.ok(Date.now() < end, daemon.stderr)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  daemon.child.kill('SIGTERM')
  assert.equal(await daemon.ended(), 0, daemon.stderr)
  const ended = daemon.events.find(({ event }) => event === 'run-end')
  assert.deepEqual([ended?.outcome, ended?.meaning], ['interrupted', 'interrupted'])
  assert.deepEqual(await storedFiles(folder), [])
  const state = JSON.parse(await readFile(join(folder, 'state/schedule.json'), 'utf8'))
  assert.equal(state.servers.slow.jobs.backup.outcome, 'interrupted')
})

test('a signal that comes twice at once, as from timeout(1), is one: the daemon stops in order', async (t) => {
  const { folder, config } = await place(t)
  await config({ good: { source: 'world', ...YEARLY } })
  const script = `
    import { main } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/cli/main.ts'))}
    process.argv[1] = ${JSON.stringify(BIN)}
    const ended = main(['schedule'])
    for (let times = 0; times < 2; times += 1) process.emit('SIGTERM', 'SIGTERM')
    process.exitCode = await ended`
  const env = { ...process.env, MILLRACE_STATE_DIR: join(folder, 'state') }
  const daemon = spawn(process.execPath, ['--input-type=module', '-e', script], { cwd: folder, env, stdio: 'pipe' })
  t.after(() => daemon.kill('SIGKILL'))
  const [said, [code]] = await Promise.all([text(daemon.stdout), once(daemon, 'exit')])
  assert.equal(code, 0)
  assert.match(said, /stopped; no run is at work\n$/)
})

test('a SIGHUP that comes while the daemon is loaded has it read its config again, and does not end it', async (t) => {
  const { folder, config } = await place(t)
  await config({ good: { source: 'world', ...YEARLY } })
  const script = `
    import { main } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/cli/main.ts'))}
    process.argv[1] = ${JSON.stringify(BIN)}
    const ended = main(['schedule', '--json'])
    // A signal is told of by the system, so no sooner than this.
    setImmediate(() => process.emit('SIGHUP', 'SIGHUP'))
    process.exitCode = await ended`
  const daemon = new DaemonProcess(t, folder, [], ['--input-type=module', '-e', script])
  await daemon.seen('daemon-reload', { ok: true })
  assert.equal(daemon.stderr, '')
  daemon.child.kill('SIGTERM')
  assert.equal(await daemon.ended(), 0)
})

test('a config that is read again while the daemon starts is the one that it goes by', async (t) => {
  const folder = await scratch(t)
  const config = (server: string) =>
    parseConfig(
      JSON.stringify({
        destinations: { local: { provider: 'filesystem', root: 'store' } },
        ...{ stateFolder: 'state', daemon: { port: 0 }, servers: { [server]: { source: 'world', ...YEARLY } } },
      }),
      join(folder, 'millrace.yaml'),
    )
  // The stores have no snapshot.
  const known: Runner = () => ({ ended: Promise.resolve({ exitCode: 0, statuses: [], warnings: 0 }), stop: () => {} })
  // While it reads its state, and while it opens its port.
  for (const turns of [0, 1, 2, 3, 5, 8]) {
    const daemon = new Daemon({
      ...{ loaded: config('old'), servers: [], runner: known, parallel: 1, runNow: false },
      ...{ onEvent: () => {}, onProblem: () => {} },
    })
    const starting = daemon.start()
    for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate)
    daemon.reload(config('new'))
    await starting
    assert.deepEqual(
      daemon.view().map(({ job }) => job.server),
      ['new'],
      `after ${turns} turns`,
    )
    await daemon.stop()
  }
})

test('a config without a schedule, and a server that it does not have, are refused', async (t) => {
  const { folder, config } = await place(t)
  await config({ manual: { source: 'world' } })
  const none = await millrace(['schedule'], { cwd: folder })
  assert.equal(none.code, 2)
  assert.match(none.stderr, /manual has no schedule/)
  const unknown = await millrace(['schedule', '--server', 'manuel'], { cwd: folder })
  assert.equal(unknown.code, 2)
  assert.match(unknown.stderr, /manual/)
})

test('whatever ends the daemon but for SIGKILL takes its runs with it, even one that does not stop when it is asked', async (t) => {
  const folder = await scratch(t)
  const stubborn = `process.on('SIGTERM', () => {}); require('node:fs').writeFileSync('pid', String(process.pid)); setInterval(() => {}, 1000)`
  const script = `
    import { existsSync, readFileSync } from 'node:fs'
    import { createChildRunner } from ${JSON.stringify(join(import.meta.dirname, '../../../lib/schedule/run.ts'))}
    const run = createChildRunner([process.execPath, '-e', ${JSON.stringify(stubborn)}])([])
    setInterval(() => {
      if (!existsSync('pid') || readFileSync('pid', 'utf8') === '') return
      run.stop('SIGTERM')
      process.exit(3)
    }, 50)`
  const daemon = spawn(process.execPath, ['--input-type=module', '-e', script], { cwd: folder, stdio: 'inherit' })
  t.after(() => daemon.kill('SIGKILL'))
  const [code] = await once(daemon, 'exit')
  assert.equal(code, 3)
  const pid = Number(await readFile(join(folder, 'pid'), 'utf8'))
  const end = Date.now() + DEADLINE_MS
  while (isAlive(pid)) {
    assert.ok(Date.now() < end, 'the run goes on')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
})

test('many runs at once are one listener for the end of the daemon, and none when they have ended', async () => {
  const before = process.listenerCount('exit')
  const start = createChildRunner([process.execPath, '--version'])
  const runs = Array.from({ length: 12 }, () => start([]))
  assert.equal(process.listenerCount('exit'), before + 1)
  for (const { ended } of runs) assert.equal((await ended).exitCode, 0)
  assert.equal(process.listenerCount('exit'), before)
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  // One that nobody has waited for yet is there by its number alone.
  return !/^State:\s+Z/m.test(statusOf(pid))
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return ''
  }
}
