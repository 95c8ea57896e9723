import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { type GoogleDriveConfig, openGoogleDrive } from '../../adapters/google-drive.ts'
import type { Storage, WriteOptions } from '../../adapters/storage.ts'
import { type DriveFake, startDriveFake } from '../fakes/drive.ts'
import { type FaultProxy, openFaultProxy } from './fault-proxy.ts'

export const KiB = 1024
export const MiB = 1024 * KiB
const QUICK = { attempts: 4, baseMs: 5, capMs: 20, deadlineMs: 20_000 }

/** A fake Drive, a proxy before it, and a store that goes through it. */
export interface TestDrive {
  fake: DriveFake
  proxy: FaultProxy
  /** In parts of 1 MiB, beneath the folder `backups`. */
  storage: Storage
  /** Another store on the same account, as another process has it. */
  another(more?: Partial<GoogleDriveConfig>): Promise<Storage>
  put(key: string, bytes: Buffer, options?: WriteOptions): Promise<void>
  /** Asserts that the object is there, whole, and nothing else of it. */
  assertHolds(key: string, bytes: Buffer): Promise<void>
  /** Asserts that neither an object nor an upload is left. */
  assertNothing(key: string): Promise<void>
  close(): Promise<void>
}

export async function openTestDrive(more: Partial<GoogleDriveConfig> = {}): Promise<TestDrive> {
  const fake = await startDriveFake()
  const proxy = await openFaultProxy(fake.origin)
  const stores: Storage[] = []
  const { clientId, clientSecret, refreshToken = '' } = fake.state
  const another = async (changes: Partial<GoogleDriveConfig> = {}) => {
    const endpoints = { api: proxy.endpoint, token: proxy.endpoint }
    const quick = { partBytes: MiB, callRetry: QUICK, partRetry: QUICK, idleMs: 2000 }
    const where =
      'folderId' in changes || 'appData' in changes || 'sharedDriveId' in changes ? {} : { folder: 'backups' }
    const config = { clientId, clientSecret, refreshToken, endpoints, ...where, ...quick, ...changes }
    const opened = await openGoogleDrive(config)
    stores.push(opened)
    return opened
  }
  const storage = await another(more)
  return {
    fake,
    proxy,
    storage,
    another,
    put: (key, bytes, options) => putInto(storage, key, bytes, options),
    async assertHolds(key, bytes) {
      assert.ok((await buffer(storage.createReadStream(key))).equals(bytes), 'other bytes were read')
      const name = key.slice(key.indexOf('/') + 1)
      assert.equal(fake.named(name).length, 1, 'more than one file of the name')
      assert.equal(fake.pendingSessions, 0, 'an upload session is left')
    },
    async assertNothing(key) {
      await assert.rejects(storage.stat(key), { code: 'NOT_FOUND' })
      assert.deepEqual(fake.named(key.slice(key.indexOf('/') + 1)), [])
      assert.equal(fake.pendingSessions, 0, 'an upload session is left')
    },
    async close() {
      for (const opened of stores) await opened.close()
      await proxy.close()
      await fake.close()
    },
  }
}

/** Writes an object, and waits for `close` whatever becomes of it. */
export async function putInto(storage: Storage, key: string, bytes: Buffer, options: WriteOptions = {}): Promise<void> {
  const stream = storage.createWriteStream(key, options)
  const close = new Promise((resolve) => stream.once('close', resolve))
  try {
    await pipeline(Readable.from([bytes]), stream)
  } finally {
    await close
  }
}

export async function keysIn(storage: Storage, prefix: string): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of storage.list(prefix)) keys.push(key)
  return keys.sort()
}
