import assert from 'node:assert/strict'
import { chmod, chown, lchown, mkdir, realpath, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { findConfigFile, loadConfig, parseConfig, serverNames, serverSettings } from '../../lib/config/index.ts'
import { BackupError } from '../../lib/errors.ts'
import { nearest } from '../../lib/nearest.ts'
import { scratch } from '../support/cli.ts'
import { problems, SECRET, server } from '../support/wrong-config.ts'

test('whatever a file holds, it is a config or a BackupError that says where', () => {
  const isTold = (text: string) => {
    try {
      parseConfig(text, 'millrace.yaml')
    } catch (error) {
      if (!(error instanceof BackupError)) throw error
      assert.match(error.message, /^millrace\.yaml[: ]/)
    }
  }
  // fast-check's own strings of any character take seconds to set up.
  const unit = fc.oneof(fc.integer({ min: 0, max: 0x7f }), fc.integer({ min: 0, max: 0xffff }))
  const units = fc.array(unit, { maxLength: 300 }).map((codes) => String.fromCharCode(...codes))
  fc.assert(fc.property(units, isTold), { numRuns: 300 })
  const token = fc.constantFrom(
    'a',
    ': ',
    '- ',
    '\n',
    '  ',
    '{',
    '}',
    '[',
    ']',
    ',',
    '&x ',
    '*x',
    '!t ',
    '"',
    "'",
    '#',
    '|',
    '>',
    '<<: ',
    '? ',
    '---\n',
    '\t',
    'servers',
    'destinations',
    '__proto__',
    'null',
    '1',
  )
  fc.assert(
    fc.property(fc.array(token, { maxLength: 40 }), (tokens) => isTold(tokens.join(''))),
    { numRuns: 400 },
  )
  const keys = [
    'destinations',
    'servers',
    'defaults',
    'encryption',
    'source',
    'schedule',
    'retention',
    'provider',
    'quiesce',
    'by',
    'password',
    'keepLast',
    'constructor',
    'toString',
    '__proto__',
    'a',
  ]
  const tree = fc.letrec((tie) => ({
    node: fc.oneof(
      { depthSize: 'small', maxDepth: 4 },
      fc.constantFrom(null, true, 0, -1, 1.5, 's3', 'rcon', 'a', '', 'file:x', '@daily', '14d'),
      fc.array(tie('node'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...keys), tie('node'), { maxKeys: 5 }),
    ),
  })).node
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...keys), tree), (value) => isTold(JSON.stringify(value))),
    { numRuns: 400 },
  )
})

test('anchors and merge keys share what servers have in common, and an error in it has its place', () => {
  const text = (level: string) => `
destinations: { local: { provider: filesystem, root: store } }
servers:
  survival: &common
    source: world
    level: ${level}
  creative:
    <<: *common
    source: other
`
  const loaded = parseConfig(text('7'), 'millrace.yaml')
  assert.equal(serverSettings(loaded, 'creative').level, 7)
  assert.equal(serverSettings(loaded, 'creative').source, resolve('other'))
  assert.ok(problems(text('77')).includes('6:12 servers.survival.level must be a whole number from 1 to 22.'))
})

test('a server has what it says, and the rest from defaults; names of the language are names like others', () => {
  const loaded = parseConfig(
    `
destinations:
  local: { provider: filesystem, root: ../store }
  constructor: { provider: filesystem, root: /mnt/x }
  spare: { provider: filesystem, root: /mnt/y }
defaults:
  destinations: [local, constructor]
  level: 5
  hooks: { before: a, after: b }
  retention: { keepDaily: 3 }
encryption: { password: file:p }
servers:
  survival: { source: worlds/one, hooks: { before: c }, prune: false }
  tostring: { sourceCommand: [pg_dump, game], destinations: [local], encryption: false, retention: { keepLast: 2 } }
`,
    '/etc/millrace/millrace.yaml',
  )
  assert.deepEqual(serverNames(loaded), ['survival', 'tostring'])
  assert.deepEqual(serverSettings(loaded, 'survival'), {
    name: 'survival',
    source: '/etc/millrace/worlds/one',
    destinations: ['local', 'constructor'],
    level: 5,
    hooks: { before: 'c' },
    retention: { keepDaily: 3 },
    prune: false,
    encryption: { password: 'file:p' },
  })
  const other = serverSettings(loaded, 'tostring')
  assert.deepEqual(other.source, { command: ['pg_dump', 'game'] })
  assert.equal(other.encryption, false)
  assert.equal(other.prune, true)
  assert.deepEqual(loaded.warnings, ['/etc/millrace/millrace.yaml:5:3 destinations.spare is used by no server.'])
  assert.throws(() => serverSettings(loaded, 'toString'), {
    message:
      '/etc/millrace/millrace.yaml has no server called toString. Did you mean tostring? It has survival, tostring.',
  })
  assert.throws(() => serverSettings(loaded, SECRET.repeat(9)), /has no server of that name\. It has/)
})

