import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../../../lib/config/index.ts'
import { healthOf } from '../../../lib/schedule/health.ts'
import { jobsOf } from '../../../lib/schedule/jobs.ts'
import { eventText } from '../../../lib/schedule/log.ts'
import { Scheduler, type SchedulerEvent } from '../../../lib/schedule/scheduler.ts'
import type { ServerState } from '../../../lib/schedule/state.ts'
import { FakeClock, FakeRunner } from '../../support/fake-runs.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const START = Date.parse('2026-05-05T03:30:00Z')

interface Setup {
  servers?: Record<string, object>
  /** When each of them last ran; false for servers of which nothing is known. */
  lastRun?: number | false
  parallel?: number
  runNow?: boolean
  random?: () => number
}

function setUp({
  servers = { survival: {} },
  lastRun = START - 30 * MINUTE,
  parallel = 1,
  runNow = false,
  random = () => 0,
}: Setup = {}) {
  const config = (all: Record<string, object>) =>
    parseConfig(
      JSON.stringify({
        destinations: { local: { provider: 'filesystem', root: 'store' } },
        servers: Object.fromEntries(
          Object.entries(all).map(([name, one]) => [name, { source: name, schedule: '@hourly', ...one }]),
        ),
      }),
      '/etc/millrace/millrace.yaml',
    )
  const states = new Map<string, ServerState>()
  for (const name of Object.keys(servers)) {
    if (lastRun === false) continue
    states.set(name, { jobs: { backup: { servedAt: lastRun, startedAt: lastRun } }, metrics: [] })
  }
  const clock = new FakeClock(START)
  const runner = new FakeRunner()
  const events: SchedulerEvent[] = []
  const scheduler = new Scheduler({
    ...{ states, clock, parallel, runNow },
    jobs: jobsOf(config(servers)),
    runner: runner.start,
    random,
    onEvent: (event) => events.push(event),
    onChange: () => {},
  })
  const started = () => runner.runs.map(({ args }) => args.slice(0, 2).join(' '))
  const seen = () =>
    events.map((one) =>
      [one.event, 'server' in one ? one.server : '', 'reason' in one ? one.reason : ''].join(' ').trim(),
    )
  return {
    scheduler,
    states,
    clock,
    runner,
    events,
    started,
    seen,
    jobs: (all: Record<string, object>) => jobsOf(config(all)),
  }
}

test('a backup begins at its time as the command that does it, and its end plans the next', async () => {
  const { scheduler, clock, runner, events, started } = setUp()
  scheduler.start()
  await clock.pass(29 * MINUTE)
  assert.deepEqual(started(), [])
  await clock.pass(MINUTE)
  assert.deepEqual(runner.runs[0]?.args, ['backup', 'survival', '--config', '/etc/millrace/millrace.yaml', '--json'])
  await clock.pass(3 * MINUTE)
  runner.runs[0]?.end({
    snapshot: {
      ...{ id: '2026-05-05T04-00-00.000Z-aaaa', createdAt: START + 30 * MINUTE, bytes: 2048, storedBytes: 1024 },
      ...{ elapsedMs: 1000, destinations: [{ destination: 'file:///store', ok: true }] },
    },
  })
  await clock.pass(0)
  const end = events.at(-1) as SchedulerEvent
  assert.equal(
    eventText(end),
    '2026-05-05T04:03:00Z survival backup: good (exit code 0) in 3m 0s; 2026-05-05T04-00-00.000Z-aaaa, 2.00 KiB -> 1.00 KiB (ratio 2.00); next 2026-05-05T05:00:00Z',
  )
  await clock.pass(HOUR)
  assert.equal(runner.runs.length, 2)
})

test('servers whose times come together run one after the other, in the order of their times', async () => {
  const servers = { a: {}, b: { schedule: '58 3 * * *' }, c: {}, d: { schedule: '59 3 * * *' } }
  const { scheduler, clock, runner, started } = setUp({ servers })
  scheduler.start()
  await clock.pass(31 * MINUTE)
  assert.deepEqual(started(), ['backup b'])
  for (const server of ['d', 'a', 'c']) {
    runner.active[0]?.end()
    await clock.pass(0)
    assert.equal(started().at(-1), `backup ${server}`)
    assert.equal(runner.active.length, 1)
  }
})

