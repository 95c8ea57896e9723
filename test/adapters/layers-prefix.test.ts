import assert from 'node:assert/strict'
import { finished } from 'node:stream/promises'
import { describe, it } from 'node:test'
import { withPrefix } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { ObjectStat, Storage } from '../../adapters/storage.ts'
import { overriding } from '../support/storage.ts'

async function write(storage: Storage, key: string): Promise<void> {
  const stream = storage.createWriteStream(key)
  stream.end(key)
  await finished(stream)
}

async function keysOf(storage: Storage, prefix = ''): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of storage.list(prefix)) keys.push(key)
  return keys.sort()
}

describe('withPrefix', () => {
  it('keeps every key under the prefix and shows none of the others', async () => {
    const memory = await openMemory()
    for (const key of ['a/x', 'ab/x', 'b', 'a/b/c']) await write(memory, key)
    const storage = withPrefix(memory, 'a/')
    assert.deepEqual(await keysOf(storage), ['b/c', 'x'])
    assert.deepEqual(await keysOf(storage, '../'), [])
    await write(storage, 'new')
    assert.equal((await memory.stat('a/new')).size, 3)
    assert.equal((await storage.stat('new')).key, 'new')
    for (const key of ['../b', '..', '/b', 'x/../../b', '', undefined as unknown as string]) {
      assert.throws(() => storage.createWriteStream(key), { code: 'INVALID' })
      assert.throws(() => storage.createReadStream(key), { code: 'INVALID' })
      await assert.rejects(storage.stat(key), { code: 'INVALID' })
      await assert.rejects(storage.delete(key), { code: 'INVALID' })
      await assert.rejects(storage.readRange(key, 0, 1), { code: 'INVALID' })
    }
    await storage.delete('x')
    await storage.delete('b')
    assert.deepEqual(await keysOf(memory), ['a/b/c', 'a/new', 'ab/x', 'b'])
  })

  it('counts the whole key against its limits', async () => {
    const storage = withPrefix(await openMemory(), `${'p/'.repeat(400)}`)
    await write(storage, `${'k/'.repeat(111)}kk`)
    await assert.rejects(storage.stat(`${'k/'.repeat(112)}k`), { code: 'INVALID' })
  })

  it('refuses a prefix that no key could begin with', async () => {
    const memory = await openMemory()
    for (const prefix of ['', '/', 'a', '/a/', 'a//', '../', 'a/./', 'a\n/', undefined as unknown as string]) {
      assert.throws(() => withPrefix(memory, prefix), { code: 'INVALID' })
    }
  })

  it('shows where it is, before what a URL asks', async () => {
    const memory = await openMemory()
    const locate = (location: string) => withPrefix(overriding(memory, { location }), 'a/b c?/').location
    assert.equal(locate('memory:'), 'memory:a/b%20c%3F/')
    assert.equal(locate('file:///srv'), 'file:///srv/a/b%20c%3F/')
    assert.equal(locate('s3://bucket/?endpoint=http://x'), 's3://bucket/a/b%20c%3F/?endpoint=http://x')
  })

  it('probes and purges under the prefix', async () => {
    const memory = await openMemory()
    const touched: string[] = []
    const inner = overriding(memory, {
      createWriteStream(key, options) {
        touched.push(key)
        return memory.createWriteStream(key, options)
      },
      purgeUnfinished: async (_ms, options) => touched.push(options?.prefix ?? 'everything'),
    })
    const storage = withPrefix(inner, 'a/')
    assert.equal((await storage.probe()).ok, true)
    assert.match(touched[0]!, /^a\/\.millrace-canary-/)
    await storage.purgeUnfinished?.(1000)
    await storage.purgeUnfinished?.(1000, { prefix: 'b/' })
    assert.deepEqual(touched.slice(1), ['a/', 'a/b/'])
    assert.equal(
      withPrefix(overriding(memory, { purgeUnfinished: undefined as never }), 'a/').purgeUnfinished,
      undefined,
    )
  })

  it('discards the upload of the whole key, where the store beneath has uploads to discard', async () => {
    const discarded: string[] = []
    const memory = await openMemory()
    const inner = overriding(memory, {
      discardUpload: async (key, upload) => {
        discarded.push(`${key} ${upload}`)
      },
    })
    const storage = withPrefix(inner, 'a/')
    await storage.discardUpload?.('b/c', 'upload')
    assert.deepEqual(discarded, ['a/b/c upload'])
    assert.equal(withPrefix(memory, 'a/').discardUpload, undefined)
  })

  it('a store that names what was not asked for is not believed', async () => {
    const lax = overriding(await openMemory(), {
      async *list(): AsyncGenerator<ObjectStat> {
        yield { key: 'elsewhere', size: 1, modified: new Date(0) }
      },
    })
    await assert.rejects(keysOf(withPrefix(lax, 'a/')), { code: 'CORRUPT' })
  })
})
