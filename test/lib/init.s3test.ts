import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { ListObjectsV2Command } from '@aws-sdk/client-s3'
import { millrace, scratch } from '../support/cli.ts'
import { followSheet, sheetCommands } from '../support/sheet.ts'
import { sample } from '../support/streams.ts'
import { KEY, onTerminal } from '../support/terminal.ts'
import { openTestBucket, type TestBucket } from '../support/test-bucket.ts'
import { diffTrees } from '../support/tree.ts'

/** The place of Ceph among the stores that the wizard knows, from the first. */
const CEPH = 7
const PASSWORD = 'typed and never shown, 7'
const WRONG_SECRET = 'this-is-not-the-secret-key'

let bucket: TestBucket

before(async () => {
  bucket = await openTestBucket()
})

after(() => bucket.remove())

test('through the wizard to an S3 server: wrong credentials are corrected there, and a backup is made, verified and restored', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(join(world, 'region'), { recursive: true })
  await writeFile(join(world, 'level.dat'), sample(3000))
  await writeFile(join(world, 'region/r.0.0.mca'), sample(12_000_000))
  // Nothing of the environment signs in: only what is typed.
  const env = {
    AWS_ACCESS_KEY_ID: undefined,
    AWS_SECRET_ACCESS_KEY: undefined,
    AWS_REGION: undefined,
    MILLRACE_PASSWORD: undefined,
  }
  const wizard = onTerminal(t, ['init'], { cwd: folder, env })
  await wizard.answer(/Which folder is backed up\?/, world)
  await wizard.answer(/What is the server called/, 'survival')
  await wizard.choose(/Where do backups go\?/, 1)
  await wizard.choose(/Whose\?/, CEPH)
  await wizard.answer(/Endpoint/, bucket.endpoint)
  await wizard.answer(/Bucket/, bucket.bucket)
  await wizard.answer(/Region/, bucket.region)
  await wizard.answer(/Prefix/, 'mc/worlds')
  await wizard.choose(/Where are its credentials\?/)
  await wizard.answer(/Access key id/, bucket.accessKeyId)
  await wizard.answer(/Secret access key/, WRONG_SECRET)
  await wizard.see(/sign-in\s+FAILED/)
  await wizard.see(/Are the credentials right/)
  await wizard.choose(/What now\?/)
  await wizard.choose(/Where are its credentials\?/)
  await wizard.answer(/Access key id/, bucket.accessKeyId)
  await wizard.answer(/Secret access key/, ` ${bucket.secretAccessKey} `)
  await wizard.see(/sign-in\s+ok[\s\S]*write\s+ok[\s\S]*delete\s+ok/)
  await wizard.confirm(/Add another place\?/, false)
  await wizard.choose(/What are backups encrypted with\?/, 1)
  await wizard.answer(/Password/, PASSWORD)
  await wizard.answer(/The same again/, PASSWORD)
  await wizard.choose(/When are backups made\?/)
  await wizard.confirm(/Keep that many\?/, true)
  await wizard.confirm(/Write it\?/, true)
  await wizard.confirm(/Write a recovery sheet\?/, true)
  await wizard.answer(/Which file\?/, join(folder, 'sheet.md'))
  await wizard.choose(/What now\?/)
  assert.equal(await wizard.end(), 0, wizard.text)

  const config = join(folder, 'millrace.yaml')
  const sheet = await readFile(join(folder, 'sheet.md'), 'utf8')
  for (const secret of [PASSWORD, WRONG_SECRET, bucket.secretAccessKey]) {
    for (const shown of [wizard.raw, wizard.text, await readFile(config, 'utf8'), sheet]) {
      assert.ok(!shown.includes(secret))
    }
  }
  assert.deepEqual(await readdir(join(folder, 'secrets')), [
    'offsite-access-key-id',
    'offsite-secret-access-key',
    'password',
  ])
  const run = async (...args: string[]) => {
    const result = await millrace([...args, '--config', config], { env, cwd: folder })
    assert.equal(result.code, 0, `${result.stdout}${result.stderr}`)
    return String(result.stdout)
  }
  await run('verify', '--server', 'survival')
  assert.match(await run('doctor'), /^ok\s+clock\s+offsite: agrees with the store's$/m)
  const [block] = sheetCommands(sheet)
  const { home, code, said } = await followSheet(block as string, [PASSWORD, bucket.secretAccessKey], folder)
  assert.equal(code, 0, said)
  assert.ok(!said.includes(bucket.secretAccessKey))
  assert.deepEqual(diffTrees(world, join(home, 'restored-survival')), [])
})

test('Ctrl-C after the store was tried leaves nothing, here or there', async (t) => {
  const folder = await scratch(t)
  const wizard = onTerminal(t, ['init'], { cwd: folder })
  await wizard.answer(/Which folder is backed up\?/, folder)
  await wizard.answer(/What is the server called/, 'stopped')
  await wizard.choose(/Where do backups go\?/, 1)
  await wizard.choose(/Whose\?/, CEPH)
  await wizard.answer(/Endpoint/, bucket.endpoint)
  await wizard.answer(/Bucket/, bucket.bucket)
  await wizard.answer(/Region/, bucket.region)
  await wizard.answer(/Prefix/, 'stopped')
  await wizard.choose(/Where are its credentials\?/, 2)
  await wizard.see(/Everything that a backup needs works/)
  await wizard.see(/Add another place\?/)
  wizard.type(KEY.ctrlC)
  assert.equal(await wizard.end(), 130)
  assert.deepEqual(await readdir(folder), [])
  const { Contents = [] } = await bucket.client.send(
    new ListObjectsV2Command({ Bucket: bucket.bucket, Prefix: 'stopped' }),
  )
  assert.deepEqual(Contents, [])
})
