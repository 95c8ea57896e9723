import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { readStatus, writeMetrics } from '../../lib/index.ts'
import { metricsAfter } from '../../lib/schedule/outcome.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { millrace, PASSWORD, scratch } from '../support/cli.ts'
import { sample } from '../support/streams.ts'

const HOUR_MS = 3_600_000

interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

/** The text format as Prometheus documents it, and nothing beside it. */
function parseExposition(text: string): Sample[] {
  assert.ok(text.endsWith('\n'), 'the last line ends in a line feed')
  const samples: Sample[] = []
  const done = new Set<string>()
  let current: { name: string; typed: boolean } | undefined
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\]|\\\\|\\n)*)$/.exec(line)
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line)
    if (help) {
      assert.ok(!done.has(help[1] as string), `${help[1]} comes twice`)
      done.add(help[1] as string)
      current = { name: help[1] as string, typed: false }
      continue
    }
    if (type) {
      assert.equal(type[1], current?.name)
      assert.equal(current?.typed, false)
      if (current) current.typed = true
      continue
    }
    const found = /^([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(line)
    assert.ok(found, `not a sample: ${line}`)
    assert.equal(found[1], current?.name)
    assert.equal(current?.typed, true)
    const labels: Record<string, string> = {}
    let rest = found[2] as string
    while (rest !== '') {
      const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)/.exec(rest)
      assert.ok(label, `not a label: ${rest}`)
      assert.ok(!(label[1]! in labels))
      labels[label[1]!] = label[2]!.replace(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char))
      rest = rest.slice(label[0].length)
    }
    const same = samples.some((one) => one.name === found[1] && JSON.stringify(one.labels) === JSON.stringify(labels))
    assert.ok(!same, `the series comes twice: ${line}`)
    samples.push({ name: found[1]!, labels, value: Number(found[3]) })
  }
  return samples
}

async function metricsOf(file: string, destination?: string): Promise<Record<string, number>> {
  const samples = parseExposition(await readFile(file, 'utf8'))
  return Object.fromEntries(
    samples
      .filter(({ labels }) => destination === undefined || labels.destination === destination)
      .map(({ name, value }) => [name, value]),
  )
}

test('metrics keep what a run says nothing of, and odd labels are escaped', async (t) => {
  const folder = await scratch(t)
  const file = join(folder, 'millrace.prom')
  const odd = 'file:///a "quoted"\\path\nof two lines'
  await writeMetrics(file, [{ server: 'survival', destination: odd, lastSuccess: 1000, bytes: 5e21, snapshots: 3 }])
  await writeMetrics(file, [
    { server: 'survival', destination: odd, lastFailure: 2000, snapshots: 4 },
    { server: 'creative', destination: 's3://b/', lastSuccess: 1.5, seconds: Number.NaN },
  ])
  assert.deepEqual(await metricsOf(file, odd), {
    millrace_last_success_timestamp_seconds: 1000,
    millrace_last_failure_timestamp_seconds: 2000,
    millrace_last_snapshot_bytes: 5e21,
    millrace_snapshots: 4,
  })
  assert.deepEqual(await metricsOf(file, 's3://b/'), { millrace_last_success_timestamp_seconds: 1.5 })
  assert.equal((await stat(file)).mode & 0o777, 0o644)
  await writeFile(file, 'something else\nmillrace_snapshots{server="x"} 1\n')
  await writeMetrics(file, [{ server: 's', destination: 'd', snapshots: 1 }])
  assert.equal(parseExposition(await readFile(file, 'utf8')).length, 1)
  assert.deepEqual(await readdir(folder), ['millrace.prom'])
  await assert.rejects(writeMetrics(join(folder, 'none/at/all.prom'), []), { code: 'TARGET' })
})

test('runs that end at once are all in the file', async (t) => {
  const folder = await scratch(t)
  const file = join(folder, 'm.prom')
  const servers = Array.from({ length: 20 }, (_, index) => `server-${index}`)
  await Promise.all(servers.map((server) => writeMetrics(file, [{ server, destination: 'file:///b', lastSuccess: 1 }])))
  const found = parseExposition(await readFile(file, 'utf8')).map(({ labels }) => labels.server)
  assert.deepEqual(found.sort(), servers.sort())
  assert.deepEqual(await readdir(folder), ['m.prom'])
})

test('a time that was written while a clock was ahead is now at the next run, so that its age counts from there', async (t) => {
  const file = join(await scratch(t), 'millrace.prom')
  const of = { server: 'survival', destination: 's3://b/' }
  const ahead = Math.floor(Date.now() / 1000) + 400 * 86_400
  const past = { lastVerified: 1.5, bytes: ahead }
  await writeMetrics(file, [{ ...of, ...past, lastSuccess: ahead }])
  await writeMetrics(file, [{ ...of, lastFailure: 2000 }])
  const { millrace_last_success_timestamp_seconds: lastSuccess, ...others } = await metricsOf(file)
  assert.ok(Math.abs((lastSuccess ?? 0) - Date.now() / 1000) < 600)
  assert.deepEqual(others, {
    millrace_last_verified_timestamp_seconds: 1.5,
    millrace_last_failure_timestamp_seconds: 2000,
    millrace_last_snapshot_bytes: ahead,
  })
  const now = Date.UTC(2026, 10, 24, 12)
  const failed = { exitCode: 1, statuses: [], warnings: 0 }
  const how = { outcome: 'failed', now, isWhole: true } as const
  const known = [{ ...of, ...past, lastSuccess: ahead + 1e9 }]
  assert.deepEqual(metricsAfter('survival', 'backup', known, failed, how), [
    { ...of, ...past, lastSuccess: now / 1000, lastFailure: now / 1000 },
  ])
})

