// A pipe by hand: file -> zstd -> AES-256-GCM -> SHA-256 -> store, and all the way back. Each stage is a Node stream, so
// node:stream's own pipeline runs them: it holds the source back when the store is slow, and destroys all when one fails.
import assert from 'node:assert/strict'
import { createReadStream, createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { openStorage } from '../adapters/index.ts'
import { writeWorld } from '../bench/world.ts'
import {
  createDecrypt,
  createEncrypt,
  createHashTee,
  createZstdCompress,
  createZstdDecompress,
} from '../transforms/index.ts'
import { count, failureOf, inFolder, say } from './support.ts'

const KEY = 'survival/r.0.0.mca.zst.mlr'
const password = 'an example password'

await inFolder(async (folder) => {
  writeWorld(join(folder, 'world'), { bytes: 4 * 1024 * 1024, smallFiles: 0 })
  const source = join(folder, 'world/region/r.0.0.mca')
  const storage = await openStorage(`file://${folder}/store`)

  // Out. The tee stands last, so it hashes the object as it is stored: what `sha256sum` says of it.
  const plain = createHashTee()
  const stored = createHashTee()
  await pipeline(
    createReadStream(source),
    plain,
    createZstdCompress(),
    createEncrypt({ password }),
    stored,
    storage.createWriteStream(KEY, { expectedSize: (await stat(source)).size }),
  )
  // The pipeline has ended, so the object is there: a store's `finish` means committed.
  const object = await storage.stat(KEY)
  assert.equal(object.size, stored.bytes)
  say('Stored', `${source}\n${count(plain.bytes)} -> ${count(stored.bytes)} in ${storage.location}/${KEY}`)
  say('SHA-256', stored.digest)

  // Back. A file's own `finish` does not mean that it is right: compare what came with what went.
  const target = join(folder, 'r.0.0.mca')
  const fetched = createHashTee()
  const restored = createHashTee()
  await pipeline(
    storage.createReadStream(KEY),
    fetched,
    createDecrypt({ password }),
    createZstdDecompress(),
    restored,
    createWriteStream(target),
  )
  assert.equal(fetched.digest, stored.digest)
  assert.equal(restored.digest, plain.digest)
  say('Restored', `${count(restored.bytes)} to ${target}, the same as they were`)

  // What goes wrong is one error, a TransformError or a StorageError, with a code. Both of these come before any plaintext.
  const guessed = pipeline(
    storage.createReadStream(KEY),
    createDecrypt({ password: 'a guess' }),
    createZstdDecompress(),
    createWriteStream(join(folder, 'guessed')),
  )
  say('A guess', describe(await failureOf(guessed)))
  const nothing = pipeline(storage.createReadStream('survival/other'), createWriteStream(join(folder, 'nothing')))
  say('No object', describe(await failureOf(nothing)))
  await storage.close()
})

function describe(error: Error & { code?: string }): string {
  return `${error.code}: ${error.message}`
}
