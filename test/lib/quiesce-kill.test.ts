import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Minecraft, type MinecraftHabits, RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { millrace, scratch, startMillrace } from '../support/cli.ts'
import { sample } from '../support/streams.ts'

interface Place {
  server: Minecraft
  folder: string
  world: string
  url: string
  env: NodeJS.ProcessEnv
  rcon: string[]
  markers(): string[]
}

async function place(t: TestContext, habits: MinecraftHabits = {}): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const server = await serveMinecraft(habits)
  t.after(() => server.close())
  const state = join(folder, 'state')
  return {
    server,
    folder,
    world,
    url: `file://${folder}/store`,
    env: { MILLRACE_STATE_DIR: state, MILLRACE_RCON_PASSWORD: RCON_PASSWORD },
    rcon: ['--rcon', `127.0.0.1:${server.port}`],
    markers: () => (existsSync(join(state, 'held')) ? readdirSync(join(state, 'held')) : []),
  }
}

/** Starts a backup whose source gives some bytes and no end, and waits until they are read. */
async function startEndless(t: TestContext, at: Place) {
  const pidFile = join(at.folder, 'pid')
  const program = [
    'sh',
    '-c',
    `head -c 100000 /dev/zero; echo $$ > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; exec sleep 600`,
  ]
  const args = ['backup', '--to', at.url, '--server', 'world', ...at.rcon, '--from-command', '--', ...program]
  const running = startMillrace(args, { env: at.env })
  const ended = running.result.then(({ stderr }) => assert.fail(`it ended: ${stderr}`))
  ended.catch(() => {})
  while (!existsSync(pidFile)) await Promise.race([sleep(10), ended])
  const pid = Number(readFileSync(pidFile, 'utf8'))
  t.after(() => {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended with the backup.
    }
  })
  return running
}

async function succeeds(args: readonly string[], env: NodeJS.ProcessEnv) {
  const result = await millrace(args, { env })
  assert.equal(result.code, 0, result.stderr)
  assert.ok(!(result.stdout + result.stderr).includes(RCON_PASSWORD))
  return result
}

test('after SIGKILL in the middle of a backup the next one turns saving on first, and it is on afterwards', async (t) => {
  const at = await place(t)
  const { child, result } = await startEndless(t, at)
  child.kill('SIGKILL')
  await result
  assert.equal(at.server.saving, false)
  assert.equal(at.markers().length, 1)
  at.server.asked.length = 0
  // The one that was killed has left its lease as well: whoever is refused by that does not leave saving off till then.
  const refused = await millrace(['backup', at.world, '--to', at.url, ...at.rcon], { env: at.env })
  assert.equal(refused.code, 5, refused.stderr)
  assert.match(refused.stderr, /Warning: .* It is on again.*\n.*Another run is at work/)
  assert.deepEqual(at.server.asked, ['login', 'save-on'])
  assert.equal(at.server.saving, true)
  at.server.asked.length = 0
  const made = await succeeds(['backup', at.world, '--to', at.url, ...at.rcon, '--steal', '--json'], at.env)
  assert.deepEqual(at.server.asked, ['login', 'save-off', 'save-all flush', 'login', 'save-on'])
  assert.equal(at.server.saving, true)
  assert.deepEqual(at.markers(), [])
  assert.equal(made.events().at(-1)?.consistency, 'quiesced')
  const inspected = await succeeds(['inspect', 'latest', '--from', at.url, '--server', 'world'], at.env)
  assert.match(inspected.stdout.toString(), /^consistency +quiesced$/m)
  const listed = await succeeds(['list', '--from', at.url], { ...at.env, MILLRACE_PASSWORD: '' })
  assert.match(listed.stdout.toString(), / quiesced +complete/)
})

test('after SIGKILL while the server writes its world out, resume-saving turns saving on', async (t) => {
  const at = await place(t, { flush: () => new Promise(() => {}) })
  const { child, result } = startMillrace(['backup', at.world, '--to', at.url, ...at.rcon], { env: at.env })
  await Promise.race([at.server.wasAsked('save-all flush'), result])
  child.kill('SIGKILL')
  await result
  assert.equal(at.server.saving, false)
  assert.equal(at.markers().length, 1)
  const resumed = await succeeds(['resume-saving', '--json'], at.env)
  assert.equal(at.server.saving, true)
  assert.deepEqual(at.markers(), [])
  const [event] = resumed.events() as { servers: Record<string, unknown>[] }[]
  const [first] = event!.servers
  assert.deepEqual([first?.where, first?.server, first?.already], [at.rcon[1], 'world', false])
  assert.match((await succeeds(['resume-saving'], at.env)).stdout.toString(), /No backup has left saving off/)
})

