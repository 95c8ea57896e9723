// One stream into several destinations, one of which fails half-way: the others go on, and each has a status. Compressed
// and encrypted once. At last the same where all must succeed: nothing is left then.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { openStorage } from '../adapters/index.ts'
import { writeWorld } from '../bench/world.ts'
import { createDecrypt, createFanOut, createHashTee, createZstdDecompress, seal } from '../transforms/index.ts'
import { count, failureOf, inFolder, say } from './support.ts'

const KEY = 'survival/r.0.0.mca.zst.mlr'
const password = 'an example password'
/** How much the program that fails takes of the object: somewhat more than one chunk, which is 1 MiB. */
const TAKEN_BYTES = 1_500_000

await inFolder(async (folder) => {
  writeWorld(join(folder, 'world'), { bytes: 4 * 1024 * 1024, smallFiles: 0 })
  const source = join(folder, 'world/region/r.0.0.mca')
  const disk = await openStorage(`file://${folder}/disk`)
  const usb = await openStorage(`file://${folder}/usb`)
  const plain = createHashTee()
  const stored = createHashTee()

  const destinations = [
    { name: 'disk', stream: disk.createWriteStream(KEY) },
    { name: 'program', stream: quitter() },
    { name: 'usb', stream: usb.createWriteStream(KEY) },
  ]
  // `seal` is zstd and the encryption as one stream.
  const fanOut = createFanOut(destinations)
  await pipeline(createReadStream(source), plain, seal({ password }), stored, fanOut)
  say('Sent', `${count(stored.bytes)}, SHA-256 ${stored.digest}`)
  for (const { name, state, bytes, error } of fanOut.statuses) {
    say(name, `${state}, ${count(bytes)}${error ? `: ${error.message}` : ''}`)
  }
  for (const store of [disk, usb]) {
    const restored = createHashTee()
    const read = store.createReadStream(KEY)
    await pipeline(read, createDecrypt({ password }), createZstdDecompress(), restored.resume())
    assert.equal(restored.digest, plain.digest)
    say('Read back', `${store.location}/${KEY}, the same as it was`)
  }

  const all = createFanOut(
    [
      { name: 'disk', stream: disk.createWriteStream('survival/second.zst.mlr') },
      { name: 'program', stream: quitter() },
    ],
    { onFailure: 'fail-all' },
  )
  const failure = await failureOf(pipeline(createReadStream(source), seal({ password }), all))
  say('All or none', failure.message)
  const left = await Array.fromAsync(disk.list('survival/second'))
  say('Left of it', left.length === 0 ? 'nothing' : left.map(({ key }) => key).join('\n'))
  for (const store of [disk, usb]) await store.close()
})

/** The input of a program that quits half-way, as `ssh elsewhere 'cat > file'` does when the line breaks. */
function quitter(): Writable {
  return spawn('head', ['-c', String(TAKEN_BYTES)], { stdio: ['pipe', 'ignore', 'inherit'] }).stdin
}
