import assert from 'node:assert/strict'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { FakeB2 } from '../../fakes/b2.ts'
import { millrace, scratch } from '../../support/cli.ts'
import { sample } from '../../support/streams.ts'

test('resume: true in the config keeps a journal where the destination can do it, and is no reason to fail where not', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  await writeFile(join(folder, 'world', 'level.dat'), sample(100_000))
  const fake = await new FakeB2().start()
  t.after(() => fake.close())
  const { bucketName } = fake.store.addBucket('worlds')
  const { keyId, applicationKey } = fake.store.addKey()
  await writeFile(
    join(folder, 'millrace.yaml'),
    `destinations:
  disk: { provider: filesystem, root: store }
  b2: { provider: backblaze-b2, bucket: ${bucketName}, endpoint: '${fake.origin}', keyId: '\${B2_KEY_ID}', applicationKey: '\${B2_KEY}' }
stateFolder: state
defaults: { resume: true }
servers:
  local: { source: world, destinations: [disk] }
  both: { source: world, destinations: [disk, b2] }
  cloud: { source: world, destinations: [b2] }
`,
  )
  const env = { B2_KEY_ID: keyId, B2_KEY: applicationKey }
  const run = async (server: string) => {
    const result = await millrace(['backup', server, '--config', join(folder, 'millrace.yaml')], { env })
    assert.equal(result.code, 0, result.stderr)
    return result.stderr
  }
  assert.match(await run('local'), /cannot be taken up; it is made without a journal/)
  assert.match(await run('both'), /an upload to several destinations cannot be taken up/)
  assert.doesNotMatch(await run('cloud'), /without a journal/)
  // Its folder was made, and the journal is gone with its upload.
  assert.deepEqual(await readdir(join(folder, 'state', 'journals', 'cloud')), [])
})
