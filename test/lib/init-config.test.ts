import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Asker } from '../../lib/cli/init/ask.ts'
import { type Answers, configText, referencesOf } from '../../lib/cli/init/config-text.ts'
import { askDestination, correct, type DestinationContext } from '../../lib/cli/init/destination.ts'
import { SecretBox } from '../../lib/cli/init/secret-box.ts'
import { writeConfig } from '../../lib/cli/init/write.ts'
import { keysOf, loadConfig, serverSettings, storageConfigOf } from '../../lib/config/index.ts'
import { scratch } from '../support/cli.ts'
import { type Answer, scripted } from '../support/scripted-asker.ts'

const SECRETS = ['s3cr3t/with+signs=', 'an app secret', 'a refresh token', 'K005applicationKey']

const PROVIDERS: Record<string, { script: [RegExp, Answer][]; opens: object }> = {
  'a folder': {
    script: [
      [/Where do backups go/, 'A folder'],
      [/Which folder/, '/mnt/backups: "odd" #1'],
    ],
    opens: { provider: 'filesystem', root: '/mnt/backups: "odd" #1' },
  },
  'Amazon S3 with typed keys': {
    script: [
      [/Where do backups go/, 'S3'],
      [/Whose/, 'Amazon'],
      [/Bucket/, 'worlds'],
      [/Region/, 'eu-central-1'],
      [/Prefix/, '/mc/'],
      [/credentials/, 'Type'],
      [/Access key id/, ' AKIA123 '],
      [/Secret access key/, SECRETS[0] as string],
    ],
    opens: {
      provider: 's3',
      profile: 'aws',
      bucket: 'worlds',
      region: 'eu-central-1',
      prefix: 'mc',
      accessKeyId: 'AKIA123',
      secretAccessKey: SECRETS[0],
    },
  },
  'Amazon S3 where the SDK looks': {
    script: [
      [/Where do backups go/, 'S3'],
      [/Whose/, 'Amazon'],
      [/Bucket/, 'worlds'],
      [/Region/, 'eu-central-1'],
      [/Prefix/, ''],
      [/credentials/, 'AWS SDK'],
    ],
    opens: { provider: 's3', profile: 'aws', bucket: 'worlds', region: 'eu-central-1' },
  },
  'Cloudflare R2 with keys in the environment': {
    script: [
      [/Where do backups go/, 'S3'],
      [/Whose/, 'R2'],
      [/Endpoint/, 'https://abc.r2.cloudflarestorage.com'],
      [/Bucket/, 'worlds'],
      [/Region/, 'auto'],
      [/Prefix/, 'mc'],
      [/credentials/, 'environment'],
      [/Access key id: the variable/, 'MILLRACE_TEST_ID'],
      [/Secret access key: the variable/, 'MILLRACE_TEST_SECRET'],
    ],
    opens: {
      provider: 's3',
      profile: 'r2',
      endpoint: 'https://abc.r2.cloudflarestorage.com',
      bucket: 'worlds',
      region: 'auto',
      prefix: 'mc',
      accessKeyId: 'id of the environment',
      secretAccessKey: 'secret of the environment',
    },
  },
  'Google Drive': {
    script: [
      [/Where do backups go/, 'Google Drive'],
      [/Which folder/, 'backups/mc'],
      [/sign in to Google/, 'refresh token'],
      [/client id/, '1234.apps.googleusercontent.com'],
      [/client secret/, SECRETS[1] as string],
      [/Refresh token/, SECRETS[2] as string],
    ],
    opens: {
      provider: 'google-drive',
      folder: 'backups/mc',
      clientId: '1234.apps.googleusercontent.com',
      clientSecret: SECRETS[1],
      refreshToken: SECRETS[2],
    },
  },
  'Dropbox, by an app of PKCE': {
    script: [
      [/Where do backups go/, 'Dropbox'],
      [/Which folder/, '/backups'],
      [/sign in to Dropbox/, 'refresh token'],
      [/client id/, 'abcd1234'],
      [/Does the app have a secret/, false],
      [/Refresh token/, SECRETS[2] as string],
    ],
    opens: { provider: 'dropbox', root: '/backups', clientId: 'abcd1234', refreshToken: SECRETS[2] },
  },
  'Backblaze B2': {
    script: [
      [/Where do backups go/, 'Backblaze'],
      [/Bucket/, 'worlds'],
      [/Prefix/, 'mc'],
      [/credentials/, 'Type'],
      [/key id/, '0051'],
      [/Application key/, SECRETS[3] as string],
    ],
    opens: { provider: 'backblaze-b2', bucket: 'worlds', prefix: 'mc', keyId: '0051', applicationKey: SECRETS[3] },
  },
}

