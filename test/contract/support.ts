import assert from 'node:assert/strict'
import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientRequest } from 'node:http'
import type { Socket } from 'node:net'
import { Readable, type Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { StorageErrorCode } from '../../adapters/errors.ts'
import type { ObjectStat, Storage, WriteOptions } from '../../adapters/storage.ts'

/** The store that the contract suite tests, and what is known of it. */
export interface StorageContract {
  /** Opens the store under test. Called once; tests keep to keys of their own, beneath `contract-…/`. */
  open(): Promise<Storage>
  /** Called after the last test, with the store still open. */
  cleanup?(storage: Storage): Promise<void>
  /** How many uploads the store holds that were begun and neither committed nor cancelled. */
  pendingUploads?(): Promise<number>
  /** Where the adapter begins to send parts: objects around this size are tested. Default 8 MiB. */
  partBytes?: number
  /** Objects in one listing; above the size of a page. Default 25. */
  manyKeys?: number
  /** Whether the store takes the two Unicode forms of one text for one key, as some file systems do. Default false. */
  foldsUnicode?: boolean
  /** Whether the store takes `Key` and `key` for one. Default false. */
  foldsCase?: boolean
  /** Whether `a` and `a/b` cannot be two objects, as where `a` is a file or a folder. Default false. */
  keysAreFiles?: boolean
  /** Names of ODD_NAMES that the store cannot keep. A key with one has to be INVALID. Default none. */
  refusedNames?: readonly string[]
  /** The longest key in bytes, where the store or a prefix allows less than 1,024. Longer ones have to be INVALID. */
  keyMaxBytes?: number
  /** The longest key of an object in parts, where that is shorter. What a longer one gives is not tested. */
  keyMaxBytesInParts?: number
  /** Digests that node:crypto has not, by the name that `checksum.algorithm` gives them: hex in lower case. */
  digests?: Record<string, (bytes: Buffer) => string>
  /** The largest object in bytes: a `size` above it has to be INVALID at once. Default: the store has no limit. */
  maxObjectBytes?: number
}

/** Names that something on the way to a store may take for something else: URLs, XML, JSON, shells, numbers. */
export const ODD_NAMES: readonly string[] = [
  'a b',
  ' leading',
  'trailing ',
  'a  b',
  'a+b',
  'a%20b',
  'a%2Fb',
  'a%2fb',
  '100%',
  '%',
  '%zz',
  'what?',
  'q?x=1&y=2#z',
  '#1',
  'a=b',
  'a&b',
  '&amp;<xml>&lt;&#65;',
  ']]>',
  `it's "quoted"`,
  'back`tick',
  '~!@$^*()_=[]{}|;,:',
  'trailing.',
  '-dash',
  '..x',
  '...',
  '.hidden',
  '1',
  '01',
  '1.0',
  '1e3',
  'true',
  'null',
  '__proto__',
  'grüße',
  '世界',
  '🌍',
  '\u{1d4dc}\u{20bb7}',
  '\u{1f469}\u200d\u{1f680}',
  '\u00a0',
  '\u202e',
  'e\u0301',
  '\u00e9',
]

/** https://nodejs.org/api/diagnostics_channel.html#http: each request of node:http and node:https. */
const REQUEST_CHANNEL = 'http.client.request.start'

/** What the tests of one contract share: the store, keys of their own, and what holds after every write. */
export class ContractRun {
  readonly contract: StorageContract
  readonly partBytes: number
  /** Every key of this run begins with it, and a slash. */
  readonly base = `contract-${randomBytes(6).toString('hex')}`
  readonly #sockets = new Set<Socket>()
  #storage: Storage | undefined
  #count = 0

  constructor(contract: StorageContract) {
    this.contract = contract
    this.partBytes = contract.partBytes ?? 8 * 1024 * 1024
  }

  /** The store under test, from the first `before` on. */
  get storage(): Storage {
    assert.ok(this.#storage, 'the store was not opened')
    return this.#storage
  }

  async open(): Promise<void> {
    subscribe(REQUEST_CHANNEL, this.#onRequest)
    this.#storage = await this.contract.open()
  }

  /** Removes what the run has left, and holds the store to letting go of its sockets. */
  async close(): Promise<void> {
    try {
      await inBatches(await keysOf(this.storage, `${this.base}/`), (key) => this.storage.delete(key))
      await this.contract.cleanup?.(this.storage)
    } finally {
      await this.storage.close()
    }
    unsubscribe(REQUEST_CHANNEL, this.#onRequest)
    for (let waits = 0; [...this.#sockets].some((socket) => !socket.destroyed); waits++) {
      assert.ok(waits < 100, 'close() has left a socket open')
      await delay(100)
    }
  }

  // Idle sockets of an agent do not hold the process up, so nothing that lists what does would show them.
  #onRequest = (message: unknown) => {
    const { request } = message as { request: ClientRequest }
    if (request.socket) this.#sockets.add(request.socket)
    else request.once('socket', (socket) => this.#sockets.add(socket))
  }

  /** A prefix that no other test uses; it ends in a slash. */
  freshPrefix(): string {
    return `${this.base}/${++this.#count}/`
  }

  freshKey(): string {
    return `${this.freshPrefix()}object.bin`
  }

  /** After a write that failed or was aborted: no object, nothing beside it, no upload. */
  async assertNothingLeft(key: string): Promise<void> {
    await assertFails(this.storage.stat(key), 'NOT_FOUND')
    const folder = key.slice(0, key.lastIndexOf('/') + 1)
    assert.deepEqual(await keysOf(this.storage, folder), [], 'an object is left')
    await this.assertNoUploads()
  }

  /** A key of exactly so many bytes, in segments of 250 at most. */
  keyOf(bytes: number): string {
    const start = this.freshPrefix()
    let rest = 'long name '.repeat(103).slice(0, bytes - start.length)
    let key = start
    for (; rest.length > 250; rest = rest.slice(250)) key += `${rest.slice(0, 249)}/`
    return key + rest.replace(/ $/, '.')
  }

  /**
   * Moments in ms after `end()` at which to abort: spread over the time that the store takes to commit an object of so
   * many bytes.
   */
  async momentsOfCommit(size: number): Promise<number[]> {
    const stream = this.storage.createWriteStream(this.freshKey())
    const start = performance.now()
    stream.end(noise(size, 1))
    await finished(stream)
    const ms = performance.now() - start
    return [0, 0.2, 0.4, 0.6, 0.75, 0.9, 1].map((share) => share * ms)
  }

  async assertNoUploads(): Promise<void> {
    const { contract } = this
    if (contract.pendingUploads) assert.equal(await contract.pendingUploads(), 0, 'an unfinished upload is left')
  }

  /** After a write that finished: exactly these bytes, and no upload. */
  async assertHolds(key: string, bytes: Buffer): Promise<void> {
    const stat = await this.storage.stat(key)
    assert.equal(stat.size, bytes.length)
    assert.equal(stat.key, key)
    assert.ok(digest(await buffer(this.storage.createReadStream(key))) === digest(bytes), 'other bytes were read')
    await this.assertNoUploads()
  }
}

/** Bytes that look random and are the same for the same seed. */
export function noise(length: number, seed: number): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(length))
}

export function* chunksOf(bytes: Buffer, length: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

export async function write(storage: Storage, key: string, bytes: Buffer, options?: WriteOptions): Promise<void> {
  await transfer(Readable.from(chunksOf(bytes, 99_991)), storage.createWriteStream(key, options))
}

/** A pipeline whose sink has closed as well: with a generator as its source, pipeline rejects before that. */
export async function transfer(source: AsyncIterable<Buffer>, stream: Writable): Promise<void> {
  const close = closed(stream)
  try {
    await pipeline(source, stream)
  } finally {
    await close
  }
}

/** Calls `work` for each item, several at once. */
export async function inBatches<T>(items: readonly T[], work: (item: T) => Promise<void>, count = 16): Promise<void> {
  for (let at = 0; at < items.length; at += count) await Promise.all(items.slice(at, at + count).map(work))
}

/** Writes all of the bytes and waits until the stream has taken them, without an end. */
export async function feed(stream: Writable, bytes: Buffer): Promise<void> {
  for (const chunk of chunksOf(bytes, 99_991)) {
    await new Promise<void>((resolve, reject) => {
      stream.write(chunk, (error) => (error ? reject(error) : resolve()))
    })
  }
}

/** Waits for `close`, whether or not an error comes first. */
export function closed(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    stream.on('error', () => {})
    if (stream.closed) resolve()
    else stream.once('close', resolve)
  })
}

/** Waits for `close`; an error is one, as destroy() without an error gives none unless the clean-up failed. */
export async function closedCleanly(stream: Writable): Promise<void> {
  await closed(stream)
  assert.equal(stream.errored, null)
}

export function seconds(date: Date | undefined): number {
  return Math.floor((date?.getTime() ?? 0) / 1000)
}

export function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

export async function assertReads(storage: Storage, key: string, bytes: Buffer): Promise<void> {
  const read = await buffer(storage.createReadStream(key))
  assert.ok(read.equals(bytes), `${key} gave other bytes`)
}

export async function listOf(storage: Pick<Storage, 'list'>, prefix: string): Promise<ObjectStat[]> {
  const objects: ObjectStat[] = []
  for await (const object of storage.list(prefix)) objects.push(object)
  return objects
}

export async function keysOf(storage: Pick<Storage, 'list'>, prefix: string): Promise<string[]> {
  return (await listOf(storage, prefix)).map((object) => object.key).sort()
}

export function assertIsStorageError(error: unknown, code: StorageErrorCode): true {
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'StorageError', String(error.stack))
  assert.equal((error as Error & { code?: string }).code, code, error.message)
  return true
}

export async function assertFails(promise: Promise<unknown>, code: StorageErrorCode): Promise<void> {
  await assert.rejects(promise, (error) => assertIsStorageError(error, code))
}

export async function assertAborts(promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, { name: 'AbortError' })
}
