import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough, type Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify, stripVTControlCharacters } from 'node:util'
import { ProgressLog, progressLines, type Shown } from '../../lib/cli/progress.ts'
import { fitTable } from '../../lib/cli/table.ts'
import { noteSecret, redact } from '../../lib/redact.ts'
import { childPath } from '../support/children.ts'
import { BIN, millrace, PASSWORD, STATE_FOLDER, scratch } from '../support/cli.ts'
import { assertNoSecrets } from '../support/no-secrets.ts'
import { sample } from '../support/streams.ts'

const run = promisify(execFile)
const GIB = 1024 ** 3
const MILLRACE = `'${process.execPath}' '${BIN}'`
/** Where CI is set, Node takes no terminal for one with colours. */
const { CI: _, ...INHERITED } = process.env
const ENV = { ...INHERITED, MILLRACE_PASSWORD: PASSWORD, MILLRACE_STATE_DIR: STATE_FOLDER, TERM: 'xterm-256color' }

const SHOWN: Shown = {
  bytes: 10.9 * GIB,
  totalBytes: 29.1 * GIB,
  elapsedMs: 30_000,
  bytesPerSecond: 410 * 1024 ** 2,
  etaMs: 45_500,
  storedBytes: 7.1 * GIB,
  destinations: [
    { destination: 's3://worlds/mc', state: 'writing', sentBytes: 7.05 * GIB, pendingBytes: 48 * 1024 ** 2 },
    { destination: 'file:///mnt/a/rather/long/way/to/backups', state: 'failed', sentBytes: 0, pendingBytes: 0 },
    { destination: 'b2://worlds', state: 'finished', sentBytes: 7.1 * GIB, pendingBytes: 0 },
  ],
}

test('progress has a line for what is read, what is stored and each destination, and none is too long', () => {
  assert.deepEqual(progressLines(SHOWN, 80), [
    ' 37% █████████░░░░░░░░░░░░░░░ 45.5 s left',
    'read    10.9 GiB of 29.1 GiB, 410 MiB/s',
    'stored  7.10 GiB, ratio 1.54',
    's3://worlds/mc  7.05 GiB sent, 48.0 MiB pending',
    'file:///mnt/a/rather/long/way/to/backups  FAILED, 0 B sent',
    'b2://worlds  7.10 GiB sent, done',
  ])
  for (let width = 1; width <= 120; width += 1) {
    const lines = progressLines(SHOWN, width)
    assert.equal(lines.length, 6)
    for (const line of lines) assert.ok(line.length <= width, `${width}: ${line}`)
  }
  assert.equal(progressLines(SHOWN, 40)[3], 's3://worlds/mc  7.05 GiB sent')
  assert.match(progressLines(SHOWN, 40)[4] as string, /^file:\/\/\/.+….+backups {2}FAILED/)
  const { totalBytes: _, etaMs: __, ...unknown } = SHOWN
  assert.equal(progressLines(unknown, 80)[0], 'read    10.9 GiB, 410 MiB/s')
  assert.match(progressLines({ ...SHOWN, idleMs: 12_000 }, 80)[1] as string, /nothing for 12\.0 s/)
})

test('without a terminal there is one line a minute, by the clock, as long as there is something to say', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const stream = new PassThrough()
  const log = new ProgressLog(stream)
  t.mock.timers.tick(60_000)
  assert.equal(stream.read(), null)
  for (let i = 0; i < 100; i += 1) log.show(SHOWN)
  assert.equal(stream.read(), null)
  t.mock.timers.tick(60_000)
  assert.equal(
    String(stream.read()),
    'Progress: 10.9 GiB of 29.1 GiB (37 %), 410 MiB/s, ratio 1.54, 45.5 s left; s3://worlds/mc 7.05 GiB sent, 48.0 MiB pending; file:///mnt/a/rather/long/way/to/backups failed, 0 B sent; b2://worlds finished, 7.10 GiB sent\n',
  )
  log.stop()
  t.mock.timers.tick(600_000)
  assert.equal(stream.read(), null)
})

