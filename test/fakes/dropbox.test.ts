import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { Dropbox } from 'dropbox'
import { blockDigests, contentHash } from '../../adapters/dropbox-hash.ts'
import { seededBytes } from '../support/random.ts'
import { FakeDropbox } from './dropbox.ts'

const BLOCK_BYTES = 4 * 1024 * 1024
const BYTES = seededBytes(2 * BLOCK_BYTES + 99, 3)

// By Dropbox's own client, with its own uploader: what it does not take is not Dropbox.
describe('the fake Dropbox', () => {
  let fake: FakeDropbox
  let client: Dropbox

  before(async () => {
    fake = await FakeDropbox.open()
    client = clientOf(fake)
  })
  after(() => fake.close())

  function clientOf(server: FakeDropbox): Dropbox {
    const send: typeof fetch = (url, init) => fetch(new URL(new URL(String(url)).pathname, server.origin), init)
    return new Dropbox({ accessToken: server.tokens.issue(), fetch: send })
  }

  const append = (id: string, offset: number, contents: Buffer, close = false) =>
    client.filesUploadSessionAppendV2({ cursor: { session_id: id, offset }, close, contents })
  const finish = (id: string, offset: number, path: string, contents = Buffer.alloc(0)) =>
    client.filesUploadSessionFinish({ cursor: { session_id: id, offset }, commit: { path }, contents })

  async function refused(work: Promise<unknown>, summary: RegExp): Promise<void> {
    await assert.rejects(work, (error: Error & { status?: number; error?: { error_summary?: string } }) => {
      assert.match(String(error.error?.error_summary ?? error.error), summary)
      return true
    })
  }

  it("takes the SDK's own uploads, at once, in order and concurrent", async () => {
    const { bytesUpload, uploadFile } = await import('dropbox')
    const sent = contentHash([blockDigests(BYTES)])
    await client.filesUpload({ path: '/whole', contents: BYTES, content_hash: sent })
    for (const parallelUploads of [1, 3]) {
      const path = `/by-sdk-${parallelUploads}`
      await uploadFile(client, bytesUpload(BYTES), { path }, { chunkSize: BLOCK_BYTES, parallelUploads })
      const { result } = await client.filesGetMetadata({ path })
      assert.equal(result['.tag'] === 'file' && result.content_hash, sent)
    }
    const { result } = await client.filesDownload({ path: '/by-sdk-3' })
    assert.ok(Buffer.from(result.fileBinary as Uint8Array).equals(BYTES))
    const names = (await client.filesListFolder({ path: '' })).result.entries.map(({ name }) => name)
    assert.deepEqual(names.sort(), ['by-sdk-1', 'by-sdk-3', 'whole'])
  })

  it('holds sequential sessions to their offset', async () => {
    const { session_id: id } = (await client.filesUploadSessionStart({ contents: Buffer.from('ab') })).result
    await refused(append(id, 0, Buffer.from('ab')), /^incorrect_offset\//)
    await append(id, 2, Buffer.from('cd'))
    await refused(finish(id, 3, '/x'), /^lookup_failed\/incorrect_offset\//)
    await finish(id, 4, '/x', Buffer.from('e'))
    await refused(append(id, 5, Buffer.from('f')), /^closed\//)
    await refused(append('unknown', 0, Buffer.from('f')), /^not_found\//)
  })

  it('holds concurrent sessions to their blocks, and to being whole and closed', async () => {
    const session_type = { '.tag': 'concurrent' } as const
    await refused(
      client.filesUploadSessionStart({ session_type, contents: Buffer.from('a') }),
      /^concurrent_session_data_not_allowed\//,
    )
    const start = await client.filesUploadSessionStart({ session_type, contents: Buffer.alloc(0) })
    const { session_id: id } = start.result
    const block = BYTES.subarray(0, BLOCK_BYTES)
    await refused(append(id, 1, block), /^concurrent_session_invalid_offset\//)
    await refused(append(id, 0, block.subarray(1)), /^concurrent_session_invalid_data_size\//)
    await append(id, BLOCK_BYTES, Buffer.from('rest'), true)
    await refused(append(id, 0, block), /^closed\//)
    await refused(finish(id, BLOCK_BYTES + 4, '/y'), /^concurrent_session_missing_data\//)
    const open = await client.filesUploadSessionStart({ session_type, contents: Buffer.alloc(0) })
    await refused(finish(open.result.session_id, 0, '/y'), /^concurrent_session_not_closed\//)
  })

  it('tells conflicts as files.stone says', async () => {
    const write = (path: string, text: string, more: object = {}) =>
      client.filesUpload({ path, contents: Buffer.from(text), ...more })
    const { rev } = (await write('/c/file', 'one')).result
    assert.equal((await write('/c/file', 'one')).result.rev, rev)
    await refused(write('/c/file', 'one', { strict_conflict: true }), /^path\/conflict\/file\//)
    await refused(write('/c/file', 'two'), /^path\/conflict\/file\//)
    await refused(write('/c', 'two'), /^path\/conflict\/folder\//)
    await refused(write('/c/file/x', 'two'), /^path\/conflict\/file_ancestor\//)
    await refused(write('/c/file', 'two', { mode: { '.tag': 'update', update: 'a1c10ce0dd78' } }), /^path\/conflict\//)
    await write('/C/FILE', 'two', { mode: { '.tag': 'update', update: rev } })
    await write('/c/file', 'three', { mode: { '.tag': 'overwrite' } })
    const { result } = await client.filesDownload({ path: `rev:${rev}` })
    assert.equal(Buffer.from(result.fileBinary as Uint8Array).toString(), 'one')
    await refused(client.filesDeleteV2({ path: '/c/file', parent_rev: rev }), /^path_write\/conflict\/file\//)
    await refused(client.filesDeleteV2({ path: '/c/none' }), /^path_lookup\/not_found\//)
    await refused(write('/c/a\\b', 'x'), /^path\/malformed_path\//)
    await refused(write('/c/desktop.ini', 'x'), /^path\/disallowed_name\//)
  })

  it('refuses damaged bytes, fields that Dropbox does not know, and tokens that are not good', async () => {
    const damaged = { path: '/d', contents: Buffer.from('d'), content_hash: 'ab'.repeat(32) }
    await refused(client.filesUpload(damaged), /^content_hash_mismatch\//)
    await refused(client.filesGetMetadata({ path: '/d', pathh: '' } as { path: string }), /unknown field 'pathh'/)
    fake.tokens.expire()
    await refused(client.filesListFolder({ path: '' }), /^expired_access_token\//)
    fake.tokens.scopes = ['files.metadata.read']
    await refused(clientOf(fake).filesUpload({ path: '/e', contents: Buffer.from('e') }), /^missing_scope\//)
  })

  it('runs by itself, without keeping bytes', async () => {
    const script = new URL('./dropbox.main.ts', import.meta.url).pathname
    const child = spawn(process.execPath, [script, '--discard'], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
      assert.match(line, /^ORIGIN=http:\/\/127\.0\.0\.1:\d+ CLIENT_ID=\S+ CLIENT_SECRET=\S+ REFRESH_TOKEN=\S+$/)
    } finally {
      child.kill('SIGTERM')
      assert.deepEqual(await once(child, 'exit'), [0, null])
    }
    for (const parallelUploads of [1, 3]) {
      const { bytesUpload, uploadFile } = await import('dropbox')
      const own = await FakeDropbox.open({ discard: true })
      const options = { chunkSize: BLOCK_BYTES, parallelUploads }
      await uploadFile(clientOf(own), bytesUpload(BYTES), { path: '/z' }, options)
      assert.equal(own.tree.files[0]?.hash, contentHash([blockDigests(BYTES)]))
      assert.equal(own.tree.files[0]?.bytes, undefined)
      await own.close()
    }
  })
})
