import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { scratch, startMillrace } from '../support/cli.ts'

test('a command whose work is over does not stay for a program that was to give credentials', {
  timeout: 60_000,
}, async (t) => {
  const folder = await scratch(t)
  const pid = join(folder, 'pid')
  const config = join(folder, 'config')
  const program = join(folder, 'program.sh')
  await writeFile(program, `#!/bin/sh\necho $$ > ${pid}.new && mv ${pid}.new ${pid}\nexec sleep 600\n`, { mode: 0o755 })
  await writeFile(config, `[default]\ncredential_process = ${program}\n`)
  const env = { AWS_CONFIG_FILE: config, AWS_SHARED_CREDENTIALS_FILE: config, AWS_EC2_METADATA_DISABLED: 'true' }
  const store = 's3://bucket?endpoint=http://127.0.0.1:9&region=us-east-1'
  const { child, result } = startMillrace(['list', '--from', store, '--server', 'world'], { env })
  while (!existsSync(pid)) await sleep(20)
  const asked = Number(await readFile(pid, 'utf8'))
  t.after(() => process.kill(asked, 'SIGKILL'))
  child.kill('SIGINT')
  const { code, stderr } = await result
  assert.equal(code, 130)
  assert.match(stderr, /Interrupted/)
})
