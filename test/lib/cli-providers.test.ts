import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { FakeB2 } from '../fakes/b2.ts'
import { startDriveFake } from '../fakes/drive.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import { millrace, scratch } from '../support/cli.ts'
import { sample } from '../support/streams.ts'
import { diffTrees } from '../support/tree.ts'

interface Store {
  url: string
  env: NodeJS.ProcessEnv
}

const STORES: Record<string, (t: TestContext) => Promise<Store>> = {
  async 'Google Drive'(t) {
    const fake = await startDriveFake()
    t.after(() => fake.close())
    const { clientId, clientSecret, refreshToken } = fake.state
    return {
      url: `drive:///backups/minecraft?endpoint=${fake.origin}`,
      env: {
        MILLRACE_GOOGLE_CLIENT_ID: clientId,
        MILLRACE_GOOGLE_CLIENT_SECRET: clientSecret,
        MILLRACE_GOOGLE_REFRESH_TOKEN: refreshToken,
      },
    }
  },
  async Dropbox(t) {
    const fake = await FakeDropbox.open()
    t.after(() => fake.close())
    const { clientId, clientSecret, refreshToken } = fake.credentials
    return {
      url: `dropbox:///backups?endpoint=${fake.origin}`,
      env: {
        MILLRACE_DROPBOX_CLIENT_ID: clientId,
        MILLRACE_DROPBOX_CLIENT_SECRET: clientSecret,
        MILLRACE_DROPBOX_REFRESH_TOKEN: refreshToken,
      },
    }
  },
  async 'Backblaze B2'(t) {
    const fake = await new FakeB2().start()
    t.after(() => fake.close())
    const { bucketName } = fake.store.addBucket('worlds')
    const { keyId, applicationKey } = fake.store.addKey()
    return {
      url: `b2://${bucketName}/mc?endpoint=${fake.origin}`,
      env: { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey },
    }
  },
}

for (const [name, open] of Object.entries(STORES)) {
  test(`the command checks, backs up to, lists, verifies and restores from ${name}, and shows no secret`, async (t) => {
    const { url, env } = await open(t)
    const folder = await scratch(t)
    const world = join(folder, 'world')
    await mkdir(join(world, 'region'), { recursive: true })
    await writeFile(join(world, 'level.dat'), sample(5000))
    await writeFile(join(world, 'region/r.0.0.mca'), sample(9_000_000))
    const from = ['--from', url, '--server', 'world']
    const commands = [
      ['check', '--to', url],
      ['backup', world, '--to', url],
      ['list', '--from', url],
      ['verify', 'latest', ...from],
      ['restore', 'latest', ...from, '--target', join(folder, 'out')],
    ]
    for (const args of commands) {
      const { code, stdout, stderr } = await millrace(args, { env })
      assert.equal(code, 0, `${args[0]}: ${stdout}${stderr}`)
      for (const secret of Object.entries(env).flatMap(([key, value]) =>
        key.endsWith('_ID') ? [] : [value as string],
      )) {
        assert.ok(!`${stdout}${stderr}`.includes(secret))
      }
    }
    assert.deepEqual(diffTrees(world, join(folder, 'out')), [])
    const refused = await millrace(['list', '--from', url], {
      env: Object.fromEntries(Object.keys(env).map((key) => [key, ''])),
    })
    assert.equal(refused.code, 2, refused.stderr)
  })
}
