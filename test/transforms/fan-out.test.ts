import assert from 'node:assert/strict'
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { TransformError } from '../../transforms/errors.ts'
import { createFanOut, type FanOut } from '../../transforms/fan-out.ts'
import { feed, sample } from '../support/streams.ts'

const hasCode = (code: string) => (error: unknown) => error instanceof TransformError && error.code === code

type Callback = (error?: Error | null) => void

/** A destination whose every step a test can hold up. */
class Sink extends Writable {
  readonly chunks: Buffer[] = []
  readonly log: string[]
  readonly label: string
  /** Steps that are held: `write`, `final`, `destroy`. */
  readonly holds = new Set<string>()
  readonly #held: (() => void)[] = []

  constructor(label = 'sink', log: string[] = [], options: { emitClose?: boolean; autoDestroy?: boolean } = {}) {
    super({ highWaterMark: 1, ...options })
    this.label = label
    this.log = log
    this.on('finish', () => log.push(`${label} finish`))
    this.on('close', () => log.push(`${label} close`))
  }

  hold(step: string): this {
    this.holds.add(step)
    return this
  }

  /** Lets held steps go on, with an error if there is one. */
  release(step: string, error?: Error): void {
    this.holds.delete(step)
    for (const go of this.#held.splice(0)) (go as Callback)(error)
  }

  get data(): Buffer {
    return Buffer.concat(this.chunks)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.chunks.push(chunk)
    this.#step('write', callback)
  }

  override _final(callback: Callback): void {
    this.#step('final', callback)
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#step('destroy', () => callback(error))
  }

  #step(step: string, callback: Callback): void {
    if (this.holds.has(step)) this.#held.push(callback as () => void)
    else callback()
  }
}

function fan(sinks: readonly Writable[], options?: Parameters<typeof createFanOut>[1]): FanOut {
  return createFanOut(
    sinks.map((stream, i) => ({ name: 'abc'[i] as string, stream })),
    options,
  )
}

const states = (stream: FanOut) => stream.statuses.map(({ name, state, bytes }) => `${name} ${state} ${bytes}`)

async function turns(count = 10): Promise<void> {
  for (let i = 0; i < count; i += 1) await turn()
}

/** Resolves with the error, or null, when the stream has closed. */
function outcome(stream: Writable): Promise<Error | null> {
  let failure: Error | null = null
  stream.on('error', (error) => {
    failure = error
  })
  return new Promise((resolve) => stream.on('close', () => resolve(failure)))
}

test('fan-out: all get every byte, in the same memory, and it finishes after them and closes after them', async () => {
  const log: string[] = []
  const sinks = ['a', 'b', 'c'].map((name) => new Sink(name, log))
  const data = sample(100_000)
  const stream = fan(sinks)
  stream.on('finish', () => log.push('finish'))
  stream.on('close', () => log.push('close'))
  assert.deepEqual(states(stream), ['a writing 0', 'b writing 0', 'c writing 0'])
  await pipeline(feed(data, 999), stream)
  for (const sink of sinks) assert.deepEqual(sink.data, data)
  for (const [i, chunk] of (sinks[0] as Sink).chunks.entries()) {
    assert.equal(chunk.buffer, data.buffer)
    for (const sink of sinks) assert.equal(sink.chunks[i], chunk)
  }
  assert.deepEqual(states(stream), ['a finished 100000', 'b finished 100000', 'c finished 100000'])
  assert.deepEqual(log.slice(0, 3), ['a finish', 'b finish', 'c finish'])
  assert.ok(log.indexOf('finish') > 2)
  assert.equal(log.at(-1), 'close')
  assert.equal(log.length, 8)
})

test('fan-out: an empty stream finishes all', async () => {
  const stream = fan([new Sink(), new Sink()])
  stream.end()
  await finished(stream)
  assert.deepEqual(states(stream), ['a finished 0', 'b finished 0'])
})

test('fan-out: a destination that has finished before an empty stream has taken nothing of it', async () => {
  const early = new Sink('early', [], { autoDestroy: false })
  early.end()
  await turns()
  const stream = fan([early, new Sink()])
  stream.end()
  await finished(stream)
  assert.deepEqual(states(stream), ['a failed 0', 'b finished 0'])
})

