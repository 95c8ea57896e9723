// `node bench/picture.ts`: draws docs/memory.svg from the newest results of bench/memory.bench.ts.
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { median } from './support.ts'

const MIB = 1024 * 1024
const WIDTH = 720
const [LEFT, BAR, GAP, TOP] = [216, 16, 6, 64]
const TICKS = [0, 100, 200, 300]

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
  const groups = Map.groupBy(Object.entries(data), ([name]) => name.split(', ')[0] as string)
  const at = (mib: number) => LEFT + (mib / (TICKS.at(-1) as number)) * (WIDTH - LEFT - 90)
  const parts: string[] = []
  let y = TOP
  for (const [what, rows] of groups) {
    parts.push(`<text x="${LEFT - 70}" y="${y + BAR}" text-anchor="end" class="what">${what}</text>`)
    for (const [name, runs] of rows) {
      const mid = median(runs) / MIB
      parts.push(
        `<text x="${LEFT - 8}" y="${y + 12}" text-anchor="end">${name.split(', ')[1]?.replace('.00', '')}</text>`,
        `<rect x="${LEFT}" y="${y}" width="${(at(mid) - LEFT).toFixed(1)}" height="${BAR}" class="bar"/>`,
        ...runs.map((run) => `<path d="M${at(run / MIB).toFixed(1)} ${y}v${BAR}" class="run"/>`),
        `<text x="${Math.max(at(mid), ...runs.map((run) => at(run / MIB))) + 6}" y="${y + 12}">${mid.toFixed(0)} MiB</text>`,
      )
      y += BAR + GAP
    }
    y += GAP * 2
  }
  const axis = TICKS.map(
    (tick) => `<path d="M${at(tick)} ${TOP - 6}V${y}" class="axis"/><text x="${at(tick)}" y="${y + 14}">${tick}</text>`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 44}" font-family="sans-serif" font-size="12">
<title>Peak memory of millrace for folders of 2 and of 4 GiB</title>
<style>rect.bg{fill:#fff}text{fill:#333}.what,.head{font-weight:bold}.bar{fill:#5b8bb5}.run{stroke:#1d3d5c;stroke-width:1.5}.axis{stroke:#ddd}</style>
<rect class="bg" width="${WIDTH}" height="${y + 44}"/>
<text x="12" y="22" class="head" font-size="14">Peak memory of the whole process, for worlds of 2 and of 4 GiB</text>
<text x="12" y="42">MiB resident. Bars are medians of three runs; the dark lines are the runs.</text>
${[...axis, ...parts].join('\n')}
<text x="12" y="${y + 34}">${date}, ${machine}. Synthetic world; ${source}</text>
</svg>
`
}

if (import.meta.main) {
  const newest = globSync('memory-*.json', { cwd: join(import.meta.dirname, 'results') })
    .sort()
    .at(-1) as string
  const results = JSON.parse(readFileSync(join(import.meta.dirname, 'results', newest), 'utf8'))
  writeFileSync(join(import.meta.dirname, '../docs/memory.svg'), memoryPicture(results, basename(newest)))
  console.log(`docs/memory.svg is of ${newest}.`)
}
