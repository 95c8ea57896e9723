import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { type Browser, chromium, type Page } from 'playwright-core'
import { buildReport, type ServerFacts } from '../../lib/report/model.ts'
import { renderReport } from '../../lib/report/page.ts'
import { NOW, worldFacts } from '../support/report-facts.ts'
import { DAY_MS } from '../support/retention.ts'

// In Debian's Chromium: what the page looks like there is what a server owner sees.
const BROWSER = process.env.MILLRACE_CHROMIUM ?? '/usr/bin/chromium'
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']
const DEADLINE_MS = 120_000

let folder: string
let browser: Browser

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-browser-'))
  // A user-data-dir of its own, which is removed when the browser is closed, is what launch makes.
  browser = await chromium.launch({
    executablePath: BROWSER,
    args: [...FLAGS, '--disable-component-update', '--disable-sync'],
    timeout: DEADLINE_MS,
  })
})

after(async () => {
  await browser?.close()
  await rm(folder, { recursive: true, force: true })
})

const few = () => worldFacts({ backups: 10, server: 'lobby', everyMs: DAY_MS, known: 7 })
const many = () => worldFacts({ backups: 10_000 })
const usual = () =>
  worldFacts({ backups: 9000, pruned: true, policy: { keepHourly: 24, keepDaily: 14, keepMonthly: 12 } })

interface Shown {
  page: Page
  /** Whatever the browser complained of, and every request but that for the page. */
  complaints: string[]
}

async function show(name: string, servers: ServerFacts[], width: number, scheme: 'light' | 'dark'): Promise<Shown> {
  const file = join(folder, `${name}-${width}-${scheme}.html`)
  await writeFile(file, renderReport(buildReport({ now: NOW, servers, unreadable: [] })))
  const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme: scheme })
  page.setDefaultTimeout(DEADLINE_MS)
  const complaints: string[] = []
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => complaints.push(`pageerror: ${error.message}`))
  page.on('request', (request) => {
    if (request.url() !== pathToFileURL(file).href) complaints.push(`request: ${request.url()}`)
  })
  await page.goto(pathToFileURL(file).href, { timeout: DEADLINE_MS })
  return { page, complaints }
}

interface Measured {
  /** Pixels that the page is wider than its window. */
  overflow: number
  /** Labels of one axis that are on each other. */
  overlaps: string[]
  /** Text beyond the window. */
  outside: string[]
  /** The height of the smallest text in a picture. */
  smallest: number
  rows: number
  marks: number
  ground: string
  text: string
}

/** Runs in the page, where this project's types know nothing. */
const MEASURE = await readFile(join(import.meta.dirname, '../support/page-measure.js'), 'utf8')

for (const [name, facts] of Object.entries({ few, many, usual })) {
  for (const width of [400, 700, 1040, 1400]) {
    test(`the page of ${name} snapshots fits ${width} pixels in both schemes, and the browser complains of nothing`, async () => {
      const grounds = new Set<string>()
      for (const scheme of ['light', 'dark'] as const) {
        const server = facts()
        const { page, complaints } = await show(name, [server], width, scheme)
        const found = await page.evaluate<Measured>(MEASURE)
        assert.deepEqual(complaints, [])
        assert.ok(found.overflow <= 0, `${found.overflow} pixels wider than the window`)
        assert.deepEqual(found.overlaps, [], 'labels of an axis are on each other')
        assert.deepEqual(found.outside, [], 'text is outside of the window')
        assert.ok(found.smallest >= 11, `text in a picture is ${found.smallest} pixels high`)
        assert.ok(found.rows > 8 && found.marks > 20, JSON.stringify([found.rows, found.marks]))
        for (const said of [
          server.server,
          'What is kept, and by which rule',
          'Size of each snapshot',
          'unfinished',
          'GiB',
          'UTC',
        ]) {
          assert.ok(found.text.includes(said), said)
        }
        grounds.add(found.ground)
        await page.close()
      }
      assert.equal(grounds.size, 2, 'the schemes have one ground')
    })
  }
}

test('the page is well-formed XML to the browser, and a script that gets into it does not run', async () => {
  const facts = few()
  const hostile = '<script>window.hacked = true</script><img src="x" onerror="window.hacked = true">'
  facts.runs = [{ ...facts.runs[0]!, outcome: 'failed', error: { code: 'X', message: hostile } }]
  facts.pins = [{ id: facts.stores[0].decisions[0]!.snapshot.id, note: hostile, since: null, snapshot: true }]
  facts.stores[0].decisions[0]!.snapshot.pinned = true
  const { page, complaints } = await show('hostile', [facts], 700, 'light')
  const shown = await page.evaluate<string>('document.body.innerText')
  assert.ok(shown.includes('<script>window.hacked = true</script>'))
  assert.equal(await page.evaluate("'hacked' in window"), false)
  assert.equal(await page.locator('script, img').count(), 0)
  assert.equal(await page.locator('svg.plot').count(), await page.locator('svg.plot > title + desc').count())
  assert.deepEqual(complaints, [])
  const source = renderReport(buildReport({ now: NOW, servers: [facts], unreadable: [] }))
  const parse = `new DOMParser().parseFromString(${JSON.stringify(source)}, 'application/xml')`
  assert.equal(await page.evaluate(`${parse}.querySelector('parsererror')?.textContent ?? null`), null)
  const inject =
    "const s = document.createElement('script'); s.textContent = 'window.hacked = true'; document.body.append(s)"
  const ran = await page.evaluate(`${inject}; 'hacked' in window`)
  assert.equal(ran, false, 'the policy lets a script run')
  assert.match(complaints.join(), /Content Security Policy/)
  await page.close()
})

test('a wide table scrolls by itself and can be reached with the keyboard; the older months unfold', async () => {
  const { page } = await show('many', [many()], 400, 'light')
  const table = page.getByRole('region', { name: 'Snapshots of survival' })
  const [inner, outer] = await table.evaluate((one) => [one.scrollWidth, one.clientWidth] as const)
  assert.ok(inner > outer)
  await table.focus()
  assert.equal(await page.evaluate("document.activeElement.getAttribute('aria-label')"), 'Snapshots of survival')
  assert.equal(await page.getByRole('columnheader', { name: 'Month' }).isVisible(), false)
  await page.getByText('Older snapshots, by month').click()
  assert.equal(await page.getByRole('columnheader', { name: 'Month' }).isVisible(), true)
  const image = page.getByRole('img', { name: 'Snapshots of survival by age, and the rules that keep them' })
  assert.equal(await image.count(), 1)
  await page.close()
})
