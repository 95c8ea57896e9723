import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { scratch } from '../support/cli.ts'
import { runMany } from '../support/config-place.ts'

/** Runs the command with arguments that are wrong. */
async function refused(t: TestContext, runs: string[][]) {
  const folder = await scratch(t)
  const results = await runMany(
    folder,
    runs.map((args) => ({ args, cwd: folder })),
  )
  for (const { code } of results) assert.equal(code, 2)
  return results
}

test('names that every object has are no providers, and no rights', async (t) => {
  const [ofObject, proto, access] = await refused(t, [
    ['login', 'constructor'],
    ['login', '__proto__', '--access', 'full'],
    ['login', 'dropbox', '--client-id', 'x', '--access', 'constructor'],
  ])
  assert.match(ofObject?.stderr ?? '', /^millrace: There is nothing to sign in to at "constructor"\. Known are/)
  assert.match(proto?.stderr ?? '', /^millrace: There is nothing to sign in to at "__proto__"\. Known are/)
  assert.match(access?.stderr ?? '', /^millrace: --access is one of files\./)
})