test('fan-out: the slowest sets the pace, and nothing piles up', async () => {
  const [fast, slow] = [new Sink(), new Sink().hold('write')]
  const stream = fan([fast, slow])
  let taken = 0
  for (let i = 0; i < 3; i += 1) {
    stream.write(Buffer.alloc(40_000, i), () => {
      taken += 1
    })
  }
  await turns()
  assert.equal(stream.writableNeedDrain, true)
  assert.deepEqual([fast.chunks.length, slow.chunks.length, taken], [1, 1, 0])
  assert.deepEqual(states(stream), ['a writing 40000', 'b writing 0'])
  for (const count of [2, 3]) {
    slow.release('write')
    slow.hold('write')
    await turns()
    assert.deepEqual([fast.chunks.length, slow.chunks.length, taken], [count, count, count - 1])
  }
  slow.release('write')
  stream.end()
  await finished(stream)
  assert.deepEqual(fast.data, slow.data)
})

test('fan-out: finish waits for the slowest commit', async () => {
  const log: string[] = []
  const [fast, slow] = [new Sink('fast', log), new Sink('slow', log).hold('final')]
  const stream = fan([fast, slow])
  stream.on('finish', () => log.push('finish'))
  stream.end(sample(10))
  await turns()
  assert.ok(log.includes('fast finish'))
  assert.ok(!log.includes('finish'))
  assert.deepEqual(states(stream), ['a finished 10', 'b writing 10'])
  slow.release('final')
  await finished(stream)
  assert.ok(log.indexOf('slow finish') < log.indexOf('finish'))
})

// Each way to fail: how the second of three is made, and what befalls it after the first chunk was written.
interface Failure {
  make?: () => Sink
  strike?: (sink: Sink) => void
  message?: RegExp
  bytes?: number
}
const boom = new Error('boom')
const failures: Record<string, Failure> = {
  'an error from a write': {
    make: () =>
      new (class extends Sink {
        override _write(chunk: Buffer, encoding: BufferEncoding, callback: Callback): void {
          if (this.chunks.length === 1) callback(boom)
          else super._write(chunk, encoding, callback)
        }
      })(),
  },
  'a throw from a write': {
    make: () =>
      new (class extends Sink {
        override _write(chunk: Buffer, encoding: BufferEncoding, callback: Callback): void {
          if (this.chunks.length === 1) throw boom
          super._write(chunk, encoding, callback)
        }
      })(),
  },
  'an error between two writes': { strike: (sink) => void sink.destroy(boom) },
  'an error whose clean-up takes its time': {
    strike(sink) {
      sink.hold('destroy').destroy(boom)
      setTimeout(() => sink.release('destroy'), 20)
    },
  },
  'an error event and nothing else': {
    make: () => new Sink('sink', [], { autoDestroy: false }),
    strike: (sink) => void sink.emit('error', boom),
  },
  'closed without an error': { strike: (sink) => void sink.destroy(), message: /closed|destroyed/ },
  'ended by somebody else': { strike: (sink) => void sink.end(), message: /ended|after end/ },
  'an error at the end': { strike: (sink) => void sink.hold('final'), bytes: 200 },
  'destroyed before the start': { make: () => new Sink().destroy(boom), bytes: 0 },
  'destroyed long before the start': {
    make() {
      const sink = new Sink()
      sink.on('error', () => {})
      return sink.destroy(boom)
    },
    bytes: 0,
  },
  'an error before the start, and not destroyed': {
    make() {
      const sink = new Sink('sink', [], { autoDestroy: false })
      sink.on('error', () => {})
      sink.hold('write').write('x')
      sink.release('write', boom)
      return sink
    },
    bytes: 0,
  },
  'ended before the start': {
    make() {
      const sink = new Sink('sink', [], { autoDestroy: false })
      sink.end()
      return sink
    },
    message: /ended|after end/,
    bytes: 0,
  },
  'stalled, then closed without an error': {
    strike(sink) {
      sink.hold('write')
      setTimeout(() => sink.destroy(), 20)
    },
    message: /closed/,
  },
  'stalled, then failed': {
    strike(sink) {
      sink.hold('write')
      setTimeout(() => sink.destroy(boom), 20)
    },
  },
}