test('times that are seen together, as on a busy machine, keep their order', async () => {
  const { scheduler, clock, started } = setUp({
    servers: { a: { schedule: '32 3 * * *' }, b: { schedule: '31 3 * * *' } },
  })
  scheduler.start()
  clock.step(2 * MINUTE)
  await clock.pass(MINUTE)
  assert.deepEqual(started(), ['backup b'])
})

test('a clock set back by an hour leaves no hour of real time without its backup', async () => {
  const { scheduler, clock, runner, started } = setUp()
  scheduler.start()
  await clock.pass(30 * MINUTE)
  runner.active[0]?.end()
  await clock.pass(50 * MINUTE)
  clock.step(-HOUR)
  await clock.pass(10 * MINUTE)
  assert.deepEqual(started(), ['backup survival', 'backup survival'])
})

test('a new jitter is drawn when the config has another one, and not when it is as it was', async () => {
  let next = 0.5
  const schedule = (jitter: string) => ({ survival: { schedule: { cron: '0 4 * * *', jitter } } })
  const { scheduler, clock, jobs } = setUp({ servers: schedule('1h'), random: () => next })
  scheduler.start()
  next = 0.9
  const planned = () => ((scheduler.view()[0]?.next?.at ?? 0) - clock.now()) / MINUTE
  scheduler.reload(jobs(schedule('1h')))
  assert.equal(planned(), 60)
  scheduler.reload(jobs(schedule('10m')))
  assert.equal(planned(), 39)
  await scheduler.stop()
})

test('with --parallel so many servers run at once, and never two runs of one', async () => {
  const verify = { schedule: '@hourly', how: '5%' }
  const { scheduler, clock, runner, started } = setUp({ servers: { a: { verify }, b: {}, c: {} }, parallel: 2 })
  scheduler.start()
  await clock.pass(31 * MINUTE)
  assert.deepEqual(started(), ['backup a', 'backup b'])
  runner.runs[1]?.end()
  await clock.pass(0)
  // The verify of a has waited longer, and a is at work.
  assert.deepEqual(started(), ['backup a', 'backup b', 'backup c'])
  runner.runs[0]?.end()
  await clock.pass(0)
  assert.deepEqual(runner.runs[3]?.args.slice(0, 6), ['verify', 'latest', '--server', 'a', '--sample', '5%'])
})

test('a server that waits in turn over its next time runs once', async () => {
  const { scheduler, clock, runner, started } = setUp({ servers: { a: {}, b: {} } })
  scheduler.start()
  await clock.pass(31 * MINUTE)
  await clock.pass(70 * MINUTE)
  assert.deepEqual(started(), ['backup a'])
  runner.active[0]?.end()
  await clock.pass(0)
  runner.active[0]?.end()
  await clock.pass(10 * MINUTE)
  assert.deepEqual(started(), ['backup a', 'backup b'])
})

test('a time that comes while a run is at work is said to be left out then, once: a run that hangs says nothing', async () => {
  const { scheduler, clock, runner, events } = setUp()
  const leftOut = () => events.flatMap((one) => (one.event === 'run-skipped' ? [(one.due - START) / MINUTE] : []))
  scheduler.start()
  await clock.pass(89 * MINUTE)
  assert.deepEqual(leftOut(), [])
  await clock.pass(2 * MINUTE)
  assert.deepEqual(leftOut(), [90])
  await clock.pass(HOUR)
  assert.deepEqual(leftOut(), [90, 150])
  // Set back: the same time comes once more, and no hour of real time goes unsaid.
  clock.step(-HOUR)
  await clock.pass(HOUR)
  assert.deepEqual(leftOut(), [90, 150, 150])
  runner.active[0]?.end()
  await clock.pass(MINUTE)
  assert.deepEqual(leftOut(), [90, 150, 150])
  assert.equal(runner.runs.length, 1)
})

test('a failed run is tried again, and what cannot heal is not', async () => {
  const { scheduler, clock, runner, seen } = setUp()
  scheduler.start()
  await clock.pass(30 * MINUTE)
  runner.active[0]?.end({ exitCode: 1, error: 'The store does not answer.' })
  await clock.pass(5 * MINUTE)
  assert.deepEqual(seen(), ['run-start survival schedule', 'run-end survival', 'run-start survival retry'])
  runner.active[0]?.end({ exitCode: 2, error: 'There is no such destination.' })
  await clock.pass(50 * MINUTE)
  assert.equal(runner.runs.length, 2)
  await clock.pass(5 * MINUTE)
  assert.equal(seen().at(-1), 'run-start survival schedule')
})

