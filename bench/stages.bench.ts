// What does each stage of a backup cost alone, and what does the whole backup cost against their sum? The bars: 1.25 of
// the stages' CPU, and all cores 85 % busy. MILLRACE_BENCH_BYTES sets the size of the world (2 GiB).
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { barChart } from './chart.ts'
import { Child, medianOf, RUNS, runsText, type Work, withRuns } from './child.ts'
import { BIN, build, type Cost, measureShell, publish, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)
const CPU_BAR = 1.25
const BUSY_BAR = 0.85
const CORES = availableParallelism()
/** Those that a backup is made of; each gets the bytes that it has there. */
const STAGES = {
  read: 'read: the folder as a tar stream',
  zstd: 'zstd, level 3',
  aes: 'AES-256-GCM of what zstd gave',
  sha256: 'SHA-256 of the sealed bytes',
  write: 'write to a folder in memory',
}
type Stage = keyof typeof STAGES

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
  const options = JSON.stringify({ store: { provider: 'filesystem', root: store } })
  const env = { MILLRACE_PASSWORD: 'a bench', MILLRACE_STATE_DIR: join(folder, 'state') }
  const backup = async (source: string) => {
    const command = [BIN, 'backup', source, '--to', `file://${store}`, '--server', 'world']
    const cost = await measureShell([process.execPath, ...command].map(quoted).join(' '), { env })
    rmSync(store, { recursive: true })
    return cost
  }

  const stages = Object.fromEntries(Object.keys(STAGES).map((stage) => [stage, []])) as unknown as Record<Stage, Work[]>
  const idle: Cost[] = []
  const pbkdf2: Work[] = []
  const start: Cost[] = []
  const whole: Cost[] = []
  for (let run = 0; run < RUNS; run += 1) {
    idle.push(await measureShell([process.execPath, ...child.args('idle')].map(quoted).join(' ')))
    pbkdf2.push(await child.run(['pbkdf2']))
    for (const stage of Object.keys(STAGES) as Stage[]) {
      stages[stage].push(await child.run([stage, world, options]))
      rmSync(store, { recursive: true, force: true })
    }
    start.push(await backup(nearlyNothing))
    whole.push(await backup(world))
  }

  const sum = (field: 'cpuSeconds' | 'seconds') =>
    Object.values(stages).reduce((total, runs) => total + medianOf(runs, field), 0)
  const cpu = { whole: medianOf(whole, 'cpuSeconds'), start: medianOf(start, 'cpuSeconds') }
  const wall = { whole: medianOf(whole, 'seconds'), start: medianOf(start, 'seconds') }
  const known = medianOf(idle, 'cpuSeconds') + medianOf(pbkdf2, 'cpuSeconds')
  const ratios = {
    ofStages: cpu.whole / sum('cpuSeconds'),
    ofStagesAndStart: cpu.whole / (sum('cpuSeconds') + known),
    withoutStart: (cpu.whole - cpu.start) / sum('cpuSeconds'),
  }
  const busy = {
    whole: cpu.whole / (CORES * wall.whole),
    withoutStart: (cpu.whole - cpu.start) / (CORES * (wall.whole - wall.start)),
  }
  const row = (name: string, runs: readonly { cpuSeconds: number; seconds: number }[], bytes?: number) => [
    name,
    withRuns(runs.map((one) => one.cpuSeconds)),
    withRuns(runs.map((one) => one.seconds)),
    bytes === undefined ? '' : (bytes / 2 ** 20 / medianOf(runs, 'seconds')).toFixed(0),
  ]
  const rows = [
    ...(Object.keys(STAGES) as Stage[]).map((stage) =>
      row(STAGES[stage], stages[stage], medianOf(stages[stage], 'bytesIn')),
    ),
    ['sum of these', sum('cpuSeconds').toFixed(2), sum('seconds').toFixed(2), ''],
    row('PBKDF2, 600,000 iterations', pbkdf2),
    row('the runtime, with the modules, idle', idle),
    row('`millrace backup` of one small file: all of the start', start),
    row('`millrace backup` of the world', whole, medianOf(stages.read, 'bytesIn')),
  ]
  const said = [
    `Its CPU is ${ratios.ofStages.toFixed(2)} of the sum of its stages, ${ratios.ofStagesAndStart.toFixed(2)} of the sum with PBKDF2 and the idle runtime, ${ratios.withoutStart.toFixed(2)} without its start (bar ${CPU_BAR})`,
    `the ${CORES} cores are ${percent(busy.whole)} busy over all, ${percent(busy.withoutStart)} without the start (bar ${percent(BUSY_BAR)})`,
  ]
  const question = `What each stage of a backup of ${formatBytes(BYTES)} costs alone, and what the whole costs; ${runsText(RUNS)}, in turn.`
  const bars = (list: [string, readonly { cpuSeconds: number }[]][]) =>
    list.map(([label, runs]) => ({
      label,
      value: medianOf(runs, 'cpuSeconds'),
      runs: runs.map((one) => one.cpuSeconds),
    }))
  publish(
    'stages',
    `${question} ${said.join('; ')}.`,
    ['what', 'CPU s', 'time s', 'MiB/s'],
    rows,
    { stages, pbkdf2, idle, start, whole, ratios, busy, bars: { cpu: CPU_BAR, busy: BUSY_BAR } },
    [
      'Synthetic world (bench/world.ts), stores and all in memory (tmpfs). Each stage has a process of its own and the chunks that it has in the chain, made beforehand; its start is not counted. zstd has the default threads.',
      'The whole is the built command with a password, all of its processes, its start with it: loading, PBKDF2, looking through the folder, and the lease.',
      'Without the start: less what a backup of a folder with one small file costs.',
    ],
    barChart({
      title: `CPU time of a backup of ${formatBytes(BYTES)}, and of its stages alone`,
      unit: 's',
      groups: [
        {
          label: 'each stage alone',
          bars: bars([
            ...(Object.keys(STAGES) as Stage[]).map((stage) => [STAGES[stage], stages[stage]] as [string, Work[]]),
            ['PBKDF2', pbkdf2],
            ['the idle runtime', idle],
          ]),
        },
        {
          label: 'all of them',
          bars: [
            { label: 'the sum', value: sum('cpuSeconds') + known },
            { ...bars([['millrace backup', whole]])[0]!, bar: CPU_BAR * (sum('cpuSeconds') + known) },
          ],
        },
      ],
      note: said.map((one) => `${one[0]?.toUpperCase()}${one.slice(1)}.`).join(' '),
    }),
  )
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`
}

/** One word for bash, whatever is in it. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
