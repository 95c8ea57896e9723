import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Measured, Rate, StoreFacts } from '../../../lib/measure/facts.ts'
import { cpuShare, predict } from '../../../lib/measure/predict.ts'
import { GAIN, recommend } from '../../../lib/measure/recommend.ts'

const MIB = 1024 * 1024
const GIB = 1024 * MIB

/** One second at so many MiB/s, with so many cores busy, and the main thread for so long. */
function rate(mibPerSecond: number, cores = 0, mainSeconds = 0): Rate {
  return { bytes: mibPerSecond * MIB, seconds: 1, cpuSeconds: cores, mainSeconds }
}

interface Machine {
  cores?: number
  threads?: number
  level?: number
  /** MiB/s with all threads, and ratio, by level. */
  levels?: Record<number, [number, number]>
  /** MiB/s; null for synthetic data. */
  read?: number | null
  /** MiB/s of the whole chain; fast enough to say nothing when left out. */
  chain?: number
  stores?: StoreFacts[]
}

const LEVELS: Record<number, [number, number]> = { 1: [800, 1.4], 3: [600, 1.5], 6: [200, 1.52], 9: [100, 1.53] }

function machine({ cores = 4, threads = 4, level = 3, levels = LEVELS, read = 5000, ...rest }: Machine): Measured {
  return {
    source: {
      kind: read === null ? 'synthetic' : 'folder',
      path: read === null ? null : '/srv/world',
      bytes: read === null ? null : 10 * GIB,
      files: read === null ? null : 100,
      sampleBytes: 64 * MIB,
    },
    cores,
    threads,
    level,
    read: read === null ? null : { ...rate(read), diskShare: 1 },
    compression: Object.entries(levels).map(([at, [speed, ratio]]) => ({
      level: Number(at),
      ...rate(speed, threads),
      storedBytes: (speed * MIB) / ratio,
    })),
    encryption: rate(5000),
    hashing: rate(5000),
    chain: { ...rate(rest.chain ?? 1e6), storedBytes: 1 },
    stores: rest.stores ?? [],
  }
}

/** @param speeds MiB/s of each pass, by MiB of a part. */
function bucket(speeds: Record<number, number[]>, more: Partial<StoreFacts> = {}): StoreFacts {
  return {
    destination: 's3://worlds/mc',
    kind: 'remote',
    partBytes: 8 * MIB,
    uploads: Object.entries(speeds).flatMap(([size, passes]) =>
      passes.map((speed) => ({ ...rate(speed), partBytes: Number(size) * MIB, inFlight: 5 })),
    ),
    notCompared: null,
    download: null,
    bandwidth: null,
    sentBytes: 0,
    ...more,
  }
}

function disk(speed: number): StoreFacts {
  const uploads = [{ ...rate(speed), partBytes: null, inFlight: null }]
  return { ...bucket({}), destination: 'file:///mnt/backups', kind: 'folder', partBytes: null, uploads }
}

const adviceOf = (measured: Measured, setting: string) => {
  const found = recommend(measured).advice.filter((one) => one.setting === setting)
  assert.equal(found.length, 1)
  return found[0]!
}

function near(value: number, wanted: number): void {
  assert.ok(Math.abs(value - wanted) <= 1e-6 * Math.abs(wanted), `${value} is not ${wanted}`)
}

