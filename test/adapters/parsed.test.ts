import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import * as http from 'node:http'
import * as https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { freeWhatIsParsed, parserCopies } from '../../adapters/parsed.ts'
import { seededBytes } from '../support/random.ts'

const BYTES = 3_000_000
const OBJECT = seededBytes(BYTES, 1)

interface Line {
  get(start: number, end: number): Promise<http.IncomingMessage>
  /** What the one connection has brought. */
  arrived: Buffer[]
}

/** A certificate for localhost. */
function selfSigned(): { key: Buffer; cert: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  const [key, cert] = [join(folder, 'key'), join(folder, 'cert')]
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', cert]
  execFileSync('openssl', ['req', '-x509', '-days', '2', ...made, ...names], { stdio: 'ignore' })
  const pair = { key: readFileSync(key), cert: readFileSync(cert) }
  rmSync(folder, { recursive: true })
  return pair
}

/** A server of ranges of the object, and one connection to it that is kept. */
async function openLine(t: TestContext, isSecure: boolean): Promise<Line> {
  const serve: http.RequestListener = (request, reply) => {
    const [start, end] = (request.url as string).slice(1).split('-').map(Number)
    const bytes = OBJECT.subarray(start, end)
    reply.writeHead(200, { 'content-length': bytes.length }).end(bytes)
  }
  const pair = isSecure ? selfSigned() : undefined
  const server = pair ? https.createServer(pair, serve) : http.createServer(serve)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const options = { keepAlive: true, maxSockets: 1 }
  const agent = pair ? new https.Agent({ ...options, ca: pair.cert }) : new http.Agent(options)
  t.after(() => {
    agent.destroy()
    server.close()
  })
  const arrived: Buffer[] = []
  const { port } = server.address() as AddressInfo
  return {
    arrived,
    async get(start, end) {
      const url = `${isSecure ? 'https' : 'http'}://localhost:${port}/${start}-${end}`
      const asked = (isSecure ? https : http).get(url, { agent, family: 4 })
      asked.once('socket', (socket) => {
        if (arrived.length === 0) socket.prependListener('data', (chunk: Buffer) => arrived.push(chunk))
      })
      const [answer] = (await once(asked, 'response')) as [http.IncomingMessage]
      freeWhatIsParsed(answer)
      return answer
    },
  }
}

async function read(answer: http.IncomingMessage, each: () => Promise<void>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    // As whoever gives the memory of a body back does.
    chunks.push(Buffer.from(chunk))
    chunk.fill(0)
    await each()
  }
  return Buffer.concat(chunks)
}

test('the parser of this runtime copies', async () => {
  assert.equal(await parserCopies(), true)
})

for (const isSecure of [false, true]) {
  test(`over ${isSecure ? 'https' : 'http'} what is parsed is given back, and every body of a connection is whole`, async (t) => {
    const line = await openLine(t, isSecure)
    const at = [0, 1, 20_000, 90_000, 100_001, 1_500_000, BYTES]
    for (const [i, start] of at.entries()) {
      const end = at[i + 1] ?? BYTES
      // Once at once, and once with time for what follows to come meanwhile.
      for (const each of [async () => {}, async () => void (await turn())]) {
        const bytes = await read(await line.get(start, end), each)
        assert.ok(bytes.equals(OBJECT.subarray(start, end)), `${start} to ${end}`)
      }
    }
    // Node 26 cuts what TLS has decrypted out of memory that several chunks share, which is left alone.
    const own = line.arrived.slice(0, -1).filter((chunk) => chunk.length === chunk.buffer.byteLength)
    // Of the first, which came before it was known whether the parser copies, and of small ones.
    const left = own.reduce((sum, { length }) => sum + (length >= 16 * 1024 ? length : 0), 0)
    assert.ok(left <= 256 * 1024, `${left} bytes are left`)
    const given = line.arrived.filter(({ buffer }) => buffer.byteLength === 0).length
    const isShared = line.arrived.some(({ length, buffer }) => length < buffer.byteLength)
    assert.ok(isShared || given > 20, `${given} of ${line.arrived.length} were given back`)
    assert.ok(line.arrived.length > 20)
  })
}
