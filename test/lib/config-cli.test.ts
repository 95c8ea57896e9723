import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { millrace, scratch } from '../support/cli.ts'
import type { ManyCase, ManyResult } from '../support/main-many.ts'
import { sample } from '../support/streams.ts'
import { diffTrees } from '../support/tree.ts'

const SECRET = 'hunter2-S3cr3t'
const MANY = join(import.meta.dirname, '../support/main-many.ts')

/** Runs the command for each case, one after the other in one process. */
async function runMany(folder: string, cases: readonly ManyCase[]): Promise<ManyResult[]> {
  const env = {
    ...process.env,
    XDG_CONFIG_HOME: folder,
    MILLRACE_STATE_DIR: join(folder, 'state'),
  } as NodeJS.ProcessEnv
  for (const name of ['MILLRACE_PASSWORD', 'MILLRACE_CONFIG', 'MILLRACE_RCON_PASSWORD']) delete env[name]
  const child = spawn(process.execPath, [MANY], { env, cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify(cases))
  const results = JSON.parse(await text(child.stdout)) as ManyResult[]
  assert.equal(results.length, cases.length)
  return results
}

function events({ stdout }: Pick<ManyResult, 'stdout'>): Record<string, unknown>[] {
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

const CONFIG = `
destinations:
  local: { provider: filesystem, root: stores/local }
  spare: { provider: filesystem, root: stores/spare }
encryption: { password: file:password }
defaults: { retention: { keepLast: 2 }, maxAge: 26h }
servers:
  survival:
    source: worlds/survival
    exclude: ['*.tmp']
    level: 1
  creative:
    source: worlds/creative
    destinations: [local]
    encryption: { password: "command:cat 'other password'" }
    prune: false
stateFolder: kept
metricsFile: millrace.prom
`

async function place(t: TestContext, config = CONFIG): Promise<string> {
  const folder = await scratch(t)
  for (const world of ['survival', 'creative']) {
    await mkdir(join(folder, 'worlds', world), { recursive: true })
    await writeFile(join(folder, 'worlds', world, 'level.dat'), sample(5000))
  }
  await writeFile(join(folder, 'worlds/survival/lock.tmp'), 'x')
  await writeFile(join(folder, 'password'), `${SECRET}\n`)
  await writeFile(join(folder, 'other password'), `${SECRET}-2\n`)
  await writeFile(join(folder, 'millrace.yaml'), config, { mode: 0o600 })
  return folder
}

interface Wrong {
  args: string[]
  code: number
  says: RegExp
  cwd?: string
  env?: Record<string, string>
}

test('each wrong command line is told in a sentence with its exit code, without a stack or a secret', async (t) => {
  const folder = await place(t)
  const bare = join(folder, 'bare')
  await mkdir(bare)
  await writeFile(
    join(folder, 'bad.yaml'),
    `servers: { a: { source: x, level: 99, encryption: { password: ${SECRET} } } }\n`,
  )
  await writeFile(
    join(folder, 'one.yaml'),
    'destinations: { local: { provider: filesystem, root: s } }\nservers: { only: { source: absent } }\n',
  )
  await writeFile(
    join(folder, 'env.yaml'),
    'destinations: { local: { provider: filesystem, root: s } }\nencryption: { password: "${NOT_THERE}" }\nservers: { survival: { source: worlds/survival } }\n',
  )
  const usage = (args: string[], says: RegExp, more: Partial<Wrong> = {}): Wrong => ({ args, code: 2, says, ...more })
  const wrong: Wrong[] = [
    // Without a config.
    usage(['backup'], /^millrace: Name a folder or file to back up/, { cwd: bare }),
    usage(
      ['backup', join(folder, 'worlds/survival')],
      /^millrace: The required option --to is missing: give the store's URL.*`millrace config example`/,
      { cwd: bare },
    ),
    usage(['list'], /The required option --from is missing/, { cwd: bare }),
    usage(['check'], /The required option --to is missing/, { cwd: bare }),
    usage(['status', '--from', 'file:///x'], /Name the server with --server\./, { cwd: bare }),
    usage(['verify'], /The required option --server is missing/, { cwd: bare }),
    usage(['verify', '--server', 'a'], /The required option --from is missing/, { cwd: bare }),
    usage(['restore', 'latest', '--target', 'x'], /The required option --server is missing/, { cwd: bare }),
    usage(['prune', '--from', 'nonsense', '--server', 'a'], /This is not a URL\./, { cwd: bare }),
    usage(['config', 'check'], /There is no config\. `millrace config example > millrace\.yaml` begins one\./, {
      cwd: bare,
    }),
    usage(['config', 'check', 'absent.yaml'], /The config file absent\.yaml does not exist\./),
    usage(['backup', '--config', 'absent.yaml'], /The config file absent\.yaml does not exist\./),
    usage(['list'], /The config file .*named\.yaml does not exist\./, { env: { MILLRACE_CONFIG: 'named.yaml' } }),
    usage(['list', '--no-config'], /The required option --from is missing/),
    usage(['config', 'chek'], /unknown command 'chek'/),
    // A config that is wrong.
    usage(
      ['config', 'check', 'bad.yaml'],
      /^millrace: bad\.yaml:1:1 destinations is missing\.\nbad\.yaml:1:35 servers\.a\.level must be a whole number from 1 to 22\.\nbad\.yaml:1:63 servers\.a\.encryption\.password is a secret: .*\n$/,
    ),
    usage(
      ['status', '--config', 'bad.yaml', '--from', 'file:///x', '--server', 'a'],
      /bad\.yaml:1:35 servers\.a\.level/,
    ),
    usage(['backup', '--config', 'bad.yaml', '--json'], /bad\.yaml:1:35 servers\.a\.level/),
    // Names.
    usage(
      ['backup', 'survivel'],
      /^millrace: "survivel" is no server of .*millrace\.yaml\. Did you mean survival\? Its servers are survival, creative\. To back up a folder of that name, say where with --to\.\n$/,
    ),
    usage(['backup', 'worlds/survival'], /is no server of .*millrace\.yaml\. Its servers are survival, creative\./),
    usage(['backup', 'survival', 'creative', 'x'], /"x" is no server of/),
    usage(
      ['backup', '--server', 'creativ'],
      /has no server called creativ\. Did you mean creative\? It has survival, creative\./,
    ),
    usage(['backup', 'survival', '--server', 'creative'], /--server names whose backup a folder is/),
    usage(
      ['backup', 'survival', '--to', 'locall'],
      /^millrace: --to names neither a URL, such as file:\/\/\/mnt\/backups, nor a destination of .*\. Did you mean local\? Its destinations are local, spare\.\n$/,
    ),
    usage(['backup', 'survival', '--to', SECRET], /--to names neither a URL.* Its destinations are local, spare\./),
    usage(['check', '--to', 'spar'], /--to names neither a URL.* Did you mean spare\?/),
    usage(['list', '--from', 'elsewhere'], /--from names neither a URL/),
    usage(['list', '--server', 'survivl'], /has no server called survivl\. Did you mean survival\?/),
    usage(['list', '--from', `s3://key:${SECRET}@bucket`], /The URL has credentials in it\./),
    usage(['verify'], /Name one server with --server: .*millrace\.yaml has survival, creative\./),
    usage(['restore', 'latest', '--target', 'x'], /Name one server with --server/),
    usage(['prune'], /Name one server with --server/),
    usage(['cat', 'latest', 'level.dat'], /Name one server with --server/),
    usage(['pin', 'latest'], /Name one server with --server/),
    usage(
      ['pin', '--server', 'survival', '--from', 'local', '--to', 'local'],
      /Name the store with --from or with --to, once\./,
    ),
    usage(['status', '--max-age', 'long'], /is not a length of time/),
    usage(['backup', 'creative', '--keep-last', '3'], /What to keep was given without --prune\./),
    usage(['verify', '--all', 'latest', '--server', 'survival'], /Name one snapshot, or --all: not both\./),
    // What the config says, and is not there.
    usage(
      ['backup', '--config', 'env.yaml'],
      /encryption\.password is in the environment variable NOT_THERE, which is not set\./,
    ),
    usage(['backup', '--config', 'env.yaml'], /NOT_THERE, which is set and empty\./, { env: { NOT_THERE: '' } }),
    usage(['config', 'check', 'env.yaml', '--secrets'], /NOT_THERE, which is not set\./),
    usage(['backup', 'survival', '--password-file', 'absent'], /The password file absent does not exist\./),
    {
      args: ['backup', '--config', 'one.yaml', '--no-encryption'],
      code: 1,
      says: /The source ".*\/absent" does not exist\./,
    },
    usage(['backup', '--config', 'one.yaml'], /No password was given\./),
    { args: ['verify', '--server', 'survival'], code: 1, says: /There is no|no snapshot|No snapshot/i },
    { args: ['cat', 'latest', 'x', '--config', 'one.yaml', '--no-encryption'], code: 1, says: /snapshot/i },
  ]
  assert.ok(wrong.length >= 40)
  const results = await runMany(
    folder,
    wrong.map(({ args, cwd = folder, env }) => ({ args, cwd, ...(env ? { env } : {}) })),
  )
  for (const [at, { code, stdout, stderr }] of results.entries()) {
    const { args, code: expected, says } = wrong[at] as Wrong
    const shown = `millrace ${args.join(' ')}\n${stdout}${stderr}`
    assert.equal(code, expected, shown)
    assert.match(stderr, says, shown)
    assert.doesNotMatch(stderr, /^\s+at |undefined|\[object/m, shown)
    assert.ok(!`${stdout}${stderr}`.includes(SECRET), shown)
  }
  const asJson = results[wrong.findIndex(({ args }) => args.includes('--json'))] as ManyResult
  const [error] = events(asJson)
  assert.equal(error?.event, 'error')
  assert.equal(error?.exitCode, 2)
  assert.match(String(error?.message), /^bad\.yaml:1:1 destinations is missing\.\nbad\.yaml:1:35 /)
})

test('a config does the whole round: backup of all servers, list, status, verify, restore, cat, pin, prune, check', async (t) => {
  const folder = await place(t)
  const cases = [
    ['backup'],
    ['backup', 'survival', '--json'],
    ['list', '--json'],
    ['status'],
    ['verify', '--server', 'survival'],
    ['verify', '--all', '--server', 'survival', '--json'],
    ['restore', 'latest', '--server', 'survival', '--target', 'out/survival'],
    ['restore', 'latest', '--server', 'creative', '--target', 'out/creative', '--from', 'local'],
    ['cat', 'latest', 'level.dat', '--server', 'creative'],
    ['inspect', 'latest', '--server', 'survival', '--json'],
    [
      'list',
      '--long',
      '--json',
      '--no-config',
      '--from',
      `file://${folder}/stores/local`,
      '--password-file',
      'password',
    ],
    ['pin', 'latest', '--server', 'survival', '--json'],
    ['prune', '--server', 'survival', '--keep-last', '1', '--json'],
    ['prune', '--server', 'survival', '--dry-run', '--json'],
    ['backup', 'creative', '--to', 'spare', '--dry-run', '--json'],
    ['backup', 'creative', '--to', 'spare', '--prune', '--json'],
    ['check', '--json'],
    ['config', 'check', '--secrets', '--json'],
    ['config', 'check'],
    ['config', 'schema'],
    ['config', 'example'],
    ['backup', 'worlds/creative', '--to', 'local', '--server', 'other', '--level', '1', '--json'],
    ['restore', 'latest', '--server', 'other', '--from', 'local', '--target', 'out/other'],
  ]
  const results = await runMany(
    folder,
    cases.map((args) => ({ args, cwd: folder })),
  )
  const of = (...args: string[]) => {
    const at = cases.findIndex((one) => args.every((word) => one.includes(word)))
    return results[at] as ManyResult
  }
  for (const [at, { code, stdout, stderr }] of results.entries()) {
    assert.equal(code, 0, `millrace ${cases[at]?.join(' ')}\n${stdout}${stderr}`)
    assert.ok(!`${stdout}${stderr}`.includes(SECRET))
  }
  assert.match(results[0]?.stdout ?? '', /of survival as .*of creative as .*All 2 servers were backed up\.\n$/s)
  const made = events(of('backup', 'survival', '--json')).find(({ event }) => event === 'snapshot') as Record<
    string,
    unknown
  >
  assert.deepEqual(
    (made.destinations as { destination: string }[]).map(({ destination }) => destination),
    [`file://${folder}/stores/local`, `file://${folder}/stores/spare`],
  )
  assert.equal((made.omissions as { excluded: number }).excluded, 1)
  assert.deepEqual(
    events(of('list', '--json')).map(({ server }) => server),
    ['survival', 'survival', 'creative'],
  )
  assert.equal(of('status').stdout.match(/good \(at most 26h/g)?.length, 3)
  assert.equal(events(of('verify', '--all')).filter(({ event }) => event === 'summary').length, 2)
  assert.deepEqual(diffTrees(join(folder, 'worlds/creative'), join(folder, 'out/creative')), [])
  assert.deepEqual(await readdir(join(folder, 'out/survival')), ['level.dat'])
  assert.equal(of('cat').stdout.length > 0, true)
  assert.deepEqual(
    events(of('list', '--no-config')).map(({ server, problem }) => [server, typeof problem]),
    [
      ['creative', 'string'],
      ['survival', 'undefined'],
      ['survival', 'undefined'],
    ],
  )
  // A pin keeps a snapshot from the prune of the store that it lies in, so it lies in each.
  assert.deepEqual(
    events(of('pin')).map(({ destination }) => destination),
    [`file://${folder}/stores/local`, `file://${folder}/stores/spare`],
  )
  assert.deepEqual(
    events(of('prune', '--keep-last'))
      .filter(({ event }) => event === 'prune')
      .map(({ counts }) => (counts as { removed: number }).removed),
    [1, 1],
  )
  assert.equal(events(of('prune', '--dry-run')).filter(({ event }) => event === 'prune').length, 2)
  assert.equal((await readdir(join(folder, 'stores/spare'))).includes('creative'), true)
  assert.equal(events(of('check', '--json')).filter(({ event, ok }) => event === 'check' && ok).length, 2)
  assert.match(of('config', 'check').stdout, /"secrets":"read"/)
  assert.match(
    results[18]?.stdout ?? '',
    /^SERVER +SOURCE.*survival .*local, spare .*last 2 +26h +password.*is good: 2 servers, 2 destinations\.\n$/s,
  )
  // The password of a server that the config does not name is the one for all.
  assert.deepEqual(diffTrees(join(folder, 'worlds/creative'), join(folder, 'out/other')), [])
  assert.match(await readFile(join(folder, 'millrace.prom'), 'utf8'), /server="creative"/)
  assert.ok((await readdir(join(folder, 'kept'))).length > 0, 'the state folder of the config is used')
})

test('one server that fails does not stop the next, and the gravest exit code is that of all', async (t) => {
  const folder = await place(t, CONFIG.replace('worlds/survival', 'worlds/absent').replace('26h', '1s'))
  const cases = [
    ['backup', '--json'],
    ['backup'],
    ['backup', 'creative', 'survival'],
    ['status'],
    ['backup', 'creative', '--max-age'],
  ]
  const results = await runMany(
    folder,
    cases.map((args) => ({ args, cwd: folder })),
  )
  const [asJson, plain, inOrder, status] = results as [ManyResult, ManyResult, ManyResult, ManyResult]
  assert.equal(asJson.code, 1)
  assert.deepEqual(
    events(asJson)
      .map(({ event }) => event)
      .filter((event) => event !== 'progress'),
    ['error', 'snapshot', 'backup'],
  )
  assert.match(String(events(asJson)[0]?.message), /^survival: The source ".*absent" does not exist\.$/)
  assert.equal(events(asJson)[0]?.code, 'SOURCE')
  assert.deepEqual(events(asJson).at(-1)?.servers, [
    { server: 'survival', exitCode: 1 },
    { server: 'creative', exitCode: 0 },
  ])
  assert.equal(plain.code, 1)
  assert.match(plain.stdout, /1 of 2 servers without a complaint; not: survival \(exit code 1\)\.\n$/)
  assert.equal(inOrder.code, 1)
  // One has none, which is too old as well.
  assert.equal(status.code, 6)
  assert.match(status.stdout, /NO SNAPSHOT/)
})

test('restores fall back to the next destination of the config, and a word is a folder beside --to', async (t) => {
  const folder = await place(t)
  await mkdir(join(folder, 'survival'))
  await writeFile(join(folder, 'survival/other.dat'), 'other')
  const before = await runMany(folder, [
    { args: ['backup', 'survival'], cwd: folder },
    // Beside a store it is the folder, as it was without a config.
    { args: ['backup', 'survival', '--to', `file://${folder}/stores/third`], cwd: folder },
    {
      args: [
        'restore',
        'latest',
        '--server',
        'survival',
        '--from',
        `file://${folder}/stores/third`,
        '--target',
        'third',
      ],
      cwd: folder,
    },
  ])
  for (const { code, stderr } of before) assert.equal(code, 0, stderr)
  assert.deepEqual(await readdir(join(folder, 'third')), ['other.dat'])
  const object = (await readdir(join(folder, 'stores/local/survival'))).find((name) => name.endsWith('.mlr')) as string
  const stored = await readFile(join(folder, 'stores/local/survival', object))
  stored[stored.length - 40] = (stored[stored.length - 40] as number) ^ 1
  await writeFile(join(folder, 'stores/local/survival', object), stored)
  const [restored] = await runMany(folder, [
    { args: ['restore', 'latest', '--server', 'survival', '--target', 'out'], cwd: folder },
  ])
  assert.equal(restored?.code, 0, restored?.stderr)
  assert.match(restored?.stderr ?? '', /stores\/local was not used/)
  assert.deepEqual(await readdir(join(folder, 'out')), ['level.dat'])
})

test('as a process of its own: MILLRACE_CONFIG, all servers, and a config that is wrong', async (t) => {
  const folder = await place(t)
  const file = join(folder, 'millrace.yaml')
  const all = await millrace(['backup', '--json'], { env: { MILLRACE_CONFIG: file } })
  assert.equal(all.code, 0, all.stderr)
  assert.deepEqual(
    all
      .events()
      .filter(({ event }) => event === 'snapshot')
      .map(({ server }) => server),
    ['survival', 'creative'],
  )
  await writeFile(file, CONFIG.replace('retention', 'retentoin'))
  const wrong = await millrace(['backup', '--config', file])
  assert.equal(wrong.code, 2)
  assert.equal(wrong.stderr, `millrace: ${file}:6:13 defaults.retentoin is not known. Did you mean retention?\n`)
})
