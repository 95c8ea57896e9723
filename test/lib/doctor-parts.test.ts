import assert from 'node:assert/strict'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import type { Storage } from '../../adapters/storage.ts'
import { parseConfig, serverSettings } from '../../lib/config/index.ts'
import { checkFolder, checkMemory, checkNode } from '../../lib/doctor/runtime.ts'
import { checkSize } from '../../lib/doctor/source.ts'
import { checkClock, checkStore } from '../../lib/doctor/store.ts'
import { scratch } from '../support/cli.ts'

const MiB = 2 ** 20

/** A store whose clock is another one. */
async function storeInTime(apartMs: number): Promise<Storage> {
  const storage = await openMemory()
  return {
    ...storage,
    adapter: storage.adapter,
    location: storage.location,
    conditionalWrites: storage.conditionalWrites,
    createWriteStream: (...args) => storage.createWriteStream(...args),
    createReadStream: (...args) => storage.createReadStream(...args),
    readRange: (...args) => storage.readRange(...args),
    list: (...args) => storage.list(...args),
    delete: (...args) => storage.delete(...args),
    probe: (...args) => storage.probe(...args),
    close: () => storage.close(),
    async stat(...args) {
      const found = await storage.stat(...args)
      return { ...found, modified: new Date(found.modified.getTime() + apartMs) }
    },
  }
}

test('T20: a clock that is minutes from the one of the store is a warning, a day is a failure, and no object is left', async () => {
  const signal = AbortSignal.timeout(60_000)
  for (const [apart, state, message] of [
    [0, 'ok', /agrees/],
    [20 * 60_000, 'warn', /20 minutes ahead of this machine/],
    [-3 * 3_600_000, 'warn', /180 minutes behind/],
    [2 * 86_400_000, 'fail', /ahead of this machine: a prune is refused/],
    [-10 * 365 * 86_400_000, 'fail', /behind this machine: a prune is refused/],
  ] as const) {
    const storage = await storeInTime(apart)
    const found = await checkClock('offsite', storage, signal)
    assert.equal(found.state, state)
    assert.match(found.message, message)
    if (state !== 'ok') assert.match(found.advice ?? '', /clock/)
    assert.deepEqual(await Array.fromAsync(storage.list('')), [])
  }
})

function refusal(step: string): StorageError {
  const message = `The key may not ${step}.`
  return new StorageError(message, { code: 'ACCESS_DENIED', adapter: 'memory', operation: 'probe' })
}

test('T29: each right that a store refuses is a line of its own', async () => {
  const storage = await storeInTime(0)
  const refusing: Storage = {
    ...storage,
    probe: async () => ({
      ok: false,
      steps: [
        { step: 'sign-in', ok: true, ms: 1 },
        { step: 'list', ok: false, ms: 1, error: refusal('list') },
        { step: 'delete', ok: false, ms: 1, error: refusal('delete') },
      ],
    }),
  }
  const findings = await Array.fromAsync(checkStore('offsite', refusing, AbortSignal.timeout(60_000)))
  assert.deepEqual(
    findings.map(({ state, message, advice }) => [state, message, advice]),
    [
      ['fail', 'list: The key may not list.', 'Give the credentials the right to list; see docs/providers.'],
      ['fail', 'delete: The key may not delete.', 'Give the credentials the right to delete; see docs/providers.'],
    ],
  )
})

test('what millrace runs on: Node, memory, folders', async (t) => {
  const folder = await scratch(t)
  assert.equal(checkNode('22.15.0').state, 'ok')
  assert.equal(checkNode('26.0.0').state, 'ok')
  assert.equal(checkNode('22.14.9').state, 'fail')
  assert.equal(checkNode('20.20.2').state, 'fail')
  assert.equal(checkMemory(8192 * MiB, 16384 * MiB).state, 'ok')
  assert.equal(checkMemory(100 * MiB, 16384 * MiB).state, 'warn')
  assert.equal(checkMemory(100 * MiB, 128 * MiB).state, 'fail')
  assert.match((await checkFolder('state folder', join(folder, 'a/b/c'), 1)).message, /can be made/)
  assert.equal((await checkFolder('state folder', folder, 2 ** 60)).state, 'warn')
  await writeFile(join(folder, 'file'), '')
  assert.equal((await checkFolder('state folder', join(folder, 'file/state'), 1)).state, 'fail')
  assert.deepEqual(await readdir(folder), ['file'])
})

test('a source that needs large parts is told with the memory that they take, and one that no object holds', async () => {
  const loaded = parseConfig(
    `destinations:
  aws: {provider: s3, bucket: b, region: us-east-1}
  ceph: {provider: s3, bucket: b, region: us-east-1, endpoint: 'https://rgw.example.org', profile: ceph}
  b2: {provider: backblaze-b2, bucket: b, keyId: 'file:a', applicationKey: 'file:b'}
  drive: {provider: google-drive}
  dropbox: {provider: dropbox}
  local: {provider: filesystem, root: b}
servers: {huge: {source: w}}
`,
    'millrace.yaml',
  )
  const settings = serverSettings(loaded, 'huge')
  const of = async (gib: number) =>
    (await Array.fromAsync(checkSize(loaded, settings, gib * 1024 * MiB))).map(
      ({ subject, message }) => `${subject}: ${message}`,
    )
  assert.deepEqual(await of(200), [])
  const parts = (name: string) =>
    `huge at ${name}: 300 GiB in at most 10000 parts: parts are 33 MiB, and an upload takes two of them as memory`
  // B2 takes parts of any size, and so they are a little smaller than whole MiB.
  assert.deepEqual(
    (await of(300)).map((line) => line.replace('32 MiB', '33 MiB')),
    ['aws', 'ceph', 'b2'].map(parts),
  )
  const [aws, ceph, b2, drive, dropbox] = await of(6000)
  assert.match(aws as string, /parts are 647 MiB/)
  assert.match(ceph as string, /one object holds at most 5120 GiB/)
  assert.match(b2 as string, /parts are 647 MiB/)
  assert.match(drive as string, /huge at drive: .*at most 4657 GiB/)
  assert.match(dropbox as string, /huge at dropbox: .*at most 2048 GiB/)
})
