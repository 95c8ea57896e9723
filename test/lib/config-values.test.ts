import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../../lib/config/index.ts'
import { configJsonSchema } from '../../lib/config/json-schema.ts'
import { checkServer } from '../../lib/names.ts'
import { DESTINATIONS, problems, server } from '../support/wrong-config.ts'

test('a name that is too long for a server is told where the config is read, not where it is backed up', () => {
  const named = (length: number) => `${DESTINATIONS}servers: { ${'a'.repeat(length)}: { source: x } }`
  const [name] = Object.keys(parseConfig(named(100), 'millrace.yaml').config.servers)
  assert.equal(checkServer(name as string).length, 100)
  assert.deepEqual(problems(named(101)), [`2:12 servers."${'a'.repeat(80)}…" is too long: at most 100 characters.`])
})

test('a share of the frames is one that verify takes', () => {
  const how = (share: string) => server(`verify: { schedule: '@daily', how: '${share}' }`)
  for (const share of ['5%', '0.01%', '00.5%', '05%', '99.9%', '100%', '100.0%']) {
    assert.equal(parseConfig(how(share), 'millrace.yaml').config.servers.survival?.verify?.how, share)
  }
  for (const share of ['0%', '0.0%', '000%', '101%', '100.1%', '500%', '1000%', '5', '.5%', '5.%', '-5%', '%']) {
    assert.deepEqual(
      problems(how(share)),
      ['3:65 servers.survival.verify.how is quick, full, restore-test, or a share as 5%.'],
      share,
    )
  }
})

test('a secret of several lines is one to the JSON Schema too', () => {
  const patterns = new Set<string>()
  JSON.parse(JSON.stringify(configJsonSchema()), (key, value) => {
    if (key === 'pattern' && String(value).includes('command:')) patterns.add(value)
    return value
  })
  const [pattern] = [...patterns] as [string]
  assert.equal(patterns.size, 1)
  const schema = new RegExp(pattern)
  for (const reference of ['file:x', 'command:a b', 'command:a \\\n  b\n', 'file:x\n', '${NAME}']) {
    parseConfig(server(`encryption: { password: ${JSON.stringify(reference)} }`), 'millrace.yaml')
    assert.match(reference, schema)
  }
  for (const wrong of ['hunter2', 'file:', 'command:', '${A}\n', 'x\nfile:a', '', ' file:x']) {
    assert.equal(problems(server(`encryption: { password: ${JSON.stringify(wrong)} }`)).length, 1)
    assert.doesNotMatch(wrong, schema)
  }
})

test('what is no length of time is none to the JSON Schema either, but for none at all and one that is too long', () => {
  const { servers } = (configJsonSchema() as { properties: Record<string, unknown> }).properties
  const { properties } = (servers as { additionalProperties: { properties: Record<string, { pattern: string }> } })
    .additionalProperties
  const schema = new RegExp(properties.maxAge?.pattern as string)
  for (const time of ['1w', '14d', '26h', '90m', '5s', '1d12h', '1w2d3h4m5s', '00h1s']) {
    parseConfig(server(`maxAge: ${time}`), 'millrace.yaml')
    assert.match(time, schema)
  }
  for (const wrong of ['', '1', 'd', '1h1d', '1.5h', '-1d', '1 h', '1D', '1d ', 'soon', '0d', '9999999999999w']) {
    assert.equal(problems(server(`maxAge: "${wrong}"`)).length, 1, wrong)
    if (!/^(?:0d|9+w)$/.test(wrong)) assert.doesNotMatch(wrong, schema)
  }
})

test('a size that is beyond every number is no size', () => {
  const text = `destinations: { a: { provider: filesystem, root: x, bandwidth: ${'9'.repeat(400)}GB/s } }
servers: { survival: { source: x } }`
  assert.match(problems(text).join('\n'), /^1:64 destinations\.a\.bandwidth is no rate: write bytes a second[^\n]*$/)
})

test('a date is no schedule: it would come once, and the file be refused from then on', () => {
  for (const schedule of ['2999-01-01T00:00:00', '2999-01-01T00:00:00Z', '2999-01-01 00:00:00']) {
    assert.match(problems(server(`schedule: "${schedule}"`)).join('\n'), /^3:40 \S+ is not a schedule: [^\n]+$/)
    const whole = problems(server(`schedule: { cron: "${schedule}" }`)).join('\n')
    assert.match(whole, /^3:48 \S+\.cron is not a schedule: [^\n]+$/)
  }
  for (const schedule of ['0 0 * * *', ' 0\t0  * * * ', '@daily', '@HOURLY', '0 0 L * *', '0 0 * * mon#1']) {
    parseConfig(server(`schedule: ${JSON.stringify(schedule)}`), 'millrace.yaml')
  }
})
