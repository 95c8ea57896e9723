// `node bench/picture.ts`: draws docs/memory.svg from the newest results of bench/memory.bench.ts.
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { barChart } from './chart.ts'
import { median } from './support.ts'

const MIB = 1024 * 1024

interface Results {
  date: string
  machine: string
  data: Record<string, number[]>
}

/**
 * Peak memory as bars, one for each folder size of each kind of run, with the runs themselves as marks.
 * @param source the name of the file that the results are from, for whoever looks at the picture.
 */
export function memoryPicture({ date, machine, data }: Results, source: string): string {
  const kinds = Map.groupBy(Object.entries(data), ([name]) => name.split(', ')[0] as string)
  const groups = [...kinds].map(([label, rows]) => ({
    label,
    bars: rows.map(([name, peaks]) => {
      const runs = peaks.map((peak) => peak / MIB)
      return { label: name.split(', ')[1]?.replace('.00', '') ?? '', value: Math.round(median(runs)), runs }
    }),
  }))
  return barChart({
    title: 'Peak memory of the whole process, for worlds of 2 and of 4 GiB',
    unit: 'MiB',
    groups,
    note: `Resident memory, the runtime with it. ${date}, ${machine}. Synthetic world; ${source}`,
  })
}

if (import.meta.main) {
  const newest = globSync('memory-*.json', { cwd: join(import.meta.dirname, 'results') })
    .sort()
    .at(-1) as string
  const results = JSON.parse(readFileSync(join(import.meta.dirname, 'results', newest), 'utf8'))
  writeFileSync(join(import.meta.dirname, '../docs/memory.svg'), memoryPicture(results, basename(newest)))
  console.log(`docs/memory.svg is of ${newest}.`)
}
