import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openMemory } from '../../adapters/memory.ts'
import {
  type ArchiveWarning,
  type Backups,
  createCommandQuiescer,
  createMinecraftQuiescer,
  leftSaving,
  type MinecraftOptions,
  openBackups,
  type Quiescer,
  resumeSaving,
  type ServiceWarning,
} from '../../lib/index.ts'
import { type Minecraft, type MinecraftHabits, RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { scratch } from '../support/cli.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'

interface Place {
  world: string
  state: string
  backups: Backups
  server: Minecraft
  /** For createMinecraftQuiescer. */
  rcon: MinecraftOptions
  warnings: (ArchiveWarning | ServiceWarning)[]
  onWarning: (warning: ArchiveWarning | ServiceWarning) => void
}

async function place(t: TestContext, habits: MinecraftHabits = {}): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const server = await serveMinecraft(habits)
  t.after(() => server.close())
  const backups = await openBackups({ storage: await openMemory(), server: 'survival', key: Buffer.alloc(32, 7) })
  const state = join(folder, 'state')
  const warnings: (ArchiveWarning | ServiceWarning)[] = []
  const rcon = {
    host: '127.0.0.1',
    port: server.port,
    password: RCON_PASSWORD,
    server: 'survival',
    stateFolder: state,
    resumePauseMs: 10,
  }
  return { world, state, backups, server, rcon, warnings, onWarning: (warning) => warnings.push(warning) }
}

const markers = async (state: string) => (existsSync(join(state, 'held')) ? readdir(join(state, 'held')) : [])

const levelOf = async (backups: Backups) => (await backups.inspect('latest')).head?.consistency

test('a Minecraft server is held still by save-off and save-all, and saves again afterwards', async (t) => {
  let marked: string[] = []
  const at = await place(t, {
    flush: async () => {
      marked = await markers(at.state)
    },
  })
  const { backups, server, rcon, world } = at
  const made = await backups.create(world, { quiesce: createMinecraftQuiescer(rcon) })
  assert.deepEqual(server.asked, ['login', 'save-off', 'save-all flush', 'login', 'save-on'])
  assert.equal(server.saving, true)
  assert.equal(made.consistency, 'quiesced')
  assert.deepEqual(made.quiesce, { level: 'quiesced', kept: true, resumed: true })
  assert.equal(made.incomplete, false)
  assert.equal(await levelOf(backups), 'quiesced')
  assert.equal(marked.length, 1)
  assert.deepEqual(await markers(at.state), [])
})

test('the marker is on the disk before save-off is sent, and says whose it is but no password', async (t) => {
  let marking = ''
  const at = await place(t, {
    onSaving: async (saving) => {
      // Read at once: by the time of the answer it would prove nothing.
      if (!saving) marking = readHeld(at.state)
    },
  })
  await at.backups.create(at.world, { quiesce: createMinecraftQuiescer(at.rcon) })
  const { server, where, pid } = JSON.parse(marking)
  assert.deepEqual({ server, where, pid }, { server: 'survival', where: `127.0.0.1:${at.rcon.port}`, pid: process.pid })
  assert.ok(!marking.includes(RCON_PASSWORD))
})

function readHeld(state: string): string {
  const [name] = readdirSync(join(state, 'held'))
  return readFileSync(join(state, 'held', name as string), 'utf8')
}

test('saving is on again when the source fails, and when the backup is aborted, while it is read', async (t) => {
  const at = await place(t)
  for (const aborts of [false, true]) {
    const stop = new AbortController()
    async function* source() {
      yield sample(100_000)
      assert.equal(at.server.saving, false)
      if (!aborts) throw new Error('the disk is gone')
      stop.abort()
      await new Promise(() => {})
    }
    const making = at.backups.create(Readable.from(source()), {
      quiesce: createMinecraftQuiescer(at.rcon),
      signal: stop.signal,
    })
    await assert.rejects(making, aborts ? { name: 'AbortError' } : /the disk is gone/)
    assert.equal(at.server.saving, true)
    assert.deepEqual(await markers(at.state), [])
    assert.deepEqual(await at.backups.list(), [])
  }
})

