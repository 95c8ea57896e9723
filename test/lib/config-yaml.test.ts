import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../../lib/config/index.ts'
import { DESTINATIONS, problems, server } from '../support/wrong-config.ts'

test('the line of an error is that of the file, also behind one that YAML gives up at', () => {
  const told = problems('a:\n  quiesce:\n  ]    by: rcon\n      address: x\n      b: y\nc: @\n')
  const rows = new Set(told.map((line) => Number(line.split(':')[0])))
  assert.deepEqual([...rows].sort(), [3, 4, 5, 6])
  for (const line of told) assert.match(line, /^\d+:\d{1,2} /)
  assert.ok(
    told.some((line) => line.startsWith('6:4 ')),
    told.join('\n'),
  )
})

test('what is asked of the writer of a file ends in one question mark', () => {
  assert.deepEqual(problems('a: 1\n]\n'), [
    '2:1 something stands here that does not belong. Is a quote, a dash or a line end missing?',
  ])
})

test('what << cannot take is told by its place, and what it can is taken', () => {
  const merging = (value: string) => `${DESTINATIONS}servers: { a: { source: x, <<: ${value} } }`
  const told = '<< takes what an anchor stands for that is a mapping (<<: *name), or a list of such.'
  for (const value of ['5', 'text', '[5]', '[{ level: 3 }, text]', '[[]]']) {
    assert.deepEqual(problems(merging(value)), [`2:32 ${told}`], value)
  }
  assert.deepEqual(problems(merging('')), [`2:28 ${told}`])
  assert.deepEqual(problems(`defaults: &a { level: 3 }\nmetricsFile: &b x\n${merging('[*a, *b]')}`), [`4:32 ${told}`])
  assert.match(problems(merging('*a'))[0] as string, /^2:32 an alias/)
  for (const value of ['{ level: 3 }', '[]', '[{ level: 3 }, { wait: 1h }]', '*a', '[*a, { wait: 1h }]']) {
    const text = `defaults: &a { level: 3 }\n${merging(value)}`
    assert.equal(parseConfig(text, 'millrace.yaml').config.servers.a?.source, 'x', value)
  }
  const list = `${DESTINATIONS}servers: { a: { source: x, <<: &l [{ level: 3 }] }, b: { source: x, <<: *l } }`
  assert.equal(parseConfig(list, 'millrace.yaml').config.servers.b?.level, 3)
})

test('tags of other types are not known, and a %YAML line changes no type', () => {
  const tag = 'there is a tag (!name) that is not known. Put text that begins with ! in quotes.'
  for (const value of ['!!set { before }', '!!omap [before: x]', '!!binary aGVsbG8=', '!!timestamp 2026-11-11']) {
    for (const head of ['', '%YAML 1.1\n---\n']) {
      const told = problems(`${head}${server(`hooks: ${value}`)}`)
      assert.ok(
        told.some((line) => line.endsWith(tag)),
        `${head}${value}: ${told}`,
      )
    }
  }
  assert.deepEqual(problems(`%YAML 1.1\n---\n${server('allowEmpty: yes, hooks: 2026-11-11')}`), [
    '5:42 servers.survival.allowEmpty must be true or false.',
    '5:54 servers.survival.hooks must be a mapping: names with values beneath it.',
  ])
  const { servers } = parseConfig(
    server('level: !!int 3, allowEmpty: !!bool true, wait: !!str 1h'),
    'millrace.yaml',
  ).config
  assert.deepEqual([servers.survival?.level, servers.survival?.allowEmpty, servers.survival?.wait], [3, true, '1h'])
})
