import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { events, type ManyResult, place, runMany } from '../support/config-place.ts'
import { SECRET } from '../support/wrong-config.ts'

/** All of it at once, each once, in the order of the file. */
const MANY_SECRETS =
  /^(?:Warning: .*\n)?millrace: destinations\.b2\.keyId is in the environment variable NOT_THERE, which is not set\.\nmillrace: The file of destinations\.b2\.applicationKey .*absent does not exist\.\nmillrace: destinations\.s3: .*\nmillrace: destinations\.drive: Nobody has signed in: .*\nmillrace: The command sh of encryption\.password ended with exit code 7\.\nmillrace: The key file .*password has \d+ bytes and holds no key of 32 bytes\..*\nmillrace: The file of servers\.b\.quiesce\.password .*rcon does not exist\.\n$/

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
  await writeFile(
    join(folder, 'many.yaml'),
    `destinations:
  b2: { provider: backblaze-b2, bucket: b, keyId: "\${NOT_THERE}", applicationKey: file:absent }
  s3: { provider: s3, bucket: b, prefix: a//b }
  drive: { provider: google-drive }
encryption: { password: "command:sh -c 'echo ${SECRET}; exit 7'" }
servers:
  a: { source: x, hooks: { before: "curl -H ${SECRET} https://x.example.org" } }
  b: { source: x, quiesce: { by: rcon, address: localhost, password: file:rcon } }
  c: { source: x, encryption: { key: file:password } }
`,
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
    usage(['status', '--from', 'file:///x'], /The required option --server is missing/, { cwd: bare }),
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
    usage(['config', 'check', 'many.yaml', '--secrets'], MANY_SECRETS),
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
