// What do three destinations cost in one pass, against one? The bar is 1.25 of the CPU time of one.
// MILLRACE_BENCH_BYTES sets the size of the world (2 GiB).
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { BIN, build, measure, median, publish, withFolder } from './support.ts'
import { writeWorld } from './world.ts'

const RUNS = 3
const BAR = 1.25
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)

/** Runs the command in a process that writes the CPU seconds it took, user and system, into a file. */
const TIMED = `
  process.on('exit', () => {
    const { user, system } = process.cpuUsage()
    require('node:fs').writeFileSync(process.env.MILLRACE_BENCH_CPU, String((user + system) / 1e6))
  })`

build()
await withFolder(async (folder) => {
  const world = join(folder, 'world')
  writeWorld(world, { bytes: BYTES, smallFiles: 1000 })
  const cpuFile = join(folder, 'cpu')
  const hook = `data:text/javascript,${encodeURIComponent(`import { createRequire } from 'node:module'; const require = createRequire('/'); ${TIMED}`)}`
  const results: { count: number; cpu: number; seconds: number; peakBytes: number }[] = []
  for (let run = 0; run < RUNS; run += 1) {
    for (const count of [1, 3]) {
      const stores = Array.from({ length: count }, (_, index) => join(folder, `store-${run}-${count}-${index}`))
      const to = stores.flatMap((store) => ['--to', `file://${store}`])
      const { seconds, peakBytes } = await measure(
        process.execPath,
        ['--import', hook, BIN, 'backup', world, ...to, '--server', 'world'],
        { MILLRACE_PASSWORD: 'a bench', MILLRACE_BENCH_CPU: cpuFile },
      )
      results.push({ count, cpu: Number(readFileSync(cpuFile, 'utf8')), seconds, peakBytes })
      await measure('rm', ['-r', ...stores])
    }
  }
  const of = (count: number) => results.filter((one) => one.count === count)
  const cpu = (count: number) => median(of(count).map((one) => one.cpu))
  const ratio = cpu(3) / cpu(1)
  publish(
    'destinations',
    `CPU time of a backup of ${formatBytes(BYTES)} to one folder, and to three in one pass. Three take ${ratio.toFixed(2)} of one; the bar is ${BAR}.`,
    ['destinations', 'CPU, median', 'CPU, runs', 'time, median', 'largest memory'],
    [1, 3].map((count) => [
      String(count),
      `${cpu(count).toFixed(2)} s`,
      of(count)
        .map((one) => one.cpu.toFixed(2))
        .join(', '),
      `${median(of(count).map((one) => one.seconds)).toFixed(2)} s`,
      formatBytes(Math.max(...of(count).map((one) => one.peakBytes))),
    ]),
    { results, ratio, bar: BAR },
    [
      'The stores are folders beside the world, in memory where there is room. CPU is user and system time of the process.',
      'A network store costs what its own requests cost beside this, for each destination.',
    ],
  )
})
