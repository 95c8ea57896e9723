import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openBackups } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { events, runMany } from '../support/config-place.ts'
import { SECRET } from '../support/wrong-config.ts'

/** Runs the command with arguments that are wrong. */
async function refused(t: TestContext, runs: string[][]) {
  const folder = await scratch(t)
  const results = await runMany(
    folder,
    runs.map((args) => ({ args, cwd: folder })),
  )
  for (const { code } of results) assert.equal(code, 2)
  return results
}

test('names that every object has are no providers, and no rights', async (t) => {
  const [ofObject, proto, access] = await refused(t, [
    ['login', 'constructor'],
    ['login', '__proto__', '--access', 'full'],
    ['login', 'dropbox', '--client-id', 'x', '--access', 'constructor'],
  ])
  assert.match(ofObject?.stderr ?? '', /^millrace: There is nothing to sign in to at "constructor"\. Known are/)
  assert.match(proto?.stderr ?? '', /^millrace: There is nothing to sign in to at "__proto__"\. Known are/)
  assert.match(access?.stderr ?? '', /^millrace: --access is one of files\./)
})

test('a port that is none is told before anybody opens an address', async (t) => {
  const login = ['login', 'dropbox', '--client-id', 'x']
  const results = await refused(t, [
    [...login, '--port', '65536'],
    [...login, '--paste', '--port', 'any'],
  ])
  for (const { stderr } of results) {
    assert.equal(stderr, 'millrace: --port has to be a whole number from 0 (any) to 65535.\n')
  }
})

test('of what is not known no value is repeated that may be a secret, and nothing moves the cursor', async (t) => {
  const results = await refused(t, [
    ['list', `--password=${SECRET}`],
    ['list', '--json', `--password=a'\n${SECRET}`],
    ['list', '--json', `--pasword-file=${SECRET}`],
    ['check', `s3://key:${SECRET}/x@bucket`],
    ['check', '--json', 'x', `s3://bucket?secret=${SECRET}`, 'y'],
    ['list', 'survival'],
    ['list', '\u001b[31mred'],
  ])
  for (const { stdout, stderr } of results) assert.ok(!`${stdout}${stderr}`.includes(SECRET), stdout + stderr)
  assert.deepEqual(
    results.map(({ stderr }) => stderr),
    [
      "error: unknown option '--password'\n",
      "error: unknown option '--password'\n",
      "error: unknown option '--pasword-file'\n",
      "error: too many arguments for 'check'. Expected 0 arguments but got 1: s3://…\n",
      "error: too many arguments for 'check'. Expected 0 arguments but got 3: x, s3://… y.\n",
      "error: too many arguments for 'list'. Expected 0 arguments but got 1: survival.\n",
      "error: too many arguments for 'list'. Expected 0 arguments but got 1: \\u001b[31mred.\n",
    ],
  )
  const messages = results.flatMap((result) => events(result)).map(({ message }) => message)
  assert.equal(messages.length, 3)
})

test('a command that is empty text is told as that, before anything is done', async (t) => {
  const folder = await scratch(t)
  const backup = ['backup', '--to', `file://${folder}/store`, '--server', 'a', '--no-encryption']
  const results = await refused(t, [
    [...backup, folder, '--before', ''],
    [...backup, folder, '--after', ''],
    [...backup, folder, '--before', `touch ${folder}/held`, '--after', ''],
    [...backup, '--from-command', '--', '', 'x'],
  ])
  assert.deepEqual(
    results.map(({ stderr }) => stderr),
    [
      'millrace: The command to run before the backup is empty text.\n',
      'millrace: The command to run after the backup is empty text.\n',
      'millrace: The command to run after the backup is empty text.\n',
      'millrace: The program after -- is empty text. Name it.\n',
    ],
  )
  assert.deepEqual(await readdir(folder), [])
})

test('a folder that a scratch folder or an output cannot be made in is named in a sentence', async (t) => {
  const folder = await scratch(t)
  const [file, store] = [join(folder, 'file'), `file://${folder}/store`]
  await writeFile(file, 'mine')
  const key = join(folder, 'key')
  await writeFile(key, randomBytes(32))
  const backups = await openBackups({ storage: store, server: 'a', encryption: false })
  t.after(() => backups.close())
  await backups.create(file)
  const verify = ['verify', '--from', store, '--server', 'a', '--no-encryption', '--restore-test', '--scratch']
  for (const [scratchFolder, why] of [
    [join(folder, 'absent'), 'it does not exist'],
    [file, 'it is not a folder'],
  ] as const) {
    const { code, stderr } = await millrace([...verify, scratchFolder])
    assert.equal(stderr, `millrace: Cannot make a scratch folder in ${scratchFolder}: ${why}.\n`)
    assert.equal(code, 5)
  }
  const encrypted = await millrace(['encrypt', '--key-file', key], { input: Buffer.from('x') })
  // What is no container might be told first.
  for (const [command, input] of [
    ['encrypt', Buffer.from('x')],
    ['decrypt', encrypted.stdout],
  ] as const) {
    const { code, stderr } = await millrace([command, '--key-file', key, '-o', join(file, 'out')], { input })
    assert.equal(stderr, `millrace: Cannot write ${join(file, 'out')}: it is not a folder. Nothing is left of it.\n`)
    assert.equal(code, 1)
    for (const none of [folder, '']) {
      const refused = await millrace([command, '--key-file', key, '-o', none], { input })
      assert.equal(
        refused.stderr,
        `millrace: ${JSON.stringify(none)} is no file that -o could write. Nothing was read.\n`,
      )
      assert.equal(refused.code, 1)
    }
  }
})
