import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { type DropboxConfig, openDropbox } from '../../adapters/dropbox.ts'
import type { ObjectStat, Storage } from '../../adapters/storage.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import { routeError } from '../fakes/dropbox-errors.ts'
import { FakeTree } from '../fakes/dropbox-tree.ts'
import { BLOCK_BYTES, BYTES, put, quickSettings } from '../support/dropbox.ts'
import { type FaultProxy, openFaultProxy } from '../support/fault-proxy.ts'

const DOWNLOAD = '/2/files/download'
const CONTENT = { size: 3, hash: 'ab'.repeat(32), bytes: Buffer.from('abc') }

describe('reading, listing and deleting in a Dropbox', () => {
  let fake: FakeDropbox
  let storage: Storage
  let proxy: FaultProxy

  beforeEach(async () => {
    fake = await FakeDropbox.open({ blockBytes: BLOCK_BYTES })
    proxy = await openFaultProxy(fake.origin)
    storage = await open()
  })
  afterEach(async () => {
    await storage.close()
    await proxy.close()
    await fake.close()
  })

  function open(more: Partial<DropboxConfig> = {}): Promise<Storage> {
    return openDropbox(quickSettings(fake, { endpoint: proxy.endpoint, idleMs: 500, pageSize: 3, ...more }))
  }

  /** A file that the adapter did not make. */
  function foreign(path: string, tree: FakeTree = fake.tree): void {
    tree.write({ path, mode: { '.tag': 'overwrite' }, strict: false, clientModified: undefined }, CONTENT)
  }

  async function keysOf(prefix: string): Promise<string[]> {
    const keys: string[] = []
    for await (const { key } of storage.list(prefix)) keys.push(key)
    return keys.sort()
  }

  const isDownload = ({ url }: { url: string }) => url === DOWNLOAD

  describe('reads', () => {
    for (const kind of ['drop-reply', 'stall-reply', 'shorten-reply'] as const) {
      it(`T13: a download that breaks (${kind}) goes on where it was`, async () => {
        await put(storage, 'broken', BYTES)
        proxy.inject({ kind, afterBytes: 20_000 }, isDownload)
        assert.ok((await buffer(storage.createReadStream('broken'))).equals(BYTES))
        assert.equal(proxy.seen.filter(isDownload).length, 2)
      })
    }

    it('T14: a file that is replaced while it is read is read on to its end, in the revision that it had', async () => {
      await put(storage, 'moving', BYTES)
      proxy.inject({ kind: 'drop-reply', afterBytes: 20_000 }, isDownload)
      fake.onCall = ({ route }) => {
        if (route === 'files/download' && fake.callsOf(route).length === 2) foreign('/backups/moving')
      }
      assert.ok((await buffer(storage.createReadStream('moving'))).equals(BYTES))
      assert.equal((await storage.stat('moving')).size, 3)
    })

    it('the token expires before a download', async () => {
      await put(storage, 'old', BYTES)
      fake.tokens.expire()
      assert.ok((await buffer(storage.createReadStream('old'))).equals(BYTES))
    })

    it('a download whose metadata makes no sense is tried again', async () => {
      await put(storage, 'odd', BYTES)
      const headers = { 'dropbox-api-result': '{"cut' }
      proxy.inject({ kind: 'answer', status: 200, headers, body: 'x' }, isDownload)
      proxy.inject({ kind: 'answer', status: 200, headers: { 'dropbox-api-result': '{}' }, body: 'x' }, isDownload)
      proxy.inject({ kind: 'answer', status: 200, body: '<html>a sign-in</html>' }, isDownload)
      assert.ok((await buffer(storage.createReadStream('odd'))).equals(BYTES))
    })
  })

  describe('upper and lower case', () => {
    it('a key that differs in case alone from a file is CONFLICT to write, and the file stays', async () => {
      await put(storage, 'Lease', BYTES.subarray(0, 10))
      for (const bytes of [BYTES.subarray(0, 10), BYTES.subarray(0, 20), BYTES]) {
        for (const ifAbsent of [false, true]) {
          await assert.rejects(put(storage, 'lease', bytes, { ifAbsent }), { code: 'CONFLICT' })
        }
      }
      await assert.rejects(put(storage, 'lease', BYTES), /under the name "Lease".*does not tell upper from lower case/)
      assert.ok((await buffer(storage.createReadStream('Lease'))).equals(BYTES.subarray(0, 10)))
    })

    it('such a key reads nothing, and deletes nothing', async () => {
      await put(storage, 'World/Level.dat', BYTES)
      for (const key of ['World/level.dat', 'world/Level.dat']) {
        await assert.rejects(storage.stat(key), { code: 'NOT_FOUND' })
        await assert.rejects(buffer(storage.createReadStream(key)), { code: 'NOT_FOUND' })
        await assert.rejects(storage.readRange(key, 0, 1), { code: 'NOT_FOUND' })
        await storage.delete(key)
      }
      assert.deepEqual(await keysOf('world'), [])
      assert.deepEqual(await keysOf('World'), ['World/Level.dat'])
      assert.equal((await storage.stat('World/Level.dat')).size, BYTES.length)
    })

    it('a file beneath a folder of another case is CONFLICT, and nothing of it stays', async () => {
      await put(storage, 'World/a', BYTES.subarray(0, 10))
      for (const bytes of [BYTES.subarray(0, 20), BYTES]) {
        await assert.rejects(put(storage, 'world/b', bytes), (error: Error & { code?: string }) => {
          assert.equal(error.code, 'CONFLICT')
          assert.match(error.message, /under the name "World\/b"/)
          return true
        })
      }
      assert.deepEqual(await keysOf(''), ['World/a'])
    })

    it('the root may be given in another case than it has', async () => {
      await put(storage, 'key', BYTES.subarray(0, 10))
      const other = await open({ root: '/BACKUPS/' })
      assert.equal((await other.stat('key')).size, 10)
      const listed: ObjectStat[] = []
      for await (const object of other.list('')) listed.push(object)
      assert.deepEqual(
        listed.map(({ key }) => key),
        ['key'],
      )
      await other.close()
    })

    it('a key that is a folder, or lies beneath a file, is CONFLICT', async () => {
      await put(storage, 'a/b', BYTES.subarray(0, 10))
      for (const bytes of [BYTES.subarray(0, 20), BYTES]) {
        await assert.rejects(put(storage, 'a', bytes), { code: 'CONFLICT', retryable: false })
        await assert.rejects(put(storage, 'a', bytes, { ifAbsent: true }), { code: 'CONFLICT' })
        await assert.rejects(put(storage, 'a/b/c', bytes), { code: 'CONFLICT', retryable: false })
      }
      assert.deepEqual(await keysOf(''), ['a/b'])
    })
  })

  describe('listings', () => {
    it('begin again when Dropbox gives the cursor up, with each object once', async () => {
      for (let index = 0; index < 10; index++) await put(storage, `many/${index}`, BYTES.subarray(0, index))
      fake.repeatsEntries = true
      const keys: string[] = []
      for await (const { key } of storage.list('many/')) {
        keys.push(key)
        if (keys.length === 3 || keys.length === 5) fake.resetCursors()
      }
      assert.deepEqual(
        keys.sort(),
        Array.from({ length: 10 }, (_, index) => `many/${index}`),
      )
      assert.ok(fake.callsOf('files/list_folder').length >= 3)
    })

    it('T17: what comes and goes meanwhile is no error, and takes nothing else with it', async () => {
      for (let index = 0; index < 9; index++) await put(storage, `busy/${index}`, BYTES.subarray(0, 5))
      const keys = new Set<string>()
      for await (const { key } of storage.list('busy/')) {
        keys.add(key)
        if (keys.size === 2) {
          await storage.delete('busy/8')
          await put(storage, 'busy/9', BYTES.subarray(0, 5))
        }
      }
      for (let index = 0; index < 8; index++) assert.ok(keys.has(`busy/${index}`))
      assert.ok(!keys.has('busy/8'))
    })

    it('that never come to an end, or whose folder goes between two pages, are errors', async () => {
      for (let index = 0; index < 9; index++) await put(storage, `busy/${index}`, BYTES.subarray(0, 5))
      fake.refuse('files/list_folder/continue', routeError(['reset']), 50)
      await assert.rejects(keysOf('busy/'), { code: 'UNAVAILABLE' })
      fake.disarm()
      fake.refuse('files/list_folder/continue', routeError(['path', 'not_found']))
      await assert.rejects(keysOf(''), { code: 'NOT_FOUND' })
    })

    it('leave out what no key leads to, and ask for the deepest folder alone', async () => {
      await put(storage, 'deep/er/x', BYTES.subarray(0, 5))
      for (const name of ['a%5Cb', 'a%2Fb', '%41', '%E9', 'x'.repeat(251), '100%', 'plain']) foreign(`/backups/${name}`)
      // What is percent-encoded without need is not what a key would have been made into.
      assert.deepEqual(await keysOf(''), ['100%', 'a\\b', 'deep/er/x', 'plain'])
      for (const prefix of ['/', '/deep', 'deep//er', 'deep/../deep', `${'x'.repeat(251)}/`]) {
        assert.deepEqual(await keysOf(prefix), [])
      }
      await keysOf('deep/er/x')
      assert.equal(fake.callsOf('files/list_folder').at(-1)?.arg.path, '/backups/deep/er')
    })
  })

  it('deletes what is there now, also when it was replaced since the look', async () => {
    await put(storage, 'gone', BYTES.subarray(0, 5))
    fake.refuse('files/delete_v2', routeError(['path_write', 'conflict', 'file']))
    await storage.delete('gone')
    await assert.rejects(storage.stat('gone'), { code: 'NOT_FOUND' })
    await put(storage, 'gone', BYTES.subarray(0, 5))
    fake.applyAndFail('files/delete_v2')
    await storage.delete('gone')
    assert.deepEqual(await keysOf(''), [])
  })

  it('deletes no folder that has taken the place of a file since the look', async () => {
    await put(storage, 'turned', BYTES.subarray(0, 5))
    fake.onCall = ({ route }) => {
      if (route !== 'files/delete_v2') return
      fake.tree.delete('/backups/turned')
      foreign('/backups/turned/precious')
    }
    await storage.delete('turned')
    fake.onCall = undefined
    assert.deepEqual(await keysOf(''), ['turned/precious'])
  })

  it('a namespace is where all requests go', async () => {
    fake.namespaces.set('77', new FakeTree())
    foreign('/Team/there', fake.namespaces.get('77'))
    const team = await open({ root: '/Team', namespace: '77' })
    assert.equal(team.location, 'dropbox:///Team/?namespace=77')
    await put(team, 'new', BYTES)
    assert.ok((await buffer(team.createReadStream('new'))).equals(BYTES))
    assert.equal((await team.stat('there')).size, 3)
    assert.deepEqual(fake.tree.files, [])
    await team.delete('new')
    await team.close()
    const root = await open({ root: '/Team', rootNamespace: '77' })
    assert.equal((await root.stat('there')).size, 3)
    await root.close()
  })
})