test('saving is on again when the backup is aborted while the server writes its world out', async (t) => {
  const stop = new AbortController()
  const at = await place(t, { flush: () => stop.abort() })
  const making = at.backups.create(at.world, { quiesce: createMinecraftQuiescer(at.rcon), signal: stop.signal })
  await assert.rejects(making, { name: 'AbortError' })
  assert.equal(at.server.saving, true)
  assert.deepEqual(await markers(at.state), [])
})

test('a save-off that is not answered may still be carried out: saving is turned on twice', async (t) => {
  const at = await place(t, { intercept: ({ text }) => text === 'save-off' })
  const making = at.backups.create(at.world, { quiesce: createMinecraftQuiescer({ ...at.rcon, commandMs: 1500 }) })
  await assert.rejects(making, { code: 'SERVER_SILENT' })
  assert.equal(at.server.asked.filter((one) => one === 'save-on').length, 2)
  assert.deepEqual(await markers(at.state), [])
})

test('answers that are not those of a server that saves are errors, and saving is turned on', async (t) => {
  for (const [command, answer] of [
    ['save-off', 'Unknown or incomplete command, see below for error'],
    ['save-all flush', 'Unable to save the game (is there enough disk space?)'],
    ['save-all flush', ''],
  ] as const) {
    const at = await place(t, { answer: (asked) => (asked === command ? answer : undefined) })
    await assert.rejects(at.backups.create(at.world, { quiesce: createMinecraftQuiescer(at.rcon) }), (error: Error) => {
      assert.match(error.message, new RegExp(`answered ${command} with`))
      return true
    })
    assert.equal(at.server.asked.at(-1), 'save-on')
    assert.equal(at.server.saving, true)
  }
})

test('a server that was told to save by another hand meanwhile was not held: the level is live', async (t) => {
  const at = await place(t)
  const quiescer = createMinecraftQuiescer(at.rcon)
  const meddled: Quiescer = {
    async begin(signal) {
      const level = await quiescer.begin(signal)
      await resumeSaving({ ...at.rcon, address: at.rcon, force: true })
      return level
    },
    end: () => quiescer.end(),
  }
  const made = await at.backups.create(at.world, { quiesce: meddled, onWarning: at.onWarning })
  assert.equal(made.consistency, 'live')
  assert.equal(made.incomplete, true)
  assert.deepEqual(made.quiesce, { level: 'quiesced', kept: false, resumed: true })
  assert.deepEqual(
    at.warnings.map(({ kind }) => kind),
    ['quiesce'],
  )
})

test('a stopped server is an error, or the level stopped where that is allowed', async (t) => {
  const at = await place(t)
  await at.server.close()
  for (const host of ['127.0.0.1', 'localhost']) {
    const source = Readable.from([sample(1000)])
    const quiesce = createMinecraftQuiescer({ ...at.rcon, host })
    await assert.rejects(at.backups.create(source, { quiesce }), { code: 'SERVER_STOPPED' })
    assert.ok(source.destroyed)
  }
  const made = await at.backups.create(at.world, {
    quiesce: createMinecraftQuiescer({ ...at.rcon, allowStopped: true }),
  })
  assert.equal(made.consistency, 'stopped')
  assert.equal(made.incomplete, false)
  assert.deepEqual(await markers(at.state), [])
})

test('a stopped server that starts while it is backed up was not stopped', async (t) => {
  const at = await place(t)
  await at.server.close()
  async function* source() {
    yield sample(1000)
    const again = await serveMinecraft({ port: at.rcon.port })
    t.after(() => again.close())
  }
  const quiesce = createMinecraftQuiescer({ ...at.rcon, allowStopped: true })
  const made = await at.backups.create(Readable.from(source()), { quiesce, onWarning: at.onWarning })
  assert.equal(made.consistency, 'live')
  assert.equal(made.incomplete, true)
})

