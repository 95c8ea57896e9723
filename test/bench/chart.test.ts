import assert from 'node:assert/strict'
import { it } from 'node:test'
import { barChart, lineChart } from '../../bench/chart.ts'

const BARS = {
  title: 'Sealing <2 GiB>',
  unit: 's & more',
  groups: [
    { label: 'all', bars: [{ label: 'a "quoted" one', value: 2, runs: [1.9, 2, 2.4], bar: 4 }] },
    { label: '', bars: [{ label: 'half of it', value: 1 }] },
  ],
  note: 'Measured somewhere.',
}

/** The names of the tags that are open at the end, after each closing tag was held against the one it closes. */
function openTags(svg: string): string[] {
  const open: string[] = []
  for (const [, closes, name, isEmpty] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
    if (closes) assert.equal(open.pop(), name)
    else if (!isEmpty) open.push(name as string)
  }
  return open
}

it('bars are as long as their values, with a mark for each run and for the target', () => {
  const svg = barChart(BARS)
  const widths = [...svg.matchAll(/width="([\d.]+)" height="16" class="fill"/g)].map(([, width]) => Number(width))
  assert.equal(widths.length, 2)
  assert.ok(Math.abs((widths[0] as number) / (widths[1] as number) - 2) < 0.01)
  assert.equal([...svg.matchAll(/class="run"/g)].length, 3)
  assert.equal([...svg.matchAll(/class="target"/g)].length, 1)
})

it('text is escaped, and the document is whole', () => {
  const svg = barChart(BARS)
  assert.match(svg, /Sealing &lt;2 GiB&gt;/)
  assert.match(svg, /a &quot;quoted&quot; one/)
  assert.match(svg, />2 s &amp; more</)
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/)
  assert.deepEqual(openTags(svg), [])
})

it('lines go through their points, along a linear and along a logarithmic axis', () => {
  const series = [{ name: 'RSS', points: [1, 10, 100].map((x) => [x, 150] as const) }]
  const chart = { title: 'Memory', xLabel: 'GiB', yLabel: 'MiB', series, note: '' }
  const places = (svg: string) => {
    const path = [...svg.matchAll(/<path d="M([^"]+)" class="line"/g)].at(-1)?.[1] as string
    return path.split('L').map((point) => Number(point.split(' ')[0]))
  }
  const [a, b, c] = places(lineChart({ ...chart, xLog: true })) as [number, number, number]
  assert.ok(Math.abs(b - a - (c - b)) < 0.2, 'equal factors are equal ways')
  const [d, e, f] = places(lineChart(chart)) as [number, number, number]
  assert.ok(Math.abs((f - d) / (e - d) - 11) < 0.2, 'equal steps are equal ways')
})

it('charts of nothing are charts all the same', () => {
  for (const svg of [
    barChart({ title: 'none', unit: '', groups: [], note: '' }),
    lineChart({ title: 'none', xLabel: '', yLabel: '', series: [{ name: 'none', points: [] }], note: '', xLog: true }),
  ]) {
    assert.doesNotMatch(svg, /NaN|undefined|Infinity/)
    assert.deepEqual(openTags(svg), [])
  }
})
