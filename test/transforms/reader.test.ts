import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openBackups } from '../../lib/index.ts'
import { createDecrypt, createEncrypt, createZstdDecompress } from '../../transforms/index.ts'
import { scratch } from '../support/cli.ts'
import { sample, through } from '../support/streams.ts'
import { independentReader, NO_READER } from '../support/tools.ts'
import { makeTree, oddTree } from '../support/tree.ts'

// The reader in test/reader was written from the format's description alone, in another language.

const key = Buffer.alloc(32, 3)
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

interface Made {
  file: string
  key_hex?: string
  password?: string
  plain_sha256: string
  layer3_only: boolean
  layer1_sha256?: string
}

test('an independent reader judges containers of every boundary length as we do', { skip: NO_READER }, async (t) => {
  const folder = await scratch(t)
  const file = join(folder, 'object')
  await writeFile(join(folder, 'key'), key)
  const judge = () =>
    JSON.parse(independentReader(['judge', file, '--key-file', join(folder, 'key'), '--layer3-only']).stdout.toString())
  for (const length of [0, 1, 4095, 4096, 4097, 8192, 20_000]) {
    const plain = sample(length)
    const sealed = await through(plain, [createEncrypt({ key, frameBytes: 4096 })])
    await writeFile(file, sealed)
    const verdict = judge()
    assert.equal(verdict.ok, true, JSON.stringify(verdict))
    assert.equal(verdict.layer3.sha256, sha256(plain))
    sealed[sealed.length - 20] = (sealed[sealed.length - 20] as number) ^ 1
    await writeFile(file, sealed)
    assert.equal(judge().error, 'AUTH_FAILED')
  }
})

test('an independent reader judges a whole snapshot to be as the format says', { skip: NO_READER }, async (t) => {
  const folder = await scratch(t)
  await makeTree(join(folder, 'world'), [...oddTree(), { path: 'big', type: 'file', content: sample(9_000_000) }])
  await mkdir(join(folder, 'store'))
  await writeFile(join(folder, 'password'), 'a pass\u0302word\n')
  const storage = await openFilesystem({ root: join(folder, 'store') })
  const backups = await openBackups({ storage, server: 's', password: 'a pass\u0302word' })
  const { key: name, id, bytes, files } = await backups.create(join(folder, 'world'), { iterations: 100_000 })
  const args = ['--password-file', join(folder, 'password')]
  const { stdout } = independentReader(['judge', join(folder, 'store', name), ...args, '--server', 's', '--id', id])
  const verdict = JSON.parse(stdout.toString())
  assert.equal(verdict.ok, true, JSON.stringify(verdict))
  assert.equal(verdict.foreign, false)
  assert.equal(verdict.layer2.bytes, bytes)
  assert.equal(verdict.layer2.index.head.files, files)
  const { stdout: big } = independentReader(['entry', join(folder, 'store', name), 'big', ...args])
  assert.deepEqual(big, sample(9_000_000))
})

test('what the independent writer makes is read by ours', { skip: NO_READER }, async (t) => {
  const folder = await scratch(t)
  const made = independentReader(['make', folder])
  assert.equal(made.code, 0, made.stderr)
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))
  const objects: Made[] = Array.isArray(manifest) ? manifest : manifest.objects
  assert.ok(objects.length >= 14)
  for (const { file, key_hex, password, plain_sha256, layer1_sha256 } of objects) {
    const material = key_hex === undefined ? { password } : { key: Buffer.from(key_hex, 'hex') }
    const plain = await through(await readFile(join(folder, file)), [createDecrypt(material)])
    assert.equal(sha256(plain), plain_sha256, file)
    if (layer1_sha256) assert.equal(sha256(await through(plain, [createZstdDecompress()])), layer1_sha256, file)
  }
})
