import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { localPeers, type Peer, peerEnv, s3Peers } from '../../bench/peers/peers.ts'
import { type Lap, type Laps, turns } from '../../bench/peers/race.ts'
import { limitOf, losses, rowsOf, standings } from '../../bench/peers/verdict.ts'
import { ROOT } from '../../bench/support.ts'

const MIB = 2 ** 20
const PEERS: readonly Peer[] = [...localPeers(), ...s3Peers(1)]

function lap(backup: number, restore: number, peakBytes: number, one?: number): Lap {
  const spent = (seconds: number) => ({ seconds, cpuSeconds: seconds * 2, peakBytes })
  return {
    backup: spent(backup),
    restore: spent(restore),
    ...(one === undefined ? {} : { one: spent(one) }),
    storedBytes: 5 * MIB,
  }
}

const LAPS: Laps = new Map([
  ['millrace', [lap(2, 3, 100 * MIB, 1), lap(9, 3, 100 * MIB, 1), lap(3, 3, 100 * MIB, 1)]],
  ['pipe', [lap(4, 2, 30 * MIB), lap(4, 2, 30 * MIB), lap(5, 2, 30 * MIB)]],
  ['restic', [lap(10, 6, 200 * MIB, 2)]],
])

function folder(): string {
  return mkdtempSync(join(tmpdir(), 'millrace-peers-'))
}

it('every line of a peer is bash, and of the commands that it starts each is said to be needed', () => {
  for (const peer of PEERS) {
    for (const line of [peer.prepare, peer.backup, peer.restore, peer.one ?? ':']) {
      execFileSync('bash', ['-n', '-c', `{ ${line}\n}`])
      for (const command of ['age', 'aws', 'borg', 'openssl', 'rclone', 'restic', 'tar', 'zstd'] as const) {
        const starts = new RegExp(`(^|[|&({] ?)${command} `).test(line)
        if (starts) assert.ok(peer.needs.includes(command), `${peer.name}: ${line} starts ${command}`)
      }
    }
  }
})

