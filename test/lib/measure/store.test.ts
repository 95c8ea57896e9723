import assert from 'node:assert/strict'
import { Readable, Writable } from 'node:stream'
import { describe, it } from 'node:test'
import { openMemory } from '../../../adapters/memory.ts'
import type { MultipartRules } from '../../../adapters/multipart-plan.ts'
import type { Storage, WriteOptions } from '../../../adapters/storage.ts'
import { planPasses } from '../../../lib/measure/parts.ts'
import { type BenchStore, measureStore } from '../../../lib/measure/store.ts'

const MIB = 1024 * 1024

const RULES: MultipartRules = {
  minPartBytes: 5 * MIB,
  maxPartBytes: 1024 * MIB,
  alignBytes: MIB,
  maxParts: 10_000,
  maxObjectBytes: 1e12,
  concurrency: 8,
}

describe('what is sent to a store', () => {
  const parts = { rules: RULES, wanted: undefined, expectedSize: undefined }
  const sizes = (passes: { partBytes: number | undefined; bytes: number }[]) =>
    passes.map(({ partBytes, bytes }) => [partBytes && partBytes / MIB, bytes / MIB])

  it('is each size of parts in whole rounds, there and back', () => {
    const { passes, notCompared } = planPasses(parts, { budget: 256 * MIB, rate: 1e9, seconds: 3 })
    // 8 MiB five at once, 16 two, 24 one.
    const there = [
      [undefined, 40],
      [16, 32],
      [24, 24],
    ]
    assert.deepEqual(sizes(passes), [...there, ...there.toReversed()])
    assert.equal(notCompared, null)
    const more = planPasses(parts, { budget: 1024 * MIB, rate: 1e9, seconds: 3 }).passes
    assert.deepEqual(sizes(more).slice(0, 3), [
      [undefined, 160],
      [16, 160],
      [24, 168],
    ])
  })

  it('is never more than the budget, and takes no longer than it may', () => {
    for (const wanted of [undefined, 5, 6, 8, 10, 16, 20, 24].map((size) => size && size * MIB)) {
      for (const concurrency of [1, 2, 8]) {
        for (let budget = MIB; budget < 2048 * MIB; budget *= 1.3) {
          for (const rate of [MIB / 10, MIB, 10 * MIB, 1e9]) {
            const at = { ...parts, rules: { ...RULES, concurrency }, wanted }
            const { passes, notCompared } = planPasses(at, { budget, rate, seconds: 3 })
            assert.ok(passes.reduce((sum, { bytes }) => sum + bytes, 0) <= budget)
            for (const { bytes } of passes) assert.ok(bytes > 0 && bytes / rate <= 4 * 3 + 1)
            assert.equal(passes.length === 1, notCompared !== null)
          }
        }
      }
    }
  })

  it('is one object where sizes cannot be compared, which says what would do', () => {
    const less = planPasses(parts, { budget: 100 * MIB, rate: 1e9, seconds: 3 })
    assert.deepEqual(sizes(less.passes), [[undefined, 100]])
    assert.match(less.notCompared ?? '', /takes 192 MiB, and --size allows less/)
    const slow = planPasses(parts, { budget: 256 * MIB, rate: MIB, seconds: 3 })
    assert.deepEqual(sizes(slow.passes), [[undefined, 3]])
    assert.match(slow.notCompared ?? '', /--seconds 10 allows it/)
    assert.equal(planPasses(parts, { budget: 256 * MIB, rate: MIB, seconds: 10 }).notCompared, null)
    const huge = { ...parts, expectedSize: 1024 ** 4 }
    assert.match(
      planPasses(huge, { budget: 1024 * MIB, rate: 1e9, seconds: 3 }).notCompared ?? '',
      /needs parts as large as they are/,
    )
    const folder = planPasses(undefined, { budget: 256 * MIB, rate: 10 * MIB, seconds: 3 })
    assert.deepEqual([sizes(folder.passes), folder.notCompared], [[[undefined, 30]], null])
  })

  it('has the size that is configured among those that are compared', () => {
    const { passes } = planPasses({ ...parts, wanted: 10 * MIB }, { budget: 512 * MIB, rate: 1e9, seconds: 3 })
    assert.deepEqual(
      passes.slice(0, 4).map(({ partBytes }) => partBytes && partBytes / MIB),
      [undefined, 8, 16, 24],
    )
  })
})

/** A store in memory, and what is done to it. */
async function watched(change: (storage: Storage) => Partial<Storage> = () => ({})) {
  const storage = await openMemory()
  const seen = { opened: [] as (number | undefined)[], keys: [] as string[], closed: 0 }
  const store: BenchStore = {
    async open(partBytes) {
      seen.opened.push(partBytes)
      const own: Partial<Storage> = {
        createWriteStream(key: string, options?: WriteOptions) {
          seen.keys.push(key)
          return storage.createWriteStream(key, options)
        },
        close: async () => {
          seen.closed += 1
        },
        ...change(storage),
      }
      return new Proxy(storage, {
        get: (target, name) => {
          const found = own[name as keyof Storage] ?? Reflect.get(target, name)
          return typeof found === 'function' ? found.bind(target) : found
        },
      })
    },
    kind: 'remote',
    parts: undefined,
    bandwidth: undefined,
    root: undefined,
    prefix: 'world/',
  }
  return { store, seen, left: async () => (await Array.fromAsync(storage.list(''))).map(({ key }) => key) }
}