test('a backup whose object lacks its companion is no snapshot: it counts as failed, and is tried again', async () => {
  const { scheduler, clock, runner, seen } = setUp()
  scheduler.start()
  await clock.pass(30 * MINUTE)
  runner.active[0]?.end({ exitCode: 3, error: 'The object is stored, and its companion could not be written.' })
  await clock.pass(0)
  const views = scheduler.view()
  const { servers } = healthOf(views, new Map(), { pid: 1, startedAt: START }, clock.now())
  assert.deepEqual(servers.survival?.problems, ['The last backup failed (exit code 3).'])
  await clock.pass(5 * MINUTE)
  assert.deepEqual(seen(), ['run-start survival schedule', 'run-end survival', 'run-start survival retry'])
})

test('a server that nothing is known of is looked up in its stores, and a missed run made up for', async () => {
  const { scheduler, clock, runner, started, states } = setUp({ lastRun: false })
  scheduler.start()
  await clock.pass(0)
  assert.deepEqual(runner.runs[0]?.args, [
    'status',
    '--server',
    'survival',
    '--config',
    '/etc/millrace/millrace.yaml',
    '--json',
  ])
  await clock.pass(4 * MINUTE)
  assert.deepEqual(started(), ['status --server'])
  runner.active[0]?.end({
    statuses: [
      { destination: 'file:///b', newestAt: undefined },
      { destination: 'file:///a', newestAt: START - 90 * MINUTE },
    ],
  })
  await clock.pass(0)
  assert.deepEqual(started(), ['status --server', 'backup survival'])
  assert.equal(states.get('survival')?.jobs.backup?.succeededAt, START - 90 * MINUTE)
})

test('a store that does not answer at the start holds its server back for five minutes, and others not at all', async () => {
  const { scheduler, clock, runner, states, started } = setUp({
    servers: { a: { schedule: '@daily' }, b: { schedule: '31 3 * * *' } },
  })
  states.delete('a')
  scheduler.start()
  await clock.pass(2 * MINUTE)
  assert.deepEqual(started(), ['status --server', 'backup b'])
  await clock.pass(3 * MINUTE)
  assert.deepEqual(runner.runs[0]?.signals, ['SIGKILL'])
  runner.runs[0]?.end({ exitCode: null })
  await clock.pass(0)
  assert.equal(scheduler.view()[0]?.next?.at, Date.parse('2026-05-06T00:00:00Z'))
})

test('a server waits no longer for stores that do not answer where others are asked before it', async () => {
  const servers = { a: { schedule: '@daily' }, b: { schedule: '@daily' }, c: { schedule: '37 3 * * *' } }
  const { scheduler, clock, runner, states, started } = setUp({ servers, lastRun: false })
  scheduler.start()
  await clock.pass(5 * MINUTE)
  runner.runs[0]?.end({ exitCode: null })
  await clock.pass(2 * MINUTE)
  assert.deepEqual(started(), ['status --server', 'status --server', 'backup c'])
  // What comes late counts where nothing has run meanwhile: yesterday's of b was missed.
  const statuses = [{ destination: 'file:///b', newestAt: START - 2 * 24 * HOUR }]
  runner.runs[1]?.end({ statuses })
  runner.runs[2]?.end()
  await clock.pass(MINUTE)
  assert.deepEqual(started().slice(3), ['backup b', 'status --server'])
  runner.runs[4]?.end({ statuses })
  await clock.pass(MINUTE)
  assert.equal(states.get('c')?.jobs.backup?.servedAt, START + 7 * MINUTE)
})

test('a sleep of the machine and a clock that is set are said, and answered within a minute', async () => {
  const { scheduler, clock, runner, seen } = setUp()
  scheduler.start()
  clock.step(5 * HOUR)
  await clock.pass(MINUTE)
  assert.deepEqual(seen(), ['clock-step', 'run-planned survival catch-up', 'run-start survival catch-up'])
  runner.active[0]?.end()
  clock.step(-5 * HOUR - 20 * MINUTE)
  await clock.pass(48 * MINUTE)
  assert.equal(runner.runs.length, 1)
  await clock.pass(MINUTE)
  assert.equal(runner.runs.length, 2)
})