for (const [name, { script, opens }] of Object.entries(PROVIDERS)) {
  test(`the config for ${name} is valid, has mode 0600 and no secret, and opens what was answered`, async (t) => {
    const folder = await scratch(t)
    Object.assign(process.env, {
      MILLRACE_TEST_ID: 'id of the environment',
      MILLRACE_TEST_SECRET: 'secret of the environment',
    })
    const file = join(folder, 'etc/millrace.yaml')
    const box = new SecretBox(join(folder, 'etc'))
    const ask = scripted(script)
    const destination = await askDestination(contextOf(ask, box), new Set())
    assert.equal(ask.left(), 0)
    const answers: Answers = {
      server: { name: 'survival', source: '/srv/mc/It\'s a "world": #1' },
      destinations: [destination],
      encryption: { password: await box.keep('password', 'correct horse') },
      schedule: { cron: '0 * * * *', timezone: undefined, maxAge: '3h' },
      retention: { keepHourly: 24, keepDaily: 14, keepWeekly: 8 },
    }
    assert.deepEqual(await readdir(folder), [], 'nothing is written before the end')
    await writeConfig(file, configText(answers, file), box, { replace: false })

    assert.equal((await stat(file)).mode & 0o777, 0o600)
    const text = await readFile(file, 'utf8')
    for (const secret of [...SECRETS, 'correct horse']) assert.ok(!text.includes(secret))
    const loaded = await loadConfig(file)
    assert.deepEqual(loaded.warnings, [])
    assert.deepEqual(await storageConfigOf(loaded, destination.name), opens)
    assert.equal(serverSettings(loaded, 'survival').source, '/srv/mc/It\'s a "world": #1')
    assert.deepEqual((await keysOf(loaded, 'survival'))?.password, ['correct horse'])
  })
}

function contextOf(ask: Asker, box: SecretBox): DestinationContext {
  return { ask, box, signIn: () => assert.fail('nobody signs in here'), source: '/srv/world' }
}

test('signing in keeps what it gives, and one that fails is asked again', async (t) => {
  const folder = await scratch(t)
  const box = new SecretBox(folder)
  let times = 0
  const ask = scripted([
    [/Where do backups go/, 'Dropbox'],
    [/Which folder/, '/backups'],
    [/sign in to Dropbox/, 'Sign in now'],
    [/client id/, 'abcd1234'],
    [/Where is the browser/, 'another'],
    [/sign in to Dropbox/, 'Sign in now'],
    [/client id/, 'abcd1234'],
    [/Where is the browser/, 'this machine'],
  ])
  const { settings } = await askDestination(
    {
      ask,
      box,
      source: '/srv/world',
      async signIn(store, app, paste) {
        times += 1
        assert.equal(paste, times === 1)
        if (times === 1) throw new Error('The code was refused.')
        return { ...app, refreshToken: `token of ${store}` } as { clientId: string; refreshToken: string }
      },
    },
    new Set(['dropbox']),
  )
  assert.ok(ask.said.includes('The code was refused.'))
  const { refreshToken } = settings as { refreshToken: string }
  assert.equal(await box.value(refreshToken, 'refreshToken'), 'token of dropbox')
})

test('credentials that are corrected replace those before, and what nothing refers to is not written', async (t) => {
  const folder = await scratch(t)
  const box = new SecretBox(folder)
  const first = PROVIDERS['Backblaze B2']?.script as [RegExp, Answer][]
  const destination = await askDestination(contextOf(scripted(first), box), new Set())
  const again = scripted([
    [/credentials/, 'Type'],
    [/key id/, '0052'],
    [/Application key/, 'the right one'],
  ])
  const { settings } = await correct(contextOf(again, box), destination, 'credentials')
  const dropped = await box.keep('nobody', 'asks for it')
  const references = referencesOf({
    server: { name: 'a', source: '/a' },
    destinations: [{ name: 'b2', settings }],
    encryption: false,
    schedule: { cron: '@daily', timezone: undefined, maxAge: '1d' },
    retention: { keepLast: 1 },
  })
  assert.ok(!references.has(dropped))
  box.keepOnly(references)
  await box.write()
  assert.deepEqual(await readdir(join(folder, 'secrets')), ['b2-application-key', 'b2-key-id'])
  assert.equal(await readFile(join(folder, 'secrets/b2-application-key'), 'utf8'), 'the right one\n')
})

test('a config that cannot be written leaves no secret behind, and one that came meanwhile stays', async (t) => {
  const folder = await scratch(t)
  const file = join(folder, 'millrace.yaml')
  await writeFile(file, 'mine')
  const box = new SecretBox(folder)
  await box.keep('password', 'correct horse')
  await assert.rejects(writeConfig(file, 'other', box, { replace: false }), /TARGET|there by now/)
  assert.deepEqual(await readdir(folder), ['millrace.yaml'])
  assert.equal(await readFile(file, 'utf8'), 'mine')
})

test('a store in what is backed up is refused; a neighbour of a like name is none', async (t) => {
  const box = new SecretBox(await scratch(t))
  const answer = (root: string) =>
    askDestination(
      contextOf(
        scripted([
          [/Where do backups go/, 'A folder'],
          [/Which folder/, root],
        ]),
        box,
      ),
      new Set(['local']),
    )
  for (const within of ['/srv/world', '/srv/world/backups', '/srv/world/..backups']) {
    await assert.rejects(answer(within), /in what is backed up/)
  }
  const beside = await answer('/srv/world2')
  assert.deepEqual(beside, { name: 'local-2', settings: { provider: 'filesystem', root: '/srv/world2' } })
})

test('secrets that cannot be kept are an error before anything is written, and never a loop', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'secrets'), 'a file in the way')
  await assert.rejects(new SecretBox(folder).keep('password', 'x'), { code: 'TARGET' })
  const other = join(folder, 'other')
  await mkdir(join(other, 'secrets/password'), { recursive: true })
  assert.equal(await new SecretBox(other).keep('password', 'x'), 'file:secrets/password-2')
})
