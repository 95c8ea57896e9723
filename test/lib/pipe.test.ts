import assert from 'node:assert/strict'
import { PassThrough, Readable, Transform, Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { pump, run } from '../../lib/pipe.ts'

/** Finds at its end that something was wrong; the stage before it has taken all by then. */
function failingLate(): Transform {
  return new Transform({
    transform: (chunk, _encoding, callback) => callback(null, chunk),
    flush: (callback) => void setTimeout(callback, 10, new Error('damaged')),
  })
}

test('a consumer that listens late finds the error of what it is to read', async () => {
  const stages = [new PassThrough(), failingLate()]
  const consume = async (stream: Readable) => {
    // Not by its events: nobody listens to it.
    while (!stream.closed) await delay(1)
    return buffer(stream)
  }
  await assert.rejects(pump(Readable.from([Buffer.from('all of it')]), stages, consume), { message: 'damaged' })
})

test('the consumer has its result, and its failure ends the source', async () => {
  const source = Readable.from([Buffer.from('a'), Buffer.from('b')])
  assert.equal(String(await pump(source, [new PassThrough(), new PassThrough()], buffer)), 'ab')
  const endless = new Readable({
    read() {
      this.push(Buffer.alloc(1000))
    },
  })
  const failing = async () => {
    throw new Error('the disk is full')
  }
  await assert.rejects(pump(endless, [new PassThrough(), new PassThrough()], failing), { message: 'the disk is full' })
  assert.equal(endless.destroyed, true)
})

test('an abort is an AbortError, also where what it closed is heard of first', async () => {
  for (const close of [true, false]) {
    const stopper = new AbortController()
    const source = new Readable({ read() {} })
    const sink = new Writable({ write: (_chunk, _encoding, callback) => callback() })
    const running = run(source, [new PassThrough(), new PassThrough()], sink, stopper.signal)
    setImmediate(() => {
      if (close) sink.destroy()
      process.nextTick(() => stopper.abort())
    })
    await assert.rejects(running, { name: 'AbortError' }, `${close}`)
    assert.equal(source.destroyed, true)
  }
})
