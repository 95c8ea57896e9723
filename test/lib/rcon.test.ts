import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import { inspect } from 'node:util'
import { parseAddress } from '../../lib/index.ts'
import { openRcon, type Rcon } from '../../lib/quiesce/rcon.ts'
import { type RconServerOptions, rconPacket, serveRcon } from '../fakes/rcon.ts'

const PASSWORD = 'pässword of the test'

async function connected(t: TestContext, options: Partial<RconServerOptions> = {}): Promise<Rcon> {
  const server = await serveRcon({ password: PASSWORD, run: (command) => `ran ${command}`, ...options })
  t.after(() => server.close())
  const rcon = await openRcon({ host: '127.0.0.1', port: server.port, password: PASSWORD })
  t.after(() => rcon.close())
  return rcon
}

/** An error with this code, which nowhere shows the password. */
function fails(code: string, says: RegExp) {
  return (error: Error & { code?: string }) => {
    assert.equal(error.code, code, error.message)
    assert.match(error.message, says)
    assert.ok(!inspect(error, { depth: Number.POSITIVE_INFINITY, showHidden: true }).includes(PASSWORD))
    return true
  }
}

/** A server that answers each login as `answer` says. */
const login = (t: TestContext, intercept: RconServerOptions['intercept'], connectMs = 20_000) =>
  connectedBy(t, { intercept: (request, socket) => request.type === 3 && intercept!(request, socket) }, connectMs)

async function connectedBy(t: TestContext, options: Partial<RconServerOptions>, connectMs: number): Promise<Rcon> {
  const server = await serveRcon({ password: PASSWORD, run: () => '', ...options })
  t.after(() => server.close())
  return openRcon({ host: '127.0.0.1', port: server.port, password: PASSWORD, connectMs })
}

for (const writeBytes of [1, 3, 1000, undefined]) {
  test(`rcon: answers of every length come whole, in writes of ${writeBytes ?? 'all their packets'}`, async (t) => {
    const rcon = await connected(t, {
      writeBytes,
      run: (command) => 'aé€'.repeat(Number(command)).slice(0, Number(command)),
    })
    for (const chars of [0, 1, 1023, 1024, ...((writeBytes ?? 1000) < 1000 ? [] : [4095, 4096, 4097, 8192, 20_000])]) {
      assert.equal(await rcon.command(`${chars}`), 'aé€'.repeat(chars).slice(0, chars), `${chars} characters`)
    }
  })
}

test('rcon: the empty response that Source servers send before that to a login is passed over', async (t) => {
  assert.equal(await (await connected(t, { emptyBeforeLogin: true })).command('list'), 'ran list')
})

test('rcon: the end packet that a Source server answers twice does not disturb the next command', async (t) => {
  const rcon = await connected(t, {
    run: (command) => command.repeat(5000),
    intercept({ id, type }, socket) {
      if (type !== 0) return false
      socket.write(Buffer.concat([rconPacket(id, 0, ''), rconPacket(id, 0, '\0\x01\0\0')]))
      return true
    },
  })
  for (const command of ['a', 'b']) assert.equal(await rcon.command(command), command.repeat(5000))
})

test('rcon: a wrong password is told, and not shown', async (t) => {
  const server = await serveRcon({ password: 'another', run: () => '' })
  t.after(() => server.close())
  const { port } = server
  await assert.rejects(
    openRcon({ host: '127.0.0.1', port, password: PASSWORD }),
    fails('QUIESCE', /127\.0\.0\.1:\d+ refused the password/),
  )
})

test('rcon: a port where nobody listens is a stopped server, and one that says nothing a silent one', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  await assert.rejects(openRcon({ host: '127.0.0.1', port, password: PASSWORD }), fails('SERVER_STOPPED', /Nothing/))
  await assert.rejects(
    login(t, () => true, 2000),
    fails('SERVER_SILENT', /no answer to the login within 2 s/),
  )
})

test('rcon: a command that is not answered in time fails, and its connection is closed', async (t) => {
  const rcon = await connected(t, { intercept: ({ text }) => text === 'hang' })
  await assert.rejects(rcon.command('hang', { timeoutMs: 50 }), fails('SERVER_SILENT', /no answer to "hang"/))
  await assert.rejects(rcon.command('list'), fails('QUIESCE', /was left/))
})

