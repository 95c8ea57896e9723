// What does each stage of a backup and of a restore cost alone, and what do the two cost against their sums? The bars of a
// backup: 1.25 of the stages' CPU, and all cores 85 % busy. MILLRACE_BENCH_BYTES sets the size of the world (2 GiB).
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { barChart } from './chart.ts'
import { Child, medianOf, RUNS, runsText, type Work, withRuns } from './child.ts'
import { BIN, build, type Cost, measureShell, publish, touchMemory, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)
const CPU_BAR = 1.25
const BUSY_BAR = 0.85
const CORES = availableParallelism()
/** Those that each is made of; each gets the bytes that it has there. */
const STAGES = {
  backup: {
    read: 'read: the folder as a tar stream',
    zstd: 'zstd, level 3',
    aes: 'AES-256-GCM of what zstd gave',
    sha256: 'SHA-256 of the sealed bytes',
    write: 'write to a folder in memory',
  },
  restore: {
    get: 'read from a folder in memory',
    sha256: 'SHA-256 of the sealed bytes',
    open: 'AES-256-GCM, opened',
    unzstd: 'zstd, decompressed',
    extract: 'extract: the tar stream to a folder in memory',
  },
}
type Way = keyof typeof STAGES
const WAYS = Object.keys(STAGES) as Way[]
/** Each stage once, though both may have it. */
const ALL = new Set(WAYS.flatMap((way) => Object.keys(STAGES[way])))

build()
await withFolder(bench)

