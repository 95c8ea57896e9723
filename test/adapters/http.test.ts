import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import * as net from 'node:net'
import { buffer } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import { boundedBody, createFetch, HttpClient, type HttpResponse, readText, targetOf } from '../../adapters/http.ts'
import { type FakeServer, readBody, sendJson, serveFake } from '../fakes/http.ts'

describe('the HTTP client', () => {
  let server: FakeServer
  let client: HttpClient

  before(async () => {
    server = await serveFake(async (request, reply, url) => {
      if (url.pathname === '/none') {
        reply.writeHead(204).end()
        return
      }
      if (url.pathname === '/early') {
        sendJson(reply, 403, { error: 'no' })
        return
      }
      if (url.pathname === '/moved') {
        reply.writeHead(308, { location: '/echo', range: 'bytes=0-9' }).end()
        return
      }
      const body = await readBody(request)
      sendJson(reply, 200, { method: request.method, headers: request.headers, bytes: body.length, url: url.href })
    })
    client = new HttpClient({ connectMs: 1000, idleMs: 500 })
  })
  after(async () => {
    client.destroy()
    await server.close()
  })

  it('in the shape of fetch: buffers, strings, forms, statuses without a body, no redirect', async () => {
    const ask = createFetch(client)
    const bytes = randomBytes(3_000_000)
    const echo = await ask(`${server.origin}/echo?a=b%2Fc`, { method: 'POST', body: bytes, headers: { 'X-One': '1' } })
    const said = (await echo.json()) as Record<string, unknown> & { headers: Record<string, string> }
    assert.equal(said.bytes, bytes.length)
    assert.equal(said.headers['content-length'], String(bytes.length))
    assert.equal(said.headers['x-one'], '1')
    assert.equal(said.url, `${server.origin}/echo?a=b%2Fc`)
    const form = await ask(`${server.origin}/echo`, { method: 'POST', body: new URLSearchParams({ a: 'ü&' }) })
    const formSaid = (await form.json()) as { bytes: number; headers: Record<string, string> }
    assert.equal(formSaid.bytes, 'a=%C3%BC%26'.length)
    assert.match(formSaid.headers['content-type'] ?? '', /^application\/x-www-form-urlencoded/)
    assert.equal((await ask(`${server.origin}/none`)).status, 204)
    const moved = await ask(`${server.origin}/moved`, { method: 'PUT' })
    assert.equal(moved.status, 308)
    assert.equal(moved.headers.get('range'), 'bytes=0-9')
    await assert.rejects(ask(`${server.origin}/echo`, { method: 'POST', body: new FormData() }), TypeError)
  })

  it('a connection that has not been used for long is not used again', async () => {
    const own = http.createServer((_, reply) => reply.end('ok'))
    // It closes none, and says nothing of when it would.
    own.keepAliveTimeout = 0
    const connections: net.Socket[] = []
    own.on('connection', (socket) => connections.push(socket))
    await once(own.listen(0, '127.0.0.1'), 'listening')
    const { port } = own.address() as net.AddressInfo
    const ask = async () =>
      readText(await client.request({ ...targetOf(`http://127.0.0.1:${port}/`), method: 'GET', headers: {} }))
    try {
      assert.equal(await ask(), 'ok')
      assert.equal(await ask(), 'ok')
      assert.equal(connections.length, 1)
      const [first] = connections as [net.Socket]
      if (!first.closed) await once(first, 'close', { signal: AbortSignal.timeout(20_000) })
      assert.equal(await ask(), 'ok')
      assert.equal(connections.length, 2)
    } finally {
      own.closeAllConnections()
      own.close()
    }
  })

  it('a time to ask again at is one of the server’s clock, and is given in seconds', async () => {
    const own = http.createServer((_, reply) => {
      reply.setHeader('date', 'Mon, 30 Nov 2020 10:00:00 GMT')
      reply.writeHead(503, { 'retry-after': asked }).end()
    })
    await once(own.listen(0, '127.0.0.1'), 'listening')
    const { port } = own.address() as net.AddressInfo
    let asked = ''
    try {
      for (const [value, seconds] of [
        ['Mon, 30 Nov 2020 10:02:00 GMT', '120'],
        ['Mon, 30 Nov 2020 09:00:00 GMT', '0'],
        ['7', '7'],
        ['later', 'later'],
      ] as const) {
        asked = value
        const target = targetOf(`http://127.0.0.1:${port}/`)
        const reply = await client.request({ ...target, method: 'GET', headers: {} })
        assert.equal(reply.headers['retry-after'], seconds)
        await readText(reply)
      }
    } finally {
      own.closeAllConnections()
      own.close()
    }
  })

  it('an answer before the end of the body is passed on', async () => {
    const body = randomBytes(20_000_000)
    const reply = await client.request({
      ...targetOf(`${server.origin}/early`),
      method: 'POST',
      headers: { 'content-length': String(body.length) },
      body,
    })
    assert.equal(reply.status, 403)
    assert.equal(await readText(reply), '{"error":"no"}')
  })

  it('gives up a connection without a byte, and obeys a signal, with the socket closed', async () => {
    const silent = net.createServer((socket) => socket.on('error', () => {}).resume())
    const sockets = new Set<net.Socket>()
    silent.on('connection', (socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const target = targetOf(`http://127.0.0.1:${(silent.address() as net.AddressInfo).port}/`)
    await assert.rejects(client.request({ ...target, method: 'GET', headers: {} }), { code: 'ETIMEDOUT' })
    const controller = new AbortController()
    const asked = client.request({ ...target, method: 'GET', headers: {}, signal: controller.signal })
    setTimeout(() => controller.abort(), 50)
    await assert.rejects(asked, { name: 'AbortError' })
    for (const socket of sockets) await once(socket, 'close')
    silent.close()
  })

  it('tells whoever reads an answer of an abort, and of no lost connection', async () => {
    const slow = http.createServer((_, reply) => void reply.writeHead(200, { 'content-length': 1000 }).write('<?xml'))
    slow.listen(0, '127.0.0.1')
    await once(slow, 'listening')
    const target = targetOf(`http://127.0.0.1:${(slow.address() as net.AddressInfo).port}/`)
    for (const read of [readText, (reply: HttpResponse) => buffer(boundedBody({ ...reply, headers: {} }))]) {
      const controller = new AbortController()
      const reply = await client.request({ ...target, method: 'GET', headers: {}, signal: controller.signal })
      const reading = assert.rejects(read(reply), { name: 'AbortError' })
      controller.abort(new Error('enough'))
      await reading
    }
    slow.closeAllConnections()
    slow.close()
  })
})