for (const [name, { make, strike, message = /boom/, bytes = 100 }] of Object.entries(failures)) {
  const play = async (options: Parameters<typeof createFanOut>[1]) => {
    const bad = make?.() ?? new Sink()
    const good = [new Sink(), new Sink()] as const
    if (name.includes('long before')) await turns()
    const stream = fan([good[0], bad, good[1]], options)
    const ended = outcome(stream)
    let finish = false
    stream.on('finish', () => {
      finish = true
    })
    await new Promise((resolve) => stream.write(sample(100), resolve))
    strike?.(bad)
    stream.write(sample(100))
    stream.end()
    if (name.endsWith('at the end')) {
      await turns()
      bad.release('final', boom)
    }
    return { stream, bad, good, error: await ended, finish }
  }

  test(`T28: fan-out: ${name}: dropped, and the others get everything`, async () => {
    const { stream, bad, good, error, finish } = await play({})
    assert.equal(error, null)
    assert.ok(finish)
    for (const sink of good) assert.deepEqual(sink.data, Buffer.concat([sample(100), sample(100)]))
    assert.deepEqual(states(stream), ['a finished 200', `b failed ${bytes}`, 'c finished 200'])
    assert.match(String(stream.statuses[1]?.error?.message), message)
    assert.ok(bad.closed)
  })

  test(`fan-out: ${name}: fails all when told to`, async () => {
    const { stream, bad, good, error, finish } = await play({ onFailure: 'fail-all' })
    assert.ok(error instanceof TransformError && error.code === 'FAN_OUT', String(error))
    assert.match(String((error.cause as Error).message), message)
    assert.match(error.message, /Destination b failed/)
    assert.ok(!finish)
    assert.ok(bad.closed && good.every((sink) => sink.closed))
    assert.equal(stream.statuses[1]?.state, 'failed')
    // At the end the others may have committed already; what has is said.
    for (const [i, sink] of [
      [0, good[0]],
      [2, good[1]],
    ] as const) {
      assert.equal(stream.statuses[i]?.state, sink.writableFinished ? 'finished' : 'failed')
      assert.equal(sink.writableFinished, name.endsWith('at the end'))
    }
  })

  test(`fan-out: ${name}: fails when fewer than the minimum are left`, async () => {
    assert.equal((await play({ minimum: 2 })).error, null)
    const { error } = await play({ minimum: 3 })
    assert.ok(error instanceof TransformError && error.code === 'FAN_OUT')
  })
}

test('fan-out: when the last is lost it fails, with no write to tell it', async () => {
  const sinks = [new Sink(), new Sink()]
  const stream = fan(sinks)
  const ended = outcome(stream)
  sinks[1]?.destroy(boom)
  await turns()
  assert.equal(stream.destroyed, false)
  sinks[0]?.destroy(boom)
  const error = await ended
  assert.ok(error instanceof TransformError && error.code === 'FAN_OUT')
  assert.equal(error.cause, boom)
})

test('fan-out: fail-all does not wait for another that is stalled', async () => {
  for (const step of ['write', 'final']) {
    const [stalled, bad] = [new Sink().hold(step), new Sink().hold(step)]
    const stream = fan([stalled, bad], { onFailure: 'fail-all' })
    const ended = outcome(stream)
    stream.end(sample(10))
    await turns()
    bad.release(step, boom)
    const error = await ended
    assert.ok(error instanceof TransformError && error.code === 'FAN_OUT')
    assert.equal(stalled.closed, true)
    assert.deepEqual(
      stream.statuses.map(({ state }) => state),
      ['failed', 'failed'],
    )
  }
})

test('fan-out: all fail in one write, and each has its own error', async () => {
  const sinks = [new Sink().hold('write'), new Sink().hold('write')]
  const stream = fan(sinks)
  const ended = outcome(stream)
  let told: Error | null | undefined
  stream.write(sample(10), (error) => {
    told = error
  })
  await turns()
  sinks[0]?.release('write', new Error('one'))
  sinks[1]?.release('write', new Error('two'))
  assert.ok(hasCode('FAN_OUT')(await ended))
  assert.ok(hasCode('FAN_OUT')(told))
  assert.deepEqual(
    stream.statuses.map(({ error }) => error?.message),
    ['one', 'two'],
  )
})

