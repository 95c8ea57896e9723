import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { findOAuthCredentials } from '../../adapters/credentials.ts'
import { parseEvent } from '../../lib/cli/events.ts'
import { type FakeServer, sendJson, serveFake } from '../fakes/http.ts'
import { FakeTokens } from '../fakes/oauth.ts'
import { BIN, scratch } from '../support/cli.ts'
import { assertNoSecrets } from '../support/no-secrets.ts'

const SCOPES = ['https://www.googleapis.com/auth/drive.file']

interface Login {
  child: ChildProcess
  /** The address that the user is to open. */
  url: Promise<URL>
  done: Promise<{ code: number | null; stdout: string; stderr: string }>
}

describe('millrace login', () => {
  let tokens: FakeTokens
  let server: FakeServer

  before(async () => {
    tokens = new FakeTokens(SCOPES)
    server = await serveFake(async (request, reply, url) => sendJson(reply, 200, await tokens.answer(request, url)))
  })
  after(() => server.close())

  function login(args: string[], env: NodeJS.ProcessEnv, input?: string): Login {
    const endpoints = ['--authorize-url', `${server.origin}/authorize`, '--token-url', `${server.origin}/token`]
    const child = spawn(process.execPath, [BIN, 'login', ...args, ...endpoints], {
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
      stdio: 'pipe',
    })
    let stdout = ''
    let stderr = ''
    let found: (url: URL) => void
    const url = new Promise<URL>((resolve) => {
      found = resolve
    })
    child.stdout.on('data', (text) => {
      stdout += text
    })
    child.stderr.on('data', (text) => {
      stderr += text
      const address = /^ {2}(http:\S+)\n/m.exec(stderr)?.[1]
      if (address) found(new URL(address))
    })
    if (input !== undefined) child.stdin.end(input)
    const done = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve, reject) => {
      child.on('close', (code) => {
        try {
          if (!args.includes('--print')) {
            assertNoSecrets(stdout + stderr, { args, env: { ...env, THE_TOKEN: tokens.refreshToken } })
          }
          if (args.includes('--json')) for (const line of stdout.trim().split('\n')) parseEvent(line)
          resolve({ code, stdout, stderr })
        } catch (error) {
          reject(error)
        }
      })
    })
    return { child, url, done }
  }

  /** What the page of the provider does when the user agrees. */
  function agree(url: URL): { code: string; state: string; redirectUri: string | undefined } {
    const { searchParams: query } = url
    assert.equal(query.get('client_id'), tokens.clientId)
    assert.equal(query.get('code_challenge_method'), 'S256')
    const redirectUri = query.get('redirect_uri') ?? undefined
    return {
      code: tokens.authorize(query.get('code_challenge') ?? '', redirectUri),
      state: query.get('state') ?? '',
      redirectUri,
    }
  }

  it('by a browser on this machine: PKCE, one answer on loopback, credentials for the owner alone', async (t) => {
    const folder = await scratch(t)
    const env = { XDG_CONFIG_HOME: folder, MILLRACE_GOOGLE_CLIENT_SECRET: tokens.clientSecret }
    const running = login(['google-drive', '--client-id', tokens.clientId], env)
    const url = await running.url
    assert.equal(url.searchParams.get('scope'), SCOPES[0])
    assert.equal(url.searchParams.get('access_type'), 'offline')
    const { code, state, redirectUri } = agree(url)
    assert.match(redirectUri ?? '', /^http:\/\/127\.0\.0\.1:\d+\/$/)
    for (const path of ['favicon.ico', '/']) assert.equal((await fetch(`${redirectUri}${path}`)).status, 404, path)
    const page = await fetch(`${redirectUri}?code=${code}&state=${state}`)
    assert.equal(page.status, 200)
    assert.match(await page.text(), /Signed in/)
    const { code: exit, stdout, stderr } = await running.done
    assert.equal(exit, 0, stderr)
    const file = join(folder, 'millrace/google-drive.json')
    assert.equal((await stat(file)).mode & 0o777, 0o600)
    assert.deepEqual(JSON.parse(await readFile(file, 'utf8')), {
      clientId: tokens.clientId,
      refreshToken: tokens.refreshToken,
      clientSecret: tokens.clientSecret,
    })
    for (const secret of [tokens.refreshToken, tokens.clientSecret, code, ...tokens.issued]) {
      assert.ok(!`${stdout}${stderr}`.includes(secret))
    }
    process.env.XDG_CONFIG_HOME = folder
    t.after(() => delete process.env.XDG_CONFIG_HOME)
    assert.equal(findOAuthCredentials('google-drive').refreshToken, tokens.refreshToken)
  })

  it('an answer to another sign-in, and a refusal, end it with one clear line', async (t) => {
    const folder = await scratch(t)
    const env = { XDG_CONFIG_HOME: folder, MILLRACE_GOOGLE_CLIENT_SECRET: tokens.clientSecret }
    for (const [query, says] of [
      ['code=x&state=another', /belongs to another sign-in/],
      ['error=access_denied&state=STATE', /refused \(access_denied\)/],
    ] as const) {
      const running = login(['google-drive', '--client-id', tokens.clientId], env)
      const url = await running.url
      const state = url.searchParams.get('state') ?? ''
      const page = await fetch(`${url.searchParams.get('redirect_uri')}?${query.replace('STATE', state)}`)
      assert.equal(page.status, 400)
      const { code, stderr } = await running.done
      assert.notEqual(code, 0)
      assert.match(stderr, says)
    }
  })

  it('by pasting: the code that Dropbox shows, and the whole address that no browser could open', async (t) => {
    const folder = await scratch(t)
    const dropbox = login(['dropbox', '--client-id', tokens.clientId, '--print', '--json'], { XDG_CONFIG_HOME: folder })
    const url = await dropbox.url
    assert.equal(url.searchParams.get('token_access_type'), 'offline')
    dropbox.child.stdin?.end(`${agree(url).code}\n`)
    const printed = await dropbox.done
    // The fake grants none of Dropbox's scopes: said, and the exit code tells.
    assert.equal(printed.code, 3, printed.stderr)
    assert.match(printed.stderr, /not allowed: files\.metadata\.read/)
    assert.equal(JSON.parse(printed.stdout).refreshToken, tokens.refreshToken)

    const secretFile = join(folder, 'secret')
    await writeFile(secretFile, `${tokens.clientSecret}\n`, { mode: 0o600 })
    const output = join(folder, 'kept.json')
    const args = [
      'google-drive',
      '--client-id',
      tokens.clientId,
      '--client-secret-file',
      secretFile,
      '--paste',
      '-o',
      output,
    ]
    const google = login(args, {})
    const { code, state, redirectUri } = agree(await google.url)
    google.child.stdin?.end(`${redirectUri}?state=${state}&code=${code}&scope=x\n`)
    const kept = await google.done
    assert.equal(kept.code, 0, kept.stderr)
    assert.equal(JSON.parse(await readFile(output, 'utf8')).refreshToken, tokens.refreshToken)
  })

  it('a used-up code, no app, no secret, a strange provider: each says what to do', async (t) => {
    const folder = await scratch(t)
    const env = { XDG_CONFIG_HOME: folder }
    const used = login(['dropbox', '--client-id', tokens.clientId], env, 'fake-code-used-up\n')
    assert.match((await used.done).stderr, /revoked, or has expired; sign in again/)
    for (const [args, says] of [
      [['dropbox'], /--client-id.*docs\/providers\/dropbox\.md/],
      [['google-drive', '--client-id', 'x'], /MILLRACE_GOOGLE_CLIENT_SECRET/],
      [['onedrive'], /Known are google-drive, dropbox/],
      [['google-drive', '--access', 'everything', '--client-id', 'x'], /--access is one of file, appdata, full/],
    ] as const) {
      const { code, stderr } = await login([...args], env, '').done
      assert.equal(code, 2, stderr)
      assert.match(stderr, says)
    }
    assert.throws(() => findOAuthCredentials('dropbox'), /millrace login dropbox/)
  })
})
