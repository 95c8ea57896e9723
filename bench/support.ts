import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { cpus, freemem, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { formatBytes, formatTable } from '../lib/cli/format.ts'

export const ROOT = join(import.meta.dirname, '..')
export const BIN = join(ROOT, 'dist/bin/millrace.js')

/** A new folder for a bench's data: in memory where there is room, so that the disk is not what is measured. */
export function benchFolder(): string {
  return mkdtempSync(
    join(process.env.MILLRACE_BENCH_DIR ?? (existsSync('/dev/shm') ? '/dev/shm' : tmpdir()), 'millrace-bench-'),
  )
}

/** Of statfs(2). */
const TMPFS_MAGIC = 0x0102_1994
const TOUCH_BYTES = 16 * 1024 * 1024

/**
 * Touches memory that the next program is going to use, and frees it. In a virtual machine whose host takes back what is
 * free, whoever uses it first pays for all of it, up to twice a run's time: that would be a matter of the order. Does
 * nothing for a folder on a disk.
 * @param bytes at most half of what is free.
 */
export function touchMemory(folder: string, bytes: number): void {
  if (statfsSync(folder).type !== TMPFS_MAGIC) return
  const file = join(folder, 'touched')
  const zeros = Buffer.alloc(TOUCH_BYTES)
  const fd = openSync(file, 'w')
  try {
    for (let left = Math.min(bytes, freemem() / 2); left > 0; left -= TOUCH_BYTES) writeSync(fd, zeros)
  } finally {
    closeSync(fd)
    rmSync(file)
  }
}

export interface Measured {
  seconds: number
  /** The process's largest resident set, as the kernel counted it. */
  peakBytes: number
  /** The median of its resident set over its life. */
  usualBytes: number
  stdout: string
}

const POLL_MS = 10

/** What one run of a command cost, all of its processes together. */
export interface Cost {
  /** Wall time. */
  seconds: number
  /** User and system time of every process that it waited for. */
  cpuSeconds: number
  /** The largest sum of the resident sets of its processes; pages that they share are counted for each. */
  peakBytes: number
  stdout: string
}

/** The process groups of lines that are running. */
const lines = new Set<number>()

/** Ends every line of bash that is running, with all that it started; `measureShell` then throws. */
export function endLines(): void {
  for (const group of lines) {
    try {
      process.kill(-group, 'SIGKILL')
    } catch {}
  }
}

const TIMES = /^MILLRACE_TIMES (\S+) (\S+) (\S+)$/m

/**
 * Runs a line of bash, a pipe too, to its end.
 * @throws Error with what it wrote to stderr, when any part of it fails.
 */
export async function measureShell(
  line: string,
  { cwd = ROOT, env = {} }: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Cost> {
  const script = `set -o pipefail; TIMEFORMAT='MILLRACE_TIMES %R %U %S'; time { ${line}\n}`
  const child = spawn('bash', ['-c', script], {
    cwd,
    env: { ...process.env, LC_ALL: 'C', ...env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (child.pid !== undefined) lines.add(child.pid)
  let peakBytes = 0
  const poll = setInterval(() => {
    peakBytes = Math.max(peakBytes, residentBytes(child.pid as number))
  }, POLL_MS * 5)
  const { code, stdout, stderr } = await endOf(child).finally(() => {
    lines.delete(child.pid as number)
    clearInterval(poll)
  })
  const times = TIMES.exec(stderr)
  if (code !== 0 || !times) throw new Error(`${line} ended with ${code}: ${stderr.slice(-2000)}`)
  const [seconds, user, system] = times.slice(1).map(Number) as [number, number, number]
  return { seconds, cpuSeconds: user + system, peakBytes, stdout }
}

/** Of all processes of a group, now. */
function residentBytes(group: number): number {
  let bytes = 0
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      // proc_pid_stat(5): after the name in parentheses come state, ppid and the process group.
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]) !== group) continue
      const found = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${name}/status`, 'utf8'))
      if (found) bytes += Number(found[1]) * 1024
    } catch {}
  }
  return bytes
}

async function endOf(child: ChildProcessByStdio<null, Readable, Readable>) {
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve)),
  ])
  return { code, stdout, stderr }
}

/** Runs a program to its end. @throws Error when it fails. */
export async function measure(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Measured> {
  const begun = performance.now()
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let peakBytes = 0
  const resident: number[] = []
  // VmHWM is the peak since the start: only its last value counts, so a poll can miss growth in the last ms alone.
  const poll = setInterval(() => {
    try {
      const found = /VmHWM:\s+(\d+) kB\nVmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))
      if (!found) return
      peakBytes = Number(found[1]) * 1024
      resident.push(Number(found[2]) * 1024)
    } catch {}
  }, POLL_MS)
  const { code, stdout, stderr } = await endOf(child).finally(() => clearInterval(poll))
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${stderr}`)
  return {
    seconds: (performance.now() - begun) / 1000,
    peakBytes,
    usualBytes: resident.length > 0 ? median(resident) : 0,
    stdout,
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

/** Builds dist/, which is what users run: type stripping alone takes 30 MiB. */
export function build(): void {
  execFileSync('npm', ['run', '-s', 'build'], { cwd: ROOT, stdio: 'inherit' })
}

/**
 * Prints a bench's table and writes it with its data and its picture (SVG), dated, into bench/results, or
 * MILLRACE_BENCH_RESULTS.
 */
export function publish(
  bench: string,
  question: string,
  header: readonly string[],
  rows: readonly (readonly string[])[],
  data: unknown,
  given: readonly string[],
  picture?: string,
): void {
  const isRealtime = process.env.MILLRACE_BENCH_SCHEDULER === 'rr'
  const name = isRealtime ? `${bench}-rr` : bench
  const caveats = isRealtime ? [REALTIME, ...given] : given
  const date = new Date().toISOString().slice(0, 10)
  const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, ${formatBytes(totalmem())}, Node ${process.versions.node}, zstd ${process.versions.zstd}, Linux`
  console.log(`\n${question}\n${machine}\n\n${formatTable(header, rows)}\n`)
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  const table = [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n')
  const text = `# ${name}\n\n${question}\n\n${date}. ${machine}.\n\n${table}\n\n${caveats.map((one) => `- ${one}`).join('\n')}\n`
  const folder = process.env.MILLRACE_BENCH_RESULTS ?? join(import.meta.dirname, 'results')
  mkdirSync(folder, { recursive: true })
  const base = join(folder, `${name}-${date}`)
  writeFileSync(`${base}.md`, text)
  if (picture !== undefined) writeFileSync(`${base}.svg`, picture)
  writeFileSync(`${base}.json`, `${JSON.stringify({ name, question, date, machine, data, caveats }, null, 2)}\n`)
}

const REALTIME =
  'All of it, the others too, ran under SCHED_RR: a thread that wakes takes a core that idles. Under the default of this machine it often waits for a busy one (see the file of the same name without rr).'

/** Brings up the S3 server of the tests, unless MILLRACE_S3_ENDPOINT names one. @returns its environment, and its end. */
export function startS3(): { env: Record<string, string>; stop: () => void } {
  if (process.env.MILLRACE_S3_ENDPOINT) return { env: {}, stop: () => {} }
  const script = (name: string) => join(ROOT, 'test/servers', name)
  const said = execFileSync('bash', [script('ceph-up.sh')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  const line = said.trim().split('\n').at(-1) as string
  const env = Object.fromEntries([...line.matchAll(/(\w+)=(\S+)/g)].map((match) => [match[1], match[2]]))
  Object.assign(process.env, env)
  return { env, stop: () => execFileSync('bash', [script('ceph-down.sh')], { stdio: 'ignore' }) }
}

export function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = benchFolder()
  return work(folder).finally(() => rmSync(folder, { recursive: true, force: true }))
}
