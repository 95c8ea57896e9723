import { test } from 'node:test'
import { HELD, setScene, stopHeld, stopTwice } from '../support/held-commands.ts'

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

test('a signal in the middle of each command: nothing is left, it says so, and the next run is clean', {
  concurrency: 2,
}, async (t) => {
  const cases = Object.keys(HELD).map((name, index) => {
    const signal = SIGNALS[index % 2] as (typeof SIGNALS)[number]
    return t.test(`${signal} during ${name}`, async (t) => stopHeld(await setScene(t), name, signal))
  })
  await Promise.all(cases)
})

// During others in the slow suite.
test('a second signal during restore ends it at once', async (t) => stopTwice(await setScene(t), 'restore'))
