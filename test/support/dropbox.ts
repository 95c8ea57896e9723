import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { DropboxConfig } from '../../adapters/dropbox.ts'
import type { Storage, WriteOptions } from '../../adapters/storage.ts'
import type { FakeDropbox } from '../fakes/dropbox.ts'
import { seededBytes } from './random.ts'

export const BLOCK_BYTES = 16 * 1024
/** Of a part, and a block. */
export const BYTES = seededBytes(3 * BLOCK_BYTES + 1234, 5)
export const QUICK = { attempts: 4, baseMs: 5, capMs: 20, deadlineMs: 20_000 }
export const APPEND = 'files/upload_session/append_v2'
export const FINISH = 'files/upload_session/finish'
export const UPLOAD = 'files/upload'

/** Settings of an adapter on a fake of small blocks. */
export function quickSettings(fake: FakeDropbox, more: Partial<DropboxConfig> = {}): DropboxConfig {
  const retries = { callRetry: QUICK, partRetry: QUICK }
  return { ...fake.credentials, root: '/backups', blockBytes: BLOCK_BYTES, partBytes: BLOCK_BYTES, ...retries, ...more }
}

/** Writes an object, and waits for the stream to be closed. */
export async function put(storage: Storage, key: string, bytes: Buffer, options: WriteOptions = {}): Promise<void> {
  const stream = storage.createWriteStream(key, options)
  const closed = new Promise((resolve) => stream.once('close', resolve))
  try {
    await pipeline(Readable.from([bytes]), stream)
  } finally {
    await closed
  }
}

/** That the store has exactly these bytes under the key, and the fake one file with them. */
export async function assertHolds(storage: Storage, fake: FakeDropbox, key: string, bytes: Buffer): Promise<void> {
  assert.ok((await buffer(storage.createReadStream(key))).equals(bytes), 'other bytes were read')
  assert.equal(fake.tree.files.filter(({ display }) => display === `/backups/${key}`).length, 1)
}

export function assertNoFile(fake: FakeDropbox): void {
  assert.deepEqual(
    fake.tree.files.map(({ display }) => display),
    [],
  )
}

/** Bytes of all requests of a route. */
export function bytesOf(fake: FakeDropbox, route: string): number {
  return fake.callsOf(route).reduce((sum, { bodyBytes }) => sum + bodyBytes, 0)
}
