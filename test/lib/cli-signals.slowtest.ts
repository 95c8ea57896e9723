import { test } from 'node:test'
import { HELD, killHeld, setScene, stopHeld, stopTwice } from '../support/held-commands.ts'

for (const name of Object.keys(HELD)) {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`${signal} during ${name}: nothing is left, it says so, and the next run is clean`, async (t) =>
      stopHeld(await setScene(t), name, signal))
  }
  test(`T8: SIGKILL during ${name}: nothing is listed as complete that is not, and the next run works`, async (t) =>
    killHeld(await setScene(t), name))
}

for (const name of ['backup', 'prune']) {
  test(`a second signal during ${name} ends it at once`, async (t) => stopTwice(await setScene(t), name))
}