test('a server that takes the connection and says nothing is an error, or the level live where that is allowed', async (t) => {
  const at = await place(t, { intercept: () => true })
  const rcon = { ...at.rcon, connectMs: 2000, allowStopped: true }
  await assert.rejects(at.backups.create(at.world, { quiesce: createMinecraftQuiescer(rcon) }), {
    code: 'SERVER_SILENT',
  })
  const quiesce = createMinecraftQuiescer({ ...rcon, allowSilent: true })
  assert.equal((await at.backups.create(at.world, { quiesce })).consistency, 'live')
  assert.deepEqual(await markers(at.state), [])
})

test('a backup that takes longer than the limit lets the server save, and is a live one', async (t) => {
  const at = await place(t)
  async function* source() {
    yield sample(1000)
    await at.server.wasAsked('save-on')
    yield sample(1000)
  }
  const made = await at.backups.create(Readable.from(source()), {
    quiesce: createMinecraftQuiescer(at.rcon),
    quiesceLimitMs: 1,
    onWarning: at.onWarning,
  })
  assert.equal(at.server.saving, true)
  assert.equal(made.consistency, 'live')
  assert.equal(await levelOf(at.backups), 'live')
  assert.equal(made.incomplete, true)
  assert.match(at.warnings[0]?.message ?? '', /held for 0\.001 s at most/)
  assert.equal(at.server.asked.filter((one) => one === 'save-on').length, 1)
})

test('saving that cannot be turned on again is told, and the next backup turns it on first', async (t) => {
  let deaf = true
  const at = await place(t, { answer: (command) => (command === 'save-on' && deaf ? 'Not now' : undefined) })
  const made = await at.backups.create(at.world, {
    quiesce: createMinecraftQuiescer({ ...at.rcon, resumePauseMs: 1 }),
    onWarning: at.onWarning,
  })
  assert.deepEqual(made.quiesce, { level: 'quiesced', kept: false, resumed: false })
  assert.equal(made.incomplete, true)
  assert.match(at.warnings[0]?.message ?? '', /could not be turned on again.*"Not now".*resume-saving/)
  assert.equal(at.server.saving, false)
  assert.equal((await leftSaving(at.state, 'survival')).length, 1)
  assert.equal((await leftSaving(at.state, 'creative')).length, 0)

  deaf = false
  at.server.asked.length = 0
  const next = await at.backups.create(at.world, { quiesce: createMinecraftQuiescer(at.rcon) })
  assert.deepEqual(at.server.asked, ['login', 'save-on', 'save-off', 'save-all flush', 'login', 'save-on'])
  assert.equal(next.consistency, 'quiesced')
  assert.deepEqual(await markers(at.state), [])
})

test('saving that could not be turned on at the end of reading is turned on when the upload is done', async (t) => {
  let deaf = true
  const at = await place(t, { answer: (command) => (command === 'save-on' && deaf ? 'Not now' : undefined) })
  const memory = await openMemory()
  // The companion is written when all has been read and sent.
  const storage = overriding(memory, {
    createWriteStream(key, options) {
      if (key.endsWith('.sha256')) deaf = false
      return memory.createWriteStream(key, options)
    },
  })
  const backups = await openBackups({ storage, server: 'survival', key: Buffer.alloc(32, 7) })
  const quiesce = createMinecraftQuiescer({ ...at.rcon, resumePauseMs: 1 })
  const made = await backups.create(at.world, { quiesce, onWarning: at.onWarning })
  assert.deepEqual(made.quiesce, { level: 'quiesced', kept: false, resumed: true })
  assert.equal(made.incomplete, true)
  assert.equal(at.server.saving, true)
  assert.deepEqual(await markers(at.state), [])
  assert.match(at.warnings[0]?.message ?? '', /could not be turned on again/)
  assert.match(at.warnings[1]?.message ?? '', /told to go on at the end of the backup/)
})

