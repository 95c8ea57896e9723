import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { loadConfig, parseConfig, serverSettings } from '../../lib/config/index.ts'
import { examine, type Finding } from '../../lib/doctor/index.ts'
import { checkFolder, checkMemory, checkNode } from '../../lib/doctor/runtime.ts'
import { checkSize } from '../../lib/doctor/source.ts'
import { checkClock, checkStore } from '../../lib/doctor/store.ts'
import { openStorage } from '../../lib/index.ts'
import { Claims, leaseClock } from '../../lib/lease-claims.ts'
import { RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { millrace, scratch } from '../support/cli.ts'

const MiB = 2 ** 20

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
  'a state folder that is a file': {
    async breaks(folder) {
      await writeFile(join(folder, 'a-file'), '')
      await rewrite(folder, 'stateFolder: state', 'stateFolder: a-file')
    },
    finds: [['fail', 'state folder', /is not a folder/, /Remove it/]],
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

/** A store whose clock is another one. */
async function storeInTime(apartMs: number): Promise<Storage> {
  const storage = await openMemory()
  return {
    ...storage,
    adapter: storage.adapter,
    location: storage.location,
    conditionalWrites: storage.conditionalWrites,
    createWriteStream: (...args) => storage.createWriteStream(...args),
    createReadStream: (...args) => storage.createReadStream(...args),
    readRange: (...args) => storage.readRange(...args),
    list: (...args) => storage.list(...args),
    delete: (...args) => storage.delete(...args),
    probe: (...args) => storage.probe(...args),
    close: () => storage.close(),
    async stat(...args) {
      const found = await storage.stat(...args)
      return { ...found, modified: new Date(found.modified.getTime() + apartMs) }
    },
  }
}

test('T20: a clock that is minutes from the one of the store is a warning, a day is a failure, and no object is left', async () => {
  const signal = AbortSignal.timeout(60_000)
  for (const [apart, state, message] of [
    [0, 'ok', /agrees/],
    [20 * 60_000, 'warn', /20 minutes ahead of this machine/],
    [-3 * 3_600_000, 'warn', /180 minutes behind/],
    [2 * 86_400_000, 'fail', /ahead of this machine: a prune is refused/],
    [-10 * 365 * 86_400_000, 'fail', /behind this machine: a prune is refused/],
  ] as const) {
    const storage = await storeInTime(apart)
    const found = await checkClock('offsite', storage, signal)
    assert.equal(found.state, state)
    assert.match(found.message, message)
    if (state !== 'ok') assert.match(found.advice ?? '', /clock/)
    assert.deepEqual(await Array.fromAsync(storage.list('')), [])
  }
})

function refusal(step: string): StorageError {
  const message = `The key may not ${step}.`
  return new StorageError(message, { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'probe' })
}

test('T29: each right that a store refuses is a line of its own', async () => {
  const storage = await storeInTime(0)
  const refusing: Storage = {
    ...storage,
    probe: async () => ({
      ok: false,
      steps: [
        { step: 'sign-in', ok: true, ms: 1 },
        { step: 'list', ok: false, ms: 1, error: refusal('list') },
        { step: 'delete', ok: false, ms: 1, error: refusal('delete') },
      ],
    }),
  }
  const findings = await Array.fromAsync(checkStore('offsite', refusing, AbortSignal.timeout(60_000)))
  assert.deepEqual(
    findings.map(({ state, message, advice }) => [state, message, advice]),
    [
      ['fail', 'list: The key may not list.', 'Give the credentials the right to list; see docs/providers.'],
      ['fail', 'delete: The key may not delete.', 'Give the credentials the right to delete; see docs/providers.'],
    ],
  )
})

test('what millrace runs on: Node, memory, folders', async (t) => {
  const folder = await scratch(t)
  assert.equal(checkNode('22.15.0').state, 'ok')
  assert.equal(checkNode('26.0.0').state, 'ok')
  assert.equal(checkNode('22.14.9').state, 'fail')
  assert.equal(checkNode('20.20.2').state, 'fail')
  assert.equal(checkMemory(8192 * MiB, 16384 * MiB).state, 'ok')
  assert.equal(checkMemory(100 * MiB, 16384 * MiB).state, 'warn')
  assert.equal(checkMemory(100 * MiB, 128 * MiB).state, 'fail')
  assert.match((await checkFolder('state folder', join(folder, 'a/b/c'), 1)).message, /can be made/)
  assert.equal((await checkFolder('state folder', folder, 2 ** 60)).state, 'warn')
  await writeFile(join(folder, 'file'), '')
  assert.equal((await checkFolder('state folder', join(folder, 'file/state'), 1)).state, 'fail')
  assert.deepEqual(await readdir(folder), ['file'])
})

test('a source that needs large parts is told with the memory that they take, and one that no object holds', async () => {
  const loaded = parseConfig(
    `destinations:
  aws: {provider: s3, bucket: b, region: us-east-1}
  ceph: {provider: s3, bucket: b, region: us-east-1, endpoint: 'https://rgw.example.org', profile: ceph}
  b2: {provider: backblaze-b2, bucket: b, keyId: 'file:a', applicationKey: 'file:b'}
  drive: {provider: google-drive}
  dropbox: {provider: dropbox}
  local: {provider: filesystem, root: b}
servers: {huge: {source: w}}
`,
    'millrace.yaml',
  )
  const settings = serverSettings(loaded, 'huge')
  const of = async (gib: number) =>
    (await Array.fromAsync(checkSize(loaded, settings, gib * 1024 * MiB))).map(
      ({ subject, message }) => `${subject}: ${message}`,
    )
  assert.deepEqual(await of(200), [])
  const parts = (name: string) =>
    `huge at ${name}: 300 GiB in at most 10000 parts: parts are 33 MiB, and an upload takes two of them as memory`
  // B2 takes parts of any size, and so they are a little smaller than whole MiB.
  assert.deepEqual(
    (await of(300)).map((line) => line.replace('32 MiB', '33 MiB')),
    ['aws', 'ceph', 'b2'].map(parts),
  )
  const [aws, ceph, b2, drive, dropbox] = await of(6000)
  assert.match(aws as string, /parts are 647 MiB/)
  assert.match(ceph as string, /one object holds at most 5120 GiB/)
  assert.match(b2 as string, /parts are 647 MiB/)
  assert.match(drive as string, /huge at drive: .*at most 4657 GiB/)
  assert.match(dropbox as string, /huge at dropbox: .*at most 2048 GiB/)
})

test('the command: a line each, 1 when something fails, JSON, and no config or one store alone', async (t) => {
  const folder = await wellSetUp(t)
  await rewrite(folder, 'source: world', 'source: word')
  const broken = await millrace(['doctor'], { cwd: folder })
  assert.equal(broken.code, 1)
  assert.match(String(broken.stdout), /^fail {2}source {12}survival: .*\n {24}Correct the path/m)
  assert.match(String(broken.stdout), /\n\n1 failure, 0 warnings\. Backups do not work/)

  const env = { HOME: folder, XDG_CONFIG_HOME: folder }
  const store = ['--to', `file://${join(folder, 'new/store')}`, '--no-config', '--json']
  const alone = await millrace(['doctor', ...store], { cwd: join(folder, 'world'), env })
  assert.equal(alone.code, 0, String(alone.stdout))
  const events = alone.events()
  assert.deepEqual(events.at(-1), {
    event: 'doctor',
    ok: true,
    config: null,
    counts: { ok: events.length - 1, warn: 0, fail: 0 },
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
