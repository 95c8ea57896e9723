import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Asker, Choice, Validate } from '../../lib/cli/init/ask.ts'
import { type Answers, configText, referencesOf } from '../../lib/cli/init/config-text.ts'
import { askDestination, correct, type DestinationContext } from '../../lib/cli/init/destination.ts'
import { askEncryption, generatePassword } from '../../lib/cli/init/encryption.ts'
import { findMinecraft, parseProperties } from '../../lib/cli/init/minecraft.ts'
import { serverNameOf } from '../../lib/cli/init/names.ts'
import { pathChoices, typedPath } from '../../lib/cli/init/paths.ts'
import { SecretBox } from '../../lib/cli/init/secret-box.ts'
import { askRetention, askSchedule } from '../../lib/cli/init/times.ts'
import { writeConfig } from '../../lib/cli/init/write.ts'
import { keysOf, loadConfig, serverSettings, storageConfigOf } from '../../lib/config/index.ts'
import { scratch } from '../support/cli.ts'

type Answer = string | boolean | number

/**
 * Answers questions in their order, each by the words that it must have. A choice is answered by a part of its label.
 * What is refused is an error here.
 */
function scripted(script: [RegExp, Answer][]): Asker & { said: string[]; left(): number } {
  const rest = [...script]
  const said: string[] = []
  const next = (message: string): Answer => {
    const [pattern, answer] = rest.shift() ?? assert.fail(`Nobody expected: ${message}`)
    assert.match(message, pattern)
    return answer
  }
  const held = async (message: string, validate: Validate | undefined) => {
    const answer = String(next(message))
    assert.equal(await validate?.(answer), undefined, message)
    return answer
  }
  return {
    said,
    left: () => rest.length,
    text: (message, { initial, validate } = {}) =>
      held(message, validate).then((answer) => (answer === '=' ? (initial ?? '') : answer)),
    hidden: held,
    path: (message, { validate }) => held(message, validate),
    async choose<T>(message: string, choices: readonly Choice<T>[]) {
      const wanted = String(next(message))
      return (
        choices.find(({ label }) => label.includes(wanted)) ?? assert.fail(`${wanted} is no choice of ${message}`)
      ).value
    },
    confirm: async (message) => Boolean(next(message)),
    say: (_, text) => said.push(text),
    box: (_, text) => said.push(text),
  }
}

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
  return { ask, box, signIn: () => assert.fail('nobody signs in here') }
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

test('encryption: a new key, a key file that is checked, a variable, and nothing after a warning', async (t) => {
  const folder = await scratch(t)
  const box = new SecretBox(folder)
  const what = /encrypted with/
  const made = await askEncryption(
    scripted([
      [what, 'key file'],
      [/file with the key/, ''],
    ]),
    box,
  )
  assert.deepEqual(made, { key: 'file:secrets/key' })
  assert.match(await box.value('file:secrets/key', 'key'), /^[0-9a-f]{64}$/)

  await writeFile(join(folder, 'mine'), Buffer.alloc(32, 7))
  const mine = await askEncryption(
    scripted([
      [what, 'key file'],
      [/file with the key/, join(folder, 'mine')],
    ]),
    box,
  )
  assert.deepEqual(mine, { key: `file:${join(folder, 'mine')}` })
  await writeFile(join(folder, 'short'), Buffer.alloc(31, 7))
  await assert.rejects(
    askEncryption(
      scripted([
        [what, 'key file'],
        [/file with the key/, join(folder, 'short')],
      ]),
      box,
    ),
  )

  const variable = await askEncryption(
    scripted([
      [what, 'environment variable'],
      [/variable/, 'WORLD_PASSWORD'],
    ]),
    box,
  )
  assert.deepEqual(variable, { password: '${WORLD_PASSWORD}' })

  const ask = scripted([
    [what, 'Nothing'],
    [/without encryption/, false],
    [what, 'Nothing'],
    [/without encryption/, true],
  ])
  assert.equal(await askEncryption(ask, box), false)
  assert.ok(ask.said.some((text) => /whoever gets at the store reads all/.test(text)))

  const short = scripted([
    [what, 'of your own'],
    [/Password/, 'abc'],
    [/same again/, 'abc'],
    [/shorter than/, false],
    [/Password/, 'long enough for this'],
    [/same again/, 'long enough for this'],
  ])
  assert.deepEqual(await askEncryption(short, box), { password: 'file:secrets/password' })
  assert.equal(await box.value('file:secrets/password', 'password'), 'long enough for this')
  assert.equal(new Set(Array.from({ length: 50 }, generatePassword)).size, 50)
})