test('saving that another has turned on since, and may hold off again, is not turned on at the end of the upload', async (t) => {
  let deaf = true
  const at = await place(t, { answer: (command) => (command === 'save-on' && deaf ? 'Not now' : undefined) })
  const memory = await openMemory()
  const storage = overriding(memory, {
    async stat(key, options) {
      // When all has been read and sent.
      if (key.endsWith('.mlr') && deaf) {
        deaf = false
        const { host, port, password } = at.rcon
        await resumeSaving({ stateFolder: at.state, address: { host, port }, password })
        at.server.asked.length = 0
      }
      return memory.stat(key, options)
    },
  })
  const backups = await openBackups({ storage, server: 'survival', key: Buffer.alloc(32, 7) })
  const quiesce = createMinecraftQuiescer({ ...at.rcon, resumePauseMs: 1 })
  await backups.create(at.world, { quiesce, onWarning: at.onWarning })
  assert.deepEqual(at.server.asked, [])
  assert.deepEqual(await markers(at.state), [])
})

test('two backups do not hold one server: the second is refused while the first is at work', async (t) => {
  const at = await place(t)
  const first = createMinecraftQuiescer(at.rcon)
  assert.equal(await first.begin(), 'quiesced')
  const second = at.backups.create(at.world, { quiesce: createMinecraftQuiescer(at.rcon) })
  await assert.rejects(second, { code: 'BUSY' })
  assert.equal(at.server.saving, false)
  await assert.rejects(resumeSaving({ ...at.rcon }), { code: 'BUSY' })
  assert.equal(await first.end(), 'kept')
  assert.deepEqual(await resumeSaving({ ...at.rcon }), [])
})

test('resume-saving without a marker sends save-on to the address it is given', async (t) => {
  const { rcon, server } = await place(t)
  const { port } = rcon
  assert.deepEqual(await resumeSaving({ ...rcon, server: undefined, address: rcon }), [
    { where: `127.0.0.1:${port}`, server: null, since: null, already: true },
  ])
  assert.deepEqual(server.asked, ['login', 'save-on'])
})

test('a state folder that cannot be written stops the backup before anything is turned off', async (t) => {
  const at = await place(t)
  await writeFile(at.state, 'a file, no folder')
  await assert.rejects(at.backups.create(at.world, { quiesce: createMinecraftQuiescer(at.rcon) }), {
    code: 'QUIESCE',
  })
  assert.deepEqual(at.server.asked, ['login'])
})

test('commands hold a source: before and after, in this order, with the level that they reach', async (t) => {
  const { world, state, backups } = await place(t)
  const log = join(state, '..', 'log')
  for (const level of [undefined, 'snapshot', 'stopped'] as const) {
    const made = await backups.create(world, {
      quiesce: createCommandQuiescer({
        before: `echo "before $MILLRACE_SERVER" > ${log}`,
        after: `echo after >> ${log}; ls ${state}/held >> ${log}`,
        server: 'survival',
        stateFolder: state,
        level,
      }),
    })
    assert.equal(made.consistency, level ?? 'quiesced')
    assert.match(await readFile(log, 'utf8'), /^before survival\nafter\ncommand-.*\.json\n$/)
    assert.deepEqual(await markers(state), [])
  }
})

test('a command before the backup that fails stops it, shows the end of what it said, and the one after runs', async (t) => {
  const { world, state, backups } = await place(t)
  const options = { server: 'survival', stateFolder: state, after: `echo x >> ${state}/after` }
  const before = 'seq 1 100000; echo the disk is full >&2; exit 3'
  await assert.rejects(
    backups.create(world, { quiesce: createCommandQuiescer({ ...options, before }) }),
    (error: Error) => {
      assert.match(error.message, /ended with exit code 3: .*the disk is full/)
      assert.ok(error.message.length < 400)
      return true
    },
  )
  const late = createCommandQuiescer({ ...options, before: '(sleep 0.2; echo said late >&2) & exit 3' })
  await assert.rejects(backups.create(world, { quiesce: late }), /ended with exit code 3: said late$/)
  const hangs = createCommandQuiescer({ ...options, before: 'sleep 600 & sleep 600', timeoutMs: 3000 })
  await assert.rejects(backups.create(world, { quiesce: hangs }), /within 3 s/)
  assert.equal(await readFile(join(state, 'after'), 'utf8'), 'x\nx\nx\n')
  assert.deepEqual(await backups.list(), [])
  assert.deepEqual(await markers(state), [])
})

