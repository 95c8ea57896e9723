// Uploads one object, as its parent tells it to by messages: a process that can be killed in the middle of it.
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { openStorage } from '../../adapters/open.ts'
import type { ChildMessage, ChildUpload } from './killed-upload.ts'
import { seededBytes } from './random.ts'

const WRITE_BYTES = 64 * 1024

const tell = (message: ChildMessage) => process.send?.(message)

process.once('message', async ({ config, key, bytes, seed, pauseMs }: ChildUpload) => {
  const storage = await openStorage(config)
  const data = seededBytes(bytes, seed)
  async function* slices() {
    for (let at = 0; at < data.length; at += WRITE_BYTES) {
      yield data.subarray(at, at + WRITE_BYTES)
      if (pauseMs > 0) await delay(pauseMs)
    }
    tell('ending')
  }
  tell('ready')
  await new Promise((resolve) => process.once('message', resolve))
  await pipeline(Readable.from(slices(), { objectMode: false }), storage.createWriteStream(key))
  tell('committed')
  // What a kill after the commit finds is a process that has not ended.
  await new Promise((resolve) => process.once('message', resolve))
})
