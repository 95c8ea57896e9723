// An adapter for a store of our own, written with what `millrace/adapters` gives for it: docs/guides/write-an-adapter.md
// walks through it. The store is a small HTTP server: PUT, GET with ranges, HEAD and DELETE of /objects/KEY, a listing
// in pages, and uploads in parts. test/examples/custom-adapter.test.ts starts one and holds this file to the contract.
import { randomUUID } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import {
  CALL_RETRY,
  type CallOptions,
  checkKey,
  checkRange,
  type FoundObject,
  type MultipartPrimitives,
  MultipartWritable,
  type ObjectStat,
  type OpenedRange,
  type PartBody,
  type PrimitiveRequest,
  type ProbeReport,
  probeStorage,
  quoteKey,
  type RangeRequest,
  type ReadOptions,
  ResumingReadable,
  readRangeByStream,
  retry,
  type Storage,
  StorageError,
  type WriteOptions,
} from '../adapters/index.ts'
import { ADAPTER, absentIsFine, type Sending, ShelfClient } from './custom-adapter-client.ts'

const pathOf = (key: string) => `/objects/${encodeURIComponent(key)}`

/** One write to one key, as the steps that MultipartWritable puts together. Each is one attempt. */
class ShelfWrite implements MultipartPrimitives<string, string> {
  readonly rules = {
    minPartBytes: 1024 * 1024,
    maxPartBytes: 64 * 1024 * 1024,
    alignBytes: 1,
    maxParts: 10_000,
    maxObjectBytes: 2 ** 40,
    concurrency: 4,
  }
  readonly #client: ShelfClient
  readonly #key: string
  /** The server keeps it with the object: by it we know our own. */
  readonly #headers: Record<string, string>
  #etag = ''

  constructor(client: ShelfClient, key: string, ifAbsent: boolean) {
    this.#client = client
    this.#key = key
    this.#headers = { 'x-write-id': randomUUID(), ...(ifAbsent ? { 'if-none-match': '*' } : {}) }
  }

  async putWhole(body: Buffer, { signal }: PrimitiveRequest): Promise<void> {
    await this.#send('PUT', pathOf(this.#key), { operation: 'putWhole', signal, body, headers: this.#headers })
  }

  async begin({ signal }: PrimitiveRequest): Promise<string> {
    const response = await this.#send('POST', '/uploads', { operation: 'begin', signal })
    return ((await response.json()) as { id: string }).id
  }

  async putPart(upload: string, { number, body }: PartBody, { signal }: PrimitiveRequest): Promise<string> {
    const path = `/uploads/${upload}/${number}`
    const response = await this.#send('PUT', path, { operation: 'putPart', signal, body })
    return ((await response.json()) as { etag: string }).etag
  }

