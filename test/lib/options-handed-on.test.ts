import assert from 'node:assert/strict'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Command } from 'commander'
import { optionsOver } from '../../lib/cli/backup-job.ts'
import { policyOf, withKeep } from '../../lib/cli/keep-options.ts'
import { wholeNumber } from '../../lib/cli/options.ts'
import { parseConfig } from '../../lib/config/load.ts'
import { createOptionsOf } from '../../lib/config/open.ts'
import { serverSettings } from '../../lib/config/settings.ts'
import { place, runMany } from '../support/config-place.ts'

const MINUTE_MS = 60_000

test('every --keep option becomes its rule', () => {
  const policy = {
    keepLast: 1,
    keepHourly: 2,
    keepDaily: 3,
    keepWeekly: 4,
    keepMonthly: 5,
    keepYearly: 6,
    keepWithin: '7d',
    minimum: 8,
  }
  const flag = (name: string) =>
    `--${name === 'minimum' ? name : name.replace(/[A-Z]/, (at) => `-${at.toLowerCase()}`)}`
  const words = Object.entries(policy).flatMap(([name, value]) => [flag(name), String(value)])
  const command = withKeep(new Command(), wholeNumber).parse(words, { from: 'user' })
  assert.deepEqual(policyOf(command.opts()), policy)
  // Each alone: none takes another one's place.
  for (const [name, value] of Object.entries(policy)) {
    if (name === 'minimum') continue
    const alone = withKeep(new Command(), wholeNumber).parse([flag(name), String(value)], { from: 'user' })
    assert.deepEqual(policyOf(alone.opts()), { [name]: value })
  }
})

/** What each field below comes to. */
const OF_CONFIG = {
  level: 7,
  include: ['region/*'],
  exclude: ['*.bak'],
  defaultExcludes: false,
  allowEmpty: true,
  lease: { waitMs: MINUTE_MS },
  stallMs: 2 * MINUTE_MS,
  journal: { folder: '/srv/kept/journals', resume: true },
  hooks: { before: 'one', after: 'two', failure: 'three', timeoutMs: 3 * MINUTE_MS },
}

test('every field of a server that says how it is backed up is handed on', async () => {
  const text = `
destinations: { local: { provider: filesystem, root: store } }
stateFolder: kept
encryption: false
servers:
  survival:
    source: world
    level: 7
    include: [region/*]
    exclude: ['*.bak']
    defaultExcludes: false
    allowEmpty: true
    wait: 1m
    stallTimeout: 2m
    resume: true
    hooks: { before: one, after: two, failure: three, timeout: 3m }
    quiesce: { by: commands, before: four, reaches: snapshot, holdLimit: 4m }
`
  const loaded = parseConfig(text, '/srv/millrace.yaml')
  const { quiesce, quiesceLimitMs, ...rest } = await createOptionsOf(loaded, serverSettings(loaded, 'survival'))
  assert.deepEqual(rest, OF_CONFIG)
  assert.equal(quiesceLimitMs, 4 * MINUTE_MS)
  assert.ok(quiesce)
})

test('what the command line says goes over each field of the config, and what it does not say leaves it', () => {
  assert.deepEqual(optionsOver(OF_CONFIG, { lease: true, defaultExcludes: true }), {
    ...OF_CONFIG,
    lease: { waitMs: MINUTE_MS, steal: undefined },
  })
  const given = {
    level: 1,
    allowEmpty: false,
    include: ['a'],
    exclude: ['b'],
    lease: true,
    wait: '10s',
    steal: true,
    stallTimeout: '20s',
    hookBefore: 'c',
    hookAfter: 'd',
    hookFailure: 'e',
    hookTimeout: '30s',
  }
  const over = {
    level: 1,
    allowEmpty: false,
    include: ['a'],
    exclude: ['b'],
    lease: { waitMs: 10_000, steal: true },
    stallMs: 20_000,
    hooks: { before: 'c', after: 'd', failure: 'e', timeoutMs: 30_000 },
  }
  assert.deepEqual(optionsOver(OF_CONFIG, given), { ...over, defaultExcludes: false, journal: OF_CONFIG.journal })
  assert.deepEqual(optionsOver({}, given), { ...over, defaultExcludes: undefined, journal: undefined })
  assert.equal(optionsOver({}, { defaultExcludes: false }).defaultExcludes, false)
  assert.equal(optionsOver(OF_CONFIG, { lease: false }).lease, false)
})

test('an unencrypted or unverified snapshot is taken by --allow-plain and --allow-unverified alone', async (t) => {
  const folder = await place(t)
  const from = ['--from', 'spare', '--server', 'creative']
  const [made] = await runMany(folder, [
    { args: ['backup', 'creative', '--to', 'spare', '--no-encryption'], cwd: folder },
  ])
  assert.equal(made?.code, 0, made?.stderr)
  const run = async (cases: [number, string[]][]) => {
    const results = await runMany(
      folder,
      cases.map(([, args]) => ({ args: [...args, ...from], cwd: folder })),
    )
    for (const [at, { code, stderr }] of results.entries()) {
      assert.equal(code, cases[at]?.[0], `${cases[at]?.[1].join(' ')}: ${stderr}`)
    }
  }
  await run([
    [5, ['restore', 'latest', '--target', 'refused']],
    [5, ['cat', 'latest', 'level.dat']],
    [5, ['verify']],
    [5, ['inspect', 'latest']],
    [0, ['restore', 'latest', '--target', 'plain', '--allow-plain']],
    [0, ['cat', 'latest', 'level.dat', '--allow-plain']],
    [0, ['verify', '--allow-plain']],
    [0, ['inspect', 'latest', '--allow-plain']],
  ])
  const at = join(folder, 'stores/spare/creative')
  for (const name of await readdir(at)) if (name.endsWith('.sha256')) await rm(join(at, name))
  const [id] = (await readdir(at)).filter((name) => name.endsWith('.tar.zst')).map((name) => name.split('.tar')[0])
  await run([
    [1, ['restore', id as string, '--target', 'refused', '--allow-plain']],
    [1, ['cat', id as string, 'level.dat', '--allow-plain']],
    [3, ['restore', id as string, '--target', 'unverified', '--allow-plain', '--allow-unverified']],
    [0, ['cat', id as string, 'level.dat', '--allow-plain', '--allow-unverified']],
    [3, ['verify', id as string, '--allow-plain']],
  ])
  assert.ok(!(await readdir(folder)).includes('refused'))
})