test('on a terminal lines keep to its width, follow a resize, and an interrupt gives the cursor back', async (t) => {
  const folder = await scratch(t)
  const [pid, narrow, go] = ['pid', 'narrow', 'go'].map((name) => join(folder, name)) as [string, string, string]
  // Without an end; it tells who reads it, and makes the terminal narrow when it is told to.
  const source = join(folder, 'source')
  await writeFile(
    source,
    `echo $PPID > ${pid}.new; mv ${pid}.new ${pid}
     while :; do
       head -c 200000 /dev/urandom; sleep 0.05
       if [ -e ${go} ] && [ ! -e ${narrow} ]; then stty cols 40 < /dev/tty; : > ${narrow}; fi
     done`,
  )
  const args = `backup --to file://${folder}/store --server a-rather-long-name --from-command -- sh ${source}`
  const screen = spawn('script', ['-qec', `stty cols 100; exec ${MILLRACE} ${args}`, '/dev/null'], { env: ENV })
  let shown = ''
  screen.stdout.setEncoding('utf8').on('data', (text) => {
    shown += text
  })
  const ended = new Promise<number | null>((resolve) => screen.on('close', resolve))
  const seen = async (what: () => boolean) => {
    while (!what()) {
      assert.equal(screen.exitCode, null, shown)
      await delay(20)
    }
  }
  await seen(() => /read .*sent, /s.test(shown))
  await writeFile(go, '')
  await seen(() => existsSync(narrow))
  // What is under way may still be as wide as before.
  const wide = shown.length + 2000
  await seen(() => shown.length > wide + 2000)
  process.kill(Number(await readFile(pid, 'utf8')), 'SIGINT')
  assert.equal(await ended, 130)
  const drawn = shown.slice(wide).split('millrace:')[0] as string
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the cursor is moved to another line by them
  const lines = stripVTControlCharacters(drawn.replace(/\x1b\[\d*[AG]/g, '\n')).split(/[\r\n]+/)
  assert.ok(lines.length > 4)
  for (const line of lines) assert.ok(line.length < 40, line)
  assert.ok(shown.lastIndexOf('\x1b[?25h') > shown.lastIndexOf('\x1b[?25l'))
  assert.ok(shown.lastIndexOf('\x1b[?7h') > shown.lastIndexOf('\x1b[?7l'))
  assert.match(
    stripVTControlCharacters(shown),
    /SIGINT: cleaning up[\s\S]*Interrupted\. Nothing unfinished was left behind/,
  )
  assert.ok(!existsSync(join(folder, 'store')))
  assertNoSecrets(shown, { args: [], env: ENV })
})

test('a terminal that goes away ends the command, which cleans up although nobody can be told', async (t) => {
  const folder = await scratch(t)
  const [pid, source] = [join(folder, 'pid'), join(folder, 'source')]
  await writeFile(source, `echo $PPID > ${pid}.new; mv ${pid}.new ${pid}; exec cat /dev/zero`)
  const args = `backup --to file://${folder}/store --server world --from-command -- sh ${source}`
  const screen = spawn('script', ['-qec', `exec ${MILLRACE} ${args}`, '/dev/null'], { env: ENV })
  screen.stdout.resume()
  while (!existsSync(join(folder, 'store/world')) || !existsSync(pid)) await delay(20)
  screen.kill('SIGKILL')
  const isAlive = (process_: number) => existsSync(`/proc/${process_}/exe`)
  const command = Number(await readFile(pid, 'utf8'))
  while (isAlive(command)) await delay(20)
  assert.ok(!existsSync(join(folder, 'store')))
})

test('colours are for terminals that have them, and obey NO_COLOR, FORCE_COLOR and TERM=dumb', async (t) => {
  const folder = await scratch(t)
  await mkdir(join(folder, 'world'))
  await writeFile(join(folder, 'world/level.dat'), sample(1000))
  const url = `file://${folder}/store`
  assert.equal((await millrace(['backup', join(folder, 'world'), '--to', url])).code, 0)
  const list = `${MILLRACE} list --from ${url}`
  const each = ['', 'NO_COLOR=1', 'TERM=dumb'].map((setting) => `${setting} ${list}; echo =`)
  const { stdout } = await run('script', ['-qec', `stty cols 80; ${each.join('; ')}`, '/dev/null'], { env: ENV })
  const [coloured, ...plain] = stdout.split('=')
  const has = (text: string | undefined) => text !== stripVTControlCharacters(text ?? '')
  assert.deepEqual([has(coloured), has(plain[0]), has(plain[1])], [true, false, false])
  for (const line of stripVTControlCharacters(stdout).split(/\r?\n/)) assert.ok(line.length <= 80, line)

  const piped = (await millrace(['list', '--from', url])).stdout.toString()
  assert.ok(!has(piped))
  assert.match(piped, /SERVER +SNAPSHOT +AGE +STORED +CONTENT +RATIO +KIND +CONSISTENCY +STATE +VERIFIED/)
  assert.match(piped, /world +2.* +folder +live +complete +-\n1 snapshot, .* stored, the newest complete one .*\n$/)
  const forced = (await millrace(['list', '--from', url], { env: { FORCE_COLOR: '1' } })).stdout.toString()
  const ages = (text: string) => text.replaceAll(/\d+ seconds?( ago)?|now/g, 'AGE').replaceAll(/ +/g, ' ')
  assert.ok(has(forced))
  assert.equal(ages(stripVTControlCharacters(forced)), ages(piped))
})

test('a table shortens cells, then leaves columns out, the least first, until it fits', () => {
  const columns = [
    { head: 'NAME', cell: (row: string[]) => row[0] as string },
    { head: 'AGE', cell: (row: string[]) => row[1] as string, short: () => '3h' },
    { head: 'SIZE', cell: (row: string[]) => row[2] as string, right: true, drops: 1 },
    { head: 'NOTE', cell: (row: string[]) => row[3] as string, drops: 2 },
  ]
  const rows = [['world', '\x1b[32m3 hours\x1b[39m', '9', 'a longer note']]
  const widths = (width: number | undefined) =>
    fitTable(columns, rows, width)
      .split('\n')
      .map((line) => stripVTControlCharacters(line))
  assert.deepEqual(widths(undefined), ['NAME   AGE      SIZE  NOTE', 'world  3 hours     9  a longer note'])
  assert.deepEqual(widths(31), ['NAME   AGE  SIZE  NOTE', 'world  3h      9  a longer note'])
  assert.deepEqual(widths(20), ['NAME   AGE      SIZE', 'world  3 hours     9'])
  assert.deepEqual(widths(5), ['NAME   AGE', 'world  3h'])
})

test('--quiet leaves progress and notes out, and warnings stay', async (t) => {
  const folder = await scratch(t)
  const odd = join(folder, 'odd')
  await mkdir(odd)
  await writeFile(join(odd, 'level.dat'), 'x')
  await writeFile(Buffer.concat([Buffer.from(`${odd}/`), Buffer.from([0xff])]), 'x')
  const backup = ['backup', odd, '--to', `file://${folder}/store`, '--prune']
  const loud = await millrace(backup)
  assert.match(loud.stderr, /Warning: [\s\S]*Note: Nothing was pruned/)
  const quiet = await millrace(['-q', ...backup])
  assert.match(quiet.stderr, /^Warning: .*\n$/)
  assert.match(quiet.stdout.toString(), /^Backed up/)
  const json = await millrace([...backup, '--quiet', '--json'])
  assert.deepEqual(
    json.events().map(({ event }) => event),
    ['warning', 'snapshot'],
  )
})

test('--debug and MILLRACE_DEBUG show where an error came from and its causes; nothing else shows a stack', async () => {
  const list = ['list', '--from', 's3://bucket/x?endpoint=http://127.0.0.1:9&region=us-east-1']
  const env = { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: 'not/the+secret=not/the+secret' }
  const plain = await millrace(list, { env: { ...env, MILLRACE_DEBUG: '' } })
  assert.equal(plain.code, 1)
  assert.equal(plain.stderr.trim().split('\n').length, 1, plain.stderr)
  for (const one of [
    await millrace([...list, '--debug'], { env }),
    await millrace(list, { env: { ...env, MILLRACE_DEBUG: '1' } }),
  ]) {
    assert.ok(one.stderr.startsWith(plain.stderr), one.stderr)
    assert.match(
      one.stderr,
      /\nerror \[UNAVAILABLE\]: StorageError: [\s\S]*\n {4}at [\s\S]*\n {2}cause.*: [\s\S]*ECONNREFUSED/,
    )
  }
})

test('a fault of the command itself is one line too, with exit code 1', async () => {
  const boom = `setTimeout(() => { throw new Error('boom') }, 0)`
  const env = {
    NODE_OPTIONS: `--import ${JSON.stringify(`data:text/javascript,process.on('newListener',(name)=>{if(name==='uncaughtException')${boom}})`)}`,
  }
  const stdin = ['decrypt', '--key-file', join(STATE_FOLDER, 'key')]
  await writeFile(join(STATE_FOLDER, 'key'), Buffer.alloc(32, 7))
  const { code, stderr } = await millrace(stdin, { env, input: Buffer.alloc(0) })
  assert.equal(code, 1, stderr)
  assert.match(stderr, /^millrace: boom\n$/)
})

test('a mistyped command or option is told what was meant, with exit code 2', async () => {
  const runs: [string[], RegExp][] = [
    [['bakcup'], /unknown command 'bakcup'\n\(Did you mean backup\?\)/],
    [['list', '--form', 'x'], /unknown option '--form'\n\(Did you mean .*--from.*\)/],
    [['config', 'chekc'], /Did you mean check\?/],
    [['completion', 'tcsh'], /Allowed choices are bash, zsh, fish/],
    [['help', 'backup'], /^$/],
  ]
  const child = childPath('mains')
  const args = runs.map(([one]) => one)
  const { codes, said } = await new Promise<{ codes: string; said: string }>((resolve) => {
    const running = spawn(process.execPath, [child, JSON.stringify(args)], {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    })
    const [, , stderr, fd3] = running.stdio as unknown as [null, null, Readable, Readable]
    Promise.all([text(fd3), text(stderr)]).then(([codes, said]) => resolve({ codes, said }))
  })
  assert.deepEqual(JSON.parse(codes), [2, 2, 2, 2, 0])
  for (const [, says] of runs.slice(0, -1)) assert.match(said, says)
})

test('secrets are taken out of what is said, however they are written', () => {
  noteSecret('pass word/+"')
  noteSecret(Buffer.alloc(32, 0xab))
  for (const text of [
    'pass word/+"',
    encodeURIComponent('pass word/+"'),
    Buffer.from('pass word/+"').toString('base64'),
    JSON.stringify('pass word/+"').slice(1, -1),
    'ab'.repeat(32),
    Buffer.alloc(32, 0xab).toString('base64url'),
  ]) {
    assert.equal(redact(`before ${text} after`), 'before [secret] after')
  }
})