  async commit(upload: string, receipts: string[], { signal }: PrimitiveRequest): Promise<void> {
    const body = JSON.stringify({ key: this.#key, parts: receipts })
    await this.#send('POST', `/uploads/${upload}`, { operation: 'commit', signal, body, headers: this.#headers })
  }

  async abort(upload: string, { signal }: PrimitiveRequest): Promise<void> {
    await absentIsFine(this.#send('DELETE', `/uploads/${upload}`, { operation: 'abort', signal }))
  }

  async find({ signal }: PrimitiveRequest): Promise<FoundObject | undefined> {
    const found = await absentIsFine(this.#send('HEAD', pathOf(this.#key), { operation: 'stat', signal }))
    if (!found) return undefined
    this.#etag = found.headers.get('etag') ?? ''
    const ours = found.headers.get('x-write-id') === this.#headers['x-write-id']
    return { size: Number(found.headers.get('content-length')), ours }
  }

  async remove({ signal }: PrimitiveRequest): Promise<void> {
    const headers = { 'if-match': this.#etag }
    await absentIsFine(this.#send('DELETE', pathOf(this.#key), { operation: 'delete', signal, headers }))
  }

  #send(method: string, path: string, sending: Sending): Promise<Response> {
    return this.#client.send(method, path, { ...sending, key: this.#key })
  }
}

export interface ShelfConfig {
  /** `http://host:port`, without a slash at its end. */
  origin: string
  token: string
  /** Bytes of a part at least; 8 MiB when absent. */
  partBytes?: number
}

/** Opens a shelf. Makes no request: the first call does. */
export async function openShelf(config: ShelfConfig): Promise<Storage> {
  return new ShelfStorage(config)
}

class ShelfStorage implements Storage {
  readonly adapter = ADAPTER
  readonly location: string
  readonly conditionalWrites = true
  readonly parallelReads = 4
  readonly #client: ShelfClient
  readonly #partBytes: number | undefined

  constructor({ origin, token, partBytes }: ShelfConfig) {
    this.location = origin
    this.#client = new ShelfClient(origin, token)
    this.#partBytes = partBytes
  }

  createWriteStream(key: string, options: WriteOptions = {}): Writable {
    checkKey(key, ADAPTER, 'createWriteStream')
    const write = new ShelfWrite(this.#client, key, options.ifAbsent ?? false)
    return new MultipartWritable(write, { ...options, adapter: ADAPTER, key, partBytes: this.#partBytes })
  }

  createReadStream(key: string, options: ReadOptions = {}): Readable {
    checkKey(key, ADAPTER, 'createReadStream')
    checkRange(options, { adapter: ADAPTER, key })
    return new ResumingReadable({ ...options, adapter: ADAPTER, key, open: (request) => this.#open(key, request) })
  }

  async readRange(
    key: string,
    offset: number,
    length: number,
    options: CallOptions & { version?: string } = {},
  ): Promise<Buffer> {
    checkKey(key, ADAPTER, 'readRange')
    return readRangeByStream(this, key, offset, length, options)
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectStat> {
    checkKey(key, ADAPTER, 'stat')
    const { headers } = await this.#call('HEAD', pathOf(key), { operation: 'stat', key, ...options })
    const size = Number(headers.get('content-length'))
    return { key, size, modified: new Date(headers.get('last-modified') ?? 0), version: headers.get('etag') ?? '' }
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncGenerator<ObjectStat> {
    let after: string | undefined = ''
    while (after !== undefined) {
      const path = `/objects?${new URLSearchParams({ prefix, after })}`
      const response = await this.#call('GET', path, { operation: 'list', ...options })
      const page = (await response.json()) as { objects: (ObjectStat & { modified: string })[]; next?: string }
      for (const found of page.objects) yield { ...found, modified: new Date(found.modified) }
      after = page.next
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkKey(key, ADAPTER, 'delete')
    await absentIsFine(this.#call('DELETE', pathOf(key), { operation: 'delete', key, ...options }))
  }

  probe(options: CallOptions = {}): Promise<ProbeReport> {
    const signIn = async () => {
      for await (const _ of this.list('', options)) break
    }
    return probeStorage(this, signIn, options)
  }

  async close(): Promise<void> {}

  /** One attempt at opening a range: ResumingReadable retries it, and resumes after what it brings. */
  async #open(key: string, { start, end, version, signal }: RangeRequest): Promise<OpenedRange> {
    const headers = { range: `bytes=${start}-${end ?? ''}`, ...(version === undefined ? {} : { 'if-match': version }) }
    const sending = { operation: 'read', key, signal, headers, accept: [416] }
    const response = await this.#client.send('GET', pathOf(key), sending)
    const found = response.headers.get('etag') ?? ''
    // Nothing is there from `start` on, which is no error.
    if (response.status === 416) return { body: Readable.from([]), length: 0, version: found }
    const body = Readable.fromWeb(response.body as never)
    if (response.headers.get('content-range')?.startsWith(`bytes ${start}-`)) {
      return { body, length: Number(response.headers.get('content-length')), version: found }
    }
    body.on('error', () => {}).destroy()
    const message = `The server answered a read of ${quoteKey(key)} with another range.`
    throw new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'read', key })
  }

  #call(method: string, path: string, sending: Sending): Promise<Response> {
    return retry(() => this.#client.send(method, path, sending), CALL_RETRY, { signal: sending.signal })
  }
}
