import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { raceAll } from '../support/backup-race.ts'
import { BIN, millrace, PASSWORD, scratch } from '../support/cli.ts'
import { rounds } from '../support/rounds.ts'

raceAll(rounds(6, 50))

test('T22: the command is refused with exit code 5 while another run is at work, or waits for it', async (t) => {
  const folder = await scratch(t)
  const to = ['backup', '--to', `file://${folder}/store`, '--server', 'survival']
  const begun = join(folder, 'begun')
  const goOn = join(folder, 'go-on')
  const slow = `touch '${begun}'; while [ ! -e '${goOn}' ]; do sleep 0.05; done; echo data`
  const first = millrace([...to, '--from-command', '--', 'sh', '-c', slow])
  while (!existsSync(begun)) await new Promise((resolve) => setTimeout(resolve, 20))
  const quick = ['--from-command', '--', 'echo', 'data']
  const refused = await millrace([...to, '--json', ...quick])
  assert.equal(refused.code, 5, refused.stderr)
  assert.match(refused.stderr, /at work on survival: .*process \d+.*since 20.*--wait/)
  assert.equal(refused.events().at(-1)?.code, 'LEASE_HELD')
  assert.equal((await millrace([...to, '--no-lease', ...quick])).code, 0)
  const waiting = spawn(process.execPath, [BIN, ...to, '--wait', '5m', '--json', ...quick], {
    env: { ...process.env, MILLRACE_PASSWORD: PASSWORD },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exit = once(waiting, 'exit')
  for await (const text of waiting.stdout.setEncoding('utf8')) {
    if (/"kind":"lease"/.test(text)) await writeFile(goOn, '')
  }
  assert.equal((await exit)[0], 0)
  assert.ok(existsSync(goOn), 'it did not wait')
  assert.equal((await first).code, 0)
})
