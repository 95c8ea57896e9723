import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { parseConfig } from '../../../lib/config/index.ts'
import { jobsOf } from '../../../lib/schedule/jobs.ts'
import { MARK, type Unit, type UnitOptions, unitsOf } from '../../../lib/schedule/units.ts'
import { millrace, scratch } from '../../support/cli.ts'

const GOLDEN = join(import.meta.dirname, '../golden/units')

const CONFIG = `
stateFolder: /var/lib/millrace
encryption: { password: '\${WORLD_PASSWORD}' }
metricsFile: /var/lib/node_exporter/millrace.prom
destinations:
  disk: { provider: filesystem, root: /mnt/backups }
  offsite: { provider: s3, bucket: worlds, region: eu-central-1, accessKeyId: '\${S3_ID}', secretAccessKey: '\${S3_KEY}' }
  odd: { provider: filesystem, root: '/mnt/100% "sure"' }
servers:
  survival:
    source: /srv/minecraft/world
    destinations: [disk, offsite]
    schedule: { cron: 30 2 * * *, timezone: Europe/Berlin, jitter: 10m }
    verify: { schedule: 0 5 1 * sun, how: 5% }
  creative:
    source: /srv/creative
    destinations: [odd]
    encryption: { key: 'file:key' }
    schedule: { cron: '@hourly', catchUp: false }
  database:
    sourceCommand: [pg_dump, game]
    destinations: [disk]
    schedule: '@daily'
`
const SYSTEM: UnitOptions = {
  command: ['/usr/bin/node', '/usr/lib/node_modules/millrace/dist/lib/cli/bin.js'],
  scope: 'system',
  environmentFile: '/etc/millrace/millrace.env',
}

function units(options: Partial<UnitOptions> = {}, config = CONFIG): Unit[] {
  const loaded = parseConfig(config, '/etc/millrace/millrace.yaml')
  return jobsOf(loaded).flatMap((job) => unitsOf(loaded, job, { ...SYSTEM, ...options }))
}

/** As systemd sees them; nothing where it is not installed. */
async function systemdVerifies(folder: string, names: readonly string[]): Promise<void> {
  const args = ['verify', '--man=no', ...names.map((name) => join(folder, name))]
  const { error, stderr } = spawnSync('systemd-analyze', args)
  if (error) return
  // Its exit code says nothing of lines that it passes over.
  const said = String(stderr)
    .split('\n')
    .filter((line) => line.includes('millrace-') && !line.includes('is not executable'))
  assert.deepEqual(said, [])
}

test('the units of a config are these', async () => {
  const all = units()
  if (process.env.MILLRACE_UPDATE_GOLDEN) {
    await rm(GOLDEN, { recursive: true, force: true })
    await mkdir(GOLDEN, { recursive: true })
    for (const { name, text } of all) await writeFile(join(GOLDEN, name), text)
  }
  assert.deepEqual(all.map(({ name }) => name).sort(), (await readdir(GOLDEN)).sort())
  for (const { name, text } of all) assert.equal(text, await readFile(join(GOLDEN, name), 'utf8'), name)
})

test('systemd takes the units as they are, where it is installed', async (t) => {
  for (const scope of ['system', 'user'] as const) {
    const folder = await mkdtemp(join(tmpdir(), 'units of millrace '))
    t.after(() => rm(folder, { recursive: true, force: true }))
    // It asks whether the program is there, too; this one has a name that has to be quoted.
    const node = join(folder, 'no%de 8 $HOME')
    await writeFile(node, '')
    await chmod(node, 0o755)
    const all = units({ scope, command: [node, '/a b/"$HOME" \\%h/bin.js'] })
    for (const { name, text } of all) await writeFile(join(folder, name), text)
    await systemdVerifies(
      folder,
      all.map(({ name }) => name),
    )
  }
})

test("systemd takes the guide's unit of the daemon, where it is installed", async (t) => {
  const folder = await scratch(t)
  const guide = await readFile(join(import.meta.dirname, '../../../docs/guides/schedule.md'), 'utf8')
  const unit = /```ini\n(.*?)```/s.exec(guide)?.[1] ?? ''
  assert.match(unit, /^KillMode=mixed$/m)
  await writeFile(join(folder, 'millrace-schedule.service'), unit)
  await systemdVerifies(folder, ['millrace-schedule.service'])
})

test('arguments with what means something to systemd reach the command as they are', () => {
  const [service] = units({ command: ['/opt/no%de 8 $HOME', '/a b/"$HOME" \\%h/bin.js'] }) as [Unit]
  assert.match(
    service.text,
    /^ExecStart="\/opt\/no%%de 8 \$HOME" "\/a b\/\\"\$\$HOME\\" \\\\%%h\/bin\.js" backup survival --config \/etc\/millrace\/millrace\.yaml$/m,
  )
  assert.throws(() => units({ command: ['/opt/"node"', '/bin.js'] }), {
    code: 'USAGE',
    message: /quotes or backslashes/,
  })
})