describe('a store that is measured', () => {
  it('takes objects of each size of parts under scratch keys of the server, and has none of them afterwards', async () => {
    const { store, seen, left } = await watched()
    // Nothing is stored, so that 96 MiB of it take no time and no room.
    const rules = { ...RULES, concurrency: 1 }
    const parts = { rules, wanted: undefined, expectedSize: undefined }
    const sizes = new Map<string, number>()
    const open: BenchStore['open'] = async (partBytes) => {
      const inner = await store.open(partBytes)
      const swallow = {
        createWriteStream(key: string) {
          let bytes = 0
          seen.keys.push(key)
          return new Writable({
            write(chunk: Buffer, _encoding, callback) {
              bytes += chunk.length
              callback()
            },
            final(callback) {
              sizes.set(key, bytes)
              callback()
            },
          })
        },
        stat: async (key: string) => ({ key, size: sizes.get(key) as number, modified: new Date() }),
        createReadStream: () => Readable.from([Buffer.alloc(1000)], { objectMode: false }),
        delete: async (key: string) => {
          sizes.delete(key)
        },
      }
      return Object.assign(Object.create(inner), swallow)
    }
    const stages = new Set<string>()
    const onStage = (stage: string) => stages.add(stage)
    const budget = 110 * MIB
    const facts = await measureStore({ ...store, open, parts }, { bytes: budget, seconds: 3, onStage })
    assert.deepEqual(
      facts.uploads.map(({ partBytes, inFlight, bytes }) => [(partBytes as number) / MIB, inFlight, bytes / MIB]),
      [
        [8, 1, 8],
        [16, 1, 16],
        [24, 1, 24],
        [24, 1, 24],
        [16, 1, 16],
        [8, 1, 8],
      ],
    )
    assert.deepEqual([facts.partBytes, facts.notCompared, facts.bandwidth], [8 * MIB, null, null])
    assert.equal(facts.download?.bytes, 1000)
    assert.ok(facts.sentBytes <= budget)
    assert.deepEqual([...stages], ['upload', 'download'])
    assert.deepEqual(seen.opened, [undefined, 16 * MIB, 24 * MIB])
    assert.equal(seen.closed, 3)
    for (const key of seen.keys) assert.match(key, /^world\/\.millrace-bench-[0-9a-f]{12}-\d+$/)
    assert.equal(new Set(seen.keys).size, seen.keys.length)
    assert.deepEqual([[...sizes], await left()], [[], []])
  })

  it('is read back as it was written', async () => {
    const { store, left } = await watched()
    const facts = await measureStore(store, { bytes: 3 * MIB, seconds: 3 })
    assert.equal(facts.uploads.length, 1)
    assert.equal(facts.download?.bytes, facts.uploads[0]!.bytes)
    assert.ok(facts.sentBytes <= 3 * MIB)
    assert.deepEqual(await left(), [])
  })

  it('is not sent more than it takes to see that the bandwidth of the config holds it back', async () => {
    const { store, left } = await watched()
    const parts = { rules: RULES, wanted: undefined, expectedSize: undefined }
    const facts = await measureStore({ ...store, parts, bandwidth: 1000 }, { bytes: 256 * MIB, seconds: 0.01 })
    assert.equal(facts.uploads.length, 1)
    assert.match(facts.notCompared ?? '', /bandwidth of the config holds it back/)
    assert.deepEqual([facts.partBytes, facts.bandwidth], [8 * MIB, 1000])
    assert.deepEqual(await left(), [])
  })

  it('has nothing left when an upload fails, or when it is interrupted', async () => {
    for (const ending of ['fails', 'aborted']) {
      const stop = new AbortController()
      let writes = 0
      const { store, seen, left } = await watched((storage) => ({
        createWriteStream(key: string, options?: WriteOptions) {
          writes += 1
          const stream = storage.createWriteStream(key, options)
          if (writes < 3) return stream
          if (ending === 'aborted') stop.abort()
          // The object is there, and the answer is not: it is removed all the same.
          else stream.once('finish', () => stream.destroy(new Error('The answer was lost.')))
          return stream
        },
      }))
      const error = await measureStore(store, { bytes: 16 * MIB, seconds: 3, signal: stop.signal }).catch((one) => one)
      assert.equal(error?.name, ending === 'aborted' ? 'AbortError' : 'Error', ending)
      assert.deepEqual(await left(), [], ending)
      assert.deepEqual([writes, seen.closed], [3, 1], ending)
    }
  })

  it('is told of an object that it does not let go, with what went wrong before', async () => {
    const refuse = async () => {
      throw new Error('Access is denied.')
    }
    const kept = await watched(() => ({ delete: refuse }))
    const message =
      /scratch object "world\/\.millrace-bench-.*-0" in memory: could not be removed: Access is denied\. It is/
    await assert.rejects(measureStore(kept.store, { bytes: MIB, seconds: 3 }), message)
    assert.equal((await kept.left()).length, 1)
    const broken = await watched(() => ({
      delete: refuse,
      createWriteStream: () => new Writable({ write: (_c, _e, callback) => callback(new Error('It is full.')) }),
    }))
    await assert.rejects(measureStore(broken.store, { bytes: MIB, seconds: 3 }), /^StorageError: It is full\. Then the/)
  })

  it('removes its objects for good where it may keep versions', async () => {
    const erased: string[] = []
    const { store, seen, left } = await watched((storage) => ({
      async erase(key: string) {
        erased.push(key)
        await storage.delete(key)
      },
      delete: () => assert.fail('a marker would be left'),
    }))
    await measureStore(store, { bytes: MIB, seconds: 3 })
    assert.deepEqual(erased, seen.keys)
    assert.deepEqual(await left(), [])
  })
})
