import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { readParallel, type Storage } from '../../adapters/index.ts'
import { openShelf } from '../../examples/custom-adapter.ts'
import { storageContract } from '../contract/storage.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'
import { sample } from '../support/streams.ts'
import { openShelfServer, type ShelfServer } from './shelf-server.ts'

const PART_BYTES = 1024 * 1024

let server: ShelfServer

storageContract('shelf', {
  async open() {
    server = await openShelfServer()
    return openShelf({ origin: server.origin, token: server.token, partBytes: PART_BYTES })
  },
  cleanup: () => server.close(),
  pendingUploads: async () => server.uploads.size,
  partBytes: PART_BYTES,
  manyKeys: 250,
})

describe('shelf under faults', () => {
  let faulty: ShelfServer
  let proxy: FaultProxy
  let storage: Storage
  before(async () => {
    faulty = await openShelfServer()
  })
  beforeEach(async () => {
    proxy = await openFaultProxy(faulty.origin)
    storage = await openShelf({ origin: proxy.endpoint, token: faulty.token, partBytes: PART_BYTES })
  })
  afterEach(async () => {
    await storage.close()
    await proxy.close()
  })
  after(() => faulty.close())

  async function put(key: string, bytes: Buffer): Promise<void> {
    const stream = storage.createWriteStream(key)
    stream.end(bytes)
    await finished(stream)
  }

  it('T7: a part that is refused half-way is sent again', async () => {
    const bytes = sample(3 * PART_BYTES)
    proxy.inject({ kind: 'refuse-halfway', status: 503 }, ({ url }) => /^\/uploads\/.+\/2$/.test(url))
    await put('a', bytes)
    assert.ok((await buffer(storage.createReadStream('a'))).equals(bytes))
    assert.equal(faulty.uploads.size, 0)
  })

  it('T10: a commit whose answer is lost is found to be done', async () => {
    const isCommit = ({ method, url }: { method: string; url: string }) =>
      method === 'POST' && url.startsWith('/uploads/')
    proxy.inject({ kind: 'lose-reply' }, isCommit)
    const bytes = sample(3 * PART_BYTES, 2)
    await put('b', bytes)
    assert.ok((await buffer(storage.createReadStream('b'))).equals(bytes))
  })

  it('T13: a read that drops goes on from the byte it has come to', async () => {
    const bytes = sample(2 * PART_BYTES, 3)
    await put('c', bytes)
    const isRead = ({ method }: { method: string }) => method === 'GET'
    proxy.inject({ kind: 'drop-reply', afterBytes: 700_000 }, isRead)
    assert.ok((await buffer(storage.createReadStream('c'))).equals(bytes))
    proxy.inject({ kind: 'drop-reply', afterBytes: 100_000 }, isRead, 2)
    assert.ok((await buffer(readParallel(storage, 'c', { rangeBytes: 300_000 }))).equals(bytes))
  })

  it('a refused token is ACCESS_DENIED, and stands in no error', async () => {
    const refused = await openShelf({ origin: proxy.endpoint, token: 'wrong-token' })
    await assert.rejects(refused.stat('a'), (error: Error & { code?: string }) => {
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.doesNotMatch(`${error.stack}${error.cause}`, /wrong-token/)
      return true
    })
    assert.equal((await refused.probe()).ok, false)
  })
})