test('fan-out: an error after a commit undoes nothing and does not end the process', async () => {
  const late = new Error('late')
  for (const onFailure of ['drop', 'fail-all'] as const) {
    const [early, slow] = [new Sink('early', [], { autoDestroy: false }), new Sink().hold('final')]
    const stream = fan([early, slow], { onFailure })
    const ended = outcome(stream)
    stream.end(sample(10))
    await turns()
    early.destroy(late)
    await turns()
    slow.release('final')
    assert.equal(await ended, null)
    assert.deepEqual(states(stream), ['a finished 10', 'b finished 10'])
    assert.equal(stream.statuses[0]?.error, late)
    slow.emit('error', late)
    assert.deepEqual(states(stream), ['a finished 10', 'b finished 10'])
  }
})

test('fan-out: destroyed, it destroys all and closes after the last of them', async () => {
  for (const error of [undefined, new Error('enough')]) {
    for (const moment of ['at once', 'in a write', 'between writes', 'in a commit']) {
      const log: string[] = []
      const [one, two] = [new Sink('one', log), new Sink('two', log).hold('destroy')]
      const stream = fan([one, two])
      stream.on('close', () => log.push('close'))
      const ended = outcome(stream)
      let told: unknown = 'nothing'
      if (moment === 'in a write') {
        two.hold('write')
        stream.write(sample(10), (failure) => {
          told = failure
        })
      }
      if (moment === 'between writes') stream.write(sample(10))
      if (moment === 'in a commit') {
        two.hold('final')
        stream.end(sample(10))
      }
      if (moment !== 'at once') await turns()
      stream.destroy(error)
      await turns()
      assert.deepEqual([one.destroyed, two.destroyed], [true, true])
      assert.ok(!log.includes('close'))
      two.release('destroy')
      assert.equal(await ended, error ?? null)
      assert.equal(log.at(-1), 'close')
      assert.ok(log.includes('one close') && log.includes('two close'))
      const committed = moment === 'in a commit'
      assert.equal(stream.statuses[0]?.state, committed ? 'finished' : 'failed', moment)
      assert.equal(stream.statuses[1]?.state, 'failed')
      if (error) assert.equal(stream.statuses[1]?.error, error)
      else assert.ok(hasCode('FAN_OUT')(stream.statuses[1]?.error))
      if (moment === 'in a write') assert.equal(told, error ?? stream.statuses[1]?.error)
    }
  }
})

test('fan-out: what destroying it does to a destination that has committed is no error of that one', async () => {
  const stream = fan([new Sink('sink', [], { autoDestroy: false }), new Sink().hold('final')])
  const ended = outcome(stream)
  stream.end(sample(10))
  await turns()
  stream.destroy(boom)
  assert.equal(await ended, boom)
  assert.deepEqual(stream.statuses, [
    { name: 'a', state: 'finished', bytes: 10 },
    { name: 'b', state: 'failed', bytes: 10, error: boom },
  ])
})

test('fan-out: a signal aborts the pipeline and every destination', async () => {
  const sinks = [new Sink(), new Sink().hold('write')]
  const stream = fan(sinks)
  const controller = new AbortController()
  const run = pipeline(feed(sample(1000), 10), stream, { signal: controller.signal })
  await turns()
  controller.abort()
  await assert.rejects(run, { name: 'AbortError' })
  assert.ok(stream.closed && sinks.every((sink) => sink.closed))
  for (const { state, error } of stream.statuses) {
    assert.equal(state, 'failed')
    assert.equal(error?.name, 'AbortError')
  }
})

test('fan-out: a source that fails aborts every destination', async () => {
  const sinks = [new Sink(), new Sink()]
  const source = async function* () {
    yield sample(10)
    throw boom
  }
  await assert.rejects(pipeline(source, fan(sinks)), boom)
  assert.ok(sinks.every((sink) => sink.closed && !sink.writableFinished && sink.errored === boom))
})