test('T20: the age of a server’s newest snapshot, whatever the clock was', async () => {
  const storage = await openMemory()
  const now = Date.UTC(2026, 10, 24, 12)
  const put = async (id: string, complete: boolean) => {
    for (const suffix of complete ? ['', '.sha256'] : ['']) {
      const stream = storage.createWriteStream(`survival/${id}.tar.zst.mlr${suffix}`)
      await new Promise((resolve) => stream.on('finish', resolve).end('x'))
    }
  }
  const read = (hours: number) => readStatus(storage, 'survival', { maxAgeMs: hours * HOUR_MS, now })
  assert.deepEqual([(await read(1)).tooOld, (await read(1)).newest], [true, null])
  await put('2026-11-23T11-00-00.000Z-aaaa', true)
  await put('2026-11-24T11-00-00.000Z-bbbb', false)
  const status = await read(26)
  assert.equal(status.newest?.id, '2026-11-23T11-00-00.000Z-aaaa')
  assert.equal(status.ageMs, 25 * HOUR_MS)
  assert.deepEqual([status.tooOld, status.snapshots, status.unfinished], [false, 1, 1])
  assert.equal((await read(24)).tooOld, true)
  // A snapshot of next year must not hide that none has come since.
  await put('2027-11-24T11-00-00.000Z-cccc', true)
  assert.deepEqual([(await read(24)).tooOld, (await read(24)).future], [true, 1])
  assert.equal((await readStatus(storage, 'survival2', { now })).tooOld, true)
})

test('backup, verify and status write metrics, and status tells with exit code 6 when backups stop', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const url = `file://${folder}/store`
  const file = join(folder, 'millrace.prom')
  const run = async (code: number, ...args: string[]) => {
    const result = await millrace([...args, '--metrics-file', file])
    assert.equal(result.code, code, result.stderr)
    return result
  }
  await run(6, 'status', '--from', url, '--server', 'world', '--max-age', '26h')
  await run(0, 'backup', world, '--to', url)
  const begun = await metricsOf(file, url)
  assert.equal(begun.millrace_snapshots, 1)
  assert.equal(begun.millrace_unfinished_snapshots, 0)
  assert.ok(Math.abs((begun.millrace_last_success_timestamp_seconds ?? 0) - Date.now() / 1000) < 600)
  assert.equal(begun.millrace_last_failure_timestamp_seconds, undefined)
  assert.ok((begun.millrace_last_snapshot_bytes ?? 0) > 5000)
  await run(0, 'verify', '--from', url, '--server', 'world')
  await run(1, 'backup', join(folder, 'nowhere'), '--to', url, '--server', 'world')
  const after = await metricsOf(file, url)
  assert.ok((after.millrace_last_verified_timestamp_seconds ?? 0) > 0)
  assert.ok((after.millrace_last_failure_timestamp_seconds ?? 0) > 0)
  assert.equal(after.millrace_last_success_timestamp_seconds, begun.millrace_last_success_timestamp_seconds)
  assert.equal(after.millrace_last_snapshot_bytes, begun.millrace_last_snapshot_bytes)
  const good = await run(0, 'status', '--from', url, '--server', 'world', '--max-age', '26h', '--json')
  const [event] = good.events()
  assert.equal(event?.event, 'status')
  assert.equal(event?.tooOld, false)
  await new Promise((resolve) => setTimeout(resolve, 1100))
  await run(6, 'status', '--from', url, '--server', 'world', '--max-age', '1s')
  await run(2, 'status', '--from', url, '--server', 'world', '--max-age', 'soon')
  assert.ok(!(await readFile(file, 'utf8')).includes(PASSWORD))
})

test('a file that holds something other than metrics is left as it is', async (t) => {
  const file = join(await scratch(t), 'password')
  const update = { server: 'survival', destination: 'file:///x', snapshots: 1 }
  await writeFile(file, 'correct horse battery\n')
  await assert.rejects(writeMetrics(file, [update]), { code: 'TARGET', message: /other than metrics/ })
  assert.equal(await readFile(file, 'utf8'), 'correct horse battery\n')
  for (const mine of ['', '\n', '# HELP millrace_snapshots Complete snap']) {
    await writeFile(file, mine)
    await writeMetrics(file, [update])
    assert.match(await readFile(file, 'utf8'), /^millrace_snapshots\{.*\} 1$/m)
  }
})

test('status with a metrics file lists the store once', async (t) => {
  const fake = await new FakeB2().start()
  t.after(() => fake.close())
  const { bucketName } = fake.store.addBucket('worlds')
  const { keyId, applicationKey } = fake.store.addKey()
  const file = join(await scratch(t), 'millrace.prom')
  const url = `b2://${bucketName}/mc?endpoint=${fake.origin}`
  const env = { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey }
  const { code, stderr } = await millrace(
    ['status', '--from', url, '--server', 'world', '--max-age', '1h', '--metrics-file', file],
    { env },
  )
  assert.equal(code, 6, stderr)
  assert.match(await readFile(file, 'utf8'), /^millrace_snapshots\{.*\} 0$/m)
  assert.equal(fake.calls.filter(({ name }) => name === 'b2_list_file_names').length, 1)
})
