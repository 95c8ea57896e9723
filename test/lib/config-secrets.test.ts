import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { openStorage, type StorageConfig } from '../../adapters/open.ts'
import {
  createOptionsOf,
  openDestination,
  openServer,
  parseConfig,
  resolveKey,
  resolvePassword,
  resolveSecret,
  serverSettings,
  storageConfigOf,
} from '../../lib/config/index.ts'
import { BackupError } from '../../lib/errors.ts'
import { PBKDF2_MIN_ITERATIONS } from '../../transforms/index.ts'
import { scratch } from '../support/cli.ts'

const SECRET = 'hunter2-S3cr3t'

function setEnvironment(t: TestContext, values: Record<string, string | undefined>): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name]
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
    t.after(() => {
      if (before === undefined) delete process.env[name]
      else process.env[name] = before
    })
  }
}

/** Resolving fails with this message, and nothing of a secret is in it. */
async function refuses(run: Promise<unknown>, says: RegExp): Promise<void> {
  await assert.rejects(run, (error) => {
    assert.ok(error instanceof BackupError, String(error))
    assert.equal(error.code, 'USAGE')
    assert.match(error.message, says)
    assert.ok(!error.message.includes(SECRET), error.message)
    return true
  })
}

test('a secret is had from the environment, a file or a command, less one line end', async (t) => {
  const folder = await scratch(t)
  const at = { folder, what: 'encryption.password' }
  setEnvironment(t, { MILLRACE_TEST_A: SECRET })
  assert.equal(String(await resolveSecret('${MILLRACE_TEST_A}', at)), SECRET)
  await mkdir(join(folder, 'sub dir'))
  for (const [content, expected] of [
    [SECRET, SECRET],
    [`${SECRET}\n`, SECRET],
    [`${SECRET}\r\n`, SECRET],
    [`${SECRET}\n\n`, `${SECRET}\n`],
    [` ${SECRET} `, ` ${SECRET} `],
  ] as const) {
    await writeFile(join(folder, 'sub dir/p'), content)
    assert.equal(String(await resolveSecret('file:sub dir/p', at)), expected)
    assert.equal(String(await resolveSecret(`file:${folder}/sub dir/p`, at)), expected)
    assert.equal(String(await resolveSecret("command:cat 'sub dir/p'", at)), expected)
  }
  // No shell: what it would expand stays as it is.
  assert.equal(String(await resolveSecret('command:printf %s "a  b" $HOME *', at)), 'a  b$HOME*')
  assert.equal(String(await resolveSecret(`command:sh -c 'printf "%s" "$0"' "it's"`, at)), "it's")
})

