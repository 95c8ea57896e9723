import assert from 'node:assert/strict'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { acquireLease, openBackups, openStorage } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { DAY_MS, HOUR_MS, putSnapshot } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'
import { sample } from '../support/streams.ts'

interface Place {
  folder: string
  world: string
  store: string
  from: string[]
  env: NodeJS.ProcessEnv
}

async function place(t: TestContext): Promise<Place> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const from = ['--from', `file://${folder}/store`, '--server', 'world']
  return { folder, world, store: join(folder, 'store'), from, env: { XDG_STATE_HOME: join(folder, 'state') } }
}

async function run(code: number, args: readonly string[], env: NodeJS.ProcessEnv) {
  const result = await millrace(args, { env })
  assert.equal(result.code, code, `${result.stdout}${result.stderr}`)
  assert.doesNotMatch(result.stderr, /^\s+at /m)
  return result
}

/** Snapshots of the last days, as names: prune opens nothing. */
async function fill({ store }: Place, days: readonly number[]): Promise<string[]> {
  const storage = await openStorage(`file://${store}`)
  const made = []
  for (const ago of days)
    made.push(await putSnapshot(storage, Date.now() - ago * DAY_MS - HOUR_MS, { server: 'world' }))
  await storage.close()
  return made.map(({ id }) => id)
}

const objects = async ({ store }: Place) =>
  (await readdir(join(store, 'world'))).filter((name) => name.endsWith('.mlr')).map((name) => name.slice(0, 29))

test('prune shows what it would do and why, and then does it, for people and as JSON', async (t) => {
  const at = await place(t)
  const ids = await fill(at, [0, 1, 2, 3, 40])
  await writeFile(join(at.store, 'world', 'notes.txt'), 'mine')
  const prune = ['prune', ...at.from, '--keep-last', '1', '--keep-within', '2d12h']
  const dry = (await run(0, [...prune, '--dry-run'], { ...at.env, MILLRACE_PASSWORD: undefined })).stdout.toString()
  assert.match(dry, new RegExp(`${ids[0]} .* keep +newest complete snapshot; last 1 of 1; within 2d12h`))
  assert.match(dry, new RegExp(`${ids[4]} .* would remove +not among the last 1; older than 2d12h`))
  assert.match(dry, /would remove 2 snapshots .*kept 3/)
  assert.equal((await objects(at)).length, 5)
  const events = (await run(0, [...prune, '--json'], at.env)).events().filter(({ event }) => event !== 'progress')
  assert.deepEqual(
    events.map(({ event, outcome }) => outcome ?? event),
    ['removed', 'removed', 'kept', 'kept', 'kept', 'prune'],
  )
  assert.ok(events.slice(0, 5).every(({ reasons }) => Array.isArray(reasons) && reasons.length > 0))
  assert.deepEqual(events.at(-1)?.foreign, ['world/notes.txt'])
  assert.deepEqual((await objects(at)).sort(), ids.slice(0, 3).sort())
  const misspelt = await run(0, ['prune', ...at.from.slice(0, -1), 'wrld'], at.env)
  assert.match(misspelt.stderr, /^Note: There is no snapshot of wrld at file:\/\/.*\/store\/?\.$/m)
})

test('prune without rules keeps the defaults, and refuses rules that are none', async (t) => {
  const at = await place(t)
  await fill(
    at,
    Array.from({ length: 30 }, (_, day) => day),
  )
  for (const rules of [
    ['--keep-last', '0'],
    ['--keep-daily', '1.5'],
    ['--keep-within', 'for ever'],
    ['--keep-last', '1', '--minimum', '0'],
  ]) {
    const { stderr } = await run(2, ['prune', ...at.from, ...rules], at.env)
    assert.match(stderr, /keep|minimum|length of time/)
  }
  assert.equal((await objects(at)).length, 30)
  const events = (await run(0, ['prune', ...at.from, '--dry-run', '--json'], at.env)).events()
  // One a day: the newest 24 by the hours, and the weeks before those.
  const { kept, planned } = (events.at(-1) as { counts: { kept: number; planned: number } }).counts
  assert.equal(kept + planned, 30)
  assert.ok(kept >= 24 && planned > 0, `${kept} are kept`)
})

