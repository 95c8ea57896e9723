import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { openStorage } from '../../adapters/open.ts'
import { EVENTS, type EventName, parseEvent } from '../../lib/cli/events.ts'
import { openBackups } from '../../lib/index.ts'
import { newId } from '../../lib/names.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { refusal } from '../fakes/b2-store.ts'
import { childPath } from '../support/children.ts'
import { scratch } from '../support/cli.ts'
import { assertNoSecrets } from '../support/no-secrets.ts'
import { sample } from '../support/streams.ts'
import { makeTree } from '../support/tree.ts'

const GUIDE = join(import.meta.dirname, '../../docs/guides/json.md')
/** Signing in takes a browser: login.test.ts holds its line against its type, and schedule/daemon.test.ts the daemon's. */
const ELSEWHERE: EventName[] = [
  'login',
  'daemon-start',
  'daemon-reload',
  'daemon-stop',
  'run-planned',
  'run-start',
  'run-skipped',
  'run-end',
  'clock-step',
]

/** Pipes what runs of the command say through jq, as a script would. */
async function throughJq(
  runs: string[][],
  env: NodeJS.ProcessEnv,
): Promise<{ codes: number[]; lines: string[]; names: string[] }> {
  const child = spawn(process.execPath, [childPath('mains'), JSON.stringify(runs)], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  const [, stdout, stderr, fd3] = child.stdio as unknown as [null, Readable, Readable, Readable]
  const jq = spawn('jq', ['--compact-output', '--unbuffered', '.'], { stdio: ['pipe', 'pipe', 'inherit'] })
  stdout.pipe(jq.stdin)
  const [raw, out, said, codes] = await Promise.all([text(stdout), text(jq.stdout), text(stderr), text(fd3)])
  assert.notEqual(codes, '', said)
  assertNoSecrets(raw + said, { args: runs.flat(), env })
  const lines = raw.trim().split('\n')
  const again = out.trim().split('\n')
  assert.equal(again.length, lines.length)
  for (const [at, line] of lines.entries()) assert.deepEqual(JSON.parse(again[at] as string), JSON.parse(line))
  return { codes: JSON.parse(codes), lines, names: lines.map((line) => JSON.parse(line).event) }
}

test('each line of --json, of every command, is an event of its type, and jq reads it', async (t) => {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await makeTree(world, [
    { path: 'region', type: 'dir' },
    { path: 'region/r.0.0.mca', type: 'file', content: sample(300_000) },
    { path: 'level.dat', type: 'file', content: sample(5000) },
    { path: 'level.old', type: 'link', target: 'level.dat' },
    { path: 'current', type: 'symlink', target: 'level.dat' },
    { path: 'socket', type: 'socket' },
    { path: 'session.lock', type: 'file', content: 'x' },
  ])
  const odd = join(folder, 'odd')
  await mkdir(odd)
  await writeFile(join(odd, 'level.dat'), 'x')
  await writeFile(Buffer.concat([Buffer.from(`${odd}/`), Buffer.from([0xff, 0xfe])]), 'a name that is not UTF-8')
  await writeFile(join(folder, 'world.zip'), sample(1_100_000))
  const key = randomBytes(32)
  await writeFile(join(folder, 'key'), key)
  const url = `file://${folder}/store`

  // An older snapshot without its companion, and one that is damaged.
  const storage = await openStorage(url)
  t.after(() => storage.close())
  const [adopted, damaged] = [
    await openBackups({ storage, server: 'world', key }),
    await openBackups({ storage, server: 'damaged', key }),
  ]
  const unfinished = await adopted.create(world)
  await storage.delete(`${unfinished.key}.sha256`)
  const broken = await damaged.create(world)
  await truncate(join(folder, 'store', broken.key), broken.storedBytes - 100)

  const fake = await new FakeB2().start()
  t.after(() => fake.close())
  const { bucketName } = fake.store.addBucket('worlds')
  const { keyId, applicationKey } = fake.store.addKey()
  const b2 = `b2://${bucketName}?endpoint=${fake.origin}`
  const place = { provider: 'backblaze-b2', keyId, applicationKey, bucket: bucketName } as const
  const cloud = await openStorage({ ...place, endpoint: fake.origin })
  t.after(() => cloud.close())
  const worlds = await openBackups({ storage: cloud, server: 'world', key })
  for (let i = 0; i < 2; i += 1) await worlds.create(world, { lease: false })
  fake.beforeCall = (name, { fileName }) => {
    if (name === 'b2_delete_file_version' && String(fileName).endsWith('.mlr')) {
      throw refusal(401, 'access_denied', 'no right to delete')
    }
    return undefined
  }

  // An upload that was cut off, with its journal.
  await mkdir(join(folder, 'journals', 'world'), { recursive: true })
  await writeFile(join(folder, 'journals', 'world', `${newId(new Date())}.journal`), 'nothing')

  const config = join(folder, 'millrace.yaml')
  await writeFile(
    config,
    `destinations: { disk: { provider: filesystem, root: store } }
encryption: { key: 'file:key' }
defaults: { retention: { keepDaily: 7 }, schedule: '@hourly' }
servers:
  survival: { source: world }
  gone: { source: nowhere, maxAge: 26h }
  base: { sourceCommand: [echo, one], quiesce: { by: commands, before: 'true', after: 'true', reaches: stopped } }
`,
  )
  const keyed = ['--key-file', join(folder, 'key'), '--json']
  const from = ['--from', url, '--server', 'world']
  const to = ['--to', url]
  const runs: [number, string[]][] = [
    [0, ['backup', world, ...to, '--to', `file://${folder}/other`, ...keyed]],
    [0, ['backup', world, ...to, '--dry-run', '--exclude', '*.old', '--json']],
    [3, ['backup', odd, ...to, '--prune', ...keyed]],
    [
      0,
      [
        'backup',
        ...to,
        '--server',
        'db',
        ...keyed,
        '--from-command',
        '--',
        'sh',
        '-c',
        'echo 1; sleep 0.4; echo 2; sleep 1.2; echo 3',
      ],
    ],
    [1, ['backup', ...to, '--server', 'db', ...keyed, '--from-command', '--', 'false']],
    [0, ['check', ...to, '--json']],
    [0, ['bench', join(folder, 'world.zip'), ...to, '--size', '1MiB', '--seconds', '0.05', '--json']],
    [0, ['list', ...from, '--journal', join(folder, 'journals'), '--json']],
    [0, ['list', '--from', url, '--json']],
    [0, ['list', '--from', url, '--long', ...keyed]],
    [0, ['status', ...from, '--max-age', '1h', '--json']],
    [6, ['status', '--from', url, '--server', 'none', '--json']],
    [0, ['inspect', 'latest', ...from, '--files', ...keyed]],
    [0, ['verify', ...from, ...keyed]],
    [0, ['verify', '--quick', ...from, ...keyed]],
    [0, ['verify', '--sample', '50%', ...from, ...keyed]],
    [0, ['verify', '--restore-test', '--scratch', folder, ...from, ...keyed]],
    [4, ['verify', '--all', '--from', url, '--server', 'damaged', ...keyed]],
    [0, ['list', '--from', url, '--json']],
    [0, ['restore', 'latest', ...from, '--target', join(folder, 'restored'), ...keyed]],
    [5, ['restore', 'latest', ...from, '--target', join(folder, 'restored'), ...keyed]],
    [0, ['pin', 'latest', ...from, '--note', 'before\nthe "update"', '--json']],
    [0, ['pin', ...from, '--json']],
    [0, ['unpin', unfinished.id, ...from, '--json']],
    [0, ['adopt', unfinished.id, ...from, ...keyed]],
    [0, ['prune', ...from, '--keep-last', '1', '--dry-run', '--json']],
    [0, ['prune', ...from, '--keep-last', '1', '--json']],
    [1, ['prune', '--from', b2, '--server', 'world', '--keep-last', '1', '--no-lease', '--json']],
    [0, ['config', 'check', config, '--json']],
    [1, ['backup', '--config', config, '--json']],
    [0, ['resume-saving', '--json']],
    [0, ['history', '--json']],
    [0, ['report', ...from, '-o', join(folder, 'report.html'), '--json']],
    [1, ['doctor', '--config', config, '--json']],
    [0, ['recovery-sheet', '--config', config, '--server', 'survival', '-o', join(folder, 'recovery.html'), '--json']],
    [0, ['install-timer', '--config', config, '--unit-dir', join(folder, 'units'), '--dry-run', '--json']],
    [2, ['list', '--json', '--no-such-option']],
    [2, ['backup', '--json']],
    [1, ['verify', 'latest', '--from', url, '--server', 'nobody', ...keyed]],
  ]
  const env = {
    B2_APPLICATION_KEY_ID: keyId,
    B2_APPLICATION_KEY: applicationKey,
    MILLRACE_RCON_PASSWORD: 'a password for RCON',
    MILLRACE_PASSWORD: 'a password for nothing',
    MILLRACE_STATE_DIR: join(folder, 'state'),
  }
  const args = runs.map(([, one]) => one)
  const { codes, lines, names } = await throughJq(args, env)
  assert.deepEqual(
    codes.map((code, at) => `${code} ${args[at]?.slice(0, 2).join(' ')}`),
    runs.map(([code, one]) => `${code} ${one.slice(0, 2).join(' ')}`),
    lines.filter((line) => line.includes('"error"')).join('\n'),
  )
  for (const line of lines) parseEvent(line)
  assert.deepEqual([...new Set([...names, ...ELSEWHERE])].sort(), Object.keys(EVENTS).sort())
})

test('the guide has an example of every event, and each is one', async () => {
  const guide = await readFile(GUIDE, 'utf8')
  const examples = [...guide.matchAll(/^```json\n(.*?)^```$/gms)].flatMap(([, lines = '']) => lines.trim().split('\n'))
  const names = examples.map((line) => parseEvent(line).event)
  assert.deepEqual([...new Set(names)].sort(), Object.keys(EVENTS).sort())
  for (const name of Object.keys(EVENTS)) assert.match(guide, new RegExp(`^### \`${name}\`$`, 'm'))
})
