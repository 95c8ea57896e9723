import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { EXAMPLE } from '../../lib/config/example.ts'
import { parseConfig, serverNames, serverSettings } from '../../lib/config/index.ts'
import { configJsonSchema } from '../../lib/config/json-schema.ts'
import { configSchema } from '../../lib/config/schema.ts'
import { fieldTables, GUIDE, guideOf, SCHEMA } from '../support/config-guide.ts'

const HOW = 'node test/support/config-guide.ts brings it up to date'

test('the example is a config without a warning, and stays one when what is commented out is taken in', () => {
  const loaded = parseConfig(EXAMPLE, '/etc/millrace/millrace.yaml')
  assert.deepEqual(loaded.warnings, [])
  assert.deepEqual(serverNames(loaded), ['survival', 'creative'])
  assert.deepEqual(serverSettings(loaded, 'creative').destinations, ['local'])
  // A line that is a field behind its comment sign.
  const whole = EXAMPLE.replace(
    /^( *)# (?=( *)(?:drive|provider|folder|database|sourceCommand|previousPasswords):)/gm,
    '$1',
  )
  assert.notEqual(whole, EXAMPLE)
  const more = parseConfig(whole, '/etc/millrace/millrace.yaml')
  assert.deepEqual(serverNames(more), ['survival', 'creative', 'database'])
  assert.deepEqual(Object.keys(more.config.destinations), ['local', 'offsite', 'drive'])
})

test('docs/millrace.schema.json is the schema', () => {
  assert.deepEqual(JSON.parse(readFileSync(SCHEMA, 'utf8')), JSON.parse(JSON.stringify(configJsonSchema())), HOW)
})

test('docs/guides/config.md has the example and every field', () => {
  const guide = readFileSync(GUIDE, 'utf8')
  assert.equal(guide, guideOf(guide), HOW)
})

test('every field has a word that says what it is', () => {
  const rows = fieldTables()
    .split('\n')
    .filter((line) => line.startsWith('| `'))
  assert.ok(rows.length > 90, `${rows.length}`)
  for (const row of rows) assert.match(row, /^\| `[$\w]+` \| [^|]+ \| [^|]{5,} \|$/)
})

test('what the guide says of defaults is what they take', () => {
  const guide = readFileSync(GUIDE, 'utf8')
  const said = /`defaults` takes[^:]*:([^.]*)\./s.exec(guide)?.[1] ?? ''
  const named = [...said.matchAll(/`(\w+)`/g)].map((match) => match[1])
  const { defaults } = configSchema.shape
  assert.deepEqual(named.toSorted(), Object.keys(defaults.unwrap().shape).toSorted())
})