it('the AWS command is told a size only when its parts would be too many', () => {
  const backup = (bytes: number) => s3Peers(bytes).find(({ needs }) => needs.includes('aws'))?.backup
  assert.doesNotMatch(backup(2 ** 31) as string, /expected-size/)
  assert.match(backup(2 ** 36) as string, / --expected-size 68719476736 - "s3:/)
})

it('what the environment says to the programs does not reach their lines, and their state stays in the bench', () => {
  process.env.RESTIC_REPOSITORY = '/elsewhere'
  try {
    const env = peerEnv({ world: '/w', store: '/s', out: '/o', state: '/state', file: 'f' })
    assert.equal(env.RESTIC_REPOSITORY, undefined)
    assert.ok('RESTIC_REPOSITORY' in env)
    for (const name of ['BORG_BASE_DIR', 'RCLONE_CONFIG', 'XDG_CACHE_HOME', 'MILLRACE_STATE_DIR', 'TMPDIR']) {
      assert.match(env[name] as string, /^\/state\//)
    }
  } finally {
    delete process.env.RESTIC_REPOSITORY
  }
})

it('each round begins with another one, and everyone has a turn', () => {
  const rounds = [0, 1, 2].map((round) => turns(['a', 'b', 'c', 'd', 'e', 'f'], round, 3))
  assert.deepEqual(
    rounds.map(([first]) => first),
    ['a', 'c', 'e'],
  )
  for (const round of rounds) assert.deepEqual([...round].sort(), ['a', 'b', 'c', 'd', 'e', 'f'])
  assert.deepEqual(turns(['a', 'b'], 2, 3), ['a', 'b'])
})

it('a bar is met or missed by the medians, against a named peer and against the fastest', () => {
  const rows = rowsOf(LAPS, { backup: { pipe: 0.7, restic: 0.3 }, restore: 0.7 })
  const bars = rows.map(([what, program, , , , , , ratio, bar]) => [what, program, ratio, bar])
  assert.deepEqual(bars, [
    ['backup', 'millrace', '', ''],
    ['backup', 'pipe', '0.75', '0.70: missed'],
    ['backup', 'restic', '0.30', '0.30: met'],
    ['whole restore', 'millrace', '', ''],
    ['whole restore', 'pipe', '1.50', '0.70: missed'],
    ['whole restore', 'restic', '0.50', ''],
    ['one file', 'millrace', '', ''],
    ['one file', 'restic', '0.50', ''],
  ])
  const all = standings(LAPS, 'restore')
  assert.equal(limitOf({ restore: 0.7 }, 'restore', 'restic', all), undefined)
})

it('every loss is said: time, CPU and memory', () => {
  const [backup, restore, ...more] = losses(LAPS)
  assert.equal(backup, 'millrace loses, backup: more memory than pipe (30.0 MiB) with 100 MiB.')
  assert.match(restore as string, /^millrace loses, whole restore: slower than pipe \(2\.00 s\) with 3\.00 s; more CPU/)
  assert.deepEqual(more, [])
})

it('a bench that is ended takes its lines of bash and its folder with it', async () => {
  const place = folder()
  const program = `
    import { tidily } from '${ROOT}/bench/peers/tidy.ts'
    import { measureShell } from '${ROOT}/bench/support.ts'
    import { appendFileSync, writeFileSync } from 'node:fs'
    await tidily(async (folder, later) => {
      later(() => appendFileSync('${place}/log', 'undone'))
      writeFileSync(folder + '/data', 'data')
      await measureShell('sleep 1000 & echo $! > ${place}/pid; echo > ${place}/ready; wait')
    })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    env: { ...process.env, MILLRACE_BENCH_DIR: join(place, 'benches') },
    stdio: 'inherit',
  })
  try {
    mkdirSync(join(place, 'benches'))
    while (!existsSync(join(place, 'ready')) && child.exitCode === null)
      await new Promise((done) => setTimeout(done, 20))
    assert.equal(readdirSync(join(place, 'benches')).length, 1)
    child.kill('SIGTERM')
    assert.deepEqual(await once(child, 'exit'), [143, null])
    assert.deepEqual(readdirSync(join(place, 'benches')), [])
    assert.ok(existsSync(join(place, 'log')))
    const pid = execFileSync('cat', [join(place, 'pid')], { encoding: 'utf8' }).trim()
    // It was killed before the child ended; the kernel may still be at it.
    for (let tries = 0; runs(pid) && tries < 500; tries += 1) await new Promise((done) => setTimeout(done, 20))
    assert.ok(!runs(pid), 'the line of bash still runs')
  } finally {
    child.kill('SIGKILL')
    rmSync(place, { recursive: true })
  }
})

/** Not as a zombie that nobody has waited for yet. */
function runs(pid: string): boolean {
  try {
    return !/^State:\s+Z/m.test(execFileSync('cat', [`/proc/${pid}/status`], { encoding: 'utf8', stdio: 'pipe' }))
  } catch {
    return false
  }
}

it('a command that is not there, where it cannot be installed, is named with its package', () => {
  const place = folder()
  try {
    symlinkSync(execFileSync('which', ['bash'], { encoding: 'utf8' }).trim(), join(place, 'bash'))
    writeFileSync(join(place, 'tar'), '#!/bin/sh\n', { mode: 0o755 })
    const program = `
      import { install } from '${ROOT}/bench/peers/peers.ts'
      install(['tar', 'borg', 'aws', 'borg'])`
    const args = ['--input-type=module', '-e', program]
    const wanted = /needs borg, aws, which this machine has not\. .*apt-get install borgbackup awscli\./
    const run = () => execFileSync(process.execPath, args, { env: { PATH: place }, encoding: 'utf8', stdio: 'pipe' })
    assert.throws(run, (error: { stderr: string }) => wanted.test(error.stderr))
  } finally {
    rmSync(place, { recursive: true })
  }
})
