import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { loadConfig } from '../../lib/config/index.ts'
import { examine, type Finding } from '../../lib/doctor/index.ts'
import { openStorage } from '../../lib/index.ts'
import { Claims, leaseClock } from '../../lib/lease-claims.ts'
import { RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { millrace, scratch } from '../support/cli.ts'
import { mounted, NO_MOUNT } from '../support/tmpfs.ts'

const CONFIG = `destinations:
  local: {provider: filesystem, root: backups}
encryption: {password: file:secrets/password}
stateFolder: state
servers:
  survival: {source: world, maxAge: 26h}
`

/** A set-up in which all is well. */
async function wellSetUp(t: TestContext): Promise<string> {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  await mkdir(join(folder, 'state'))
  await mkdir(join(folder, 'secrets'), { mode: 0o700 })
  await writeFile(join(folder, 'world/level.dat'), 'world')
  await writeFile(join(folder, 'secrets/password'), 'correct horse battery\n', { mode: 0o600 })
  await writeFile(join(folder, 'millrace.yaml'), CONFIG, { mode: 0o600 })
  await snapshotAt(folder, new Date(Date.now() - 3_600_000))
  return folder
}

/** What a listing shows of a complete snapshot. */
async function snapshotAt(folder: string, time: Date, complete = true): Promise<void> {
  const at = join(folder, 'backups/survival')
  await mkdir(at, { recursive: true })
  const object = join(at, `${time.toISOString().replaceAll(':', '-')}-abcd.tar.zst.mlr`)
  await writeFile(object, 'sealed')
  if (complete) await writeFile(`${object}.sha256`, 'of it')
}

async function findingsOf(folder: string): Promise<Finding[]> {
  return Array.fromAsync(examine({ file: join(folder, 'millrace.yaml'), signal: AbortSignal.timeout(120_000) }))
}

async function rewrite(folder: string, from: string, to: string): Promise<void> {
  assert.ok(CONFIG.includes(from))
  await writeFile(join(folder, 'millrace.yaml'), CONFIG.replace(from, to))
}

interface Broken {
  /** Breaks the set-up; @returns the findings that are looked for, where it has to be known what they say. */
  breaks(folder: string, t: TestContext): Promise<unknown>
  finds: [state: Finding['state'], check: string, message: RegExp, advice?: RegExp][]
}

const QUIESCE = 'quiesce: {by: rcon, address: "127.0.0.1:PORT", password: file:secrets/rcon'

/** Breaks by a server of RCON that takes `RCON_PASSWORD`; config and file say what is given. */
async function withRcon(folder: string, t: TestContext, password: string, more = '', running = true): Promise<void> {
  const server = await serveMinecraft()
  t.after(() => server.close())
  if (!running) await server.close()
  await writeFile(join(folder, 'secrets/rcon'), password, { mode: 0o600 })
  await rewrite(folder, 'maxAge: 26h', `maxAge: 26h, ${QUIESCE.replace('PORT', String(server.port))}${more}}`)
}

const BROKEN: Record<string, Broken> = {
  'a state folder that cannot be made, which a backup with resume fails without': {
    async breaks(folder) {
      const broken = CONFIG.replace('stateFolder: state', 'stateFolder: millrace.yaml/state')
      await writeFile(join(folder, 'millrace.yaml'), broken.replace('26h}', '26h, resume: true}'))
    },
    finds: [['fail', 'state folder', /a file stands in its way/, /`resume` fails without it/]],
  },
  'a config with a typo': {
    breaks: (folder) => rewrite(folder, 'maxAge', 'maxAges'),
    finds: [['fail', 'config', /millrace\.yaml:6:\d+ .*maxAges/, /config example/]],
  },
  'a config that is not there': {
    breaks: (folder) => writeFile(join(folder, 'millrace.yaml'), ''),
    finds: [['fail', 'config', /is empty/]],
  },
  'a config that anybody may write': {
    breaks: (folder) => chmod(join(folder, 'millrace.yaml'), 0o666),
    finds: [['fail', 'config', /can be written by others.*chmod go-w/]],
  },
  'a config that others may read, with the names of variables in it': {
    async breaks(folder) {
      process.env.DOCTOR_PASSWORD = 'x'
      await rewrite(folder, 'file:secrets/password', '"${DOCTOR_PASSWORD}"')
      await chmod(join(folder, 'millrace.yaml'), 0o644)
    },
    finds: [['warn', 'config', /can be read by others.*chmod 600/]],
  },
  'a secret file that others may read': {
    breaks: (folder) => chmod(join(folder, 'secrets/password'), 0o644),
    finds: [['warn', 'secret file', /others may read.*0644/, /chmod 600 .*password/]],
  },
  'a secret file that anybody may write': {
    breaks: (folder) => chmod(join(folder, 'secrets/password'), 0o666),
    finds: [['fail', 'secret file', /anybody may write.*0666/, /chmod 600/]],
  },
  'a secret file that is missing': {
    breaks: (folder) => rewrite(folder, 'secrets/password', 'secrets/nothing'),
    finds: [['fail', 'secret', /nothing does not exist/, /Put it there/]],
  },
  'a variable that is not set': {
    breaks: (folder) => rewrite(folder, 'file:secrets/password', '"${DOCTOR_NOT_SET}"'),
    finds: [['fail', 'secret', /DOCTOR_NOT_SET, which is not set/]],
  },
  'a file where the store should be': {
    breaks: (folder) => rewrite(folder, 'root: backups', 'root: world/level.dat'),
    finds: [['fail', 'destination', /a file is in the way/, /settings/]],
  },
  'a disk that is missing': {
    breaks: (folder) => rewrite(folder, 'root: backups', 'root: disk/backups, mountPoint: disk'),
    finds: [['fail', 'destination', /Nothing is mounted at .*disk/, /./]],
  },
  'a store without a backup': {
    breaks: (folder) => rewrite(folder, 'root: backups', 'root: empty/new'),
    finds: [['warn', 'backups', /no complete one/, /millrace backup survival/]],
  },
  'a store that has unfinished snapshots': {
    async breaks(folder) {
      await snapshotAt(folder, new Date(Date.now() - 7_200_000), false)
      await snapshotAt(folder, new Date(Date.now() - 7_300_000), false)
    },
    finds: [['warn', 'unfinished', /2 snapshots have no companion/, /millrace prune/]],
  },
  'a snapshot of the future': {
    breaks: (folder) => snapshotAt(folder, new Date(Date.now() + 10 * 86_400_000)),
    finds: [['warn', 'backups', /1 dated in the future/, /clock/]],
  },
  'backups that have stopped': {
    async breaks(folder) {
      await rewrite(folder, 'root: backups', 'root: old/backups')
      await snapshotAt(join(folder, 'old'), new Date(Date.now() - 5 * 86_400_000))
    },
    finds: [['fail', 'backups', /1 complete, the newest 5 days old \(at most 26h\)/, /millrace schedule/]],
  },
  'a lease of a run that died': {
    async breaks(folder) {
      await claim(folder)
      const leases = join(folder, 'backups/survival/.lease')
      const then = new Date(Date.now() - 3 * 3_600_000)
      for (const name of await readdir(leases)) await utimes(join(leases, name), then, then)
    },
    finds: [['warn', 'lease', /left by another host.*no sign of life/, /--steal/]],
  },
  'a source that is missing': {
    breaks: (folder) => rewrite(folder, 'source: world', 'source: word'),
    finds: [['fail', 'source', /word.*(?:does not exist|no such)/i, /Correct the path/]],
  },
  'a source that is empty': {
    async breaks(folder) {
      await mkdir(join(folder, 'nothing'))
      await rewrite(folder, 'source: world', 'source: nothing')
    },
    finds: [['fail', 'source', /nothing is empty/, /mounted/]],
  },
  'saving that a killed backup left off': {
    async breaks(folder) {
      await mkdir(join(folder, 'state/held'))
      const { pid } = spawnSync('true')
      const marking = {
        ...{ how: 'rcon', where: 'localhost:25575', server: 'survival', since: Date.now() - 60_000 },
        ...{ pid, begun: 'long ago', host: hostname(), nonce: 'x' },
      }
      const file = join(folder, 'state/held/rcon-000000000000000000000000.json')
      await writeFile(file, JSON.stringify(marking))
    },
    finds: [['fail', 'saving', /left saving at localhost:25575 off/, /millrace resume-saving/]],
  },
  'a Minecraft server that takes another password': {
    breaks: (folder, t) => withRcon(folder, t, 'not that one'),
    finds: [['fail', 'rcon', /refused the password/, /server\.properties/]],
  },
  'a Minecraft server that is stopped': {
    breaks: (folder, t) => withRcon(folder, t, RCON_PASSWORD, '', false),
    finds: [['fail', 'rcon', /Nothing listens at/, /enable-rcon/]],
  },
  'a Minecraft server that is stopped, and may be': {
    breaks: (folder, t) => withRcon(folder, t, RCON_PASSWORD, ', allowStopped: true', false),
    finds: [['warn', 'rcon', /Nothing listens at/, /backed up as it is/]],
  },
  'a state folder that is a file, which backups go on without': {
    async breaks(folder) {
      await writeFile(join(folder, 'a-file'), '')
      await rewrite(folder, 'stateFolder: state', 'stateFolder: a-file')
    },
    finds: [['warn', 'state folder', /is not a folder/, /Remove it.*Other backups go on without it/]],
  },
}

async function claim(folder: string): Promise<void> {
  const storage = await openStorage({ provider: 'filesystem', root: join(folder, 'backups') })
  const signal = AbortSignal.timeout(60_000)
  const claims = new Claims(storage, 'survival', leaseClock)
  const id = claims.newId()
  await claims.make(id, { owner: 'another host (process 7)', since: new Date().toISOString(), ttlMs: 600_000 }, signal)
  await claims.beat(id, 'held', 1, signal)
  await storage.close()
}

test('where all is well every line is ok, and nothing is left behind', async (t) => {
  const folder = await wellSetUp(t)
  await withRcon(folder, t, RCON_PASSWORD)
  await claim(folder)
  const before = (await readdir(folder, { recursive: true })).sort()
  const findings = await findingsOf(folder)
  assert.deepEqual(
    findings.filter(({ state }) => state !== 'ok'),
    [],
  )
  const checks = new Set(findings.map(({ check }) => check))
  for (const check of ['node', 'zstd', 'memory', 'state folder', 'config', 'secret file', 'secret', 'destination']) {
    assert.ok(checks.has(check), check)
  }
  for (const check of ['clock', 'backups', 'lease', 'source', 'rcon']) assert.ok(checks.has(check), check)
  assert.match(findings.find(({ check }) => check === 'lease')?.message ?? '', /held by another host/)
  assert.deepEqual((await readdir(folder, { recursive: true })).sort(), before)
})

test('doctor tells of a store on a disk that may be missing one day', { skip: NO_MOUNT }, async (t) => {
  const folder = await wellSetUp(t)
  const disk = join(folder, 'disk')
  const told = async (root: string) => {
    await rewrite(folder, 'root: backups', root)
    return (await findingsOf(folder)).filter(({ check }) => check === 'mount')
  }
  await mounted(disk, 1, async () => {
    const [found, ...others] = await told('root: disk/backups')
    assert.deepEqual(others, [])
    assert.equal(found?.state, 'warn')
    assert.ok(found.message.includes(disk) && found.advice?.includes(`mountPoint: ${disk}`), JSON.stringify(found))
    assert.deepEqual(await told('root: disk/backups, mountPoint: disk'), [])
    // The source is not there either without it.
    await mkdir(join(disk, 'world'))
    await writeFile(join(disk, 'world/level.dat'), 'world')
    await rewrite(folder, 'source: world', 'source: disk/world')
    const config = join(folder, 'millrace.yaml')
    await writeFile(config, (await readFile(config, 'utf8')).replace('root: backups', 'root: disk/backups'))
    assert.deepEqual(
      (await findingsOf(folder)).filter(({ check }) => check === 'mount'),
      [],
    )
  })
})

test('a disk without room for one more snapshot is told', { skip: NO_MOUNT }, async (t) => {
  const folder = await wellSetUp(t)
  const disk = join(folder, 'disk')
  await mounted(disk, 1, async () => {
    await rewrite(folder, 'root: backups', 'root: disk/backups, mountPoint: disk')
    const at = join(disk, 'backups/survival')
    await mkdir(at, { recursive: true })
    const object = join(at, `${new Date().toISOString().replaceAll(':', '-')}-abcd.tar.zst.mlr`)
    await writeFile(object, Buffer.alloc(700_000))
    await writeFile(`${object}.sha256`, 'of it')
    const told = (await findingsOf(folder)).filter(({ state }) => state !== 'ok')
    assert.deepEqual(
      told.map(({ state, check, subject }) => [state, check, subject]),
      [['fail', 'room', 'survival at local']],
    )
    assert.match(told[0]?.message ?? '', /KiB free, and the newest snapshot takes 684 KiB/)
  })
})

for (const [name, { breaks, finds }] of Object.entries(BROKEN)) {
  test(`doctor tells of ${name}, says what to do, and shows no secret`, async (t) => {
    const folder = await wellSetUp(t)
    await breaks(folder, t)
    const before = (await readdir(folder, { recursive: true })).sort()
    const findings = await findingsOf(folder)
    for (const [state, check, message, advice] of finds) {
      const found = findings.find((one) => one.state === state && one.check === check && message.test(one.message))
      assert.ok(found, JSON.stringify(findings, null, 1))
      if (advice) assert.match(found.advice ?? '', advice)
    }
    const gravest = finds.some(([state]) => state === 'fail')
    assert.equal(
      findings.some(({ state }) => state === 'fail'),
      gravest,
      JSON.stringify(findings, null, 1),
    )
    for (const secret of ['correct horse battery', RCON_PASSWORD, 'not that one']) {
      assert.ok(!JSON.stringify(findings).includes(secret))
    }
    assert.deepEqual((await readdir(folder, { recursive: true })).sort(), before)
  })
}

test('the command: a line each, 1 when something fails, JSON, and no config or one store alone', async (t) => {
  const folder = await wellSetUp(t)
  await rewrite(folder, 'source: world', 'source: word')
  const broken = await millrace(['doctor'], { cwd: folder })
  assert.equal(broken.code, 1)
  assert.match(String(broken.stdout), /^fail {2}source {12}survival: .*\n {24}Correct the path/m)
  assert.match(String(broken.stdout), /\n\n1 failure, 0 warnings\. Backups do not work/)

  // Only a restore test needs it.
  const env = { HOME: folder, XDG_CONFIG_HOME: folder, TMPDIR: join(folder, 'millrace.yaml/tmp') }
  const store = ['--to', `file://${join(folder, 'new/store')}`, '--no-config', '--json']
  const alone = await millrace(['doctor', ...store], { cwd: join(folder, 'world'), env })
  assert.equal(alone.code, 0, String(alone.stdout))
  const events = alone.events()
  const temporary = events.find(({ check }) => check === 'temporary folder')
  assert.match(`${temporary?.state}: ${temporary?.advice}`, /^warn: .*Only `verify --restore-test` needs it/)
  assert.deepEqual(events.at(-1), {
    event: 'doctor',
    ok: true,
    config: null,
    counts: { ok: events.length - 2, warn: 1, fail: 0 },
  })
  assert.ok(events.some(({ event, check, state }) => event === 'finding' && check === 'clock' && state === 'ok'))
  assert.ok(!(await readdir(folder)).includes('new'))
  assert.equal((await loadConfig(join(folder, 'millrace.yaml'))).warnings.length, 0)
})

test('the guide names every check, and no other', async (t) => {
  const guide = await readFile(join(import.meta.dirname, '../../docs/guides/init.md'), 'utf8')
  const table = guide.slice(guide.indexOf('| check | what |'))
  const named = [...table.matchAll(/^\| (`.*?`) \|/gm)].flatMap((row) =>
    [...(row[1] as string).matchAll(/`([^`]+)`/g)].map((name) => name[1]),
  )
  const sources = await Promise.all(
    ['config', 'index', 'runtime', 'source', 'store'].map((name) =>
      readFile(join(import.meta.dirname, `../../lib/doctor/${name}.ts`), 'utf8'),
    ),
  )
  const made = [...sources.join('\n').matchAll(/(?:ok|warn|fail|checkFolder|warn\)|fail : warn\))\(\s*'([a-z ]+)'/g)]
  assert.deepEqual([...new Set(named)].sort(), [...new Set(made.map((match) => match[1]))].sort())
  t.diagnostic(`${named.length} checks`)
})