test('a config that cannot be read, is no file, too large or not UTF-8 is told so', async (t) => {
  const folder = await scratch(t)
  const refuses = async (name: string, says: RegExp) => {
    await assert.rejects(loadConfig(join(folder, name)), (error) => {
      assert.ok(error instanceof BackupError && error.code === 'USAGE')
      assert.match(error.message, says)
      return true
    })
  }
  await refuses('absent.yaml', /absent\.yaml does not exist\.$/)
  await mkdir(join(folder, 'folder.yaml'))
  await refuses('folder.yaml', /folder\.yaml is not a file\.$/)
  await writeFile(join(folder, 'large.yaml'), `a: |\n${' x\n'.repeat(400_000)}`)
  await refuses('large.yaml', /large\.yaml is larger than 1 MiB: it is another file\.$/)
  await writeFile(join(folder, 'latin.yaml'), Buffer.from([0x61, 0x3a, 0x20, 0xe4]))
  await refuses('latin.yaml', /latin\.yaml is not UTF-8 text\.$/)
})

test('a config that others can write is a danger; one that says where secrets are, and they can read, a warning', async (t) => {
  const file = join(await scratch(t), 'millrace.yaml')
  const write = async (encryption: string, mode: number) => {
    await writeFile(file, server(`encryption: ${encryption}`))
    await chmod(file, mode)
    const { warnings, dangers } = await loadConfig(file)
    return { warnings: warnings.length, dangers: dangers.length }
  }
  assert.deepEqual(await write('{ password: "${X}" }', 0o600), { warnings: 0, dangers: 0 })
  assert.deepEqual(await write('{ password: "${X}" }', 0o640), { warnings: 1, dangers: 0 })
  assert.deepEqual(await write('{ password: "command:pass show x" }', 0o604), { warnings: 1, dangers: 0 })
  assert.deepEqual(await write('{ password: file:p }', 0o644), { warnings: 0, dangers: 0 })
  assert.deepEqual(await write('{ password: file:p }', 0o664), { warnings: 1, dangers: 0 })
  assert.deepEqual(await write('{ password: file:p }', 0o646), { warnings: 1, dangers: 1 })
})

test('the config is the one that is named, or the environment says, or the first in its places', async (t) => {
  const folder = await scratch(t)
  const before = { ...process.env, cwd: process.cwd() }
  t.after(() => {
    process.chdir(before.cwd)
    for (const name of ['MILLRACE_CONFIG', 'XDG_CONFIG_HOME']) {
      if (before[name as keyof typeof before] === undefined) delete process.env[name]
      else process.env[name] = before[name as keyof typeof before]
    }
  })
  await mkdir(join(folder, 'xdg/millrace'), { recursive: true })
  await mkdir(join(folder, 'here'))
  process.chdir(join(folder, 'here'))
  delete process.env.MILLRACE_CONFIG
  process.env.XDG_CONFIG_HOME = join(folder, 'xdg')
  const inHome = join(folder, 'xdg/millrace/millrace.yaml')
  await writeFile(inHome, '')
  assert.equal(await findConfigFile(), inHome)
  await writeFile('millrace.yaml', '')
  assert.equal(await findConfigFile(), join(process.cwd(), 'millrace.yaml'))
  process.env.MILLRACE_CONFIG = 'other.yaml'
  assert.equal(await findConfigFile(), join(process.cwd(), 'other.yaml'))
  assert.equal(await findConfigFile('named.yaml'), join(process.cwd(), 'named.yaml'))
  delete process.env.MILLRACE_CONFIG
  await rm('millrace.yaml')
  assert.equal(await findConfigFile(), inHome)
})

test('a config in the current folder that is another user’s is used only where it is named', {
  skip: process.getuid?.() === 0 ? false : 'only root can give files to others',
}, async (t) => {
  const folder = await realpath(await scratch(t))
  const before = { cwd: process.cwd(), sudo: process.env.SUDO_UID, named: process.env.MILLRACE_CONFIG }
  t.after(() => {
    process.chdir(before.cwd)
    for (const [name, value] of Object.entries({ SUDO_UID: before.sudo, MILLRACE_CONFIG: before.named })) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  })
  delete process.env.SUDO_UID
  delete process.env.MILLRACE_CONFIG
  process.chdir(folder)
  const file = join(folder, 'millrace.yaml')
  await writeFile(file, '')
  assert.equal(await findConfigFile(), file)
  await chown(file, 1234, 1234)
  await assert.rejects(findConfigFile(), /is of another user \(uid 1234\)/)
  assert.equal(await findConfigFile('millrace.yaml'), file)
  process.env.SUDO_UID = '1234'
  assert.equal(await findConfigFile(), file)
  delete process.env.SUDO_UID
  // Neither a symlink of theirs, nor one to what is theirs.
  await rename(file, join(folder, 'theirs.yaml'))
  await symlink('theirs.yaml', file)
  await assert.rejects(findConfigFile(), /is of another user/)
  await chown(join(folder, 'theirs.yaml'), 0, 0)
  assert.equal(await findConfigFile(), file)
  await lchown(file, 1234, 1234)
  await assert.rejects(findConfigFile(), /is of another user/)
})

test('the nearest name is near: a letter or two, or a third of them', () => {
  const names = ['schedule', 'source', 'stallTimeout', 'google-drive', 's3']
  assert.equal(nearest('shedule', names), 'schedule')
  assert.equal(nearest('SCHEDULE', names), 'schedule')
  assert.equal(nearest('stall-timeout', names), 'stallTimeout')
  assert.equal(nearest('gogle_drive', names), 'google-drive')
  assert.equal(nearest('s4', names), 's3')
  assert.equal(nearest('xyz', names), undefined)
  assert.equal(nearest('zz', names), undefined)
  assert.equal(nearest('q'.repeat(100_000), names), undefined)
})