test('stopping begins nothing more, asks what runs to stop, waits for it, and leaves its time to the next start', async () => {
  const { scheduler, clock, runner, states, started } = setUp({ servers: { a: {}, b: {} } })
  scheduler.start()
  await clock.pass(30 * MINUTE)
  let isStopped = false
  const stopped = scheduler.stop().then(() => {
    isStopped = true
  })
  await clock.pass(10 * MINUTE)
  assert.deepEqual(runner.active[0]?.signals, ['SIGTERM'])
  assert.equal(isStopped, false)
  runner.active[0]?.end({ exitCode: 1 })
  await stopped
  await clock.pass(2 * HOUR)
  assert.deepEqual(started(), ['backup a'])
  const state = states.get('a')?.jobs.backup
  assert.equal(state?.outcome, 'interrupted')
  assert.equal(state?.servedAt, START - 30 * MINUTE)
})

test('another config takes its schedules up, keeps what is planned by the same ones, and lets runs end', async () => {
  const { scheduler, clock, runner, started, jobs } = setUp({ servers: { a: {}, b: {} } })
  scheduler.start()
  await clock.pass(30 * MINUTE)
  scheduler.reload(jobs({ b: { schedule: '5 4 * * *' }, c: { schedule: '10 4 * * *' } }))
  await clock.pass(0)
  // The new server is looked up, the one that waited goes by its new time, and the one that runs is left to end.
  assert.deepEqual(started(), ['backup a', 'status --server'])
  assert.deepEqual(runner.runs[0]?.signals, [])
  runner.runs[1]?.end()
  runner.runs[0]?.end()
  await clock.pass(10 * MINUTE)
  runner.active[0]?.end()
  await clock.pass(0)
  assert.deepEqual(started().slice(2), ['backup b', 'backup c'])
  assert.deepEqual(
    scheduler.view().map(({ job }) => job.server),
    ['b', 'c'],
  )
})

test('--run-now backs each server up at the start, and again at its time', async () => {
  const { scheduler, clock, runner, seen } = setUp({ runNow: true })
  scheduler.start()
  runner.active[0]?.end()
  await clock.pass(30 * MINUTE)
  assert.deepEqual(
    seen().filter((one) => one.startsWith('run-start')),
    ['run-start survival run-now', 'run-start survival schedule'],
  )
})

test('health: a failed run, a missed destination and an old snapshot are not well; an incomplete world is', async () => {
  const { scheduler, clock, runner } = setUp()
  scheduler.start()
  const health = () =>
    healthOf(scheduler.view(), new Map([['survival', '2h']]), { pid: 1, startedAt: START }, clock.now())
  const problems = () => health().servers.survival?.problems
  assert.deepEqual(problems(), ['There is no snapshot that is known of.'])
  const snapshot = (isReached: boolean) => ({
    ...{ id: 'x', createdAt: clock.now(), bytes: 1, storedBytes: 1, elapsedMs: 1 },
    destinations: [{ destination: 'file:///far', ok: isReached }],
  })
  await clock.pass(30 * MINUTE)
  runner.active[0]?.end({ exitCode: 3, snapshot: snapshot(true) })
  await clock.pass(HOUR)
  assert.equal(health().ok, true)
  runner.active[0]?.end({ exitCode: 3, snapshot: snapshot(false) })
  await clock.pass(HOUR)
  assert.deepEqual(problems(), ['The last backup has not reached file:///far (exit code 3).'])
  runner.active[0]?.end({ exitCode: 1 })
  await clock.pass(MINUTE)
  assert.deepEqual(problems(), ['The last backup failed (exit code 1).'])
  await clock.pass(2 * HOUR)
  assert.equal(health().ok, false)
  assert.match(problems()?.at(-1) ?? '', /older than 2h/)
  clock.step(-30 * 24 * HOUR)
  assert.match(problems()?.at(-1) ?? '', /is dated in the future \(2026-05-05T0\d:00:00.000Z\): a clock is wrong/)
})
