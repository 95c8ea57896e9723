import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../../lib/config/index.ts'
import { checkServer } from '../../lib/names.ts'
import { DESTINATIONS, problems } from '../support/wrong-config.ts'

test('a name that is too long for a server is told where the config is read, not where it is backed up', () => {
  const named = (length: number) => `${DESTINATIONS}servers: { ${'a'.repeat(length)}: { source: x } }`
  const [name] = Object.keys(parseConfig(named(100), 'millrace.yaml').config.servers)
  assert.equal(checkServer(name as string).length, 100)
  assert.deepEqual(problems(named(101)), [`2:12 servers."${'a'.repeat(80)}…" is too long: at most 100 characters.`])
})
