import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { type B2Config, openB2 } from '../../adapters/backblaze-b2.ts'
import type { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { FakeB2 } from '../fakes/b2.ts'
import type { FakeKey } from '../fakes/b2-store.ts'
import { type FaultProxy, openFaultProxy } from './fault-proxy.ts'
import { sample } from './streams.ts'

export const PART_BYTES = 100_000
/** Four parts. */
export const BYTES = sample(3 * PART_BYTES + 1234, 3)
/** One request. */
export const SMALL = BYTES.subarray(0, 5000)
const QUICK = { attempts: 4, baseMs: 5, capMs: 20, deadlineMs: 20_000 }

/** A fake B2 with the bucket `worlds`, a proxy before it, and a store that goes through it. */
export interface TestB2 {
  fake: FakeB2
  proxy: FaultProxy
  storage: Storage
  /** What `open` signs in with. */
  key: FakeKey
  /** Another store on the same bucket, as another process has it. */
  open(more?: Partial<B2Config>): Promise<Storage>
  closeAtEnd(storage: Storage): void
  /** Writes an object; settles at the stream's close. */
  put(name: string, bytes: Buffer, into?: Storage): Promise<void>
  /** Asserts that the object is there, whole, in one version, and no upload. */
  assertHolds(name: string, bytes: Buffer): Promise<void>
  /** Asserts that neither a version nor an upload is left. */
  assertNothing(name: string): void
  close(): Promise<void>
}

export async function openTestB2(): Promise<TestB2> {
  const fake = await new FakeB2({ minPartBytes: PART_BYTES }).start()
  fake.store.addBucket('worlds')
  const proxy = await openFaultProxy(fake.origin)
  const opened: Storage[] = []
  const test: Omit<TestB2, 'storage'> = {
    fake,
    proxy,
    key: fake.store.addKey(),
    async open(more = {}) {
      const { keyId, applicationKey } = test.key
      const sizes = { partBytes: PART_BYTES, minPartBytes: PART_BYTES }
      const own = { keyId, applicationKey, bucket: 'worlds', endpoint: proxy.endpoint, ...sizes }
      const one = await openB2({ ...own, callRetry: QUICK, partRetry: QUICK, ...more })
      opened.push(one)
      return one
    },
    closeAtEnd: (storage) => void opened.push(storage),
    async put(name, bytes, into = storage) {
      const stream = into.createWriteStream(name)
      const close = new Promise((resolve) => stream.once('close', resolve))
      try {
        await pipeline(Readable.from([bytes]), stream)
      } finally {
        await close
      }
    },
    async assertHolds(name, bytes) {
      assert.ok((await buffer(storage.createReadStream(name))).equals(bytes))
      assert.deepEqual(fake.unfinished, [])
      assert.equal(fake.store.versions(name).length, 1, 'more than one version is left')
    },
    assertNothing(name) {
      assert.deepEqual(fake.store.versions(name), [])
      assert.deepEqual(fake.unfinished, [])
    },
    async close() {
      for (const one of opened) await one.close()
      await proxy.close()
      await fake.close()
    },
  }
  const storage = await test.open()
  return Object.assign(test, { storage })
}

/** Matches requests of one call. */
export const to = (name: string) => (seen: { url: string }) => seen.url.includes(`/${name}`)

/** @returns what it is refused with. */
export const caught = (work: Promise<unknown>): Promise<StorageError> =>
  work.then(
    () => assert.fail('it was not refused'),
    (error) => error,
  )

export async function until(condition: () => boolean): Promise<void> {
  for (let count = 0; !condition(); count++) {
    if (count > 2000) throw new Error('it did not come about')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Resolves at `close`. @throws what the stream failed with. */
export function closed(stream: NodeJS.WritableStream & { errored?: Error | null }): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.on('error', () => {})
    stream.once('close', () => (stream.errored ? reject(stream.errored) : resolve()))
  })
}