describe('what limits a backup', () => {
  it('is the slowest, in bytes of the source; and what comes next is said', () => {
    const { limit, next, bytesPerSecond, ratio } = predict(machine({ stores: [bucket({ 8: [10] })] }), { level: 3 })
    assert.equal(limit.by, 'upload')
    assert.equal(limit.destination, 's3://worlds/mc')
    near(bytesPerSecond, 15 * MIB)
    near(ratio, 1.5)
    assert.equal(next?.by, 'cpu')
    near(next.bytesPerSecond, 600 * MIB)
  })

  it('is the disk, the CPU, the folder that is written to, or the slowest of several stores', () => {
    const by = (of: Machine) => recommend(machine(of)).now.limit.by
    assert.equal(by({ read: 90 }), 'reading')
    assert.equal(by({}), 'cpu')
    assert.equal(by({ stores: [disk(100)] }), 'writing')
    assert.equal(by({ read: null, stores: [disk(100)] }), 'writing')
    const both = recommend(machine({ stores: [disk(100), bucket({ 8: [3] })] })).now
    assert.deepEqual([both.limit.by, both.next?.by], ['upload', 'writing'])
  })

  it('is the bandwidth of the config where an upload comes that close to it', () => {
    const by = (bandwidth: number) =>
      predict(machine({ stores: [bucket({ 8: [9] }, { bandwidth: bandwidth * MIB })] }), { level: 3 }).limit.by
    assert.equal(by(10), 'bandwidth')
    assert.equal(by(20), 'upload')
  })

  it('counts the CPU that an upload takes, and one thread for what is not compression', () => {
    const free = machine({ stores: [bucket({ 8: [1e5] })] })
    const costly = machine({ stores: [bucket({ 8: [1e5] })] })
    costly.stores[0]!.uploads[0]!.cpuSeconds = 1e5 / 300
    near(predict(free, { level: 3 }).bytesPerSecond, 600 * MIB)
    near(predict(costly, { level: 3 }).bytesPerSecond, (4 / (4 / 600 + 1 / 450)) * MIB)
    costly.stores[0]!.uploads[0]!.mainSeconds = 1e5 / 300
    near(predict(costly, { level: 3 }).bytesPerSecond, 450 * MIB)
    const hashing = machine({})
    hashing.hashing = rate(200, 1, 1)
    near(predict(hashing, { level: 3 }).bytesPerSecond, 300 * MIB)
    hashing.read = { ...rate(600, 1, 1), diskShare: 1 }
    near(predict(hashing, { level: 3 }).bytesPerSecond, 200 * MIB)
  })

  it('takes off what the whole chain was slower than its pieces, where the CPU limited it', () => {
    near(predict(machine({ chain: 450 }), { level: 3 }).bytesPerSecond, 450 * MIB)
    near(predict(machine({ chain: 450 }), { level: 1 }).bytesPerSecond, 600 * MIB)
    // So far off, something else was in its way.
    near(predict(machine({ chain: 10 }), { level: 3 }).bytesPerSecond, 120 * MIB)
    // The disk limited the chain, which says nothing of the CPU.
    const { limit, next } = predict(machine({ chain: 80, read: 90 }), { level: 3 })
    assert.equal(limit.by, 'reading')
    near(next!.bytesPerSecond, 600 * MIB)
  })

  it('knows what other programs have had of the machine', () => {
    const disturbed = (chain: number) => {
      const measured = machine({ chain })
      for (const one of measured.compression) one.seconds *= 2
      return measured
    }
    near(cpuShare(disturbed(300)), 0.5)
    near(predict(disturbed(300), { level: 3 }).bytesPerSecond, 300 * MIB)
    // They have let the chain have more, but no more than all.
    near(predict(disturbed(400), { level: 3 }).bytesPerSecond, 400 * MIB)
    near(predict(disturbed(4000), { level: 3 }).bytesPerSecond, 600 * MIB)
    assert.equal(cpuShare(machine({})), 1)
  })

  it('is not guessed for what was not measured', () => {
    assert.throws(() => predict(machine({}), { level: 19 }), /Level 19 was not measured/)
    const measured = machine({ stores: [bucket({ 8: [10] })] })
    assert.throws(() => predict(measured, { level: 3, parts: new Map([['s3://worlds/mc', MIB]]) }), /No upload to s3:/)
  })
})

