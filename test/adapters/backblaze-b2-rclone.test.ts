import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { after, before, describe, it } from 'node:test'
import { openB2 } from '../../adapters/backblaze-b2.ts'
import type { Storage } from '../../adapters/storage.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { sample } from '../support/streams.ts'
import { NO_RCLONE } from '../support/tools.ts'

// The fake is judged by a client that others wrote, and that works with the real B2: https://rclone.org/b2/
describe('rclone and the B2 adapter read what the other wrote', { skip: NO_RCLONE }, () => {
  const large = sample(13_000_000, 1)
  const small = sample(12_345, 2)
  let fake: FakeB2
  let storage: Storage
  let folder: string
  let credentials: NodeJS.ProcessEnv

  before(async () => {
    fake = await new FakeB2().start()
    const { bucketName } = fake.store.addBucket('worlds')
    const { keyId, applicationKey } = fake.store.addKey()
    storage = await openB2({ keyId, applicationKey, bucket: bucketName, endpoint: fake.origin })
    folder = await mkdtemp(join(tmpdir(), 'millrace-rclone-'))
    const settings = { TYPE: 'b2', ACCOUNT: keyId, KEY: applicationKey, ENDPOINT: fake.origin }
    credentials = Object.fromEntries(
      Object.entries(settings).map(([name, value]) => [`RCLONE_CONFIG_B_${name}`, value]),
    )
  })
  after(async () => {
    await storage.close()
    await fake.close()
    await rm(folder, { recursive: true, force: true })
  })

  /** Runs rclone with the fake as its remote `b:`. @returns what it printed. @throws when it fails. */
  async function rclone(...args: string[]): Promise<string> {
    const own = ['--config', join(folder, 'none.conf'), '--b2-chunk-size', '5M', '--b2-upload-cutoff', '5M']
    const { PATH, HOME } = process.env
    const env = { PATH, HOME, RCLONE_RETRIES: '1', ...credentials }
    const child = spawn('rclone', [...own, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    const exit = new Promise<number | null>((resolve) => child.on('close', resolve))
    const [out, err] = await Promise.all([buffer(child.stdout), buffer(child.stderr)])
    assert.equal(await exit, 0, `rclone ${args[0]}: ${err}`)
    return out.toString()
  }

  for (const [name, bytes] of [
    ['small', small],
    ['large', large],
  ] as const) {
    it(`a ${name} file of rclone's: our adapter lists it, reads it whole and in ranges, and deletes it`, async () => {
      const key = `rclone/${name} grüße+%20.bin`
      const file = join(folder, name)
      await writeFile(file, bytes)
      await rclone('copyto', file, `b:worlds/${key}`)
      assert.deepEqual(fake.unfinished, [])
      const stat = await storage.stat(key)
      assert.equal(stat.size, bytes.length)
      const sha1 = { algorithm: 'sha1', value: createHash('sha1').update(bytes).digest('hex') }
      assert.deepEqual(stat.checksum, name === 'small' ? sha1 : undefined)
      assert.ok((await buffer(storage.createReadStream(key))).equals(bytes))
      assert.ok((await storage.readRange(key, 5_000, 1_000)).equals(bytes.subarray(5_000, 6_000)))
      await storage.delete(key)
      assert.deepEqual(fake.store.versions(key), [])
    })

    it(`a ${name} file of ours: rclone lists it, reads it, checks its hash, and deletes it`, async () => {
      const key = `ours-${name}/${name} grüße+%20.bin`
      await pipeline(Readable.from([bytes]), storage.createWriteStream(key))
      const listed = JSON.parse(await rclone('lsjson', '--hash', `b:worlds/ours-${name}`)) as {
        Name: string
        Size: number
      }[]
      assert.deepEqual(
        listed.map(({ Name, Size }) => ({ Name, Size })),
        [{ Name: `${name} grüße+%20.bin`, Size: bytes.length }],
      )
      const file = join(folder, `${name}.back`)
      await rclone('copyto', `b:worlds/${key}`, file)
      assert.ok((await readFile(file)).equals(bytes))
      const sums = await rclone('sha1sum', `b:worlds/ours-${name}`)
      const sha1 = createHash('sha1').update(bytes).digest('hex')
      // Of a large file B2 has none, and ours has no `large_file_sha1`, which had to be known at its start.
      assert.equal(sums.trim().split(/ +/)[0] === sha1, name === 'small')
      await rclone('deletefile', '--b2-hard-delete', `b:worlds/${key}`)
      assert.deepEqual(fake.store.versions(key), [])
    })
  }

  it('what rclone hides is gone for us, and our delete leaves no version of it', async () => {
    await pipeline(Readable.from([small]), storage.createWriteStream('hidden'))
    await rclone('deletefile', 'b:worlds/hidden')
    assert.deepEqual(
      fake.store.versions('hidden').map((file) => file.action),
      ['hide', 'upload'],
    )
    await assert.rejects(storage.stat('hidden'), { code: 'NOT_FOUND' })
    await assert.rejects(buffer(storage.createReadStream('hidden')), { code: 'NOT_FOUND' })
    const names: string[] = []
    for await (const { key } of storage.list('hid')) names.push(key)
    assert.deepEqual(names, [])
    await storage.delete('hidden')
    assert.deepEqual(fake.store.versions('hidden'), [])
  })

  it('rclone lists the folders of what we wrote', async () => {
    for (const key of ['tree/a', 'tree/b/c', 'tree/b/d', 'tree2/e']) {
      await pipeline(Readable.from([small]), storage.createWriteStream(key))
    }
    const listed = (await rclone('lsf', '-R', 'b:worlds/tree')).trim().split('\n').sort()
    assert.deepEqual(listed, ['a', 'b/', 'b/c', 'b/d'])
    await rclone('purge', '--b2-hard-delete', 'b:worlds/tree')
    const left: string[] = []
    for await (const { key } of storage.list('')) left.push(key)
    assert.deepEqual(
      left.filter((key) => key.startsWith('tree')),
      ['tree2/e'],
    )
  })
})