test('rcon: a process that was stopped for longer than a server may take reads what it has answered', async (t) => {
  // All that is written meanwhile comes by the system, which timers that are due go before.
  const stop = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_600)
  const answer = (request: { type: number }) => {
    if (request.type === 3) stop()
    return false
  }
  const rcon = await connectedBy(t, { run: () => 'done', intercept: answer }, 400)
  t.after(() => rcon.close())
  const running = rcon.command('save-off', { timeoutMs: 400 })
  stop()
  assert.equal(await running, 'done')
})

test('rcon: an abort ends a login and a command', async (t) => {
  const signal = AbortSignal.abort()
  const server = await serveRcon({ password: PASSWORD, run: () => '', intercept: ({ text }) => text === 'hang' })
  t.after(() => server.close())
  const to = { host: '127.0.0.1', port: server.port, password: PASSWORD }
  await assert.rejects(openRcon({ ...to, signal }), { name: 'AbortError' })
  const rcon = await openRcon(to)
  const stop = new AbortController()
  const running = rcon.command('hang', { signal: stop.signal })
  await server.wasAsked('hang')
  stop.abort()
  await assert.rejects(running, { name: 'AbortError' })
})

test('rcon: what is no answer ends the connection before anything is made of its length', async (t) => {
  const long = Buffer.alloc(4)
  long.writeInt32LE(0x7fff_ffff)
  const negative = Buffer.alloc(4)
  negative.writeInt32LE(-1)
  const unterminated = rconPacket(1, 2, '')
  unterminated[12] = 65
  for (const [name, bytes] of Object.entries({
    http: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    long,
    negative,
    unterminated,
    'another id': rconPacket(77, 2, ''),
    'another type': rconPacket(1, 9, ''),
  })) {
    const wrong = login(t, (_, socket) => socket.write(bytes))
    await assert.rejects(wrong, fails('QUIESCE', /no RCON packet|was not asked/), name)
  }
})

test('rcon: an answer without an end is cut off', async (t) => {
  const rcon = await connected(t, {
    intercept({ id, text }, socket) {
      if (text !== 'flood') return false
      const packet = rconPacket(id, 0, 'x'.repeat(4096))
      const more = () => {
        while (!socket.destroyed && socket.write(packet));
        if (!socket.destroyed) socket.once('drain', more)
      }
      more()
      return true
    },
  })
  await assert.rejects(rcon.command('flood'), fails('QUIESCE', /more than 262144 bytes|no RCON packet/))
})

test('rcon: a connection that is closed half-way is an error, not an answer', async (t) => {
  for (const cut of [0, 5, 20]) {
    const rcon = await connected(t, {
      intercept({ id, text }, socket) {
        if (text !== 'list') return false
        socket.end(rconPacket(id, 0, 'x'.repeat(2000)).subarray(0, cut))
        return true
      },
    })
    await assert.rejects(rcon.command('list'), fails('QUIESCE', /closed the connection/))
  }
})

test('rcon: a command or password that does not fit into a packet is refused before it is sent', async (t) => {
  const rcon = await connected(t)
  await assert.rejects(rcon.command('x'.repeat(1447)), fails('USAGE', /1446/))
  await assert.rejects(rcon.command('a\0b'), fails('USAGE', /NUL/))
  assert.equal(await rcon.command('x'.repeat(1446)), `ran ${'x'.repeat(1446)}`)
  await assert.rejects(openRcon({ host: '127.0.0.1', port: 1, password: '' }), fails('USAGE', /empty/))
})

test('rcon: addresses are read as people write them', () => {
  assert.deepEqual(parseAddress('localhost:25576'), { host: 'localhost', port: 25576 })
  assert.deepEqual(parseAddress('mc.example.org'), { host: 'mc.example.org', port: 25575 })
  assert.deepEqual(parseAddress('[::1]:25575'), { host: '::1', port: 25575 })
  for (const wrong of ['', ':1', 'a:0', 'a:70000', 'a:b', '::1', 'pass@host:1', 'a b:1']) {
    assert.throws(() => parseAddress(wrong), { code: 'USAGE' })
  }
})
