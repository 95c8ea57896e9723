import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { FOLDER_TYPE, ROOT_ID } from '../fakes/drive-state.ts'
import { keysIn, MiB, openTestDrive, putInto, type TestDrive } from '../support/drive.ts'
import type { SeenRequest } from '../support/fault-proxy.ts'

const KEY = 'survival/world.mlr'
const OLD = Buffer.from('the old object')
const NEW = Buffer.from('the new object, which is longer')
const BYTES = Buffer.alloc(3 * MiB, 'some bytes that repeat. ')

type Asked = Pick<SeenRequest, 'method' | 'url'>
const isList = ({ method, url }: Asked) => method === 'GET' && url.startsWith('/drive/v3/files?')
const read = (storage: Storage, key: string) => buffer(storage.createReadStream(key))

describe('Google Drive: names, folders and listings', () => {
  let drive: TestDrive

  beforeEach(async () => {
    drive = await openTestDrive()
  })
  afterEach(() => drive.close())

  /** The folder of that name, of which there is one. */
  const folder = (name: string) => {
    const [found, ...more] = drive.fake.named(name).filter((file) => file.mimeType === FOLDER_TYPE)
    assert.ok(found && more.length === 0, `not one folder ${name}`)
    return found
  }

  it('a listing of everything asks for each folder that the root shows once, and not for those on the way', async () => {
    const servers = ['creative', 'lobby', 'survival']
    for (const server of servers) await drive.put(`${server}/world.mlr`, OLD)
    // Two processes that made a folder at once have made two.
    const twin = drive.fake.addFile('lobby', NEW, { parents: [folder('backups').id], mimeType: FOLDER_TYPE })
    drive.fake.addFile('twin.mlr', NEW, { parents: [twin.id] })
    const other = await drive.another()
    const before = drive.proxy.seen.length
    assert.deepEqual(await keysIn(other, ''), [...servers.map((one) => `${one}/world.mlr`), 'lobby/twin.mlr'].sort())
    const asked = drive.proxy.seen.slice(before).filter(isList)
    // The folder of the store, what is in it, and what is in each folder in that.
    assert.equal(asked.length, 2 + servers.length)
  })

  describe('duplicates', () => {
    it('T17: of two files of one name the newest is read, and a replacement removes both', async () => {
      await drive.put(KEY, OLD)
      const parents = [folder('survival').id]
      drive.fake.addFile('world.mlr', NEW, { parents })
      const bystander = drive.fake.addFile('World.mlr', OLD, { parents })
      const other = await drive.another()
      for (const store of [drive.storage, other]) {
        assert.deepEqual(await read(store, KEY), NEW)
        assert.equal((await store.stat(KEY)).size, NEW.length)
        assert.deepEqual(await keysIn(store, 'survival/'), ['survival/World.mlr', KEY])
      }
      await drive.put(KEY, BYTES)
      await drive.assertHolds(KEY, BYTES)
      assert.ok(drive.fake.state.files.has(bystander.id), 'another name was removed')
    })

    it('T17: an aborted write removes its own file and no other', async () => {
      await drive.put(KEY, OLD)
      const twin = drive.fake.addFile('world.mlr', NEW, { parents: [folder('survival').id] })
      const before = drive.fake.named('world.mlr')
      const stream = drive.storage.createWriteStream(KEY)
      const close = new Promise((resolve) => stream.once('close', resolve))
      const arrived = drive.proxy.arrival(({ url }) => url.includes('uploadType=multipart'))
      stream.end(OLD)
      await arrived
      stream.destroy()
      await close
      assert.deepEqual(drive.fake.named('world.mlr'), before)
      assert.ok(drive.fake.state.files.has(twin.id))
    })

    it('T17: delete removes every file of the name, and nothing of another one', async () => {
      await drive.put(KEY, OLD)
      const parents = [folder('survival').id]
      drive.fake.addFile('world.mlr', NEW, { parents })
      const others = [
        drive.fake.addFile('world.mlr', NEW),
        drive.fake.addFile('world.mlr', NEW, { parents, trashed: true }),
        drive.fake.addFile('WORLD.MLR', NEW, { parents }),
        drive.fake.addFolder('world.mlr', { parents }),
        drive.fake.addFile('world.mlr', NEW, { parents, mimeType: 'application/vnd.google-apps.document' }),
      ]
      await drive.storage.delete(KEY)
      await assert.rejects(drive.storage.stat(KEY), { code: 'NOT_FOUND' })
      for (const { id } of others) assert.ok(drive.fake.state.files.has(id), 'a bystander was removed')
    })

    it('of two files of one moment every reader takes the same', async () => {
      await drive.put(KEY, OLD)
      const parents = [folder('survival').id]
      const [first] = drive.fake.named('world.mlr')
      const { createdTime } = first!
      drive.fake.addFile('world.mlr', NEW, { parents, createdTime })
      const versions = new Set<string | undefined>()
      for (let index = 0; index < 3; index++) {
        const store = await drive.another()
        versions.add((await store.stat(KEY)).version)
        for await (const { version } of store.list('survival/')) versions.add(version)
      }
      assert.equal(versions.size, 1)
    })

    it('a write that a newer one has overtaken says so, and leaves the newer one', async () => {
      await drive.put('survival/other', OLD)
      const parents = [folder('survival').id]
      const createdTime = Date.now() + 60_000
      const newer = drive.fake.addFile('world.mlr', NEW, { parents, createdTime })
      await assert.rejects(drive.put(KEY, OLD), { code: 'CONFLICT' })
      assert.deepEqual(
        drive.fake.named('world.mlr').map(({ id }) => id),
        [newer.id],
      )
    })

    it('an old file that cannot be removed fails the write, and stays', async () => {
      await drive.put(KEY, OLD)
      const [file] = drive.fake.named('world.mlr')
      file!.mayDelete = false
      await assert.rejects(drive.put(KEY, NEW), { code: 'ACCESS_DENIED', operation: 'removeOld' })
      await drive.assertHolds(KEY, OLD)
    })
  })

  describe('listings that lag', () => {
    it('T17: what was just written is there: stat, read, list, replace, delete', async () => {
      await drive.put('survival/first', OLD)
      drive.fake.freezeListings()
      await drive.put(KEY, OLD)
      await drive.put('other/world.mlr', NEW)
      for (const bytes of [OLD, NEW]) {
        await drive.put(KEY, bytes)
        assert.deepEqual(await read(drive.storage, KEY), bytes)
        assert.equal((await drive.storage.stat(KEY)).size, bytes.length)
        assert.deepEqual(await keysIn(drive.storage, 'survival/'), ['survival/first', KEY])
        assert.equal(drive.fake.named('world.mlr').length, 2)
      }
      await drive.storage.delete(KEY)
      await assert.rejects(drive.storage.stat(KEY), { code: 'NOT_FOUND' })
      assert.deepEqual(await keysIn(drive.storage, 'survival/'), ['survival/first'])
      await drive.storage.delete('survival/first')
      await assert.rejects(drive.storage.stat('survival/first'), { code: 'NOT_FOUND' })
      assert.deepEqual(await keysIn(drive.storage, 'survival/'), [])
    })

    it('T17: what was written is known although its answer was lost, and its new folder too', async () => {
      await drive.put('survival/first', OLD)
      drive.fake.freezeListings()
      drive.proxy.inject({ kind: 'lose-reply' }, ({ url }) => url.includes('uploadType=multipart'))
      await drive.put('fresh/a', OLD)
      assert.deepEqual(await read(drive.storage, 'fresh/a'), OLD)
      await assert.rejects(drive.storage.stat('fresh/none'), { code: 'NOT_FOUND' })
      await drive.put('fresh/b', NEW)
      assert.deepEqual(await keysIn(drive.storage, 'fresh/'), ['fresh/a', 'fresh/b'])
      assert.equal(drive.fake.named('fresh').length, 1)
    })

    it('T17: what another process has replaced is never called missing', async () => {
      await drive.put(KEY, OLD)
      const other = await drive.another()
      assert.deepEqual(await read(other, KEY), OLD)
      drive.fake.freezeListings()
      await drive.put(KEY, NEW)
      const error: StorageError = await read(other, KEY).then(
        () => assert.fail('it read what is gone'),
        (caught) => caught,
      )
      assert.equal(error.code, 'UNAVAILABLE')
      assert.equal(error.retryable, true)
      assert.match(error.message, /is gone or has changed, and the listing still shows it/)
      drive.fake.thawListings()
      assert.deepEqual(await read(other, KEY), NEW)
    })

    it('a search that Drive did not finish is an error, never a short list', async () => {
      await drive.put(KEY, OLD)
      drive.fake.state.incompleteSearch = true
      await assert.rejects(keysIn(drive.storage, 'survival/'), { code: 'UNAVAILABLE' })
    })

    it('a page that fails is asked for again, or is an error', async () => {
      const store = await drive.another({ pageSize: 2 })
      for (const name of 'abcde') await drive.put(`page/${name}`, OLD)
      const isSecondPage = (asked: Asked) => isList(asked) && asked.url.includes('pageToken')
      drive.proxy.inject({ kind: 'drop-reply', afterBytes: 100 }, isSecondPage)
      drive.proxy.inject({ kind: 'answer', status: 503, body: '' }, isSecondPage)
      assert.equal((await keysIn(store, 'page/')).length, 5)
      drive.proxy.inject({ kind: 'answer', status: 500, body: '' }, isSecondPage, 10)
      await assert.rejects(keysIn(store, 'page/'), { code: 'UNAVAILABLE' })
    })

    it('an answer that is cut and cleanly ended is no answer', async () => {
      await drive.put(KEY, OLD)
      drive.proxy.inject({ kind: 'shorten-reply', afterBytes: 40 }, isList, 1)
      assert.deepEqual(await keysIn(drive.storage, 'survival/'), [KEY])
      drive.proxy.inject({ kind: 'shorten-reply', afterBytes: 40 }, isList, 20)
      await assert.rejects(keysIn(drive.storage, 'survival/'), { code: 'UNAVAILABLE' })
    })
  })

  describe('folders', () => {
    it('a key is a file in the folder of its first segment, where people see it', async () => {
      await drive.put('survival/2026/a.mlr', OLD)
      await drive.put('top', NEW)
      const [backups, survival] = [folder('backups'), folder('survival')]
      assert.deepEqual(backups.parents, [ROOT_ID])
      assert.deepEqual(survival.parents, [backups.id])
      assert.deepEqual(drive.fake.named('2026/a.mlr')[0]?.parents, [survival.id])
      assert.deepEqual(drive.fake.named('top')[0]?.parents, [backups.id])
      assert.deepEqual(await keysIn(drive.storage, ''), ['survival/2026/a.mlr', 'top'])
    })

    it('names that differ in case are different keys', async () => {
      for (const key of ['World/a', 'world/a', 'world/A']) await drive.put(key, Buffer.from(key))
      for (const key of ['World/a', 'world/a', 'world/A']) assert.equal(String(await read(drive.storage, key)), key)
      await drive.storage.delete('world/a')
      assert.deepEqual(await keysIn(drive.storage, ''), ['World/a', 'world/A'])
    })

    it('no folder is made by looking', async () => {
      await assert.rejects(drive.storage.stat(KEY), { code: 'NOT_FOUND' })
      await drive.storage.delete(KEY)
      assert.deepEqual(await keysIn(drive.storage, ''), [])
      assert.deepEqual(drive.fake.named('backups'), [])
    })

    it('many writes at once make one folder', async () => {
      await Promise.all(Array.from({ length: 8 }, (_, index) => drive.put(`server/${index}`, OLD)))
      assert.ok(folder('backups') && folder('server'))
      assert.equal((await keysIn(drive.storage, 'server/')).length, 8)
    })

    it('two processes that make a folder at once see the files in both', async () => {
      const other = await drive.another()
      await drive.put('a', OLD)
      await putInto(other, 'b', OLD)
      // As if neither had seen the other's.
      drive.fake.freezeListings()
      await drive.put('server/a', OLD)
      await putInto(other, 'server/b', NEW)
      drive.fake.thawListings()
      assert.equal(drive.fake.named('server').length, 2)
      for (const store of [drive.storage, other, await drive.another()]) {
        assert.deepEqual(await keysIn(store, ''), ['a', 'b', 'server/a', 'server/b'])
        assert.deepEqual(await read(store, 'server/a'), OLD)
        assert.deepEqual(await read(store, 'server/b'), NEW)
      }
      await putInto(await drive.another(), 'server/c', OLD)
      const oldest = drive.fake.named('server').sort((a, b) => a.createdTime - b.createdTime)[0]
      assert.deepEqual(drive.fake.named('c')[0]?.parents, [oldest?.id])
    })

    it('a folder that somebody deletes is made again', async () => {
      for (const bytes of [NEW, BYTES]) {
        await drive.put(KEY, OLD)
        drive.fake.removeTree(folder('survival').id)
        await drive.put(KEY, bytes)
        await drive.assertHolds(KEY, bytes)
      }
      drive.fake.removeTree(folder('survival').id)
      await assert.rejects(drive.storage.stat('survival/x'), { code: 'NOT_FOUND' })
      assert.deepEqual(await keysIn(drive.storage, 'survival/'), [])
    })

    it('an answer about a new folder that is lost makes no second one', async () => {
      drive.proxy.inject({ kind: 'lose-reply' }, ({ method, url }) => method === 'POST' && url.startsWith('/drive/'), 2)
      await drive.put(KEY, OLD)
      assert.ok(folder('backups') && folder('survival'))
    })

    it('what is no object of ours is left out of a listing', async () => {
      await drive.put(KEY, OLD)
      const parents = [folder('backups').id]
      drive.fake.addFile('with/slash', OLD, { parents })
      drive.fake.addFile('two\nlines', OLD, { parents })
      drive.fake.addFile('trashed', OLD, { parents, trashed: true })
      drive.fake.addFile('notes', OLD, { parents, mimeType: 'application/vnd.google-apps.document' })
      drive.fake.addFolder('..', { parents })
      drive.fake.addFile('deep', OLD, {
        parents: [drive.fake.addFolder('inner', { parents: [folder('survival').id] }).id],
      })
      assert.deepEqual(await keysIn(drive.storage, ''), [KEY])
    })
  })

  describe('places', () => {
    async function roundTrip(store: Storage): Promise<void> {
      for (const bytes of [OLD, BYTES]) {
        await putInto(store, KEY, bytes)
        assert.deepEqual(await read(store, KEY), bytes)
        assert.deepEqual(await keysIn(store, ''), [KEY])
      }
      assert.ok((await store.probe()).ok)
      await store.delete(KEY)
      assert.deepEqual(await keysIn(store, ''), [])
    }

    it('a folder by its id', async () => {
      const { id } = drive.fake.addFolder('mine')
      const store = await drive.another({ folderId: id })
      assert.equal(store.location, `drive:///?folderId=${id}`)
      await roundTrip(store)
      assert.deepEqual(folder('survival').parents, [id])
    })

    it('the hidden folder of the app', async () => {
      const store = await drive.another({ appData: true })
      assert.equal(store.location, 'drive:///?appData=true')
      await roundTrip(store)
      assert.deepEqual(folder('survival').parents, ['appDataFolder'])
    })

    it('a shared drive: its root, a path in it, a folder of it by its id', async () => {
      const shared = drive.fake.addSharedDrive()
      const inner = drive.fake.addFolder('inner', { parents: [shared.id], driveId: shared.id })
      for (const where of [{}, { folder: 'a/b' }, { folderId: inner.id }]) {
        const store = await drive.another({ sharedDriveId: shared.id, ...where })
        await roundTrip(store)
        drive.fake.removeTree(folder('survival').id)
      }
    })

    it('a shared drive in which the account may not delete: the trash has to do', async () => {
      const shared = drive.fake.addSharedDrive()
      const store = await drive.another({ sharedDriveId: shared.id })
      await putInto(store, KEY, OLD)
      const [file] = drive.fake.named('world.mlr')
      file!.mayDelete = false
      await putInto(store, KEY, NEW)
      assert.deepEqual(await read(store, KEY), NEW)
      assert.equal(file!.trashed, true)
      file!.trashed = false
      file!.mayTrash = false
      const other = await drive.another({ sharedDriveId: shared.id })
      await assert.rejects(putInto(other, KEY, OLD), { code: 'ACCESS_DENIED' })
    })

    it('a path with odd names', async () => {
      const store = await drive.another({ folder: "it's/a \\ b" })
      assert.equal(store.location, "drive:///it's/a%20%5C%20b")
      await roundTrip(store)
    })
  })
})
