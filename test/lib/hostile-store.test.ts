import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { constants, zstdCompressSync } from 'node:zlib'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { acquireLease, openBackups } from '../../lib/index.ts'
import { writeSmall } from '../../lib/small-object.ts'
import { INDEX_MAGIC, IndexBuilder, type IndexEntry, type IndexHead } from '../../transforms/index-frame.ts'
import { SeekTableBuilder, skippableHeader } from '../../transforms/seek-table.ts'
import { millrace, scratch } from '../support/cli.ts'

// What somebody puts into a store who may write to it and has no key.

const hasCode = (code: string) => (error: unknown) => (error as { code: string }).code === code

async function keysOf(storage: Storage): Promise<string[]> {
  return (await Array.fromAsync(storage.list(''))).map(({ key }) => key).sort()
}

test('a holder’s mark that no claimant has written holds no lease up', async (t) => {
  const memory = await openMemory()
  for (const content of ['x'.repeat(5000), 'not an id', '']) {
    await writeSmall(memory, 'survival/.lease/holder', content)
    const lease = await acquireLease(memory, 'survival')
    await lease.release()
    assert.deepEqual(await keysOf(memory), [])
  }
  const root = await scratch(t)
  const folder = await openFilesystem({ root })
  const mark = join(root, 'survival/.lease/holder')
  for (const plant of [() => mkdirSync(mark), () => execFileSync('mkfifo', [mark])]) {
    mkdirSync(join(mark, '..'), { recursive: true })
    plant()
    await assert.rejects(acquireLease(folder, 'survival'), hasCode('CONFLICT'))
    assert.deepEqual(await keysOf(folder), [])
    rmSync(mark, { recursive: true })
  }
})

const ID = '2026-01-01T00-00-00.000Z-aaaa'
/** Turns a terminal red, names its window, and turns the text around. */
const EVIL = '\u001b[31mred\u001b]0;title\u0007\u009b1m\u202e'

/** An unencrypted snapshot of one empty file, whose index says what it likes. */
async function plant(storage: Storage, head: object, entry: Partial<IndexEntry> = {}): Promise<void> {
  const content = Buffer.alloc(1536)
  const data = zstdCompressSync(content, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
  const index = new IndexBuilder()
  const plain = { path: 'a', type: 'file', size: 0, mode: 0o644, mtime: 0, uid: 0, gid: 0, at: 0, data: 512 } as const
  index.add({ ...plain, ...entry })
  const honest = { v: 1, kind: 'tar', server: 'survival', id: ID, created: 0, tool: 'x', bytes: 1536, files: 1 }
  const payload = Buffer.concat(
    index.finish({ ...honest, consistency: 'live', mode: 0o755, mtime: 0, ...head } as IndexHead),
  )
  const table = new SeekTableBuilder()
  table.add(data.length, content.length)
  table.add(payload.length + 8, 0)
  const object = Buffer.concat([data, skippableHeader(INDEX_MAGIC, payload.length), payload, ...table.finish()])
  const key = `survival/${ID}.tar.zst`
  const sink = storage.createWriteStream(key)
  await new Promise((resolve, reject) => sink.on('error', reject).end(object, () => resolve(undefined)))
  const digest = createHash('sha256').update(object).digest('hex')
  await writeSmall(storage, `${key}.sha256`, `${digest}  ${ID}.tar.zst\n`)
}

test('an object that is not what its name says, or longer or shorter than it says, is not used', async () => {
  const storage = await openMemory()
  const backups = await openBackups({ storage, server: 'survival', encryption: false })
  for (const [head, code] of [
    [{ id: ID.replace('aaaa', 'bbbb') }, 'MISPLACED'],
    [{ server: 'creative' }, 'MISPLACED'],
    [{ kind: 'raw' }, 'MISPLACED'],
    [{ bytes: 1537 }, 'CORRUPT'],
    [{ bytes: 1024 }, 'CORRUPT'],
  ] as const) {
    await plant(storage, head)
    await assert.rejects(backups.inspect(ID), hasCode(code), JSON.stringify(head))
  }
  await plant(storage, {})
  assert.equal((await backups.inspect(ID)).head?.id, ID)
  await backups.close()
})

test('an object that is replaced while it is read is not put together of two', async (t) => {
  const storage = await openMemory()
  await plant(storage, {})
  const { version } = await storage.stat(`survival/${ID}.tar.zst`)
  assert.ok(version)
  const asked = new Set<unknown>()
  const real = storage.readRange
  t.mock.method(storage, 'readRange', (...args: Parameters<Storage['readRange']>) => {
    if (args[0].endsWith('.zst')) asked.add(args[3]?.version)
    return real.apply(storage, args)
  })
  const backups = await openBackups({ storage, server: 'survival', encryption: false })
  await backups.inspect(ID)
  assert.deepEqual([...asked], [version])
  await backups.close()
})

test('what an index says moves no cursor and stops no command', async (t) => {
  const root = await scratch(t)
  const storage = await openFilesystem({ root })
  const run = async (...args: string[]) => {
    const all = [...args, '--from', pathToFileURL(root).href, '--server', 'survival', '--no-encryption']
    const { code, stdout, stderr } = await millrace(all)
    const said = stdout.toString() + stderr
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    assert.doesNotMatch(said, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
    return { code, said }
  }
  await plant(storage, { server: EVIL, id: EVIL })
  for (const args of [
    ['list', '--long'],
    ['inspect', ID],
    ['verify', ID],
    ['verify', '--all'],
  ]) {
    assert.match((await run(...args)).said, /holds snapshot \\u001b\[31mred/)
  }
  await plant(storage, { excluded: EVIL })
  for (const args of [
    ['list', '--long'],
    ['inspect', ID],
    ['verify', '--all'],
  ]) {
    assert.match((await run(...args)).said, /what it says was left out is no count/)
  }
  await plant(storage, { consistency: EVIL, tool: EVIL }, { path: EVIL, changed: EVIL, mtime: 1e300 })
  for (const args of [
    ['list', '--long'],
    ['inspect', ID, '--files'],
    ['verify', ID],
  ]) {
    assert.equal((await run(...args)).code, 0, args.join(' '))
  }
})