test('a command after the backup that fails is told, and runs before the next one', async (t) => {
  const { world, state, backups, warnings, onWarning } = await place(t)
  const options = { server: 'survival', stateFolder: state }
  const made = await backups.create(world, {
    quiesce: createCommandQuiescer({ ...options, before: 'true', after: 'exit 1' }),
    onWarning,
  })
  assert.deepEqual(made.quiesce, { level: 'quiesced', kept: false, resumed: false })
  assert.match(warnings[0]?.message ?? '', /run after the backup ended with exit code 1/)
  await assert.rejects(
    backups.create(world, { quiesce: createCommandQuiescer({ ...options, before: 'true', after: 'exit 4' }) }),
    /ended with exit code 4\. It has not ended well since the last backup, so it ran first; nothing is backed up/,
  )
  assert.equal((await backups.list()).length, 1)
  const log = join(state, 'log')
  const next = createCommandQuiescer({ ...options, before: `echo before >> ${log}`, after: `echo after >> ${log}` })
  await backups.create(world, { quiesce: next })
  assert.equal(await readFile(log, 'utf8'), 'after\nbefore\nafter\n')
})

test('the commands of a hook do not see the passwords', async (t) => {
  const { world, state, backups } = await place(t)
  process.env.MILLRACE_RCON_PASSWORD = RCON_PASSWORD
  t.after(() => delete process.env.MILLRACE_RCON_PASSWORD)
  await mkdir(state)
  const before = `env > ${state}/env`
  await backups.create(world, { quiesce: createCommandQuiescer({ before, server: 'survival', stateFolder: state }) })
  const seen = await readFile(join(state, 'env'), 'utf8')
  assert.match(seen, /^MILLRACE_SERVER=survival$/m)
  assert.ok(!seen.includes(RCON_PASSWORD))
})

test('a limit that no timer can wait for is none, and what is no limit is refused before anything is held', async () => {
  const backups = await openBackups({ storage: await openMemory(), server: 'survival', key: Buffer.alloc(32, 7) })
  let held = 0
  const quiesce: Quiescer = {
    begin: async () => {
      held += 1
      return 'quiesced'
    },
    end: async () => 'kept',
  }
  async function* halting() {
    yield sample(1000)
    await delay(50)
    yield sample(1000)
  }
  const make = (quiesceLimitMs: number) =>
    backups.create(Readable.from(halting(), { objectMode: false }), { quiesce, quiesceLimitMs })
  for (const limit of [Number.POSITIVE_INFINITY, 2 ** 31]) assert.equal((await make(limit)).consistency, 'quiesced')
  for (const none of [Number.NaN, 0, -1]) await assert.rejects(make(none), { code: 'USAGE' })
  assert.equal(held, 2)
})

test('a begin that does not say what it has reached is refused, and told to end', async () => {
  const backups = await openBackups({ storage: await openMemory(), server: 'survival', key: Buffer.alloc(32, 7) })
  const asked: string[] = []
  for (const level of [undefined, null, 'Quiesced', 5, {}]) {
    const quiesce: Quiescer = {
      begin: async () => level as never,
      end: async () => {
        asked.push('end')
        return 'kept'
      },
    }
    await assert.rejects(backups.create(Readable.from([sample(10)]), { quiesce }), { code: 'USAGE' })
  }
  assert.equal(asked.length, 5)
  assert.deepEqual(await backups.list(), [])
})
