import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { serveStatus, text } from '../../../lib/schedule/http.ts'
import { Lines } from '../../../lib/schedule/lines.ts'
import { takeEvent } from '../../../lib/schedule/run.ts'
import { ScheduleState } from '../../../lib/schedule/state.ts'

async function serve(t: TestContext): Promise<number> {
  const server = await serveStatus(0, { '/': () => text(200, 'here') })
  t.after(() => server.close())
  return server.port
}

interface Got {
  status: number | undefined
  body: string
  headers: NodeJS.Dict<string | string[]>
}

function get(
  port: number,
  options: { path?: string; method?: string; headers?: Record<string, string>; body?: string } = {},
) {
  const { body, ...rest } = options
  return new Promise<Got>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, agent: false, ...rest }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode, body: text, headers: response.headers }))
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

test('the status page is for reading, by the names of this machine, and nothing else', async (t) => {
  const port = await serve(t)
  assert.deepEqual((await get(port)).body, 'here\n')
  assert.equal((await get(port, { path: '/?refresh=1' })).status, 200)
  const head = await get(port, { method: 'HEAD' })
  assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '5'])
  assert.equal((await get(port, { path: '/../etc/passwd' })).status, 404)
  assert.equal((await get(port, { path: '/__proto__' })).status, 404)
  const post = await get(port, { method: 'POST', body: 'x'.repeat(100_000) })
  assert.deepEqual([post.status, post.headers.allow, post.headers.connection], [405, 'GET, HEAD', 'close'])
  assert.equal((await get(port, { method: 'GET', headers: { 'content-length': '1' }, body: 'x' })).status, 413)
  for (const host of ['localhost', `LOCALHOST:${port}`, '[::1]:80', `127.0.0.1:${port}`]) {
    assert.equal((await get(port, { headers: { host } })).status, 200, host)
  }
  for (const host of [
    'evil.example',
    `evil.example:${port}`,
    '127.0.0.1.evil.example',
    'localhost.evil.example:80',
    '10.0.0.1',
  ]) {
    assert.equal((await get(port, { headers: { host } })).status, 403, host)
  }
})

test('the status page listens on 127.0.0.1 alone, and says so when the port is taken', async (t) => {
  const port = await serve(t)
  const other = connect({ host: '127.0.0.2', port })
  const [error] = await once(other, 'error')
  assert.equal(error.code, 'ECONNREFUSED')
  await assert.rejects(serveStatus(port, {}), { code: 'USAGE', message: /daemon\.port.*something else listens there/ })
})

test('headers that are too long are refused', async (t) => {
  const port = await serve(t)
  const got = await get(port, { headers: { 'x-long': 'x'.repeat(20_000) } }).catch((error) => error)
  assert.ok(got.status === 431 || got.code === 'ECONNRESET' || got.code === 'EPIPE', String(got.status ?? got.code))
  assert.equal((await get(port)).status, 200)
})

test('lines come whole, however the bytes are cut, and those that are too long are left out', () => {
  const line = fc.string({ unit: 'grapheme', maxLength: 12 }).map((one) => one.replaceAll('\n', ''))
  fc.assert(
    fc.property(fc.array(line, { maxLength: 8 }), fc.integer({ min: 1, max: 7 }), (all, size) => {
      const seen: string[] = []
      const lines = new Lines(16, (one) => seen.push(one))
      const bytes = Buffer.from(all.join('\n'))
      for (let at = 0; at < bytes.length; at += size) lines.push(bytes.subarray(at, at + size))
      lines.end()
      assert.deepEqual(
        seen,
        all.filter((one) => one !== '' && Buffer.byteLength(one) <= 16),
      )
    }),
  )
})

test('events that are not understood change nothing', () => {
  const result = { exitCode: null, statuses: [], warnings: 0 }
  for (const line of [
    '',
    'null',
    '[]',
    '7',
    '{',
    '{"event":"later"}',
    '{"event":"snapshot","id":7}',
    '{"event":"error"}',
  ]) {
    takeEvent(line, result)
  }
  assert.deepEqual(result, { exitCode: null, statuses: [], warnings: 0 })
})

test('the state is for its owner alone, replaced whole, and one that cannot be used is as none', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const state = new ScheduleState(join(folder, 'state'))
  assert.equal((await state.load()).size, 0)
  const one = { jobs: { backup: { servedAt: 1, exitCode: null, outcome: 'failed' as const } }, metrics: [] }
  await state.save(new Map([['a', one]]))
  await new ScheduleState(join(folder, 'state')).save(new Map([['b', one]]))
  assert.deepEqual(
    [...(await state.load())],
    [
      ['a', one],
      ['b', one],
    ],
  )
  assert.equal((await stat(state.file)).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(join(folder, 'state')), ['schedule.json'])
  for (const bad of [
    '',
    '{"v":2,"servers":{}}',
    '{"v":1,"servers":7}',
    '{"v":1,"servers":{"a":{"jobs":{"backup":{"servedAt":"x"}},"metrics":[]}}}',
    // No Date can hold it, and what shows it would throw.
    '{"v":1,"servers":{"a":{"jobs":{"backup":{"startedAt":1e300}},"metrics":[]}}}',
    '{"v":1,"servers":{"a":{"jobs":{"backup":{"outcome":"failed","missed":"x"}},"metrics":[]}}}',
  ]) {
    await writeFile(state.file, bad)
    assert.equal((await state.load()).size, 0, bad)
  }
  await state.save(new Map([['a', one]]))
  assert.match(await readFile(state.file, 'utf8'), /^\{"v":1,.*\}\n$/)
})
