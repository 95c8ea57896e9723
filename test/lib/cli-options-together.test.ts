import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { journalOf } from '../../lib/cli/backup-job.ts'
import { scratch } from '../support/cli.ts'
import { CONFIG, events, place, runMany } from '../support/config-place.ts'

/** Runs the command with options that do not go together. @returns what each run says, and the folder. */
async function refused(t: TestContext, runs: (at: { store: string; key: string }) => string[][]) {
  const folder = await scratch(t)
  const key = join(folder, 'key')
  await writeFile(key, randomBytes(32))
  const cases = runs({ store: `file://${folder}/store`, key })
  const results = await runMany(
    folder,
    cases.map((args) => ({ args, cwd: folder })),
  )
  for (const [at, { code, stdout, stderr }] of results.entries()) {
    assert.equal(code, 2, `millrace ${cases[at]?.join(' ')}\n${stdout}${stderr}`)
  }
  assert.ok(!(await readdir(folder)).includes('store'), 'nothing is written')
  return results.map(({ stderr }) => stderr)
}

/** A config beside the key, whose server is held still by RCON; nothing listens there. */
function heldConfig(key: string): string {
  const file = join(dirname(key), 'held.yaml')
  const quiesce = `{ by: rcon, address: '127.0.0.1:1', password: 'file:${key}' }`
  const text = `destinations: { store: { provider: filesystem, root: store } }
encryption: { key: 'file:${key}' }
servers: { survival: { source: '${key}', quiesce: ${quiesce} } }
`
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

test('a password or key beside --no-encryption is refused: nothing is written in the clear', async (t) => {
  const [backup, restore, list] = await refused(t, ({ store, key }) => [
    ['backup', key, '--to', store, '--server', 'a', '--key-file', key, '--no-encryption'],
    ['restore', 'latest', '--from', store, '--server', 'a', '--target', 'x', '--no-encryption', '--password-file', key],
    ['list', '--long', '--from', store, '--server', 'a', '--no-encryption', '--key-file', key],
  ])
  assert.match(
    backup ?? '',
    /^millrace: --no-encryption goes together with no --password-file.* leave --no-encryption out/,
  )
  assert.match(restore ?? '', /^millrace: --no-encryption goes .*--allow-plain\.\n$/)
  assert.equal(list, restore)
})

test('what --rcon goes with is refused without it: nobody would be held still, or by another password', async (t) => {
  const [password, limit, silent, held] = await refused(t, ({ store, key }) => {
    const backup = ['backup', key, '--to', store, '--server', 'a', '--key-file', key]
    return [
      [...backup, '--rcon-password-file', key],
      [...backup, '--hold-limit', '5'],
      [...backup, '--allow-silent'],
      ['backup', 'survival', '--config', heldConfig(key), '--rcon-password-file', key],
    ]
  })
  assert.match(password ?? '', /^millrace: --rcon-password-file has the password .* give --rcon HOST:PORT beside it/)
  assert.match(limit ?? '', /^millrace: --hold-limit says how long --rcon or --before may hold/)
  assert.match(silent ?? '', /^millrace: --allow-stopped and --allow-silent /)
  assert.equal(held, password)
})

test('what narrows a way that was not chosen is refused: another way would be taken for it', async (t) => {
  const said = await refused(t, ({ store, key }) => {
    const verify = ['verify', '--from', store, '--server', 'a', '--key-file', key]
    const backup = ['backup', key, '--to', store, '--server', 'a', '--key-file', key, '--no-lease']
    return [
      [...verify, '--scratch', dirname(key)],
      [...verify, '--quick', '--seed', 'x'],
      [...backup, '--wait', '5m'],
      [...backup, '--wait', '5m', '--steal'],
      ['list', '--from', store, '--allow-plain'],
    ]
  })
  assert.deepEqual(said, [
    'millrace: --scratch says where --restore-test restores to: add that, or leave it out.\n',
    'millrace: --seed chooses the frames of a --sample: add that, or leave it out.\n',
    'millrace: --wait is about the lease that --no-lease goes without: give one of them.\n',
    'millrace: --steal is about the lease that --no-lease goes without: give one of them.\n',
    'millrace: --allow-plain is of use with --long only: nothing is opened without it.\n',
  ])
})

test('--journal says where, and the config goes on with uploads all the same', () => {
  const given = { folder: '/state/journals', resume: true }
  assert.deepEqual(journalOf({ journal: '/mnt/j' }, given, '/state'), { folder: '/mnt/j', resume: true })
  assert.deepEqual(journalOf({ journal: '/mnt/j' }, undefined, '/state'), { folder: '/mnt/j', resume: undefined })
  assert.deepEqual(journalOf({ resume: 'strict' }, given, '/state'), { folder: '/state/journals', resume: 'strict' })
  assert.equal(journalOf({}, given, '/state'), undefined)
})

test("a folder that is backed up as a server of the config is pruned by that server's retention", async (t) => {
  const folder = await place(t, CONFIG.replace('keepLast: 2', 'keepLast: 3'))
  const backup = ['backup', 'worlds/creative', '--to', 'local', '--server', 'survival', '--json']
  const results = await runMany(
    folder,
    [[], [], ['--prune'], [], ['--prune', '--keep-last', '1']].map((more) => ({
      args: [...backup, ...more],
      cwd: folder,
    })),
  )
  const kept = results.map((result) => {
    assert.equal(result.code, 0, result.stderr)
    return (events(result).find(({ event }) => event === 'prune')?.counts as { kept: number } | undefined)?.kept
  })
  // By the defaults one of this hour would be left. Without --prune nothing goes: the config says that of its own source.
  assert.deepEqual(kept, [undefined, undefined, 3, undefined, 1])
})
