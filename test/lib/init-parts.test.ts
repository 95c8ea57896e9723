import assert from 'node:assert/strict'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { askEncryption, generatePassword } from '../../lib/cli/init/encryption.ts'
import { findMinecraft, parseProperties } from '../../lib/cli/init/minecraft.ts'
import { serverNameOf } from '../../lib/cli/init/names.ts'
import { pathChoices, typedPath } from '../../lib/cli/init/paths.ts'
import { SecretBox } from '../../lib/cli/init/secret-box.ts'
import { askServer } from '../../lib/cli/init/source.ts'
import { askRetention, askSchedule } from '../../lib/cli/init/times.ts'
import { RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { scratch } from '../support/cli.ts'
import { type Answer, scripted } from '../support/scripted-asker.ts'

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
  // What stands there already is not taken away first by whoever pastes a path.
  const stood = join(folder, 'world/')
  assert.deepEqual(pathChoices(stood + join(folder, 'wor'), stood), [join(folder, 'world'), join(folder, 'world2')])
  assert.deepEqual(pathChoices(`/${join(folder, 'world2')}`, '/'), [join(folder, 'world2')])
  assert.deepEqual(pathChoices(`${stood}~/`, stood), pathChoices('~/'))
  assert.deepEqual(pathChoices(`${stood}reg`, stood), [join(folder, 'world/region')])
  assert.equal(serverNameOf('Survival SMP (2)'), 'survival-smp-2')
  assert.equal(serverNameOf('Überwelt'), 'uberwelt')
  assert.equal(serverNameOf('世界'), 'server')
})

test('a server folder: the whole of it or its one world; RCON that is off is told, one elsewhere can be corrected', async (t) => {
  const folder = await scratch(t)
  const server = join(folder, 'My Server')
  await mkdir(join(server, 'world'), { recursive: true })
  await writeFile(join(server, 'world/level.dat'), '')
  await writeFile(join(server, 'server.properties'), 'enable-rcon=false\n')
  const signal = AbortSignal.timeout(60_000)
  const off = scripted([
    [/Which folder/, server],
    [/What of it/, 'Only the world'],
    [/called/, 'mine'],
  ])
  const box = new SecretBox(folder)
  assert.deepEqual(await askServer(off, box, signal), {
    name: 'mine',
    source: join(server, 'world'),
    quiesce: undefined,
  })
  assert.ok(off.said.some((text) => /RCON is off/.test(text)))

  const minecraft = await serveMinecraft()
  t.after(() => minecraft.close())
  // Port 1 is nobody's.
  await writeFile(
    join(server, 'server.properties'),
    `enable-rcon=true\nserver-ip=127.0.0.1\nrcon.port=1\nrcon.password=${RCON_PASSWORD}\n`,
  )
  const elsewhere = scripted([
    [/Which folder/, server],
    [/What of it/, 'The whole server'],
    [/called/, '='],
    [/Turn saving off by RCON/, true],
    [/Use it all the same/, false],
    [/RCON address/, `127.0.0.1:${minecraft.port}`],
  ])
  const answers = await askServer(elsewhere, box, signal)
  assert.deepEqual(answers, {
    name: 'my-server',
    source: server,
    quiesce: {
      by: 'rcon',
      address: `127.0.0.1:${minecraft.port}`,
      password: 'file:secrets/my-server-rcon-password',
      allowStopped: true,
    },
  })
  assert.equal(await box.value('file:secrets/my-server-rcon-password', 'rcon'), RCON_PASSWORD)
  assert.ok(!elsewhere.said.join('\n').includes(RCON_PASSWORD))

  const declined = scripted([
    [/Which folder/, join(server, 'world')],
    [/called/, 'UPPER'],
  ])
  await assert.rejects(askServer(declined, box, signal), /Small letters/)
  await assert.rejects(askServer(scripted([[/Which folder/, join(folder, 'none')]]), box, signal), /no such folder/)
})
