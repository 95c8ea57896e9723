import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Fault, type FaultProxy, openFaultProxy } from './fault-proxy.ts'
import { ALL_FAULTS, seededSchedule } from './fault-schedule.ts'
import { seededBytes, seededRandom } from './random.ts'

const BODY = seededBytes(300_000, 1)
const anything = () => true

describe('the fault proxy', () => {
  /** Gives back what it is given, and counts what it was given whole. */
  const server = http.createServer(async (request, reply) => {
    const body = await buffer(request).catch(() => undefined)
    if (!body) return
    received.push(body)
    reply.end(body)
  })
  let received: Buffer[] = []
  let proxy: FaultProxy

  before(async () => {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  after(() => {
    server.closeAllConnections()
    server.close()
  })
  beforeEach(async () => {
    received = []
    proxy = await openFaultProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  })
  afterEach(() => proxy.close())

  /** What a client meets: the status and bytes of an answer, the code of an error, or `silence` for all its patience. */
  async function ask(
    body: Buffer,
    { method = 'PUT', patienceMs }: { method?: string; patienceMs?: number } = {},
  ): Promise<string> {
    const request = http.request(proxy.endpoint, { method, headers: { 'content-length': body.length }, agent: false })
    const silence = patienceMs === undefined ? [] : [delay(patienceMs, 'silence')]
    const answer = new Promise<string>((resolve) => {
      const fail = (error: NodeJS.ErrnoException) => resolve(String(error.code))
      request.on('error', fail)
      request.on('response', (reply) => {
        buffer(reply).then((bytes) => resolve(`${reply.statusCode} ${bytes.equals(body) || bytes.length}`), fail)
      })
    })
    request.end(body)
    try {
      return await Promise.race([answer, ...silence])
    } finally {
      request.destroy()
    }
  }

  for (const [fault, met, reaches] of [
    [{ kind: 'drop-request', afterBytes: 1000 }, 'ECONNRESET', false],
    [{ kind: 'drop-request', afterBytes: 9_000_000 }, 'ECONNRESET', false],
    [{ kind: 'reset-request', afterBytes: 1000 }, 'ECONNRESET', false],
    [{ kind: 'stall-request', afterBytes: 1000 }, 'silence', false],
    [{ kind: 'swallow' }, 'silence', false],
    [{ kind: 'answer', status: 503 }, '503 0', false],
    [{ kind: 'refuse-halfway', status: 503 }, '503 0', false],
    [{ kind: 'answer-after', status: 200, body: 'error' }, '200 5', true],
    [{ kind: 'lose-reply' }, 'ECONNRESET', true],
    [{ kind: 'drop-reply', afterBytes: 1000 }, 'ECONNRESET', true],
    [{ kind: 'drop-reply', afterBytes: 9_000_000 }, 'ECONNRESET', true],
    [{ kind: 'reset-reply', afterBytes: 1000 }, 'ECONNRESET', true],
    [{ kind: 'stall-reply', afterBytes: 1000 }, 'silence', true],
    [{ kind: 'shorten-reply', afterBytes: 1000 }, '200 1000', true],
    [{ kind: 'slow', bytesPerSecond: 6_000_000 }, '200 true', true],
  ] as [Fault, string, boolean][]) {
    const after = 'afterBytes' in fault ? ` after ${fault.afterBytes} bytes` : ''
    it(`${fault.kind}${after}: the client meets ${met}, the server has ${reaches ? 'all of it' : 'nothing'}`, async () => {
      proxy.inject(fault, anything)
      assert.equal(await ask(BODY, met === 'silence' ? { patienceMs: 300 } : {}), met)
      await proxy.idle()
      assert.deepEqual(
        received.map((body) => body.equals(BODY)),
        reaches ? [true] : [],
      )
      assert.equal(await ask(BODY), '200 true')
      // Of a connection that stalls, the proxy sees the end much later.
      if (fault.kind === 'stall-request') return
      while (proxy.seen.length < 2) await delay(5)
      const entry = proxy.seen.find(({ index }) => index === 0)
      assert.equal(entry?.fault, fault.kind)
      assert.equal(entry?.reached, reaches)
      assert.equal(entry?.serverStatus || undefined, reaches ? 200 : undefined)
    })
  }

  it('a body of no bytes meets the faults of bodies as well', async () => {
    const nothing = Buffer.alloc(0)
    for (const kind of ['drop-request', 'reset-request', 'drop-reply', 'reset-reply'] as const) {
      proxy.inject({ kind, afterBytes: 0 }, anything)
      assert.equal(await ask(nothing), 'ECONNRESET', kind)
    }
    assert.equal(received.length, 2)
    proxy.inject({ kind: 'stall-reply', afterBytes: 0 }, anything)
    assert.equal(await ask(nothing, { patienceMs: 300 }), 'silence')
  })

  it('follows a schedule where no fault is armed', async () => {
    proxy.follow(({ method }) => (method === 'PUT' ? { kind: 'answer', status: 500 } : undefined))
    proxy.inject({ kind: 'answer', status: 503 }, anything)
    assert.equal(await ask(BODY), '503 0')
    assert.equal(await ask(BODY), '500 0')
    assert.equal(await ask(BODY, { method: 'POST' }), '200 true')
    proxy.follow(undefined)
    assert.equal(await ask(BODY), '200 true')
  })
})

it('a reset of a connection whose end has begun leaves nothing that keeps a process from its exit', async () => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'reset-child.ts')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    // One that never ends spins: it is killed, and has no exit code.
    timeout: 60_000,
    killSignal: 'SIGKILL',
  })
  const [output, [code]] = await Promise.all([buffer(child.stdout), once(child, 'exit')])
  assert.equal(output.toString(), 'nothing is left to do\n')
  assert.equal(code, 0)
})

describe('a seeded schedule', () => {
  const classify = ({ method, url }: { method: string; url: string }) => ({ kind: method, subject: url })
  const ask = (url: string) => ({ method: 'PUT', url, headers: { 'content-length': '5000' } })
  const fates = (seed: number, urls: string[]) => {
    const schedule = seededSchedule({ seed, rate: 0.2, classify })
    const found = new Map<string, string[]>(urls.map((url) => [url, []]))
    for (const url of urls) found.get(url)?.push(JSON.stringify(schedule(ask(url)) ?? null))
    return found
  }

  it('gives each subject the same fate for one seed, in whichever order they come, and another for another', () => {
    const random = seededRandom('order')
    const urls = Array.from({ length: 600 }, (_, index) => `/${index % 6}`)
    const mixed = [...urls].sort(() => random.next() - 0.5)
    assert.deepEqual([...fates(1, mixed)].sort(), [...fates(1, urls)].sort())
    assert.notDeepEqual([...fates(2, urls)].sort(), [...fates(1, urls)].sort())
  })

  it('fails about as many as it is told, never more in a row than it may, and in every way', () => {
    const all = [...fates(3, Array<string>(20_000).fill('/one')).values()].flat()
    const share = all.filter((fate) => fate !== 'null').length / all.length
    assert.ok(share > 0.2 && share < 0.35, `${share}`)
    let row = 0
    for (const fate of all) {
      row = fate === 'null' ? 0 : row + 1
      assert.ok(row <= 3)
    }
    const kinds = new Set(all.map((fate) => JSON.parse(fate)?.kind).filter(Boolean))
    const possible = ALL_FAULTS.filter((name) => name !== 'shorten-reply').map((name) =>
      name.replace(/^status-\d+/, 'answer'),
    )
    assert.deepEqual([...kinds].sort(), [...new Set(possible)].sort())
  })
})
