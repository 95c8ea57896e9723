// Writes docs/report-sample.html, the page of a made-up server: `node test/support/report-sample.ts`.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildReport } from '../../lib/report/model.ts'
import { renderReport } from '../../lib/report/page.ts'
import { NOW, worldFacts } from './report-facts.ts'
import { DAY_MS } from './retention.ts'

const policy = { keepHourly: 24, keepDaily: 14, keepWeekly: 8, keepMonthly: 12 }
const survival = worldFacts({ backups: 9000, policy, pruned: true })
const lobby = worldFacts({ server: 'lobby', backups: 10, everyMs: DAY_MS, agoMs: 1.25 * DAY_MS, known: 7 })
const page = renderReport(buildReport({ now: NOW, servers: [lobby, survival], unreadable: [] }))
writeFileSync(join(import.meta.dirname, '../../docs/report-sample.html'), page)
