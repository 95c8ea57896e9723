// Runs what the documents tell people to type. All blocks of one document that are marked `run` run in their order, in
// one shell, in a folder of their own: /srv, /mnt, /etc and /var of the document are folders in there, and the Minecraft
// server at localhost:25575 is one of the tests'.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createCipheriv, createHash, pbkdf2Sync, randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, describe, it, type TestContext } from 'node:test'
import { serveMinecraft } from '../fakes/minecraft.ts'
import { BIN } from '../support/cli.ts'
import { NO_READER, python } from '../support/tools.ts'
import { tempFolder } from '../support/tree.ts'
import { type Block, DOCUMENTS, ROOT, readDocument, withSources } from './markdown.ts'

const runnable = DOCUMENTS.map((path) => readDocument(path).blocks.filter(({ marker }) => marker === 'run')).filter(
  (blocks) => blocks.length > 0,
)

/** The command starts some 50 times. */
const compiled = mkdtempSync(join(tmpdir(), 'millrace-compiled-'))
after(() => rmSync(compiled, { recursive: true, force: true }))

describe('what the documents tell people to type', { concurrency: 2, skip: NO_READER }, () => {
  it('is there', () => assert.ok(runnable.length >= 3))

  for (const blocks of runnable) {
    it(`works: ${blocks[0]?.document}`, async (t) => {
      const home = sandbox(t)
      const minecraft = await serveMinecraft({ password: '…' })
      t.after(() => minecraft.close())
      const here = (text: string) =>
        text
          .replaceAll(/(?<![\w.$}\])])\/(?=(?:srv|mnt|etc|var)\b)/g, `${home}/`)
          .replaceAll('localhost:25575', `localhost:${minecraft.port}`)
          .replaceAll('port: 25575', `port: ${minecraft.port}`)
      const script = blocks.map((block) => `echo ':: ${block.document}:${block.line}' >&2\n${lines(block, home, here)}`)
      const { code, said } = await bash(`set -eo pipefail\n${script.join('\n')}`, home)
      assert.equal(code, 0, said)
      assert.ok(minecraft.saving, 'saving was left off')
    })
  }
})

/** What bash is told of a block; TypeScript becomes a file that Node runs. */
function lines({ language, line, text }: Block, home: string, here: (text: string) => string): string {
  if (language !== 'ts') return here(text)
  const file = join(home, `block-${line}.ts`)
  writeFileSync(file, withSources(here(text)))
  return `node ${file}`
}

/** A home with a small server in `srv/minecraft`, its world also as `world` and `world.tar` where the shell begins. */
function sandbox(t: TestContext): string {
  const home = tempFolder(t)
  for (const folder of ['bin', 'mnt/backups', 'etc/millrace', 'var/lib', 'var/www', 'tmp', 'srv/minecraft', 'work']) {
    mkdirSync(join(home, folder), { recursive: true })
  }
  for (const world of ['srv/minecraft/world', 'work/world']) {
    for (const folder of ['region', 'playerdata']) mkdirSync(join(home, world, folder), { recursive: true })
    writeFileSync(join(home, world, 'level.dat'), 'a world')
    writeFileSync(join(home, world, 'session.lock'), '☃')
    writeFileSync(join(home, world, 'region/r.0.0.mca'), Buffer.concat([randomBytes(20_000), Buffer.alloc(100_000)]))
    writeFileSync(join(home, world, 'playerdata/steve.dat'), 'of a player')
  }
  writeFileSync(join(home, 'work/world.tar'), Buffer.alloc(10_240))
  writeFileSync(join(home, 'srv/minecraft/server.properties'), 'enable-rcon=true\n')
  oldBackup(home)
  const programs = {
    millrace: `exec node ${BIN} "$@"`,
    npx: 'exec "$@"',
    python3: `PATH="\${PATH#*:}" exec ${python} "$@"`,
  }
  for (const [name, line] of Object.entries(programs)) {
    writeFileSync(join(home, 'bin', name), `#!/bin/sh\n${line}\n`)
    chmodSync(join(home, 'bin', name), 0o755)
  }
  return home
}

/** A backup as the original service made it, by Node's crypto and the programs tar and zstd alone. */
function oldBackup(home: string): void {
  const folder = join(home, 'srv/old-backups')
  mkdirSync(folder)
  const stream = execFileSync('sh', ['-c', 'tar c . | zstd -qc'], { cwd: join(home, 'srv/minecraft/world') })
  const [salt, nonce] = [randomBytes(16), randomBytes(12)]
  const cipher = createCipheriv('aes-256-gcm', pbkdf2Sync('…', salt, 100_000, 32, 'sha256'), nonce)
  const object = Buffer.concat([salt, nonce, cipher.update(stream), cipher.final(), cipher.getAuthTag()])
  writeFileSync(join(folder, 'world.tar.zst'), object)
  writeFileSync(join(folder, 'world.tar.zst.sha256'), createHash('sha256').update(object).digest('hex'))
}

function bash(script: string, home: string): Promise<{ code: number | null; said: string }> {
  const env = {
    PATH: [join(home, 'bin'), dirname(process.execPath), process.env.PATH].join(':'),
    HOME: home,
    TMPDIR: join(home, 'tmp'),
    LANG: 'C.UTF-8',
    MILLRACE_PASSWORD: '…',
    // Where the checkout is, for blocks that need a file of it.
    CHECKOUT: ROOT,
    NODE_COMPILE_CACHE: compiled,
  }
  const child = spawn('bash', ['-c', script], { cwd: join(home, 'work'), env, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      said += text
    })
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, said }))
  })
}
