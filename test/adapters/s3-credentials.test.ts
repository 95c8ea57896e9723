import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import * as http from 'node:http'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openS3 } from '../../adapters/s3.ts'
import type { S3Config } from '../../adapters/s3-config.ts'

// What a request is signed with when the settings hold no keys: the SDK's own chain, each link of it for real. The
// endpoints of containers, of instances and of SSO are this file's server, by the variables that the SDK has for it.

const FUTURE = () => new Date(Date.now() + 3_600_000).toISOString()
/** The SDK takes what has less than five minutes left for expired. */
const SOON = () => new Date(Date.now() + 120_000).toISOString()

interface Seen {
  accessKey: string | undefined
  token: string | undefined
}

let folder: string
let origin: string
let server: http.Server
let signed: Seen[]
/** What answers requests other than those of S3, by path. */
let answers: Record<string, (request: http.IncomingMessage) => object | string>
let asked: string[]
/** What S3 refuses an access key with. */
let refused: Record<string, string>
const kept = { ...process.env }

function serve(request: http.IncomingMessage, reply: http.ServerResponse): void {
  const { url = '', headers } = request
  const answer = answers[url.split('?')[0] as string]
  if (answer) {
    asked.push(url)
    const body = answer(request)
    reply.setHeader('content-type', typeof body === 'string' ? 'text/plain' : 'application/json')
    reply.end(typeof body === 'string' ? body : JSON.stringify(body))
    return
  }
  const accessKey = /Credential=([^/]+)\//.exec(headers.authorization ?? '')?.[1]
  signed.push({ accessKey, token: headers['x-amz-security-token'] as string | undefined })
  const code = refused[accessKey ?? '']
  if (code) {
    const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>No.</Message></Error>`
    reply.writeHead(code === 'InvalidAccessKeyId' ? 403 : 400).end(request.method === 'HEAD' ? '' : body)
    return
  }
  if (url.includes('list-type')) {
    reply.end('<?xml version="1.0"?><ListBucketResult><Name>worlds</Name></ListBucketResult>')
    return
  }
  reply.writeHead(200, { etag: '"0123456789abcdef0123456789abcdef"', 'content-length': 5 }).end()
}

const open = (config: Partial<S3Config> = {}) =>
  openS3({ bucket: 'worlds', endpoint: origin, region: 'eu-central-1', ...config })

/** Makes one request, or `requests`, by one Storage. @returns the access key that each was signed with. */
async function keysOf(config: Partial<S3Config> = {}, requests = 1): Promise<(string | undefined)[]> {
  const storage = await open(config)
  const from = signed.length
  try {
    for (let request = 0; request < requests; request++) await storage.stat('a')
  } finally {
    await storage.close()
  }
  return signed.slice(from).map(({ accessKey }) => accessKey)
}

/** Makes requests by one Storage until one is signed with another key than the first was. @returns both. */
async function keysAroundRefresh(): Promise<(string | undefined)[]> {
  const storage = await open()
  await storage.stat('a')
  const first = signed.at(-1)?.accessKey
  do {
    // The refresh goes on behind the request that found the credentials to be old.
    await new Promise((resolve) => setTimeout(resolve, 20))
    await storage.stat('a')
  } while (signed.at(-1)?.accessKey === first)
  await storage.close()
  return [first, signed.at(-1)?.accessKey]
}

/** Under a name of its own each time, as the SDK reads a file once. */
let files = 0
async function file(name: string, content: string): Promise<string> {
  const path = join(folder, `${++files}-${name}`)
  await writeFile(path, content)
  return path
}

/** Chooses a profile that stands for an SSO session, signed in until `expiresAt`. */
async function useSso(profile: string, expiresAt: string): Promise<void> {
  const start = `https://${profile}.awsapps.com/start`
  const cache = join(folder, '.aws/sso/cache')
  await mkdir(cache, { recursive: true })
  const name = `${createHash('sha1').update(start).digest('hex')}.json`
  await writeFile(join(cache, name), JSON.stringify({ accessToken: 'of-the-session', expiresAt }))
  const role = 'sso_region = eu-central-1\nsso_account_id = 123456789012\nsso_role_name = backup\n'
  process.env.AWS_CONFIG_FILE = await file('config', `[profile ${profile}]\nsso_start_url = ${start}\n${role}`)
  process.env.AWS_PROFILE = profile
}

describe('s3 credentials', () => {
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'millrace-credentials-'))
    server = http.createServer(serve).listen(0, '127.0.0.1')
    await once(server, 'listening')
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })

  beforeEach(async () => {
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name]
    // Nothing of this machine's own: no shared files, no instance that it may run on.
    process.env.HOME = folder
    process.env.AWS_EC2_METADATA_DISABLED = 'true'
    signed = []
    answers = {}
    asked = []
    refused = {}
  })

  afterEach(() => {
    for (const name of Object.keys(process.env)) if (!(name in kept)) delete process.env[name]
    Object.assign(process.env, kept)
  })

  after(async () => {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  })

  it('are the environment’s, with its session token', async () => {
    process.env.AWS_ACCESS_KEY_ID = 'AKIAENVIRONMENT'
    process.env.AWS_SECRET_ACCESS_KEY = 'secret'
    process.env.AWS_SESSION_TOKEN = 'session'
    assert.deepEqual(await keysOf(), ['AKIAENVIRONMENT'])
    assert.equal(signed[0]?.token, 'session')
  })

  it('are those of the settings before any others', async () => {
    process.env.AWS_ACCESS_KEY_ID = 'AKIAENVIRONMENT'
    process.env.AWS_SECRET_ACCESS_KEY = 'secret'
    process.env.AWS_SESSION_TOKEN = 'session'
    assert.deepEqual(await keysOf({ accessKeyId: 'AKIAGIVEN', secretAccessKey: 'secret' }), ['AKIAGIVEN'])
    assert.equal(signed[0]?.token, undefined)
    const given = { accessKeyId: 'ASIAGIVEN', secretAccessKey: 'secret', sessionToken: 'own' }
    assert.deepEqual(await keysOf(given), ['ASIAGIVEN'])
    assert.equal(signed[1]?.token, 'own')
  })

  it('are a profile’s, of a shared credentials file', async () => {
    process.env.AWS_SHARED_CREDENTIALS_FILE = await file(
      'credentials',
      `[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = secret\n
[worlds]\naws_access_key_id = AKIAWORLDS\naws_secret_access_key = secret\naws_session_token = of-the-file\n`,
    )
    assert.deepEqual(await keysOf(), ['AKIADEFAULT'])
    process.env.AWS_PROFILE = 'worlds'
    assert.deepEqual(await keysOf(), ['AKIAWORLDS'])
    assert.equal(signed[1]?.token, 'of-the-file')
  })

  it('are what a credential_process prints, asked again before they expire', async () => {
    const count = await file('count', '0')
    const program = await file(
      'program.mjs',
      `import { readFileSync, writeFileSync } from 'node:fs'
const [count, expiration] = process.argv.slice(2)
const number = Number(readFileSync(count, 'utf8')) + 1
writeFileSync(count, String(number))
console.log(JSON.stringify({ Version: 1, AccessKeyId: 'ASIAPROCESS' + number, SecretAccessKey: 'secret',
  SessionToken: 'token', Expiration: expiration }))
`,
    )
    const prints = async (expiration: string) => {
      await writeFile(count, '0')
      const line = `"${process.execPath}" "${program}" "${count}" ${expiration}`
      process.env.AWS_CONFIG_FILE = await file('config', `[profile worlds]\ncredential_process = ${line}\n`)
      process.env.AWS_PROFILE = 'worlds'
    }
    await prints(FUTURE())
    assert.deepEqual(await keysOf({}, 3), ['ASIAPROCESS1', 'ASIAPROCESS1', 'ASIAPROCESS1'])
    assert.equal(await readFile(count, 'utf8'), '1')
    await prints(SOON())
    const [first, next] = await keysAroundRefresh()
    assert.equal(first, 'ASIAPROCESS1')
    assert.match(next ?? '', /^ASIAPROCESS\d+$/)
  })

  it('that nothing answers for are not waited for without end, nor when the caller gives up', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const sockets = new Set<Socket>()
    silent.on('connection', (socket) => sockets.add(socket))
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/role`
    const storage = await open({ idleMs: 20, callRetry: { attempts: 1, baseMs: 1, capMs: 1, deadlineMs: 1 } })
    try {
      await assert.rejects(storage.stat('a'), (error) => {
        assert.ok(error instanceof StorageError)
        assert.equal(error.code, 'UNAVAILABLE')
        assert.match(error.message, /what gives the credentials .* did not answer/)
        return true
      })
      const patient = await open({ idleMs: 3_600_000 })
      const given = new AbortController()
      const stat = patient.stat('a', { signal: given.signal })
      setImmediate(() => given.abort())
      await assert.rejects(stat, { name: 'AbortError' })
      await patient.close()
    } finally {
      for (const socket of sockets) socket.destroy()
      silent.close()
      await storage.close()
    }
  })

  it('are a container’s role, asked again before they expire, and with the token that belongs to it', async () => {
    let times = 0
    let expiration = FUTURE()
    const authorizations: (string | undefined)[] = []
    answers['/role'] = ({ headers }) => {
      authorizations.push(headers.authorization)
      const AccessKeyId = `ASIACONTAINER${++times}`
      return { RoleArn: 'r', AccessKeyId, SecretAccessKey: 'secret', Token: 'token', Expiration: expiration }
    }
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = `${origin}/role`
    process.env.AWS_CONTAINER_AUTHORIZATION_TOKEN = 'of the container'
    assert.deepEqual(await keysOf({}, 3), ['ASIACONTAINER1', 'ASIACONTAINER1', 'ASIACONTAINER1'])
    assert.deepEqual(authorizations, ['of the container'])
    assert.equal(signed[0]?.token, 'token')
    expiration = SOON()
    const [first, next] = await keysAroundRefresh()
    assert.equal(first, 'ASIACONTAINER2')
    assert.match(next ?? '', /^ASIACONTAINER\d+$/)
    // What has expired is never signed with, not even once.
    expiration = new Date(Date.now() + 300).toISOString()
    const storage = await open()
    await storage.stat('a')
    const old = signed.at(-1)?.accessKey
    expiration = FUTURE()
    await new Promise((resolve) => setTimeout(resolve, 600))
    await storage.stat('a')
    assert.notEqual(signed.at(-1)?.accessKey, old)
    await storage.close()
  })

  it('that the store refuses before their time are asked for once more, by all requests together', async () => {
    let given = 0
    let last = Number.POSITIVE_INFINITY
    answers['/role'] = () => {
      const AccessKeyId = `ASIA${Math.min(++given, last)}`
      return { RoleArn: 'r', AccessKeyId, SecretAccessKey: 'secret', Token: `of ${AccessKeyId}`, Expiration: FUTURE() }
    }
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = `${origin}/role`
    for (const code of ['ExpiredToken', 'TokenRefreshRequired', 'InvalidAccessKeyId']) {
      const storage = await open()
      const list = () => Array.fromAsync(storage.list(''))
      await storage.stat('a')
      refused[`ASIA${given}`] = code
      const before = given
      await Promise.all([list(), list(), list(), list()])
      assert.equal(given, before + 1, code)
      assert.equal(signed.at(-1)?.token, `of ASIA${given}`)
      await storage.close()
    }
    // To a HEAD there is no code.
    const storage = await open()
    await storage.stat('a')
    refused[`ASIA${given}`] = 'ExpiredToken'
    await storage.stat('a')
    assert.equal(signed.at(-1)?.token, `of ASIA${given}`)
    // Where there are no others, the store is not asked again.
    last = given
    refused[`ASIA${given}`] = 'ExpiredToken'
    signed = []
    await assert.rejects(Array.fromAsync(storage.list('')), { code: 'AUTH_EXPIRED', retryable: false })
    assert.equal(signed.length, 1)
    await storage.close()
  })

  it('that are not answered for once are asked for again', async () => {
    let questions = 0
    const service = http.createServer((_, reply) => {
      if (++questions === 1) return
      const given = { RoleArn: 'r', AccessKeyId: 'ASIAROLE', SecretAccessKey: 's', Token: 't', Expiration: FUTURE() }
      reply.end(JSON.stringify(given))
    })
    await once(service.listen(0, '127.0.0.1'), 'listening')
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = `http://127.0.0.1:${(service.address() as AddressInfo).port}/role`
    const storage = await open({ idleMs: 300 })
    try {
      await storage.stat('a')
      assert.equal(signed.at(-1)?.accessKey, 'ASIAROLE')
    } finally {
      await storage.close()
      service.closeAllConnections()
      service.close()
    }
  })

  it('that cannot be renewed for a while are waited for, as they were given before', async () => {
    const failures = await file('failures', '0')
    const until = new Date(Date.now() + 1_500)
    const expiration = await file('expiration', until.toISOString())
    const program = await file(
      'program.sh',
      `n=$(cat '${failures}')
if [ $n -gt 0 ]; then echo $((n - 1)) > '${failures}'; exit 1; fi
echo '{ "Version": 1, "AccessKeyId": "ASIA'$$'", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "'$(cat '${expiration}')'" }'`,
    )
    process.env.AWS_CONFIG_FILE = await file('config', `[profile renewing]\ncredential_process = sh ${program}\n`)
    process.env.AWS_PROFILE = 'renewing'
    const storage = await open({ callRetry: { attempts: 9, baseMs: 1, capMs: 1, deadlineMs: 60_000 } })
    await storage.stat('a')
    const old = signed.at(-1)?.accessKey
    await new Promise((resolve) => setTimeout(resolve, until.getTime() + 100 - Date.now()))
    await writeFile(expiration, FUTURE())
    await writeFile(failures, '4')
    await storage.stat('a')
    assert.equal(await readFile(failures, 'utf8'), '0\n')
    assert.notEqual(signed.at(-1)?.accessKey, old)
    await storage.close()
  })

  it('are an instance’s role', async () => {
    delete process.env.AWS_EC2_METADATA_DISABLED
    process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT = origin
    const role = '/latest/meta-data/iam/security-credentials/'
    const tokens: (string | string[] | undefined)[] = []
    answers['/latest/api/token'] = () => 'metadata-token'
    answers[role] = () => 'backup-role'
    answers[`${role}backup-role`] = ({ headers }) => {
      tokens.push(headers['x-aws-ec2-metadata-token'])
      const dates = { LastUpdated: new Date().toISOString(), Expiration: FUTURE() }
      return {
        Code: 'Success',
        Type: 'AWS-HMAC',
        AccessKeyId: 'ASIAINSTANCE',
        SecretAccessKey: 's',
        Token: 't',
        ...dates,
      }
    }
    assert.deepEqual(await keysOf({}, 2), ['ASIAINSTANCE', 'ASIAINSTANCE'])
    assert.deepEqual(tokens, ['metadata-token'])
  })

  it('are those of an SSO session', async () => {
    await useSso('worlds', FUTURE())
    process.env.AWS_ENDPOINT_URL_SSO = origin
    const tokens: (string | string[] | undefined)[] = []
    answers['/federation/credentials'] = ({ headers }) => {
      tokens.push(headers['x-amz-sso_bearer_token'])
      const expiration = Date.now() + 3_600_000
      return { roleCredentials: { accessKeyId: 'ASIASSO', secretAccessKey: 's', sessionToken: 't', expiration } }
    }
    assert.deepEqual(await keysOf(), ['ASIASSO'])
    assert.deepEqual(tokens, ['of-the-session'])
  })

  it('an SSO session that is over is an error that says so, and no other link is tried', async () => {
    await useSso('over', new Date(0).toISOString())
    process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI = `${origin}/role`
    await assert.rejects(keysOf(), (error) => {
      assert.ok(error instanceof StorageError)
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.match((error.cause as Error).message, /SSO session .* has expired/)
      assert.doesNotMatch(`${error.message}${(error.cause as Error).message}`, /of-the-session/)
      return true
    })
    assert.deepEqual(asked, [])
  })

  it('where there are none, the error says where they would be looked for', async () => {
    await assert.rejects(keysOf(), (error) => {
      assert.ok(error instanceof StorageError)
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.equal(error.retryable, false)
      assert.match(error.message, /no credentials were found; set AWS_ACCESS_KEY_ID/)
      return true
    })
    assert.deepEqual(signed, [])
  })

  it('a credential_process that fails is an error without its command line or what it printed', async () => {
    const program = await file('failing.mjs', `console.error('token-in-stderr'); process.exit(3)`)
    const line = `"${process.execPath}" "${program}" --token token-in-arguments`
    process.env.AWS_CONFIG_FILE = await file('config', `[profile worlds]\ncredential_process = ${line}\n`)
    process.env.AWS_PROFILE = 'worlds'
    await assert.rejects(keysOf(), (error) => {
      assert.ok(error instanceof StorageError)
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.match(error.message, /check the profile that AWS_PROFILE names/)
      const { message, stack, cause } = error
      const { message: why, stack: where } = cause as Error
      assert.doesNotMatch([message, stack, why, where].join('\n'), /token-in/)
      return true
    })
  })

  it('a profile that is not there is an error that says so', async () => {
    process.env.AWS_SHARED_CREDENTIALS_FILE = await file('credentials', '[default]\naws_access_key_id = AKIADEFAULT\n')
    process.env.AWS_PROFILE = 'absent'
    await assert.rejects(keysOf(), (error) => {
      assert.ok(error instanceof StorageError)
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.match(error.message, /check the profile that AWS_PROFILE names/)
      return true
    })
    assert.deepEqual(signed, [])
  })
})