test('a backup prunes after it, by the rules that it is given, and looks at them first', async (t) => {
  const at = await place(t)
  await fill(at, [1, 2, 3])
  const backup = ['backup', at.world, '--to', `file://${at.store}`]
  await run(2, [...backup, '--keep-last', '2'], at.env)
  await run(2, [...backup, '--prune', '--keep-last', 'two'], at.env)
  assert.equal((await objects(at)).length, 3)
  const events = (await run(0, [...backup, '--prune', '--keep-last', '2', '--json'], at.env)).events()
  assert.deepEqual(
    events.filter(({ event }) => event !== 'progress').map(({ event, outcome }) => outcome ?? event),
    ['snapshot', 'removed', 'removed', 'prune'],
  )
  assert.equal((await objects(at)).length, 2)
  // A backup that fails prunes nothing.
  await run(
    1,
    ['backup', join(at.folder, 'gone'), '--to', `file://${at.store}`, '--server', 'world', '--prune'],
    at.env,
  )
  await run(0, ['verify', ...at.from], at.env)
  assert.equal((await objects(at)).length, 2)
})

test('a backup to several stores prunes each that took it, and says where', async (t) => {
  const at = await place(t)
  const second = { ...at, store: join(at.folder, 'second') }
  await fill(at, [1, 2, 3])
  await fill(second, [1, 2, 3, 4])
  const to = [at, second].flatMap(({ store }) => ['--to', `file://${store}`])
  // A folder cannot be made where a file is.
  const lost = join(at.folder, 'lost')
  await mkdir(lost)
  await writeFile(join(lost, 'world'), 'in the way')
  const backup = ['backup', at.world, ...to, '--to', `file://${lost}`, '--prune', '--keep-last', '2', '--json']
  const events = (await run(3, backup, at.env)).events()
  assert.deepEqual(
    events.filter(({ event }) => event === 'prune').map(({ destination }) => destination),
    [`file://${at.store}`, `file://${second.store}`],
  )
  for (const one of [at, second]) assert.equal((await objects(one)).length, 2)
})

test('a prune is under the lease where that is free, and sweeps nothing where another run has it', async (t) => {
  const at = await place(t)
  await fill(at, [1, 2, 3])
  const storage = await openStorage(`file://${at.store}`)
  const running = await acquireLease(storage, 'world', { owner: 'another run' })
  const rules = ['prune', ...at.from, '--json', '--keep-last']
  const notes = async (...args: string[]) => (await run(0, [...rules, ...args], at.env)).events().at(-1)?.notes
  assert.match(String(await notes('2')), /not to be had: Another run is at work on world: another run/)
  assert.equal((await objects(at)).length, 2)
  assert.deepEqual(await notes('1', '--no-lease'), [])
  await running.release()
  await fill(at, [4])
  assert.deepEqual(await notes('1'), [])
  assert.deepEqual(await readdir(join(at.store, 'world', '.lease')).catch(() => []), [])
  const claims: string[] = []
  const watched = overriding(storage, {
    createWriteStream(key, options) {
      claims.push(key)
      return storage.createWriteStream(key, options)
    },
  })
  const backups = await openBackups({ storage: watched, server: 'world', encryption: false })
  const stateDir = join(at.folder, 'state')
  await backups.prune({ keepLast: 1 }, { lease: false, stateDir })
  assert.equal(claims.length, 0)
  await backups.prune({ keepLast: 1 }, { stateDir })
  assert.ok(claims.some((key) => key.endsWith('.claim')))
  await storage.close()
})