test('a secret that cannot be had is told by where it should be, and never by what it is', async (t) => {
  const folder = await scratch(t)
  const at = { folder, what: 'servers.a.encryption.password' }
  setEnvironment(t, { MILLRACE_TEST_A: undefined, MILLRACE_TEST_B: '' })
  const file = join(folder, 'p')
  await refuses(
    resolveSecret('${MILLRACE_TEST_A}', at),
    /^servers\.a\.encryption\.password is in the environment variable MILLRACE_TEST_A, which is not set\.$/,
  )
  await refuses(resolveSecret('${MILLRACE_TEST_B}', at), /MILLRACE_TEST_B, which is set and empty\.$/)
  await refuses(
    resolveSecret('file:absent', at),
    /^The file of servers\.a\.encryption\.password .*\/absent does not exist\.$/,
  )
  await refuses(resolveSecret('file:.', at), /cannot be read/)
  await writeFile(file, '\n')
  await refuses(resolveSecret('file:p', at), /p of servers\.a\.encryption\.password is empty\.$/)
  await writeFile(file, SECRET.repeat(10_000))
  await refuses(resolveSecret('file:p', at), /larger than 64 KiB: it is another file\.$/)
  await writeFile(file, Buffer.from([0xff, 0xfe, 0x41]))
  await refuses(resolvePassword('file:p', at), /holds no UTF-8 text\.$/)
  await refuses(resolveSecret(SECRET, at), /must say where the secret is/)
  await refuses(
    resolveSecret(`command:${SECRET}-is-no-program`.replace(SECRET, 'x'), at),
    /^The command x-is-no-program of servers\.a\.encryption\.password cannot be run: there is no such program\.$/,
  )
  await refuses(resolveSecret(`command:cat "${SECRET}`, at), /has a quote that is not closed\.$/)
  await refuses(resolveSecret('command:  ', at), /names no program\.$/)
  await refuses(resolveSecret('command:true', at), /^The command true of .* wrote nothing to its standard output\.$/)
  await refuses(
    resolveSecret(`command:sh -c 'echo ${SECRET}; exit 3'`, at),
    /^The command sh of servers\.a\.encryption\.password ended with exit code 3\.$/,
  )
  await refuses(
    resolveSecret(`command:sh -c 'echo ${SECRET}; printf "no\\033[2J key\\n\\007" >&2; exit 1'`, at),
    /^The command sh of servers\.a\.encryption\.password ended with exit code 1: no \[2J key$/,
  )
  await refuses(resolveSecret("command:sh -c 'kill -9 $$'", at), /was ended by SIGKILL\.$/)
  await refuses(
    resolveSecret(`command:sh -c 'while :; do echo ${SECRET}; done'`, at),
    /wrote more than 64 KiB: that is no secret\.$/,
  )
  const script = join(folder, 'script')
  await writeFile(script, `#!/bin/sh\necho ${SECRET}\n`)
  await refuses(resolveSecret('command:./script', at), /cannot be run \(EACCES\)/)
  await chmod(script, 0o700)
  assert.equal(String(await resolveSecret('command:./script', at)), SECRET)
})

test('a command that goes on is ended, with all that it started', async (t) => {
  const folder = await scratch(t)
  const at = { folder, what: 'encryption.password', commandMs: 2_000 }
  await refuses(resolveSecret("command:sh -c 'sleep 600 & echo $! > pid; wait'", at), /did not end within 2 seconds\.$/)
  const child = (await readFile(join(folder, 'pid'), 'utf8')).trim()
  while (await isAlive(child)) await setTimeout(20)
  // One that left something running behind has answered all the same.
  assert.equal(
    String(await resolveSecret("command:sh -c 'echo x; sleep 2 >/dev/null 2>&1 &'", { folder, what: 'x' })),
    'x',
  )
})

test('T26: a key is 32 bytes of a file, or hex or base64 of anywhere, and nothing else', async (t) => {
  const folder = await scratch(t)
  const at = { folder, what: 'encryption.key' }
  const key = randomBytes(32)
  // A raw key may end as a line does.
  key[31] = 0x0a
  await writeFile(join(folder, 'raw'), key)
  await writeFile(join(folder, 'hex'), `${key.toString('hex')}\n`)
  assert.deepEqual(await resolveKey('file:raw', at), key)
  assert.deepEqual(await resolveKey('file:hex', at), key)
  assert.deepEqual(await resolveKey('command:cat hex', at), key)
  setEnvironment(t, { MILLRACE_TEST_K: key.toString('base64') })
  assert.deepEqual(await resolveKey('${MILLRACE_TEST_K}', at), key)
  setEnvironment(t, { MILLRACE_TEST_K: SECRET })
  await refuses(resolveKey('${MILLRACE_TEST_K}', at), /^What encryption\.key says is no key of 32 bytes/)
  await writeFile(join(folder, 'short'), key.subarray(1))
  await refuses(resolveKey('file:short', at), /holds no key of 32 bytes/)
})

async function isAlive(pid: string): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z')
  return !/\) [ZX]/.test(stat)
}