test('a schedule of several lines is one line of the timer', () => {
  const config = CONFIG.replace("schedule: '@daily'", 'schedule: |\n      0 4\n      * * *')
  const timer = units({}, config).find(({ name }) => name === 'millrace-backup-database.timer')
  assert.match(timer?.text ?? '', /^\[Timer\]\n# 0 4 \* \* \* UTC\nOnCalendar=\*-\*-\* 04:00:00 UTC\n/m)
})

test('no secret is in a unit: it names the file that they are in, and only where the config asks for variables', () => {
  const all = new Map(units().map(({ name, text }) => [name, text]))
  assert.match(all.get('millrace-backup-survival.service') ?? '', /^EnvironmentFile=\/etc\/millrace\/millrace\.env$/m)
  assert.doesNotMatch(all.get('millrace-backup-creative.service') ?? '', /EnvironmentFile/)
})

test('a service may write to its state, its folders of backups and its metrics, and to nothing else', () => {
  const text = (name: string, options?: Partial<UnitOptions>) =>
    units(options).find((one) => one.name === name)?.text ?? ''
  assert.match(
    text('millrace-backup-survival.service'),
    /^ProtectSystem=strict\nReadWritePaths=\/var\/lib\/millrace \/mnt\/backups \/var\/lib\/node_exporter$/m,
  )
  assert.match(
    text('millrace-backup-creative.service'),
    /^ReadWritePaths=\/var\/lib\/millrace "\/mnt\/100%% \\"sure\\"" /m,
  )
  // Commands of the config may need sudo, or to mount a snapshot.
  assert.doesNotMatch(text('millrace-backup-database.service'), /^(?:ProtectSystem|NoNewPrivileges)/m)
  // A user's manager may not have the right to do it.
  assert.doesNotMatch(
    text('millrace-backup-survival.service', { scope: 'user' }),
    /ProtectSystem|PrivateTmp|network-online/,
  )
})

test('where something lies in /tmp, the service sees /tmp', () => {
  const text = (config: string) =>
    units({}, config).find((one) => one.name === 'millrace-backup-survival.service')?.text ?? ''
  assert.match(text(CONFIG), /^PrivateTmp=yes$/m)
  const inTmp = text(CONFIG.replace('/mnt/backups', '/tmp/backups'))
  assert.doesNotMatch(inTmp, /PrivateTmp/)
  assert.match(inTmp, /^ReadWritePaths=\S+ \/tmp\/backups \S+ \/tmp$/m)
  assert.doesNotMatch(text(CONFIG.replace('/srv/minecraft/world', '/var/tmp/world')), /PrivateTmp/)
})

test('a path that would end a line of the unit is refused', () => {
  assert.throws(() => units({ command: ['/usr/bin/node\nExecStart=/bin/sh', '/bin.js'] }), { code: 'USAGE' })
})

async function place(
  t: TestContext,
): Promise<{ folder: string; dir: string; install(...args: string[]): ReturnType<typeof millrace> }> {
  const folder = await scratch(t)
  await writeFile(join(folder, 'millrace.yaml'), CONFIG.replaceAll('/var/lib/millrace', `${folder}/state`))
  const dir = join(folder, 'units')
  const config = ['--config', join(folder, 'millrace.yaml')]
  return {
    folder,
    dir,
    install: (...args) => millrace(['install-timer', ...config, '--unit-dir', dir, '--system', '--json', ...args]),
  }
}

test('install-timer writes the units, says what to do next, changes nothing the second time, and takes them back', async (t) => {
  const { folder, dir, install } = await place(t)
  const dry = await install('--dry-run')
  assert.equal(dry.code, 0, dry.stderr)
  await assert.rejects(stat(dir), { code: 'ENOENT' })
  const first = await install()
  assert.equal(first.code, 0, first.stderr)
  const names = await readdir(dir)
  assert.equal(names.length, 8)
  for (const name of names) assert.equal((await stat(join(dir, name))).mode & 0o777, 0o644)
  const said = first.events().at(-1) as { environment: unknown; steps: string[] }
  assert.deepEqual(said.environment, {
    file: join(folder, 'millrace.env'),
    names: ['WORLD_PASSWORD', 'S3_ID', 'S3_KEY'],
  })
  assert.ok(said.steps.includes('systemctl daemon-reload'))
  assert.ok(said.steps.some((step) => /^systemctl enable --now .*millrace-backup-survival\.timer/.test(step)))
  const service = await readFile(join(dir, 'millrace-backup-survival.service'), 'utf8')
  assert.ok(service.includes(`ExecStart=${process.execPath} `), service)
  await systemdVerifies(dir, names)

  const second = (await install()).events().filter(({ event }) => event === 'unit')
  assert.ok(second.every(({ state }) => state === 'unchanged'))
  // What `systemctl enable` makes goes as well, and what somebody else wrote stays.
  await mkdir(join(dir, 'timers.target.wants'))
  await symlink('../millrace-backup-survival.timer', join(dir, 'timers.target.wants/millrace-backup-survival.timer'))
  await writeFile(join(dir, 'millrace-backup-mine.timer'), '[Timer]\n')
  const gone = await install('--uninstall')
  assert.equal(gone.code, 0, gone.stderr)
  assert.deepEqual((await readdir(dir)).sort(), ['millrace-backup-mine.timer', 'timers.target.wants'])
  assert.deepEqual(await readdir(join(dir, 'timers.target.wants')), [])
})

test('install-timer overwrites no unit of somebody else, and then writes none at all', async (t) => {
  const { dir, install } = await place(t)
  await mkdir(dir)
  await writeFile(join(dir, 'millrace-backup-creative.timer'), '[Timer]\nOnCalendar=daily\n')
  const refused = await install()
  assert.equal(refused.code, 5)
  assert.match(refused.stderr, /millrace-backup-creative\.timer is there, and was not written by this command/)
  assert.deepEqual(await readdir(dir), ['millrace-backup-creative.timer'])
  assert.ok((await readFile(join(GOLDEN, 'millrace-backup-creative.timer'), 'utf8')).startsWith(MARK))
})