test('a backup without --rcon turns on what one of this server has left off, or says what to do', async (t) => {
  const at = await place(t)
  const { child, result } = await startEndless(t, at)
  child.kill('SIGKILL')
  await result
  const backup = ['backup', at.world, '--to', at.url, '--steal']
  const other = await succeeds([...backup, '--server', 'creative'], at.env)
  assert.equal(other.stderr, '')
  const helpless = await succeeds(backup, { ...at.env, MILLRACE_RCON_PASSWORD: '' })
  assert.match(helpless.stderr, /Warning: A backup that was killed left saving at .* off.*resume-saving/)
  assert.equal(at.server.saving, false)
  const helped = await succeeds(backup, at.env)
  assert.match(helped.stderr, /Warning: .* It is on again/)
  assert.equal(at.server.saving, true)
  assert.deepEqual(at.markers(), [])
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} in the middle of a backup: saving is on when the command has ended`, async (t) => {
    const at = await place(t)
    const { child, result } = await startEndless(t, at)
    assert.equal(at.server.saving, false)
    child.kill(signal)
    const { code, stderr } = await result
    assert.equal(code, signal === 'SIGINT' ? 130 : 143, stderr)
    assert.match(stderr, /Interrupted/)
    assert.equal(at.server.saving, true)
    assert.deepEqual(at.markers(), [])
  })
}

test('while a backup is at work, another one and resume-saving are refused, and the force of it is honest', async (t) => {
  const at = await place(t)
  const { child, result } = await startEndless(t, at)
  // Without a lease, as over another store: the world is held once.
  const second = await millrace(['backup', at.world, '--to', at.url, ...at.rcon, '--no-lease'], { env: at.env })
  assert.equal(second.code, 5, second.stderr)
  assert.match(second.stderr, /Another backup \(process \d+\)/)
  assert.equal((await millrace(['resume-saving'], { env: at.env })).code, 5)
  assert.equal(at.server.saving, false)
  await succeeds(['resume-saving', '--force'], at.env)
  assert.equal(at.server.saving, true)
  child.kill('SIGTERM')
  assert.match((await result).stderr, /not held still all the time/)
})

test('wrong uses and wrong passwords are told, and no password is shown', async (t) => {
  const at = await place(t)
  const backup = ['backup', at.world, '--to', at.url, '--steal']
  const wrong = join(at.folder, 'wrong')
  await writeFile(wrong, 'a wrong secret\n')
  for (const [code, says, args, env] of [
    [2, /No RCON password/, [...backup, ...at.rcon], { MILLRACE_RCON_PASSWORD: '' }],
    [1, /refused the password/, [...backup, ...at.rcon, '--rcon-password-file', wrong], {}],
    [2, /not both/, [...backup, ...at.rcon, '--before', 'true'], {}],
    [2, /--allow-stopped/, [...backup, '--allow-stopped'], {}],
    [2, /--hold-limit/, [...backup, ...at.rcon, '--hold-limit', 'soon'], {}],
    [2, /host:port/, [...backup, '--rcon', 'a:b:c'], {}],
  ] as const) {
    const failed = await millrace(args, { env: { ...at.env, ...env } })
    assert.equal(failed.code, code, failed.stderr)
    assert.match(failed.stderr, says)
    assert.ok(!/a wrong secret|creeper/.test(failed.stderr))
  }
  assert.equal(at.server.saving, true)
})

test('a state folder that cannot be read is a warning to a backup that holds nobody', async (t) => {
  const at = await place(t)
  const file = join(at.folder, 'file')
  await writeFile(file, '')
  const made = await succeeds(['backup', at.world, '--to', at.url], { ...at.env, MILLRACE_STATE_DIR: file })
  assert.match(made.stderr, /Warning: Whether an earlier backup has left saving off is not known/)
})

test('backup --before and --after run around it, and a stopped server is backed up where that is allowed', async (t) => {
  const at = await place(t)
  const backup = ['backup', at.world, '--to', at.url, '--json']
  const log = join(at.folder, 'log')
  const commands = [
    '--before',
    `echo before >> ${log}`,
    '--after',
    `echo after >> ${log}`,
    '--before-reaches',
    'stopped',
  ]
  assert.equal((await succeeds([...backup, ...commands], at.env)).events().at(-1)?.consistency, 'stopped')
  assert.equal(readFileSync(log, 'utf8'), 'before\nafter\n')
  await at.server.close()
  const refused = await millrace([...backup, ...at.rcon], { env: at.env })
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /Nothing listens at/)
  const allowed = await succeeds([...backup, ...at.rcon, '--allow-stopped'], at.env)
  assert.equal(allowed.events().at(-1)?.consistency, 'stopped')
})