/** A destination of the config, with secrets from the environment, and what the adapters get. */
const PROVIDERS: [string, StorageConfig][] = [
  ['{ provider: filesystem, root: store, bandwidth: 1MiB/s }', { provider: 'filesystem', root: '/etc/millrace/store' }],
  ['{ provider: s3, bucket: b }', { provider: 's3', bucket: 'b' }],
  [
    `{ provider: s3, bucket: b, prefix: p/q, region: eu-central-1, endpoint: "http://127.0.0.1:9", profile: minio,
       accessKeyId: "\${T_ID}", secretAccessKey: "\${T_SECRET}", sessionToken: "\${T_TOKEN}", forcePathStyle: true,
       conditionalWrites: false, integrity: sha256, uploader: lib-storage, storageClass: STANDARD_IA,
       encryption: { algorithm: "aws:kms", keyId: alias/x, bucketKey: true },
       objectLock: { mode: GOVERNANCE, days: 30 }, tags: { app: millrace }, partBytes: 16MiB, readBandwidth: 2MB/s }`,
    {
      provider: 's3',
      bucket: 'b',
      prefix: 'p/q',
      region: 'eu-central-1',
      endpoint: 'http://127.0.0.1:9',
      profile: 'minio',
      accessKeyId: 'id',
      secretAccessKey: SECRET,
      sessionToken: 'token',
      forcePathStyle: true,
      conditionalWrites: false,
      integrity: 'sha256',
      uploader: 'lib-storage',
      storageClass: 'STANDARD_IA',
      encryption: { algorithm: 'aws:kms', keyId: 'alias/x', bucketKey: true },
      objectLock: { mode: 'GOVERNANCE', days: 30 },
      tags: { app: 'millrace' },
      partBytes: 16 * 1024 * 1024,
    },
  ],
  [
    `{ provider: google-drive, clientId: "\${T_ID}", clientSecret: "\${T_SECRET}", refreshToken: "\${T_TOKEN}",
       folder: backups/mc, sharedDriveId: d, partBytes: 33554432, endpoint: "http://127.0.0.1:9" }`,
    {
      provider: 'google-drive',
      clientId: 'id',
      clientSecret: SECRET,
      refreshToken: 'token',
      folder: 'backups/mc',
      sharedDriveId: 'd',
      partBytes: 33_554_432,
      endpoints: { api: 'http://127.0.0.1:9', token: 'http://127.0.0.1:9' },
    },
  ],
  [
    '{ provider: google-drive, folderId: f }',
    {
      provider: 'google-drive',
      clientId: 'kept',
      clientSecret: 'kept-secret',
      refreshToken: 'kept-token',
      folderId: 'f',
    },
  ],
  [
    '{ provider: google-drive, appData: true }',
    {
      provider: 'google-drive',
      clientId: 'kept',
      clientSecret: 'kept-secret',
      refreshToken: 'kept-token',
      appData: true,
    },
  ],
  [
    `{ provider: dropbox, clientId: "\${T_ID}", refreshToken: "\${T_TOKEN}", root: /backups, namespace: "12",
       session: sequential, partBytes: 4194304, endpoint: "http://127.0.0.1:9" }`,
    {
      provider: 'dropbox',
      clientId: 'id',
      refreshToken: 'token',
      root: '/backups',
      namespace: '12',
      session: 'sequential',
      partBytes: 4_194_304,
      endpoint: 'http://127.0.0.1:9',
    },
  ],
  [
    '{ provider: dropbox, rootNamespace: "3" }',
    { provider: 'dropbox', clientId: 'kept', refreshToken: 'kept-token', rootNamespace: '3' },
  ],
  [
    `{ provider: backblaze-b2, bucket: b, prefix: p, keyId: "\${T_ID}", applicationKey: "\${T_SECRET}",
       partBytes: 5000000, endpoint: "http://127.0.0.1:9" }`,
    {
      provider: 'backblaze-b2',
      bucket: 'b',
      prefix: 'p',
      keyId: 'id',
      applicationKey: SECRET,
      partBytes: 5_000_000,
      endpoint: 'http://127.0.0.1:9',
    },
  ],
]

