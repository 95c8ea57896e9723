import assert from 'node:assert/strict'
import fs from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openStorage } from '../../adapters/open.ts'
import { mounted, NO_MOUNT } from '../support/tmpfs.ts'
import { tempFolder } from '../support/tree.ts'

test('where nothing is mounted at the mount point nothing is written, read or listed', {
  skip: NO_MOUNT,
}, async (t) => {
  const folder = tempFolder(t)
  const [mountPoint, root] = [join(folder, 'my disk'), join(folder, 'my disk/backups')]
  const storage = await openStorage(`${pathToFileURL(root).href}?mountPoint=${encodeURIComponent(mountPoint)}`)
  const put = () => pipeline(Readable.from([Buffer.from('x')]), storage.createWriteStream('a/b'))
  const refused = async () => {
    const isMissing = { code: 'UNAVAILABLE', retryable: false, message: /Nothing is mounted at .*my disk.*Mount it/ }
    await assert.rejects(put(), isMissing)
    await assert.rejects(buffer(storage.createReadStream('a/b')), isMissing)
    await assert.rejects(storage.readRange('a/b', 0, 1), isMissing)
    await assert.rejects(storage.stat('a/b'), isMissing)
    await assert.rejects(storage.delete('a/b'), isMissing)
    await assert.rejects(Array.fromAsync(storage.list('')), isMissing)
    const { ok, steps } = await storage.probe()
    assert.equal(ok, false)
    assert.match(String(steps.find((step) => !step.ok)?.error?.message), /Nothing is mounted/)
  }
  await refused()
  assert.deepEqual(fs.readdirSync(folder), [])
  await mounted(mountPoint, 1, async () => {
    await put()
    assert.equal(String(await buffer(storage.createReadStream('a/b'))), 'x')
    assert.deepEqual(
      (await Array.fromAsync(storage.list(''))).map(({ key }) => key),
      ['a/b'],
    )
  })
  await refused()
  assert.deepEqual(fs.readdirSync(mountPoint), [])
  const other = join(folder, 'other')
  await assert.rejects(openFilesystem({ root, mountPoint: other }), {
    code: 'INVALID',
    message: /neither .* nor a folder above/,
  })
})