describe('the level that is advised', () => {
  const level = (of: Machine) => adviceOf(machine(of), 'level')

  it('stays, where no other brings enough', () => {
    const slow = level({ stores: [bucket({ 8: [10] })] })
    assert.deepEqual([slow.from, slow.to, slow.change], [3, 3, false])
    assert.match(
      slow.reason,
      /no other level brings 10 %: the next best, 9, would take 2 % less time and 2 % less room/,
    )
    const { now, then, estimate } = recommend(machine({ stores: [bucket({ 8: [10] })] }))
    assert.deepEqual(now, then)
    assert.equal(estimate?.nowSeconds, estimate?.thenSeconds)
  })

  it('is higher where the upload limits and compression keeps up; of equals the lowest', () => {
    const levels: Machine['levels'] = { 1: [800, 1.3], 3: [600, 1.4], 6: [200, 1.6], 9: [100, 1.62], 12: [40, 1.63] }
    const advice = level({ levels, stores: [bucket({ 8: [10] })] })
    assert.equal(advice.to, 6)
    assert.match(advice.reason, /^The upload limits, and compression has time: level 6 would take 13 % less time and/)
    assert.match(advice.reason, /13 % less room, with 0\.3 cores busy\.$/)
  })

  it('is not one that no longer keeps up', () => {
    const levels: Machine['levels'] = { 3: [600, 1.4], 9: [100, 1.6], 19: [5, 2] }
    const advice = level({ levels, stores: [bucket({ 8: [10] })] })
    assert.equal(advice.to, 9)
  })

  it('is higher for the room alone, where something else than the CPU limits', () => {
    const advice = level({ levels: { 3: [600, 1.4], 6: [400, 1.7] }, read: 90 })
    assert.equal(advice.to, 6)
    assert.match(advice.reason, /^Compression has time: level 6 would take as long and 18 % less room/)
  })

  it('is lower where the CPU limits, unless the room grows by more than the time shrinks', () => {
    const lower = level({})
    assert.equal(lower.to, 1)
    assert.match(lower.reason, /^The CPU limits, and level 1 would take 25 % less time and 7 % more room\.$/)
    assert.equal(level({ levels: { 1: [680, 1.2], 3: [600, 1.5] } }).change, false)
  })

  it('is not advised by synthetic data, nor where one level alone was measured', () => {
    assert.match(level({ read: null }).reason, /synthetic sample does not say/)
    assert.match(level({ levels: { 3: [600, 1.4] } }).reason, /no other level was measured/)
  })
})

describe('the size of parts that is advised', () => {
  const parts = (speeds: Record<number, number[]>, of: Machine = {}) =>
    adviceOf(machine({ ...of, stores: [bucket(speeds)] }), 'partBytes')

  it('is the fastest, where each of its uploads beat each of those of now, and a backup gains', () => {
    const advice = parts({ 8: [10, 11], 16: [13, 14], 24: [12, 12] })
    assert.deepEqual(
      [advice.destination, advice.from, advice.to, advice.change],
      ['s3://worlds/mc', 8 * MIB, 16 * MIB, true],
    )
    assert.match(advice.reason, /parts of 16 MiB send 29 % faster, fewer of them at once; .* take 22 % less time\./)
  })

  it('stays where nothing brings enough, or the line was too restless to tell', () => {
    assert.match(parts({ 8: [10, 10], 16: [10.5, 10.5] }).reason, /the next best, 16 MiB, is 5 % faster/)
    assert.match(parts({ 8: [10, 10], 16: [8, 8] }).reason, /the next best, 16 MiB, is 20 % slower/)
    for (const [now, then, faster] of [
      [[5, 12], [11, 13], 41],
      [[10, 12], [12.5, 16], 30],
    ] as const) {
      const restless = parts({ 8: [...now], 16: [...then] })
      assert.equal(restless.change, false)
      const said = `sent ${faster} % faster on average, which the ups and downs of this line may explain`
      assert.match(restless.reason, new RegExp(said))
    }
  })

  it('stays where a backup would gain nothing of it', () => {
    const advice = parts({ 8: [500, 500], 16: [900, 900] }, { read: 90 })
    assert.equal(advice.change, false)
    assert.match(advice.reason, /parts of 16 MiB send 80 % faster, .*reading the source holds it back/)
  })

  it('is not advised where sizes were not compared, and for a folder there is none', () => {
    const [, advice] = recommend(
      machine({ stores: [bucket({ 8: [10] }, { notCompared: 'it would take long.' })] }),
    ).advice
    assert.deepEqual([advice?.change, advice?.reason], [false, 'it would take long.'])
    const settings = recommend(machine({ stores: [disk(100)] })).advice.map(({ setting }) => setting)
    assert.deepEqual(settings, ['level', 'threads'])
  })

  it('is advised for each store by itself, and goes into what is then to be expected', () => {
    const other = bucket({ 8: [50, 50] }, { destination: 'b2://worlds', partBytes: 8 * MIB })
    const { advice, now, then, estimate } = recommend(
      machine({ stores: [bucket({ 8: [10, 10], 16: [20, 20] }), other] }),
    )
    assert.deepEqual(
      advice.map(({ setting, destination, change }) => [setting, destination, change]),
      [
        ['level', undefined, false],
        ['partBytes', 's3://worlds/mc', true],
        ['partBytes', 'b2://worlds', false],
        ['threads', undefined, false],
      ],
    )
    near(now.bytesPerSecond, 15 * MIB)
    near(then.bytesPerSecond, 30 * MIB)
    near(estimate!.nowSeconds, (10 * 1024) / 15)
    near(estimate!.thenSeconds, (10 * 1024) / 30)
    assert.equal(estimate!.bytes, 10 * GIB)
  })
})