test("each provider's part of the config becomes what its adapter takes, and opens it", async (t) => {
  const xdg = await scratch(t)
  await mkdir(join(xdg, 'millrace'))
  const kept = { clientId: 'kept', refreshToken: 'kept-token' }
  await writeFile(join(xdg, 'millrace/google-drive.json'), JSON.stringify({ ...kept, clientSecret: 'kept-secret' }))
  await writeFile(join(xdg, 'millrace/dropbox.json'), JSON.stringify(kept))
  setEnvironment(t, {
    XDG_CONFIG_HOME: xdg,
    T_ID: 'id',
    T_SECRET: SECRET,
    T_TOKEN: 'token',
    MILLRACE_GOOGLE_REFRESH_TOKEN: undefined,
    MILLRACE_DROPBOX_REFRESH_TOKEN: undefined,
  })
  for (const [yaml, expected] of PROVIDERS) {
    const text = `destinations: { here: ${yaml} }\nservers: { a: { source: x } }\n`
    const loaded = parseConfig(text, '/etc/millrace/millrace.yaml')
    assert.deepEqual(await storageConfigOf(loaded, 'here'), expected)
    await (await openStorage(expected)).close()
    const storage = await openDestination(loaded, 'here')
    assert.equal(storage.adapter, expected.provider)
    await storage.close()
  }
})

test('a destination that is not there, or whose secret is not, is told by its name', async (t) => {
  const loaded = parseConfig(
    'destinations: { offsite: { provider: backblaze-b2, bucket: b, keyId: file:absent, applicationKey: file:absent } }\nservers: { a: { source: x } }',
    join(await scratch(t), 'millrace.yaml'),
  )
  await refuses(
    openDestination(loaded, 'ofsite'),
    /has no destination called ofsite\. Did you mean offsite\? It has offsite\.$/,
  )
  await refuses(
    openDestination(loaded, 'offsite'),
    /^The file of destinations\.offsite\.keyId .*absent does not exist\.$/,
  )
})

test('a server is opened with its destinations, its password, and what older snapshots were written with', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  await writeFile(join(folder, 'world/level.dat'), 'level')
  setEnvironment(t, { T_OLD: 'old password', T_NEW: 'new password', MILLRACE_PASSWORD: undefined })
  const config = (encryption: string) =>
    parseConfig(
      `destinations:
  one: { provider: filesystem, root: one }
  two: { provider: filesystem, root: two, bandwidth: 1GiB/s, readBandwidth: 1GiB/s }
servers: { survival: { source: world, destinations: [two, one]${encryption} } }
stateFolder: state`,
      join(folder, 'millrace.yaml'),
    )
  const backUp = async (encryption: string) => {
    const loaded = config(encryption)
    const backups = await openServer(loaded, 'survival')
    assert.deepEqual(
      backups.storages.map(({ location }) => location),
      [`file://${folder}/two`, `file://${folder}/one`],
    )
    const settings = serverSettings(loaded, 'survival')
    const options = await createOptionsOf(loaded, settings)
    const made = await backups.create(settings.source, { ...options, iterations: PBKDF2_MIN_ITERATIONS })
    await backups.close()
    return made.id
  }
  const first = await backUp(', encryption: { password: "${T_OLD}" }')
  const key = randomBytes(32).toString('hex')
  setEnvironment(t, { T_KEY: key })
  const second = await backUp(
    ', encryption: { password: "${T_NEW}", previousPasswords: ["${T_OLD}"], previousKeys: ["${T_KEY}"] }',
  )
  // The second is of the new password, though a key is there too.
  const statuses = async (encryption: string) => {
    const backups = await openServer(config(encryption), 'survival', { destinations: ['one'] })
    const found: Record<string, string> = {}
    for await (const one of backups.verifyAll()) found[one.id] = one.status
    await backups.close()
    return [found[first], found[second]]
  }
  assert.deepEqual(
    await statuses(
      ', encryption: { password: "${T_NEW}", previousPasswords: ["${T_OLD}"], previousKeys: ["${T_KEY}"] }',
    ),
    ['ok', 'ok'],
  )
  assert.deepEqual(await statuses(', encryption: { password: "${T_NEW}" }'), ['failed', 'ok'])
  await refuses(
    openServer(config(''), 'survival'),
    /has no encryption for survival, and MILLRACE_PASSWORD is not set\./,
  )
  setEnvironment(t, { MILLRACE_PASSWORD: 'new password' })
  assert.deepEqual(await statuses(''), ['failed', 'ok'])
  await refuses(openServer(config(''), 'survival', { destinations: ['three'] }), /has no destination called three/)
})