test('a backup that left something out prunes nothing', async (t) => {
  const at = await place(t)
  await fill(at, [1, 2, 3])
  await writeFile(Buffer.concat([Buffer.from(`${at.world}/`), Buffer.from([0xff, 0xfe])]), 'not UTF-8')
  const result = await run(3, ['backup', at.world, '--to', `file://${at.store}`, '--prune', '--keep-last', '1'], at.env)
  assert.match(result.stderr, /Nothing was pruned/)
  assert.equal((await objects(at)).length, 4)
})

test('what a wrong clock has dated hides no age, and what is of now is not "now old"', async (t) => {
  const at = await place(t)
  // In days: one of five minutes ahead, as `fill` takes an hour off.
  const ahead = -(HOUR_MS + 300_000) / DAY_MS
  await fill(at, [3, -400])
  const list = (await run(0, ['list', ...at.from], at.env)).stdout.toString()
  assert.match(list, /^2 snapshots, .*, the newest complete one 3 days ago$/m)
  await fill(at, [ahead])
  const status = (await run(0, ['status', ...at.from], at.env)).stdout.toString()
  assert.match(status, /^newest +\S+, now$/m)
  await rm(at.store, { recursive: true })
  await fill(at, [-400])
  const only = (await run(0, ['list', ...at.from], at.env)).stdout.toString()
  assert.match(only, /^1 snapshot, .*, the newest complete one in the future$/m)
})

test('a snapshot is pinned and unpinned, and list shows it', async (t) => {
  const at = await place(t)
  const [, second] = (await fill(at, [1, 2, 3])) as [string, string, string]
  const to = ['--to', `file://${at.store}`, '--server', 'world']
  await run(0, ['pin', second, ...to, '--note', 'the good one'], at.env)
  assert.match(
    (await run(0, ['list', ...at.from], at.env)).stdout.toString(),
    new RegExp(`${second} .*complete, pinned`),
  )
  assert.match((await run(0, ['pin', ...at.from], at.env)).stdout.toString(), new RegExp(`${second} .*the good one`))
  await run(0, ['prune', ...at.from, '--keep-last', '1'], at.env)
  assert.equal((await objects(at)).length, 2)
  await run(0, ['unpin', second, ...at.from], at.env)
  assert.match((await run(0, ['pin', ...at.from], at.env)).stdout.toString(), /No snapshot of world is pinned/)
  await run(2, ['pin', second, '--server', 'world'], at.env)
})

test('an unfinished snapshot is reported by prune, adopted, and complete then', async (t) => {
  const at = await place(t)
  const made = (await run(0, ['backup', at.world, '--to', `file://${at.store}`, '--json'], at.env)).events().at(-1)
  const id = made?.id as string
  await rm(join(at.store, 'world', `${id}.tar.zst.mlr.sha256`))
  assert.match((await run(0, ['prune', ...at.from], at.env)).stdout.toString(), /unfinished, not touched: 1 .*adopt/)
  await run(4, ['adopt', id, ...at.from], { ...at.env, MILLRACE_PASSWORD: 'guess' })
  await run(1, ['verify', 'latest', ...at.from], at.env)
  assert.match((await run(0, ['adopt', id, ...at.from], at.env)).stdout.toString(), /complete now/)
  await run(0, ['verify', 'latest', ...at.from], at.env)
  await run(2, ['adopt', id, ...at.from], at.env)
})

test('a command that takes one store refuses two', async (t) => {
  const { folder, from, env } = await place(t)
  const second = `file://${folder}/second`
  for (const [command, flag] of [
    [['prune', ...from], '--from'],
    [['inspect', 'latest', ...from], '--from'],
    [['pin', 'latest', '--to', second, '--server', 'world'], '--to'],
    [['doctor', '--no-config', '--to', second], '--to'],
  ] as const) {
    const { stderr } = await run(2, [...command, flag, second], env)
    assert.match(stderr, new RegExp(`^millrace: ${flag} is given twice, and this command takes one store`))
  }
})