test('schedules know when their newest snapshot is too old; retention takes own numbers, and refuses none at all', async () => {
  const when = /When are backups made/
  assert.deepEqual(await askSchedule(scripted([[when, 'Every hour']])), {
    cron: '0 * * * *',
    timezone: undefined,
    maxAge: '3h',
  })
  assert.deepEqual(
    await askSchedule(
      scripted([
        [when, '6 hours'],
        [/Time zone/, 'UTC'],
      ]),
    ),
    {
      cron: '0 */6 * * *',
      timezone: 'UTC',
      maxAge: '8h',
    },
  )
  // From Friday to Monday.
  const own = await askSchedule(
    scripted([
      [when, 'other'],
      [/Minute/, '15 3 * * 1-5'],
      [/Time zone/, 'UTC'],
    ]),
  )
  assert.deepEqual(own, { cron: '15 3 * * 1-5', timezone: 'UTC', maxAge: '74h' })
  await assert.rejects(
    askSchedule(
      scripted([
        [when, 'other'],
        [/Minute/, '61 * * * *'],
      ]),
    ),
  )
  await assert.rejects(
    askSchedule(
      scripted([
        [when, 'Every day'],
        [/Time zone/, 'Mars/Olympus'],
      ]),
    ),
  )

  const numbers = (...counts: string[]): [RegExp, Answer][] => counts.map((count) => [/Of how many/, count])
  const ask = scripted([[/Keep that many/, false], ...numbers('0', '0', '0', '0'), ...numbers('6', '7', '0', '12')])
  assert.deepEqual(await askRetention(ask), { keepHourly: 6, keepDaily: 7, keepMonthly: 12 })
})

test('a Minecraft server is known by its files, with the worlds that Paper splits', async (t) => {
  const folder = await scratch(t)
  const server = join(folder, 'paper')
  for (const world of ['lobby', 'lobby_nether', 'lobby_the_end']) {
    await mkdir(join(server, world), { recursive: true })
    await writeFile(join(server, world, 'level.dat'), '')
  }
  assert.equal(await findMinecraft(server), undefined)
  await writeFile(
    join(server, 'server.properties'),
    'level-name=lobby\nenable-rcon=true\nrcon.port=25580\nrcon.password=a\\:b\\=c\\u00e9 \\#1\n',
  )
  const found = await findMinecraft(server)
  assert.deepEqual(
    found?.worlds,
    ['lobby', 'lobby_nether', 'lobby_the_end'].map((world) => join(server, world)),
  )
  assert.equal(found?.isServer, true)
  assert.deepEqual(found?.rcon, {
    file: join(server, 'server.properties'),
    enabled: true,
    address: 'localhost:25580',
    password: 'a:b=cé #1',
  })
  const world = await findMinecraft(join(server, 'lobby'))
  assert.deepEqual([world?.isServer, world?.name], [false, 'paper'])
  assert.equal(parseProperties('# a comment\n!another\nkey : value\n').get('key'), 'value')
})

test('a path that is typed in full is never taken for one that begins like it', async (t) => {
  const folder = await scratch(t)
  for (const name of ['world', 'world2', 'world/region', '.hidden'])
    await mkdir(join(folder, name), { recursive: true })
  await symlink('nowhere', join(folder, 'dangling'))
  assert.deepEqual(pathChoices(join(folder, 'world')), [join(folder, 'world')])
  assert.deepEqual(pathChoices(join(folder, 'wor')), [join(folder, 'world'), join(folder, 'world2')])
  assert.deepEqual(pathChoices(join(folder, 'world/')), [join(folder, 'world'), join(folder, 'world/region')])
  assert.deepEqual(pathChoices(join(folder, 'none/at/all')), [])
  assert.equal(pathChoices(join(folder, '/')).includes(join(folder, '.hidden')), false)
  assert.deepEqual(pathChoices(''), [])
  assert.equal(typedPath('~/x'), join(homedir(), 'x'))
  assert.equal(serverNameOf('Survival SMP (2)'), 'survival-smp-2')
  assert.equal(serverNameOf('Überwelt'), 'uberwelt')
  assert.equal(serverNameOf('世界'), 'server')
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
