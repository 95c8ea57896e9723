// A custom transform in the chain: block-sums.ts, between the encryption and the store. A world goes to two stores with
// the SHA-256 of each MiB beside it; one store's disk flips a bit; the list says which MiB it is, without the password
// and without reading the other copy; that MiB alone is fetched from the other store; and the world is restored.
import assert from 'node:assert/strict'
import { createReadStream, createWriteStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { openStorage, type Storage } from '../adapters/index.ts'
import { writeWorld } from '../bench/world.ts'
import {
  createDecrypt,
  createEncrypt,
  createFanOut,
  createHashTee,
  createZstdCompress,
  createZstdDecompress,
} from '../transforms/index.ts'
import { type BlockSum, BlockSummer, createBlockSums } from './block-sums.ts'
import { count, inFolder, say } from './support.ts'

const KEY = 'survival/world.zst.mlr'
const SUMS_KEY = `${KEY}.blocks`
const password = 'an example password'

await inFolder(async (folder) => {
  writeWorld(join(folder, 'world'), { bytes: 4 * 1024 * 1024, smallFiles: 0 })
  const source = join(folder, 'world/region/r.0.0.mca')
  const near = await openStorage(`file://${folder}/near`)
  const far = await openStorage(`file://${folder}/far`)
  const plain = createHashTee()
  const sums: BlockSum[] = []
  await pipeline(
    createReadStream(source),
    plain,
    createZstdCompress(),
    createEncrypt({ password }),
    // After the encryption, so that the list says nothing of the world: a hash of plaintext would.
    createBlockSums({ onBlock: (sum) => void sums.push(sum) }),
    createFanOut(
      [near, far].map((store) => ({ name: store.location, stream: store.createWriteStream(KEY) })),
      {
        onFailure: 'fail-all',
      },
    ),
  )
  for (const store of [near, far]) await writeSums(store, sums)
  const { size } = await near.stat(KEY)
  say('Stored', `${count(plain.bytes)} -> ${count(size)}, in two stores, with the sums of ${sums.length} blocks`)

  const flipped = Math.floor(size * 0.6)
  await flipBit(join(fileURLToPath(near.location), KEY), flipped)
  say('Damaged', `one bit of ${near.location}/${KEY}, in byte ${flipped}`)

  const bad = await findBad(near)
  assert.equal(bad.length, 1)
  assert.deepEqual(await findBad(far), [])
  for (const { offset, bytes } of bad) say('Found', `${count(bytes)} from byte ${offset} are not what they were`)

  const fetched = await repair(near, far, bad)
  assert.deepEqual(await findBad(near), [])
  say('Repaired', `with ${count(fetched)} from ${far.location}`)

  const restored = createHashTee()
  const target = join(folder, 'r.0.0.mca')
  await pipeline(
    near.createReadStream(KEY),
    createDecrypt({ password }),
    createZstdDecompress(),
    restored,
    createWriteStream(target),
  )
  assert.equal(restored.digest, plain.digest)
  say('Restored', `${count(restored.bytes)} to ${target}, the same as they were`)
  for (const store of [near, far]) await store.close()
})

async function writeSums(store: Storage, sums: readonly BlockSum[]): Promise<void> {
  const lines = sums.map(({ offset, bytes, sha256 }) => `${offset} ${bytes} ${sha256}\n`)
  await pipeline(lines, store.createWriteStream(SUMS_KEY))
}

async function readSums(store: Storage): Promise<BlockSum[]> {
  const lines = (await buffer(store.createReadStream(SUMS_KEY))).toString().trimEnd().split('\n')
  return lines.map((line) => {
    const [offset, bytes, sha256] = line.split(' ') as [string, string, string]
    return { offset: Number(offset), bytes: Number(bytes), sha256 }
  })
}

/** Reads an object a block at a time. @returns those that are not what its list says. */
async function findBad(store: Storage): Promise<BlockSum[]> {
  const bad: BlockSum[] = []
  for (const sum of await readSums(store)) {
    const found = new BlockSummer(sum.bytes).update(await store.readRange(KEY, sum.offset, sum.bytes))
    if (found[0]?.sha256 !== sum.sha256) bad.push(sum)
  }
  return bad
}

/**
 * Writes an object anew, its bad blocks from another store. Until the last byte is there the old one stands, and the
 * new one has to have the sums of the list.
 * @returns bytes that were fetched from the other store.
 */
async function repair(store: Storage, other: Storage, bad: readonly BlockSum[]): Promise<number> {
  const expected = await readSums(store)
  const offsets = new Set(bad.map(({ offset }) => offset))
  let fetched = 0
  async function* blocks() {
    for (const { offset, bytes } of expected) {
      if (offsets.has(offset)) fetched += bytes
      yield (offsets.has(offset) ? other : store).readRange(KEY, offset, bytes)
    }
  }
  const check = createBlockSums({
    onBlock(sum) {
      const is = expected.find(({ offset }) => offset === sum.offset)
      if (is?.sha256 !== sum.sha256) throw new Error(`The block from byte ${sum.offset} is bad in both stores.`)
    },
  })
  await pipeline(blocks, check, store.createWriteStream(KEY))
  return fetched
}

async function flipBit(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const byte = Buffer.alloc(1)
    await file.read(byte, 0, 1, offset)
    byte.writeUInt8(byte.readUInt8(0) ^ 1)
    await file.write(byte, 0, 1, offset)
  } finally {
    await file.close()
  }
}
