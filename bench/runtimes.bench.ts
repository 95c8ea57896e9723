// Do the stages of a backup run equally fast on each line of Node that is supported?
// MILLRACE_BENCH_BYTES sets the size of the world (1 GiB).
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { barChart } from './chart.ts'
import { Child, medianOf, RUNS, runsText, type Work, withRuns } from './child.ts'
import { build, median, publish, ROOT, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 ** 30)
/** The devDependencies that bring them. */
const RUNTIMES = ['node22', 'node', 'node26']
const STAGES = {
  read: 'read',
  zstd: 'zstd, level 3',
  aes: 'AES-256-GCM',
  sha256: 'SHA-256',
  chain: 'all of these in one chain',
}
type Stage = keyof typeof STAGES
type Run = Work & { peakBytes: number; node: string; zstd: string }

build()
await withFolder(bench)

async function bench(folder: string): Promise<void> {
  const world = join(folder, 'world')
  writeWorld(world, { bytes: BYTES })
  const child = new Child('stage-child', folder)
  const stages = Object.keys(STAGES) as Stage[]
  const runs: Record<string, Run[]> = {}
  const of = (stage: Stage, runtime: string) => runs[`${stage}, ${runtime}`] as Run[]
  for (let run = 0; run < RUNS; run += 1) {
    for (const stage of stages) {
      for (const runtime of RUNTIMES) {
        const node = join(ROOT, 'node_modules', runtime, 'bin/node')
        const made = await child.run<Run>([stage, world], { node })
        const name = `${stage}, ${runtime}`
        runs[name] = [...(runs[name] ?? []), made]
      }
    }
  }
  const named = (runtime: string) => `Node ${of('read', runtime)[0]?.node}`
  const rates = (stage: Stage, runtime: string) =>
    of(stage, runtime).map(({ bytesIn, seconds }) => bytesIn / 2 ** 20 / seconds)
  publish(
    'runtimes',
    `MiB a second that each stage of a backup takes in, alone, and the chain of them, on each line of Node; a world of ${formatBytes(BYTES)}, ${runsText(RUNS)}, in turn.`,
    ['stage', ...RUNTIMES.map(named), 'peak RSS, in the same order'],
    stages.map((stage) => [
      STAGES[stage],
      ...RUNTIMES.map((runtime) => withRuns(rates(stage, runtime), 0)),
      stage === 'read' || stage === 'chain'
        ? RUNTIMES.map((runtime) => formatBytes(medianOf(of(stage, runtime), 'peakBytes'))).join(', ')
        : '',
    ]),
    runs,
    [
      `${RUNTIMES.map((runtime) => `${named(runtime)} has zstd ${of('read', runtime)[0]?.zstd}`).join(', ')}.`,
      'Each in a process of its own, whose start is not counted; the world in memory (tmpfs), what comes out thrown away. zstd gets the archive, AES what zstd gave, SHA-256 what AES gave; these hold their input in memory, so their peaks say nothing.',
    ],
    barChart({
      title: 'Stages of a backup on each line of Node',
      unit: 'MiB/s',
      groups: stages.map((stage) => ({
        label: STAGES[stage],
        bars: RUNTIMES.map((runtime) => ({
          label: named(runtime),
          value: median(rates(stage, runtime)),
          runs: rates(stage, runtime),
        })),
      })),
      note: `A synthetic world of ${formatBytes(BYTES)} in memory.`,
    }),
  )
}