async function bench(folder: string): Promise<void> {
  const world = join(folder, 'world')
  writeWorld(world, { bytes: BYTES })
  const nearlyNothing = join(folder, 'small')
  mkdirSync(nearlyNothing)
  writeFileSync(join(nearlyNothing, 'level.dat'), 'a file')
  const child = new Child('stage-child', folder)
  const store = join(folder, 'store')
  const target = join(folder, 'target')
  const options = JSON.stringify({ store: { provider: 'filesystem', root: store }, target, touch: folder })
  const env = { MILLRACE_PASSWORD: 'a bench', MILLRACE_STATE_DIR: join(folder, 'state') }
  const millrace = (...args: string[]) => measureShell([process.execPath, BIN, ...args].map(quoted).join(' '), { env })
  const clean = () => {
    for (const one of [store, target]) rmSync(one, { recursive: true, force: true })
  }
  const both = async (source: string): Promise<Record<Way, Cost>> => {
    touchMemory(folder, BYTES)
    const backup = await millrace('backup', source, '--to', `file://${store}`, '--server', 'world')
    touchMemory(folder, BYTES)
    const restore = await millrace(
      'restore',
      'latest',
      '--target',
      target,
      '--from',
      `file://${store}`,
      '--server',
      'world',
    )
    clean()
    return { backup, restore }
  }

  const stages = Object.fromEntries([...ALL].map((stage) => [stage, [] as Work[]]))
  const idle: Cost[] = []
  const pbkdf2: Work[] = []
  const start: Record<Way, Cost[]> = { backup: [], restore: [] }
  const whole: Record<Way, Cost[]> = { backup: [], restore: [] }
  for (let run = 0; run < RUNS; run += 1) {
    idle.push(await measureShell([process.execPath, ...child.args('idle')].map(quoted).join(' ')))
    pbkdf2.push(await child.run(['pbkdf2']))
    for (const stage of ALL) {
      touchMemory(folder, BYTES)
      stages[stage]?.push(await child.run([stage, world, options]))
      clean()
    }
    for (const [costs, source] of [[start, nearlyNothing] as const, [whole, world] as const]) {
      const cost = await both(source)
      for (const way of WAYS) costs[way].push(cost[way])
    }
  }

  const said: string[] = []
  const rows: string[][] = []
  const groups: Parameters<typeof barChart>[0]['groups'][number][] = []
  const figures = {} as Record<Way, unknown>
  const known = medianOf(idle, 'cpuSeconds') + medianOf(pbkdf2, 'cpuSeconds')
  for (const way of WAYS) {
    const parts = Object.entries(STAGES[way]).map(([stage, name]) => ({ name, runs: stages[stage] as Work[] }))
    const sum = (field: 'cpuSeconds' | 'seconds') => parts.reduce((total, { runs }) => total + medianOf(runs, field), 0)
    const cpu = { whole: medianOf(whole[way], 'cpuSeconds'), start: medianOf(start[way], 'cpuSeconds') }
    const wall = { whole: medianOf(whole[way], 'seconds'), start: medianOf(start[way], 'seconds') }
    const ratios = {
      ofStages: cpu.whole / sum('cpuSeconds'),
      ofStagesAndStart: cpu.whole / (sum('cpuSeconds') + known),
      withoutStart: (cpu.whole - cpu.start) / sum('cpuSeconds'),
    }
    const busy = {
      whole: cpu.whole / (CORES * wall.whole),
      withoutStart: (cpu.whole - cpu.start) / (CORES * (wall.whole - wall.start)),
    }
    // Were the cores never idle; the start, most of which has to come before the rest, left out.
    const floor = sum('cpuSeconds') / CORES
    figures[way] = { sum: sum('cpuSeconds'), ratios, busy, floor }
    const bar = (text: string) => (way === 'backup' ? ` (bar ${text})` : '')
    said.push(
      `the ${way}'s CPU is ${ratios.ofStages.toFixed(2)} of the sum of its stages, ${ratios.ofStagesAndStart.toFixed(2)} of the sum with PBKDF2 and the idle runtime, ${ratios.withoutStart.toFixed(2)} without its start${bar(String(CPU_BAR))}; the ${CORES} cores are ${percent(busy.whole)} busy over all, ${percent(busy.withoutStart)} without the start${bar(percent(BUSY_BAR))}; were they never idle, its stages alone would take ${floor.toFixed(2)} s of its ${wall.whole.toFixed(2)}`,
    )
    rows.push(
      ...parts.map(({ name, runs }) => row(`${way}: ${name}`, runs, medianOf(runs, 'bytesIn'))),
      [`${way}: sum of these`, sum('cpuSeconds').toFixed(2), sum('seconds').toFixed(2), ''],
      row(`\`millrace ${way}\` of one small file: all of the start`, start[way]),
      row(`\`millrace ${way}\` of the world`, whole[way], BYTES),
    )
    groups.push(
      {
        label: `each stage of a ${way} alone`,
        bars: [
          ...parts.map(({ name, runs }) => bars(name, runs)),
          bars('PBKDF2', pbkdf2),
          bars('the idle runtime', idle),
        ],
      },
      {
        label: 'all of them',
        bars: [
          { label: 'the sum', value: sum('cpuSeconds') + known },
          {
            ...bars(`millrace ${way}`, whole[way]),
            ...(way === 'backup' ? { bar: CPU_BAR * (sum('cpuSeconds') + known) } : {}),
          },
        ],
      },
    )
  }
  rows.push(row('both: PBKDF2, 600,000 iterations', pbkdf2), row('both: the runtime, with the modules, idle', idle))
  const text = said.map((one) => `${one[0]?.toUpperCase()}${one.slice(1)}.`).join(' ')
  publish(
    'stages',
    `What each stage of a backup of ${formatBytes(BYTES)} and of its restore costs alone, and what the whole costs; ${runsText(RUNS)}, in turn. ${text}`,
    ['what', 'CPU s', 'time s', 'MiB/s'],
    rows,
    { stages, pbkdf2, idle, start, whole, figures, bars: { cpu: CPU_BAR, busy: BUSY_BAR } },
    [
      'Synthetic world (bench/world.ts), stores and all in memory (tmpfs). Each stage has a process of its own and the chunks that it has in the chain, made beforehand; its start is not counted. zstd has the default threads.',
      'The whole is the built command with a password, all of its processes, its start with it: loading, PBKDF2, looking through the folder, and the lease.',
      'Without the start: less what the same of a folder with one small file costs.',
      'Before each the memory for it is touched and freed: a virtual machine may have to get it back from its host first.',
    ],
    barChart({
      title: `CPU time of a backup of ${formatBytes(BYTES)} and of its restore, and of their stages alone`,
      unit: 's',
      groups,
      note: text,
    }),
  )
}

function row(name: string, runs: readonly { cpuSeconds: number; seconds: number }[], bytes?: number): string[] {
  return [
    name,
    withRuns(runs.map((one) => one.cpuSeconds)),
    withRuns(runs.map((one) => one.seconds)),
    bytes === undefined ? '' : (bytes / 2 ** 20 / medianOf(runs, 'seconds')).toFixed(0),
  ]
}

function bars(label: string, runs: readonly { cpuSeconds: number }[]) {
  return { label, value: medianOf(runs, 'cpuSeconds'), runs: runs.map((one) => one.cpuSeconds) }
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`
}

/** One word for bash, whatever is in it. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