test('fan-out: a Duplex that is still read when all has been written keeps its bytes', async () => {
  const pass = new PassThrough()
  const stream = fan([pass, new Sink()])
  const data = sample(5000)
  stream.end(data)
  await finished(stream)
  await turns()
  assert.ok(stream.closed)
  const out: Buffer[] = []
  for await (const chunk of pass) out.push(chunk)
  assert.deepEqual(Buffer.concat(out), data)
})

test('fan-out: destinations that emit no close, or do not destroy themselves, do not keep it open', async () => {
  for (const options of [{ emitClose: false }, { autoDestroy: false }]) {
    for (const abort of [false, true]) {
      const stream = fan([new Sink('sink', [], options), new Sink()])
      const ended = outcome(stream)
      stream.write(sample(10))
      await turns()
      if (abort) stream.destroy(boom)
      else stream.end()
      assert.equal(await ended, abort ? boom : null)
    }
  }
})

test('fan-out: files, one of which cannot be made', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-fan-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const data = sample(1_000_000)
  const stream = createFanOut([
    { name: 'good', stream: createWriteStream(join(folder, 'good')) },
    { name: 'absent', stream: createWriteStream(join(folder, 'absent', 'file')) },
  ])
  await pipeline(feed(data, 10_000), stream)
  assert.deepEqual(readFileSync(join(folder, 'good')), data)
  assert.equal(stream.statuses[0]?.state, 'finished')
  assert.equal((stream.statuses[1]?.error as NodeJS.ErrnoException | undefined)?.code, 'ENOENT')
})

test('fan-out: whatever fails whenever, those that finish have everything, and it always ends', async () => {
  const when = fc.record({
    fails: fc.boolean(),
    at: fc.nat(8),
    how: fc.constantFrom('write', 'destroy', 'late', 'final'),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(when, { minLength: 1, maxLength: 3 }), fc.nat(2), async (plans, fewest) => {
      const data = sample(800)
      const minimum = Math.min(fewest + 1, plans.length)
      const sinks = plans.map(({ fails, at, how }) => {
        const chunks: Buffer[] = []
        const sink: Writable = new Writable({
          write(chunk, _encoding, callback) {
            chunks.push(chunk)
            if (!fails || chunks.length <= at || how === 'final') setImmediate(callback)
            else if (how === 'write') setImmediate(callback, boom)
            else if (how === 'destroy') sink.destroy(boom)
            else setTimeout(callback, 2, boom)
          },
          final: (callback) => setImmediate(callback, fails && how === 'final' ? boom : null),
        })
        return { sink, chunks }
      })
      const stream = fan(
        sinks.map(({ sink }) => sink),
        { minimum },
      )
      const failure = await pipeline(feed(data, 100), stream).then(
        () => null,
        (error) => error,
      )
      const finishedOnes = stream.statuses.filter(({ state }) => state === 'finished')
      for (const [i, { state, bytes }] of stream.statuses.entries()) {
        assert.notEqual(state, 'writing')
        if (state === 'finished') assert.deepEqual(Buffer.concat(sinks[i]?.chunks ?? []), data)
        if (state === 'finished') assert.equal(bytes, 800)
        assert.ok(sinks[i]?.sink.closed)
      }
      if (failure === null) assert.ok(finishedOnes.length >= minimum)
      else assert.ok(hasCode('FAN_OUT')(failure), String(failure))
    }),
    { numRuns: 150 },
  )
})

test('fan-out: nonsense is refused at once', () => {
  const sink = new Sink()
  const bad = (...args: Parameters<typeof createFanOut>) =>
    assert.throws(() => createFanOut(...args), hasCode('BAD_OPTION'))
  bad([])
  bad([
    { name: 'a', stream: sink },
    { name: 'a', stream: new Sink() },
  ])
  bad([
    { name: 'a', stream: sink },
    { name: 'b', stream: sink },
  ])
  for (const minimum of [0, 2, 0.5, Number.NaN]) bad([{ name: 'a', stream: sink }], { minimum })
  bad([{ name: 'a', stream: sink }], { onFailure: 'ignore' as never })
  assert.equal(sink.listenerCount('error'), 0)
})