describe('the threads that are advised', () => {
  const threads = (of: Machine) => adviceOf(machine({ levels: { 3: [600, 1.5] }, ...of }), 'threads')

  it('are more where too few of the cores compress, and that limits', () => {
    assert.deepEqual([threads({ threads: 1 }).to, threads({ threads: 1 }).change], [4, true])
    assert.match(threads({ threads: 1 }).reason, /only 1 of 4 cores compress: UV_THREADPOOL_SIZE is set too low/)
  })

  it('stay where all compress, the command takes no more, or something else limits', () => {
    assert.match(threads({}).reason, /all 4 cores compress already/)
    assert.match(threads({ cores: 16 }).reason, /at most 4 of the 16 cores; a program can give more/)
    const idle = threads({ threads: 1, stores: [bucket({ 8: [1] })] })
    assert.deepEqual([idle.change, idle.reason], [false, 'compression is not what limits.'])
  })
})

it('whatever is measured, what is advised is worth it and never slower', () => {
  const speed = fc.double({ min: 0.5, max: 5000, noNaN: true })
  const ratio = fc.double({ min: 1, max: 8, noNaN: true })
  const level = fc.tuple(speed, ratio)
  const passes = fc.tuple(speed, speed)
  fc.assert(
    fc.property(
      fc.record({ 1: level, 3: level, 6: level, 9: level, 12: level }),
      fc.record({ 8: passes, 16: passes, 24: passes }),
      fc.record({ read: speed, chain: speed, disk: speed, cores: fc.integer({ min: 1, max: 8 }) }),
      (levels, speeds, { read, chain, disk: writing, cores }) => {
        const stores = [bucket(speeds), disk(writing)]
        const measured = machine({ levels, read, chain, cores, threads: Math.min(cores, 4), stores })
        const { now, then, advice } = recommend(measured)
        assert.ok(then.bytesPerSecond >= 0.97 * now.bytesPerSecond * (1 - 1e-9))
        const isFaster = then.bytesPerSecond >= (1 + GAIN) * now.bytesPerSecond * (1 - 1e-9)
        const isSmaller = 1 - now.ratio / then.ratio >= GAIN * (1 - 1e-9)
        const changed = advice.filter(({ change }) => change)
        assert.equal(changed.length > 0, now.bytesPerSecond !== then.bytesPerSecond || now.ratio !== then.ratio)
        if (changed.length > 0) assert.ok(isFaster || isSmaller)
        for (const { change, from, to, reason } of advice) {
          assert.equal(change, from !== to)
          assert.match(reason, /\.$/)
          assert.doesNotMatch(reason, /NaN|Infinity|undefined/)
        }
      },
    ),
    { numRuns: 300 },
  )
})
